"""One machine, and two: made, used, hurt and revived."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import docker
import pytest

from pytest_machine.driver import SupportsReserve
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import CommandFailed, ConnectFailed, NotRunning, Unsupported, WaitTimeout
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Record, Seed, Spec, State
from pytest_machine.owner import Run
from pytest_machine.plugins import Registry
from pytest_machine.service import HostPort
from pytest_machine.ssh import SshConnection
from pytest_machine.waiting import NotYet, wait
from tests.real.asked import engine_answers, on_host, page, pid_of, spec, specs

LOADER = Callable[..., str]
# Waits, and ends when it is told to: a first process that asks for no signal gets none.
PATIENT = "trap exit TERM; while :; do sleep 0.2; done"


def state_of(machine: Machine) -> State:
    """Return what it is doing, which mypy takes for a constant where it is asked for as an attribute."""
    return machine.state


@pytest.fixture(scope="module")
def shared(module_lab: Lab, busybox: LOADER) -> Machine:
    """A machine that is only looked at and used, never hurt; it has a neighbour called 'neighbour'."""
    first, _ = module_lab.create(*specs("shared neighbour"))
    busybox(*module_lab)
    return first


@pytest.fixture
def neighbour(shared: Machine, module_lab: Lab) -> Machine:
    return module_lab["neighbour"]


def test_hello(shared: Machine) -> None:
    said = shared.docker.containers.run("busybox", ["echo", "hello"], remove=True)
    assert said == b"hello\n"
    assert shared.run("hostname").stdout == "shared\n"
    assert state_of(shared) is State.RUNNING
    assert 0 < shared.seconds < 60


def test_two_hosts_are_two(shared: Machine, neighbour: Machine) -> None:
    assert shared.ip != neighbour.ip
    assert shared.docker.info()["ID"] != neighbour.docker.info()["ID"]
    shared.run("touch", "/srv/mine", "/var/lib/docker/mine", "/run/mine", "/dev/shm/mine")
    for path in ("/srv/mine", "/var/lib/docker/mine", "/run/mine", "/dev/shm/mine"):
        assert neighbour.run("test", "-e", path, check=False).returncode == 1
    # By name, by packets: each sends the other its own.
    for here, there in ((shared, neighbour), (neighbour, shared)):
        banner = here.run("bash", "-c", f"read -r line </dev/tcp/{there.name}/22 && echo $line").stdout
        assert banner.startswith("SSH-2.0")


def test_it_reaches_the_outside_as_its_host_does(shared: Machine) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(10)
        # Any address of this host that is not on our bridge stands for the outside.
        outside = _outward_address()
        sent = subprocess.Popen(
            [*shared.connection.argv, f"echo from inside >/dev/tcp/{outside}/{server.getsockname()[1]}"]
        )
        caller, _ = server.accept()
        with caller:
            assert caller.recv(100) == b"from inside\n"
        assert sent.wait(10) == 0


def _outward_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no way to the outside")
        return str(probe.getsockname()[0])


# Who gets in.


def _tls(machine: Machine, *, pair: Path | None) -> int:
    """Ask for the engine's version as `openssl` or a browser would, and return the HTTP status."""
    import http.client
    import ssl

    context = ssl.create_default_context(cafile=str(machine.record.directory / "ca.pem"))
    if pair is not None:
        context.load_cert_chain(pair / "cert.pem", pair / "key.pem")
    connection = http.client.HTTPSConnection(machine.ip, 2376, timeout=10, context=context)
    try:
        connection.request("GET", "/version")
        return connection.getresponse().status
    finally:
        connection.close()


_HUNG_UP = "EOF|reset|closed|Broken pipe"


def test_a_client_needs_its_certificate(shared: Machine, tmp_path: Path) -> None:
    from pytest_machine.certs import Authority

    assert _tls(shared, pair=shared.record.directory) == 200
    # The server may hang up before its reason is read.
    with pytest.raises(OSError, match=rf"alert (bad certificate|certificate required)|{_HUNG_UP}"):
        _tls(shared, pair=None)
    # Of an authority like ours, but another one: what a second run has.
    Authority.ensure(tmp_path)
    with pytest.raises(OSError, match=rf"alert (bad certificate|unknown ca|decrypt error)|{_HUNG_UP}"):
        _tls(shared, pair=tmp_path)
    assert _tls(shared, pair=shared.record.directory) == 200


