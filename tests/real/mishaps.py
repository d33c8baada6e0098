"""What befalls a host: power loss, a deleted store, a full disk. Run on a host of its own (see `private`).

``python -m tests.real.mishaps NAME DIRECTORY`` raises what is wrong, and prints what the runs said.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import SLOWNESS

from .chaos import RUN, STATE, Chaos, called

WAITS = """
import pathlib, pytest, time

@pytest.mark.machine("web", networks=["front"])
@pytest.mark.machine("db", networks=["front"])
def test_it(lab):
    pathlib.Path("up").touch()
    time.sleep(60)
"""
PLAIN = "def test_it(machine): assert machine.docker.ping()\n"


class Host(Chaos):
    """This host, with a suite to run on it."""

    modes = (False,)

    def pytest(self, source: str, *, wait: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a test module to its end, or until it has made the file 'up'."""
        (self.directory / "test_it.py").write_text(source)
        log = self.directory / "run.log"
        process = self.start(xdist=False, log=log)
        if wait:
            process.wait(120 * SLOWNESS)
        while not wait and not (self.directory / "up").exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        text = log.read_text()
        print(text)
        return subprocess.CompletedProcess([], process.returncode if wait else process.pid, text)

    def prune(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `pytest-machine prune`."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest_machine", "prune", *arguments],
            env={**os.environ, "PYTEST_MACHINE_HOME": str(self.home), "XDG_RUNTIME_DIR": str(RUN)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        print(done.stdout)
        return done

    def kill_everything(self, pid: int) -> None:
        """Kill the run and its reaper, and nobody comes."""
        for each in (*called("pytest_machine.reaper"), pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def lose_power(self, pid: int) -> None:
        """Kill every process of run, reaper and machines; the kernel and /run forget all of it, the disk nothing."""
        self.kill_everything(pid)
        for file in (RUN / "runc").glob("machines/*/pid"):
            os.kill(int(file.read_text()), signal.SIGKILL)
        for file in (RUN / "runc").glob("*/pid"):
            os.kill(int(file.read_text()), signal.SIGKILL)
        time.sleep(1)
        subprocess.run(
            "grep -o '/run/pytest-machine/[^ ]*' /proc/mounts | tac | xargs -r umount -l", shell=True, check=False
        )
        shutil.rmtree(RUN / "runc")
        for link in Path("/sys/class/net").glob("ptm*"):
            subprocess.run(["ip", "link", "delete", link.name], check=False, capture_output=True)
        subprocess.run(["nft", "flush", "ruleset"], check=False)
        for group in Path("/sys/fs/cgroup").glob("**/pytest-machine/*/"):
            if group.name in self.ids:
                for folder, _, _ in os.walk(group, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)  # noqa: PTH106

    def nothing_is_left(self, seconds: float = 10 * SLOWNESS, *, but: Path | None = None) -> None:
        """Raise what is left when that time is over, but for a file."""
        end = time.monotonic() + seconds
        while left := self.left() - {f"file: {but}"}:
            if time.monotonic() > end:
                raise AssertionError(sorted(left))
            time.sleep(0.1)


def power_then_prune(host: Host) -> None:
    with host.watched():
        host.lose_power(host.pytest(WAITS, wait=False).returncode)
    assert host.left(), "there is something to find"
    dry = host.prune("--dry-run")
    assert dry.stdout.count("would be destroyed: its run '") >= 2
    done = host.prune()
    assert done.returncode == 0
    assert "machine 'web'" in done.stdout
    host.nothing_is_left(2 * SLOWNESS)


def power_then_the_next_run(host: Host) -> None:
    with host.watched():
        host.lose_power(host.pytest(WAITS, wait=False).returncode)
        assert host.pytest(PLAIN).returncode == 0
    host.nothing_is_left()


def store_deleted_then_prune(host: Host) -> None:
    with host.watched():
        host.kill_everything(host.pytest(WAITS, wait=False).returncode)
    time.sleep(1)
    shutil.rmtree(host.home)
    assert host.left(), "there is something to find"
    done = host.prune()
    assert "its store is gone" in done.stdout
    host.nothing_is_left(2 * SLOWNESS)


def store_deleted_then_the_next_run(host: Host) -> None:
    with host.watched():
        host.kill_everything(host.pytest(WAITS, wait=False).returncode)
        time.sleep(1)
        shutil.rmtree(host.home)
        assert host.pytest(PLAIN).returncode == 0
    host.nothing_is_left()


def full_disk(host: Host) -> None:
    """Where machines live there is no room: said without a traceback; nothing of a half-made one stays."""
    filler = os.open(STATE / "filler", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(filler, bytes(1 << 20)):
            pass
    with contextlib.suppress(OSError):
        while os.write(filler, bytes(512)):
            pass
    os.close(filler)
    with host.watched():
        done = host.pytest(PLAIN)
    assert done.returncode == 1
    assert "No space left" in done.stdout
    assert "hint: " in done.stdout
    assert "Traceback" not in done.stdout
    assert "_ test_it _" not in done.stdout or "def " not in done.stdout, "it shows code"
    (STATE / "filler").unlink()
    host.nothing_is_left(15 * SLOWNESS)


def disk_filled_by_a_test(host: Host) -> None:
    """It is full when the machines are to go: they go all the same."""
    fill = (
        "import os\n"
        "def test_it(machine):\n"
        f"    filler = os.open({str(STATE / 'filler')!r}, os.O_WRONLY | os.O_CREAT)\n"
        "    try:\n"
        "        while os.write(filler, bytes(4096)): ...\n"
        "    except OSError:\n"
        "        os.close(filler)\n"
    )
    with host.watched():
        done = host.pytest(fill)
    print(done.returncode)
    host.nothing_is_left(5 * SLOWNESS, but=STATE / "filler")  # which stays full for as long as that
    (STATE / "filler").unlink()
    host.nothing_is_left()


MISHAPS = (
    power_then_prune,
    power_then_the_next_run,
    store_deleted_then_prune,
    store_deleted_then_the_next_run,
    full_disk,
    disk_filled_by_a_test,
)


def main() -> None:
    """Let one of them happen."""
    host = Host(Path(sys.argv[2]))
    next(each for each in MISHAPS if each.__name__ == sys.argv[1])(host)


if __name__ == "__main__":
    main()
