"""How long the program takes: what shells call at every prompt, and lists of many machines."""

from __future__ import annotations

import contextlib
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
from tests.conftest import FULL

from .conftest import Program


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

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        for each in held:
            each.close()
        if os.name != "nt":
            server.shutdown(socket.SHUT_RDWR)


@pytest.mark.skipif(os.name == "nt", reason="there is no getrusage")
@pytest.mark.parametrize("argv", [["env", "--shell", "sh"], ["ip"], ["url"]])
def test_process_time(
    program: Program, note: Callable[..., None], rounds: Callable[[int, int], int], argv: list[str]
) -> None:
    """150 ms of the processor's time, the interpreter's start included; the least of many counts.

    A busy processor counts up to twice as much, so that by default it is held against what click takes alone.
    """
    program.make("fake")
    fake = program.store.load("fake")
    assert fake.address is not None
    note("default", port=fake.address.engine_port)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(fake.directory / name, program.store.path / "machines" / "default" / name)
    # Without the test's own driver, which is a stranger's package.
    environ = {**program.environ, "PYTHONPATH": program.environ["PYTHONPATH"].split(os.pathsep)[0]}

    def took(*argv: str) -> float:
        before = _spent()
        subprocess.run([sys.executable, *argv], env=environ, stdout=subprocess.DEVNULL, check=True)
        return _spent() - before

    ours, alone = [], []
    for _ in range(rounds(40, 15)):
        ours.append(took("-m", "pytest_machine", *argv))
        alone.append(took("-c", "import click"))
        if min(ours) <= (0.15 if FULL else 3 * min(alone)):
            return
    raise AssertionError(f"{min(ours) * 1000:.0f} ms at least, of which click takes {min(alone) * 1000:.0f}")


def _spent() -> float:
    """Return how many seconds of the processor's time the processes took that this one waited for."""
    return os.times().children_user + os.times().children_system


def test_a_list_of_many(program: Program, note: Callable[..., None]) -> None:
    """20 machines take at most twice as long as one: as processes, as people have it."""

    def took(count: int) -> float:
        seconds = []
        for _ in range(2):
            begun = time.monotonic()
            said = program("ls")
            seconds.append(time.monotonic() - begun)
            assert len(said.out.splitlines()) == count + 1
        return min(seconds)

    note("m0")
    one = took(1)
    note(*(f"m{number}" for number in range(1, 20)))
    assert took(20) <= 2 * one


def test_a_hundred_do_not_wait_for_the_slow_ones(program: Program, note: Callable[..., None], snail: int) -> None:
    note(*(f"m{number}" for number in range(95)))
    note(*(f"slow{number}" for number in range(5)), port=snail)
    begun = time.monotonic()
    said = program.here("ls", "-t", "2")
    assert time.monotonic() - begun < 2 + 2  # and what a hundred threads take on a busy computer
    rows = {line.split()[0]: line.split()[3] for line in said.out.splitlines()[1:]}
    assert len(rows) == 100
    assert rows["m7"] == "Running"
    assert list(rows)[:3] == ["m0", "m1", "m2"]
