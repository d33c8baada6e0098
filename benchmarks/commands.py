"""What the command line costs: processor time of what shells call at every prompt, and lists of many machines.

``python benchmarks/commands.py [--rounds 15]`` prints medians beside their bounds; nothing is asserted. Machines are of
the driver ``none``, whose engine is one of the in-memory driver's: it answers over TLS, and nothing else is measured.
As on any Unix.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_machine.errors import DriverUnavailable
from pytest_machine.machine import Machine
from pytest_machine.model import Record, Spec, new_id
from pytest_machine.plugins import Registry
from pytest_machine.store import Store
from pytest_machine.testing.fake import FakeDriver


class _Added:
    @staticmethod
    def pytest_machine_drivers() -> list[type[FakeDriver]]:
        return [FakeDriver]


def note(store: Store, name: str, engine: Machine) -> None:
    """Note a machine whose engine is that one."""
    url = engine.url
    record = Record(
        id=new_id(), name=name, driver="none", options={"url": url}, store=store.path, host="here", created=time.time(),
        ready=time.time(), address=engine.address,
    )  # fmt: skip
    store.add(record)
    for file in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(engine.record.directory / file, store.path / "machines" / name / file)


def spent(environ: dict[str, str], *argv: str) -> tuple[float, float]:
    """Return processor time and time of a process, in seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, *argv], env=environ, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - begun


def against_click(environ: dict[str, str], rounds: int, *argv: str) -> tuple[float, float]:
    """Return what a command takes, and what to import click takes, turn by turn: medians, in ms of processor time."""
    program, click = ("-m", "pytest_machine", *argv), ("-c", "import click")
    for each in (program, click):
        spent(environ, *each)  # compiled once, as a user has it
    pairs = [(spent(environ, *program)[0], spent(environ, *click)[0]) for _ in range(rounds)]
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours) * 1000, statistics.median(theirs) * 1000


def measure(rounds: int, folder: Path) -> None:
    """Print a line for each command."""
    store = Store(folder / "store")
    # As a user has it: compiled once, whatever the environment here says of that.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"MACHINE_STORAGE_PATH": str(store.path), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    spec = Spec(name="engine", driver="fake", options={"directory": str(folder / "fake")})
    with contextlib.suppress(DriverUnavailable):
        # As most have it: a machine of the local driver, whose state is this host's own to tell.
        local = Spec(name="local", driver="runc")
        with Machine.create(local, store=store, registry=Registry()) as machine:
            for words in (("env", "--shell", "sh"), ("ip",), ("url",)):
                ours, click = against_click(environ, rounds, *words, machine.name)
                print(
                    f"{words[0]} (runc){'':<10} {ours:6.0f} ms  (≤ 150; 'import click' alone: {click:.0f} ms)",
                    flush=True,
                )
    with Machine.create(spec, store=Store(folder / "other"), registry=Registry([_Added()])) as engine:
        note(store, "default", engine)
        completion = ("completion", "--at", "2", "--", "docker-machine", "create", "--runc-")
        for argv, bound in ((("env", "--shell", "sh"), 150), (("ip",), 150), (("url",), 150), (completion, 300)):
            ours, click = against_click(environ, rounds, *argv)
            print(f"{argv[0]:<20} {ours:6.0f} ms  (≤ {bound}; 'import click' alone: {click:.0f} ms)", flush=True)
        one = [spent(environ, "-m", "pytest_machine", "ls")[1] for _ in range(rounds)]
        for number in range(1, 20):
            note(store, f"m{number}", engine)
        many = [spent(environ, "-m", "pytest_machine", "ls")[1] for _ in range(rounds)]
        a, b = statistics.median(many), statistics.median(one)
        print(f"ls of 20 ÷ ls of 1   {a / b:6.2f}  {a:.3f} s ÷ {b:.3f} s  (≤ 2)", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pytest-machine-bench-") as name:
        measure(chosen.rounds, Path(name))


if __name__ == "__main__":
    main()
