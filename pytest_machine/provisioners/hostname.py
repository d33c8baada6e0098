"""The machine's own name: what it calls itself, now and after the next boot, and that it knows itself by it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from pytest_machine.connection import Connection
from pytest_machine.guest import Guest, Step
from pytest_machine.model import SeedFile
from pytest_machine.provisioner import Facts, Tell, Wanted

# Where systemd runs, its service must hear of it, or it sets the old name again; where it does not, hostname is all.
_NAME = """\
if [ -d /run/systemd/system ] && command -v hostnamectl >/dev/null 2>&1; then hostnamectl set-hostname "$1"
else hostname "$1"
fi
"""
_OWN = "127.0.1.1"  # Debian's address for a machine's own name (Debian Reference, "The hostname resolution")


class HostnameProvisioner:
    """Gives the machine its name, where one is wanted."""

    name: ClassVar[str] = "hostname"

    def provision(self, connection: Connection, facts: Facts, wanted: Wanted, *, tell: Tell) -> Sequence[str]:  # noqa: ARG002  # quick
        """Name the machine; nothing where no name is wanted, or where it is called so."""
        if not wanted.hostname:
            return []
        guest = Guest(connection, facts)
        before = guest.do(Step("asking for its name", "uname -n", seconds=60)).strip()
        # The disk of boot2docker's own; everywhere else /etc is one.
        home = "/var/lib/boot2docker/etc/hostname" if facts.manager == "boot2docker" else "/etc/hostname"
        files = {home: SeedFile(f"{wanted.hostname}\n".encode())}
        known = guest.read(["/etc/hosts"]).get("/etc/hosts", "")
        if (named := hosts(known, wanted.hostname)) != known:
            files["/etc/hosts"] = SeedFile(named.encode())
        if before != wanted.hostname:
            guest.do(Step("naming the machine", _NAME, (wanted.hostname,), seconds=60))
        written = guest.write(files)
        if before != wanted.hostname:
            return [f"the machine is called '{wanted.hostname}' (was '{before}')"]
        return [f"wrote {path}" for path in written]


def hosts(text: str, name: str) -> str:
    """Return ``/etc/hosts`` in which a machine finds its own name; all else in it is left as it is."""
    lines = text.splitlines()
    for line in lines:
        if name in line.partition("#")[0].split()[1:]:
            return text
    for number, line in enumerate(lines):
        if re.match(rf"\s*{re.escape(_OWN)}\s", line):
            lines[number] = f"{_OWN} {name}"
            break
    else:
        lines.append(f"{_OWN} {name}")
    return "\n".join(lines) + "\n"
