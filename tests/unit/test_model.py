from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine.errors import BadSpec
from pytest_machine.model import (
    Address,
    Id,
    Isolation,
    Record,
    Seed,
    SeedFile,
    Spec,
    check_name,
    names,
    new_id,
)

NAMES = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9\-.]{0,62}\Z")
VALUES = st.text() | st.integers() | st.booleans() | st.none() | st.lists(st.text()).map(tuple)
ADDRESSES = st.builds(
    Address,
    ip=st.ip_addresses().map(str),
    user=st.text(st.characters(categories=["L", "N"])),
    ssh_port=st.integers(1, 65535),
)
RECORDS = st.builds(
    Record,
    id=st.from_regex(r"\A[0-9a-f]{10}\Z").map(Id),
    name=NAMES,
    driver=st.text(min_size=1),
    options=st.dictionaries(st.text(), VALUES),
    store=st.just(Path("/store").absolute()),
    host=st.text(min_size=1),
    run=st.text(),
    lab=st.text(),
    tls_sans=st.lists(st.text()).map(tuple),
    authority=st.dictionaries(st.sampled_from(["ca.pem", "key.pem"]), st.text()),
    swarm=st.dictionaries(st.text(), st.booleans() | st.text()),
    created=st.floats(0, 1e12),
    expires=st.none() | st.floats(0, 1e12),
    ready=st.none() | st.floats(0, 1e12),
    address=st.none() | ADDRESSES,
)


@given(RECORDS)
def test_a_record_survives_json(record: Record) -> None:
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


@given(RECORDS, st.data())
def test_a_damaged_record_is_refused_or_read(record: Record, data: st.DataObject) -> None:
    """Whatever one field becomes, there is a record or one of three errors, and never anything else."""
    found = json.loads(json.dumps(record.to_json()))
    key = data.draw(st.sampled_from(sorted(found)))
    found[key] = data.draw(st.none() | st.integers() | st.text() | st.just([]) | st.just({}))
    try:
        read = Record.from_json(found)
    except (KeyError, TypeError, ValueError, BadSpec):
        return
    assert isinstance(read.store, Path)
    assert check_name(read.name)


def test_unknown_keys_are_passed_over() -> None:
    record = Record(id=new_id(), name="a", driver="d", store=Path("/s"), host="h", created=1, address=Address(ip="::1"))
    data = record.to_json()
    address = data["address"]
    assert isinstance(address, dict)
    assert Record.from_json({**data, "invented": 1, "address": {**address, "invented": 1}}) == record


@given(NAMES)
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a_b", "a/b", "a b", "ä", "a\n", "a" * 64, ".."])
def test_bad_names(name: str) -> None:
    with pytest.raises(BadSpec, match="cannot be called"):
        check_name(name)


def test_ids_fit_into_interface_names() -> None:
    found = {new_id() for _ in range(1000)}
    assert len(found) == 1000
    # IFNAMSIZ is 16 with the closing zero.
    assert all(len(f"ptm{each}ab") <= 15 for each in found)


def test_isolation_is_an_order() -> None:
    weak, middle, strong = Isolation.PRIVILEGED, Isolation.USER_NAMESPACE, Isolation.OWN_KERNEL
    assert [strong.includes(each) for each in (weak, middle, strong)] == [True, True, True]
    assert [middle.includes(each) for each in (weak, middle, strong)] == [True, True, False]
    assert [weak.includes(each) for each in (weak, middle, strong)] == [True, False, False]


def test_urls() -> None:
    assert Address(ip="10.0.0.1").url == "tcp://10.0.0.1:2376"
    assert Address(ip="fd00::1", engine_port=1).url == "tcp://[fd00::1]:1"


def test_equal_specs_have_equal_hashes() -> None:
    one = Spec(driver="a", options={"x": 1, "y": 2}, needs=frozenset({"a", "b"}))
    two = Spec(driver="a", options={"y": 2, "x": 1}, needs=frozenset({"b", "a"}))
    assert one == two
    assert hash(one) == hash(two)
    assert len({one, two, Spec(driver="b")}) == 2


def test_what_a_machine_is_born_with() -> None:
    seed = Seed(
        hostname="web",
        authorized_key="ssh-ed25519 A jo",
        host_key="PRIVATE",
        host_key_public="ssh-ed25519 B",
        files={"/etc/x": SeedFile(b"secret")},
    )
    files = seed.all_files(user_home="/home/docker")
    assert files["/etc/hostname"].content == b"web\n"
    assert files["/home/docker/.ssh/authorized_keys"] == SeedFile(b"ssh-ed25519 A jo\n", 0o600)
    assert files["/etc/ssh/ssh_host_ed25519_key"].mode == 0o600
    assert files["/etc/x"].content == b"secret"
    assert "PRIVATE" not in repr(seed)
    assert "secret" not in repr(seed)


def test_names_in_messages() -> None:
    assert names(["a", "b"]) == "'a', 'b'"
    assert names([]) == "none"


@pytest.mark.parametrize("text", ["-oProxyCommand=x", "a b", "a\nb", 'a"b', "a'b", "\x00", "a\tb"])
def test_addresses_that_openssh_would_take_for_something_else(text: str) -> None:
    with pytest.raises(BadSpec, match="of a machine cannot be"):
        Address(ip=text)
    with pytest.raises(BadSpec, match="of a machine cannot be"):
        Address(ip="192.0.2.1", user=text)


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "fe80::1%eth0", "host.example", "", "DOMAIN\\jo", "jo-2", "münchen.example"]
)
def test_addresses(text: str) -> None:
    assert Address(ip=text, user=text).ip == text
