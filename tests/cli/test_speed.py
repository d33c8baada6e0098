"""How long the program takes: what shells call at every prompt, and lists of many machines."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pytest_machine.model import Address, Record, new_id

from .conftest import Program

# What takes a twentieth of a second and more, and is none of these commands' business.
HEAVY = {"asyncio", "cryptography", "docker", "filelock", "http.client", "pytest", "requests", "rich"} | {
    f"pytest_machine.{module}" for module in ("birth", "images", "lab", "machine", "reaper", "ssh")
}


@pytest.fixture
def note(program: Program) -> Callable[..., None]:
    """Return what notes machines of the driver `none`, whose engine is at a port of this computer."""

    def note(*names: str, port: int = 9) -> None:
        for name in names:
            url = f"tcp://127.0.0.1:{port}"
            address = Address(ip="127.0.0.1", ssh_port=0, engine_port=port, engine=url)
            record = Record(
                id=new_id(), name=name, driver="none", options={"url": url}, store=program.store.path, host="h",
                created=1.0, ready=1.0, address=address,
            )  # fmt: skip
            program.store.add(record)

    return note


@pytest.fixture
def snail() -> Iterator[int]:
    """The port of somebody who listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        held: list[socket.socket] = []
        over = threading.Event()

        def take() -> None:
            while not over.is_set():
                held.append(server.accept()[0])

        taker = threading.Thread(target=take)
        taker.start()
        yield server.getsockname()[1]
        over.set()
        socket.create_connection(server.getsockname()).close()  # a close alone ends no `accept`
        taker.join()
        for each in held:
            each.close()


@pytest.mark.parametrize("argv", [["env", "--shell", "sh"], ["config"], ["ip"], ["url"], ["status"], ["ls", "-q"]])
def test_nothing_heavy_is_imported(program: Program, note: Callable[..., None], argv: list[str]) -> None:
    """What each costs is measured by `benchmarks/commands.py`; this is what would make it slow on any computer."""
    program.make("fake")
    fake = program.store.load("fake")
    assert fake.address is not None
    note("default", port=fake.address.engine_port)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(fake.directory / name, program.store.path / "machines" / "default" / name)
    # Without the test's own driver, which is a stranger's package.
    environ = {**program.environ, "PYTHONPATH": program.environ["PYTHONPATH"].split(os.pathsep)[0]}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pytest_machine", *argv],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pytest_machine.cli" in imported
    assert sorted(imported & HEAVY) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the driver is Linux' own")
def test_nothing_heavy_is_imported_by_the_local_driver(program: Program) -> None:
    address = Address(ip="127.0.0.1")
    record = Record(
        id=new_id(), name="default", driver="runc", options={}, store=program.store.path, host="h", created=1.0,
        ready=1.0, address=address,
    )  # fmt: skip
    program.store.add(record)
    environ = {**program.environ, "PYTHONPATH": program.environ["PYTHONPATH"].split(os.pathsep)[0]}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pytest_machine", "url"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Host is not running\n" in done.stderr, "there never was such a machine"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pytest_machine.drivers.runc.network" in imported
    more = {"concurrent.futures", "ctypes", "logging", "pytest_machine.preloads", "tarfile", "tempfile"}
    assert sorted(imported & ((HEAVY - {"pytest_machine.images"}) | more)) == []


def test_a_hundred_do_not_wait_for_the_slow_ones(program: Program, note: Callable[..., None], snail: int) -> None:
    note(*(f"m{number}" for number in range(95)))
    note(*(f"slow{number}" for number in range(5)), port=snail)
    begun = time.monotonic()
    said = program.here("ls", "-t", "4")
    assert time.monotonic() - begun < 5 * 4, "it waited for one after the other"
    rows = {line.split()[0]: line.split()[3] for line in said.out.splitlines()[1:]}
    assert len(rows) == 100
    assert rows["m7"] == "Running"
    assert list(rows)[:3] == ["m0", "m1", "m2"]
