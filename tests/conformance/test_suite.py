"""The suite itself: each broken driver must turn it red, in the test that should notice and for the right reason."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pytest_machine.certs import Authority
from pytest_machine.errors import DriverError
from pytest_machine.model import Address, Id, Network, Record, Seed, Seen, State
from pytest_machine.ssh import new_key
from pytest_machine.stored import Damaged
from pytest_machine.testing import FakeDriver
from tests.plugin.sshless import Sshless


class CreatesTwo(FakeDriver):
    """Takes a second create for a second machine."""

    def create(self, record: Record, seed: Seed) -> None:
        again = (self._home(record.id) / "created").exists()
        super().create(record, seed)
        if again:
            self._home(Id(f"{record.id}-2")).mkdir()


class ReturnsTooSoon(FakeDriver):
    """Comes back before the machine is on."""

    def create(self, record: Record, seed: Seed) -> None:
        super().create(record, seed)
        self.kill(record)


class TakesTheNameForTheMachine(FakeDriver):
    """Destroys whatever has the name."""

    def destroy(self, record: Record) -> None:
        for found in self.find():
            if found.name == record.name:
                super().destroy(found)


class LeavesAFile(FakeDriver):
    """Keeps a log."""

    def destroy(self, record: Record) -> None:
        super().destroy(record)
        (self.directory / "machines" / f"{record.id}.log").touch()


class LeavesTheProcess(FakeDriver):
    """Forgets to end the engine."""

    def _end(self, id: Id, order: str) -> bool:
        return order == "kill" or super()._end(id, order)


class DestroysOnce(FakeDriver):
    """Complains that the machine is gone."""

    def destroy(self, record: Record) -> None:
        if self.look([record])[record.id].state is State.ABSENT:
            raise DriverError(f"There is no machine '{record.name}'.")
        super().destroy(record)


class DestroysAll(FakeDriver):
    """Cleans up a little too well."""

    def destroy(self, record: Record) -> None:
        for found in self.find():
            super().destroy(found)


class DestroyNeedsTheStore(FakeDriver):
    """Keeps something that it needs in the record's directory."""

    def destroy(self, record: Record) -> None:
        if self._tags(record.id).exists() and not record.directory.exists():
            raise DriverError(f"'{record.directory}' is gone.")
        super().destroy(record)


class LeaksWhenKilled(FakeDriver):
    """Works aside, under a name that nobody knows."""

    def create(self, record: Record, seed: Seed) -> None:
        aside = self.directory / "machines" / f"aside-{time.monotonic_ns()}"
        aside.mkdir(parents=True)
        super().create(record, seed)
        aside.rmdir()


class FindsOnlyTheWhole(FakeDriver):
    """Does not see half-made machines."""

    def find(self) -> Iterable[Record]:
        return [record for record in super().find() if (self._home(record.id) / "created").exists()]


class FindsOnlyTheRunning(FakeDriver):
    """Asks the engines, not the tags."""

    def find(self) -> Iterable[Record]:
        return [record for record in super().find() if self._ask(record.id, "look")]


class FindLosesTheRun(FakeDriver):
    """Has no tag for the run: a reaper would take it for nobody's."""

    def find(self) -> Iterable[Record]:
        return [record.with_(run="") for record in super().find()]


class FindLosesOptions(FakeDriver):
    """Has no tag for the options: a machine made elsewhere could not be reached again."""

    def find(self) -> Iterable[Record]:
        return [record.with_(options={}) for record in super().find()]


class FindReadsTheStore(FakeDriver):
    """Needs what it is meant to replace."""

    def find(self) -> Iterable[Record]:
        return [record for record in super().find() if record.directory.exists()]


class LookForgetsTheAbsent(FakeDriver):
    """Leaves out what is not there."""

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        return {each: seen for each, seen in super().look(records).items() if seen.state is not State.ABSENT}


_remembered: set[Id] = set()


class Remembers(FakeDriver):
    """Knows only what this process made."""

    def create(self, record: Record, seed: Seed) -> None:
        super().create(record, seed)
        _remembered.add(record.id)

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        seen = super().look(records)
        return {each: one if each in _remembered else Seen(state=State.ABSENT) for each, one in seen.items()}


class ReserveChanges(FakeDriver):
    """Finds another address each time."""

    def reserve(self, record: Record) -> Address:
        _give_back(self, record)
        return super().reserve(record)


def _give_back(driver: FakeDriver, record: Record) -> None:
    for link, owner in driver._links("ports"):
        if owner == record.id:
            link.unlink()


