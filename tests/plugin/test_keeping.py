"""Machines that stay on purpose: who is kept, who leaves them alone, and what removes them. Fake machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_machine import kept, reaper, verdict
from pytest_machine.cli import main
from pytest_machine.engine import ping
from pytest_machine.model import Record
from pytest_machine.owner import stores
from pytest_machine.plugins import Registry
from pytest_machine.testing.fake import FakeDriver
from tests.conftest import SLOWNESS

from .conftest import Forgotten

SOURCE = """
import pytest

@pytest.mark.machine("good")
def test_good(machine): ...

@pytest.mark.machine("bad")
@pytest.mark.machine("beside", teardown="kill")
def test_bad(lab): assert 0
"""

Left = Callable[[], list[Record]]


class Fakes:
    """For a registry outside of a suite: the fake driver, which is no built-in one."""

    def pytest_machine_drivers(self) -> list[type[FakeDriver]]:
        return [FakeDriver]


@pytest.fixture(autouse=True)
def _clean(left: Left) -> Iterator[None]:
    yield
    for record in left():
        FakeDriver().destroy(record)


def test_failed(inner: pytest.Pytester, left: Left, home: Path, forgotten: Forgotten) -> None:
    """The whole lab stays; nobody reaps it; what removes it leaves nothing."""
    inner.makepyfile(SOURCE)
    result = inner.runpytest_subprocess("--machine-keep=failed")
    result.assert_outcomes(passed=1, failed=1)
    ids = {record.name: record.id for record in left()}
    assert set(ids) == {"bad", "beside"}
    result.stdout.fnmatch_lines(
        [
            "kept: 'b*' (fake *): *test_failed.py::test_bad failed",
            "  ssh -F none -i *",
            "  DOCKER_HOST=tcp://127.0.0.1:* docker ps -a",
            "  pytest-machine rm *",
        ]
    )
    result.stdout.no_fnmatch_line("none is left")
    (directory,) = (home / "runs").glob("[!.]*")
    time.sleep(1.5)  # the reaper looks twice a second
    reaper.reap(directory)
    found = reaper.prune(Registry([Fakes()]), destroy=False)
    said = {each.name: each.why for each in found if each.id in ids.values()}
    assert set(said) == {"bad", "beside"}
    assert all("kept on purpose" in why for why in said.values())
    assert len(left()) == 2
    for each in kept.among(stores(directory)):
        assert each.record.address is not None
        assert ping(each.record.address, certs=each.record.directory)
    shown = CliRunner().invoke(main, ["rm", "bad", ids["beside"]])
    assert (shown.exit_code, shown.output) == (0, "bad\nbeside\n")
    assert left() == []
    forgotten()


def test_always(inner: pytest.Pytester, left: Left, home: Path) -> None:
    inner.makepyfile(SOURCE + "\n@pytest.mark.parametrize('x', [1, 2])\ndef test_shared(module_machine, x): ...")
    result = inner.runpytest_subprocess("--machine-keep=always", "-n2")
    result.assert_outcomes(passed=3, failed=1)
    # One module machine in each worker that ran such a test.
    assert sorted({record.name for record in left()}) == ["bad", "beside", "good", "machine"]
    everything = reaper.prune(Registry([Fakes()]), destroy=False)
    assert len(left()) >= 4
    assert everything is not None
    for record in left():
        assert CliRunner().invoke(main, ["rm", record.id]).exit_code == 0
    assert left() == []


def test_always_shares(inner: pytest.Pytester, left: Left) -> None:
    inner.makepyfile(
        "import pytest\n@pytest.mark.machine(reuse='module')\n@pytest.mark.parametrize('x', [1, 2])\n"
        "def test_it(machine, x): ..."
    )
    inner.runpytest_inprocess("--machine-keep=always").assert_outcomes(passed=2)
    assert len(left()) == 1


def test_a_shared_machine_of_a_failed_test_is_left_as_it_is(inner: pytest.Pytester, left: Left) -> None:
    inner.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.machine(reuse="module")
        seen = []
        def test_one(machine): seen.append(machine.id)
        def test_two(machine):
            seen.append(machine.id)
            assert 0
        def test_three(machine): seen.append(machine.id)
        def test_after(): assert seen[0] == seen[1] != seen[2], seen
        """
    )
    inner.runpytest_inprocess("--machine-keep=failed").assert_outcomes(passed=3, failed=1)
    assert len(left()) == 1


def test_never_is_the_default(inner: pytest.Pytester, left: Left) -> None:
    inner.makepyfile(SOURCE)
    inner.runpytest_inprocess().assert_outcomes(passed=1, failed=1)
    assert left() == []


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_what_was_kept_survives_the_death_of_the_run(inner: pytest.Pytester, left: Left, home: Path) -> None:
    inner.makepyfile(
        "import os, signal, pytest\n@pytest.mark.machine('bad')\ndef test_a(machine): assert 0\n"
        "@pytest.mark.machine('good')\ndef test_b(machine): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-m", "pytest", "--machine-keep=failed"], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 15 * SLOWNESS
    while [record.name for record in left()] != ["bad"]:
        assert time.monotonic() < end, left()
        time.sleep(0.1)
    time.sleep(1)
    assert [each.record.name for each in kept.everywhere()] == ["bad"]


def test_prune_all_takes_them(inner: pytest.Pytester, left: Left) -> None:
    inner.makepyfile(SOURCE)
    inner.runpytest_inprocess("--machine-keep=failed")
    # Not `prune(everything=True)`: that would be every machine on this host.
    for record in left():
        for everything in (True, False):
            judged = verdict.kept(record, everything=everything)
            assert judged is not None
            assert judged.doomed == everything


def test_a_note_that_cannot_be_read_keeps(inner: pytest.Pytester, left: Left) -> None:
    inner.makepyfile(SOURCE)
    inner.runpytest_inprocess("--machine-keep=failed")
    for record in left():
        (record.directory / "kept.json").write_text("{")
        assert (kept.because_of(record) or "").startswith("its note is damaged (")


class TestRm:
    def test_unknown(self, home: Path) -> None:
        shown = CliRunner().invoke(main, ["rm", "-y", "nix"])
        assert shown.exit_code == 1
        assert shown.stderr.startswith('Error removing host "nix": ')

    def test_two_of_one_name(self, inner: pytest.Pytester, left: Left) -> None:
        inner.makepyfile(
            "import pytest\npytestmark = pytest.mark.machine('web')\n"
            "def test_a(machine): assert 0\ndef test_b(machine): assert 0"
        )
        inner.runpytest_inprocess("--machine-keep=failed")
        shown = CliRunner().invoke(main, ["rm", "web"])
        assert shown.exit_code == 1
        assert "There are 2 kept machines called 'web'." in shown.stderr
        assert "test_b failed" in shown.stderr
        assert len(left()) == 2


def test_wrong_word(inner: pytest.Pytester) -> None:
    inner.makepyfile(SOURCE)
    result = inner.runpytest_inprocess("--machine-keep=sometimes")
    text = result.stdout.str() + result.stderr.str()
    assert "cannot be 'sometimes': it takes one of 'never', 'failed', 'always'." in text
