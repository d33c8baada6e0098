"""Service: what listens on a machine, and how one sees that it answers.

Each of the questions here returns nothing when the answer is yes, and raises otherwise: so they are waited for.
"""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from .errors import UsageError
from .waiting import NotYet


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a container's published port is reached from here."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def pattern(log: str | None, container: str | Any) -> re.Pattern[str] | None:
    """Return what a container's log has to show; raises `UsageError` for what cannot be waited for."""
    if log is None:
        return None
    if container is None:
        raise UsageError(
            f"'{log}' can only be waited for in a container's log, and no container was named.",
            hint=f"machine.wait_for(log={log!r}, container='web')",
        )
    try:
        return re.compile(log, re.MULTILINE)
    except re.error as error:
        raise UsageError(
            f"'{log}' is no regular expression.",
            facts={"reason": error},
            hint=f"machine.wait_for(log=re.escape({log!r}), ...) waits for the very text",
        ) from error


def answers(url: str) -> None:
    """Ask for a page; one at or above 400 is `NotYet`."""
    # Never through the environment's proxy, which cannot see the machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5):
            pass
    except urllib.error.HTTPError as error:
        # It is the answer too, with a connection that wants to be closed.
        error.close()
        raise NotYet(f"HTTP {error.code} {error.reason}") from error


def accepts(place: HostPort) -> None:
    """Connect to a port."""
    with socket.create_connection((place.host, place.port), timeout=5):
        pass


def keeps(place: HostPort) -> None:
    """Connect to a port that is forwarded.

    Such a one accepts whether somebody listens behind it or not; who hangs up at once is nobody.
    """
    with socket.create_connection((place.host, place.port), timeout=5) as connection:
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError):
            if not connection.recv(1):
                raise NotYet("nobody listens there")


def shows(log: str, pattern: re.Pattern[str]) -> None:
    """Look for a pattern in a log; `NotYet` says what its last line is."""
    if not pattern.search(log):
        raise NotYet(f"its last line is {log.splitlines()[-1]!r}" if log else "it is empty")
