"""``scp``: files between machines and this computer, and between machines."""

from __future__ import annotations

from pathlib import Path

import click

from .command import Command, Session, told_help
from .remote import HAS_RSYNC, HAS_SFTP, LOST, called, check_here, configured, place, tell_lack

# What rsync returns when there is none at the other end, among other things.
_NO_RSYNC = (12, 127)
_NO_RSYNC_HERE = "You must have a copy of the rsync binary locally to use the --delta option"


@click.command(cls=Command)
@click.argument("paths", nargs=-1, metavar="[[USER@]MACHINE:]PATH [[USER@]MACHINE:]PATH")
@click.option("-r", "--recursive", is_flag=True, help="Copy files recursively (required to copy directories)")
@click.option("-d", "--delta", is_flag=True, help="Send only what has changed (uses rsync)")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.pass_context
def scp(ctx: click.Context, paths: tuple[str, ...], *, recursive: bool, delta: bool, quiet: bool) -> None:
    """Copy files between machines.

    Arguments are [[user@]machine:][path] [[user@]machine:][path].

    The machine 'localhost' is this computer. What is copied from one machine to another comes through here: the two
    need not know each other. The exit code is that of scp, or rsync.
    """
    if len(paths) != 2:
        raise told_help(ctx, "Improper number of arguments")
    session = ctx.ensure_object(Session)
    if not delta:
        check_here("scp", "You must have a copy of the scp binary locally to use the scp feature")
    elif not all(":" in path for path in paths):
        check_here("rsync", _NO_RSYNC_HERE)
    places = [place(session, path) for path in paths]
    machines = [each.machine for each in places if each.machine is not None]
    flags = ["-r"] if recursive else []
    with configured(places) as config:
        words = ["--", *(each.word for each in places)]
        if delta and len(machines) > 1:
            from .delta import copy

            code = copy(config, places[0], places[1], [*flags, *([] if quiet else ["--progress"])])
        elif delta:
            check_here("rsync", _NO_RSYNC_HERE)
            code = called([*_rsync(config, quiet=quiet), *flags, *words])
        else:
            code = called(["scp", "-F", str(config), "-3", *flags, *(["-q"] if quiet else []), *words])
            if code == LOST:
                tell_lack(config, machines, *HAS_SFTP, lacking="SFTP server", package="openssh-sftp-server")
        if delta and code in _NO_RSYNC:
            tell_lack(config, machines, *HAS_RSYNC, lacking="'rsync'", package="rsync")
    ctx.exit(code)


def _rsync(config: Path, *, quiet: bool) -> list[str]:
    # rsync splits this at blanks; within quotes, two of them stand for one.
    quoted = str(config).replace('"', '""')
    return ["rsync", *([] if quiet else ["--progress"]), "-e", f'ssh -F "{quoted}"']
