"""A plain Debian becomes a Docker host over SSH: real machines without Docker, packages from a repository of ours."""

from __future__ import annotations

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
from pytest_machine.driver import Driver, SupportsReserve
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

    def provision(self, **changes: object) -> list[str]:
        return self.registry.provision(self.connection, replace(self.wanted, **changes), tell=self.told.append)  # type: ignore[arg-type]

    def upgrade(self) -> list[str]:
        return self.registry.upgrade(self.connection, self.wanted, tell=self.told.append)

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


def test_from_nothing_to_docker_run(make: Make, bookworm: Repository) -> None:
    host = make(labels={"zone": "a"}, env={"NO_PROXY": "192.0.2.9"}, registry_mirror=("http://192.0.2.1:5000/",))
    host.sources(bookworm.url)
    changed = host.provision()
    print(*changed, *host.told, sep="\n")
    assert any(line.startswith("installed Docker 20.10") for line in changed)
    with host.docker() as client:
        info = client.info()
        assert sorted(info["Labels"]) == ["provider=generic", "zone=a"]
        assert info["RegistryConfig"]["Mirrors"] == ["http://192.0.2.1:5000/"]
        assert info["NoProxy"] == "192.0.2.9"
        assert info["Name"] == host.record.name
        client.api.import_image_from_data(busybox_archive(), repository="busybox", tag="latest")
        assert client.containers.run("busybox:latest", ["echo", "hi"], remove=True) == b"hi\n"
    assert host.provision() == []
