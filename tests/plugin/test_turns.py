"""One machine for many tests: in one process, for all workers of pytest-xdist, and from one run to the next."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_machine.kept import everywhere as kept_everywhere
from pytest_machine.store import Store
from pytest_machine.support import clock
from pytest_machine.testing.fake import FakeDriver
from tests.conftest import SLOWNESS, alone, full_only

from .conftest import Forgotten, Left, Log, Run


def ids(entries: list[dict[str, object]]) -> set[object]:
    return {entry["id"] for entry in entries}


class TestOneProcess:
    @pytest.mark.parametrize("scope", ["class", "module", "session", "runs"])
    def test_it_is_reset_between_two_tests(
        self, inner: pytest.Pytester, log: Log, left: Left, scope: str, shelf: None
    ) -> None:
        inner.makepyfile(
            f"""
            import pytest
            from dirty import use

            @pytest.mark.machine(reuse="{scope}")
            class TestIt:
                def test_one(self, machine): use(machine, "one")
                def test_two(self, machine): use(machine, "two")
                @pytest.mark.machine(reset=False)
                def test_three(self, machine): use(machine, "three")
                def test_four(self, machine): use(machine, "four")
            """
        )
        inner.runpytest_inprocess().assert_outcomes(passed=4)
        assert len(ids(log())) == 1
        assert len({entry["cert"] for entry in log()}) == 1
        assert [entry["found"] for entry in log()] == [[], [], ["dirt-two"], []]
        assert len(left()) == (1 if scope == "runs" else 0)

    def test_a_scopes_fixture_and_reuse_are_two_machines(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(
            """
            import pytest
            from dirty import use

            pytestmark = pytest.mark.machine(reuse="module")

            def test_before(machine): use(machine, "before")
            def test_one(module_machine): use(module_machine, "one")
            def test_two(machine): use(machine, "two")
            """
        )
        inner.runpytest_inprocess().assert_outcomes(passed=3)
        assert [entry["found"] for entry in log()] == [[], [], []]
        before, one, two = (entry["id"] for entry in log())
        assert before == two != one
        assert left() == []

    def test_one_that_cannot_be_reset_is_made_anew(self, run: Run, log: Log) -> None:
        run(
            """
            import pytest
            from dirty import use

            pytestmark = pytest.mark.machine(reuse="module")

            def test_one(machine):
                use(machine, "one")
                machine.destroy()

            def test_two(machine): use(machine, "two")
            """,
            passed=2,
        )
        assert len(ids(log())) == 2

    @pytest.mark.parametrize("scope", ["class", "module", "session"])
    @pytest.mark.parametrize("reset", [True, False])
    def test_what_is_destroyed_is_made_anew(self, run: Run, log: Log, scope: str, reset: bool) -> None:
        """By the machine, by the lab, one or all of them."""
        run(
            f"""
            import pytest
            from dirty import use

            @pytest.mark.machine("a", reuse="{scope}", reset={reset})
            @pytest.mark.machine("b", reuse="{scope}", reset={reset})
            class TestIt:
                @pytest.fixture(autouse=True)
                def used(self, lab):
                    assert len(lab) == 2
                    for machine in lab:
                        use(machine, machine.name)

                def test_one(self, lab): lab.destroy()
                def test_two(self, lab): lab.remove(lab["b"])
                def test_three(self, lab): lab["a"].destroy()
                def test_four(self, lab): ...
            """,
            passed=4,
        )
        assert all(entry["found"] == [] for entry in log())

    def test_by_hand(self, run: Run, log: Log) -> None:
        run(
            """
            import pytest
            from dirty import use

            @pytest.mark.machine(reuse="module")
            def test_one(machine):
                use(machine, "one")
                machine.reset()
                use(machine, "two")
            """
        )
        assert [entry["found"] for entry in log()] == [[], []]


FORTY = """
import pytest
from dirty import use

