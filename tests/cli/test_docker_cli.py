"""``docker machine …`` and Docker contexts, with the real `docker` programs that are here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_machine import images
from tests.conftest import alone

from .conftest import Program, Said


def clients() -> Iterator[tuple[str, str]]:
    """Yield who has a `docker`, and where: this computer, and each machine image (they are programs for Linux).

    The first will do, unless it is for proof.
    """
    if found := shutil.which("docker"):
        yield "PATH", found
    if sys.platform == "linux":
        for image in images.images():
            if (client := image.path / "usr/bin/docker").exists():
                yield image.name, str(client)


FULL = os.environ.get("PYTEST_MACHINE_PROOF") == "full"
CLIENTS = [
    pytest.param(path, id=whose, marks=[pytest.mark.proof] if number else [])
    for number, (whose, path) in enumerate(clients())
    if FULL or not number
]


@pytest.fixture(params=CLIENTS or [pytest.param("", marks=pytest.mark.skip(reason="there is no docker here"))])
def docker(request: pytest.FixtureRequest, program: Program, home: Path) -> Client:
    return Client(request.param, program)


class Client:
    """A `docker` program, with a home of the test's own."""

    def __init__(self, path: str, program: Program) -> None:
        self.path = path
        self.program = program

    def __call__(self, *argv: str) -> Said:
        done = subprocess.run(
            [self.path, *argv], capture_output=True, text=True, env=self.program.environ, timeout=120, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def home(program: Program, tmp_path: Path) -> Path:
    program.environ["DOCKER_CONFIG"] = str(tmp_path / "my docker")
    return tmp_path / "my docker"


class TestPlugin:
    def test_who_it_is(self, program: Program) -> None:
        said = program("docker-cli-plugin-metadata")
        assert (said.code, said.err) == (0, "")
        found = json.loads(said.out)
        assert found["SchemaVersion"] == "0.1.0"
        assert found["Vendor"]
        assert found["Version"] in program.here("version").out
        assert set(found) == {"SchemaVersion", "Vendor", "Version", "ShortDescription"}
        assert "metadata" not in program.here("--help").out

    @pytest.mark.skipif(os.name == "nt", reason="there it is a copy of a program that only an installation has")
    def test_install(self, program: Program, home: Path) -> None:
        place = home / "cli-plugins" / "docker-machine"
        assert program.here("install-cli-plugin").out == f"Installed: {place}. Try: docker machine ls\n"
        before = place.stat()
        assert os.access(place, os.X_OK)
        assert program.here("install-cli-plugin").out == f"Nothing to do: {place} is there. Try: docker machine ls\n"
        assert place.stat().st_mtime_ns == before.st_mtime_ns
        # What an installation elsewhere has left is ours to replace.
        place.write_text(place.read_text().replace(sys.executable, "/gone/python"))
        assert program.here("install-cli-plugin").out.startswith("Installed: ")
        assert sys.executable in place.read_text()
        assert program.here("install-cli-plugin", "--uninstall").out == f"Removed: {place}\n"
        assert program.here("install-cli-plugin", "--uninstall").out == f"Nothing to do: there is no {place}\n"
        assert list(place.parent.iterdir()) == []

    @pytest.mark.parametrize("argv", [[], ["--uninstall"]])
    @pytest.mark.skipif(os.name == "nt", reason="there it has another name")
    def test_another_makes_plugin_stays(self, program: Program, home: Path, argv: list[str]) -> None:
        place = home / "cli-plugins" / "docker-machine"
        place.parent.mkdir(parents=True)
        place.write_text("theirs")
        said = program.here("install-cli-plugin", *argv)
        assert said.code == 1
        assert said.err == f"There is a Docker plugin of another make: '{place}'\nhint: rm '{place}'\n"
        assert place.read_text() == "theirs"

    def test_docker_machine(self, program: Program, docker: Client) -> None:
        assert docker("machine", "ls").code != 0
        program.here("install-cli-plugin")
        program.make("web")
        assert "Manage machines with Docker on them" in docker("--help").out
        assert docker("machine", "ls").out == program.here("ls").out
        assert docker("machine", "status", "web").out == "Running\n"
        assert docker("machine", "env", "web", "--shell=sh").out.endswith(
            '# eval "$(docker machine env web --shell=sh)"\n'
        )
        # Errors and exit codes are ours, on our streams.
        said, own = docker("machine", "ip", "nix"), program.here("ip", "nix")
        assert (said.code, said.out) == (own.code, own.out)
        assert said.err.strip() == own.err.strip()
        assert docker("machine", "nix").code == 1
        # Docker's own flags may stand before it.
        assert docker("--log-level", "error", "machine", "status", "web").out == "Running\n"
        for argv in (["machine", "--help"], ["help", "machine"]):
            assert docker(*argv).out == program.here("--help").out.replace("python -m pytest_machine", "docker machine")
        assert docker("machine", "ssh", "--help").out.split()[1:4] == ["docker", "machine", "ssh"]
        program.here("install-cli-plugin", "--uninstall")
        assert docker("machine", "ls").code != 0

    @pytest.mark.skipif(os.name == "nt", reason="a script is put in the place of ssh's")
    def test_a_remote_exit_code(self, program: Program, docker: Client, tmp_path: Path) -> None:
        place = tmp_path / "bin"
        place.mkdir()
        (place / "ssh").write_text("#!/bin/sh\ncat; exit 7\n")
        (place / "ssh").chmod(0o755)
        program.here("install-cli-plugin")
        program.make("web")
        program.environ["PATH"] = f"{place}{os.pathsep}{program.environ['PATH']}"
        assert docker("machine", "ssh", "web", "true").code == 7


class TestContext:
    def test_life(self, program: Program, docker: Client, home: Path) -> None:
        def listed() -> dict[str, str]:
            lines = docker("context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}}").out.splitlines()
            return dict(line.replace(" *", "").split() for line in lines)

        assert program.here("create", "-d", "fake", "--context", "web").out.endswith(
            'Docker context "web" leads to the machine "web". To use it, run: docker context use web\n'
        )
        url = program.here("url", "web").out.strip()
        assert listed()["web"] == url
        # Over TLS, by the machine's own certificates: the engine of this driver answers this much.
        assert docker("--context", "web", "version", "--format", "{{.Server.Version}}").out == "fake\n"
        assert docker("context", "use", "web").code == 0
        assert docker("version", "--format", "{{.Server.Version}}").out == "fake\n"
        assert docker("context", "use", "default").code == 0
        assert docker("version", "--format", "{{.Server.Version}}").out != "fake\n"

        program.make("default")
        assert 'Docker context "machine-default"' in program.here("context").out
        assert set(listed()) == {"default", "web", "machine-default"}
        assert program.here("context", "--rm").out == 'Docker context of "default" was removed\n'
        assert program.here("context", "--rm").out == 'Docker context of "default" was not there\n'
        assert set(listed()) == {"default", "web"}
        # Its own is gone with the machine, and Docker works on.
        assert docker("context", "use", "web").code == 0
        assert program.here("rm", "-y", "web").code == 0
        assert docker("context", "show" if "20." not in docker("--version").out else "ls").code == 0
        assert set(listed()) == {"default"}
        assert list(home.rglob("*.pem")) == []

    def test_what_a_start_changes(self, program: Program, docker: Client, home: Path) -> None:
        program.here("create", "-d", "fake", "--context", "web")
        program.make("other")
        pem = next(home.rglob("cert.pem"))
        good = pem.read_text()
        for argv in (["restart", "web"], ["start", "web"]):
            pem.write_text("old")
            assert docker("--context", "web", "version").code != 0
            if argv[0] == "start":
                program.here("stop", "web")
            assert program.here(*argv).code == 0
            assert pem.read_text() == good
        program.here("restart", "other")
        assert len(list(home.rglob("meta.json"))) == 1

    def test_a_stranger_of_that_name(self, program: Program, docker: Client) -> None:
        assert docker("context", "create", "web", "--docker", "host=tcp://127.0.0.1:1").code == 0
        said = program.here("create", "-d", "fake", "--context", "web")
        assert said.code == 1
        assert said.err.startswith("There is already a Docker context 'web'.\n")
        assert program.left == set()
        program.make("web")
        assert program.here("context", "web").code == 2
        assert program.here("restart", "web").code == 0
        assert program.here("rm", "-y", "web").code == 0
        assert "127.0.0.1:1" in docker("context", "ls").out

    @alone  # `prune` is for all that is dead on this host
    def test_prune_takes_what_is_left(self, program: Program, home: Path) -> None:
        program.here("create", "-d", "fake", "--context", "web")
        # As somebody does who is in despair.
        program.driver.destroy(program.store.load("web"))
        shutil.rmtree(program.store.path / "machines" / "web")
        # Whatever machines there are on this host, they are not as old as that.
        prune = ["prune", "--older-than", "9999d"]
        assert "context 'web' would be destroyed: its machine is gone\n" in program.here(*prune, "--dry-run").out
        assert len(list(home.rglob("*.pem"))) == 3
        assert "context 'web' destroyed: its machine is gone\n" in program.here(*prune).out
        assert list(home.rglob("*.pem")) == []
