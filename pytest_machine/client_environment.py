"""The variables that make Docker's clients talk to a machine, for every place of this process that sets them.

Fixtures, `Machine.env` and Compose all use `changes`; ``docker-machine env`` prints Docker Machine's own set, and
takes the exceptions of ``--no-proxy`` from `extended`. It covers
the variables that name an engine, and the ones that come between a client and the machine: proxies, bundles of
authorities, another context.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import bundles
from .model import Address

Changes = Mapping[str, str | None]
"""What becomes of variables: a value, or None where one is removed."""

# What requests, curl and OpenSSL read. Each hides a machine's own authority from clients that are configured by
# DOCKER_CERT_PATH (requests' bug 3829), so each names a bundle that has both.
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_DIRECTORY = "SSL_CERT_DIR"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_EXCEPTIONS = ("NO_PROXY", "no_proxy")

INTERFERING = (
    # The docker command and Compose: another engine, another version of its API, no verification.
    *("DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS"),
    # buildx: a builder that is elsewhere; the machine would not have the image.
    *("BUILDX_BUILDER", "BUILDKIT_HOST"),
    # Testcontainers: where the ports and the socket of the user's own engine are.
    *("TC_HOST", "TESTCONTAINERS_HOST_OVERRIDE", "TESTCONTAINERS_CONNECTION_MODE"),
    "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE",
)
"""Variables that speak of the user's own engine, and that a client would apply to the machine."""


def changes(address: Address, *, name: str, certs: Path, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return what becomes of variables so that clients talk to a machine, in an environment as it is now.

    `certs` is the machine's directory with ``ca.pem``, ``cert.pem`` and ``key.pem``; merged bundles are written there.
    """
    found: dict[str, str | None] = {
        "DOCKER_HOST": address.url,
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(certs),
        "DOCKER_MACHINE_NAME": name,
        # The machine goes with all of its containers: nothing else needs to remove them.
        "TESTCONTAINERS_RYUK_DISABLED": "true",
    }
    found.update(dict.fromkeys(variable for variable in INTERFERING if environ.get(variable)))
    found.update(_trusting(certs, environ))
    if any(environ.get(variable) for variable in _PROXIES):
        found.update(dict.fromkeys(_EXCEPTIONS, excepting(environ, address.ip)))
    return found


def _trusting(certs: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    from .certs import read  # late: `docker-machine env` has no time for it

    for variable in (*_BUNDLES, _DIRECTORY):
        theirs = environ.get(variable, "")
        if not theirs or Path(theirs).parent == certs:
            continue
        authority = read(certs / "ca.pem")
        if variable == _DIRECTORY:
            target = certs / "bundle-ssl_cert_dir"
            bundles.hashed(theirs, authority, target)
        else:
            target = certs / f"bundle-{variable.lower()}.pem"
            bundles.merged(Path(theirs), authority, target)
        yield variable, str(target)


def excepting(environ: Mapping[str, str], ip: str) -> str:
    """Return the hosts that no proxy is asked for: those of ``NO_PROXY`` and ``no_proxy``, and the address.

    Clients read one or the other, so that both need all of them. ``*`` excepts everything, and only when it is alone.
    """
    known = [part for name in _EXCEPTIONS for part in re.split(r"[,\s]+", environ.get(name, "")) if part]
    if "*" in known:
        return "*"
    return ",".join(dict.fromkeys([*known, *_written(ip)]))


def extended(environ: Mapping[str, str], ip: str) -> tuple[str, str]:
    """Return the variable of exceptions that Docker Machine's ``--no-proxy`` sets, and its value with the address.

    It is ``no_proxy`` where the user has set that, else ``NO_PROXY``.
    """
    name = "no_proxy" if environ.get("no_proxy") else "NO_PROXY"
    return name, _with(environ.get(name, ""), ip)


def _with(value: str, ip: str) -> str:
    known = re.split(r"[,\s]+", value.strip())
    if "*" in known:
        return "*"
    return ",".join([*([value] if value else []), *(each for each in _written(ip) if each not in known)])


def _written(ip: str) -> list[str]:
    """Return how clients write an address: some compare one of IPv6 with its brackets."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(ip).version == 6:
            return [ip, f"[{ip}]"]
    return [ip] if ip else []


def applied(environ: Mapping[str, str], made: Changes) -> dict[str, str]:
    """Return an environment with changes."""
    return {name: value for name, value in {**environ, **made}.items() if value is not None}


@dataclass(eq=False, slots=True)
class Cover:
    """Changes in force in this process; `end` puts back what was there."""

    given: Changes
    before: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = {name: os.environ.get(name) for name in self.given}
        _covers.append(self)
        for name, value in self.given.items():
            _set(name, value)

    def end(self, *, yielding: bool = False) -> None:
        """Restore the variables. Idempotent.

        Covers may end in any order: a variable that a later one has too stays, and that one restores it.
        With `yielding`, a value that is neither ours nor an earlier cover's stays: an owner has put it back meanwhile.
        """
        if self not in _covers:
            return
        place = _covers.index(self)
        _covers.remove(self)
        for name, value in self.given.items():
            over = next((cover for cover in _covers[place:] if name in cover.given), None)
            if over is not None:
                over.before[name] = self.before[name]
            elif not yielding or os.environ.get(name) in (value or "", *_ended.get(name, ())):
                _set(name, self.before[name])
            if name in _UNIQUE and value is not None:
                _ended.setdefault(name, set()).add(value)


_covers: list[Cover] = []
"""Those in force, outermost first."""
# Values that are a machine's alone: one that is there after its cover has ended was saved and put back by other code.
_UNIQUE = ("DOCKER_HOST", "DOCKER_CERT_PATH", *_BUNDLES, _DIRECTORY)
_ended: dict[str, set[str]] = {}


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextlib.contextmanager
def covering(made: Changes) -> Iterator[None]:
    """Change variables of this process for a block; `uncovered` still returns the user's own."""
    cover = Cover(made)
    try:
        yield
    finally:
        cover.end()


def assert_covers() -> None:
    """Put covered variables back that something else has changed since, to what the latest cover gives them.

    A variable that is removed is empty from here on, which clients take for unset: so that `Cover.end` can tell whether
    its owner has removed it meanwhile.
    """
    for name, value in {name: value for cover in _covers for name, value in cover.given.items()}.items():
        _set(name, value or "")


def uncovered() -> dict[str, str]:
    """Return the environment as it was before any machine's variables were set in it: the user's own."""
    # Not `dict(os.environ)`: that raises where another thread takes one away meanwhile.
    found = {name: os.environ.get(name) for name in list(os.environ)}
    for cover in reversed(_covers):
        found |= cover.before
    return {name: value for name, value in found.items() if value is not None}
