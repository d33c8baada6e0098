"""Machines in a user's own Docker engine, by real packets: on the engine's computer, from another one, and by hand."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import pytest_machine
from pytest_machine import Net, Role, Topology, images
from pytest_machine.drivers.docker import DockerDriver, outer
from pytest_machine.drivers.docker import image as engine_image
from pytest_machine.drivers.docker.outer import connect
from pytest_machine.endpoint import at
from pytest_machine.errors import DriverError, DriverUnavailable, Unsupported, WaitTimeout
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec, State, Value, new_id
from pytest_machine.owner import Run
from pytest_machine.plan import pairs
from pytest_machine.plugins import Registry
from tests.conftest import SLOWNESS, full_only
from tests.dockerd import IP, Dockerd, running
from tests.real.asked import page
from tests.real.meeting import meeting


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


_NOBODY = 65534
# Directories, `--`, a command: run it where everybody may enter those, of which nobody else hears.
_OPEN = """
mount --make-rprivate /
mkdir -p "$HOME/engine"
mount --bind "$SHARED" "$HOME/engine"
until [ "$1" = -- ]; do
    mount -t tmpfs -o mode=755 opened /mnt
    mkdir -m 755 /mnt/upper /mnt/work
    mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" opened "$1"
    umount -l /mnt
    shift
done
shift
exec "$@"
"""


@pytest.fixture(scope="module")
def users_engine() -> Iterator[Dockerd]:
    """Its files lie not below pytest's own directory, which whoever runs another pytest closes for users."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a private dockerd needs Linux and root")
    with tempfile.TemporaryDirectory(prefix="users-engine-") as home, running(Path(home)) as engine:
        yield engine


@pytest.fixture
def patient() -> Iterator[None]:
    """Give a busy engine its time to say who it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outer, "_GREETING", outer._GREETING * SLOWNESS)
        yield


@pytest.fixture
def at_home(patient: None, users_engine: Dockerd) -> Iterator[Dockerd]:
    """Be on the engine's computer; nothing is left in the engine afterwards."""
    with users_engine.at_home():
        yield users_engine
        assert users_engine.things() == set()


@pytest.fixture
def elsewhere(patient: None, users_engine: Dockerd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dockerd]:
    """Be on another computer, whose environment names the engine."""
    with users_engine.elsewhere():
        for name, value in (("HOST", f"tcp://{IP}:2376"), ("TLS_VERIFY", "1"), ("CERT_PATH", str(users_engine.certs))):
            monkeypatch.setenv(f"DOCKER_{name}", value)
        yield users_engine
        assert users_engine.things() == set()


