"""``mount``: a directory of a machine, here, by sshfs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import click

from .command import Command, Failed, Session, told_help

if TYPE_CHECKING:
    from .remote import Place

_CONFIG = "ssh_config"


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[[USER@]MACHINE:]PATH [MOUNTPOINT]")
@click.option("-u", "--unmount", is_flag=True, help="Unmount instead of mount")
@click.pass_context
def mount(ctx: click.Context, words: tuple[str, ...], *, unmount: bool) -> None:
    """Mount or unmount a directory from a machine with SSHFS.

    Arguments are [[user@]machine:][path] [mountpoint]. Without a machine, 'default' is meant; without a mount point,
    the same path here. The exit code is that of sshfs.
    """
    from .remote import Place, called

    if not 1 <= len(words) <= 2:
        raise told_help(ctx, "Improper number of arguments")
    taker = _taker() if unmount else []
    if not unmount and shutil.which("sshfs") is None:
        raise Failed("You must have a copy of the sshfs binary locally to use the mount feature")
    there = _there(ctx.ensure_object(Session), words[0])
    point = Place(words[1] if len(words) == 2 else there.path).word
    ctx.exit(called([*taker, point]) if unmount else _mount(there, point))


def _there(session: Session, text: str) -> Place:
    from .noted import DEFAULT
    from .remote import Place, known

    before, colon, path = text.partition(":")
    user, _, name = (before if colon else DEFAULT).rpartition("@")
    return Place(path if colon else text, known(session, name, "error loading host"), user)


def _mount(there: Place, point: str) -> int:
    from pytest_machine.login import configuration
    from pytest_machine.store import write

    from . import noted
    from .remote import HAS_SFTP, login, tell_lack

    assert there.machine is not None
    found = login(there.machine, noted.running(there.machine))
    # Not a temporary file: what is mounted connects anew when it must, for as long as it is there.
    config = there.machine.record.directory / _CONFIG
    write(config, os.fsencode(configuration([found])), durable=False)
    # A file and not a pipe: what goes on in the background holds it, and whoever waits for its end would wait for ever.
    with tempfile.TemporaryFile() as said:
        code = subprocess.call(["sshfs", "-F", str(config), there.word, point], stdout=said, stderr=said)
        said.seek(0)
        click.echo(said.read(), nl=False, err=True)
    if code:
        tell_lack(config, [there.machine], *HAS_SFTP, lacking="SFTP server", package="openssh-sftp-server")
    return code


def _taker() -> list[str]:
    """Return the command that unmounts; what is mounted knows nothing of the machine."""
    for program in ("fusermount", "fusermount3"):
        if shutil.which(program):
            return [program, "-u"]
    if sys.platform == "darwin":  # there is no fusermount, and none is needed
        return ["umount"]
    raise Failed("You must have a copy of the fusermount binary locally to use the unmount option")
