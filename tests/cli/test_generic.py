"""Machines of the driver ``generic``, as far as no host is needed for it; `tests/real` has one."""

from __future__ import annotations

import json

import pytest

from pytest_machine import birth
from pytest_machine.errors import DriverError
from pytest_machine.model import Access, Address, Record, new_id

from .conftest import Program


@pytest.fixture
def mine(quick: Program) -> Record:
    address = Address(ip="192.0.2.1", user="jo", ssh_port=2222, engine_port=2377)
    options = {"ip_address": "192.0.2.1", "ssh_user": "jo", "ssh_port": "2222", "engine_port": "2377"}
    record = Record(
        id=new_id(), name="mine", driver="generic", options=options, store=quick.store.path, host="h", created=1.0,
        address=address, ready=2.0,
    )  # fmt: skip
    quick.store.add(record)
    return record


def test_inspect_has_what_docker_machine_notes(quick: Program, mine: Record) -> None:
    found = json.loads(quick("inspect", "mine").out)["Driver"]
    known = {name: found[name] for name in ("IPAddress", "SSHUser", "SSHPort", "SSHKeyPath", "EnginePort")}
    assert known == {
        "IPAddress": "192.0.2.1", "SSHUser": "jo", "SSHPort": 2222, "SSHKeyPath": "", "EnginePort": 2377
    }  # fmt: skip
    (mine.directory / birth.KEY).touch()
    assert quick("inspect", "-f", "{{.Driver.SSHKeyPath}}", "mine").out == f"{mine.directory / birth.KEY}\n"


@pytest.mark.parametrize("both", [True, False])
def test_a_keys_public_half_comes_with_it(quick: Program, mine: Record, both: bool) -> None:
    key = quick.store.path / "my key"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    if both:
        key.with_name("my key.pub").write_text("public")
    birth._adopt(mine, Access(key=key), store=quick.store)
    copy = mine.directory / f"{birth.KEY}.pub"
    assert (copy.read_text() if copy.exists() else "") == ("public" if both else "")
    assert (mine.directory / birth.KEY).read_text() == key.read_text()


@pytest.mark.parametrize("content", [b"", b"ssh-ed25519 AAAA me", b"PuTTY-User-Key-File-3: ssh-ed25519\n", b"\0" * 9])
def test_a_file_that_is_no_private_key(quick: Program, mine: Record, content: bytes) -> None:
    key = quick.store.path / "my key"
    key.write_bytes(content)
    with pytest.raises(DriverError, match="my key' is not a private key") as refused:
        birth._adopt(mine, Access(key=key), store=quick.store)
    assert "regenerate-certs" not in refused.value.hint