@pytest.mark.parametrize("x", range({count}))
@pytest.mark.machine(reuse="session", share={share!r})
def test_it(machine, x):
    use(machine, x, {seconds})
"""


class TestWorkers:
    @pytest.mark.parametrize(
        "dist", ["load", *(pytest.param(dist, marks=full_only) for dist in ("worksteal", "loadfile", "loadscope"))]
    )
    def test_forty_tests_on_four_workers_have_one_machine(
        self, inner: pytest.Pytester, log: Log, left: Left, forgotten: Forgotten, dist: str
    ) -> None:
        for name, count in {"test_a": 10, "test_b": 10, "test_c": 10, "test_d": 10}.items():
            inner.makepyfile(**{name: FORTY.format(count=count, share="run", seconds=0.0)})
        result = inner.runpytest_subprocess("-n", "4", "--dist", dist)
        result.assert_outcomes(passed=40)
        result.stdout.fnmatch_lines(["1 machine made: *", "none is left"])
        entries = sorted(log(), key=lambda entry: str(entry["begun"]))
        assert len(entries) == 40
        assert len(ids(entries)) == 1
        assert len({entry["worker"] for entry in entries}) > 1
        assert all(entry["found"] == [] for entry in entries)
        assert all(a["ended"] <= b["begun"] for a, b in itertools.pairwise(entries))  # type: ignore[operator]
        assert left() == []
        forgotten()

    def test_one_for_each_worker(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(test_it=FORTY.format(count=12, share="worker", seconds=0.05))
        inner.runpytest_subprocess("-n", "2").assert_outcomes(passed=12)
        assert {(entry["id"], entry["worker"]) for entry in log()} == {
            (machine, worker) for machine, worker in {str(e["id"]): e["worker"] for e in log()}.items()
        }
        assert len(ids(log())) == 2
        assert left() == []

    def test_by_the_setting(self, inner: pytest.Pytester, log: Log) -> None:
        inner.makepyfile(test_it=FORTY.format(count=12, share=None, seconds=0.05))
        inner.runpytest_subprocess("-n", "2", "--machine-share", "worker").assert_outcomes(passed=12)
        assert len(ids(log())) == 2

    def test_a_worker_that_dies_with_it_does_not_block_the_others(
        self, inner: pytest.Pytester, log: Log, left: Left
    ) -> None:
        inner.makepyfile(
            """
            import os, pathlib, pytest, signal
            from dirty import use

            @pytest.mark.parametrize("x", range(8))
            @pytest.mark.machine(reuse="session")
            def test_it(machine, x):
                use(machine, x)
                if x == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
            """
        )
        result = inner.runpytest_subprocess("-n", "2")
        result.assert_outcomes(passed=7, failed=1)
        assert len(ids(log())) == 1
        assert all(entry["found"] == [] for entry in log())
        assert left() == []

    def test_a_worker_that_dies_while_it_makes_it(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makeconftest(
            """
            import os, pathlib, signal
            from pytest_machine.testing.fake import FakeDriver

            class Fatal(FakeDriver):
                def create(self, record, seed):
                    super().create(record, seed)
                    try:
                        pathlib.Path("died").touch(exist_ok=False)
                    except FileExistsError:
                        return
                    os.kill(os.getpid(), signal.SIGKILL)

            def pytest_machine_drivers():
                return [Fatal]
            """
        )
        inner.makepyfile(test_it=FORTY.format(count=6, share="run", seconds=0.0))
        result = inner.runpytest_subprocess("-n", "2")
        result.assert_outcomes(passed=5, failed=1)
        assert len(ids(log())) == 1
        assert left() == []

    def test_what_cannot_be_made_is_tried_once_in_a_run(self, inner: pytest.Pytester, left: Left) -> None:
        inner.makepyfile(
            """
            import pytest

            @pytest.mark.parametrize("x", range(6))
            @pytest.mark.machine(reuse="session", options={"fail_create": "disk"})
            def test_it(machine, x): ...
            """
        )
        result = inner.runpytest_subprocess("-n", "2")
        result.assert_outcomes(errors=6)
        result.stdout.fnmatch_lines(["The machine 'machine' was told to fail.", "1 could not be made"])
        assert left() == []


@pytest.fixture
def shelf(left: Left) -> Iterator[None]:
    """Machines stay on the shelf, until the test is over."""
    yield
    for record in left():
        FakeDriver().destroy(record)


ONE = """
import pytest
from dirty import use

