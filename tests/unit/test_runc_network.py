"""Addresses, uid ranges and subnets: given out once each, by a ledger in a folder of the test's own."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytest_machine.drivers.runc import RuncDriver, leases, network, places
from pytest_machine.errors import BadSpec, DriverError
from pytest_machine.model import Address, Id, Network, Record, new_id
from pytest_machine.options import configure
from pytest_machine.support import trees
from tests.cli.test_fuzz import DAMAGES, Damage
from tests.conftest import FULL


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without machines, whose kernel does what it is told: only the book-keeping is tested here."""
    for module in (leases, places):
        monkeypatch.setattr(module, "STATE", tmp_path)
    for module in (leases, network):
        monkeypatch.setattr(module, "stray_bridges", lambda _book: set())
    monkeypatch.setattr(network, "_raise_bridge", lambda bridge: None)
    monkeypatch.setattr(network, "_routes", set)
    monkeypatch.setattr(network, "_subordinate_ranges", list)
    monkeypatch.setattr("pytest_machine.drivers.runc.firewall.guard", lambda *_: None)
    return tmp_path


def reserve(id_: Id | None = None, *, subnet: str | None = None, address: str | None = None) -> leases.Lease:
    return network.reserve(id_ or new_id(), subnet=subnet, address=address)


def test_each_has_its_own() -> None:
    given = [reserve() for _ in range(30)]
    assert len({lease.ip for lease in given}) == 30
    assert len({lease.uid for lease in given}) == 30
    assert {lease.bridge for lease in given} == {"ptm0"}
    used = sorted(lease.uid for lease in given)
    assert all(b - a >= leases.UID_COUNT for a, b in itertools.pairwise(used))


def test_again_is_the_same() -> None:
    id_ = new_id()
    first = reserve(id_)
    reserve()
    assert reserve(id_) == first
    assert leases.ledger().leases[id_] == first


def test_half_a_file_of_who_was_killed_goes(state: Path) -> None:
    half, another = state / ".ledger.json.0f0f0f0f.tmp", state / ".notes.json.0f0f0f0f.tmp"
    half.touch()
    another.touch()
    network.release(new_id(), lowered=True)  # whoever destroys what that one began
    assert not half.exists()
    assert another.exists(), "which another lock guards"


def test_many_at_once_share_nothing() -> None:
    with ThreadPoolExecutor(16) as pool:
        given = list(pool.map(lambda _: reserve(), range(60)))
    assert len({lease.ip for lease in given}) == len({lease.slot for lease in given}) == 60


def test_an_address_may_be_asked_for() -> None:
    assert reserve(subnet="10.99.0.0/24", address="10.99.0.77").ip == "10.99.0.77"
    with pytest.raises(DriverError, match=r"'10\.99\.0\.77' belongs to another"):
        reserve(subnet="10.99.0.0/24", address="10.99.0.77")
    for bad in ("10.99.0.0", "10.99.0.1", "10.99.0.255", "10.98.0.5"):
        with pytest.raises(BadSpec, match="is not one for a machine"):
            reserve(subnet="10.99.0.0/24", address=bad)


@pytest.mark.parametrize("subnet", ["10.99.0.0/30", "10.99.0.1/24", "nonsense", "2001:db8::/64"])
def test_a_subnet_that_is_none(subnet: str) -> None:
    with pytest.raises(BadSpec, match="subnet"):
        configure(RuncDriver, {"subnet": subnet})


def test_the_smallest_subnet_is_filled_and_not_overfilled() -> None:
    # Eight addresses: network, host, five machines, broadcast.
    ips = {reserve(subnet="10.99.0.0/29").ip for _ in range(5)}
    assert ips == {f"10.99.0.{n}" for n in range(2, 7)}
    with pytest.raises(DriverError, match="full"):
        reserve(subnet="10.99.0.0/29")


def test_what_the_host_has_a_route_to_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ipaddress.IPv4Network(network._SUBNETS[0])
    monkeypatch.setattr(network, "_routes", lambda: {ipaddress.IPv4Network("10.213.9.0/24")})
    lease = reserve()
    assert ipaddress.IPv4Address(lease.ip) in ipaddress.IPv4Network(network._SUBNETS[1])
    assert ipaddress.IPv4Address(lease.ip) not in first
    with pytest.raises(DriverError, match=r"already has a route to '10\.213\.9\.0/26'"):
        reserve(subnet="10.213.9.0/26")
    monkeypatch.setattr(network, "_routes", lambda: {ipaddress.IPv4Network("10.0.0.0/8")})
    # A bridge that is there is used, whatever came later.
    assert reserve().bridge == lease.bridge


def test_uids_of_the_hosts_users_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [(leases.UID_BASE + 5, leases.UID_BASE + 6), (leases.UID_BASE + 2 * leases.UID_COUNT, 0x78000000)]
    monkeypatch.setattr(network, "_subordinate_ranges", lambda: taken)
    assert reserve().slot == 1
    assert reserve().uid >= 0x78000000


