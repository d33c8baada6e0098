"""Secrets of drivers are in no report, on no terminal, in no file."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Run

SECRET = "correct-horse-battery"

CONFTEST = """
from dataclasses import dataclass
from pytest_machine.errors import CommandFailed
from pytest_machine.model import Result
from pytest_machine.options import option
from pytest_machine.testing.fake import FakeDriver

@dataclass(frozen=True, kw_only=True)
class Vault(FakeDriver):
    name = "vault"
    token: str = option("", help="token", secret=True)

def pytest_machine_drivers():
    return [FakeDriver, Vault]
"""

TEST = """
import base64, pytest
from pytest_machine.errors import CommandFailed
from pytest_machine.model import Result

{mark}
def test_error(machine):
    said = f"refused: {{machine.driver.token}}"
    raise CommandFailed("It failed.", result=Result(("x",), 1, "", said), facts={{"stderr": said}})

{mark}
def test_own_assertion(machine):
    print("printed", machine.driver.token)
    print("encoded", base64.b64encode(machine.driver.token.encode()).decode())
    assert machine.driver.token == "other"
"""


@pytest.mark.parametrize("arguments", [(), ("-n1",), ("-l", "--tb=long")], ids=["plain", "xdist", "locals"])
@pytest.mark.parametrize("given", ["mark", "variable"])
def test_reports(
    inner: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch, given: str, arguments: tuple[str, ...]
) -> None:
    inner.makeconftest(CONFTEST)
    mark = ""
    if given == "mark":
        mark = f'@pytest.mark.machine(options={{"token": {SECRET!r}}})'
    else:
        monkeypatch.setenv("VAULT_TOKEN", SECRET)
    result = (
        run(
            TEST.format(mark=mark),
            "--machine-driver=vault",
            "--junitxml=junit.xml",
            "--machine-artifacts=found",
            "--machine-timeline=page.html",
            *(each for each in arguments if each != "-n1"),
            failed=2,
        )
        if "-n1" not in arguments
        else None
    )
    if result is None:
        inner.makepyfile(test_it=TEST.format(mark=mark))
        result = inner.runpytest_subprocess("--machine-driver=vault", "--junitxml=junit.xml", *arguments)
        result.assert_outcomes(failed=2)
    shown = result.stdout.str() + result.stderr.str() + (inner.path / "junit.xml").read_text()
    assert "refused: ***" in shown
    assert SECRET not in shown
    assert "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5" not in shown
    for file in (*(inner.path / "found").rglob("*"), inner.path / "page.html"):
        assert not file.is_file() or SECRET not in file.read_text()
