"""The part of `DriverSuite` that every driver goes through: create, destroy, look, find, and death in the middle."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pytest_machine.model import State, names
from pytest_machine.support import clock

from .bench import TAGS, Bench, Make, Specimen, expect_equal
from .process import Elsewhere


class LifeTests(Bench):
    """Tests of the five methods."""

    # -- create --

    def test_create_makes_a_running_machine(self, specimen: Make) -> None:
        """When it returns, the machine is powered on, has an address, and comes to answer."""
        machine = specimen()
        assert self.seen(machine).state in (State.ABSENT, State.PREPARING), "it was there before create()"
        before = self.leftovers()
        self.driver().create(machine.record, machine.seed)
        assert self.seen(machine).state is State.RUNNING
        self.wait_for_answer(machine)
        assert self.address(machine).ip
        assert self.leftovers() - before, (
            "leftovers() does not see a machine that runs: this oracle would miss every leak"
        )

    def test_create_again_is_the_same_machine(self, specimen: Make) -> None:
        """A second create of the same record does nothing: one machine, and the same."""
        machine = self.create(specimen())
        self.write(machine, "first")
        before, seen = self.leftovers(), self.seen(machine)
        self.driver().create(machine.record, machine.seed)
        assert self.seen(machine).address == seen.address, "the second create() changed the address"
        found = [record for record in self.driver().find() if record.id == machine.id]
        assert len(found) == 1, f"find() sees it {len(found)} times"
        self.wait_for_answer(machine)
        assert self.read(machine) == "first", "the second create() made a new disk"
        self.expect_left(before, "After a second create() of the same record")

    def test_equal_names_do_not_meet(self, specimen: Make) -> None:
        """Names are unique within a store only: two runs may both have a 'web'."""
        one, other = self.create(specimen("web", store="one")), self.create(specimen("web", store="other"))
        self.write(one, "one")
        self.write(other, "other")
        assert self.read(one) == "one", "two machines of the same name share a disk"
        self.driver().destroy(one.record)
        assert self.seen(other).state is State.RUNNING, "destroying one 'web' destroyed the other"

    def test_two_at_once(self, specimen: Make) -> None:
        """Two creates in two threads, and two destroys."""
        self._at_once([specimen() for _ in range(2)])

    def test_many_at_once(self, specimen: Make) -> None:
        """As many creates at once as `many` says."""
        self._at_once([specimen() for _ in range(self.many)])

    def _at_once(self, machines: Sequence[Specimen]) -> None:
        driver = self.driver()
        with ThreadPoolExecutor(len(machines)) as pool:
            list(pool.map(lambda machine: driver.create(machine.record, machine.seed), machines))
            list(pool.map(self.wait_for_answer, machines))
        self._expect_running_apart(machines)
        before = driver.look([machine.record for machine in machines])
        assert len(before) == len(machines)
        with ThreadPoolExecutor(len(machines)) as pool:
            list(pool.map(lambda machine: driver.destroy(machine.record), machines))
        states = {seen.state for seen in driver.look([machine.record for machine in machines]).values()}
        assert states == {State.ABSENT}, f"after destroy() of all, look() says {names(sorted(states))}"

    def _expect_running_apart(self, machines: Sequence[Specimen]) -> None:
        seen = self.driver().look([machine.record for machine in machines])
        assert {s.state for s in seen.values()} == {State.RUNNING}, f"not all are running: {seen}"
        places = [(s.address.ip, s.address.engine_port) for s in seen.values() if s.address]
        assert len(set(places)) == len(machines), f"machines share an address: {sorted(places)}"

    def test_two_processes_at_once(self, specimen: Make) -> None:
        """Two creates in two processes, as pytest-xdist does: no thread's lock helps here."""
        machines = [specimen() for _ in range(2)]
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(Elsewhere(self.driver(), "create", m.record, m.seed)) for m in machines]
            for other in others:
                other.go()
            for other in others:
                other.result(timeout=self.ready_seconds)
        for machine in machines:
            self.wait_for_answer(machine)
        self._expect_running_apart(machines)

    # -- destroy --

    def test_destroy_leaves_nothing(self, specimen: Make) -> None:
        """Every trace is gone when it returns, the reservation too."""
        before = self.leftovers()
        machine = self.create(specimen())
        self.driver().destroy(machine.record)
        assert self.seen(machine).state is State.ABSENT
        assert machine.id not in {record.id for record in self.driver().find()}, "find() still sees it"
        self.expect_left(before, "After create() and destroy()")

    def test_destroy_again(self, specimen: Make) -> None:
        """A second destroy does nothing and raises nothing."""
        machine = self.create(specimen())
        self.driver().destroy(machine.record)
        self.driver().destroy(machine.record)
        assert self.seen(machine).state is State.ABSENT

    def test_destroy_the_never_made(self, specimen: Make) -> None:
        """Whoever cleans up cannot know how far it went: a record alone must do."""
        machine = specimen(reserve=False)
        self.driver().destroy(machine.record)
        assert self.seen(machine).state is State.ABSENT

    def test_destroy_spares_others(self, specimen: Make) -> None:
        """One goes, its neighbour stays and answers."""
        one, other = self.create(specimen()), self.create(specimen())
        self.driver().destroy(one.record)
        assert self.seen(other).state is State.RUNNING, "destroying one machine stopped another"
        assert self.answers(other), "destroying one machine silenced another"

    # -- killed midway --

    def _moments(self, specimen: Make) -> Iterator[tuple[str, Specimen]]:
        """Yield machines whose create was killed, each at another moment, and which moment it was."""
        whole = specimen()
        with Elsewhere(self.driver(), "create", whole.record, whole.seed) as process:
            begun = clock.monotonic()
            process.go()
            process.result(timeout=self.ready_seconds)
            seconds = clock.monotonic() - begun
        self.driver().destroy(whole.record)
        for fraction in self.kill_at:
            machine = specimen()
            with Elsewhere(self.driver(), "create", machine.record, machine.seed) as process:
                process.go()
                clock.sleep(seconds * fraction)
                process.kill()
            yield f"{fraction:.0%} of {seconds:.2f} s", machine

    def test_create_killed_midway(self, specimen: Make) -> None:
        """SIGKILL at several moments of create, then destroy: nothing is left."""
        before = self.leftovers()
        for moment, machine in self._moments(specimen):
            self.driver().destroy(machine.record)
            self.expect_left(before, f"After create() was killed at {moment} and destroy()")
            assert self.seen(machine).state is State.ABSENT, f"killed at {moment}, it is still there after destroy()"

    def test_create_killed_midway_is_found(self, specimen: Make) -> None:
        """The same, with the store gone: whatever exists carries the tags, so that `find` reaches it."""
        before = self.leftovers()
        for moment, machine in self._moments(specimen):
            shutil.rmtree(machine.record.store)
            for record in self.driver().find():
                if record.id == machine.id:
                    self.driver().destroy(record)
            self.expect_left(before, f"After create() was killed at {moment} and what find() found was destroyed")
            machine.record.directory.mkdir(parents=True)

    def test_destroy_killed_midway(self, specimen: Make) -> None:
        """SIGKILL in destroy, then destroy again: nothing is left."""
        before = self.leftovers()
        seconds = 0.0
        for fraction in (1.0, 0.0, 0.3, 0.6):
            machine = specimen()
            self.driver().create(machine.record, machine.seed)
            with Elsewhere(self.driver(), "destroy", machine.record) as process:
                begun = clock.monotonic()
                process.go()
                if seconds:
                    clock.sleep(seconds * fraction)
                    process.kill()
                else:
                    process.result(timeout=self.ready_seconds)
                    seconds = clock.monotonic() - begun
            self.driver().destroy(machine.record)
            self.expect_left(before, f"After destroy() was killed at {fraction:.0%} of {seconds:.2f} s and destroy()")

    # -- look and find --

    def test_look_of_many(self, specimen: Make) -> None:
        """One call answers for all that were asked about, those that are not there too."""
        there = [self.create(specimen()) for _ in range(2)]
        absent = [specimen(reserve=False) for _ in range(2)]
        seen = self.driver().look([machine.record for machine in (absent[0], *there, absent[1])])
        forgotten = [machine.record.name for machine in (*there, *absent) if machine.id not in seen]
        assert not forgotten, f"look() says nothing of {names(forgotten)}"
        assert [seen[machine.record.id].state for machine in there] == [State.RUNNING] * 2
        assert [seen[machine.record.id].state for machine in absent] == [State.ABSENT] * 2
        assert not self.driver().look([]), "look() of none sees something"

    def test_fresh_process_looks(self, specimen: Make) -> None:
        """Another process sees the same: the driver remembers nothing."""
        machine = self.create(specimen())
        absent = specimen(reserve=False)
        records = [machine.record, absent.record]
        elsewhere = self.elsewhere("look", records)
        assert elsewhere == self.driver().look(records), "a fresh process sees another state"
        assert isinstance(elsewhere, Mapping)
        assert elsewhere[machine.record.id].state is State.RUNNING

    def test_fresh_process_finds(self, specimen: Make) -> None:
        """Another process finds it by its tags, with the store gone."""
        machine = self.create(specimen())
        shutil.rmtree(machine.record.store)
        found = self.elsewhere("find")
        assert isinstance(found, list)
        assert machine.id in {record.id for record in found}, "a fresh process does not find it"

    def test_find_rebuilds_the_record(self, specimen: Make) -> None:
        """Who it is, whose it is, and its options come back from the tags alone."""
        machines = [self.create(specimen()) for _ in range(2)]
        found = {record.id: record for record in self.driver().find()}
        for machine in machines:
            assert machine.id in found, f"find() does not see '{machine.record.name}'"
            expect_equal(found[machine.record.id], machine.record, TAGS)

    def test_found_is_destroyed_without_its_store(self, specimen: Make) -> None:
        """The store's directory is gone; what `find` rebuilt is enough to destroy it."""
        before = self.leftovers()
        machine = self.create(specimen())
        shutil.rmtree(machine.record.store)
        found = [record for record in self.driver().find() if record.id == machine.id]
        assert len(found) == 1, f"find() sees it {len(found)} times"
        self.driver().destroy(found[0])
        assert self.seen(machine).state is State.ABSENT
        assert not machine.record.store.exists(), "destroy() made the store's directory anew"
        self.expect_left(before, "After destroy() of a record that find() rebuilt")