def test_ranges_are_clear_of_everybody_elses() -> None:
    """By systemd's table of uids: nspawn's end at 1878982655, the next begins at 2147352576; -1 is nobody's."""
    assert leases.UID_BASE > 1878982655
    assert leases.UID_BASE > 1000000 + 1000000000  # LXD's default
    assert leases.UID_BASE + leases.SLOTS * leases.UID_COUNT <= 2147352576


def test_subordinate_ranges_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    texts = {"/etc/subuid": "# comment\nme:100000:65536\nbroken\nyou:x:y\n", "/etc/subgid": "me:200000:10\n"}
    monkeypatch.setattr(Path, "read_text", lambda self, *_, **__: texts[str(self)])
    assert network._subordinate_ranges() == [(100000, 165536), (200000, 200010)]


@given(st.integers(0, 2**32 - 1))
def test_link_addresses_are_local_and_one_to_one(number: int) -> None:
    ip = str(ipaddress.IPv4Address(number))
    octets = [int(part, 16) for part in network.mac(ip).split(":")]
    assert len(octets) == 6
    assert octets[0] & 0b11 == 0b10  # locally administered, one receiver
    assert bytes(octets[2:]) == ipaddress.IPv4Address(ip).packed


def test_names_of_interfaces_fit() -> None:
    # IFNAMSIZ is 16 with its end.
    assert all(len(network.link(new_id(), index)) <= 15 for index in range(256))
    assert network.link(Id("0123456789"), 0) != network.link(Id("0123456789"), 1)