def test_plain_tcp_is_refused(shared: Machine) -> None:
    with socket.create_connection((shared.ip, 2376), timeout=10) as plain:
        plain.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = plain.recv(4096)
    assert b"400 Bad Request" in answer
    assert b"ApiVersion" not in answer
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((shared.ip, 2375), timeout=10)


def test_nothing_else_listens(shared: Machine) -> None:
    inside = {line.split()[3] for line in shared.run("ss", "-Hltn").stdout.splitlines()}
    assert inside == {f"{shared.ip}:2376", "0.0.0.0:22", "[::]:22"}
    assert shared.run("ss", "-Hlun").stdout == ""
    open_ports = set()
    for port in range(1, 10000):
        with socket.socket() as probe:
            # On the same host a closed port refuses at once.
            probe.settimeout(1)
            if probe.connect_ex((shared.ip, port)) == 0:
                open_ports.add(port)
    assert open_ports == {22, 2376}


def test_ssh_with_a_wrong_host_key_is_refused(shared: Machine, neighbour: Machine, tmp_path: Path) -> None:
    """As somebody who took over the machine's address would be."""
    directory = shared.record.directory
    theirs = (neighbour.record.directory / "known_hosts").read_text().split(maxsplit=1)[1]
    (tmp_path / "known_hosts").write_text(f"{shared.ip} {theirs}")
    key = directory / "id_ed25519"
    wrong = SshConnection(shared.address, key=key, known_hosts=tmp_path / "known_hosts")
    with pytest.raises(ConnectFailed, match=r"Host key verification failed"):
        wrong.run("true")


