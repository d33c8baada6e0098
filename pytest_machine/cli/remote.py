"""Machines as ``ssh``, ``scp``, ``rsync`` and ``sshfs`` reach them, and the paths in them that their users write."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_machine.errors import MachineError
from pytest_machine.support.text import shell_word

from .command import Failed, Session

if TYPE_CHECKING:
    from pytest_machine.login import Login
    from pytest_machine.model import Address

    from .noted import Noted

LOST = 255
"""What ``ssh`` returns when it fails."""
HAS_RSYNC = ("command -v rsync",)
HAS_SFTP = ("-s", "sftp")
_HERE = "localhost"


@dataclass(frozen=True)
class Place:
    """A path, in a machine or here."""

    path: str
    machine: Noted | None = None
    user: str = ""
    """Whom to log in as, where it is not the machine's own user."""

    @property
    def whom(self) -> str:
        """The machine, and the user where that is not its own, as ``ssh`` is given them with our configuration."""
        assert self.machine is not None
        return f"{self.user}@{self.machine.name}" if self.user else self.machine.name

    @property
    def word(self) -> str:
        """What programs are given that read our configuration, in which machines have their names."""
        if self.machine is not None:
            return f"{self.whom}:{self.path}"
        # Or it would pass for an option, or for a path in a machine.
        plain = self.path if os.name == "nt" else f"./{self.path}"
        return plain if self.path.startswith("-") or ":" in self.path.partition("/")[0] else self.path


def place(session: Session, text: str) -> Place:
    """Read ``[[USER@]MACHINE:]PATH``."""
    before, colon, path = text.partition(":")
    drive = os.name == "nt" and re.match(r"[A-Za-z]:[\\/]", text)
    if not colon or "/" in before or drive:
        return Place(text)
    user, at, name = before.partition("@")
    if not at:
        user, name = "", before
    return Place(path or ".") if name == _HERE else Place(path, known(session, name), user)


def known(session: Session, name: str, said: str = "Error loading host") -> Noted:
    """Return the machine of that name; raises in the words that Docker Machine has here."""
    from . import noted

    try:
        return noted.load(session, name)
    except MachineError as error:
        raise Failed(f"{said}: Error loading host: {error}") from error


def login(machine: Noted, address: Address) -> Login:
    """Return how OpenSSH logs in to a machine that is reached there now, wherever it was when it was made."""
    from pytest_machine.login import check_key, host

    from . import noted

    if not address.ssh_port:
        raise Failed(
            f'Host "{machine.name}" has no SSH: nothing but its Docker is known',
            hint=f"docker-machine env {machine.name}",
        )
    found = noted.current(machine).machine().connection.login
    if not found.agent:
        _check_alone(found.key)
        check_key(found.key)
    known_as = host(found.address) if found.address != address else ""
    return replace(found, name=machine.name, address=address, known_as=known_as, control=None)


def _check_alone(key: Path) -> None:
    """Raise when others may read the key: OpenSSH would not take it, and say so at length."""
    mode = key.stat().st_mode & 0o777 if os.name != "nt" and key.exists() else 0
    if mode & 0o077:
        raise Failed(f"permissions 0{mode:o} for '{key}' are too open", hint=f"chmod 600 {shell_word(key)}")


@contextlib.contextmanager
def configured(places: Sequence[Place]) -> Iterator[Path]:
    """Give a configuration in which the machines of these places have their names, for the time of the block."""
    from pytest_machine.login import configuration
    from pytest_machine.store import write

    from . import noted

    machines = {each.machine.name: each.machine for each in places if each.machine is not None}
    logins = [login(machine, noted.running(machine)) for machine in machines.values()]
    with tempfile.TemporaryDirectory(prefix="ptm-") as directory:
        file = Path(directory, "ssh_config")
        write(file, os.fsencode(configuration(logins)), durable=False)
        yield file


def check_here(program: str, sentence: str) -> None:
    """Raise when a program is not on the PATH."""
    if shutil.which(program) is None:
        raise Failed(sentence)


def tell_lack(config: Path, machines: Sequence[Noted], *question: str, lacking: str, package: str) -> None:
    """Say which of the machines has to answer no to a question of ours: asked when something failed, not before."""
    for machine in machines:
        argv = ["ssh", "-F", str(config), *question[:-1], machine.name, question[-1]]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
        # 255 is what ssh returns when it could not ask, and for a subsystem that there is not.
        if done.returncode not in (0, LOST) or "subsystem request failed" in done.stderr:
            error = Failed(
                f"There is no {lacking} in the machine '{machine.name}'.",
                hint="install it there, on Debian: "
                f"docker-machine ssh {machine.name} sudo apt-get install -y {package}",
            )
            click.echo(str(error), err=True)


def called(argv: Sequence[str]) -> int:
    """Run a program with this one's terminal and streams; return its exit code as a shell tells it."""
    code = subprocess.call(argv)
    return code if code >= 0 else 128 - code
