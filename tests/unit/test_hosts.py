"""One run at a time uses a host that existed before; the processes of a run share it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pytest_machine.drivers.generic import GenericDriver
from pytest_machine.errors import DriverError
from pytest_machine.hosts import using
from tests.conftest import SLOWNESS

HOST = "192.0.2.1:22"


def test_another_run_is_refused_at_the_end_of_its_wait(tmp_path: Path) -> None:
    with using(tmp_path, HOST, run="first", timeout=0):
        with (
            pytest.raises(DriverError, match=r"192\.0\.2\.1:22 is in use") as caught,
            using(tmp_path, HOST, run="second", timeout=0.2),
        ):
            pass
        assert "run first (process " in str(caught.value.facts["in use by"])
        assert "host of its own" in caught.value.hint
    with using(tmp_path, HOST, run="second", timeout=0):
        pass
    assert [path.suffix for path in tmp_path.rglob("*.use")] == []


def test_another_run_waits_and_gets_it(tmp_path: Path) -> None:
    told, got = threading.Event(), threading.Event()
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        told.set()

    def second() -> None:
        with using(tmp_path, HOST, run="second", timeout=60 * SLOWNESS, tell=tell):
            got.set()

    thread = threading.Thread(target=second)
    with using(tmp_path, HOST, run="first", timeout=0):
        thread.start()
        assert told.wait(30 * SLOWNESS)
        assert not got.is_set()
    thread.join(30 * SLOWNESS)
    assert got.is_set()
    assert lines[0].startswith("waiting for the host 192.0.2.1:22, which run first (process ")


def test_one_run_shares_it_and_other_hosts_are_free(tmp_path: Path) -> None:
    with (
        using(tmp_path, HOST, run="one", timeout=0),
        using(tmp_path, HOST, run="one", timeout=0),
        using(tmp_path, "192.0.2.2:22", run="two", timeout=0),
    ):
        pass


def test_a_host_has_one_key() -> None:
    drivers = [GenericDriver(ip_address="192.0.2.1", ssh_user=user) for user in ("root", "admin")]
    assert {driver.shared_host() for driver in drivers} == {"192.0.2.1:22"}
