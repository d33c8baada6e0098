"""Nobody's machines: whatever is killed, and whenever, nothing stays; and what has an owner is not touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine import reaper, verdict
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import UnknownMachine
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Record, State, new_id
from pytest_machine.owner import Run, host_id
from pytest_machine.plugins import Registry
from pytest_machine.store import Store
from pytest_machine.testing.host import census, host_leftovers
from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS, alone
from tests.real.asked import spec

pytestmark = alone

DRIVERS_OWN = (Path("/var/lib/pytest-machine/runc"), Path("/run/pytest-machine/runc"))

# Makes two machines of a run and waits to be killed. Prints the run's directory and its reaper's pid, then each name.
OWNER = """
import sys, time
from pytest_machine import reaper, verdict
from pytest_machine.lab import Lab
from pytest_machine.model import Spec
from pytest_machine.owner import Run, host_id
from pytest_machine.plugins import Registry
run = Run.begin()
registry = Registry()
reaper.watch(run, registry=registry)
print(run.directory, flush=True)
lab = Lab(store=run.store, registry=registry, run=run.id)
lab.create(*(Spec(name=name, driver="runc", networks=("front",)) for name in sys.argv[1:]))
print(*(machine.id for machine in lab), flush=True)
time.sleep(600)
"""


def _left(*ids: str) -> set[str]:
    """Return what this host has of those machines, by its own tools; other machines may come and go meanwhile."""
    return {thing for thing in host_leftovers(*DRIVERS_OWN) if any(id_ in thing for id_ in ids)}


def _nothing_left(*ids: str) -> None:
    if left := _left(*ids):
        raise NotYet(f"{len(left)} things, such as {min(left)}")


def _tagged() -> set[str]:
    folder = DRIVERS_OWN[0] / "machines"
    return set(os.listdir(folder)) if folder.exists() else set()  # noqa: PTH208  # names are all that is wanted


@pytest.fixture(autouse=True)
def own_home(home: Path, usable: None) -> Path:
    return home


@pytest.fixture
def owner(own_home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a process which owns machines; all are ended afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(*names: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", OWNER, *names]
        started.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    reaper.prune(Registry())


def _line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the owner ended"
    return line.split()


def _reaper_of(directory: Path) -> int:
    words = ["pytest_machine.reaper", str(directory)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if argv[2:4] == words or argv[-3:-1] == words:
            return int(process.name)
    raise NotYet("no reaper yet")


Owner = Callable[..., "subprocess.Popen[str]"]


def test_the_machines_of_a_killed_run_are_gone_within_seconds(owner: Owner) -> None:
    process = owner("a", "b")
    (directory,) = _line(process)
    ids = _line(process)
    assert len(_left(*ids)) > 10
    process.kill()
    began = time.monotonic()
    wait(lambda: _nothing_left(*ids), "The end of what was left", timeout=20 * SLOWNESS)
    wait(lambda: _gone(Path(directory)), "The end of the run's directory", timeout=20 * SLOWNESS)
    assert time.monotonic() - began < 15 * SLOWNESS


def _gone(path: Path) -> None:
    if path.exists():
        raise NotYet(f"{path} is there")


@pytest.mark.parametrize("store", ["kept", "deleted"])
def test_prune_finds_what_run_and_reaper_left(owner: Owner, store: str) -> None:
    process = owner("a", "b")
    directory = Path(_line(process)[0])
    ids = _line(process)
    os.kill(wait(lambda: _reaper_of(directory), "The reaper", timeout=10 * SLOWNESS), signal.SIGKILL)
    registry = Registry()
    # As long as it lives, it is the owner's.
    assert not {found.id for found in reaper.prune(registry) if found.doomed} & set(ids)
    process.kill()
    process.wait()
    if store == "deleted":
        subprocess.run(["rm", "-rf", str(directory)], check=True)
    looked = {found.id: found for found in reaper.prune(registry, destroy=False) if found.kind == "machine"}
    assert all(looked[id_].doomed for id_ in ids)
    assert len(_left(*ids)) > 10
    found = {each.id: each for each in reaper.prune(registry)}
    assert [found[id_].error for id_ in ids] == ["", ""]
    assert any(each.kind == "network" for each in found.values())
    assert _left(*ids) == set()
    assert not directory.exists()
    assert not {each.id for each in reaper.prune(registry)} & set(ids)


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.3, 0.6])
def test_what_was_half_made_goes(owner: Owner, after: float) -> None:
    """Killed in the middle of `create`, run and reaper both, so that `prune` must find it by its tags."""
    process = owner("half")
    directory = Path(_line(process)[0])
    reapers = wait(lambda: _reaper_of(directory), "The reaper", timeout=10 * SLOWNESS)
    os.kill(reapers, signal.SIGKILL)
    noted = directory / "store" / "machines" / "half" / "pytest-machine.json"
    wait(lambda: _there(noted), "The first of the machine", timeout=20 * SLOWNESS, every=0.001, longest=0.001)
    time.sleep(after)
    process.kill()
    process.wait()
    made = {found.id for found in reaper.prune(Registry(), destroy=False) if found.doomed and found.kind == "machine"}
    assert made
    errors = [found.error for found in reaper.prune(Registry()) if found.id in made]
    assert errors
    assert not any(errors)
    assert _left(*made) == set()


def _there(path: Path) -> None:
    if not path.exists():
        raise NotYet(f"no {path}")


def test_machines_of_the_command_line_have_no_owner(tmp_path: Path) -> None:
    store, registry = Store(tmp_path / "store"), Registry()
    with Machine.create(spec("mine"), store=store, registry=registry) as machine:
        (found,) = [each for each in reaper.prune(registry) if each.id == machine.id]
        assert not found.doomed
        assert machine.state is State.RUNNING
        assert machine.docker.ping()
        # Nor when it is stopped.
        machine.stop()
        reaper.prune(registry)
        machine.start()
        assert machine.docker.ping()
        id_ = machine.id
    assert _left(id_) == set()
    with pytest.raises(UnknownMachine):
        store.load("mine")


def test_one_of_the_command_line_that_was_half_made_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from pathlib import Path; from pytest_machine import engine\n"
        "from pytest_machine.machine import Machine\n"
        "from pytest_machine.model import Spec; from pytest_machine.plugins import Registry\n"
        "from pytest_machine.store import Store\n"
        # It is not done before we have looked, however long that takes.
        "def never(*_, **__): raise OSError('no answer')\n"
        "engine.ping = never\n"
        "spec = Spec(name='half', driver='runc', timeout=600)\n"
        "Machine.create(spec, store=Store(Path(sys.argv[1])), registry=Registry())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store")])
    registry = Registry()
    monkeypatch.setattr(verdict, "_NEWBORN", verdict._NEWBORN * SLOWNESS)
    try:
        planned = tmp_path / "store" / "machines" / "half" / "server.pem"
        wait(lambda: _there(planned), "The machine's birth", timeout=20 * SLOWNESS, every=0.001, longest=0.001)
        # Somebody is still at it.
        assert not any(found.doomed for found in reaper.prune(registry) if found.name == "half")
    finally:
        process.kill()
        process.wait()
    (found,) = [found for found in reaper.prune(registry) if found.name == "half"]
    assert not found.doomed, "one that began a moment ago may not have come to its lock yet"
    monkeypatch.setattr(verdict, "_NEWBORN", 0.0)
    (found,) = [found for found in reaper.prune(registry) if found.name == "half"]
    assert (found.doomed, found.error) == (True, "")
    assert _left(found.id) == set()
    assert Store(tmp_path / "store").names() == []


def test_as_before_after_many(rounds: Callable[[int, int], int], own_home: Path) -> None:
    """No more links, namespaces, mounts, rules, cgroups, processes and files than before; all of this host's."""
    registry, run = Registry(), Run.begin()

    def some(count: int) -> None:
        with Lab(store=run.lab_store(new_id()), registry=registry, run=run.id) as lab:
            lab.create(
                *(
                    spec(f"m{n}", networks=("front",) if n % 2 else (), disk="64m" if n % 3 else None)
                    for n in range(count)
                )
            )
            lab[0].run("true")

    def looked() -> dict[str, int]:
        if _tagged():
            pytest.skip("somebody else makes machines on this host")
        return census(*DRIVERS_OWN, run.directory / "owners")

    def still() -> dict[str, int]:
        first = looked()
        time.sleep(2)
        if first != (second := looked()):
            raise NotYet(f"{first}, and then {second}")
        return second

    looked()
    some(1)  # what is made once and stays, such as lock files and an ssh directory
    before = wait(still, "Two looks at this host that agree", timeout=60 * SLOWNESS)
    for _ in range(rounds(200, 12) // 4):
        some(4)

    def settled() -> None:
        now = looked()
        # What is less has gone with somebody who was at his end before us.
        if more := {kind: (count, now[kind]) for kind, count in before.items() if now[kind] > count}:
            raise NotYet(f"before and now: {more}")

    # Masters of ssh and dead processes' groups take a moment to go.
    wait(settled, "This host as it was", timeout=45 * SLOWNESS, longest=2)
    run.end()
    assert not run.directory.exists()


def test_a_runc_that_is_still_at_work_for_a_killed_owner_is_ended() -> None:
    """What it makes when its machine has been destroyed, nobody would find."""
    mine, other = new_id(), new_id()
    # Shells under runc's name, which wait to be told something: nobody but the kernel knows better.
    started = {
        id_: subprocess.Popen(
            ["runc", "-c", "read word", "run", "--detach", id_], executable="/bin/sh", stdin=subprocess.PIPE
        )
        for id_ in (mine, other)
    }
    record = Record(id=mine, name="web", driver="runc", store=Path("/nowhere"), host=host_id(), created=1.0)
    try:
        RuncDriver().destroy(record)
        assert started[mine].wait(10) == -signal.SIGKILL
        assert started[other].poll() is None
    finally:
        for process in started.values():
            process.kill()
            process.communicate()
