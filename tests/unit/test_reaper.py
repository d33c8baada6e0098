"""What is found, why it may go, and that one that hangs or raises holds up nobody. The driver here is a dict."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from pytest_machine import owner, plugins, reaper
from pytest_machine.cli import main
from pytest_machine.errors import BadSpec, DriverError, DriverUnavailable, StoreError
from pytest_machine.model import Id, Isolation, Network, Record, Seed, Seen, new_id
from pytest_machine.options import option
from pytest_machine.owner import Run, alive, host_id
from pytest_machine.plugins import Registry
from pytest_machine.reaper import Found, prune, reap
from pytest_machine.store import Store
from tests.conftest import SLOWNESS

WORLD: dict[Id, Record] = {}
NETWORKS: dict[Id, Network] = {}
GATE = threading.Event()
ENDED: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A driver whose machines are entries of a dict."""

    name: ClassVar[str] = "paper"
    trouble: str = option("", help="what its destroy does: raise, crash, hang")
    build: str = option("", help="a file that machines are made of")

    @property
    def isolation(self) -> Isolation:
        return Isolation.PRIVILEGED

    def check(self) -> None:
        if self.build and not Path(self.build).exists():
            raise BadSpec(f"There is no '{self.build}'.")

    def create(self, record: Record, seed: Seed) -> None: ...
    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        return {}

    def destroy(self, record: Record) -> None:
        if self.trouble == "raise":
            raise DriverError("No.", hint="ask again")
        if self.trouble == "crash":
            raise ZeroDivisionError("a stranger's bug")
        if self.trouble == "hang":
            GATE.wait(30)
        ENDED.append(record.name)
        WORLD.pop(record.id, None)

    def find(self) -> Iterable[Record]:
        return list(WORLD.values())

    def connect(self, record: Record, network: Network) -> str:
        return ""

    def disconnect(self, record: Record, network: Network) -> None: ...
    def remove_network(self, network: Network) -> None:
        NETWORKS.pop(network.id, None)

    def find_networks(self) -> Iterable[Network]:
        return list(NETWORKS.values())


class Hanging(Paper):
    name: ClassVar[str] = "hanging"

    def find(self) -> Iterable[Record]:
        GATE.wait(30)
        return []


class Crashing(Paper):
    name: ClassVar[str] = "crashing"

    def find(self) -> Iterable[Record]:
        raise ZeroDivisionError("a stranger's bug")


class Absent(Paper):
    name: ClassVar[str] = "absent"

    def check(self) -> None:
        raise DriverUnavailable("Not here.")


DRIVERS: list[type[Paper]] = []


def pytest_machine_drivers() -> list[type[Paper]]:
    return DRIVERS


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for each in (WORLD, NETWORKS, ENDED, DRIVERS):
        each.clear()
    GATE.clear()
    DRIVERS.append(Paper)
    # Neither the host's own drivers nor their machines are any business of these tests.
    monkeypatch.setattr(plugins, "_BUILT_IN", {})
    monkeypatch.setattr(reaper, "_registry", lambda _: registry())
    yield
    GATE.set()


def registry() -> Registry:
    return Registry([sys.modules[__name__]])


