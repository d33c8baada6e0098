"""Kills test runs at random moments and looks, with the host's own tools, what is left of them ten seconds later.

Run on a host of its own (see `private`): ``python -m tests.real.chaos SEED MOMENTS DIRECTORY``. Every round is drawn
from the seed and its own number, so one that failed is played again with ``SEED MOMENTS DIRECTORY NUMBER``. The moment
alone decides what the kernel was doing, so that a replay is the same signal at the same time, not the same race.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_machine.testing import census, host_leftovers
from tests.conftest import SLOWNESS

STATE, RUN = Path("/var/lib/pytest-machine"), Path("/run/pytest-machine")
ALLOWED = 10.0 * SLOWNESS
"""Seconds after the signal, or after the end of a run that goes on, until nothing may be left."""
COUNTED = ("links", "namespaces", "mounts", "nft rules", "runc containers", "processes")

SUITE = """
import pytest

def test_alone(machine):
    assert machine.docker.ping()

@pytest.mark.machine("web", networks=["front"])
@pytest.mark.machine("db", networks=["front"])
def test_lab(lab):
    lab["web"].run("ping", "-c", "1", "-W", "5", "db")

def test_shared(module_machine):
    assert module_machine.docker.ping()

def test_shared_and_own(module_machine, machine):
    assert machine.docker.ping()