def test_a_key_opens_only_its_own_machine(shared: Machine, neighbour: Machine) -> None:
    known = shared.record.directory / "known_hosts"
    wrong = SshConnection(shared.address, key=neighbour.record.directory / "id_ed25519", known_hosts=known)
    with pytest.raises(ConnectFailed, match="Permission denied"):
        wrong.run("true")
    # Nor does a password, or none.
    argv = [word for word in wrong.argv if not word.startswith("-oBatchMode")]
    asked = subprocess.run(
        [argv[0], "-v", "-oBatchMode=yes", "-oPreferredAuthentications=none", *argv[1:], "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert asked.returncode == 255
    assert "Authentications that can continue: publickey\n" in asked.stderr


# What a test does with it.


def test_commands(shared: Machine) -> None:
    result = shared.run("sh", "-c", "cat; echo $0 >&2; exit 3", 'it\'s "quoted"', input="given", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "given", 'it\'s "quoted"\n')
    with pytest.raises(CommandFailed) as failed:
        shared.run("false")
    assert failed.value.result.returncode == 1
    with pytest.raises(WaitTimeout):
        shared.run("sleep", "60", timeout=0.5)


def test_files(shared: Machine, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    shared.put(content, "/srv/blob", mode=0o640)
    assert shared.run("stat", "-c", "%a %U %s", "/srv/blob").stdout == f"640 root {len(content)}\n"
    shared.get("/srv/blob", tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == content
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "a b").write_text("c")
    shared.put(tmp_path / "tree", "/srv/tree")
    shared.get("/srv/tree", tmp_path / "again")
    assert (tmp_path / "again" / "sub" / "a b").read_text() == "c"


def test_the_environment_reaches_it_whatever_else_is_set(
    shared: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_machine.certs import Authority

    Authority.ensure(tmp_path)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    engine = shared.docker.info()["ID"]
    with shared.environment():
        client = docker.from_env()
        try:
            assert client.info()["ID"] == engine
        finally:
            client.close()


def test_the_docker_command_line_reaches_it(shared: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_API_VERSION", raising=False)
    try:
        with shared.environment():
            assert on_host("docker", "info", "--format", "{{.Name}}") == "shared\n"
    except FileNotFoundError:
        pytest.skip("this host has no docker command")


def test_services(shared: Machine) -> None:
    serve = ["sh", "-c", "until [ -e /go ]; do sleep 0.1; done; echo listening; httpd -f -h /www"]
    web = shared.docker.containers.run("busybox", serve, ports={"80/tcp": None}, detach=True)
    try:
        with pytest.raises(WaitTimeout, match="is empty"):
            shared.wait_for(log="listening", container=web, timeout=0.3)
        assert web.exec_run(["sh", "-c", "echo >/go"]).exit_code == 0
        shared.wait_for(log="^listen", container=web, timeout=30)
        shared.wait_for(http=":80/", container=web, timeout=30)
        place = shared.port(web, 80)
        assert place.host == shared.ip
        shared.wait_for(port=place.port, timeout=30)
        shared.wait_for(http=f"http://{place}/index.html", timeout=30)
        with pytest.raises(WaitTimeout, match="404"):
            shared.wait_for(http=":80/absent", container=web, timeout=0.5)
        with pytest.raises(NotRunning, match="81"):
            shared.port(web, 81)
    finally:
        web.remove(force=True)


def test_a_service_of_one_address_is_reached_there(shared: Machine) -> None:
    """At a loopback one by forwarding: at the machine's own nobody listens."""
    serve = ["sh", "-c", "mkdir /www; echo hello >/www/index.html; sleep 1; httpd -f -h /www"]
    at = {"80/tcp": ("127.0.0.1", 8080), "81/tcp": (shared.ip, 8081), "53/udp": ("127.0.0.1", 8053)}
    web = shared.docker.containers.run("busybox", serve, ports=at, detach=True)
    try:
        place = shared.port(web, 80)
        assert (place.host, place.forwarded) == ("127.0.0.1", True)
        shared.wait_for(port=80, container=web, timeout=30)
        shared.wait_for(http=":80/", container=web, timeout=30)
        assert page(f"http://{place}/") == b"hello\n"
        assert shared.port(web, 81) == HostPort(shared.ip, 8081)
        with pytest.raises(Unsupported, match="udp") as refused:
            shared.port(web, 53, "udp")
        assert refused.value.facts["inside"] == "127.0.0.1"
    finally:
        web.remove(force=True)
        shared.close()


# What happens to it.


def test_a_killed_engine_comes_back(lab: Lab, busybox: LOADER) -> None:
    (machine,) = lab.create(spec("lone"))
    busybox(machine)
    machine.docker.volumes.create("kept")
    first, init = machine.run("pidof", "dockerd").stdout, pid_of(machine)
    machine.run("pkill", "-KILL", "dockerd")
    wait(lambda: engine_answers(machine), "Docker after its end", timeout=60)
    assert machine.run("pidof", "dockerd").stdout != first
    assert machine.docker.containers.run("busybox", ["echo", "again"], remove=True) == b"again\n"
    # The same for whoever asks properly.
    for command in (("service", "docker", "restart"), ("systemctl", "restart", "docker")):
        before = machine.run("pidof", "dockerd").stdout
        machine.run(*command, timeout=60)
        assert machine.run("pidof", "dockerd").stdout != before
        assert machine.docker.volumes.get("kept")
    machine.run("pkill", "-KILL", "-x", "sshd", check=False)
    machine.connection.close()
    wait(lambda: machine.run("true"), "SSH after its end", timeout=30)
    assert pid_of(machine) == init


def _identity(machine: Machine) -> dict[str, object]:
    files = ("cert.pem", "key.pem", "ca.pem", "server.pem", "known_hosts")
    return {
        "address": machine.ip,
        "engine": machine.docker.info()["ID"],
        "machine-id": machine.run("cat", "/etc/machine-id", check=False).stdout,
        **{name: (machine.record.directory / name).read_bytes() for name in files},
    }


@pytest.mark.parametrize("disk", [None, "600m"], ids=["directory", "disk"])
def test_it_keeps_its_data_over_its_boots(lab: Lab, busybox: LOADER, disk: str | None) -> None:
    (machine,) = lab.create(spec("lasting", disk=disk))
    image = busybox(machine)
    machine.run("sh", "-c", "echo on disk >/srv/kept; echo in memory >/run/gone")
    volume = {"data": {"bind": "/data", "mode": "rw"}}
    machine.docker.containers.run(image, ["sh", "-c", "echo in a volume >/data/kept"], volumes=volume, remove=True)
    machine.docker.containers.run(
        image,
        ["sh", "-c", PATIENT],
        name="service",
        detach=True,
        restart_policy={"Name": "always", "MaximumRetryCount": 0},
    )
    before = _identity(machine)

    def all_is_there() -> None:
        assert _identity(machine) == before
        assert machine.run("cat", "/srv/kept").stdout == "on disk\n"
        assert machine.run("test", "-e", "/run/gone", check=False).returncode == 1
        said = machine.docker.containers.run(image, ["cat", "/data/kept"], volumes=volume, remove=True)
        assert said == b"in a volume\n"

        def runs() -> None:
            if machine.docker.containers.get("service").status != "running":
                raise NotYet("it does not run")

        wait(runs, "The service", timeout=30)

    machine.stop()
    assert state_of(machine) is State.STOPPED
    machine.stop()
    if disk is None:  # once is enough: it takes as long as a connection may
        assert machine.run("true", check=False).returncode == 255
        begun = time.monotonic()
        with pytest.raises(NotRunning, match=r"hint: machine\.start\(\)"):
            _ = machine.docker
        assert time.monotonic() - begun < 20, "it was not asked whether it runs"
    machine.start()
    machine.start()
    all_is_there()

    machine.kill()
    assert state_of(machine) is State.STOPPED
    machine.start()
    all_is_there()

    machine.restart()
    all_is_there()


def test_a_paused_machine_stands_still(lab: Lab) -> None:
    (machine,) = lab.create(spec("still"))
    machine.run("sh", "-c", "while :; do date +%s%N >/run/beat.new; mv /run/beat.new /run/beat; done >/dev/null 2>&1 &")
    beat = Path(f"/proc/{pid_of(machine)}/root/run/beat")
    wait(beat.read_text, "A beat", timeout=10)
    machine.pause()
    machine.pause()
    assert state_of(machine) is State.PAUSED
    frozen = beat.read_text()
    # Its kernel answers for it, its programs do not.
    with socket.create_connection((machine.ip, 22), timeout=5) as silent:
        silent.settimeout(0.5)
        with pytest.raises(TimeoutError):
            silent.recv(1)
    with pytest.raises(NotRunning, match=r"hint: machine\.resume\(\)"):
        _ = machine.docker
    assert beat.read_text() == frozen
    machine.resume()
    machine.resume()
    assert state_of(machine) is State.RUNNING
    assert machine.run("true").returncode == 0
    assert beat.read_text() != frozen
    machine.pause()
    machine.destroy()
    assert state_of(machine) is State.ABSENT


def test_a_lost_connection_is_a_return_code(lab: Lab) -> None:
    (machine,) = lab.create(spec("lost"))
    started = time.monotonic()
    # `ssh` notices that the other side is gone because it is told so: no waiting for a time-out.
    lost = machine.run("sh", "-c", "kill -9 $(pgrep sshd)", check=False, timeout=60)
    assert lost.returncode == 255
    assert time.monotonic() - started < 60
    wait(lambda: machine.run("true"), "SSH after its end", timeout=30)


def test_failed_logins_and_probes_do_not_shut_a_client_out(lab: Lab, tmp_path: Path) -> None:
    """OpenSSH refuses an address after some of them (PerSourcePenalties), and ours would be that of every test."""
    (machine,) = lab.create(spec("patient"))
    machine.connection.close()  # the next command logs in
    for _ in range(30):
        with socket.create_connection((machine.address.ip, 22), timeout=10) as probe:
            assert probe.recv(3) == b"SSH"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    stranger = SshConnection(
        machine.address, key=tmp_path / "key", known_hosts=machine.record.directory / "known_hosts", control=False
    )
    for _ in range(4):
        with pytest.raises(ConnectFailed, match="Permission denied"):
            stranger.run("true")
    assert machine.run("true", timeout=10).returncode == 0


@dataclass(frozen=True, kw_only=True)
class LateDriver(RuncDriver):
    """Does not say addresses in advance, as most clouds do not."""

    name: ClassVar[str] = "late"
    # What is None is not there, for `isinstance` with a protocol.
    reserve = None  # type: ignore[assignment]

    def create(self, record: Record, seed: Seed) -> None:
        RuncDriver(memory=self.memory).create(record, seed)


class Conftest:
    """Stands for a conftest that adds the driver."""

    def pytest_machine_drivers(self) -> list[type[RuncDriver]]:
        return [LateDriver]


def test_certificates_may_come_late(run: Run) -> None:
    """Where the address is not known before the birth, the core brings the certificates over SSH."""
    with Lab(store=run.lab_store("late"), registry=Registry([Conftest()]), run=run.id) as lab:
        assert not isinstance(LateDriver(), SupportsReserve)
        (machine,) = lab.create(Spec(name="late", driver="late", timeout=60))
        assert _tls(machine, pair=machine.record.directory) == 200
        assert machine.run("stat", "-c", "%a", "/etc/docker/server-key.pem").stdout == "600\n"
        machine.restart()
        assert _tls(machine, pair=machine.record.directory) == 200
