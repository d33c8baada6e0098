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
    Network,
    Record,
    Seed,
    SeedFile,
    Spec,
    check_name,
    names,
    new_id,
)
from pytest_machine.support.parsing import Malformed

NAMES = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9\-.]{0,62}\Z")
# What can be stored: text without surrogates and NUL, and words without control characters.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]))
VALUES = TEXT | st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.none() | st.lists(TEXT).map(tuple)
TIMES = st.floats(0, 253_402_300_799)
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
    driver=WORDS.filter(lambda word: 0 < len(word) < 100),
    options=st.dictionaries(WORDS, VALUES),
    store=st.just(Path("/store").absolute()),
    host=WORDS.filter(bool),
    run=st.just("") | NAMES,
    lab=st.just("") | NAMES,
    networks=st.lists(NAMES).map(tuple),
    tls_sans=st.lists(WORDS).map(tuple),
    authority=st.dictionaries(st.sampled_from(["ca.pem", "key.pem"]), WORDS.map(lambda word: f"/{word}")),
    swarm=st.fixed_dictionaries({"Master": st.booleans(), "Discovery": WORDS}) | st.just({}),
    created=TIMES,
    expires=st.none() | TIMES,
    ready=st.none() | TIMES,
    address=st.none() | ADDRESSES,
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(st.characters()), below, max_size=3),
    max_leaves=5,
)


@given(RECORDS)
def test_a_record_survives_json(record: Record) -> None:
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


@given(RECORDS, st.data())
def test_a_damaged_record_is_refused_or_read(record: Record, data: st.DataObject) -> None:
    """Whatever one field becomes, there is a record that can be written again, or `Malformed`."""
    found = json.loads(json.dumps(record.to_json()))
    inner = found["address"] if found["address"] and data.draw(st.booleans()) else found
    inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(ANYTHING)
    try:
        read = Record.from_json(found)
    except Malformed:
        return
    assert isinstance(read.store, Path)
    assert check_name(read.name)
    assert Record.from_json(json.loads(json.dumps(read.to_json()))) == read


@given(ANYTHING)
def test_what_is_no_record_is_malformed(value: object) -> None:
    for read in (Record.from_json, Network.from_json, Address.from_json):
        with pytest.raises(Malformed):
            read(value)


GOOD = Record(
    id=Id("0123456789"), name="a", driver="d", store=Path("/s"), host="h", created=1, address=Address(ip="::1")
)
HUGE = 10**400


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("id", ["", "012345678", "0123456789a", "012345678G", "0123456789\n", 123456789, None]),
        ("name", ["", "..", "a/b", "a\n", "-a", "\ud800", "a" * 64, 3, None]),
        ("driver", ["", "a\nb", "\udcff", 1, None, []]),
        ("store", ["", "relative", "/a\nb", "/a\0", "/\ud800", 1, None]),
        ("host", ["", "\x1b[31m", 1, None]),
        ("run", ["../up", "a b", "a\n", 1, None, []]),
        ("lab", ["../up", "\ud800", 1, None]),
        ("networks", ["front", ["a b"], [1], {"a": 1}, None]),
        ("router", ["yes", 1, None]),
        ("options", [[], "x", {"a": {}}, {"a": [1]}, {"a": "\ud800"}, {"a": HUGE}, {"a": "a\0"}, None]),
        ("engine", [[], {"options": []}, {"options": {"labels": 3}}, {"env": "A=1"}, {"a": "\ud800"}, None]),
        ("swarm", [[], {"Master": "yes"}, {"Host": 3}, {"Heartbeat": True}, {"Discovery": "a\nb"}, None]),
        ("authority", [[], {"ca.pem": "ca.pem"}, {"ca.pem": 1}, {"ca.pem": "/a\nb"}, None]),
        ("tls_sans", ["a", [1], ["a\nb"], None]),
        ("install_url", ["a\nb", 1, None]),
        ("preload", ["\x00", 1, None]),
        ("created", [None, "1", True, -1, HUGE, 1e300, float("nan"), float("inf")]),
        ("expires", ["1", True, -1, HUGE, 1e300, float("nan")]),
        ("ready", ["1", False, -1, HUGE, float("-inf")]),
        ("address", ["::1", [], {}, {"ip": ""}]),
        ("version", ["1", 0, None, 1.0]),
    ],
)
def test_each_field_of_a_record_is_parsed(key: str, values: list[object]) -> None:
    assert Record.from_json(GOOD.to_json()) == GOOD
    for value in values:
        with pytest.raises(Malformed):
            Record.from_json({**GOOD.to_json(), key: value})


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("ip", ["", "10.0.0.256", "10.0.0", "a b", "-x", "a\nb", "::1\n", "fe80::1%a b", "a" * 300, 1, None]),
        ("user", ["", "-oProxyCommand=x", "a b", "a\nb", 'a"', 1, None]),
        ("ssh_port", ["22", "22\nProxyCommand x", -1, 65536, True, 22.0, None, HUGE]),
        ("engine_port", ["2376", -1, 65536, True, None]),
        (
            "engine",
            ["a b", "x\n", "tcp://", "tcp://a b:1", "tcp://h:99999", "tcp://h:1\nx", "file:///etc/passwd", 1, None],
        ),
        ("inner", ["a b", "10.0.0.256", "\n", 1, None]),
    ],
)
def test_each_field_of_an_address_is_parsed(key: str, values: list[object]) -> None:
    good = {"ip": "10.0.0.1", "user": "root", "ssh_port": 22, "engine_port": 2376, "engine": "", "inner": ""}
    assert Address.from_json(good) == Address(ip="10.0.0.1")
    for value in values:
        if (key, value) == ("user", ""):
            continue
        with pytest.raises(Malformed):
            Address.from_json({**good, key: value})


@pytest.mark.parametrize(
    "engine", ["", "tcp://192.0.2.1:2376", "tcp://[fd00::1]:1", "unix:///run/docker.sock", "ssh://a@b"]
)
def test_addresses_of_engines(engine: str) -> None:
    assert Address.from_json({"ip": "10.0.0.1", "engine": engine}).engine == engine


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("id", ["x", None]),
        ("name", ["a b", "a\n", 1]),
        ("store", ["s", 1]),
        ("created", ["1", None, HUGE]),
        ("subnet", ["10.0.0.0", "10.0.0.1/24", "x", "fd00::/64", 1, None]),
        ("subnet6", ["10.0.0.0/24", "x", 1, None]),
        ("mtu", ["1400", 0, 70000, True]),
        ("isolated", ["yes", 1, None]),
        ("version", [2, "1"]),
    ],
)
def test_each_field_of_a_network_is_parsed(key: str, values: list[object]) -> None:
    network = Network(id=Id("0123456789"), name="front", store=Path("/s"), host="h", created=1)
    assert Network.from_json(network.to_json()) == network
    for value in values:
        if key == "subnet" and value == "10.0.0.0":  # one address is a network too
            continue
        with pytest.raises(Malformed):
            Network.from_json({**network.to_json(), key: value})


def test_unknown_keys_are_passed_over() -> None:
    data = GOOD.to_json()
    address = data["address"]
    assert isinstance(address, dict)
    assert Record.from_json({**data, "invented": 1, "address": {**address, "invented": 1}}) == GOOD


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
