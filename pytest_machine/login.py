"""How OpenSSH's programs log in to a machine: by flags for one, by a configuration in which several have names.

A configuration is what lets ``scp`` copy between two machines that have nothing in common: each has its own key, port,
user and host key there. The user's own configuration, agent and known hosts play no part in either.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .model import Address

# Seconds. A machine on this computer answers at once; one in a cloud that boots lets packets fall for a while.
CONNECT_TIMEOUT = 10


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

    @property
    def options(self) -> dict[str, str]:
        """OpenSSH's options, but for where and as whom."""
        own = {"IdentityFile": quote(self.key), "IdentitiesOnly": "yes", "IdentityAgent": "none"}
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
            found["HostKeyAlias"] = self.known_as
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
        where = {"HostName": quote(self.address.ip), "Port": str(self.address.ssh_port), "User": self.address.user}
        lines = [f"  {name} {value}\n" for name, value in {**where, **self.options}.items()]
        return f"Host {self.name}\n" + "".join(lines)


def configuration(logins: Iterable[Login]) -> str:
    """Return what OpenSSH's programs read with ``-F``: machines by their names, and nobody else."""
    return "\n".join(login.entry for login in logins)


def host(address: Address) -> str:
    """Return an address as known hosts are noted by it."""
    return address.ip if address.ssh_port == 22 else f"[{address.ip}]:{address.ssh_port}"


def quote(text: Path | str) -> str:
    """Return a value as options take it: OpenSSH splits some at blanks, and takes % for a token of its own."""
    return f'"{text}"'.replace("%", "%%")