@pytest.mark.machine(reuse="runs", image={image!r})
def test_it(machine):
    use(machine, "one", {seconds})
"""


@pytest.mark.usefixtures("shelf")
class TestRuns:
    def test_the_next_run_finds_it_as_new(
        self, inner: pytest.Pytester, log: Log, left: Left, forgotten: Forgotten
    ) -> None:
        inner.makepyfile(ONE.format(image="x", seconds=0))
        for _ in range(2):
            inner.runpytest_inprocess().assert_outcomes(passed=1)
        first, second = log()
        assert first["id"] == second["id"]
        assert second["found"] == []
        assert len(left()) == 1
        forgotten()

    def test_another_spec_is_another_machine(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        for image in ("x", "y"):
            inner.makepyfile(ONE.format(image=image, seconds=0))
            inner.runpytest_inprocess().assert_outcomes(passed=1)
        assert len(ids(log())) == len(left()) == 2

    def test_the_report_says_that_it_stays(self, inner: pytest.Pytester, log: Log) -> None:
        inner.makepyfile(ONE.format(image="x", seconds=0))
        result = inner.runpytest_inprocess()
        result.stdout.fnmatch_lines(
            [
                "*= machines =*",
                "1 stays for later runs: machine (*), until *",
                "hint: pytest-machine prune --all *",
                "nothing else is left",
            ]
        )

    def test_two_runs_at_once_have_each_its_own(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(
            """
            import os, pathlib, pytest
            from dirty import use
            from patience import until

            @pytest.mark.machine(reuse="runs")
            def test_it(machine):
                use(machine, "one")
                pathlib.Path(f"here-{os.getpid()}").touch()
                until(lambda: len([*pathlib.Path().glob("here-*")]) >= 2)
            """
        )
        command = [sys.executable, "-m", "pytest", "-q"]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for run in runs:
            out, _ = run.communicate(timeout=60 * SLOWNESS)
            assert run.returncode == 0, out
        assert len(ids(log())) == len(left()) == 2
        for _ in runs:  # and afterwards there are two to choose from
            inner.runpytest_subprocess().assert_outcomes(passed=1)
        assert len(left()) == 2

    def test_workers_share_it(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(FORTY.format(count=8, share="run", seconds=0.0).replace('"session"', '"runs"'))
        for _ in range(2):
            inner.runpytest_subprocess("-n", "2").assert_outcomes(passed=8)
        assert len(ids(log())) == len(left()) == 1
        assert all(entry["found"] == [] for entry in log())

    @pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist=loadscope")])
    def test_one_of_a_failed_test_is_kept(
        self, inner: pytest.Pytester, log: Log, left: Left, workers: tuple[str, ...]
    ) -> None:
        """It stays as it is, for nobody else; further tests and runs have another."""
        inner.makepyfile(
            ONE.format(image="x", seconds=0).replace("test_it", "test_bad")
            + "    assert 0\n"
            + ONE.format(image="x", seconds=0).replace("test_it", "test_good")
        )
        result = inner.runpytest_subprocess("--machine-keep=failed", *workers)
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(
            ["kept: 'machine' (fake *): *::test_bad failed", "  pytest-machine rm *", "1 stays for later runs: *"]
        )
        (kept,) = [each for each in kept_everywhere() if "test_bad" in each.because]
        assert len(left()) == 2
        inner.makepyfile(ONE.format(image="x", seconds=0))
        inner.runpytest_subprocess().assert_outcomes(passed=1)
        assert log()[-1]["id"] != kept.record.id
        assert len(left()) == 2
        for record in left():  # the time of both is over
            Store(record.store).save(Store(record.store).load(record.name).with_(expires=1.0))
        inner.makepyfile("def test_it(machine): ...")
        inner.runpytest_subprocess().assert_outcomes(passed=1)
        assert [record.id for record in left()] == [kept.record.id]
        # Somebody who has never heard of this suite's conftest removes it.
        done = subprocess.run([sys.executable, "-m", "pytest_machine", "rm", kept.record.id], check=False, cwd="/")
        assert done.returncode == 0
        assert left() == []
        assert kept_everywhere() == []

    def test_one_that_another_worker_had_before_is_kept(self, inner: pytest.Pytester, left: Left) -> None:
        inner.makepyfile(
            test_good="""
            import pathlib, pytest

            @pytest.mark.machine(reuse="runs", image="x")
            def test_it(machine): pathlib.Path("had").touch()
            """,
            test_bad="""
            import pathlib, pytest
            from patience import until

            @pytest.fixture(scope="module")
            def after_the_other_worker():
                until(pathlib.Path("had").exists)

            @pytest.mark.machine(reuse="runs", image="x")
            def test_it(after_the_other_worker, machine): assert 0
            """,
        )
        result = inner.runpytest_subprocess("--machine-keep=failed", "-n", "2", "--dist=loadfile")
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["1 machine made: *", "kept: 'machine' (fake *): *::test_it failed"])
        result.stdout.no_fnmatch_line("*stays for later runs*")
        assert len(left()) == 1

    def test_always(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(ONE.format(image="x", seconds=0))
        for _ in range(2):
            result = inner.runpytest_inprocess("--machine-keep=always")
            result.assert_outcomes(passed=1)
            result.stdout.no_fnmatch_line("*stays for later runs*")
        inner.runpytest_inprocess().assert_outcomes(passed=1)
        assert len(ids(log())) == len(left()) == 3
        assert len(kept_everywhere()) == 2

    def test_past_its_time_it_is_replaced(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(ONE.format(image="x", seconds=0))
        inner.runpytest_inprocess("--machine-ttl", "1s").assert_outcomes(passed=1)
        time.sleep(1.1)
        inner.runpytest_inprocess().assert_outcomes(passed=1)
        assert len(ids(log())) == 2
        assert len(left()) == 1

    def test_past_its_time_the_next_run_destroys_it(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(ONE.format(image="x", seconds=0))
        inner.runpytest_inprocess("--machine-ttl", "1s").assert_outcomes(passed=1)
        time.sleep(1.1)
        inner.makepyfile("def test_it(machine): ...")
        inner.runpytest_inprocess().assert_outcomes(passed=1)
        assert left() == []

    def test_a_killed_one_is_started_and_reset(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(ONE.format(image="x", seconds=0))
        inner.runpytest_inprocess().assert_outcomes(passed=1)
        (record,) = left()
        FakeDriver().kill(record)
        inner.runpytest_inprocess().assert_outcomes(passed=1)
        first, second = log()
        assert first["id"] == second["id"]
        assert second["found"] == []
        assert len(left()) == 1

    @pytest.mark.parametrize("hurt", ["destroy", "certificate"])
    def test_a_stale_one_is_replaced(self, inner: pytest.Pytester, log: Log, left: Left, hurt: str) -> None:
        inner.makepyfile(ONE.format(image="x", seconds=0))
        inner.runpytest_inprocess().assert_outcomes(passed=1)
        (record,) = left()
        if hurt == "certificate":
            (record.directory / "server.pem").write_bytes(_short_lived())
        else:
            FakeDriver().destroy(record)
        inner.runpytest_inprocess().assert_outcomes(passed=1)
        first, second = log()
        assert first["id"] != second["id"]
        assert second["found"] == []
        assert len(left()) == 1

    @alone
    def test_prune_says_that_it_is_kept(
        self, inner: pytest.Pytester, log: Log, left: Left, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pytest_machine.plugins import Registry
        from pytest_machine.reaper import Found, prune

        class Conftest:
            def pytest_machine_drivers(self) -> list[type[FakeDriver]]:
                return [FakeDriver]

        registry = Registry([Conftest()])

        def mine(**arguments: bool) -> list[Found]:
            return [f for f in prune(registry, **arguments) if f.id == record.id]

        inner.makepyfile(ONE.format(image="x", seconds=0))
        inner.runpytest_inprocess("--machine-ttl", "1h").assert_outcomes(passed=1)
        (record,) = left()
        (found,) = mine()
        assert found.why.startswith("kept for later runs until "), found
        assert not found.doomed
        assert left() == [record]
        (found,) = mine(destroy=False, everything=True)
        assert found.doomed
        # It is later for us alone: were its time really over, the run's reaper might be faster.
        later = clock.now() + 3601
        monkeypatch.setattr(clock, "now", lambda: later)
        (found,) = mine()
        assert found.doomed
        assert found.why == "its time is over"
        assert left() == []

    @alone
    def test_prune_leaves_one_that_a_run_has(self, inner: pytest.Pytester, log: Log, left: Left) -> None:
        inner.makepyfile(
            """
            import pytest, time
            from pytest_machine.plugins import Registry
            from pytest_machine.reaper import prune
            from pytest_machine.testing.fake import FakeDriver

            class Conftest:
                def pytest_machine_drivers(self): return [FakeDriver]

            @pytest.mark.machine(reuse="runs")
            def test_it(machine):
                time.sleep(1.1)
                (found,) = [f for f in prune(Registry([Conftest()])) if f.id == machine.id]
                assert not found.doomed
                assert found.why.endswith("' lives")
                assert machine.docker.ping()
            """
        )
        inner.runpytest_inprocess("--machine-ttl", "1s").assert_outcomes(passed=1)

    def test_a_run_that_dies_while_it_makes_it_leaves_nothing(
        self, inner: pytest.Pytester, log: Log, left: Left, home: Path
    ) -> None:
        inner.makepyfile(
            """
            import pytest

            @pytest.mark.machine(reuse="runs", options={"delay": 3.0})
            def test_it(machine): ...
            """
        )
        process = subprocess.Popen([sys.executable, "-m", "pytest"], stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 20 * SLOWNESS
            while not left():
                assert time.monotonic() < end
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
        end = time.monotonic() + 10 * SLOWNESS
        while left():
            assert time.monotonic() < end, "the reaper left it"
            time.sleep(0.1)


def _short_lived() -> bytes:
    """Return a certificate that ends in an hour."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "machine")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(hours=1)).sign(
        key, hashes.SHA256()
    )
    return made.public_bytes(serialization.Encoding.PEM)


def test_two_runs_at_once_never_meet(inner: pytest.Pytester, log: Log, left: Left, forgotten: Forgotten) -> None:
    """Same tests, same names, same moment: other machines, and each ends its own alone."""
    inner.makepyfile(
        """
        import pytest
        from dirty import use

        @pytest.mark.parametrize("x", range(3))
        def test_own(machine, x): use(machine, x, 0.3)

        @pytest.mark.parametrize("x", range(3))
        @pytest.mark.machine(reuse="session")
        def test_shared(machine, x): use(machine, x, 0.3)
        """
    )
    runs = [
        subprocess.Popen([sys.executable, "-m", "pytest", *more], stdout=subprocess.PIPE, text=True)
        for more in ([], ["-n", "2"])
    ]
    for run in runs:
        out, _ = run.communicate(timeout=120 * SLOWNESS)
        assert run.returncode == 0, out
        assert "none is left" in out
    assert len(ids(log())) == 8
    assert {entry["name"] for entry in log()} == {"machine"}
    assert left() == []
    forgotten()
