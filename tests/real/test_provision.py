"""A plain Debian becomes a Docker host over SSH: real machines without Docker, packages from a repository of ours."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import docker
import pytest

from examples.demo.conftest import busybox_archive
from pytest_machine import engine
from pytest_machine.certs import Authority
from pytest_machine.daemon import read
from pytest_machine.driver import Driver, SupportsReserve
from pytest_machine.errors import ProvisionFailed
from pytest_machine.facts import probe
from pytest_machine.lab import Lab
from pytest_machine.model import Address, Engine, Record, Seed, SeedFile, Spec, new_id
from pytest_machine.owner import Run, host_id
from pytest_machine.plugins import Registry
from pytest_machine.provisioner import Wanted
from pytest_machine.ssh import SshConnection, new_key, pin
from pytest_machine.waiting import wait

from . import plain
from .plain import Repository

pytestmark = pytest.mark.real


@dataclass
class Host:
    """A plain machine, logged in to."""

    record: Record
    address: Address
    connection: SshConnection
    certs: Path
    wanted: Wanted
    registry: Registry
    told: list[str] = field(default_factory=list)

    @property
    def key(self) -> Path:
        return self.record.directory / "id_ed25519"

    def provision(self, **changes: object) -> list[str]:
        return self.registry.provision(self.connection, replace(self.wanted, **changes), tell=self.told.append)  # type: ignore[arg-type]

    def upgrade(self) -> list[str]:
        return self.registry.upgrade(self.connection, self.wanted, tell=self.told.append)

    def user(self, name: str) -> SshConnection:
        """Connect as another user, who may log in with the same key."""
        script = "useradd -m $1 && cp -r /root/.ssh /home/$1/ && chown -R $1: /home/$1/.ssh"
        self.connection.run("sh", "-c", script, "sh", name)
        known_hosts = self.record.directory / "known_hosts"
        return SshConnection(replace(self.address, user=name), key=self.key, known_hosts=known_hosts)

    def text(self, path: str) -> str:
        return self.connection.run("cat", path).stdout

    def run(self, script: str) -> str:
        return self.connection.run("sh", "-c", script).stdout

    def sources(self, url: str) -> None:
        self.run(f"echo 'deb [trusted=yes] {url} ./' >/etc/apt/sources.list")

    @contextmanager
    def docker(self) -> Iterator[docker.DockerClient]:
        client = engine.client(self.address, certs=self.certs)
        try:
            yield client
        finally:
            client.close()


Make = Callable[..., Host]


@pytest.fixture(scope="module")
def make(run: Run, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Return a maker of plain machines, of a Debian release; the run's reaper knows them."""
    store = run.lab_store(new_id())
    authority = Authority.ensure(tmp_path_factory.mktemp("authority"))
    with ExitStack() as stack:

        def make(suite: str = "bookworm", **settings: object) -> Host:
            options = {"image": str(plain.tree(suite))}
            driver: Driver = registry.configure(Spec(driver="runc", options=options))
            assert isinstance(driver, SupportsReserve)
            id_ = new_id()
            record = Record(
                id=id_, name=f"plain-{id_[:4]}", driver="runc", options=options, store=store.path, host=host_id(),
                run=run.id, created=time.time(),
            )  # fmt: skip
            store.add(record)
            stack.callback(store.remove, record.name)
            stack.callback(driver.destroy, record)
            address = driver.reserve(record)
            private, public = new_key("provision")
            host_key, host_key_public = new_key(record.name)
            key = record.directory / "id_ed25519"
            key.touch(mode=0o600)
            key.write_text(private)
            pin(record.directory / "known_hosts", address, host_key_public)
            seed = Seed(
                hostname="plain", authorized_key=public, host_key=host_key, host_key_public=host_key_public,
                files={"/etc/hosts": SeedFile(b"127.0.0.1 localhost\n127.0.1.1 plain\n")},
            )  # fmt: skip
            driver.create(record, seed)
            connection = SshConnection(address, key=key, known_hosts=record.directory / "known_hosts")
            stack.callback(connection.close)
            wait(lambda: connection.run("true", timeout=10), f"SSH on '{record.name}'", timeout=60)
            pair = authority.issue_server(name=record.name, hosts=[address.ip])
            authority.copy_client(record.directory)
            wanted = Wanted(
                hostname=record.name,
                engine=Engine(**settings),  # type: ignore[arg-type]
                files={
                    "/etc/docker/ca.pem": SeedFile(authority.ca),
                    "/etc/docker/server.pem": SeedFile(pair.cert),
                    "/etc/docker/server-key.pem": SeedFile(pair.key, 0o600),
                },
                provider="generic",
            )
            return Host(record, address, connection, record.directory, wanted, registry)

        yield make


