"""The fake driver does what every driver must do; its oracle reads the directory and the list of processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pytest_machine.certs import Authority
from pytest_machine.engine import client
from pytest_machine.errors import DriverError, DriverUnavailable
from pytest_machine.testing import DriverSuite, FakeDriver, Specimen
from pytest_machine.testing.bench import Make
from tests.plugin.sshless import Sshless


def processes_with(text: str) -> set[str]:
    """Return the command lines that mention a text."""
    if sys.platform == "win32":
        argv = ["powershell", "-NoProfile", "-Command", "(Get-CimInstance Win32_Process).CommandLine"]
    else:
        argv = ["ps", "-Awwo", "args="]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True)
    return {line.strip() for line in listed.stdout.splitlines() if text in line}


class FakeSuite(DriverSuite):
    """What a suite on a fake driver needs besides its class: eyes and hands that are not the driver's."""

    driver_class = FakeDriver
    ready_seconds = 20.0

    @property
    def place(self) -> Path:
        return Path(str(self.options["directory"]))

    def leftovers(self) -> set[str]:
        # The folders that hold machines, ports and networks stay; what is in them goes.
        files = {f"file: {path.relative_to(self.place).as_posix()}" for path in self.place.glob("*/**/*")}
        return files | {f"process: {line}" for line in processes_with(str(self.place))}

    def write(self, machine: Specimen, text: str) -> None:
        (self.place / "machines" / machine.id / "disk" / "written").write_text(text, "utf-8")

    def read(self, machine: Specimen) -> str | None:
        path = self.place / "machines" / machine.id / "disk" / "written"
        return path.read_text("utf-8") if path.exists() else None

    def damage(self, machine: Specimen) -> None:
        (self.place / "machines" / f"{machine.id}.json").write_text("{", "utf-8")

    def mtu(self, machine: Specimen, address: str) -> int:
        for network in self._networks_of(machine, address):
            return int(network["mtu"] or 1500)
        raise AssertionError(f"nobody has '{address}'")

    def reaches_outside(self, machine: Specimen) -> bool:
        found = list(self._networks_of(machine))
        return not found or not all(network["isolated"] for network in found)

    def _networks_of(self, machine: Specimen, address: str = "*") -> Iterator[dict[str, Any]]:
        """What the tags say of the networks that it is on; by an IPv6 address as by that of IPv4."""
        number = int(ip_address(address)) & 0xFF if address != "*" else None
        for path in self.place.glob("networks/*/*"):
            mine = json.loads(path.read_text("utf-8"))["id"] == machine.id
            if mine and number in (None, int(ip_address(path.name)) & 0xFF):
                yield json.loads(path.parent.with_suffix(".json").read_text("utf-8"))


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("fake")
    TestFake.options = {"memory": "64m", "directory": str(place)}
    yield place
    shutil.rmtree(place)


class TestFake(FakeSuite):
    driver_class = Sshless  # no SSH leads into a fake machine

    def test_docker_answers(self, specimen: Make) -> None:
        """Docker's own client is content with what the engine says, and sees the options."""
        machine = self.create(specimen("web"))
        docker = client(self.address(machine), certs=machine.certs)
        try:
            assert docker.ping()
            assert docker.version()["Version"] == "fake"
            assert docker.info()["Name"] == "web"
            assert docker.info()["MemTotal"] == 64 << 20
            assert docker.containers.list() == []
        finally:
            docker.close()

    def test_a_stranger_is_refused(self, specimen: Make, tmp_path: Path) -> None:
        """A client of another authority is not let in: TLS is mutual."""
        machine = self.create(specimen())
        stranger = Authority.ensure(tmp_path / "stranger")
        stranger.copy_client(machine.certs)
        # The stranger trusts the right server, so that it is the server that refuses.
        (machine.certs / "ca.pem").write_bytes(Authority.ensure(tmp_path / "authority").ca)
        assert not self.answers(machine)

    @pytest.mark.parametrize("step", ["tags", "port", "disk", "engine"])
    def test_failure_on_request(self, specimen: Make, step: str) -> None:
        machine = specimen(reserve=False)
        driver = FakeDriver(directory=self.place, fail_create=step)
        with pytest.raises(DriverError, match=f"told to fail[^$]*{step}"):
            driver.create(machine.record, machine.seed)
        assert self.leftovers() or step == "tags"

    def test_refusals_on_request(self, specimen: Make) -> None:
        machine = self.create(specimen())
        driver = FakeDriver(directory=self.place, unavailable="it is Sunday", fail_destroy=True)
        with pytest.raises(DriverUnavailable, match="it is Sunday"):
            driver.check()
        with pytest.raises(DriverError, match="told not to go"):
            driver.destroy(machine.record)
