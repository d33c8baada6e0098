"""The files of a machine that follow from the host that it sits on: whom it asks for names."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from pytest_machine.model import SeedFile

# systemd-resolved's own list of the servers behind its local stub, which nobody but this host can reach.
_RESOLV = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def files(resolv: Sequence[Path] = _RESOLV) -> dict[str, SeedFile]:
    """Return what a machine on this host is born with besides its seed."""
    return {"/etc/resolv.conf": SeedFile(name_servers(resolv).encode())}


def name_servers(candidates: Sequence[Path]) -> str:
    """Return the first file's text that names a server which a machine can reach, or a comment that says so."""
    for path in candidates:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        kept = [line for line in lines if not _is_local(line)]
        if any(line.startswith("nameserver") for line in kept):
            return "\n".join(kept) + "\n"
    return "# this host has no name server that a machine could reach\n"


def _is_local(line: str) -> bool:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return False
    try:
        return ipaddress.ip_address(words[1].partition("%")[0]).is_loopback
    except ValueError:
        return True
