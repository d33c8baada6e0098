"""Damage and full disks where the driver 'runc' keeps its machines. Run on a host of its own (see `private`).

``python -m tests.real.damaged CASE`` raises what is wrong, and prints what the program said.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STATE = Path("/var/lib/pytest-machine")
RUNC = STATE / "runc"
LEDGER = RUNC / "ledger.json"
RUN_OF_TESTS = """
import os, pytest
def test_it(machine):
    open({ip!r}, "w").write(machine.ip)
    {fill}
    os.kill(os.getpid(), 9)
"""


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program, whose store and state are on the small disk too."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_machine", *arguments],
        env={**os.environ, "MACHINE_STORAGE_PATH": str(STATE / "store"), "PYTEST_MACHINE_HOME": str(STATE / "home")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=150,
    )
    print("$", *arguments, f"\n{done.stdout}= {done.returncode}", flush=True)
    assert "Traceback" not in done.stdout
    return done


def create(name: str) -> str:
    """Create a machine and return its address."""
    assert program("create", "-d", "runc", name).returncode == 0
    return program("ip", name).stdout.strip()


def ids() -> set[str]:
    return {path.name for path in (RUNC / "machines").iterdir()}


def id_of(name: str) -> str:
    found = json.loads((STATE / "store/machines" / name / "pytest-machine.json").read_text())["id"]
    assert isinstance(found, str)
    return found


def nothing_is_left() -> None:
    assert ids() == set()
    assert json.loads(LEDGER.read_text())["leases"] == {}
    assert [path.name for path in Path("/sys/class/net").glob("ptm*")] == []
    assert not list((STATE / "store/machines").iterdir())


def fill(*, again: bool = False) -> None:
    """Leave no byte; `again`: nor of what is freed from now on."""
    descriptor = os.open(STATE / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while os.write(descriptor, bytes(size)):
                    pass
        if not again:
            break
        time.sleep(0.001)
    os.close(descriptor)


def no_inodes(*, again: bool = False) -> None:
    """Leave room for no file; `again`: nor in place of those that go from now on."""
    (STATE / "many").mkdir(exist_ok=True)
    number = 10**6 if again else 0
    while True:
        try:
            number += 1
            (STATE / "many" / str(number)).touch()
        except OSError:
            if not again:
                return
            time.sleep(0.001)


def removed(how: Callable[..., None], *arguments: str) -> None:
    """Destroy machines on a full disk; their addresses are free afterwards."""
    first, second = create("web"), create("db")
    how()
    # What is freed meanwhile is taken at once, as by a log that nothing stops.
    with subprocess.Popen(
        [sys.executable, "-c", f"from tests.real import damaged; damaged.{how.__name__}(again=True)"]
    ) as filling:
        done = program(*arguments)
        filling.kill()
    assert done.returncode == 0
    for path in (STATE / "filler", *(STATE / "many").glob("*")):
        path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (STATE / "many").rmdir()
    nothing_is_left()
    assert create("web") == first != second
    assert program("rm", "-y", "web").returncode == 0


def damaged_tags() -> None:
    """A machine of which no store knows is named, and goes by its id."""
    create("good")
    create("web")
    create("gone")
    good, web, gone = map(id_of, ("good", "web", "gone"))
    for name in ("web", "gone"):
        subprocess.run(["rm", "-r", STATE / "store/machines" / name], check=True)
    tag = RUNC / "machines" / web / "tag.json"
    tag.write_bytes(tag.read_bytes().replace(b'"created": 1', b'"created": x'))
    (RUNC / "machines" / gone / "tag.json").unlink()
    done = program("prune")
    assert web in done.stdout
    assert gone in done.stdout
    assert "Nothing is left behind." not in done.stdout
    assert ids() == {good, web, gone}
    assert program("rm", "-f", web).returncode == 0
    assert ids() == {good, gone}
    assert program("prune", "--all").returncode == 0
    nothing_is_left()


def damaged_ledger() -> None:
    """One byte, then both files: machines are seen, made and destroyed, and share no address."""
    first = create("web")
    content = bytearray(LEDGER.read_bytes())
    content[len(content) // 2] ^= 1
    LEDGER.write_bytes(content)
    assert "Running" in program("ls").stdout
    second = create("db")
    assert first != second
    for path in (LEDGER, LEDGER.with_name("copy.ledger.json")):
        path.write_bytes(b"[" * 9999)
    assert program("ls").stdout.count("Running") == 2
    assert create("third") not in (first, second)
    assert program("prune").returncode == 0
    LEDGER.unlink()
    os.mkfifo(LEDGER)
    assert program("rm", "-y", "web", "db", "third").returncode == 0
    nothing_is_left()


def reaped() -> None:
    """A run that fills the disk and is killed: its reaper destroys what it had."""
    suite, ip = STATE.parent / "suite-of-damaged", Path("/run/pytest-machine/ip")
    suite.mkdir(exist_ok=True)
    text = "from tests.real.damaged import fill; fill()"
    (suite / "test_it.py").write_text(RUN_OF_TESTS.format(ip=str(ip), fill=text))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite), "--machine-driver", "runc"],
        env={**os.environ, "PYTEST_MACHINE_HOME": str(STATE / "home")},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=150,
    )  # fmt: skip
    print(done.stdout)
    assert ip.read_text()
    end = time.monotonic() + 60
    while ids() or list((STATE / "home/runs").glob("[!.]*")):
        assert time.monotonic() < end, (ids(), list((STATE / "home/runs").rglob("*")))
        time.sleep(0.2)
    (STATE / "filler").unlink()
    assert create("web") == ip.read_text()


CASES: dict[str, Callable[[], None]] = {
    "full-rm": lambda: removed(fill, "rm", "-y", "web", "db"),
    "full-prune": lambda: removed(fill, "prune", "--all"),
    "inodes-rm": lambda: removed(no_inodes, "rm", "-y", "web", "db"),
    "inodes-prune": lambda: removed(no_inodes, "prune", "--all"),
    "full-reaper": reaped,
    "tags": damaged_tags,
    "ledger": damaged_ledger,
}


if __name__ == "__main__":
    # A million inodes would take a minute to fill.
    subprocess.run(["mount", "-o", "remount,nr_inodes=8000", "/var/lib/pytest-machine"], check=True)
    (STATE / "store").mkdir(mode=0o711)
    CASES[sys.argv[1]]()
