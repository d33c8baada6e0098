"""Testcontainers, the real library, starts containers on the machine of each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(find_spec("testcontainers") is None, reason="pip install testcontainers"),
    pytest.mark.skipif(
        sys.platform != "linux" or getattr(os, "geteuid", lambda: 1)() != 0, reason="machines of runc need root"
    ),
]
DEMO = Path(__file__).parents[2] / "examples" / "demo" / "conftest.py"

# Imported in a fixture, when the first machine is there: Testcontainers reads some variables once, at its import.
SUITE = """
import pytest

@pytest.fixture
def server(machine, busybox):
    image = busybox(machine)
    from testcontainers.core.container import DockerContainer
    command = ["httpd", "-f", "-p", "8080", "-h", "/www"]
    with DockerContainer(image).with_exposed_ports(8080).with_command(command) as container:
        yield container

@pytest.mark.machine(driver="runc")
@pytest.mark.parametrize("number", range(2))
def test_it(server, machine, number, seen=[]):
    host, port = server.get_container_host_ip(), server.get_exposed_port(8080)
    assert host == str(machine.ip)
    # Without Ryuk, the container that it removes with all others: the machine goes as a whole.
    (only,) = machine.docker.containers.list()
    assert only.id == server.get_wrapped_container().id
    machine.wait_for(http=f"http://{host}:{port}/")
    seen.append(machine.id)
    assert len(set(seen)) == number + 1
"""


def test_each_test_has_its_containers_on_its_own_machine(tmp_path: Path) -> None:
    shutil.copy(DEMO, tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text(SUITE, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout
