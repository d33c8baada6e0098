"""Machines that Docker Machine made, as its `config.json` says, and that are really there: they are a lab's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine import birth
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from tests.real.asked import specs

pytestmark = pytest.mark.real
Call = Callable[..., subprocess.CompletedProcess[str]]


def put(store: Path, machine: Machine) -> None:
    directory = store / "machines" / machine.name
    directory.mkdir(parents=True)
    shutil.copy(machine.record.directory / birth.KEY, directory / "id_rsa")
    for name in birth.CLIENT_FILES:
        shutil.copy(machine.record.directory / name, directory / name)
    driver = {
        "IPAddress": machine.ip,
        "MachineName": machine.name,
        "SSHUser": "root",
        "SSHPort": 22,
        "EnginePort": 2376,
    }
    config = {"ConfigVersion": 3, "Driver": driver, "DriverName": "generic", "HostOptions": {}, "Name": machine.name}
    (directory / "config.json").write_text(json.dumps(config))


@pytest.fixture
def call(tmp_path: Path) -> Call:
    def call(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest_machine", *args],
            capture_output=True,
            text=True,
            env={**os.environ, "MACHINE_STORAGE_PATH": str(tmp_path / "store"), **environ},
            check=False,
        )

    return call


def test_they_are_used(lab: Lab, tmp_path: Path, call: Call) -> None:
    """Listed with their place in a Swarm, entered by SSH with their own key, and let go."""
    manager, worker = lab.create(*specs("manager worker"))
    for machine in (manager, worker):
        put(tmp_path / "store", machine)
    joined = manager.run("docker", "swarm", "init", "--advertise-addr", manager.ip, timeout=60)
    assert "is now a manager" in joined.stdout
    token = manager.run("docker", "swarm", "join-token", "-q", "worker", timeout=60).stdout.strip()
    worker.run("docker", "swarm", "join", "--token", token, f"{manager.ip}:2377", timeout=60)
    form = "{{.Name}} {{.Active}} {{.DriverName}} {{.State}} {{.Swarm}}"
    wanted = ["manager * generic Running manager", "worker - generic Running worker"]

    def listed() -> bool:
        shown = call("ls", "-t", "60", "-f", form, DOCKER_HOST=manager.url)
        assert shown.stdout.splitlines() == wanted
        return True

    lab.wait_until(listed)  # who has joined a moment ago may not be in it yet
    assert f'export DOCKER_HOST="{worker.url}"' in call("env", "--shell", "sh", "worker").stdout
    assert call("ssh", "worker", "hostname").stdout == "worker\n"
    known = (tmp_path / "store" / "machines" / "worker" / "known_hosts").read_text()
    assert known.split()[2] in (worker.record.directory / birth.KNOWN_HOSTS).read_text(), "its host key was noted"
    # From now on it is the only one.
    (tmp_path / "store" / "machines" / "worker" / "known_hosts").write_text(known.replace(known.split()[2], "AAAA"))
    assert call("ssh", "worker", "hostname").returncode == 255
    assert call("rm", "-y", "worker", "manager").returncode == 0
    assert not list((tmp_path / "store" / "machines").iterdir())
    assert worker.run("hostname").stdout == "worker\n", "what is elsewhere stays"