"""


@dataclass(frozen=True, slots=True)
class Round:
    """What is done to one run."""

    number: int
    xdist: bool
    signal: str
    target: str
    """``run``: the process that was started; ``group``: as a terminal does; ``worker`` or ``reaper``: one of these."""
    twice: float
    """Seconds until the signal comes again; 0: it does not."""
    share: float
    """When, as a share of the time that such a run takes undisturbed; a little more than 1 is after its end."""


def drawn(seed: int, number: int) -> Round:
    """Return a round: every signal with and without workers in turn, the rest at random."""
    dice = random.Random(f"{seed}-{number}")
    name = ("SIGINT", "SIGTERM", "SIGKILL")[number % 3]
    xdist = number // 3 % 2 == 1
    targets = ["run", "run", "group"]
    if name == "SIGKILL":
        targets += ["worker", "reaper"] if xdist else ["reaper"]
    twice = dice.uniform(0.02, 1.0) if name == "SIGINT" and dice.random() < 0.5 else 0.0
    return Round(number, xdist, name, dice.choice(targets), twice, dice.uniform(0.0, 1.05))


class Chaos:
    """Plays rounds in a directory."""

    modes: tuple[bool, ...] = (False, True)
    """With and without workers of pytest-xdist."""

    def __init__(self, directory: Path) -> None:
        # What the host's own machines had when this host was made of it: mounts that lie hidden here.
        self.inherited = host_leftovers(STATE, RUN)
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        (directory / "test_it.py").write_text(SUITE)
        (directory / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:hypothesispytest\n")
        self.ids: set[str] = set()
        # The first run leaves what stays for good: lock files, the ledger, the firewall's own chains.
        self.length = {xdist: self.undisturbed(xdist=xdist) for xdist in self.modes}
        self.settle()
        self.before = {kind: count for kind, count in census().items() if kind in COUNTED}

    def start(self, *, xdist: bool, log: Path) -> subprocess.Popen[bytes]:
        """Start a run as the leader of a group of its own, as a shell does."""
        argv = [sys.executable, "-m", "pytest", "--machine-driver=runc", *(["-n", "2"] if xdist else []), "test_it.py"]
        with log.open("wb") as out:
            return subprocess.Popen(
                argv,
                cwd=self.directory,
                # SSH's sockets go where the oracle looks.
                env={**os.environ, "PYTEST_MACHINE_HOME": str(self.home), "XDG_RUNTIME_DIR": str(RUN)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=0,
            )

    def undisturbed(self, *, xdist: bool) -> float:
        """Return the seconds that a run takes when nobody disturbs it."""
        begun = time.monotonic()
        log = self.directory / f"undisturbed-{xdist}.log"
        if self.start(xdist=xdist, log=log).wait(120 * SLOWNESS):
            raise RuntimeError(log.read_text())
        return time.monotonic() - begun

    def play(self, this: Round) -> dict[str, object]:
        """Play a round; return what came of it: ``left`` is empty when it went well."""
        log = self.directory / f"round-{this.number}.log"
        with self.watched():
            process = self.start(xdist=this.xdist, log=log)
            time.sleep(this.share * self.length[this.xdist])
            done = self.strike(this, process)
            begun = time.monotonic()
            if this.twice and process.poll() is None:
                time.sleep(this.twice)
                self.strike(this, process)
            goes_on = this.target in ("worker", "reaper")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60 if goes_on else ALLOWED)
            ended = time.monotonic()
            deadline = (ended if goes_on else begun) + ALLOWED
            while (left := self.left()) and time.monotonic() < deadline:
                time.sleep(0.1)
        took = time.monotonic() - begun
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if left:
            self.rescue()
        return {
            **asdict(this),
            "at": round(this.share * self.length[this.xdist], 2),
            "struck": done,
            "exit": process.returncode,
            "ended": round(ended - begun, 2),
            "clean": round(took, 2),
            "machines": len(self.ids),
            "left": sorted(left),
            "soup": soup(log),
        }

    def strike(self, this: Round, process: subprocess.Popen[bytes]) -> bool:
        """Send the signal; return whether there was somebody to get it."""
        number = signal.Signals[this.signal]
        if this.target == "group":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
                return True
            return False
        pids = [process.pid] if this.target == "run" and process.poll() is None else []
        if this.target == "worker":
            pids = children(process.pid)[:1]
        if this.target == "reaper":
            pids = called("pytest_machine.reaper")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(pids)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Note the id of every machine that has a tag in the meantime: control groups are known by nothing else."""
        self.ids = set()
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.003):
                with contextlib.suppress(FileNotFoundError):
                    self.ids |= {path.name for path in (STATE / "runc/machines").iterdir()}

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def left(self) -> set[str]:
        """Return what there is of the run now."""
        found = {thing for thing in host_leftovers(STATE, RUN, self.home) if not self.stays(thing)}
        return found | self.counted()

    def counted(self) -> set[str]:
        """Return which kinds of things are more than there were before, whosever they are."""
        now = census() if hasattr(self, "before") else {}
        return {
            f"count: {now[kind]} {kind}, not {count}"
            for kind, count in getattr(self, "before", {}).items()
            if now[kind] > count
        }

    def stays(self, thing: str) -> bool:
        """Return whether it is there between runs too."""
        if thing in self.inherited:
            return True
        kind, _, text = thing.partition(": ")
        if kind in ("cgroup", "loop device"):  # these are the whole computer's, whoever made them
            return not any(id_ in text for id_ in self.ids)
        if kind == "file":
            folders = (
                STATE / "runc",
                STATE / "runc/machines",
                RUN / "runc",
                RUN / "runc/state",
                RUN / "runc/machines",
                RUN / f"ptm-{os.getuid()}",
                self.home / "runs",
                self.home / "memory",
                self.home / "memory/busy",
                self.home / "memory/.lock",
            )
            if self.home / "memory" in Path(text).parents:
                return Path(text) in folders
            return text.endswith((".lock", "ledger.json")) or Path(text) in folders or self.empty_run(Path(text))
        return kind == "mount" and text.startswith("private on /")

    def empty_run(self, path: Path) -> bool:
        """Return whether it belongs to a run that ended before it wanted a machine: the next run removes that."""
        if self.home / "runs" not in path.parents:
            return False
        directory = self.home / "runs" / path.relative_to(self.home / "runs").parts[0]
        with contextlib.suppress(FileNotFoundError):
            return {each.name for each in directory.iterdir()} <= {"owners", "over", "called-off"}
        return True

    def settle(self) -> None:
        """Wait until nothing is left of the runs before."""
        end = time.monotonic() + 20 * SLOWNESS
        while left := self.left():
            if time.monotonic() > end:
                raise RuntimeError(f"an undisturbed run leaves {sorted(left)}")
            time.sleep(0.1)

    def rescue(self) -> None:
        """Clear up after a round that left something, so that the next one is judged by itself."""
        for pid in called("pytest"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            subprocess.run(
                [sys.executable, "-m", "pytest_machine", "prune", "--all"],
                env={**os.environ, "PYTEST_MACHINE_HOME": str(self.home), "XDG_RUNTIME_DIR": str(RUN)},
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        shutil.rmtree(self.home / "runs", ignore_errors=True)


def soup(log: Path) -> list[str]:
    """Return what no user should read: words of threads that died, and of an interpreter that was surprised."""
    text = log.read_text(errors="replace")
    words = ("Exception in thread", "Exception ignored", "Fatal Python error", "PytestUnhandledThread", "INTERNALERROR")
    # pytest's, over a Ctrl-C in its last steps; and Python's own, over one in its first.
    theirs = ("Exception ignored in: <generator object CaptureManager.", "Fatal Python error: init_import_site")
    lines = [line for line in text.splitlines() if not any(each in line for each in theirs)]
    return [line for line in lines if any(word in line for word in words)]


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def called(word: str) -> list[int]:
    """Return the processes in whose command line that word is, but for this one and its shell."""
    lines = subprocess.run(["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    found = (line.split(None, 1) for line in lines.splitlines())
    return [int(pid) for pid, args in found if word in args and "-m tests.real." not in args and "ps -eww" not in args]


def main() -> None:
    """Play the rounds, a line of JSON each."""
    # Whoever is started in the background by a shell ignores Ctrl-C, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed, moments, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    chaos = Chaos(directory)
    print(json.dumps({"undisturbed": [round(seconds, 2) for seconds in chaos.length.values()]}), flush=True)
    for number in [int(sys.argv[4])] if len(sys.argv) > 4 else range(moments):
        print(json.dumps(chaos.play(drawn(seed, number))), flush=True)


if __name__ == "__main__":
    main()