@pytest.fixture(scope="module")
def gateway(make: Make) -> str:
    """The address of this host that machines reach."""
    return make().run("ip -4 route show default").split()[2]


@pytest.fixture(scope="module")
def bookworm(gateway: str) -> Iterator[Repository]:
    with Repository(plain.packages("bookworm")).served(gateway) as served:
        yield served


def works(host: Host) -> None:
    """Docker answers over TLS and runs a container."""
    with host.docker() as client:
        client.api.import_image_from_data(busybox_archive(), repository="busybox", tag="latest")
        assert client.containers.run("busybox:latest", ["echo", "hi"], remove=True) == b"hi\n"


@pytest.fixture(scope="module")
def made(make: Make, bookworm: Repository) -> Host:
    """One that the tests below share, in their order; nothing is on it at first."""
    host = make(
        labels={"zone": "a"},
        env={"NO_PROXY": "192.0.2.9", "HTTPS_PROXY": "http://user:it's a pass@192.0.2.3:3128"},
        registry_mirror=("http://192.0.2.1:5000/",),
        insecure_registries=("192.0.2.2:5000",),
        options={"storage-driver": "overlay2"},
    )
    host.sources(bookworm.url)
    return host


def test_from_nothing_to_docker_run(made: Host) -> None:
    changed = made.provision()
    assert any(line.startswith("installed Docker 20.10") for line in changed)
    assert "installing Docker" in made.told
    with made.docker() as client:
        info = client.info()
        assert sorted(info["Labels"]) == ["provider=generic", "zone=a"]
        assert info["RegistryConfig"]["Mirrors"] == ["http://192.0.2.1:5000/"]
        assert "192.0.2.2:5000" in info["RegistryConfig"]["IndexConfigs"]
        assert info["NoProxy"] == "192.0.2.9"
        assert info["Driver"] == "overlay2"
        assert info["Name"] == made.record.name
    works(made)
    pid = made.run("pidof dockerd").split()[0]
    assert "HTTPS_PROXY=http://user:it's a pass@192.0.2.3:3128" in made.run(f"tr '\\0' '\\n' </proc/{pid}/environ")
    modes = made.run("cd /etc/docker && stat -c '%a %n' server-key.pem machine.env .pytest-machine.json")
    assert modes == "600 server-key.pem\n600 machine.env\n600 .pytest-machine.json\n"


def test_the_second_run_changes_nothing(made: Host) -> None:
    running = made.run("pidof dockerd")
    before = made.run("find /etc -newer /etc/docker/.pytest-machine.applied -type f")
    assert made.provision() == []
    assert made.run("pidof dockerd") == running
    assert made.run("find /etc -newer /etc/docker/.pytest-machine.applied -type f") == before


def test_a_setting_of_somebody_elses_survives(made: Host) -> None:
    theirs = json.loads(made.text("/etc/docker/daemon.json")) | {"max-concurrent-downloads": 2}
    theirs["labels"].append("rack=7")
    made.connection.put(json.dumps(theirs).encode(), "/etc/docker/daemon.json", mode=0o640)
    engine = replace(made.wanted.engine, labels={"zone": "b"}, registry_mirror=())
    changed = made.provision(engine=engine)
    assert changed == ["wrote /etc/docker/daemon.json", "restarted Docker"]
    there = json.loads(made.text("/etc/docker/daemon.json"))
    assert there["max-concurrent-downloads"] == 2
    assert sorted(there["labels"]) == ["provider=generic", "rack=7", "zone=b"]
    assert "registry-mirrors" not in there, "what we wrote and nobody wants any more is gone"
    assert made.run("stat -c %a /etc/docker/daemon.json") == "640\n"
    with made.docker() as client:
        assert sorted(client.info()["Labels"]) == ["provider=generic", "rack=7", "zone=b"]
    with pytest.raises(ProvisionFailed, match="somebody else has set 'max-concurrent-downloads'") as caught:
        made.provision(engine=Engine(options={"max-concurrent-downloads": 5}))
    assert caught.value.facts["provisioner"] == "daemon"
    assert caught.value.facts["os"] == "Debian GNU/Linux 12 (bookworm)"


def test_what_docker_refuses_is_told_in_its_own_words(made: Host, rounds: Callable[[int, int], int]) -> None:
    if not rounds(1, 0):
        pytest.skip("our init waits half a minute for a daemon that does not come: in the long proofs")
    with pytest.raises(ProvisionFailed) as caught:
        made.provision(engine=Engine(options={"no-such-option": True}))
    assert "no-such-option" in str(caught.value)
    changed = made.provision()
    assert "started Docker" in changed
    works(made)
    assert made.provision() == []