@pytest.fixture
def docker_lab(tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        run = Run.begin(root=tmp_path)
        stack.callback(run.end)
        yield stack.enter_context(Lab(store=run.lab_store(new_id()), registry=Registry(), run=run.id))


def spec(name: str, *, networks: tuple[str, ...] = (), **options: Value) -> Spec:
    return Spec(name=name, driver="docker", networks=networks, options={"memory": "512m", **options}, timeout=90)


def _reaches(here: Machine, there: str, *, seconds: float = 5) -> bool:
    """Whether a TCP connection to its SSH comes about, and the other end says something."""
    script = f"exec 3<>/dev/tcp/{there}/22 && read -r line <&3 && [[ $line == SSH* ]]"
    return here.run("timeout", str(seconds), "bash", "-c", script, check=False).returncode == 0


def test_a_life(at_home: Dockerd, docker_lab: Lab, busybox: Callable[..., str], tmp_path: Path) -> None:
    """Containers run, limits hold, names resolve; pause, kill and start keep data; nothing of the host is mounted."""
    web, db = docker_lab.create(spec("web", host=at_home.url, cpus=1.5, pids=500), spec("db", host=at_home.url))
    image = busybox(web)
    assert web.docker.containers.run(image, "hostname", hostname="inside", remove=True) == b"inside\n"
    assert web.docker.info()["Driver"] == "overlay2"
    assert web.run("docker", "run", "--rm", "-m", "32m", image, "echo", "limited").stdout == "limited\n"
    # The machine's own limits, by the engine's word.
    (told,) = at_home.ask("/containers/json", label=[f"pytest-machine.id={web.id}"])
    host = at_home.ask(f"/containers/{told['Id']}/json")["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (512 << 20, 1_500_000_000, 500)
    assert not [mount for mount in host["Mounts"] if mount["Type"] != "volume"]
    assert not host["Binds"]
    # Names.
    for here, there in ((web, db), (db, web)):
        assert here.run("getent", "hosts", there.name).stdout.split()[0] == there.ip
        assert _reaches(here, there.name)
    assert web.run("hostname").stdout == "web\n"
    with web.capture(tmp_path / "web.pcap", only="icmp") as capture:
        assert docker_lab.reachable("db", "web")
    assert capture.packets == 2
    web.put(b"kept", "/srv/kept")
    web.pause()
    assert str(web.state) == "paused"
    web.resume()
    web.kill()
    assert str(web.state) == "stopped"
    assert at_home.ask(f"/containers/{told['Id']}/json")["State"]["Running"] is False
    web.start()
    assert web.run("cat", "/srv/kept").stdout == "kept"
    assert web.docker.images.list(image)
    assert "machine-init: started" in web.console()
    db.destroy(kill=True)


def test_networks_of_a_lab(at_home: Dockerd, docker_lab: Lab) -> None:
    """Who shares a network reaches the other by name, over it; who does not, does not."""
    docker_lab.create(
        spec("web", networks=("front",), host=at_home.url),
        spec("app", networks=("front", "back"), host=at_home.url),
        spec("db", networks=("back",), host=at_home.url),
        spec("alone", host=at_home.url),
    )
    web, app, db, alone = docker_lab
    for here, there, network in ((web, app, "front"), (app, web, "front"), (app, db, "back"), (db, app, "back")):
        assert here.run("getent", "hosts", there.name).stdout.split()[0] == there.networks[network].ip
        assert _reaches(here, there.name)
    for here, there in ((web, db), (db, web), (web, alone), (alone, web)):
        assert here.run("getent", "hosts", there.name, check=False).returncode != 0
        for address in (there.ip, *(link.ip for link in there.networks.values())):
            assert not _reaches(here, address, seconds=0.7), f"'{here.name}' reaches '{there.name}' at {address}"
    # Not by the engine's computer either, which is their router.
    gateway = web.run("sh", "-c", "ip route get 192.0.2.9 | sed -n 's/.* via \\([^ ]*\\) .*/\\1/p'").stdout.strip()
    for address in (db.ip, db.networks["back"].ip):
        web.run("ip", "route", "replace", f"{address}/32", "via", gateway)
        assert not _reaches(web, address, seconds=0.7)
    app.disconnect(docker_lab.networks["back"])
    assert set(app.networks) == {"front"}
    assert not _reaches(db, app.name, seconds=0.7)
    # A boot changes nothing of it.
    ip = web.networks["front"].ip
    web.restart()
    assert web.networks["front"].ip == ip
    assert _reaches(app, "web")
    assert not _reaches(web, db.ip, seconds=0.7)


DECLARED = Topology(
    networks={
        "front": Net(subnet="10.64.0.0/28", ipv6=True, mtu=1400),
        "back": Net(ipv6=True),
        "safe": Net(isolated=True),
    },
    roles={
        "web": Role(networks=["front"]),
        "gw": Role(networks=["front", "back"], router=True),
        "db": Role(networks=["back", "safe"]),
        "vault": Role(networks=["safe"]),
    },
)


@full_only
def test_a_topology(at_home: Dockerd, docker_lab: Lab) -> None:
    """Who should meet does, by a router too and by IPv6, and nobody else; after a boot and after a reset as well."""
    docker_lab.create(
        *(
            dataclasses.replace(
                spec(name, networks=own, host=at_home.url), router=name in DECLARED.routers, topology=DECLARED
            )
            for name, own in DECLARED.members.items()
        )
    )
    web, gw, vault = docker_lab["web"], docker_lab["gw"], docker_lab["vault"]
    wanted = pairs(DECLARED.members, DECLARED.routers, DECLARED.open)
    # Not in threads: the network that we are in is a thread's own.
    assert meeting(docker_lab, wanted, at_once=False) == wanted
    assert docker_lab.reachable("web", "db", ipv6=True, port=22)
    assert " ttl=63 " in web.run("ping", "-n", "-c", "1", "-W", "5", "db.back").stdout
    assert web.run("ping", "-M", "do", "-s", "1373", "-c", "1", gw.networks["front"].ip, check=False).returncode != 0
    assert web.run("ping", "-M", "do", "-s", "1372", "-c", "1", gw.networks["front"].ip).returncode == 0
    assert "default" not in web.run("ip", "-6", "route").stdout
    before = {machine.name: dict(machine.networks) for machine in docker_lab}
    for boot in (web.restart, gw.restart, gw.reset, vault.restart):
        boot()
    assert {machine.name: dict(machine.networks) for machine in docker_lab} == before
    assert docker_lab.reachable("web", "db", port=22, timeout=5)
    assert docker_lab.reachable("db", "web", ipv6=True, timeout=5)
    assert not _reaches(vault, gw.ip, seconds=0.7)
    assert vault.docker.ping()
    link = docker_lab.attach("vault", "back")
    assert docker_lab.reachable("web", "vault", ipv6=True, port=22, timeout=5)
    assert web.run("getent", "ahostsv6", "vault").stdout.split()[0] == link.ip6
    docker_lab.detach("vault", "back")
    assert web.run("getent", "hosts", "vault", check=False).returncode != 0
    # What two networks cannot have is said.
    with pytest.raises(DriverError, match="Docker lets no two networks have the same"):
        vault.connect(dataclasses.replace(docker_lab.networks["front"], id=new_id(), name="other", subnet6=""))


def test_from_another_computer(elsewhere: Dockerd, docker_lab: Lab, busybox: Callable[..., str]) -> None:
    """Only published ports are reached; machines reach each other at their own addresses all the same."""
    a, b = docker_lab.create(spec("a"), spec("b"))
    assert a.ip == b.ip == IP
    assert a.address.inner != b.address.inner
    for port in (22, 2376):
        with pytest.raises(OSError, match=r".*"), socket.create_connection((a.address.inner, port), timeout=0.5):
            pass
    assert a.docker.containers.run(busybox(a), "echo hi", remove=True) == b"hi\n"
    assert a.run("getent", "hosts", "b").stdout.split()[0] == b.address.inner
    assert _reaches(a, "b")
    assert _reaches(b, "a")
    # What a container publishes is the machine's, not its engine's: it is forwarded, and so is what the machine has.
    argv = ["sh", "-c", "mkdir /srv; echo it >/srv/index.html; httpd -f -p 80 -h /srv"]
    served = a.docker.containers.run(busybox(a), argv, ports={"80/tcp": None, "53/udp": None}, detach=True)
    place = a.port(served, 80)
    assert place.host == "127.0.0.1"
    a.wait_for(http=":80/", container=served, timeout=30)
    a.wait_for(port=80, container=served, timeout=30)
    assert page(f"http://{place}/") == b"it\n"
    assert a.port(served, 80) == place
    inside = a.docker.containers.get(str(served.id)).attrs["NetworkSettings"]["Ports"]
    a.wait_for(port=int(inside["80/tcp"][0]["HostPort"]), timeout=30)
    with pytest.raises(Unsupported, match="cannot be reached from here"):
        a.port(served, 53, "udp")
    with pytest.raises(WaitTimeout, match="nobody listens there"):
        a.wait_for(port=9, timeout=0.5)
    # During a test the environment names the machine, and that is no engine to look for machines in.
    with a.environment():
        assert {record.id for record in DockerDriver().find()} == {a.id, b.id}
        assert b.state is State.RUNNING
    # What follows is done without the environment: the machine's note knows its engine.
    a.restart()
    assert a.docker.ping()


def test_a_desktop(at_home: Dockerd, docker_lab: Lab) -> None:
    """Ports at a loopback address, as where an engine's containers cannot be reached."""
    (a,) = docker_lab.create(spec("a", host=at_home.url, publish="127.0.0.1"))
    assert a.ip == "127.0.0.1"
    assert a.run("hostname").stdout == "a\n"
    (told,) = at_home.ask("/containers/json", label=[f"pytest-machine.id={a.id}"])
    assert {port["IP"] for port in told["Ports"] if "IP" in port} == {"127.0.0.1"}
    # A port that somebody has is passed over.
    with socket.create_server(("127.0.0.1", a.address.ssh_port + 2)):
        (b,) = docker_lab.create(spec("b", host=at_home.url, publish="127.0.0.1"))
    assert b.address.ssh_port == a.address.ssh_port + 4


def test_ten_processes_import_one_image(at_home: Dockerd, tmp_path: Path) -> None:
    """Once, whole, and it can be removed; a small tree of the user's own shows it quickly."""
    tree = tmp_path / "tree"
    (tree / "usr/sbin").mkdir(parents=True)
    (tree / "usr/sbin/machine-init").write_text("#!/bin/sh\n")
    (tree / "filling").write_bytes(os.urandom(1 << 20))
    code = (
        "import sys; from pytest_machine.endpoint import Endpoint\n"
        "from pytest_machine.drivers.docker import image; from pytest_machine.drivers.docker.outer import connect\n"
        f"with connect(Endpoint({at_home.url!r})) as outer: print(image.provide(outer, {str(tree)!r}, None))"
    )
    going = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    names = {process.communicate(timeout=60)[0].strip() for process in going}
    (name,) = names
    assert name.startswith("pytest-machine:tree-")
    labelled = at_home.ask("/images/json?all=1", label=["pytest-machine.image"])
    assert sum(name in (image["RepoTags"] or ()) for image in labelled) == 1
    assert not at_home.ask("/images/json", dangling=["true"])
    # Another tree is another image, and one that cannot be read to its end leaves nothing.
    (tree / "filling").write_bytes(b"else")
    assert engine_image.reference(engine_image.name_of(str(tree), None)) != name
    environ = {**os.environ, "DOCKER_HOST": at_home.url, "PYTEST_MACHINE_CACHE": str(tmp_path / "cache")}
    for argv in (["ls"], ["rm", name.partition(":")[2]]):
        done = subprocess.run(
            [sys.executable, "-m", "pytest_machine", "image", *argv],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"{name.partition(':')[2]} " in done.stdout
        assert "(docker)" in done.stdout
    assert not [image for image in at_home.ask("/images/json") if name in (image["RepoTags"] or ())]


def test_no_engine(users_engine: Dockerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriverUnavailable, match=f"No Docker engine answers at 'unix://{tmp_path}/none'") as caught:
        DockerDriver(host=f"unix://{tmp_path}/none").check()
    assert "DOCKER_HOST=" in caught.value.hint
    with pytest.raises(DriverUnavailable, match="No Docker engine answers"):
        DockerDriver(host="tcp://127.0.0.1:9").check()
    # It listens, and says nothing.
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        with pytest.raises(DriverUnavailable, match="No Docker engine answers"):
            DockerDriver(host=f"unix://{tmp_path}/mute").check()
    # Not by strangers, who have no certificate of its authority.
    with users_engine.elsewhere():
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        with pytest.raises(DriverUnavailable, match="No Docker engine answers"):
            DockerDriver(host=f"tcp://{IP}:2376").check()


def test_a_user_without_root(patient: None, users_engine: Dockerd, stack: ExitStack) -> None:
    """Whoever may speak to an engine that has the image has machines; who may not is told so."""
    script = (
        "import os, sys\n"
        "from pytest_machine.drivers.docker import DockerDriver\nfrom pytest_machine.errors import DriverUnavailable\n"
        "import docker, requests, cryptography\n"
        f"driver = DockerDriver(host={users_engine.url!r})\n"
        "os.setgid(65534); os.setgroups([]); os.setuid(65534)\n"
        "try: driver.check()\nexcept DriverUnavailable as error: print(error); sys.exit()\nprint('usable')\n"
    )
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptm-nobody-")))
    home.chmod(0o777)
    environ = {**os.environ, "PYTEST_MACHINE_CACHE": str(home / "cache"), "HOME": str(home)}
    asked = [sys.executable, "-c", script]
    users_engine.home.chmod(0o711)
    said = subprocess.run(asked, env=environ, capture_output=True, text=True, check=False, timeout=60 * SLOWNESS)
    assert f"You may not speak to the Docker engine at '{users_engine.url}'." in said.stdout, said.stderr
    assert 'usermod -aG docker "$USER"' in said.stdout
    users_engine.socket.chmod(0o666)
    try:
        with connect(at(users_engine.url, {})) as outer:
            engine_image.provide(outer, images.DEFAULT, None)
        assert subprocess.run(asked, env=environ, capture_output=True, text=True, check=False).stdout == "usable\n"
    finally:
        users_engine.socket.chmod(0o660)


def test_what_a_user_without_root_gets(at_home: Dockerd, stack: ExitStack) -> None:
    """Nothing but membership in the socket's group: the driver is chosen, and a machine lives, is used and goes."""
    with connect(at(at_home.url, {})) as outer:
        engine_image.provide(outer, images.DEFAULT, None)
    group = 54321
    # Not below pytest's own directory, which whoever runs another pytest closes again.
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptm-nobody-")))
    os.chown(home, _NOBODY, _NOBODY)
    os.chown(at_home.socket, 0, group)
    stack.callback(os.chown, at_home.socket, 0, 0)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SHELL": "/bin/sh",
        "DOCKER_HOST": f"unix://{home}/engine/docker.sock",
        "SHARED": str(at_home.socket.parent),
    }

    def call(*argv: str, code: int = 0) -> str:
        who = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", f"--groups={group}", "--no-new-privs"]
        whole = ["unshare", "--mount", "sh", "-c", _OPEN, "sh", *_closed(), "--", *who, sys.executable, *argv]
        done = subprocess.run(whole, env=environ, capture_output=True, text=True, timeout=120, check=False, cwd=home)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def program(*argv: str, code: int = 0) -> str:
        return call("-m", "pytest_machine", *argv, code=code)

    try:
        said = program("create", "default")
        assert "Docker is up and running!" in said
        assert program("inspect", "-f", "{{.DriverName}}").strip() == "docker"
        where = home / ".docker" / "machine" / "machines" / "default"
        assert (where.stat().st_uid, (where / "key.pem").stat().st_mode & 0o777) == (_NOBODY, 0o600)
        variables = dict(re.findall(r'export (\w+)="(.*)"', program("env")))
        asked = (
            "import docker, sys\n"
            f"environ = {variables!r}\n"
            "client = docker.from_env(environment=environ)\n"
            "client.api.trust_env = False\n"
            "print(client.info()['Name'])\n"
        )
        assert call("-c", asked) == "default\n"
        assert program("ssh", "default", "id", "-u") == "0\n", "root in the machine, nobody here"
    finally:
        program("rm", "-f", "default")
    os.chown(at_home.socket, 0, 0)
    program("create", "default", code=3)


def _closed() -> list[str]:
    """Return the directories above Python and this project that not everybody may enter, outermost first."""
    found = {
        folder
        for path in (sys.executable, sys.prefix, sys.base_prefix, pytest_machine.__file__)
        for folder in (*Path(path).parents, *Path(path).resolve().parents)
        if not folder.stat().st_mode & 0o001
    }
    return [str(folder) for folder in sorted(found)]


def test_by_hand(at_home: Dockerd, tmp_path: Path) -> None:
    """``docker-machine create -d docker``, ``env``, a container, ``rm``; the environment names the engine."""
    environ = {**os.environ, "MACHINE_STORAGE_PATH": str(tmp_path / "machines"), "DOCKER_HOST": at_home.url}

    def call(*argv: str) -> str:
        argv = (sys.executable, "-m", "pytest_machine", *argv)
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("create", "-d", "docker", "--docker-memory", "512m", "default")
    for line in call("env", "default").splitlines():
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            environ[name] = value.strip('"')
    assert environ["DOCKER_HOST"].startswith("tcp://10.")
    assert environ["DOCKER_MACHINE_NAME"] == "default"
    # From here on the environment names the machine: no reason to look for machines, or make one, inside of it.
    assert call("status", "default") == "Running\n"
    assert call("ssh", "default", "hostname") == "default\n"
    assert call("ssh", "default", "docker", "ps", "-q") == ""
    (told,) = at_home.ask("/containers/json?all=1")
    assert told["Names"][0].startswith("/pytest-machine-default-")
    call("stop", "default")
    call("start", "default")
    call("rm", "-y", "default")
    assert at_home.things() == set()


def test_two_computers_at_once(at_home: Dockerd, tmp_path: Path) -> None:
    """Without a lock between them: two caches stand for two computers. No network twice, no address twice."""
    code = (
        "import json, sys, time; from pathlib import Path; from pytest_machine.model import Record, new_id\n"
        "from pytest_machine.drivers.docker import DockerDriver\n"
        "import docker\n"
        "sys.stdin.readline()\n"
        "for _ in range(5):\n"
        " r = Record(id=new_id(), name='m', driver='docker', store=Path(sys.argv[1]), host='h', created=time.time())\n"
        " r.directory.mkdir(parents=True, exist_ok=True)\n"
        f" a = DockerDriver(host={at_home.url!r}).reserve(r)\n"
        " print(json.dumps([r.to_json(), a.ip]), flush=True)\n"
    )
    going = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)],
            env={**os.environ, "PYTEST_MACHINE_CACHE": str(tmp_path / f"cache-{name}")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in going:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(line) for process in going for line in process.communicate(timeout=60)[0].splitlines()]
    driver = DockerDriver(host=at_home.url)
    records = {record.id: record for record in driver.find()}
    try:
        assert len(found) == len({ip for _, ip in found}) == 10
        assert [network["Name"] for network in at_home.ask("/networks", label=["pytest-machine.block"])] == [
            "pytest-machine"
        ]
        assert {data["id"] for data, _ in found} == set(records)
    finally:
        for record in records.values():
            driver.destroy(dataclasses.replace(record, ready=1.0))
    # An engine that is gone is no reason to forget a machine.
    with pytest.raises(DriverError, match="does not answer"):
        DockerDriver(host=f"unix://{tmp_path}/gone").destroy(next(iter(records.values())).with_(store=tmp_path / "no"))