def turned(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"10.2") + 1] ^= 1  # another address, and still JSON
    path.write_bytes(content)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one byte": turned,
    "half": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "another": lambda path: path.write_bytes(b'{"bridges": [], "leases": 3}'),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "gone": lambda path: path.unlink(),
    "a directory": lambda path: instead(path, lambda path: (path / "full").mkdir(parents=True)),
    "a FIFO": lambda path: instead(path, os.mkfifo),
    "a link": lambda path: instead(path, lambda path: path.symlink_to("/etc/passwd")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_ledger_heals_by_its_copy(state: Path, damage: Callable[[Path], object]) -> None:
    first, second = reserve(), reserve()
    damage(state / "ledger.json")
    assert leases.ledger().leases == {first.id: first, second.id: second}
    third = reserve()
    assert third.ip not in (first.ip, second.ip)
    assert third.slot not in (first.slot, second.slot)
    network.release(second.id, lowered=True)
    damage(state / "copy.ledger.json")
    assert leases.ledger().leases == {first.id: first, third.id: third}
    reserve(second.id)
    assert json.loads((state / "ledger.json").read_text()) == json.loads((state / "copy.ledger.json").read_text())


def test_a_ledger_is_rebuilt_by_the_tags(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "run", lambda *_, **__: "[]")
    there = []
    for _ in range(3):
        lease = reserve()
        record = Record(id=lease.id, name="a", driver="runc", store=Path("/s"), host="h", created=1)
        places.Place(lease.id).write_tag(record.with_(address=Address(ip=lease.ip)))
        os.chown(places.Place(lease.id).state, -1, lease.uid) if os.geteuid() == 0 else None
        there.append(lease)
    for name in ("ledger.json", "copy.ledger.json"):
        (state / name).write_bytes(b"{")
    found = leases.ledger().leases
    assert {lease.id: lease.ip for lease in found.values()} == {lease.id: lease.ip for lease in there}
    if os.geteuid() == 0:
        assert found == {lease.id: lease for lease in there}
    assert reserve().ip not in {lease.ip for lease in there}


def test_a_disk_without_space_takes_no_address_and_keeps_none(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = reserve(), reserve()

    def full(path: Path, content: bytes, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pytest_machine.drivers.runc.leases.store.write", full)
    with pytest.raises(OSError, match="space"):
        reserve()
    network.release(first.id, lowered=True)
    assert leases.ledger().leases == {second.id: second}
    (state / "ledger.json").unlink()
    assert leases.ledger().leases == {second.id: second}, "the copy too"


@pytest.fixture
def front() -> Network:
    return Network(id=new_id(), name="front", store=Path("/s"), host="h", run="r", lab="l", created=1.5)


def test_networks_survive_the_way_through_the_file(
    front: Network, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    plugged: list[tuple[str, str]] = []
    monkeypatch.setattr(
        network, "rejoin", lambda lease, bridge, _: plugged.append((bridge.name, lease.links[bridge.name]))
    )
    first, second = new_id(), new_id()
    reserve(first)
    reserve(second)
    for id_ in (first, second, first):
        network.join(id_, front, 1)
    (found,) = network.networks()
    assert found.subnet in network._LAB_SUBNETS
    assert replace(found, subnet="") == front
    assert plugged[0] == plugged[2]
    assert plugged[0][0] == plugged[1][0] != "ptm0"
    assert plugged[0][1] != plugged[1][1]


def network_of(name: str, lab: str = "l", **changes: Any) -> Network:
    return Network(id=new_id(), name=name, store=Path("/s"), host="h", run="r", lab=lab, created=1.5, **changes)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "rejoin", lambda lease, bridge, _: lease.links[bridge.name])
    monkeypatch.setattr(network, "open_up", lambda name: None)
    monkeypatch.setattr(network, "_remove_link", lambda name: None)


@pytest.mark.usefixtures("plugged")
def test_labs_may_have_equal_subnets_and_networks_of_one_may_not() -> None:
    one, two = (network_of("front", lab=lab, subnet="10.5.0.0/24") for lab in "ab")
    first, second = reserve().id, reserve().id
    assert network.join(first, one, 1) == network.join(second, two, 1) == "10.5.0.2"
    for subnet in ("10.5.0.0/25", "10.4.0.0/15"):
        with pytest.raises(DriverError, match="overlaps with that of the network 'front' of its lab"):
            network.join(first, network_of("back", lab="a", subnet=subnet), 1)
    with pytest.raises(DriverError, match="the bridge by which this host reaches machines"):
        network.join(first, network_of("back", lab="c", subnet="10.213.1.0/24"), 1)


@pytest.mark.usefixtures("plugged")
def test_who_is_sealed() -> None:
    """Who is apart, and on isolated networks alone: as soon as it is, and no longer."""
    safe, vault, front = network_of("safe", isolated=True), network_of("vault", isolated=True), network_of("front")
    id_ = network.reserve(new_id(), subnet=None, address=None, apart=True).id

    def sealed() -> bool:
        book = leases.ledger()
        return book.sealed(book.lease(id_))

    assert not sealed()
    for act, expected in (
        (lambda: network.join(id_, safe, 1), True),
        (lambda: network.join(id_, front, 1), False),
        (lambda: network.join(id_, vault, 1), False),
        (lambda: network.leave(id_, front), True),
        (lambda: network.leave(id_, safe), True),
        (lambda: network.leave(id_, vault), False),
    ):
        act()
        assert sealed() == expected


@given(st.integers(2, 250))
def test_ipv6_addresses_have_the_number_of_the_others(number: int) -> None:
    bridge = leases.Bridge("ptm7", "10.5.0.0/24", network_of("front", subnet6="fd00:1::/64").to_json())
    assert network.address6(bridge, f"10.5.0.{number}") == str(ipaddress.IPv6Address(f"fd00:1::{number:x}"))
    assert network.address6(leases.Bridge("ptm7", "10.5.0.0/24", network_of("front").to_json()), "10.5.0.9") == ""


def test_networks_of_older_versions_can_be_read(front: Network) -> None:
    old = {k: v for k, v in front.to_json().items() if k not in ("subnet6", "mtu", "isolated")}
    assert Network.from_json({**old, "of a newer version": 1}) == front


def test_only_tags_that_can_be_read_are_machines(state: Path) -> None:
    for name, text in {"a": "{}", "b": "{", "c": '{"id": "x"}'}.items():
        (state / "machines" / name).mkdir(parents=True)
        (state / "machines" / name / "tag.json").write_text(text)
    (state / "machines" / "d").mkdir()
    assert list(places.tags()) == []


@settings(
    max_examples=200 if FULL else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.generate],
)
@given(damage=DAMAGES, which=st.sampled_from(["ledger.json", "copy.ledger.json", "both", "tag"]))
def test_no_damage_gives_an_address_away(
    state: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage, which: str
) -> None:
    """Whatever the ledger, its copy or a tag contains: machines keep their addresses, and can be found and freed."""
    monkeypatch.setattr(leases, "run", lambda *_, **__: "[]")
    trees.remove(state)
    state.mkdir()
    one, other = reserve(), reserve()
    for lease in (one, other):
        record = Record(id=lease.id, name="a", driver="runc", store=Path("/s"), host="h", created=1)
        places.Place(lease.id).write_tag(record.with_(address=Address(ip=lease.ip)))
        os.chown(places.Place(lease.id).state, -1, lease.uid) if os.geteuid() == 0 else None
    if damage.name == "unreadable" and os.geteuid() == 0:
        return
    names = {"both": ["ledger.json", "copy.ledger.json"], "tag": [f"machines/{one.id}/tag.json"]}.get(which, [which])
    for path in (state / name for name in names):
        content = path.read_bytes()
        path.unlink()
        damage(path, content)
    driver = RuncDriver()
    ids = {record.id for record in driver.find()} | {each.id for each in driver.find_damaged()}
    assert {one.id, other.id} <= ids, "a machine is lost"
    assert reserve().ip not in (one.ip, other.ip)
    assert reserve(other.id).ip == other.ip
    network.release(other.id, lowered=True)
    assert other.id not in leases.ledger().leases
