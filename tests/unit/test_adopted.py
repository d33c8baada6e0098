"""Drivers whose machines were there before us, as values: what they say of a machine, and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_machine.driver import CAPABILITIES, SupportsAdoption
from pytest_machine.drivers.generic import GenericDriver
from pytest_machine.drivers.none import NoneDriver
from pytest_machine.errors import BadSpec, DriverError
from pytest_machine.model import Address, Record, State, new_id
from pytest_machine.options import options


def record(driver: str, tmp_path: Path) -> Record:
    return Record(id=new_id(), name="far", driver=driver, store=tmp_path, host="h", created=1.0)


@pytest.mark.parametrize("driver", [GenericDriver(), NoneDriver()])
def test_they_are_adopted_and_can_nothing_that_a_test_could_need(driver: GenericDriver | NoneDriver) -> None:
    assert isinstance(driver, SupportsAdoption)
    assert [word for word, protocol in CAPABILITIES.items() if isinstance(driver, protocol)] == []
    assert list(driver.find()) == []
    with pytest.raises(BadSpec, match="option"):
        driver.check()


def test_flags_are_the_references() -> None:
    flags = {option.flag: option.env for option in options(GenericDriver).values()}
    assert flags == {
        "--generic-ip-address": "GENERIC_IP_ADDRESS",
        "--generic-ssh-user": "GENERIC_SSH_USER",
        "--generic-ssh-key": "GENERIC_SSH_KEY",
        "--generic-ssh-port": "GENERIC_SSH_PORT",
        "--generic-engine-port": "GENERIC_ENGINE_PORT",
    }
    assert [option.flag for option in options(NoneDriver).values() if option.flag] == ["--url"]


@pytest.mark.parametrize(
    ("url", "ip", "port"),
    [
        ("tcp://192.0.2.1:2376", "192.0.2.1", 2376),
        ("tcp://[2001:db8::1]:2376", "2001:db8::1", 2376),
        ("unix:///var/run/docker.sock", "", 0),
        ("none", "", 0),
        ("tcp://host:nan", "", 0),
    ],
)
def test_none_is_where_its_url_says(tmp_path: Path, url: str, ip: str, port: int) -> None:
    one = record("none", tmp_path)
    seen = NoneDriver(url=url).look([one])[one.id]
    assert (seen.state, seen.address) == (State.RUNNING, Address(ip=ip, ssh_port=0, engine_port=port, engine=url))
    assert seen.address is not None
    assert seen.address.url == url


def test_none_has_the_certificates_that_it_is_given(tmp_path: Path) -> None:
    access = NoneDriver(url="x", certs=str(tmp_path)).access(record("none", tmp_path))
    assert (access.certs, access.key, access.provision) == (tmp_path, None, False)


def test_generic_wants_its_key_to_be_there(tmp_path: Path) -> None:
    driver = GenericDriver(ip_address="192.0.2.1", ssh_key=str(tmp_path / "key"))
    with pytest.raises(DriverError, match=r"SSH key does not exist: .*key"):
        driver.check()
    (tmp_path / "key").touch()
    driver.check()
    assert driver.access(record("generic", tmp_path)).key == tmp_path / "key"
    assert GenericDriver(ip_address="192.0.2.1").access(record("generic", tmp_path)).key is None


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_generic_wants_a_port(port: int) -> None:
    with pytest.raises(BadSpec, match="ssh_port"):
        GenericDriver(ip_address="192.0.2.1", ssh_port=port).check()


def test_generic_asks_nobody_about_nothing() -> None:
    assert GenericDriver(ip_address="192.0.2.1").look([]) == {}
