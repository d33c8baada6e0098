"""What a machine costs, against a bare ``dockerd`` on the same computer in the same run.

``python benchmarks/machines.py [--rounds 10]`` prints a table of medians and their ratios. Nothing is asserted: the
bounds are shown beside the figures. As root, on Linux, with the machine image built.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pytest_machine import Partition, engine, images, preloads
from pytest_machine.lab import Lab
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry
from pytest_machine.store import Store

sys.path.insert(0, str(Path(__file__).parents[1]))  # this is run as a file, and `archives` is beside it
from benchmarks import archives

TREE = images.ensure().path
SPEC = Spec(driver="runc")

# The machine's own engine, so of the same version, on its own file system: programs of another release than this
# computer's may not run on this computer's libraries. In namespaces that hold it as a machine's do, and nothing around
# it. All but the engine is there before the clock starts.
_BARE = """
set -e
mount -t tmpfs layers {home}/layers
mkdir {home}/layers/upper {home}/layers/work {home}/layers/root
root={home}/layers/root
mount -t overlay -o lowerdir={tree},upperdir={home}/layers/upper,workdir={home}/layers/work overlay $root
for each in dev sys; do mount --rbind /$each $root/$each; done
mount -t proc proc $root/proc
mount -t tmpfs run $root/run
mkdir -p $root{home}
mount --bind {home} $root{home}
ip link set lo up
read -r _
exec chroot $root dockerd --data-root {home}/docker --exec-root /run/docker -p /run/docker.pid -H unix://{home}/docker.sock
"""


class Unix(http.client.HTTPConnection):
    """HTTP to a bare engine's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


@contextlib.contextmanager
def bare(home: Path) -> Iterator[Callable[[], float]]:
    """Prepare everything for a bare engine; what is yielded starts it and returns the seconds until its API answers."""
    (home / "layers").mkdir()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                _BARE.format(home=home, tree=TREE),
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    time.sleep(0.2)  # it waits for a line now

    def start() -> float:
        assert process.stdin is not None
        begun = time.perf_counter()
        process.stdin.write(b"\n")
        process.stdin.flush()
        while time.perf_counter() - begun < 120:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = Unix(home / "docker.sock")
                connection.request("GET", "/_ping")
                if connection.getresponse().status == 200:
                    return time.perf_counter() - begun
            time.sleep(0.005)
        raise TimeoutError((home / "log").read_text())

    try:
        yield start
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def time_bare(count: int) -> float:
    """Return the seconds until `count` bare engines, started at once, all answer."""
    with contextlib.ExitStack() as stack:
        starts = []
        for _ in range(count):
            home = Path(tempfile.mkdtemp(prefix="pytest-machine-bare-"))
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            starts.append(stack.enter_context(bare(home)))
        with ThreadPoolExecutor(count) as pool:
            return max(future.result() for future in [pool.submit(start) for start in starts])


def time_machines(count: int, folder: Path) -> tuple[float, float]:
    """Return the seconds to create and to destroy `count` machines at once."""
    lab = Lab(store=Store(folder), registry=Registry())
    begun = time.perf_counter()
    lab.create(*[SPEC] * count)
    ready = time.perf_counter()
    lab.destroy()
    return ready - begun, time.perf_counter() - ready


