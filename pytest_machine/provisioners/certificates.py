"""The certificates that the daemon answers with: files that are given, put where it reads them.

They come before the engine: our own image's init starts a daemon as soon as there is one, and it must find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pytest_machine.connection import Connection
from pytest_machine.facts import directory
from pytest_machine.guest import Guest, applied
from pytest_machine.provisioner import COPYING_THERE, Facts, Tell, Wanted


class CertificatesProvisioner:
    """Writes the files that are wanted; the daemon is restarted when its settings are seen to."""

    name: ClassVar[str] = "certificates"

    def provision(self, connection: Connection, facts: Facts, wanted: Wanted, *, tell: Tell) -> Sequence[str]:
        """Write those that differ."""
        tell(COPYING_THERE)
        files = {
            path.replace("/etc/docker", directory(facts), 1) if path.startswith("/etc/docker/") else path: file
            for path, file in wanted.files.items()
        }
        written = Guest(connection, facts).write(files, stale=[applied(facts)])
        return [f"wrote {path}" for path in written]
