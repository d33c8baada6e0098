"""The driver 'docker' without an engine: what it would ask for, and what it reads in labels."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine.drivers.docker import DockerDriver, build, claim, life, network, note, outer, tags
from pytest_machine.drivers.docker.shape import CAPABILITIES, Shape, lacking
from pytest_machine.endpoint import Endpoint
from pytest_machine.errors import BadSpec
from pytest_machine.images import recipe
from pytest_machine.model import Address, Network, Record, SeedFile, new_id

GOLDEN = Path(__file__).parents[1] / "rendered"
INNER = Address(ip="10.214.0.2")
OUTER = Address(ip="127.0.0.1", ssh_port=20004, engine_port=20005, inner="10.214.0.2")


def shape(address: Address, **changes: object) -> Shape:
    given: dict[str, object] = {
        "image": "pytest-machine:bookworm-0123456789ab",
        "volume": "pytest-machine-2",
        "network": "pytest-machine",
        "address": address,
        "labels": {tags.ID: "0123456789"},
        "memory": 512 << 20,
    }
    return Shape(**{**given, **changes})  # type: ignore[arg-type]  # the names are checked by the class


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("privileged", shape(INNER, cpus=1.5, pids=100, alias="web")),
        ("lacking", shape(INNER, lacking=["SYS_RESOURCE"])),
        ("published", shape(OUTER, publish="127.0.0.1")),
    ],
)
def test_a_container(name: str, made: Shape) -> None:
    """PYTEST_MACHINE_GOLDEN=write makes the files anew, to be read before they are committed."""
    text = json.dumps(made.config(), indent=2) + "\n"
    path = GOLDEN / f"docker-{name}.json"
    if os.environ.get("PYTEST_MACHINE_GOLDEN") == "write":
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def test_capabilities() -> None:
    everything = (1 << len(CAPABILITIES)) - 1
    assert lacking(everything) == []
    # As a container of this kind of machine says of its PID 1.
    assert lacking(0x1FFFEFFFFFF) == ["SYS_RESOURCE"]


def test_labels_say_all(make_record: Callable[..., Record]) -> None:
    record = make_record("web", options={"memory": "512m"}, run="r", networks=("front",))
    labels = tags.of_claim(record, 2, OUTER, "10.214.0.0/19")
    assert tags.record(labels) == record.with_(address=None)
    assert tags.address(labels) == OUTER
    lab = Network(id=new_id(), name="front", store=record.store, host="h", created=1.0)
    assert tags.network(tags.of_network(lab)) == lab
    for foreign in (None, {}, {tags.RECORD: "{"}, {tags.RECORD: "[]"}, {tags.NETWORK: "{}"}):
        assert tags.record(foreign) is None
        assert tags.network(foreign) is None


def test_addresses() -> None:
    whole = network.block("10.214.0.0/19")
    opened, apart = network.half(whole, apart=False), network.half(whole, apart=True)
    assert (str(opened), str(apart)) == ("10.214.0.0/20", "10.214.16.0/20")
    assert claim.address_of(2, apart, "") == Address(ip="10.214.16.2")
    assert claim.address_of(2, opened, "127.0.0.1") == OUTER
    highest = claim.address_of(claim.SLOTS[-1], opened, "127.0.0.1")
    assert highest.engine_port < 32768
    assert ipaddress.IPv4Address(highest.inner) in opened
    assert OUTER.among == "10.214.0.2"
    assert INNER.among == INNER.ip


@pytest.mark.parametrize(
    "options", [{"subnet": "x"}, {"subnet": "10.0.0.0/30"}, {"publish": "host"}, {"engine": "1.0"}]
)
def test_bad_options(options: dict[str, str]) -> None:
    with pytest.raises(BadSpec):
        DockerDriver(**options)  # type: ignore[arg-type]


def test_routes(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "br0\t0000D60A\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0\n"
    )
    assert network.routes(table) == [ipaddress.IPv4Network("10.214.0.0/20")]
    assert network.routes(tmp_path / "none") == []


LINUX = {"OSType": "linux", "SecurityOptions": ["name=seccomp,profile=default"]}


@pytest.mark.parametrize(
    ("version", "info", "words"),
    [
        ({"ApiVersion": "1.41"}, LINUX, ""),
        ({"ApiVersion": "1.50"}, LINUX, ""),
        ({"ApiVersion": "1.40"}, LINUX, "is too old"),
        ({}, LINUX, "is too old"),
        ({"ApiVersion": "1.41", "Os": "windows"}, {"OSType": "windows"}, "makes windows containers"),
        ({"ApiVersion": "1.41"}, {**LINUX, "SecurityOptions": ["name=userns"]}, "maps users"),
    ],
)
def test_engines_that_are_not_fit(version: dict[str, str], info: dict[str, object], words: str) -> None:
    found = outer.unfit(version, info)
    assert words in found[0] if found else words == ""
    assert found is None or found[1]


def test_podman_is_known() -> None:
    """By the answers of Podman 4.3 and of Docker 20.10."""
    podman = [{"Name": "Podman Engine", "Version": "4.3.1"}, {"Name": "Conmon"}, {"Name": "OCI Runtime (runc)"}]
    assert claim.is_podman({"Components": podman})
    assert not claim.is_podman({"Components": [{"Name": "Engine", "Version": "20.10.24"}, {"Name": "containerd"}]})
    assert not claim.is_podman({})


def test_whoever_has_one_label_of_two_is_not_asked_for() -> None:
    """Podman returns those too, and then no machine would have a place of its own."""
    mine, other, none = {"Labels": {"id": "a", "slot": "2"}}, {"Labels": {"id": "b", "slot": "3"}}, {"Labels": None}
    assert outer.having(("id=a", "slot"), [mine, other, none]) == [mine]
    assert outer.having(("slot",), [mine, other, none]) == [mine, other]
    assert outer.having(("id=",), [mine, other, none]) == []


def test_an_archive_of_what_a_machine_is_born_with() -> None:
    packed = life.archive({"/root/.ssh/authorized_keys": SeedFile(b"key", 0o600), "/etc/hosts": SeedFile(b"hosts")})
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {entry.name: (entry.mode, entry.uid) for entry in tar}
    assert found == {"root/.ssh": (0o700, 0), "root/.ssh/authorized_keys": (0o600, 0), "etc/hosts": (0o644, 0)}
    assert life.boot().content.startswith(b"#!/bin/bash\n")


def test_steps_of_a_build_in_the_engine() -> None:
    script = build.steps(recipe("trixie"))
    assert "docker.io openssh-server" in script
    assert " docker-cli\n" in script
    assert "ln -sfn /usr/sbin/machine-init /usr/local/bin/systemctl\n" in script
    assert "rm -rf /etc/ssh/ssh_host_*" in script


def test_a_note(make_record: Callable[..., Record]) -> None:
    record = make_record()
    assert note.read(record) is None
    record.directory.mkdir(parents=True, exist_ok=True)
    note.write(record, Endpoint("tcp://192.0.2.7:2376", "/certs"), busy=True)
    assert note.read(record) == note.Note(Endpoint("tcp://192.0.2.7:2376", "/certs"), busy=True)
    (record.directory / "docker-engine.json").write_text("[]")
    assert note.read(record) is None
