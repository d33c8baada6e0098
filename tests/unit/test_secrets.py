"""One function takes secrets out of what is shown, in whatever form they come back."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest

from pytest_machine.errors import CommandFailed, MachineError
from pytest_machine.model import Result
from pytest_machine.support import secrets
from pytest_machine.support.secrets import masked

SECRET = "s3cr/t wörd\"&'$x+=" + "9" * 12


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    before, pattern = dict(secrets._known), list(secrets._pattern)
    secrets.learn([SECRET, "first line of it\nsecond line of it", "abc"])
    yield
    secrets._known.clear()
    secrets._known.update(before)
    secrets._pattern[:] = pattern


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        shlex.quote(SECRET),
        json.dumps({"key": SECRET}),
        json.dumps({"key": SECRET}, ensure_ascii=False),
        repr(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"me:{SECRET}".encode()).decode(),
        base64.b64encode(f"{SECRET}:me".encode()).decode(),
        base64.urlsafe_b64encode(f"user:{SECRET}!".encode()).decode(),
        f"{SECRET[:9]}\n    {SECRET[9:]}",
        f"{SECRET[:20]}\r\n{SECRET[20:]}",
        "second line of it",
        json.dumps("first line of it\nsecond line of it"),
    ],
)
def test_every_form_is_masked(form: str) -> None:
    found = masked(f"before {form} after")
    assert found.startswith("before ")
    assert found.endswith(" after")
    assert "***" in found
    for part in (SECRET[3:12], "9999999", "line of it", base64.b64encode(SECRET.encode()).decode()[4:16]):
        assert part not in found


def test_what_is_too_short_stays() -> None:
    assert masked("abc") == "abc"


def test_errors_hold_none() -> None:
    result = Result(("login",), 1, "", SECRET)
    errors = [
        CommandFailed(f"x {SECRET}", result=result, facts={"stderr": f"y {SECRET}"}, hint=f"z {SECRET}"),
        MachineError("plain", facts={"list": [SECRET]}),
    ]
    for error in errors:
        assert "9999999" not in str(error)
        assert "***" in str(error)
    assert "9999999" not in errors[0].message + str(errors[0].facts) + errors[0].hint + str(errors[0].args)
