"""Service: what listens on a machine, and how one sees that it answers.

Each of the questions here returns nothing when the answer is yes, and raises otherwise: so they are waited for.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .errand import Errand
from .errors import UsageError
from .waiting import NotYet


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a container's published port is reached from here."""

    host: str
    port: int
    forwarded: bool = field(default=False, compare=False, repr=False)
    """Whether it leads there through SSH: then it accepts whether somebody listens behind it or not."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# Docker's words for every address of a host.
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104


def published(bound: Sequence[Mapping[str, str]]) -> tuple[str, int]:
    """Return where a container's port is best reached, of all that Docker says: an address of its host's, and a port.

    The address is empty where the port is published at all of them; a loopback one is the last that is taken.
    """
    places = [(str(each.get("HostIp") or ""), int(each["HostPort"])) for each in bound]
    at, port = min(places, key=lambda place: (place[0] not in _EVERYWHERE, is_loopback(place[0])))
    return "" if at in _EVERYWHERE else at, port


def is_loopback(at: str) -> bool:
    """Whether an address is one at which a host speaks to itself alone."""
    return bool(at) and ipaddress.ip_address(at).is_loopback


def page(http: str) -> tuple[int | None, str]:
    """Return what `http=` asks for: a port of the machine's and a path there, or no port and a whole URL.

    Raises `UsageError` for what is neither.
    """
    if not isinstance(http, str):
        raise _no_page(http, f"it is no text but of type {type(http).__name__}")
    if not re.fullmatch(r"[\x21-\x7e]+", http):
        raise _no_page(http, "a URL has no blanks and no letters but ASCII's; urllib.parse.quote() writes others")
    if match := re.fullmatch(r":(\d+)([/?].*)?", http):
        path = match[2] or "/"
        return number(int(match[1])), path if path.startswith("/") else f"/{path}"
    try:
        parts = urlsplit(http)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _no_page(http, str(error)) from error
    if parts.scheme not in ("http", "https") or not host:
        raise _no_page(http, "it takes ':PORT/PATH' or a whole URL, of http or https")
    if parts.username is not None:
        raise _no_page(http, "it takes no user and no password")
    if _is_here(host):
        place = f":{parts.port or (443 if parts.scheme == 'https' else 80)}{parts.path or '/'}"
        place += f"?{parts.query}" if parts.query else ""
        secure = parts.scheme == "https"
        raise UsageError(
            f"'{http}' is a page of this computer, not of the machine.",
            facts={"reason": f"the tests run here, and here '{host}' is this computer"},
            hint=f"machine.wait_for(http=f'https://{{machine.ip}}{place}')"
            if secure
            else f"machine.wait_for(http='{place}')",
        )
    return None, http


def _is_here(host: str) -> bool:
    """Return whether a URL's host is the computer that asks, in any notation."""
    name = host.rstrip(".").lower()
    if name in ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"):
        return True
    if name.endswith(".localhost") or name in ("0", "[::]"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        # 127.1, 0x7f000001 and 2130706433 are addresses to the C library.
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def _no_page(http: object, reason: str) -> UsageError:
    return UsageError(
        f"'{http}' is no page that could be waited for.",
        facts={"reason": reason},
        hint="machine.wait_for(http=':8080/health')",
    )


def number(port: int) -> int:
    """Return a port; raises `UsageError` for what is none."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise UsageError(
            f"'{port}' is no port.",
            facts={"reason": "a port is a whole number from 1 to 65535"},
            hint="machine.wait_for(port=80)",
        )
    return port


def pattern(log: str | None, container: str | Any) -> re.Pattern[str] | None:
    """Return what a container's log has to show; raises `UsageError` for what cannot be waited for."""
    if log is None:
        return None
    if container is None:
        raise UsageError(
            f"'{log}' can only be waited for in a container's log, and no container was named.",
            hint=f"machine.wait_for(log={log!r}, container='web')",
        )
    if not isinstance(log, str):
        raise UsageError(
            "What a log has to show is a regular expression, as text.",
            facts={"log": f"{log!r:.100}"},
            hint="machine.wait_for(log='^ready', container='web')",
        )
    try:
        return re.compile(log, re.MULTILINE)
    except re.error as error:
        raise UsageError(
            f"'{log}' is no regular expression.",
            facts={"reason": error},
            hint=f"machine.wait_for(log=re.escape({log!r}), ...) waits for the very text",
        ) from error


_ANSWER = 5.0
"""Seconds that an answer may take: its status line and its headers."""


def _open(url: str) -> None:
    # Never through the environment's proxy, which cannot see the machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_ANSWER):
        pass


def answers(url: str) -> None:
    """Ask for a page; one at or above 400 is `NotYet`, and so is an answer that is no HTTP."""
    # A time-out of a socket starts again with each byte, so a server that sends single bytes could hold us without end.
    asking = Errand(functools.partial(_open, url))
    if not asking.wait(_ANSWER):
        asking.leave()
        raise NotYet(f"it did not answer in full within {_ANSWER:g} s")
    try:
        asking.result()
    except urllib.error.HTTPError as error:
        # It is the answer too, with a connection that wants to be closed.
        error.close()
        raise NotYet(f"HTTP {error.code} {error.reason}") from error
    except (http.client.HTTPException, ValueError) as error:
        # A ValueError is the server's too: it sends elsewhere, to what is no URL.
        raise NotYet(f"its answer is no HTTP: {type(error).__name__} {error}") from error


def listens(place: HostPort) -> None:
    """Connect to a port; `NotYet` when nobody is behind one that is forwarded.

    Such a one accepts in any case; who hangs up at once is nobody.
    """
    with socket.create_connection((place.host, place.port), timeout=5) as connection:
        if not place.forwarded:
            return
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError):
            if not connection.recv(1):
                raise NotYet("nobody listens there")


def shows(log: str, pattern: re.Pattern[str]) -> None:
    """Look for a pattern in a log; `NotYet` says what its last line is."""
    if not pattern.search(log):
        raise NotYet(f"its last line is {log.splitlines()[-1]!r}" if log else "it is empty")
