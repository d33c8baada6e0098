"""``docker-machine create``: its words, its flags, and names that are never blocked."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from pytest_machine.certs import Authority
from pytest_machine.engine import ping
from tests.conftest import alone

from .conftest import Program

FAILED = "Error creating machine: Error in driver during machine creation: "
HOW = "To see how to connect your Docker Client to the Docker Engine running on this virtual machine, run:"


def test_words(program: Program) -> None:
    store = program.store.path
    said = program.here("create", "--driver", "fake", "web")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        f"Creating CA: {store}/certs/ca.pem",
        f"Creating client certificate: {store}/certs/cert.pem",
        "Running pre-create checks...",
        "Creating machine...",
        "Copying certs to the local machine directory...",
        "Copying certs to the remote machine...",
        "Setting Docker configuration on the remote daemon...",
        "Waiting for machine to be running, this may take a few minutes...",
        "Checking connection to Docker...",
        "Docker is up and running!",
        f"{HOW} python -m pytest_machine env web",
    ]
    assert program.here("create", "web", "-d=fake").err == 'Docker machine "web" already exists\n'
    second = program.here("create", "-driver", "fake", "db").out.splitlines()
    assert second[0] == "Running pre-create checks..."


@alone
def test_it_is_a_docker_host_and_belongs_to_nobody(program: Program) -> None:
    program.make("web")
    record = program.store.load("web")
    assert record.address is not None
    assert ping(record.address, certs=record.directory)
    assert (record.run, record.expires) == ("", None)
    # Whoever prunes asks the driver with its default options: here, those of the variable are not heard.
    assert "Nothing is left behind." in program.here("prune").out
    assert program.left == {"web"}


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (["a", "b", "c"], 1, "Invalid command line. Found extra arguments [b c]\n"),
        ([], 1, "Error: No machine name specified\n"),
        ([""], 1, "Error: No machine name specified\n"),
        (
            ["a_b"],
            1,
            "Error creating machine: Invalid hostname specified. Allowed hostname chars are: 0-9a-zA-Z . -\n",
        ),
        (["a", "--nix"], 1, "flag provided but not defined: -nix\n"),
        (["a", "--fake-memory"], 1, "flag needs an argument: -fake-memory\n"),
        (
            ["a", "--fake-memory=lots"],
            1,
            "Error setting machine configuration from flags provided: The option 'memory'",
        ),
        (["a", "--engine-env", "X"], 1, "Error setting machine configuration from flags provided: 'X' is no pair"),
        (["a", "--fake-unavailable=no moon"], 3, "Error with pre-create check: \"The driver 'fake' cannot run here."),
        (["a", "--fake-fail-create=disk"], 1, f"{FAILED}The machine 'a' was told to fail."),
        (["a" * 64], 1, "A machine cannot be called 'aaa"),
    ],
)
def test_refused(program: Program, argv: list[str], code: int, error: str) -> None:
    said = program.here("create", "-d", "fake", *argv)
    assert said.code == code
    assert said.err.startswith(error)
    assert program.store.names() == []
    assert program.left == set()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--engine-registry-mirror", "x"], "hint: write --engine-registry-mirror https://mirror.example\n"),
        (["--engine-insecure-registry", "http://x"], "hint: write --engine-insecure-registry registry.example:5000\n"),
        (["--engine-insecure-registry", "http://x"], "cannot have 'http://x' in --engine-insecure-registry.\n"),
        (["--engine-opt", "labels=x"], "there is an argument for it: --engine-label\nhint: write --engine-label …\n"),
        (["--engine-env", "1x=1"], "hint: write --engine-env HTTPS_PROXY=…\n"),
        (["--fake-memory", "lots"], "hint: give --fake-memory another value, or leave it out\n"),
    ],
)
def test_hints_are_flags(program: Program, flags: list[str], said: str) -> None:
    shown = program.here("create", "-d", "fake", *flags, "a")
    assert (shown.code, said in shown.err) == (1, True), shown.err
    assert program.store.names() == []


@pytest.mark.parametrize("given", ["x", "2.5", ""])
def test_a_drivers_number_is_one(program: Program, given: str) -> None:
    said = program.here(
        "create", "-d", "generic", "--generic-ip-address", "127.0.0.1", "--generic-ssh-port", given, "a"
    )
    why = f'invalid value "{given}" for flag -generic-ssh-port: strconv.ParseInt: parsing "{given}": invalid syntax'
    assert (said.code, said.err) == (1, f"{why}\n")
    assert said.out.startswith("Incorrect Usage.\n\nUsage: ")
    assert program.store.names() == []


def test_unknown_driver(program: Program) -> None:
    said = program.here("create", "-d", "fakr", "a")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[0] == (
        'Driver "fakr" not found. Do you have the plugin binary "docker-machine-driver-fakr" accessible in your PATH?'
    )
    assert "did you mean 'fake'?" in said.err


class TestFlags:
    """A driver's flags are its dataclass's fields."""

    def test_help_has_those_of_the_driver(self, program: Program) -> None:
        shown = program.here("create", "-d", "cloud", "--help").out
        tags = "--cloud-tags [--cloud-tags option --cloud-tags option]"
        for text in ("--cloud-key ", "[$CLOUD_API_KEY]", tags, "--engine-label [--engine-label option"):
            assert text in shown
        assert "--fake-" not in shown
        assert "opensesame" not in program.here("create", "-d", "cloud", "--help", CLOUD_API_KEY="opensesame").out

    def test_flag_before_variable(self, program: Program) -> None:
        given = {"FAKE_IMAGE": "from a variable", "FAKE_MEMORY": "1g", "MACHINE_DRIVER": "fake"}
        assert program.here("create", "a", "--fake-image", "from a flag", **given).code == 0
        options = program.store.load("a").options
        assert (options["image"], options["memory"]) == ("from a flag", "1g")

    def test_kinds(self, program: Program) -> None:
        flags = ["--cloud-tags", "a,b", "-cloud-tags=c", "--cloud-quick=false", "--cloud-key=opensesame"]
        assert program.here("create", "-d", "cloud", *flags, "a").code == 0
        options = program.store.load("a").options
        assert options["tags"] == ("a,b", "c")
        assert options["quick"] == "false"
        assert program.here("create", "-d", "cloud", "--cloud-quick", "b", CLOUD_API_KEY="opensesame").code == 0
        assert program.store.load("b").options["quick"] == "true"
        assert program.here("ip", "a", "b").code == 0

    def test_secrets_are_not_in_the_record(self, program: Program) -> None:
        assert program.here("create", "-d", "cloud", "a", CLOUD_API_KEY="opensesame").code == 0
        files = [path for path in program.store.path.rglob("*") if path.is_file()]
        assert [path.name for path in files if b"opensesame" in path.read_bytes()] == ["secrets.json"]
        assert "opensesame" not in program.here("inspect", "a").out
        assert program.here("rm", "-y", "a").code == 0

    def test_engine(self, program: Program) -> None:
        flags = ["--engine-label", "zone=a", "--engine-opt", "log-opt=max-size=1m", "--engine-opt", "dns=192.0.2.1"]
        flags += ["--engine-opt=mtu=1400", "--engine-opt", "debug", "--engine-storage-driver", "overlay2"]
        flags += ["--engine-env", "HTTPS_PROXY=http://jo:pw@proxy.example", "--engine-insecure-registry=r.example"]
        said = program.here("create", "-d", "fake", *flags, "a", ENGINE_REGISTRY_MIRROR="https://m.example")
        assert said.code == 0, said.err
        engine = program.store.load("a").engine
        assert engine == {
            "options": {
                "labels": ["zone=a"],
                "log-opts": {"max-size": "1m"},
                "dns": ["192.0.2.1"],
                "mtu": 1400,
                "debug": True,
                "storage-driver": "overlay2",
                "insecure-registries": ["r.example"],
                "registry-mirrors": ["https://m.example"],
            },
            "env": ["HTTPS_PROXY"],
        }


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
class TestKilled:
    """A creation that was broken off never blocks its name."""

    @pytest.fixture
    def broken(self, program: Program) -> Callable[[float], None]:
        def kill(after: float) -> None:
            argv = program.argv("create", "-d", "fake", "--fake-delay", "0.1", "web")
            with subprocess.Popen(argv, env=program.environ, stdout=subprocess.DEVNULL) as process:
                time.sleep(after)
                process.send_signal(signal.SIGKILL)

        return kill

    def test_create_again(
        self, program: Program, broken: Callable[[float], None], rounds: Callable[[int, int], int]
    ) -> None:
        chosen = random.Random(4)
        for _ in range(rounds(30, 3)):
            broken(chosen.uniform(0.1, 1.2))
            if program.store.names() and program.store.load("web").ready is not None:
                program.here("rm", "-y", "web")
            said = program.here("create", "-d", "fake", "web")
            assert said.code == 0, said.err
            assert len(list(program.driver.find())) == 1
            assert program.here("rm", "-y", "web").code == 0
            assert program.left == set()

    def test_it_says_so_and_rm_removes(self, program: Program, broken: Callable[[float], None]) -> None:
        noted = program.store.path / "machines" / "web" / "pytest-machine.json"
        argv = program.argv("create", "-d", "fake", "--fake-delay", "60", "web")
        for again in ("create", "rm"):
            with subprocess.Popen(argv, env=program.environ, stdout=subprocess.DEVNULL) as process:
                while not noted.exists():
                    time.sleep(0.05)
                other = program.here("create", "-d", "fake", "web")
                assert other.err == 'Docker machine "web" is being created by another process\n'
                process.kill()
            if again == "create":
                said = program.here("create", "-d", "fake", "web")
                assert said.code == 0
                assert 'The creation of "web" was broken off: what is left of it is removed first...' in said.out
            assert program.here("rm", "-y", "web").code == 0
            assert program.left == set()
            assert program.store.names() == []


@pytest.mark.parametrize("again", ["create", "rm"])
def test_killed_before_its_secrets_were_noted(program: Program, again: str) -> None:
    program.here("create", "-d", "cloud", "web", CLOUD_API_KEY="opensesame")
    record = program.store.load("web")
    program.store.save(record.with_(ready=None))
    (record.directory / "secrets.json").unlink()
    if again == "create":
        assert program.here("create", "-d", "cloud", "--cloud-key", "opensesame", "web").code == 0
        assert [each.id for each in program.driver.find()] == [program.store.load("web").id]
        assert program.store.load("web").id != record.id
    else:
        assert "does not know you" in program.here("rm", "-y", "web").err
        assert program.left == {"web"}
        assert program.here("rm", "-y", "web", CLOUD_API_KEY="opensesame").code == 0
        assert program.left == set()


def test_first_creates_at_once_share_one_authority(program: Program, rounds: Callable[[int, int], int]) -> None:
    for turn in range(rounds(12, 1)):
        store = program.store.path.parent / f"store {turn}"
        environ = {**program.environ, "MACHINE_STORAGE_PATH": str(store)}
        names = [f"m{number}" for number in range(rounds(8, 3))]
        going = [
            subprocess.Popen(program.argv("create", "-d", "fake", name), env=environ, stdout=subprocess.DEVNULL)
            for name in names
        ]
        assert [each.wait() for each in going] == [0] * len(names)
        ca = (store / "certs" / "ca.pem").read_bytes()
        assert {(store / "machines" / name / "ca.pem").read_bytes() for name in names} == {ca}
        authority = x509.load_pem_x509_certificate(ca)
        for name in names:
            for pair in ("cert.pem", "server.pem"):
                issued = x509.load_pem_x509_certificate((store / "machines" / name / pair).read_bytes())
                issued.verify_directly_issued_by(authority)
        assert program.here("ip", *names, MACHINE_STORAGE_PATH=str(store)).code == 0


def test_what_docker_machine_made_is_left_alone(program: Program) -> None:
    theirs = program.store.path / "machines" / "old" / "config.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    assert program.here("create", "-d", "fake", "old").err == 'Docker machine "old" already exists\n'
    assert theirs.read_text() == "{}"


def test_storage_path(program: Program, tmp_path: Path) -> None:
    assert program.here("-s", str(tmp_path / "other"), "create", "-d", "fake", "a").code == 0
    assert (tmp_path / "other" / "machines" / "a").is_dir()
    assert program.store.names() == []
    assert program.here("-storage-path", str(tmp_path / "other"), "status", "a").out == "Running\n"


class TestCertificates:
    """``--tls-*`` and ``--tls-san``."""

    def test_an_authority_of_ones_own(self, program: Program, tmp_path: Path) -> None:
        mine = Authority.ensure(tmp_path / "mine")
        given = {
            "MACHINE_TLS_CA_CERT": str(mine.directory / "ca.pem"),
            "MACHINE_TLS_CLIENT_CERT": str(mine.directory / "cert.pem"),
            "MACHINE_TLS_CLIENT_KEY": str(mine.directory / "key.pem"),
        }
        flags = ["--tls-ca-key", str(mine.directory / "ca-key.pem"), f"-tls-client-key={tmp_path / 'none'}"]
        said = program.here(*flags[:2], "create", "-d", "fake", "web", **given)
        assert said.code == 0, said.err
        assert "Creating" not in said.out.replace("Creating machine...", "")
        record = program.store.load("web")
        assert (record.directory / "ca.pem").read_bytes() == mine.ca
        assert (record.directory / "cert.pem").read_bytes() == (mine.directory / "cert.pem").read_bytes()
        assert not list(program.store.certificates.glob("*.pem"))
        shown = json.loads(program.here("inspect", "web").out)["HostOptions"]["AuthOptions"]
        assert (shown["CaCertPath"], shown["CaPrivateKeyPath"]) == (given["MACHINE_TLS_CA_CERT"], flags[1])
        # It is noted: whoever starts it later needs none of the flags.
        assert program.here("restart", "web").code == 0
        assert program.here("env", "--shell", "sh", "web").code == 0
        # A flag goes before its variable; a pair that does not fit is told, and nothing is made.
        said = program.here(*flags, "create", "-d", "fake", "db", **given)
        assert said.code == 1
        assert program.store.names() == ["web"]

    def test_names_in_the_servers_certificate(self, program: Program) -> None:
        assert program.here("create", "-d", "fake", "--tls-san", "web.example", "--tls-san=192.0.2.9", "web").code == 0
        shown = x509.load_pem_x509_certificate((program.store.load("web").directory / "server.pem").read_bytes())
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(names.get_values_for_type(x509.DNSName)) == {"web", "web.example", "localhost"}
        assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "192.0.2.9"}


def test_what_was_asked_is_noted(program: Program) -> None:
    url = {"MACHINE_DOCKER_INSTALL_URL": "https://get.example"}
    flags = ["--swarm-opt", "heartbeat=5s", "--swarm-strategy", "binpack", "--swarm-experimental"]
    assert program.here("create", "-d", "fake", *flags, "web", MACHINE_SWARM_IMAGE="swarm:1", **url).code == 0
    found = json.loads(program.here("inspect", "web").out)["HostOptions"]
    assert found["EngineOptions"]["InstallURL"] == url["MACHINE_DOCKER_INSTALL_URL"]
    swarm = found["SwarmOptions"]
    assert (swarm["Image"], swarm["Strategy"], swarm["ArbitraryFlags"]) == ("swarm:1", "binpack", ["heartbeat=5s"])
    assert swarm["IsExperimental"] is True
    assert program.store.load("web").install_url == "https://get.example"


def test_several_mirrors_in_one_variable(program: Program) -> None:
    mirrors = "https://a.example,https://b.example"
    assert program.here("create", "-d", "fake", "web", ENGINE_REGISTRY_MIRROR=mirrors).code == 0
    assert program.store.load("web").engine == {"options": {"registry-mirrors": mirrors.split(",")}, "env": []}


def test_what_has_flags_of_its_own_may_be_given_as_dockers(program: Program) -> None:
    flags = ["label=tier=front", "registry-mirror=https://b.example", "insecure-registry=r.example"]
    argv = [
        "--engine-label",
        "zone=a",
        "--engine-registry-mirror=https://a.example",
        "--engine-opt=default-ulimit=core=0",
    ]
    said = program.here("create", "-d", "fake", *argv, *(f"--engine-opt={flag}" for flag in flags), "web")
    assert said.code == 0, said.err
    assert program.store.load("web").engine["options"] == {
        "labels": ["zone=a", "tier=front"],
        "registry-mirrors": ["https://a.example", "https://b.example"],
        "insecure-registries": ["r.example"],
        "default-ulimits": {"core": {"Name": "core", "Hard": 0, "Soft": 0}},
    }
    said = program.here("create", "-d", "fake", "--engine-opt", "host=tcp://0.0.0.0:1", "db")
    assert (said.code, "The engine cannot have 'hosts'" in said.err) == (1, True)


def test_an_option_of_docker_has_a_name(program: Program) -> None:
    said = program.here("create", "-d", "fake", "--engine-opt", "=3", "web")
    assert (said.code, "'=3' is no option: --engine-opt FLAG=VALUE" in said.err) == (1, True)
    assert program.store.names() == []