class ReserveRaces(FakeDriver):
    """Looks which address is free, thinks, and takes it."""

    def reserve(self, record: Record) -> Address:
        self._tag(record)
        port = max([*self._ports().values(), 20000]) + 1
        time.sleep(0.1)
        (self.directory / "ports").mkdir(exist_ok=True)
        (self.directory / "ports" / str(port)).write_text(self._tags(record.id).read_text("utf-8"), "utf-8")
        return Address(ip="127.0.0.1", engine_port=port)


class KeepsTheReservation(FakeDriver):
    """Gives addresses back only for machines that were made."""

    def destroy(self, record: Record) -> None:
        if self._home(record.id).exists():
            super().destroy(record)


class StopLosesData(FakeDriver):
    """Stops like a container that is run with --rm."""

    def stop(self, record: Record) -> None:
        super().stop(record)
        (self._home(record.id) / "disk" / "written").unlink(missing_ok=True)


class StopDoesNothing(FakeDriver):
    """Says that it stopped."""

    def stop(self, record: Record) -> None:
        pass


class StopsOnce(FakeDriver):
    """Complains about what is stopped."""

    def stop(self, record: Record) -> None:
        self._running(record)
        super().stop(record)


class StartMoves(FakeDriver):
    """Comes back at another address."""

    def start(self, record: Record) -> None:
        if self._ask(record.id, "look") is None:
            _give_back(self, record)
            self.reserve(record)
        super().start(record)


class KillWithoutPower(FakeDriver):
    """Takes the disk along."""

    def kill(self, record: Record) -> None:
        super().kill(record)
        (self._home(record.id) / "disk" / "written").unlink(missing_ok=True)


class PauseDoesNothing(FakeDriver):
    """Says that it paused."""

    def pause(self, record: Record) -> None:
        pass


class PauseLies(FakeDriver):
    """Says so when it is asked, too."""

    def pause(self, record: Record) -> None:
        (self._home(record.id) / "paused").touch()

    def resume(self, record: Record) -> None:
        (self._home(record.id) / "paused").unlink(missing_ok=True)

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        return {
            each: Seen(state=State.PAUSED, address=seen.address) if (self._home(each) / "paused").exists() else seen
            for each, seen in super().look(records).items()
        }


class RestoresNothing(FakeDriver):
    """Restarts, and leaves the disk as it is."""

    def restore(self, record: Record, name: str) -> None:
        self.stop(record)
        self.start(record)


class KeepsTheFirstSnapshot(FakeDriver):
    """Does not replace one of the same name."""

    def snapshot(self, record: Record, name: str) -> None:
        if not (self._home(record.id) / "snapshots" / name).exists():
            super().snapshot(record, name)


class ConnectsTwice(FakeDriver):
    """Plugs in one more cable each time."""

    def connect(self, record: Record, network: Network) -> str:
        first = super().connect(record, network)
        link = self.directory / "networks" / network.id / first
        link.rename(link.with_name(f"{first}.old"))
        return super().connect(record, network)


class KeepsNetworks(FakeDriver):
    """Forgets the network's tags."""

    def remove_network(self, network: Network) -> None:
        shutil.rmtree(self.directory / "networks" / network.id, ignore_errors=True)


class NetworksLoseTheLab(FakeDriver):
    """Has no tag for a network's lab."""

    def find_networks(self) -> Iterable[Network]:
        return [replace(network, lab="") for network in super().find_networks()]


class NetworksLoseIsolation(FakeDriver):
    """Has no tag for it."""

    def find_networks(self) -> Iterable[Network]:
        return [replace(network, isolated=False) for network in super().find_networks()]


class LetsOut(FakeDriver):
    """Takes an isolated network for any other."""

    def connect(self, record: Record, network: Network) -> str:
        return super().connect(record, replace(network, isolated=False))


class TakesAnyMtu(FakeDriver):
    """Leaves it as it is."""

    def connect(self, record: Record, network: Network) -> str:
        return super().connect(record, replace(network, mtu=None))


class HasNoIpv6(FakeDriver):
    """Gives addresses of one kind."""

    def connect(self, record: Record, network: Network) -> str:
        return super().connect(record, replace(network, subnet6=""))


class ChoosesTheSubnet(FakeDriver):
    """Knows better."""

    def connect(self, record: Record, network: Network) -> str:
        return super().connect(record, replace(network, subnet=""))


class HasOneOfEachSubnet(FakeDriver):
    """Refuses what another lab has."""

    def connect(self, record: Record, network: Network) -> str:
        taken = [each.subnet for each in self.find_networks() if each.id != network.id]
        if network.subnet in taken:
            raise DriverError(f"The subnet '{network.subnet}' is taken.")
        return super().connect(record, network)


class SaysNothing(FakeDriver):
    """Claims a console that is always empty."""

    def console(self, record: Record) -> str:
        return ""


class PausesForever(FakeDriver):
    """Has one half of a capability."""

    resume = None  # type: ignore[assignment]  # what Python says for "it does not have the method", as of __hash__