def time_preload(rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Return the seconds to create a machine that is born with 500 MB of images, and one that is born with none."""
    archive = archives.random(folder / "image.tar", "preloaded:1", megabytes=500, layers=10)
    specs = (replace(SPEC, preload=(str(archive),)), SPEC)
    found: tuple[list[float], list[float]] = ([], [])
    before = {kept.name for kept in preloads.preloads()}
    for number in range(rounds + 1):
        for spec, seconds in zip(specs, found, strict=True):
            with Lab(store=Store(folder / f"preload-{number}"), registry=Registry()) as lab:
                (machine,) = lab.create(spec)
                seconds.append(machine.seconds)
    for kept in preloads.preloads():
        if kept.name not in before:
            preloads.remove(kept)
    return found[0][1:], found[1][1:]  # the first one loads them


def memory(count: int, folder: Path) -> tuple[float, int]:
    """Return the megabytes that each of `count` idle machines takes of the host, and how many answer at once."""
    lab = Lab(store=Store(folder), registry=Registry())
    before = _available()
    try:
        for _ in range(0, count, 10):
            lab.create(*[SPEC] * 10)
        time.sleep(3)
        taken = (before - _available()) / len(lab)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda m: engine.ping(m.address, certs=m.record.directory, timeout=30), lab))
        return taken / 1e6, len(answers)
    finally:
        lab.destroy()


def _available() -> int:
    # What is cached of files is not taken: only what could not be given to somebody else.
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def time_pytest(folder: Path, *arguments: str) -> float:
    """Return the seconds of a pytest run with one test that asks for nothing."""
    test = folder / "test_nothing.py"
    test.write_text("def test_nothing(): pass\n")
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, *arguments, test],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun


_CONFTEST = """
import pathlib

def pytest_runtest_logreport(report):
    with pathlib.Path("durations").open("a") as file:
        print(report.when, report.duration, file=file)
"""
_TEN = """
import pytest, time

@pytest.mark.parametrize("x", range({count}))
@pytest.mark.machine(driver="runc", reuse={reuse!r})
def test_it(machine, x):
    machine.docker.volumes.create("mine")
    time.sleep({pause})
"""


def time_tests(folder: Path, source: str, *arguments: str) -> list[tuple[str, float]]:
    """Run tests; return the phases of all of them and the seconds that each took, in order."""
    folder.mkdir()
    (folder / "conftest.py").write_text(_CONFTEST)
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    subprocess.run([*command, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    lines = (folder / "durations").read_text().split("\n")[:-1]
    return [(when, float(seconds)) for when, seconds in map(str.split, lines)]


def resets(rounds: int, folder: Path) -> None:
    """Compare making a machine as new, whose engine was used, with making a new one."""
    create: list[float] = []
    untouched: list[float] = []
    touched: list[float] = []
    networked: list[float] = []
    removed: list[float] = []
    with Lab(store=Store(folder / "reset"), registry=Registry()) as lab:
        (machine,) = lab.create(SPEC)
        machine.note()
        for number in range(rounds):
            create.append(time_machines(1, folder / f"create-{number}")[0])
            for dirt, network, times in (
                ("true", False, untouched),
                ("touch /etc/mine", True, touched),
                ("true", True, networked),
            ):
                machine.docker.volumes.create("mine")
                if network:
                    machine.docker.networks.create("mine")
                machine.run("sh", "-c", dirt)
                begun = time.perf_counter()
                machine.reset()
                times.append(time.perf_counter() - begun)
            mine = machine.docker.networks.create("mine")
            begun = time.perf_counter()
            mine.remove()
            removed.append(time.perf_counter() - begun)
    show("reset of an untouched host ÷ create", untouched, create, 0.3)
    show("the same with a network in its engine ÷ create", networked, create, 0.3)
    show("  of that, Docker's own removal of the network ÷ create", removed, create, None)
    show("reset of a touched host ÷ create", touched, create, 1.1)


def sharing(rounds: int, folder: Path) -> None:
    """Compare tests on spares and on one machine that is reset with tests on machines of their own."""
    create: list[float] = []
    spare: list[float] = []
    shared: list[float] = []
    fresh: list[float] = []
    for number in range(rounds):
        source = _TEN.format(count=4, reuse="never", pause=3)
        setups = [
            s for when, s in time_tests(folder / f"spares-{number}", source, "--machine-spares=1") if when == "setup"
        ]
        create.append(setups[0])
        spare += setups[1:]
        for reuse, times in (("module", shared), ("never", fresh)):
            source = _TEN.format(count=10, reuse=reuse, pause=0)
            times.append(sum(s for _, s in time_tests(folder / f"{reuse}-{number}", source)))
    show("setup of a test with a spare ÷ setup that creates", spare, create, 0.1)
    show("ten tests on one reset machine ÷ on ten fresh ones", shared, fresh, 0.4)


def main() -> None:
    """Measure, alternating what is compared, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--parallel", type=int, default=20)
    parser.add_argument("--alive", type=int, default=50)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pytest-machine-bench-") as name:
        measure(chosen, Path(name))


def measure(chosen: argparse.Namespace, folder: Path) -> None:
    """Print one line for each comparison."""
    one_bare, create, destroy = [], [], []
    time_bare(1), time_machines(1, folder / "warm")  # the page cache is warm for both from here on
    for number in range(chosen.rounds):
        one_bare.append(time_bare(1))
        made, ended = time_machines(1, folder / f"one-{number}")
        create.append(made)
        destroy.append(ended)
    show("create to first TLS answer ÷ bare dockerd to API", create, one_bare, 1.6)
    show("destroy ÷ create", destroy, create, 0.25)
    resets(chosen.rounds, folder / "resets")
    many_bare, many = [], []
    for number in range(chosen.rounds):
        many_bare.append(time_bare(chosen.parallel))
        many.append(time_machines(chosen.parallel, folder / f"many-{number}")[0])
    show(f"{chosen.parallel} machines ÷ {chosen.parallel} bare dockerds, in parallel", many, many_bare, 1.3)
    with_images, without = time_preload(chosen.rounds, folder)
    show("500 MB of preloaded images ÷ none", with_images, without, 1.2)
    taken, answers = memory(chosen.alive, folder / "alive")
    print(f"{f'memory of an idle machine, {chosen.alive} alive':<58} {taken:5.1f} MB            (≤ 60)", flush=True)
    print(f"{f'of {chosen.alive} alive at once, answering':<58} {answers:5d}", flush=True)
    cuts(chosen.rounds, folder / "cuts")
    swarms(chosen.rounds, folder / "swarms")
    sharing(max(1, chosen.rounds // 3), folder)
    plain, with_ = [], []
    for _ in range(chosen.rounds):
        plain.append(time_pytest(folder, "-p", "no:machine"))
        with_.append(time_pytest(folder))
    cost = (statistics.median(with_) - statistics.median(plain)) * 1000
    print(f"{'plugin on a run without machines':<58} {cost:5.1f} ms            (≤ 30)", flush=True)


def cuts(rounds: int, folder: Path) -> None:
    """Print how long a partition takes to be in force, and to be healed."""
    with Lab(store=Store(folder), registry=Registry()) as lab:
        lab.create(replace(SPEC, name="a"), replace(SPEC, name="b"))
        in_force, healed = [], []
        for _ in range(rounds + 1):
            begun = time.monotonic()
            injection = lab.inject(Partition(["a"], ["b"]))
            cut = time.monotonic()
            injection.heal()
            in_force.append(cut - begun)
            healed.append(time.monotonic() - cut)
    for what, seconds in (
        ("a partition in force", in_force[1:]),
        ("a partition healed", healed[1:]),
    ):  # the first logs in
        print(f"{what:<58} {statistics.median(seconds):5.2f} s             (≤ 0.2)", flush=True)


def swarms(rounds: int, folder: Path) -> None:
    """Compare a Swarm of three, one manager or all, with three machines."""
    plain: list[float] = []
    formed: dict[str, list[float]] = {"a": [], "abc": []}
    for number in range(rounds):
        for managers, times in formed.items():
            with Lab(store=Store(folder / f"{managers}-{number}"), registry=Registry()) as lab:
                begun = time.perf_counter()
                lab.create(*(replace(SPEC, name=name) for name in "abc"))
                plain.append(time.perf_counter() - begun)
                lab.swarm(managers=managers)
                times.append(time.perf_counter() - begun)
    show("a Swarm of three ready ÷ three machines ready", formed["a"], plain, 2)
    show("a Swarm of three managers ready ÷ three machines ready", formed["abc"], plain, 2)


def show(what: str, ours: list[float], theirs: list[float], bound: float | None) -> None:
    """Print one ratio of medians, with what it is made of, and what it may be at most."""
    a, b = statistics.median(ours), statistics.median(theirs)
    allowed = "" if bound is None else f"  (≤ {bound})"
    print(f"{what:<58} {a / b:5.2f}  {a:.3f} s ÷ {b:.3f} s{allowed}", flush=True)


if __name__ == "__main__":
    main()