def test_new_certificates_are_answered_with(made: Host) -> None:
    """Half a run, as it were: the files are there, and nobody has restarted the daemon."""
    made.provision()
    authority = Authority.ensure(made.record.store / "another")
    pair = authority.issue_server(name=made.record.name, hosts=[made.address.ip])
    authority.copy_client(made.certs)
    made.wanted = replace(
        made.wanted,
        files={
            "/etc/docker/ca.pem": SeedFile(authority.ca),
            "/etc/docker/server.pem": SeedFile(pair.cert),
            "/etc/docker/server-key.pem": SeedFile(pair.key, 0o600),
        },
    )
    known = probe(made.connection)
    certificates = made.registry.provisioners()[1]
    assert certificates.name == "certificates"
    assert len(certificates.provision(made.connection, known, made.wanted, tell=made.told.append)) == 3
    assert made.provision() == ["restarted Docker"]
    works(made)


def test_upgrade_moves_the_engine(made: Host, bookworm: Repository, tmp_path: Path) -> None:
    assert made.upgrade() == [], "there is nothing newer"
    (original,) = bookworm.directories[0].glob("docker.io_*.deb")
    package, version = plain.newer(original, tmp_path, mark="/usr/share/docker.io/newer")
    (tmp_path / "Packages").write_text(plain.entry(package))
    bookworm.directories.append(tmp_path)
    try:
        changed = made.upgrade()
        before = version.removesuffix("+newer1")
        assert changed[0] == f"upgraded docker.io: {before} → {version}"
        assert made.text("/usr/share/docker.io/newer") == "newer\n"
        works(made)
        assert made.upgrade() == []
    finally:
        bookworm.directories.remove(tmp_path)


def test_who_may_not_is_told(make: Make, elsewhere: Host) -> None:
    connection = elsewhere.user("nobody-special")
    try:
        with pytest.raises(ProvisionFailed, match="not root and has no sudo without a password") as caught:
            elsewhere.registry.provision(connection, elsewhere.wanted, tell=elsewhere.told.append)
        assert "password" in str(caught.value.facts["sudo said"])
    finally:
        connection.close()


@pytest.fixture(scope="module")
def elsewhere(make: Make, bookworm: Repository) -> Host:
    host = make()
    host.sources(bookworm.url)
    return host


def test_by_command_with_a_script_as_a_user_with_sudo(elsewhere: Host, bookworm: Repository, tmp_path: Path) -> None:
    """The script is fetched in the machine; all that is written belongs to root."""
    elsewhere.run("echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin")
    (tmp_path / "install.sh").write_text(
        "#!/bin/sh\nset -e\nid -u >/root/whose\napt-get -q update\n"
        "apt-get -q -y --no-install-recommends -o Dpkg::Options::=--force-confold install docker.io\n"
    )
    elsewhere.user("admin").close()
    # Whose shell greets whoever logs in: that is no answer of the machine's.
    elsewhere.run("usermod -s /bin/bash admin && echo 'echo Welcome, admin!' >/home/admin/.bashrc")
    storage = tmp_path / "storage"

    def program(*words: str) -> str:
        environment = {**os.environ, "MACHINE_STORAGE_PATH": str(storage)}
        argv = [sys.executable, "-m", "pytest_machine", *words]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    where = [f"--generic-ip-address={elsewhere.address.ip}", f"--generic-ssh-key={elsewhere.key}"]
    bookworm.directories.append(tmp_path)
    try:
        said = program("create", "-d", "generic", *where, "--generic-ssh-user=admin", "--engine-label=zone=a",
                       f"--engine-install-url={bookworm.url}/install.sh", "mine")  # fmt: skip
    finally:
        bookworm.directories.remove(tmp_path)
    assert "running the script that installs Docker" in said
    assert elsewhere.text("/root/whose") == "0\n"
    assert elsewhere.run("find /etc/docker ! -user root") == ""
    mine = replace(elsewhere, certs=storage / "machines/mine")
    works(mine)
    with mine.docker() as client:
        assert sorted(client.info()["Labels"]) == ["provider=generic", "zone=a"]
    assert "Nothing to change" in program("provision", "mine")
    assert "newest release already" in program("upgrade", "mine")
    program("rm", "-y", "mine")
    assert "zone=a" in elsewhere.run("docker info"), "it is let go as it is"


