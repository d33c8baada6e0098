"""Machines of the command line: shown, asked, powered, removed; texts where scripts read them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import SLOWNESS

from .conftest import Program

MULTI = ["ip", "start", "stop", "restart", "kill"]
SINGLE = ["url", "status", "inspect", "config", "ssh"]
NO_DEFAULT = 'Error: No machine name(s) specified and no "default" machine exists\n'


def missing(name: str) -> str:
    return (
        f'Docker machine "{name}" does not exist. Use "docker-machine ls" to list machines. '
        'Use "docker-machine create" to add a new one.\n'
    )


@pytest.mark.parametrize("argv", [["ip"], ["url"], ["status"], ["config"], ["--help"]])
def test_what_is_asked_often_imports_nothing_heavy(program: Program, argv: list[str]) -> None:
    program.make("default")
    heavy = ["cryptography", "docker", "filelock", "platformdirs", "pytest", "pytest_machine.machine", "requests"]
    code = (
        f"import sys; sys.argv = ['docker-machine', *{argv}]\n"
        "from pytest_machine.cli import main\n"
        f"try: main()\nfinally: print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=program.environ, check=True)
    assert done.stdout.endswith("\n[]\n")
    assert done.stdout != "[]\n"


class TestProgram:
    def test_nothing_asked(self, program: Program) -> None:
        said = program.here()
        assert said.code == 0
        assert said.out.startswith("Usage: ")
        assert said.out == program.here("--help").out == program.here("help").out == program.here("h").out

    def test_unknown_command(self, program: Program) -> None:
        said = program.here("nix")
        assert (said.code, said.out) == (1, "")
        assert "'nix' is not a " in said.err

    @pytest.mark.parametrize("argv", [["ip", "--nix"], ["ls", "-nix"], ["rm", "-z", "a"], ["ls", "-t", "soon"]])
    def test_a_flag_that_there_is_not(self, program: Program, argv: list[str]) -> None:
        said = program.here(*argv)
        assert said.code == 0
        assert said.out.startswith("Incorrect Usage.\n\nUsage: ")
        assert said.err

    def test_version(self, program: Program) -> None:
        said = program.here("version").out
        assert said.rstrip().endswith(", build pytest-machine")
        assert said == program.here("--version").out == program.here("-v").out
        program.make("a")
        assert program.here("version", "a").out == "fake\n"

    def test_help_of_a_command(self, program: Program) -> None:
        assert program.here("help", "rm").out == program.here("rm", "--help").out == program.here("rm", "-h").out


@pytest.mark.parametrize("command", [*MULTI, *SINGLE])
def test_no_such_machine(program: Program, command: str) -> None:
    said = program.here(command)
    assert (said.code, said.out, said.err) == (1, "", NO_DEFAULT)
    said = program.here(command, "nix")
    assert (said.code, said.out, said.err) == (1, "", missing("nix"))


@pytest.mark.parametrize("command", ["url", "status", "inspect", "config"])
def test_one_alone(program: Program, command: str) -> None:
    said = program.here(command, "a", "b")
    assert said.code == 1
    assert said.err == "Error: Expected one machine name as an argument\n"


def test_one_bad_name_stops_all(program: Program) -> None:
    program.make("a")
    said = program.here("stop", "a", "x", "y")
    assert (said.code, said.out, said.err) == (1, "", missing("x") + missing("y"))
    assert program.here("status", "a").out == "Running\n"


def test_a_life(program: Program) -> None:
    program.make("default", "b")
    assert program.here("ip").out == "127.0.0.1\n"
    assert program.here("ip", "b", "default").out == "127.0.0.1\n" * 2
    address = program.store.load("default").address
    assert address is not None
    assert program.here("url").out == f"tcp://127.0.0.1:{address.engine_port}\n"
    assert program.here("status").out == "Running\n"
    assert program.here("start").err == 'Machine "default" is already running.\n'
    assert program.here("stop").out == 'Stopping "default"...\nMachine "default" was stopped.\n'
    assert program.here("status").out == "Stopped\n"
    said = program.here("stop")
    assert (said.code, said.err) == (1, 'Machine "default" is already stopped.\n')
    assert program.here("ip").err == "Error getting IP address: Host is not running\n"
    assert program.here("url").err == "Host is not running\n"
    assert program.here("config").err == "Error running connection boilerplate: Host is not running\n"
    assert program.here("ssh").err == 'Error: Cannot run SSH command: Host "default" is not running\n'
    again = " machines may have new IP addresses. You may need to re-run the `docker-machine env` command.\n"
    said = program.here("start")
    assert said.out == f'Starting "default"...\nMachine "default" was started.\nStarted{again}'
    assert program.here("restart").out == f'Restarting "default"...\nRestarted{again}'
    assert program.here("kill").out == 'Killing "default"...\nMachine "default" was killed.\n'
    assert program.here("kill").err == 'Machine "default" is already stopped.\n'
    said = program.here("restart")
    assert (
        said.out == f'Restarting "default"...\nStarting "default"...\nMachine "default" was started.\nRestarted{again}'
    )
    assert program.here("status").out == "Running\n"
    # What could be done is done, and all that could not is told.
    assert program.here("stop", "b").code == 0
    said = program.here("stop", "b", "default")
    assert (said.code, said.err) == (1, 'Machine "b" is already stopped.\n')
    assert program.here("status").out == "Stopped\n"
    assert sorted(program.here("start", "b", "default").out.splitlines())[:2] == [
        'Machine "b" was started.',
        'Machine "default" was started.',
    ]


def test_paused(program: Program) -> None:
    program.make("a")
    program.driver.pause(program.store.load("a"))
    assert program.here("status", "a").out == "Paused\n"
    assert program.here("start", "a").code == 0
    assert program.here("status", "a").out == "Running\n"


class TestShown:
    def test_config(self, program: Program) -> None:
        program.make("a")
        directory = program.store.load("a").directory
        url = program.here("url", "a").out.strip()
        assert program.here("config", "a").out.splitlines() == [
            "--tlsverify",
            f'--tlscacert="{directory}/ca.pem"',
            f'--tlscert="{directory}/cert.pem"',
            f'--tlskey="{directory}/key.pem"',
            f"-H={url}",
        ]

    def test_config_with_strangers_certificates(self, program: Program) -> None:
        program.make("a")
        record = program.store.load("a")
        shutil.copy(record.directory / "server.pem", record.directory / "ca.pem")
        assert record.address is not None
        said = program.here("config", "a")
        assert said.code == 1
        assert said.err.startswith(
            "Error running connection boilerplate: Error checking and/or regenerating the certs: There was an error "
            f'validating certificates for host "127.0.0.1:{record.address.engine_port}": '
            "x509: certificate signed by unknown authority\nYou can attempt"
        )

    @pytest.mark.parametrize("name", ["ca.pem", "key.pem"])
    def test_config_without_a_certificate(self, program: Program, name: str) -> None:
        program.make("a")
        missing = program.store.load("a").directory / name
        missing.unlink()
        said = program.here("config", "a")
        assert (said.code, f'": open {missing}: no such file or directory\n' in said.err) == (1, True), said.err

    def test_env_of_a_host_that_nobody_knows(self, program: Program) -> None:
        assert program.here("create", "-d", "none", "--url", "tcp://nobody.invalid:2376", "far").code == 0
        said = program.here("env", "far", "--shell", "sh")
        why = 'for host "nobody.invalid:2376": dial tcp: lookup nobody.invalid: no such host'
        assert (said.code, said.err.splitlines()[0].endswith(why)) == (1, True), said.err

    def test_inspect(self, program: Program) -> None:
        assert program.here("create", "-d", "fake", "a", "--engine-label", "zone=a").code == 0
        shown = program.here("inspect", "a").out
        found = json.loads(shown)
        assert shown == json.dumps(found, indent=4) + "\n"
        assert list(found) == ["ConfigVersion", "Driver", "DriverName", "HostOptions", "Name"]
        assert (found["Name"], found["DriverName"], found["ConfigVersion"]) == ("a", "fake", 3)
        assert found["Driver"]["IPAddress"] == "127.0.0.1"
        assert Path(found["Driver"]["SSHKeyPath"]).is_file()
        assert Path(found["HostOptions"]["AuthOptions"]["CaCertPath"]).is_file()
        assert found["HostOptions"]["EngineOptions"]["Labels"] == ["zone=a"]


class TestList:
    def test_table(self, program: Program) -> None:
        assert program.here("ls").out.split() == [
            "NAME",
            "ACTIVE",
            "DRIVER",
            "STATE",
            "URL",
            "SWARM",
            "DOCKER",
            "ERRORS",
        ]
        program.make("web10", "web9", "Db")
        program.here("stop", "web9")
        url = program.here("url", "web10").out.strip()
        lines = program.here("ls", DOCKER_HOST=url).out.splitlines()
        rows = [line.split() for line in lines]
        assert [row[0] for row in rows] == ["NAME", "Db", "web9", "web10"]
        assert rows[2] == ["web9", "-", "fake", "Stopped", "Unknown"]
        assert rows[3] == ["web10", "*", "fake", "Running", url, "vfake"]
        starts = [lines[0].index(word) for word in ("ACTIVE", "DRIVER", "STATE", "URL", "DOCKER")]
        assert [lines[3][start:].split()[0] for start in starts] == ["*", "fake", "Running", url, "vfake"]
        assert starts[0] == len("web10") + 3
        assert program.here("ls", "-q").out == "Db\nweb9\nweb10\n"

    def test_active(self, program: Program) -> None:
        program.make("a", "b")
        said = program.here("active")
        assert (said.code, said.out, said.err) == (1, "", "No active host found\n")
        assert program.here("active", DOCKER_HOST=program.here("url", "b").out.strip()).out == "b\n"
        assert program.here("active", "b").err == "Error: Too many arguments given\n"

    def test_one_that_is_broken_or_gone_hides_no_other(self, program: Program) -> None:
        program.make("a", "b", "c")
        (program.store.path / "machines" / "b" / "pytest-machine.json").write_text("{")
        program.driver.destroy(program.store.load("c"))
        said = program.here("ls")
        assert said.code == 0
        rows = [line.split(maxsplit=3) for line in said.out.splitlines()[1:]]
        assert rows[0][:3] == ["a", "-", "fake"]
        assert said.out.splitlines()[2].startswith("b ")
        assert "not found   Error" in said.out.splitlines()[2]
        assert "cannot be read" in said.out.splitlines()[2]
        assert said.out.splitlines()[3].endswith("The machine 'c' is gone.")

    def test_a_slow_one_is_not_waited_for(self, program: Program) -> None:
        environ = {"CLOUD_API_KEY": "opensesame", "CLOUD_SLOW": "snail"}
        for name in ("hare", "snail"):
            # Made while it is quick to speak of it; that it is slow is noted afterwards.
            assert program.here("create", "-d", "cloud", name, CLOUD_API_KEY="opensesame").code == 0
        for name in ("hare", "snail"):
            record = program.store.load(name)
            program.store.save(record.with_(options={**record.options, "slow": "snail"}))
        begun = time.monotonic()
        rows = [line.split() for line in program.here("ls", "-t", "4", **environ).out.splitlines()]
        assert time.monotonic() - begun < 10 * SLOWNESS
        assert rows[1][:4] == ["hare", "-", "cloud", "Running"]
        assert rows[2] == ["snail", "cloud", "Timeout"]
        assert program.here("active", "-t=1").err == "Error getting active host: timeout\n"


class TestRemove:
    def test_asked(self, program: Program) -> None:
        program.make("a", "b")
        about = "About to remove a\nWARNING: This action will delete both local reference and remote instance.\n"
        for answer in ("n\n", "", "\n", "no, y\n", "y but\n"):
            said = program.here("rm", "a", input=answer)
            assert (said.code, said.out, said.err) == (0, about + "Are you sure? (y/n): ", "")
        assert program.left == {"a", "b"}
        said = program.here("rm", "a", input="Yes\n")
        assert (said.code, said.out) == (0, about + "Are you sure? (y/n): Successfully removed a\n")
        assert program.here("rm", "b", "-y").out.endswith("instance.\nSuccessfully removed b\n")
        assert program.left == set()
        assert program.store.names() == []

    def test_nothing_named(self, program: Program) -> None:
        said = program.here("rm")
        assert said.code == 1
        assert said.out.startswith("Usage: ")
        assert said.err == "Error: Expected to get one or more machine names as arguments\n"

    def test_unknown(self, program: Program) -> None:
        program.make("a")
        said = program.here("rm", "-y", "nix", "a")
        assert said.code == 1
        assert said.err == f'Error removing host "nix": {missing("nix")}'
        assert said.out.endswith("Successfully removed a\n")
        said = program.here("rm", "-f", "nix")
        assert (said.code, said.err) == (0, f'Error removing host "nix": {missing("nix")}Can\'t remove "nix"\n')

    def test_gone_already(self, program: Program) -> None:
        program.make("a")
        program.driver.destroy(program.store.load("a"))
        said = program.here("rm", "-f", "a")
        assert said.code == 0
        assert 'The machine "a" was gone already: only its local reference was left\n' in said.out
        assert program.store.names() == []

    @pytest.mark.parametrize("flag", ["-y", "-f", "--force", "-force=true"])
    def test_what_cannot_be_removed_stays_noted(self, program: Program, flag: str) -> None:
        assert program.here("create", "-d", "fake", "--fake-fail-destroy", "a").code == 0
        said = program.here("rm", flag, "a")
        assert said.code == 1
        assert said.err.startswith('Error removing host "a": ')
        assert ('Can\'t remove "a"' in said.err) == (flag != "-y")
        assert "was told not to go" in said.err
        assert program.store.names() == ["a"]
        assert program.here("status", "a").out == "Running\n"


@pytest.mark.skipif(os.name == "nt", reason="a program is put in the place of ssh's, and Windows wants another kind")
def test_ssh_hands_on_words_and_exit_code(program: Program, tmp_path: Path) -> None:
    """The words that OpenSSH gets; that they work is proven on real machines."""
    program.make("default")
    place = tmp_path / "bin"
    place.mkdir()
    (place / "ssh").write_text(f'#!{sys.executable}\nimport sys\nprint(*sys.argv[1:], sep="\\n")\nsys.exit(7)\n')
    (place / "ssh").chmod(0o755)
    path = f"{place}{os.pathsep}{os.environ['PATH']}"
    said = program("ssh", "default", "-t", "echo", "a b", "--help", PATH=path)
    assert said.code == 7
    words = said.out.splitlines()
    assert words[-5:] == ["root@127.0.0.1", "-t", "echo", "a b", "--help"]
    assert "-oStrictHostKeyChecking=yes" in words
    assert program.here("ssh", "--help").out.startswith("Usage: ")
