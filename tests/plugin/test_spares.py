"""Machines made in advance: handed over at once, right in every name, and never left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from pytest_machine import Lab
from pytest_machine.plugin.keeper import Keeper
from tests.conftest import SLOWNESS

from .conftest import Left, Log, Run

# A fake machine takes four times the delay to be made.
SLOW = 'options={"delay": 0.2}'

# For inner tests, which look at what is made beside them.
BESIDE = """
import os, pathlib
from patience import until
from pytest_machine.store import Store
from pytest_machine.testing.fake import FakeDriver

HOME = pathlib.Path(os.environ["PYTEST_MACHINE_HOME"])

def there():
    return [record for record in FakeDriver().find() if HOME in record.store.parents]

def spares(machine):
    noted = [(record, note) for record in there() for note in Store(record.store).records() if note.id == record.id]
    return [record for record, note in noted if note.ready and record.id != machine.id]

# So many in the end, and never more than `most`: a second is longer than it takes for another one to be begun.
def settle(machine, many, most):
    steady = 0
    def look():
        nonlocal steady
        found = len(there())
        assert found <= most
        steady = steady + 1 if found == many == 1 + len(spares(machine)) else 0
        return steady == 20
    until(look)
"""


@pytest.fixture(autouse=True)
def _beside(inner: pytest.Pytester) -> None:
    inner.makepyfile(beside=BESIDE)


def test_the_next_test_gets_one_at_once(run: Run, log: Log) -> None:
    run(
        f"""
        import pytest, time
        from beside import spares, until
        from dirty import use

        pytestmark = pytest.mark.machine({SLOW})

        @pytest.fixture
        def begun():
            return time.time()

        @pytest.mark.parametrize("x", range(4))
        def test_it(begun, machine, x):
            # How long that takes is for benchmarks/machines.py to say; a spare was there before it was asked for.
            assert (machine.record.ready < begun) == (x > 0)
            assert machine.seconds > 0.8
            use(machine, x)
            until(lambda: spares(machine) or x == 3)
        """,
        "--machine-spares=1",
        passed=4,
    )
    assert len({entry["id"] for entry in log()}) == 4
    assert all(entry["found"] == [] for entry in log())


def test_one_that_is_being_made_is_waited_for(run: Run, log: Log) -> None:
    result = run(
        f"""
        import pytest
        from dirty import use

        @pytest.mark.machine({SLOW})
        @pytest.mark.parametrize("x", range(4))
        def test_it(machine, x): use(machine, x)
        """,
        "--machine-spares=1",
        passed=4,
    )
    result.stdout.fnmatch_lines(["4 machines made: *"])


def test_name_host_name_hosts_and_certificate_agree(run: Run, log: Log) -> None:
    run(
        """
        import pytest, time
        from cryptography import x509
        from dirty import disk

        def check(machine, name):
            assert machine.name == name
            assert (disk(machine) / "etc/hostname").read_text() == f"{name}\\n"
            assert f" {name}\\n" in (disk(machine) / "etc/hosts").read_text()
            cert = x509.load_pem_x509_certificate((disk(machine) / "etc/docker/server.pem").read_bytes())
            names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert name in names.get_values_for_type(x509.DNSName)
            assert machine.docker.info()["Name"] == name
            time.sleep(1)

        @pytest.mark.machine("one")
        def test_one(machine): check(machine, "one")

        @pytest.mark.machine("two")
        def test_two(machine): check(machine, "two")

        @pytest.mark.machine("web", "db")
        def test_several(lab):
            assert [machine.name for machine in lab] == ["web", "db"]
            for machine in lab:
                check(machine, machine.name)
            assert " db\\n" in (disk(lab["web"]) / "etc/hosts").read_text()

        def test_default(machine): check(machine, "machine")
        """,
        "--machine-spares=3",
        passed=4,
    )


def test_never_more_than_asked_for(run: Run) -> None:
    run(
        """
        import pytest
        from beside import settle

        @pytest.mark.parametrize("x", range(6))
        def test_it(machine, x): settle(machine, min(3, 6 - x), most=3)
        """,
        "--machine-spares=2",
        passed=6,
    )


def test_never_more_than_memory_allows(run: Run) -> None:
    run(
        """
        import pytest
        from beside import settle

        pytestmark = pytest.mark.machine(options={"weight": "40m"})

        @pytest.mark.parametrize("x", range(4))
        def test_it(machine, x): settle(machine, min(2, 4 - x), most=2)
        """,
        "--machine-spares=3",
        "--machine-memory-cap=100m",
        passed=4,
    )


def test_spares_make_room_for_a_test_that_needs_it(run: Run) -> None:
    """The factory's machine does not fit beside the spare."""
    run(
        """
        from beside import spares, until

        def test_one(machine, module_machine_factory):
            until(lambda: spares(machine))
            assert module_machine_factory("big", options={"weight": "60m"}).docker.ping()

        def test_two(machine): ...
        """,
        "--machine-spares=1",
        "--machine-memory-cap=80m",
        passed=2,
    )


def test_what_cannot_be_made_is_for_the_test_to_say(run: Run) -> None:
    result = run(
        """
        import pytest, time

        def test_one(machine): time.sleep(0.5)

        @pytest.mark.machine(options={"fail_create": "disk"})
        def test_two(machine): ...
        """,
        "--machine-spares=1",
        passed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines(["*The machine 'machine' was told to fail.", "1 machine made*", "1 could not be made"])


def test_one_that_cannot_be_noted_keeps_nobody_waiting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, tries = Keeper.lab, []

    def full(keeper: Keeper) -> Lab:
        if threading.current_thread().name == "machine-spares":
            tries.append(1)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return lab(keeper)

    monkeypatch.setattr(Keeper, "lab", full)
    run(
        """
        import time
        def test_one(machine): time.sleep(0.5)
        def test_two(machine): ...
        """,
        "--machine-spares=1",
        passed=2,
    )
    assert tries


def test_one_that_died_is_not_handed_over(run: Run) -> None:
    run(
        """
        from beside import FakeDriver, spares, until

        def test_one(machine):
            until(lambda: spares(machine))
            (spare,) = spares(machine)
            FakeDriver().kill(spare)

        def test_two(machine):
            assert machine.docker.ping()
        """,
        "--machine-spares=1",
        passed=2,
    )


def test_with_xdist(inner: pytest.Pytester, log: Log, left: Left) -> None:
    inner.makepyfile(
        """
        import pytest
        from dirty import use

        @pytest.mark.parametrize("x", range(8))
        def test_it(machine, x): use(machine, x, 0.3)
        """
    )
    inner.runpytest_subprocess("-n", "2", "--machine-spares=1").assert_outcomes(passed=8)
    assert len({entry["id"] for entry in log()}) == 8
    assert left() == []


def test_a_run_that_is_killed_leaves_none(inner: pytest.Pytester, left: Left) -> None:
    inner.makepyfile("import time\ndef test_one(machine): time.sleep(60)\ndef test_two(machine): ...")
    process = subprocess.Popen([sys.executable, "-m", "pytest", "--machine-spares=1"], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30 * SLOWNESS
        while len(left()) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    end = time.monotonic() + 10 * SLOWNESS
    while left():
        assert time.monotonic() < end
        time.sleep(0.1)