@dataclass(kw_only=True, eq=False)
class Melts:
    """Is not frozen."""

    name = "melts"
    directory: str = ""

    def check(self) -> None:
        pass


class Hesitates(FakeDriver):
    """Checks by making a machine, or so."""

    def check(self) -> None:
        time.sleep(2.1)


class SaysSsh(FakeDriver):
    """Says that it has SSH, where none leads into its machines."""


class SaysNoAddress(Sshless):
    """Reserves an address, and never says that the machine has it."""

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        seen = super().look(records)
        return {each: replace(one, address=None) if self._is_labs(each) else one for each, one in seen.items()}

    def _is_labs(self, id_: Id) -> bool:
        return any(each.id == id_ and each.run == "run-lab" for each in self.find())


class ForgetsTheLab(Sshless):
    """Takes the second machine of a lab for the first."""

    def create(self, record: Record, seed: Seed) -> None:
        others = [each for each in self.find() if each.lab == record.lab and each.run == "run-lab"]
        if others and others[0].id != record.id:
            return
        super().create(record, seed)


class HidesDamage(FakeDriver):
    """Says nothing of tags that it cannot read."""

    def find_damaged(self) -> Iterable[Damaged]:
        return []


BROKEN = [
    (HidesDamage, "test_damaged_tags_are_found", "find_damaged() says []"),
    (SaysSsh, "test_a_lab_has_machines_that_are_ready", "ssh"),
    (SaysNoAddress, "test_a_lab_has_machines_that_are_ready", "address"),
    (ForgetsTheLab, "test_a_lab_has_machines_that_are_ready", "is gone"),
    (CreatesTwo, "test_create_again_is_the_same_machine", "second create"),
    (ReturnsTooSoon, "test_create_makes_a_running_machine", "RUNNING"),
    (TakesTheNameForTheMachine, "test_equal_names_do_not_meet", "destroyed the other"),
    (LeavesAFile, "test_destroy_leaves_nothing", "things are left"),
    (LeavesTheProcess, "test_destroy_leaves_nothing", "process: "),
    (DestroysOnce, "test_destroy_again", "There is no machine"),
    (DestroysOnce, "test_destroy_the_never_made", "There is no machine"),
    (DestroysAll, "test_destroy_spares_others", "stopped another"),
    (DestroyNeedsTheStore, "test_found_is_destroyed_without_its_store", "is gone"),
    (LeaksWhenKilled, "test_create_killed_midway", "aside-"),
    (FindsOnlyTheWhole, "test_create_killed_midway_is_found", "things are left"),
    (FindsOnlyTheWhole, "test_reserved_is_given_back", "find() does not see"),
    (FindsOnlyTheRunning, "test_stopped_is_found_and_destroyed", "0 times"),
    (FindLosesTheRun, "test_find_rebuilds_the_record", "run: "),
    (FindLosesOptions, "test_find_rebuilds_the_record", "options: "),
    (FindReadsTheStore, "test_fresh_process_finds", "does not find it"),
    (LookForgetsTheAbsent, "test_look_of_many", "says nothing of"),
    (Remembers, "test_fresh_process_looks", "sees another state"),
    (ReserveChanges, "test_reserve_again_is_the_same", "another address"),
    (ReserveRaces, "test_reserved_addresses_differ", "given twice"),
    (KeepsTheReservation, "test_reserved_is_given_back", "ports/"),
    (StopLosesData, "test_stop_and_start_keep_address_and_disk", "disk is gone"),
    (StopDoesNothing, "test_stop_and_start_keep_address_and_disk", "STOPPED"),
    (StopsOnce, "test_stop_again", "does not run"),
    (StartMoves, "test_stop_and_start_keep_address_and_disk", "another address"),
    (KillWithoutPower, "test_killed_starts_with_its_disk", "disk is gone"),
    (PauseDoesNothing, "test_paused_answers_nothing", "PAUSED"),
    (PauseLies, "test_paused_answers_nothing", "paused, and answers"),
    (RestoresNothing, "test_restore_brings_the_disk_back", "did not bring the disk back"),
    (KeepsTheFirstSnapshot, "test_snapshot_replaces_one_of_its_name", "made last"),
    (ConnectsTwice, "test_connect_again_is_the_same", "another address"),
    (KeepsNetworks, "test_remove_network_again", "networks/"),
    (NetworksLoseTheLab, "test_find_networks_rebuilds", "lab: "),
    (NetworksLoseIsolation, "test_find_networks_rebuilds", "isolated: "),
    (LetsOut, "test_on_isolated_networks_alone_there_is_no_outside", "it reaches the outside"),
    (TakesAnyMtu, "test_a_network_is_as_asked_for", "not the MTU"),
    (HasNoIpv6, "test_a_network_is_as_asked_for", "no address of subnet6"),
    (ChoosesTheSubnet, "test_a_network_is_as_asked_for", "is not of the subnet"),
    (HasOneOfEachSubnet, "test_networks_with_equal_subnets", "is taken"),
    (SaysNothing, "test_console_is_text", "printed nothing"),
    (PausesForever, "test_capabilities_are_whole", "but not all"),
    (Melts, "test_is_a_driver", "not frozen"),
    (Hesitates, "test_check_is_cheap", "AssertionError: check() took"),
]

