from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine import owner
from pytest_machine.errors import BadSpec
from pytest_machine.model import Id, Record
from pytest_machine.owner import Run, alive, cache_dir, host_id, state_dir, storage_path

Make = Callable[..., Record]

BEGIN = """
import sys
from pathlib import Path
from pytest_machine.owner import Run
run = Run.begin(sys.argv[1])
print(run.directory, flush=True)
sys.stdin.read()
"""


def test_a_run_lives_from_begin_to_end(home: Path) -> None:
    run = Run.begin()
    assert run.directory == home / "runs" / run.id
    assert run.store.path == run.directory / "store"
    assert alive(run.directory)
    run.end()
    assert not alive(run.directory)
    assert not run.directory.exists()
    run.end()


def test_two_runs_are_strangers() -> None:
    one, two = Run.begin(), Run.begin()
    assert one.id != two.id
    one.end()
    assert alive(two.directory)
    two.end()


def test_the_last_one_out_closes_the_door() -> None:
    one, two = Run.begin("shared"), Run.begin("shared")
    assert one.directory == two.directory
    one.end()
    assert alive(two.directory)
    two.end()
    assert not two.directory.exists()


def test_what_is_left_is_kept(make_record: Make) -> None:
    run = Run.begin()
    run.store.add(make_record())
    run.end()
    assert not alive(run.directory)
    assert run.store.names() == ["web"]

    again = Run.begin(run.id)
    again.store.remove("web")
    again.end()
    assert not run.directory.exists()


def test_a_broken_record_is_left_too() -> None:
    run = Run.begin()
    directory = run.store.path / "machines" / "web"
    directory.mkdir(parents=True)
    (directory / "pytest-machine.json").write_text("{")
    run.end()
    assert run.store.names() == ["web"]


def test_another_thread_may_end_it() -> None:
    run = Run.begin()
    thread = threading.Thread(target=run.end)
    thread.start()
    thread.join()
    assert not alive(run.directory)


@pytest.mark.parametrize("living", [True, False])
def test_asking_often_disturbs_nobody(living: bool) -> None:
    """Whoever asks tries the locks; two who ask at once must not take each other for an owner."""
    run = Run.begin()
    run.store.add(Record(id=Id("0123456789"), name="w", driver="f", store=run.store.path, host="h", created=1))
    if not living:
        run.end()
    found: set[bool] = set()

    def ask() -> None:
        for number in range(30):
            if not living:
                (run.directory / "owners" / f"1-{number}.lock").touch()
            found.add(alive(run.directory))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {living}


def test_nothing_is_alive_where_there_is_nothing(tmp_path: Path) -> None:
    assert not alive(tmp_path / "no" / "such")
    assert not alive(tmp_path)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("id", ["../elsewhere", "a/b", ".."])
def test_an_odd_id_is_refused(id: str) -> None:
    with pytest.raises(BadSpec):
        Run.begin(id)


@pytest.mark.real
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_owner_is_none(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, "victim"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip())
        assert directory == home / "runs" / "victim"
        assert alive(directory)
        mine = Run.begin("victim")
        mine.end()
        assert alive(directory), "it was the other one's turn to close the door"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not alive(directory)
    assert list((directory / "owners").iterdir()) == [], "a dead owner's lock is cleared away"


@pytest.mark.real
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_end_its_parents_run() -> None:
    run = Run.begin()
    process = subprocess.Popen([sys.executable, "-c", FORK], stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].split() == ["True"]
    run.end()


FORK = """
import os
from pytest_machine.owner import Run, alive
run = Run.begin()
if not (child := os.fork()):
    run.end()
    os._exit(0)
os.waitpid(child, 0)
print(alive(run.directory))
run.end()
"""


@pytest.mark.real
def test_many_begin_and_end_the_same_run_at_once(home: Path) -> None:
    """Whoever begins while the last one closes the door must not lose the directory under its feet."""
    code = """
from pytest_machine.owner import Run, alive
for _ in range(40):
    run = Run.begin("busy")
    assert alive(run.directory)
    assert (run.directory / "owners").is_dir()
    run.end()
"""
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert errors == [""] * 4
    assert not (home / "runs" / "busy").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")
def test_a_run_is_private(home: Path) -> None:
    run = Run.begin()
    for path in (home / "runs", run.directory, run.directory / "owners"):
        assert path.stat().st_mode & 0o777 == 0o700
    run.end()


def test_the_host_is_always_the_same_and_keeps_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    found = host_id()
    assert found == host_id()
    assert len(found) == 12
    assert int(found, 16) >= 0
    monkeypatch.setattr(owner, "_system_id", lambda: "0123456789abcdef" * 2)
    assert host_id() != found
    assert not host_id().startswith("0123456789")
    monkeypatch.setattr(owner, "_system_id", lambda: "")
    without = host_id()
    assert without == host_id()
    # Two containers of one image.
    monkeypatch.setattr("platform.node", lambda: "another")
    assert host_id() != without


def test_where_things_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_dir() == tmp_path / "home"
    assert storage_path() == tmp_path / "storage"
    monkeypatch.setenv("PYTEST_MACHINE_CACHE", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache"
    for name in ("PYTEST_MACHINE_HOME", "PYTEST_MACHINE_CACHE", "MACHINE_STORAGE_PATH"):
        monkeypatch.delenv(name)
    assert "pytest-machine" in str(state_dir())
    assert "pytest-machine" in str(cache_dir())
    assert state_dir() != cache_dir()
    assert storage_path() == Path.home() / ".docker" / "machine"