Make = Callable[..., Record]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes a machine, noted in its store unless told otherwise."""

    def make(name: str = "web", *, store: Store | None = None, noted: bool = True, **fields: object) -> Record:
        store = store or Store(tmp_path / "storage")
        record = Record(id=new_id(), name=name, driver="paper", store=store.path, host=host_id(), created=time.time())
        record = record.with_(**fields)
        WORLD[record.id] = record
        if noted:
            store.add(record)
        return record

    return make


def dead_run() -> Run:
    """Return a run that was killed: it has let go of its lock, and that is all."""
    run = Run.begin()
    run._lock.release()
    return run


def only(found: list[Found]) -> Found:
    assert len(found) == 1, found
    return found[0]


class TestWhatMayGo:
    def test_a_dead_runs(self, make: Make) -> None:
        run = dead_run()
        make(store=run.lab_store("one"), run=run.id)
        assert only(prune(registry())).why == f"its run '{run.id}' has ended"
        assert not WORLD
        assert not run.directory.exists()

    def test_never_a_living_runs(self, make: Make) -> None:
        run = Run.begin()
        record = make(store=run.store, run=run.id)
        for everything in (False, True):
            found = only(prune(registry(), everything=everything))
            assert (found.doomed, found.why) == (False, f"its run '{run.id}' lives")
        assert list(WORLD) == [record.id]
        run.store.remove("web")
        run.end()

    def test_a_run_whose_store_is_gone(self, make: Make) -> None:
        run = dead_run()
        make(store=run.store, run=run.id, noted=False)
        shutil.rmtree(run.directory)
        assert only(prune(registry(), by_hand=False)).why == f"its run '{run.id}' has ended, and its store is gone"
        assert not WORLD

    def test_a_run_kept_elsewhere(self, make: Make, tmp_path: Path) -> None:
        run = Run.begin(root=tmp_path / "elsewhere")
        run._lock.release()
        make(store=run.store, run=run.id)
        assert only(prune(registry())).doomed
        assert not WORLD
        assert not run.directory.exists()

    def test_one_made_by_hand_only_with_everything(self, make: Make) -> None:
        make(ready=time.time())
        assert only(prune(registry())).why == "it was made by hand"
        assert WORLD
        assert only(prune(registry(), everything=True)).doomed
        assert not WORLD

    def test_one_kept_on_purpose_only_with_everything(self, make: Make) -> None:
        run = dead_run()
        for record in (make(store=run.store, run=run.id), make("by-hand", ready=1.0)):
            (record.directory / "kept.json").write_text('{"because": "test_it failed"}')
        found = prune(registry())
        assert {(each.doomed, each.why) for each in found} == {(False, "it was kept on purpose: test_it failed")}
        assert len(WORLD) == 2
        assert run.store.names() == ["web"], "its keys stay too"
        (next(iter(WORLD.values())).directory / "kept.json").write_text("{")
        assert not any(each.doomed for each in prune(registry())), "when in doubt, it stays"
        assert all(each.doomed for each in prune(registry(), everything=True))
        assert not WORLD
        assert not run.directory.exists()

    def test_one_past_its_time(self, make: Make) -> None:
        make("old", ready=1.0, expires=time.time() - 1)
        make("waits", ready=1.0, expires=time.time() + 60)
        found = {each.name: each for each in prune(registry(), by_hand=False)}
        assert found["old"].doomed
        assert not found["waits"].doomed
        assert "kept for later runs until" in found["waits"].why
        assert [record.name for record in WORLD.values()] == ["waits"]

    def test_one_past_its_time_that_a_living_run_has_claimed(self, make: Make, tmp_path: Path) -> None:
        run = Run.begin()
        store = Store(tmp_path / "shelf" / "key-0")
        make(store=store, ready=1.0, expires=1.0)
        (store.path / "claim.json").write_text(f'{{"run": "{run.directory}", "by": ""}}')
        assert only(prune(registry(), everything=True)).why == f"its run '{run.id}' lives"
        run.end()
        assert only(prune(registry())).why == "its time is over"
        assert not WORLD

    def test_what_the_store_says_counts_and_not_the_tags(self, make: Make) -> None:
        record = make(ready=1.0, expires=1.0)
        Store(record.store).save(record.with_(expires=time.time() + 60))
        assert not only(prune(registry())).doomed

    def test_another_hosts_only_past_its_time(self, make: Make) -> None:
        make("theirs", noted=False, host="0123456789ab", run="run")
        make("theirs-too", noted=False, host="0123456789ab", run="run", expires=1.0)
        assert {each.name: each.doomed for each in prune(registry(), everything=True)} == {
            "theirs": False,
            "theirs-too": True,
        }

    def test_broken_off_creations(self, make: Make) -> None:
        make("now")
        make("long-ago", created=1.0)
        found = {each.name: each for each in prune(registry())}
        assert (found["now"].doomed, found["long-ago"].doomed) == (False, True)
        assert "its creation began only" in found["now"].why
        assert found["long-ago"].why == "its creation was broken off"

    @pytest.mark.real
    def test_a_creation_under_way_stays_however_long_it_takes(self, make: Make) -> None:
        record = make(created=1.0)
        code = "import sys; from pathlib import Path; from pytest_machine.store import Store\n"
        code += f"with Store(Path({str(record.store)!r})).lock('web'): print(flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            assert only(prune(registry(), everything=True)).why == "it is being made"
            process.communicate()
        assert only(prune(registry())).doomed

    def test_one_that_no_store_knows(self, make: Make) -> None:
        make(noted=False)
        assert not only(prune(registry(), by_hand=False)).doomed, "a human should be asked"
        assert only(prune(registry())).why == "no store knows it any more"
        assert not WORLD

    def test_older_than(self, make: Make) -> None:
        run = dead_run()
        make("young", store=run.store, run=run.id)
        make("old", store=run.store, run=run.id, created=time.time() - 7200)
        found = {each.name: each for each in prune(registry(), older_than=3600)}
        assert (found["young"].doomed, found["old"].doomed) == (False, True)
        assert "younger" in found["young"].why
        assert run.store.names() == ["young"]

    def test_a_dry_run_destroys_nothing(self, make: Make) -> None:
        run = dead_run()
        make(store=run.store, run=run.id)
        assert only(prune(registry(), destroy=False)).doomed
        assert WORLD
        Run.begin(run.id).end()  # and it has ended nothing: the run can still be joined


class TestNetworks:
    def network(self, store: Store, run: str, lab: str = "lab") -> Network:
        network = Network(id=new_id(), name="front", store=store.path, host=host_id(), run=run, lab=lab, created=1.0)
        NETWORKS[network.id] = network
        return network

    def test_goes_with_its_run_even_if_its_machines_went_before(self) -> None:
        run = dead_run()
        self.network(run.lab_store("one"), run.id)
        assert only(prune(registry())).kind == "network"
        assert not NETWORKS
        assert not run.directory.exists()

    def test_stays_with_a_living_run(self) -> None:
        run = Run.begin()
        self.network(run.store, run.id)
        assert not only(prune(registry())).doomed
        run.end()

    def test_stays_with_a_machine_that_stays(self, make: Make) -> None:
        run = dead_run()
        (make(store=run.store, run=run.id, lab="lab").directory / "kept.json").write_text("{}")
        self.network(run.store, run.id)
        prune(registry())
        assert NETWORKS


class TestTrouble:
    def test_one_that_could_not_be_made_again(self, make: Make, tmp_path: Path) -> None:
        """What it was made of is gone; so is the machine then."""
        run = dead_run()
        make(store=run.store, run=run.id, options={"build": str(tmp_path / "gone.tgz")})
        found = reaper.prune(registry())
        assert [(each.kind, each.name, each.error) for each in found] == [("machine", "web", "")]
        assert not WORLD
        assert not run.directory.exists()

    @pytest.mark.parametrize(
        ("trouble", "said"), [("raise", "hint: ask again"), ("crash", "ZeroDivisionError: a stranger's bug")]
    )
    def test_one_that_cannot_be_destroyed_holds_up_nobody(self, make: Make, trouble: str, said: str) -> None:
        run = dead_run()
        bad = make("bad", store=run.store, run=run.id, options={"trouble": trouble})
        make("good", store=run.store, run=run.id)
        found = {each.name: each for each in reap(run.directory)}
        assert said in found["bad"].error
        assert ENDED == ["good"]
        assert run.store.names() == ["bad"], "it is noted for the next try"
        run.store.save(bad.with_(options={}))
        assert not only(reap(run.directory)).error
        assert not run.directory.exists()

    def test_one_that_hangs_holds_up_nobody(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reaper, "_DESTROYED", 0.3 * SLOWNESS)
        run = dead_run()
        make("bad", store=run.store, run=run.id, options={"trouble": "hang"})
        make("good", store=run.store, run=run.id)
        found = {each.name: each.error for each in reap(run.directory)}
        assert "still at it" in found["bad"]
        assert not found["good"]
        assert ENDED == ["good"]

    def test_drivers_that_cannot_be_asked(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reaper, "_ASKED", 0.3 * SLOWNESS)
        DRIVERS.extend([Hanging, Crashing, Absent])
        make(noted=False)
        found = {each.name: each for each in prune(registry())}
        assert "did not answer" in found["hanging"].error
        assert found["crashing"].error == "ZeroDivisionError: a stranger's bug"
        assert "absent" not in found, "what cannot run here has nothing here"
        assert found["web"].doomed
        assert not WORLD

    def test_an_unknown_driver(self, make: Make) -> None:
        run = dead_run()
        record = make(store=run.store, run=run.id)
        run.store.save(record.with_(driver="papre"))
        WORLD.clear()
        assert "There is no driver 'papre'" in only(reap(run.directory)).error
        assert run.store.names() == ["web"]

    def test_a_broken_record_of_a_machine_that_is_there(self, make: Make) -> None:
        run = dead_run()
        record = make(store=run.store, run=run.id)
        (record.directory / "pytest-machine.json").write_text("{")
        assert only(reap(run.directory)).doomed
        assert not WORLD
        assert not run.directory.exists()

    def test_a_broken_record_of_nothing(self, make: Make) -> None:
        run = dead_run()
        record = make(store=run.store, run=run.id)
        WORLD.clear()
        (record.directory / "pytest-machine.json").write_text("{")
        assert "no driver has it" in only(reap(run.directory)).why
        assert not run.directory.exists()

    def test_a_broken_record_while_a_driver_is_mute(self, make: Make) -> None:
        DRIVERS.append(Crashing)
        run = dead_run()
        record = make(store=run.store, run=run.id)
        WORLD.clear()
        (record.directory / "pytest-machine.json").write_text("{")
        reap(run.directory)
        assert run.store.names() == ["web"], "who knows what it was"

    def test_a_broken_record_made_by_hand(self, make: Make) -> None:
        record = make()
        (record.directory / "pytest-machine.json").write_text("{")
        found = only(prune(registry()))
        assert not found.doomed
        assert "its record is damaged" in found.why
        assert f"docker-machine rm -f {record.id}" in found.why
        assert only(prune(registry(), everything=True)).doomed
        assert not WORLD
        assert not record.directory.exists()

    def test_two_at_once(self, make: Make) -> None:
        run = dead_run()
        for number in range(10):
            make(f"web-{number}", store=run.store, run=run.id)
        found: list[list[Found]] = []
        threads = [threading.Thread(target=lambda: found.append(prune(registry()))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not WORLD
        assert not [each for some in found for each in some if each.error]
        assert not run.directory.exists()

    @pytest.mark.real
    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to become somebody else")
    def test_another_users_stays(self, make: Make) -> None:
        run = dead_run()
        record = make(store=run.store, run=run.id, noted=False)
        by_hand = make("by-hand")
        code = f"""
