"""Hints for errors of pytest's own that are about our fixtures."""

from __future__ import annotations

import re

import pytest

from .fixtures import ALL, SCOPES

_MISMATCH = re.compile(r"ScopeMismatch: You tried to access the \w+ scoped fixture (\w+) with an? (\w+) scoped request")

# What to use in place of a fixture, by its name without the scope; {scope} is the scope of the fixture that asks.
_INSTEAD = {
    "machine": "{scope}_machine",
    "machines": "{scope}_lab",
    "lab": "{scope}_lab",
    "swarm": "{scope}_swarm",
    "docker_client": "{scope}_machine, and {scope}_machine.docker",
    "machine_factory": "{scope}_machine_factory",
}
_OURS = ALL | {"swarm", *(f"{scope}_swarm" for scope in SCOPES)}


# What Docker says of an image that it has not, and cannot pull.
_NO_IMAGE = re.compile(
    r"no such image|no such host|pull access denied|manifest (for \S+ )?(unknown|not found)|server misbehaving"
    r"|registry-1\.docker\.io|toomanyrequests",
    re.IGNORECASE,
)


def add_to(error: BaseException) -> None:
    """Add a hint to an error of pytest's or Docker's that has to do with machines."""
    if type(error).__module__ == "docker.errors":
        if type(error).__name__ == "ImageNotFound" or _NO_IMAGE.search(str(error)):
            error.add_note(
                "hint: give the machine the image: @pytest.mark.machine(preload=['IMAGE']), or registry_mirror="
            )
    else:
        _add_scope(error)


def _add_scope(error: BaseException) -> None:
    """Add the hint to the error of a fixture of a wider scope that uses one of ours of a narrower scope."""
    if not isinstance(error, pytest.fail.Exception) or (found := _MISMATCH.match(str(error))) is None:
        return
    fixture, wanted = found[1], found[2]
    if fixture not in _OURS:
        return
    for known in SCOPES:
        fixture = fixture.removeprefix(f"{known}_")
    # A package has no fixtures of ours: the next wider scope is the session.
    at = wanted if wanted in SCOPES else "session"
    instead = _INSTEAD[fixture].format(scope=at)
    if instead == "session_swarm":
        instead = "session_lab, and session_lab.swarm()"
    # Not a note: pytest shows none of an error without a traceback.
    error.msg = f"{error.msg}\nhint: a fixture with scope='{wanted}' uses {instead}"
