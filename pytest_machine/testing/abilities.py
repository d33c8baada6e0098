# `Bench.capable` takes a protocol as a value, which mypy allows for concrete classes only.
# mypy: disable-error-code="type-abstract"
"""The part of `DriverSuite` that asks only those who claim it: reserve, power, kill, pause, snapshots and so on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from pytest_machine.driver import (
    SupportsConsole,
    SupportsDamagedTags,
    SupportsKill,
    SupportsNetworks,
    SupportsPause,
    SupportsPower,
    SupportsReserve,
    SupportsReset,
    SupportsSnapshots,
)
from pytest_machine.errors import DriverError
from pytest_machine.model import State, names
from pytest_machine.reaper import stand_in
from pytest_machine.support import clock
from pytest_machine.waiting import wait

from .bench import NETWORK_TAGS, TAGS, Bench, Make, MakeNetwork, Specimen, expect_equal


class AbilityTests(Bench):
    """Tests of the capabilities, each skipped by name for a driver that does not claim it."""

    # -- damaged tags --

    def test_damaged_tags_are_found(self, specimen: Make) -> None:
        """A machine whose tags cannot be read is reported with its id, and destroyed by that alone; others stay."""
        driver = self.driver()
        if not isinstance(driver, SupportsDamagedTags):
            pytest.skip(f"the driver '{driver.name}' does not claim damaged tags (SupportsDamagedTags)")
        machine, other = self.create(specimen()), self.create(specimen())
        self.damage(machine)
        found = {record.id for record in driver.find()}
        assert machine.id not in found, "find() rebuilt a record from tags that are damaged"
        assert other.id in found, "a damaged tag hides another machine from find()"
        damaged = [each for each in driver.find_damaged() if each.id in (machine.id, other.id)]
        assert [each.id for each in damaged] == [machine.id], f"find_damaged() says {damaged}"
        assert damaged[0].reason, "find_damaged() does not say why"
        assert damaged[0].place, "find_damaged() does not say where"
        driver.destroy(stand_in(damaged[0], driver))
        assert self.seen(machine).state is State.ABSENT, "destroy() of a machine of which only the id is known"
        assert not [each for each in driver.find_damaged() if each.id == machine.id]
        assert self.seen(other).state is State.RUNNING, "it destroyed another machine"

    # -- reserve --

    def test_reserve_again_is_the_same(self, specimen: Make) -> None:
        """The address is the machine's from the first call on, before and after its birth."""
        driver = self.capable(SupportsReserve)
        machine = specimen()
        first = driver.reserve(machine.record)
        assert driver.reserve(machine.record) == first, "the second reserve() gave another address"
        assert self.elsewhere("reserve", machine.record) == first, "in a fresh process it gave another"
        self.create(machine)
        assert self.address(machine) == first, "the machine was born at another address than the one reserved"
        assert driver.reserve(machine.record) == first, "reserve() of a running machine gave another address"

    def test_reserved_addresses_differ(self, specimen: Make) -> None:
        """No two records get the same, however many ask at once."""
        driver = self.capable(SupportsReserve)
        machines = [specimen(reserve=False) for _ in range(self.many)]
        with ThreadPoolExecutor(self.many) as pool:
            addresses = list(pool.map(lambda machine: driver.reserve(machine.record), machines))
        places = sorted((address.ip, address.engine_port) for address in addresses)
        assert len(set(places)) == self.many, f"an address was given twice: {places}"

    def test_reserved_is_given_back(self, specimen: Make) -> None:
        """Destroying what was only reserved frees the address; `find` saw it before."""
        driver = self.capable(SupportsReserve)
        before = self.leftovers()
        machine = specimen(reserve=False)
        driver.reserve(machine.record)
        if self.leftovers() - before:
            found = {record.id for record in self.driver().find()}
            assert machine.id in found, "a reservation leaves something that find() does not see"
        self.driver().destroy(machine.record)
        self.expect_left(before, "After reserve() and destroy()")

    # -- power --

    def test_stop_and_start_keep_address_and_disk(self, specimen: Make) -> None:
        """An orderly stop loses nothing but time."""
        driver = self.capable(SupportsPower)
        machine = self.create(specimen())
        self._through_the_dark(machine, driver, lambda: driver.stop(machine.record))

    def _through_the_dark(self, machine: Specimen, driver: SupportsPower, darken: Callable[[], None]) -> None:
        self.write(machine, "kept")
        address = self.address(machine)
        darken()
        assert self.seen(machine).state is State.STOPPED
        assert not self.answers(machine), "it is stopped, and answers"
        driver.start(machine.record)
        assert self.seen(machine).state is State.RUNNING
        self.wait_for_answer(machine)
        if isinstance(driver, SupportsReserve):
            assert self.address(machine) == address, "it came back at another address"
        assert self.read_soon(machine) == "kept", "what was on its disk is gone"

    def test_stop_again(self, specimen: Make) -> None:
        """Stopping what is stopped does nothing."""
        driver = self.capable(SupportsPower)
        machine = self.create(specimen())
        driver.stop(machine.record)
        driver.stop(machine.record)
        assert self.seen(machine).state is State.STOPPED

    def test_start_again(self, specimen: Make) -> None:
        """Starting what runs does nothing."""
        driver = self.capable(SupportsPower)
        machine = self.create(specimen())
        before = self.leftovers()
        driver.start(machine.record)
        assert self.seen(machine).state is State.RUNNING
        assert self.answers(machine), "start() of a running machine silenced it"
        self.expect_left(before, "After start() of a running machine")

    def test_stopped_is_found_and_destroyed(self, specimen: Make) -> None:
        """What does not run is still there: found by its tags, and destroyed without a trace."""
        driver = self.capable(SupportsPower)
        machine = self.create(specimen())
        driver.stop(machine.record)
        found = [record for record in self.driver().find() if record.id == machine.id]
        assert len(found) == 1, f"find() sees the stopped machine {len(found)} times"
        expect_equal(found[0], machine.record, TAGS)
        self.driver().destroy(found[0])
        assert self.seen(machine).state is State.ABSENT

    # -- kill --

    def test_kill_cuts_the_power(self, specimen: Make) -> None:
        """The machine is off at once; a second cut does nothing."""
        driver = self.capable(SupportsKill)
        machine = self.create(specimen())
        driver.kill(machine.record)
        assert self.seen(machine).state is State.STOPPED
        assert not self.answers(machine), "its power is cut, and it answers"
        driver.kill(machine.record)
        assert self.seen(machine).state is State.STOPPED

    def test_killed_starts_with_its_disk(self, specimen: Make) -> None:
        """A power cut keeps the disk and the address."""
        killer = self.capable(SupportsKill)
        driver = self.capable(SupportsPower)
        machine = self.create(specimen())
        self._through_the_dark(machine, driver, lambda: killer.kill(machine.record))

    # -- pause --

    def test_paused_answers_nothing(self, specimen: Make) -> None:
        """Frozen, and then as before; each twice, as nothing more happens."""
        driver = self.capable(SupportsPause)
        machine = self.create(specimen())
        for _ in range(2):
            driver.pause(machine.record)
            assert self.seen(machine).state is State.PAUSED
        assert not self.answers(machine), "it is paused, and answers"
        for _ in range(2):
            driver.resume(machine.record)
            assert self.seen(machine).state is State.RUNNING
        self.wait_for_answer(machine)

    def test_paused_is_destroyed(self, specimen: Make) -> None:
        """A machine that cannot react goes all the same."""
        driver = self.capable(SupportsPause)
        machine = self.create(specimen())
        driver.pause(machine.record)
        self.driver().destroy(machine.record)
        assert self.seen(machine).state is State.ABSENT

    # -- snapshots --

    def test_restore_brings_the_disk_back(self, specimen: Make) -> None:
        """What came after the snapshot is gone, what was there is back, and it runs; as often as wanted."""
        driver = self.capable(SupportsSnapshots)
        machine = self.create(specimen())
        self.write(machine, "then")
        driver.snapshot(machine.record, "clean")
        for _ in range(2):
            self.write(machine, "now")
            driver.restore(machine.record, "clean")
            assert self.seen(machine).state is State.RUNNING, "it ran before restore(), and does not after"
            self.wait_for_answer(machine)
            assert self.read_soon(machine) == "then", "restore() did not bring the disk back"

    # -- reset --

    def test_an_untouched_machine_shows_no_changes(self, specimen: Make) -> None:
        """What it does by itself is no change, also after a while."""
        driver = self.capable(SupportsReset)
        machine = self.create(specimen())
        driver.note(machine.record)
        clock.sleep(1)
        assert not driver.is_touched(machine.record), "is_touched() of a machine that nobody touched"
        assert list(driver.changes(machine.record)) == [], "changes() of a machine that nobody touched"

    def test_laid_again_it_is_as_it_was_born(self, specimen: Make) -> None:
        """What was written is seen, and gone afterwards; the address stays; as often as wanted."""
        driver = self.capable(SupportsReset)
        machine = self.create(specimen())
        for _ in range(2):
            driver.note(machine.record)
            address = self.address(machine)
            self.write(machine, "now")
            assert driver.changes(machine.record), "changes() does not see a file that was written"
            driver.lay_again(machine.record, machine.seed)
            self.wait_for_answer(machine)
            driver.note(machine.record)
            assert not self.read_soon(machine), "what was written before lay_again() is still there"
            assert self.address(machine) == address, "lay_again() gave another address"

    def test_snapshot_replaces_one_of_its_name(self, specimen: Make) -> None:
        """The later one counts; one of another name stays."""
        driver = self.capable(SupportsSnapshots)
        machine = self.create(specimen())
        for text, name in (("one", "other"), ("one", "clean"), ("two", "clean"), ("three", "")):
            self.write(machine, text)
            if name:
                driver.snapshot(machine.record, name)
        for name, text in (("clean", "two"), ("other", "one")):
            driver.restore(machine.record, name)
            self.wait_for_answer(machine)
            assert self.read_soon(machine) == text, f"the snapshot '{name}' is not the one that was made last"

    # -- networks --

    def test_connect_again_is_the_same(self, specimen: Make, network: MakeNetwork) -> None:
        """The address stays, and `look` tells it."""
        driver = self.capable(SupportsNetworks)
        front, machine = network("front"), self.create(specimen())
        address = driver.connect(machine.record, front)
        before = self.leftovers()
        assert driver.connect(machine.record, front) == address, "the second connect() gave another address"
        self.expect_left(before, "After a second connect() to the same network")
        assert self.seen(machine).networks == {"front": address}

    def test_addresses_on_networks_differ(self, specimen: Make, network: MakeNetwork) -> None:
        """Two machines on two networks have four addresses."""
        driver = self.capable(SupportsNetworks)
        front, back = network("front"), network("back")
        machines = [self.create(specimen()) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            fronts = list(pool.map(lambda machine: driver.connect(machine.record, front), machines))
        backs = [driver.connect(machine.record, back) for machine in machines]
        assert len({*fronts, *backs}) == 4, f"an address was given twice: {names([*fronts, *backs])}"
        for machine, one, two in zip(machines, fronts, backs, strict=True):
            assert self.seen(machine).networks == {"front": one, "back": two}
            assert self.answers(machine), "connected to networks, it is no longer reached from here"

    def test_disconnect(self, specimen: Make, network: MakeNetwork) -> None:
        """It takes the machine off, again does nothing, and it can be put back."""
        driver = self.capable(SupportsNetworks)
        front, machine = network("front"), self.create(specimen())
        driver.disconnect(machine.record, front)
        driver.connect(machine.record, front)
        for _ in range(2):
            driver.disconnect(machine.record, front)
            assert self.seen(machine).networks == {}, "disconnected, look() still sees it on the network"
        address = driver.connect(machine.record, front)
        assert self.seen(machine).networks == {"front": address}

    def test_remove_network_again(self, specimen: Make, network: MakeNetwork) -> None:
        """Every trace goes; again, or never made, nothing happens."""
        driver = self.capable(SupportsNetworks)
        front, never, machine = network("front"), network("never"), self.create(specimen())
        before = self.leftovers()
        driver.connect(machine.record, front)
        driver.disconnect(machine.record, front)
        for _ in range(2):
            driver.remove_network(front)
        driver.remove_network(never)
        self.expect_left(before, "After remove_network()")
        assert front.id not in {found.id for found in driver.find_networks()}, "find_networks() still sees it"

    def test_find_networks_rebuilds(self, specimen: Make, network: MakeNetwork) -> None:
        """Whose it is comes back from the tags alone, its machines gone or not; what was found can be removed."""
        driver = self.capable(SupportsNetworks)
        front = network("front", subnet6="fd74:6573:7400::/64", mtu=1400, isolated=True)
        machine = self.create(specimen())
        before = self.leftovers()
        driver.connect(machine.record, front)
        self.driver().destroy(machine.record)
        elsewhere = self.elsewhere("find_networks")
        for where, networks in (("", driver.find_networks()), (" in a fresh process", elsewhere)):
            assert isinstance(networks, Iterable)
            found = [each for each in networks if each.id == front.id]
            assert len(found) == 1, f"find_networks(){where} sees it {len(found)} times"
            expect_equal(found[0], front, NETWORK_TAGS)
        driver.remove_network(found[0])
        self.expect_left(before, "After remove_network() of what find_networks() rebuilt")

    def test_a_network_is_as_asked_for(self, specimen: Make, network: MakeNetwork) -> None:
        """Subnets of both kinds, the largest packet; the addresses stay through a boot, and are nobody else's."""
        driver = self.capable(SupportsNetworks)
        front = network("front", subnet="10.99.7.0/24", subnet6="fd74:6573:7401::/64", mtu=1400)
        machines = [self.create(specimen()) for _ in range(2)]
        found = []
        for machine in machines:
            address = driver.connect(machine.record, front)
            seen = self.seen(machine)
            assert IPv4Address(address) in IPv4Network(front.subnet), f"'{address}' is not of the subnet"
            assert seen.networks == {"front": address}
            assert IPv6Address(seen.networks6.get("front", "::")) in IPv6Network(front.subnet6), "no address of subnet6"
            for each in (address, seen.networks6["front"]):
                assert self.mtu(machine, each) == 1400, f"not the MTU that was asked for, at '{each}'"
            found += [address, seen.networks6["front"]]
        assert len(set(found)) == 4, f"an address was given twice: {names(found)}"
        (real,) = [each for each in driver.find_networks() if each.id == front.id]
        assert real.subnet == front.subnet
        before = self.seen(machines[0])
        if isinstance(driver, SupportsPower):
            driver.stop(machines[0].record)
            driver.start(machines[0].record)
            self.wait_for_answer(machines[0])
            again = self.seen(machines[0])
            assert (again.networks, again.networks6) == (before.networks, before.networks6), "a boot changed addresses"
            for each in found[:2]:
                assert self.read_mtu_soon(machines[0], each) == 1400, "a boot changed the MTU"

    def read_mtu_soon(self, machine: Specimen, address: str) -> int:
        """Read as soon as the machine lets us."""
        return wait(lambda: self.mtu(machine, address), "The machine's MTU", timeout=self.ready_seconds)

    def test_networks_with_equal_subnets(self, specimen: Make, network: MakeNetwork) -> None:
        """They live side by side, or the second one is refused."""
        driver = self.capable(SupportsNetworks)
        one, two = (network(name, subnet="10.99.8.0/24", lab=f"conformance-{name}") for name in ("one", "two"))
        machines = [self.create(specimen()) for _ in range(2)]
        address = driver.connect(machines[0].record, one)
        if self.equal_subnets:
            assert driver.connect(machines[1].record, two) == address, "on an equal network it got another address"
            assert self.seen(machines[1]).networks == {"two": address}
        else:
            with pytest.raises(DriverError):
                driver.connect(machines[1].record, two)
            assert self.seen(machines[1]).networks == {}
        assert self.seen(machines[0]).networks == {"one": address}

    def test_on_isolated_networks_alone_there_is_no_outside(self, specimen: Make, network: MakeNetwork) -> None:
        """It is reached from here and reaches nobody; through a boot; and on another network it does again."""
        driver = self.capable(SupportsNetworks)
        safe, front = network("safe", isolated=True), network("front")
        machine = self.create(specimen(networks=["safe"]))
        driver.connect(machine.record, safe)
        assert self.answers(machine), "isolated, it is no longer reached from here"
        assert not self.reaches_outside(machine), "isolated, it reaches the outside"
        if isinstance(driver, SupportsPower):
            driver.stop(machine.record)
            driver.start(machine.record)
            self.wait_for_answer(machine)
            assert not self.reaches_outside(machine), "a boot has let it out"
        driver.connect(machine.record, front)
        assert self.reaches_outside(machine), "on a network that is not isolated, it does not reach the outside"
        driver.disconnect(machine.record, front)
        assert not self.reaches_outside(machine), "back on an isolated network alone, it still reaches the outside"

    # -- console --

    def test_console_is_text(self, specimen: Make) -> None:
        """What it printed can be read, before its birth too: then it is empty."""
        driver = self.capable(SupportsConsole)
        machine = specimen()
        assert driver.console(machine.record) == "", "a machine that was never made has printed something"
        self.create(machine)
        said = driver.console(machine.record)
        assert isinstance(said, str), f"console() gives {type(said).__name__}, not text"
        assert said.strip(), "a machine that booted has printed nothing"