import os, time
import filelock, platformdirs, uuid  # what is imported late could not be read any more
from pathlib import Path
from pytest_machine.model import Record, Id
from pytest_machine.verdict import Judge
os.setegid(65534); os.seteuid(65534)
for name, store, run in [("web", {str(run.store.path)!r}, {run.id!r}), ("by-hand", {str(by_hand.store)!r}, "")]:
    record = Record(id=Id({record.id!r}), name=name, driver="paper", store=Path(store), host={host_id()!r},
                    run=run, created=1.0)
    judged = Judge(older_than=0, everything=True, by_hand=True, now=time.time()).machine(record)[1]
    assert not judged.doomed, judged
    print(judged.why)
"""
        by_hand.store.chmod(0o700)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("it belongs to another user") == 2


class TestTheEndOfARun:
    def test_nobody_joins_a_run_that_was_found_dead(self, make: Make) -> None:
        run = dead_run()
        make(store=run.store, run=run.id, options={"trouble": "raise"})
        reap(run.directory)
        with pytest.raises(StoreError, match="has ended"):
            Run.begin(run.id)

    def test_a_run_that_is_joined_in_time_is_left_alone(self, make: Make) -> None:
        run = dead_run()
        make(store=run.store, run=run.id)
        again = Run.begin(run.id)
        assert reap(run.directory) == []
        assert WORLD
        assert run.store.names() == ["web"]
        again._lock.release()

    def test_begin_and_reap_exclude_each_other(self, make: Make) -> None:
        """Whoever joins has its machines for as long as it lives, or was refused, whenever the reaper comes."""
        refused = joined = 0
        for _ in range(60):
            run = dead_run()
            reaping = threading.Thread(target=reap, args=(run.directory,))
            reaping.start()
            try:
                mine = Run.begin(run.id)
            except StoreError:
                refused += 1
            else:
                joined += 1
                mine.store.add(make(noted=False, store=mine.store, run=mine.id))
                reaping.join()
                assert mine.store.names() == ["web"]
                assert alive(mine.directory)
                mine.store.remove("web")
                mine.end()
            reaping.join()
            assert not run.directory.exists() or not alive(run.directory)
        assert refused + joined == 60

    def test_a_run_without_a_machine_leaves_nothing(self) -> None:
        run = dead_run()
        assert reap(run.directory) == []
        assert not run.directory.exists()
        assert reap(run.directory) == [], "again: nothing"
        assert not run.directory.exists()

    @pytest.mark.parametrize("when", ["before", "meanwhile"])
    def test_a_run_that_has_ended_when_its_reaper_is_up(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        """Its notes may be gone; what other runs have left is found all the same, by the drivers that it had."""
        dead, run = dead_run(), Run.begin()
        make(store=dead.store, run=dead.id, noted=False)
        shutil.rmtree(dead.directory)
        reaper.note_drivers(run.directory, registry())
        notes = (run.directory / "drivers.json").read_bytes()
        if when == "before":
            run.end()
        else:

            def lock(path: Path) -> object:
                run.end()
                return path.open()

            monkeypatch.setattr(reaper, "lock_file", lock)
        reaper.main(run.directory, notes)
        assert ENDED == ["web"]
        assert not run.directory.exists()

    def test_what_one_dead_process_had_goes_before_the_run_ends(self, make: Make) -> None:
        run, other = Run.begin("shared"), Run.begin("shared")
        make("mine", store=run.lab_store("a", mine=True), run=run.id)
        make("common", store=run.lab_store("b"), run=run.id)
        make("theirs", store=other.lab_store("c", mine=True), run=run.id)
        assert owner.orphans(run.directory) == []
        run._lock.release()
        (lost,) = owner.orphans(run.directory)
        assert [each.name for each in reaper.sweep([lost], registry(), "dead")] == ["mine"]
        assert sorted(record.name for record in WORLD.values()) == ["common", "theirs"]
        other._lock.release()


class TestCommand:
    @pytest.fixture(autouse=True)
    def _registry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plugins, "Registry", registry)

    def test_says_what_it_found_and_why(self, make: Make) -> None:
        run = dead_run()
        gone = make(store=run.store, run=run.id)
        stays = make("by-hand", ready=1.0)
        dry = CliRunner().invoke(main, ["prune", "--dry-run"])
        assert dry.output.splitlines() == [
            f"machine 'web' (paper {gone.id}) would be destroyed: its run '{run.id}' has ended",
            f"machine 'by-hand' (paper {stays.id}) stays: it was made by hand",
        ]
        done = CliRunner().invoke(main, ["prune"])
        assert "destroyed: its run" in done.output
        again = CliRunner().invoke(main, ["prune"])
        assert again.output.splitlines()[-1] == "Nothing is left behind."
        assert {dry.exit_code, done.exit_code, again.exit_code} == {0}

    def test_says_what_it_could_not_do(self, make: Make) -> None:
        run = dead_run()
        make(store=run.store, run=run.id, options={"trouble": "raise"})
        DRIVERS.append(Crashing)
        done = CliRunner().invoke(main, ["prune"])
        assert done.exit_code == 1
        assert "machine 'web' " in done.output
        assert "could not be destroyed: its run" in done.output
        assert "  No.\n  hint: ask again" in done.output
        assert "driver 'crashing': it could not be asked" in done.output
        assert done.output.splitlines()[-1].startswith("hint: ")

    @pytest.mark.parametrize(("age", "seconds"), [("90", 90), ("30m", 1800), ("2h", 7200), ("7d", 604800)])
    def test_ages(self, make: Make, age: str, seconds: float) -> None:
        run = dead_run()
        make("young", store=run.store, run=run.id, created=time.time() - seconds + 30)
        make("old", store=run.store, run=run.id, created=time.time() - seconds - 30)
        CliRunner().invoke(main, ["prune", "--older-than", age], catch_exceptions=False)
        assert [record.name for record in WORLD.values()] == ["young"]

    def test_an_odd_age(self) -> None:
        done = CliRunner().invoke(main, ["prune", "--older-than", "soon"])
        assert done.exit_code == 2
        assert "write 90, 30m, 2h or 7d" in done.output
