"""The user's own Compose, on a real machine: up, asked, down, and what it says when it fails."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine import images
from pytest_machine.errors import CommandFailed, NotRunning, UsageError, WaitTimeout
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.waiting import NotYet, wait
from tests.real.asked import page, specs

FILE = """
services:
  web:
    image: busybox:latest
    command: sh -c 'echo "$$GREETING" >/www/index.html; echo serving; exec httpd -f -h /www'
    environment: {GREETING: "${GREETING:-hello}"}
    ports: ["80"]
    healthcheck: {test: "wget -q -O - http://127.0.0.1/", interval: 200ms, retries: 50}
    volumes: ["kept:/kept"]
  db:
    image: busybox:latest
    command: sleep 1000
    labels: {made: by-compose}
volumes: {kept: {}}
"""


@pytest.fixture(scope="module")
def machine(module_lab: Lab, busybox: Callable[..., str]) -> Machine:
    (machine,) = module_lab.create(*specs("composed"))
    busybox(machine)
    return machine


PLUGIN = "libexec/docker/cli-plugins/docker-compose"
PLACES = [
    Path(sys.prefix, "compose/usr", PLUGIN),  # scripts/setup
    Path("/usr", PLUGIN),
    Path("/usr/local", PLUGIN),
    Path("/usr/lib/docker/cli-plugins/docker-compose"),
    Path.home() / ".docker/cli-plugins/docker-compose",
]


@pytest.fixture
def as_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has Compose as a plugin of their `docker`, and nothing else."""
    docker = Path(shutil.which("docker") or images.ensure().path / "usr/bin/docker")
    (tmp_path / "docker/cli-plugins").mkdir(parents=True)
    (tmp_path / "docker/cli-plugins/docker-compose").symlink_to(program())
    _only(docker, tmp_path / "plugin", monkeypatch)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has Compose as a program, and no `docker`."""
    _only(program(), tmp_path / "alone", monkeypatch)


def program() -> Path:
    for place in PLACES:
        if place.exists():
            return place
    pytest.skip("this computer has no Compose of version 2: scripts/setup fetches it")


def _only(program: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "My App" / "compose.yaml"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def left(machine: Machine) -> tuple[list[str], list[str], list[str]]:
    """What is on a machine that is not there from the beginning: containers, networks, volumes."""
    docker = machine.docker
    return (
        [str(each.name) for each in docker.containers.list(all=True)],
        [str(each.name) for each in docker.networks.list() if each.name not in ("bridge", "host", "none")],
        [each.name for each in docker.volumes.list()],
    )


NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


def test_for_as_long_as_a_block(as_plugin: None, machine: Machine, file: Path) -> None:
    with machine.compose(file, env={"GREETING": "good morning"}) as app:
        # It is not only running: its health check has passed.
        web = app.container("web")
        assert web.attrs["State"]["Health"]["Status"] == "healthy"
        place = machine.port(web, 80)
        assert page(f"http://{place}/") == b"good morning\n"
        assert app.container("db").labels["made"] == "by-compose"
        assert app.project.startswith("myapp-")
        assert {name.rpartition(app.project)[2] for name in left(machine)[0]} == {"-web-1", "-db-1"}
        assert app.run("exec", "-T", "web", "cat", "/www/index.html").stdout == "good morning\n"
        logged = app.logs("web")
        assert "serving" in logged
        assert "\x1b" not in logged
        with pytest.raises(NotRunning, match="No container of the service 'nobody'") as unknown:
            app.container("nobody")
        assert unknown.value.facts["running"] == "'db', 'web'"
    assert left(machine) == NOTHING


def test_by_hand_and_twice_over(alone: None, machine: Machine, file: Path) -> None:
    """Two projects of one file live side by side; what `up` finds is left as it is, and so is nothing by `down`."""
    one, two = machine.compose(file), machine.compose(file, project="second")
    one.up("db")
    two.up()
    ids = {one.container("db").id, two.container("db").id}
    assert len(ids) == 2
    two.up()
    assert {one.container("db").id, two.container("db").id} == ids
    one.down()
    assert {name.rpartition("-")[0] for name in left(machine)[0]} == {"second-web", "second-db"}
    two.down()
    two.down()
    assert left(machine) == NOTHING


def test_what_does_not_come_up_is_told_and_taken_down(alone: None, machine: Machine, file: Path) -> None:
    file.write_text(FILE.replace("exec httpd", "echo the disk is on fire; exit 7; exec httpd"))
    with (
        pytest.raises(CommandFailed, match="'docker compose up' failed on 'composed'") as failed,
        machine.compose(file),
    ):
        pytest.fail("it is up")
    assert "web-1" in str(failed.value.facts["it said"])
    assert "exit" in str(failed.value.facts["it said"])
    assert "the disk is on fire" in "\n".join(failed.value.__notes__)
    assert failed.value.result.returncode == failed.value.facts["exit code"]
    assert left(machine) == NOTHING
    file.write_text("services: {web: {image: busybox, nonsense: 1}}")
    with pytest.raises(CommandFailed, match="nonsense"):
        machine.compose(file).up()


def test_what_takes_too_long(alone: None, machine: Machine, file: Path) -> None:
    file.write_text(FILE.replace("wget -q -O - http://127.0.0.1/", "false").replace("retries: 50", "retries: 10000"))
    app = machine.compose(file)

    def late() -> None:
        with pytest.raises(WaitTimeout, match=r"'docker compose up' did not end within 1\.5 s on 'composed'") as late:
            app.up(timeout=1.5)
        if "serving" not in "\n".join(getattr(late.value, "__notes__", ())):
            raise NotYet("not yet")

    wait(late, "A container that has begun by then", timeout=60)
    assert left(machine) != NOTHING, "by hand, it is there to be looked at"
    app.down()
    assert left(machine) == NOTHING


def test_who_has_none(machine: Machine, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    monkeypatch.setenv("PATH", str(nowhere))
    with pytest.raises(UsageError, match="There is no 'docker compose' of version 2 or newer on this computer") as none:
        machine.compose(file).up()
    assert none.value.facts == {"docker": "not found", "docker-compose": "not found"}
    # A client without the plugin, and the Compose of before.
    docker = Path(shutil.which("docker", path=os.defpath) or images.ensure().path / "usr/bin/docker")
    (nowhere / "docker").symlink_to(docker)
    old = nowhere / "docker-compose"
    old.write_text("#!/bin/sh\necho 1.29.2\n")
    old.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(UsageError) as none:
        machine.compose(file).up()
    assert none.value.facts["docker-compose"] == f"{old} is version 1.29.2"
    if not any(place.exists() for place in PLACES[1:]):
        assert none.value.facts["docker"] == f"{nowhere / 'docker'} has no 'compose'"
    with pytest.raises(UsageError, match=r"There is no Compose file '.*/missing\.yaml'"):
        machine.compose(tmp_path / "missing.yaml")