SUITE = """
from tests.conformance import test_fake, test_suite

class TestBroken(test_fake.FakeSuite):
    driver_class = test_suite.{driver}
    options = {options!r}
    ready_seconds = 5.0
    settle_seconds = 0.5
    many = 3
    kill_at = (0.3, 0.5, 0.7)
"""


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Load cryptography here: pytester forgets what is imported inside it, and that cannot be loaded twice."""
    Authority.ensure(tmp_path_factory.mktemp("certs")).issue_server(name="web", hosts=[])
    new_key("web")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Return a directory for fake machines; what the broken ones leave there goes, and their engines with it."""
    place = tmp_path / "fake"
    place.mkdir()
    yield place
    for record in FakeDriver(directory=place).find():
        FakeDriver(directory=place).destroy(record)
    shutil.rmtree(place)


@pytest.mark.parametrize(("driver", "test", "reason"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_broken_is_noticed(pytester: pytest.Pytester, place: Path, driver: type, test: str, reason: str) -> None:
    # Most of a creation is waiting then, so that one of its moments is in the midst of any other.
    delay = {"delay": 0.2} if "killed_midway" in test else {}
    pytester.makepyfile(SUITE.format(driver=driver.__name__, options={"directory": str(place), **delay}))
    reports = pytester.inline_run("-p", "no:cacheprovider", f"-k={test} and not {test}_").getreports(
        "pytest_runtest_logreport"
    )
    texts = {
        (report.head_line or "").rpartition(".")[2]: report.longreprtext
        for report in reports
        if isinstance(report, pytest.TestReport) and report.failed and report.when == "call"
    }
    assert list(texts) == [test], f"this is what the suite noticed: {texts}"
    assert reason in texts[test]


def test_blind_oracle_is_noticed(pytester: pytest.Pytester, place: Path) -> None:
    """An oracle that sees nothing would let every leak pass."""
    suite = SUITE.format(driver="FakeDriver", options={"directory": str(place)})
    pytester.makepyfile(suite + "    def leftovers(self):\n        return set()\n")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-k=test_create_makes_a_running_machine")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines("*this oracle would miss every leak*")


@pytest.mark.parametrize(("required", "outcome"), [(False, {"skipped": 1}), (True, {"errors": 1})])
def test_cannot_run_here(pytester: pytest.Pytester, place: Path, required: bool, outcome: dict[str, int]) -> None:
    """A driver that cannot run here is skipped with its reason, unless the suite says that it must run."""
    suite = SUITE.format(driver="FakeDriver", options={"directory": str(place), "unavailable": "no luck"})
    pytester.makepyfile(suite + f"    required = {required}\n")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs", "-k=test_destroy_again")
    assert {k: v for k, v in result.parseoutcomes().items() if k != "deselected"} == outcome
    result.stdout.fnmatch_lines("*no luck*")


def test_lacking_capability_is_skipped_by_name(pytester: pytest.Pytester, place: Path) -> None:
    suite = SUITE.format(driver="WithoutPause", options={"directory": str(place)})
    pytester.makepyfile(suite)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs", "-k=paused")
    assert {k: v for k, v in result.parseoutcomes().items() if k != "deselected"} == {"skipped": 2}
    result.stdout.fnmatch_lines("*the driver 'fake' does not claim 'pause' (SupportsPause)*")


class WithoutPause(FakeDriver):
    """Cannot pause, and does not say that it can."""

    pause = None  # type: ignore[assignment]
    resume = None  # type: ignore[assignment]


def test_port_is_taken(place: Path) -> None:
    """The engine's reason for not starting reaches whoever asked for it."""
    driver = FakeDriver(directory=place)
    record = Record(id=Id("0123456789"), name="web", driver="fake", store=place, host="here", created=0.0)
    seed = Seed(hostname="web", authorized_key="", host_key="", host_key_public="")
    port = driver.reserve(record).engine_port
    with socket.create_server(("127.0.0.1", port)), pytest.raises(DriverError, match="did not start"):
        driver.create(record, seed)
    driver.create(record, seed)
    assert driver.look([record])[record.id].state is State.RUNNING
