"""How OpenSSH's programs log in to a machine: by flags for one, by a configuration in which several have names.

A configuration is what lets ``scp`` copy between two machines that have nothing in common: each has its own key, port,
user and host key there. The user's own configuration, agent and known hosts play no part in either.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import BadSpec, StoreError, UsageError
from .model import Address
from .support import files, given, logins, parsing
from .support.parsing import Malformed
from .support.text import shell_word, visible

# Seconds. A machine on this computer answers at once; one in a cloud that boots lets packets fall for a while.
CONNECT_TIMEOUT = 10

# A machine's name, and an address as known hosts are noted by it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_KNOWN_AS = re.compile(r"\[[^\s\[\]]+\]:\d+|[^\s\[\]-][^\s\[\]]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A machine as OpenSSH sees it."""

    name: str = ""
    """What it is called in a configuration; a machine's name is good for that as it is."""
    address: Address
    key: Path
    known_hosts: Path
    known_as: str = ""
    """Under which name its host key is in the file; empty: under its address."""
    agent: bool = False
    """Log in by what the user's own ``ssh`` has (its agent, the keys in their usual places), not by `key`."""
    trust: bool = False
    """Note a host key that nobody has noted. Never one that differs from what is noted."""
    control: Path | None = None
    """The socket of a connection to share."""

    def __post_init__(self) -> None:
        """Raise `BadSpec` for what would be another option, line or word for OpenSSH, wherever it comes from."""
        try:
            parsing.host(self.address.ip, "its address")
            logins.user(self.address.user, "its user")
            parsing.port(self.address.ssh_port, "its SSH port")
            _check(self.name, _NAME)
            _check(self.known_as, _KNOWN_AS)
        except Malformed as error:
            raise BadSpec(
                f"OpenSSH cannot be given the machine '{visible(self.name or str(self.address.ip), lines=False)}'.",
                facts={"reason": error},
                hint="an address such as 192.0.2.1 or host.example, a port from 1 to 65535, a user such as root",
            ) from error

    @property
    def options(self) -> dict[str, str]:
        """OpenSSH's options, but for where and as whom."""
        own = {"IdentityFile": quote(self.key), "IdentitiesOnly": "yes", "IdentityAgent": "none"}
        if not self.agent and logins.has_passphrase(_content(self.key)):
            # The user's agent may hold it. Without a public half, OpenSSH does not know which of its keys that is.
            del own["IdentityAgent"]
            own["IdentitiesOnly"] = "yes" if _public_half(self.key) else "no"
        found = {
            "BatchMode": "yes",
            **({} if self.agent else own),
            "StrictHostKeyChecking": "accept-new" if self.trust else "yes",
            "UserKnownHostsFile": quote(self.known_hosts),
            "GlobalKnownHostsFile": os.devnull,
            # Or the machine could add keys to the file.
            "UpdateHostKeys": "no",
            "ConnectTimeout": str(CONNECT_TIMEOUT),
            # A machine that is frozen or cut off is given up after 15 s.
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "LogLevel": "ERROR",
            "ControlPath": quote(self.control) if self.control else "none",
        }
        if self.known_as:
            found["HostKeyAlias"] = quote(self.known_as)
        return found

    @property
    def argv(self) -> list[str]:
        """The command up to ``user@host``: what follows is run there, and nothing gives a shell."""
        flags = [f"-o{name}={value}" for name, value in self.options.items()]
        where = ["-p", str(self.address.ssh_port), f"{self.address.user}@{self.address.ip}"]
        return ["ssh", "-F", os.devnull, *flags, *where]

    @property
    def entry(self) -> str:
        """Its part of a configuration."""
        where = {
            "HostName": quote(self.address.ip),
            "Port": str(self.address.ssh_port),
            "User": quote(self.address.user),
        }
        lines = [f"  {name} {value}\n" for name, value in {**where, **self.options}.items()]
        return f"Host {self.name}\n" + "".join(lines)


def configuration(logins: Iterable[Login]) -> str:
    """Return what OpenSSH's programs read with ``-F``: machines by their names, and nobody else."""
    return "\n".join(login.entry for login in logins)


def host(address: Address) -> str:
    """Return an address as known hosts are noted by it."""
    return address.ip if address.ssh_port == 22 else f"[{address.ip}]:{address.ssh_port}"


def check_key(key: Path) -> None:
    """Raise `UsageError` for a key with a passphrase that the user's agent does not hold: nobody is asked for it."""
    if not logins.has_passphrase(_content(key)):
        return
    facts = {"reason": "it has a passphrase, and there is no agent that holds it: SSH_AUTH_SOCK is not set"}
    if os.environ.get("SSH_AUTH_SOCK"):
        held = _agents_keys()
        public = _public_half(key)
        if any(public in line.split() for line in held) or (held and not public):
            return
        facts = {"reason": f"it has a passphrase, and the agent does not hold it; it has {len(held)} keys"}
    raise UsageError(
        f"The key '{key}' cannot be used.",
        facts=facts,
        hint=f"ssh-add {shell_word(key)}"
        if os.environ.get("SSH_AUTH_SOCK")
        else f'eval "$(ssh-agent)" && ssh-add {shell_word(key)}',
    )


def _agents_keys() -> list[str]:
    """Return the public keys that the user's agent holds; none where it does not answer."""
    try:
        done = subprocess.run(
            ["ssh-add", "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _public_half(key: Path) -> str:
    """Return a key's public half in base64, of the file itself or of the one beside it; empty: it is not known."""
    beside = _content(key.with_name(f"{key.name}.pub")).split()
    return logins.public_half(_content(key)) or (beside[1].decode("ascii", "replace") if len(beside) > 1 else "")


def _content(path: Path) -> bytes:
    try:
        return given.read(path, largest=logins.LONGEST_KEY)
    except files.UNREADABLE:
        return b""


def _check(name: str, form: re.Pattern[str]) -> None:
    if name and not form.fullmatch(parsing.text(name, "its name")):
        raise Malformed(f"its name is '{name}'")


def quote(text: Path | str) -> str:
    """Return a value as OpenSSH's options take it, in a configuration and as ``-o NAME=VALUE``.

    OpenSSH splits some values at blanks, takes a percent sign for a token of its own, and puts in variables, for which
    it has no quotes. Raises `StoreError` for a text that it cannot be given.
    """
    found = str(text)
    if not quotable(found):
        raise StoreError(
            f"OpenSSH cannot be given '{visible(found, lines=False)}'.",
            facts={"reason": "a line break or ${NAME} in a path has a meaning for it that no quotes take away"},
            hint="keep machines in another directory: MACHINE_STORAGE_PATH, PYTEST_MACHINE_HOME, TMPDIR or HOME",
        )
    escaped = found.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def quotable(text: str) -> bool:
    """Return whether OpenSSH can be given a text at all."""
    return "${" not in text and not any(ord(character) < 32 or ord(character) == 127 for character in text)
