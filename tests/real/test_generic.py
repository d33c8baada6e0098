"""A host that was there before is taken over: here one of the driver 'runc', whose owner looks on."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_machine import birth, certs
from pytest_machine.engine import ping
from pytest_machine.errors import ConnectFailed, DriverError, Unsupported, WaitTimeout
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry
from pytest_machine.ssh import new_key, pin
from pytest_machine.store import Store
from tests.real.asked import specs


@pytest.fixture(scope="module")
def host(module_lab: Lab) -> Machine:
    """Somebody's host; its key is known to us, its certificates are not."""
    (made,) = module_lab.create(*specs("theirs"))
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def spec(host: Machine) -> Spec:
    options = {"ip_address": host.ip, "ssh_key": str(host.record.directory / birth.KEY)}
    return Spec(name="mine", driver="generic", options=options)


@pytest.fixture
def mine(spec: Spec, store: Store, registry: Registry) -> Iterator[Machine]:
    with Machine.create(spec, store=store, registry=registry) as machine:
        yield machine


def certify(machine: Machine) -> None:
    birth.certify(machine.record, machine.address, store=Store(machine.record.store))


def test_it_is_taken_over_and_let_go(mine: Machine, host: Machine, store: Store) -> None:
    assert mine.docker.ping()
    assert mine.docker.info()["Labels"] == ["provider=generic"]
    assert mine.run("hostname").stdout == "mine\n"
    assert (mine.record.directory / birth.KEY).stat().st_mode & 0o777 == 0o600
    # Whoever had it before is locked out of its Docker: there is one authority.
    with pytest.raises(OSError, match="certificate"):
        ping(host.address, certs=host.record.directory)
    assert mine.provision() == []
    mine.destroy()
    assert store.names() == []
    assert host.run("hostname").stdout == "mine\n"


def test_certificates_are_made_anew(mine: Machine) -> None:
    def serial() -> bytes:
        return (mine.record.directory / "server.pem").read_bytes()

    before = serial()
    changed = mine.regenerate_certs()
    assert "wrote /etc/docker/server.pem" in changed
    assert serial() != before
    assert mine.docker.ping()


def test_a_certificate_that_is_nearly_over_is_renewed(mine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(certs, "PAIR_DAYS", 1 / 24)  # one hour is left of a day and one hour
        certify(mine)
    assert not certs.lasts(mine.record.directory / "server.pem")
    assert "wrote /etc/docker/server.pem" in mine.provision()
    assert certs.lasts(mine.record.directory / "server.pem")
    assert mine.docker.ping()


def test_one_that_is_over_is_renewed_for_its_clients(
    mine: Machine, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not mine.renew()
    with monkeypatch.context() as patch:
        patch.setattr(certs, "PAIR_DAYS", -1 / 24)
        certify(mine)
        registry.provision(mine.connection, birth.wanted(mine.record, mine.driver), tell=print)
    with pytest.raises(OSError, match="expired"):
        ping(mine.address, certs=mine.record.directory)
    assert mine.renew()
    assert ping(mine.address, certs=mine.record.directory)


def test_another_address_gets_a_certificate_for_it(mine: Machine, store: Store, registry: Registry) -> None:
    there = mine.address
    store.save(mine.record.with_(address=replace(there, ip="192.0.2.1")))
    moved = Machine.load("mine", store=store, registry=registry)
    assert moved.renew()
    assert moved.address == store.load("mine").address == there
    assert moved.docker.ping()


def test_it_cannot_be_made_as_new(mine: Machine) -> None:
    with pytest.raises(Unsupported, match="was there before us") as caught:
        mine.reset()
    assert "reset=False" in caught.value.hint
    with pytest.raises(Unsupported, match="does not have 'power'"):
        mine.stop()


def test_a_host_that_does_not_boot_again_says_why(mine: Machine) -> None:
    """A machine of our image has no 'shutdown'; those that have are virtual machines and computers."""
    with pytest.raises(DriverError, match="does not boot again") as caught:
        mine.restart()
    assert "shutdown" in str(caught.value)
    assert mine.docker.ping()


def test_another_host_key_than_the_user_knows(
    spec: Spec, host: Machine, store: Store, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    pin(tmp_path / ".ssh" / "known_hosts", host.address, new_key("another")[1])
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(birth, "_ADOPTED", 1.0)
    with pytest.raises((WaitTimeout, ConnectFailed), match="Host key verification failed"):
        Machine.create(spec, store=store, registry=registry)
    assert store.names() == []


def test_another_login(
    spec: Spec, store: Store, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text(new_key("another")[0])
    key.chmod(0o600)
    monkeypatch.setattr(birth, "_ADOPTED", 1.0)
    with pytest.raises((WaitTimeout, ConnectFailed), match="Permission denied"):
        Machine.create(
            Spec(name="mine", driver="generic", options={**spec.options, "ssh_key": str(key)}),
            store=store,
            registry=registry,
        )
    assert store.names() == []


def test_by_hand(spec: Spec, store: Store) -> None:
    """As Docker Machine's users type it, its variables too."""
    where = str(spec.options["ip_address"])
    environ = {**os.environ, "MACHINE_STORAGE_PATH": str(store.path), "GENERIC_IP_ADDRESS": where}

    def program(*args: str) -> str:
        argv = [sys.executable, "-m", "pytest_machine", *args]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout

    said = program(
        "create", "-d", "generic", "--generic-ssh-key", str(spec.options["ssh_key"]), "--engine-label", "zone=a", "mine"
    )
    assert [line for line in said.splitlines()[2:] if line[0].isupper()] == [
        "Running pre-create checks...",
        "Creating machine...",
        "Waiting for machine to be running, this may take a few minutes...",
        "Detecting operating system of created instance...",
        "Waiting for SSH to be available...",
        "Copying certs to the local machine directory...",
        "Detecting the provisioner...",
        "Provisioning with debian...",
        "Copying certs to the remote machine...",
        "Setting Docker configuration on the remote daemon...",
        "Checking connection to Docker...",
        "Docker is up and running!",
        (
            "To see how to connect your Docker Client to the Docker Engine running on this virtual machine, "
            "run: python -m pytest_machine env mine"
        ),
    ]
    try:
        assert program("ls", "-q") == "mine\n"
        lines = [line.removeprefix("export ") for line in program("env", "mine").splitlines() if line[:1] != "#"]
        shown = dict(line.split("=", 1) for line in lines)
        variables = {name: shlex.split(value)[0] for name, value in shown.items()}
        assert variables["DOCKER_HOST"] == f"tcp://{where}:2376"
        assert program("ssh", "mine", "hostname") == "mine\n"
        assert "Nothing to change" in program("provision", "mine")
    finally:
        program("rm", "-y", "mine")
    assert store.names() == []