def test_a_newborn_machine_is_what_provisioning_would_make_of_it(lab: Lab) -> None:
    settings = Engine(labels={"zone": "a"}, options={"log-driver": "local"}, env={"NO_PROXY": "it's mine"})
    (machine,) = lab.create(Spec(driver="runc", engine=settings))
    daemon = machine.run("pidof", "dockerd").stdout
    assert sorted(machine.docker.info()["Labels"]) == ["provider=runc", "zone=a"]
    for _ in range(2):
        assert machine.provision() == []
    assert machine.run("pidof", "dockerd").stdout == daemon
    # The label is nobody's setting.
    noted = {"options": {"labels": ["zone=a"], "log-driver": "local"}, "env": ["NO_PROXY"]}
    assert machine.record.engine == noted
    assert read(machine.record.directory) == settings
    # Nor is it taken for what it was at birth when something of it is replaced.
    (second,) = lab.create(Spec(driver="runc"))
    daemon = second.run("pidof", "dockerd").stdout
    assert second.regenerate_certs()[-1] == "restarted Docker"
    assert second.run("pidof", "dockerd").stdout != daemon
    assert second.provision() == []


# Takes the lock as another apt would, says so, and gives it back at the end of its input; perl is in every Debian.
_LOCK = """
use Fcntl; $| = 1;
for my $path (split /,/, $ARGV[0]) {
    open(my $file, ">>", $path) or die "$path: $!"; push @files, $file;
    my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);
    fcntl($file, F_SETLK, $lock) or die "$path: $!";
}
print "held\n"; <STDIN>;
"""
_LOCKS = "/var/lib/dpkg/lock-frontend,/var/lib/apt/lists/lock"
_WAITING = "waiting for another program, which is at work on the machine's packages"


@contextmanager
def another_apt(host: Host) -> Iterator[Callable[[str], None]]:
    """Hold the locks until what is given is told that they are waited for."""
    argv = [*host.connection.argv, f"perl -e {shlex.quote(_LOCK)} {_LOCKS}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin
        assert holder.stdout
        let_go = holder.stdin.close

        def tell(text: str) -> None:
            host.told.append(text)
            if text == _WAITING:
                let_go()

        try:
            assert holder.stdout.readline() == "held\n"
            yield tell
        finally:
            let_go()


# What a user's process would do, that can be killed at any moment.
_ALONE = """
import pickle, sys
from pytest_machine.plugins import Registry
from pytest_machine.ssh import SshConnection
address, key, known_hosts, wanted = pickle.load(sys.stdin.buffer)
Registry().provision(SshConnection(address, key=key, known_hosts=known_hosts), wanted, tell=print)
"""


def test_locks_bad_mirrors_and_a_killed_run(
    make: Make, bookworm: Repository, rounds: Callable[[int, int], int]
) -> None:
    """Killed while packages are unpacked; begun again while another apt has the locks, and from a mirror that fails."""
    for number in range(rounds(8, 1)):
        host = make()
        host.sources(bookworm.url)
        unpacking = "test -e /usr/sbin/dockerd.dpkg-new || test -e /usr/sbin/dockerd"
        with subprocess.Popen(
            [sys.executable, "-c", _ALONE], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as process:
            assert process.stdin
            known_hosts = host.record.directory / "known_hosts"
            pickle.dump((host.address, host.key, known_hosts, host.wanted), process.stdin)
            process.stdin.close()
            until = time.monotonic() + 60
            while host.connection.run("sh", "-c", unpacking, check=False).returncode and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(number / 4)
            process.kill()
        # The network goes with it: so do the commands that ran through it.
        host.run("pkill -KILL -x apt-get; pkill -KILL -x dpkg; pkill -KILL -x dpkg-deb; :")
        assert host.connection.run("test", "-e", "/etc/docker/.pytest-machine.installing", check=False).returncode == 0
        bookworm.broken = 2
        with another_apt(host) as tell:
            changed = host.registry.provision(host.connection, host.wanted, tell=tell)
        assert bookworm.broken == 0
        assert host.told.count(_WAITING) >= 1
        assert any(line.startswith("installed Docker") for line in changed)
        assert host.run("dpkg --audit") == ""
        works(host)
        assert host.provision() == []


@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_other_releases(suite: str, make: Make, gateway: str, rounds: Callable[[int, int], int]) -> None:
    if not rounds(1, 0):
        pytest.skip("another release's image and packages take minutes: in the long proofs")
    with Repository(plain.packages(suite)).served(gateway) as served:
        host = make(suite, labels={"zone": "a"})
        host.sources(served.url)
        changed = host.provision()
        assert any(line.startswith("installed Docker") for line in changed)
        with host.docker() as client:
            assert sorted(client.info()["Labels"]) == ["provider=generic", "zone=a"]
        works(host)
        assert host.provision() == []
        assert host.upgrade() == []
        with pytest.raises(ProvisionFailed, match="Docker would not take its settings") as caught:
            host.provision(engine=Engine(options={"no-such-option": True}))
        assert "no-such-option" in str(caught.value)
        works(host)
        assert host.provision() == [], "nothing was written"
