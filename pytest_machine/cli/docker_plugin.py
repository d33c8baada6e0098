"""This program as a plugin of the ``docker`` program: ``docker machine ls``.

Docker asks a plugin who it is by the command ``docker-cli-plugin-metadata``, and later hands it all of its own words:
``-D machine ls``. A plugin lies in a directory of Docker's and not on the ``PATH``: it hides no other program.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import click

from .command import Failed, Ours

METADATA = "docker-cli-plugin-metadata"
NAME = "machine"
PROGRAM = f"docker {NAME}"
_FILE = "docker-machine.exe" if os.name == "nt" else "docker-machine"
_MARK = "# The plugin of pytest-machine, written by: docker-machine install-cli-plugin"
# Docker's own flags that have a value, and stand before the plugin's name.
_VALUED = ("-c", "--context", "--config", "-H", "--host", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey")


def metadata() -> str:
    """Return what a plugin has to say of itself."""
    from importlib.metadata import version

    return json.dumps(
        {
            "SchemaVersion": "0.1.0",
            "Vendor": "The pytest-machine developers",
            "Version": version("pytest-machine"),
            "ShortDescription": "Manage machines with Docker on them",
        }
    )


def inner(words: Sequence[str]) -> list[str] | None:
    """Return what is for us of the words that Docker hands to its plugin; None when it is not Docker who calls.

    Of Docker's own flags, two have a meaning here too: ``--debug``, and ``--config``, which goes to the environment.
    """
    ours: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        flag, given, value = rest.pop(0).partition("=")
        if flag in _VALUED and not given:
            value = rest.pop(0) if rest else ""
        if flag in ("-D", "--debug"):
            ours.append("--debug")
        elif flag == "--config":
            os.environ["DOCKER_CONFIG"] = value
    if rest[:1] == [NAME]:
        return [*ours, *rest[1:]]
    if rest[:2] == ["help", NAME]:
        return ["help", *rest[2:]]
    return None


@click.command("install-cli-plugin", cls=Ours)
@click.option("--uninstall", is_flag=True, help="Take it away again")
@click.pass_context
def install_cli_plugin(ctx: click.Context, *, uninstall: bool) -> None:  # noqa: ARG001  # a command has one
    """Make this program a plugin of docker: docker machine ls.

    Again: nothing changes. The plugin goes to the directory cli-plugins in DOCKER_CONFIG, or else in ~/.docker.
    """
    from pytest_machine.contexts import home
    from pytest_machine.store import write
    from pytest_machine.support import files
    from pytest_machine.support.parsing import Malformed
    from pytest_machine.support.text import shell_word

    place = home() / "cli-plugins" / _FILE
    with contextlib.suppress(FileNotFoundError):
        try:
            found = files.read(place)
        except Malformed:
            found = b""
        if not _is_ours(found):
            raise Failed(f"There is a Docker plugin of another make: '{place}'", hint=f"rm {shell_word(place)}")
        if uninstall:
            place.unlink()
            click.echo(f"Removed: {place}")
            return
        if found == _content():
            click.echo(f"Nothing to do: {place} is there. Try: {PROGRAM} ls")
            return
    if uninstall:
        click.echo(f"Nothing to do: there is no {place}")
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    write(place, _content(), mode=0o755)
    click.echo(f"Installed: {place}. Try: {PROGRAM} ls")


def _content() -> bytes:
    """Return a program that is this one, wherever it is called from."""
    if os.name == "nt":
        program = shutil.which(_FILE, path=sysconfig.get_path("scripts")) or shutil.which(_FILE)
        if program is None:
            raise Failed(f"There is no '{_FILE}' here.", hint="pip install --force-reinstall pytest-machine")
        return Path(program).read_bytes()
    # -P: a directory that happens to have a module of ours must not become a part of it.
    return f'#!/bin/sh\n{_MARK}\nexec {shlex.quote(sys.executable)} -P -m pytest_machine "$@"\n'.encode()


def _is_ours(content: bytes) -> bool:
    return content == _content() or _MARK.encode() in content or b"pytest_machine.cli" in content
