from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pytest_machine.errors import BadSpec, MachineExists, StoreError, UnknownMachine
from pytest_machine.model import Address, Id, Record, new_id
from pytest_machine.store import RECORD, SECRETS, Store, write

Make = Callable[..., Record]

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_record_comes_back_as_it_was(store: Store, make_record: Make) -> None:
    record = make_record("web", options={"memory": 5, "dns": ("a", "b")}, address=Address(ip="10.0.0.1"), expires=2.5)
    store.add(record)
    assert store.load("web") == record
    store.save(record.with_(ready=3.0))
    assert store.load("web") == record.with_(ready=3.0)


def test_unknown_machines(store: Store, make_record: Make) -> None:
    store.add(make_record("web-1"))
    with pytest.raises(UnknownMachine, match="did you mean 'web-1'"):
        store.load("web-2")
    with pytest.raises(UnknownMachine, match=r"ls .*machines"):
        store.load("quite-another")
    for call in (store.secrets, lambda name: store.save_secrets(name, {}), lambda name: store.save(make_record(name))):
        with pytest.raises(UnknownMachine):
            call("web-2")
    store.remove("web-2")
    assert store.names() == ["web-1"]


def test_a_name_is_taken_once(store: Store, make_record: Make) -> None:
    first = make_record()
    store.add(first)
    with pytest.raises(MachineExists, match="'web'"):
        store.add(make_record())
    assert store.load("web").id == first.id


def test_docker_machines_own_are_left_alone(store: Store, make_record: Make) -> None:
    theirs = store.path / "machines" / "old"
    theirs.mkdir(parents=True)
    (theirs / "config.json").write_text("{}")
    assert store.names() == []
    with pytest.raises(MachineExists):
        store.add(make_record("old"))
    store.remove("old")
    assert (theirs / "config.json").read_text() == "{}"


def test_what_a_crashed_add_left_is_taken_over(store: Store, make_record: Make) -> None:
    left = store.path / "machines" / "web"
    left.mkdir(parents=True)
    (left / f".{RECORD}.0123.tmp").write_text("{")
    store.add(make_record())
    assert store.names() == ["web"]


@pytest.mark.parametrize("name", ["..", ".", "", "../web", "a/b", "-x", ".hidden", "a\\b", "a\0b", "web\n", "x" * 64])
def test_odd_names_are_refused(store: Store, make_record: Make, name: str) -> None:
    for call in (store.load, store.remove, store.secrets, lambda n: store.add(make_record().with_(name=n))):
        with pytest.raises(BadSpec):
            call(name)
    with pytest.raises(BadSpec), store.lock(name):
        pass
    assert not store.path.exists()


def test_natural_order(store: Store, make_record: Make) -> None:
    for name in ("web-10", "web-2", "db", "10", "9", "Web-3"):
        store.add(make_record(name))
    assert store.names() == ["9", "10", "db", "web-2", "Web-3", "web-10"]


BROKEN = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"3",
    b"{}",
    b'"' + b"x" * 100,
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"name": "web", "id": 3}',
    b'{"name": "web", "id": "0123456789", "driver": "x", "store": "/", "host": "h"}',
    b'{"name": "web", "id": "0123456789", "driver": "x", "store": "/", "host": "h", "created": "now"}',
    b'{"name": "web", "id": "0123456789", "driver": "x", "store": "/", "host": "h", "created": 1, "address": {"x": 1}}',
    b'{"name": "other", "id": "0123456789", "driver": "x", "store": "/", "host": "h", "created": 1}',
    b'{"ConfigVersion": 3, "Driver": {"IPAddress": "10.0.0.1"}, "DriverName": "virtualbox"}',
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_record_breaks_no_other(store: Store, make_record: Make, content: bytes) -> None:
    good = make_record("good")
    store.add(good)
    store.add(make_record("web"))
    path = store.path / "machines" / "web" / RECORD
    path.write_bytes(content)
    with pytest.raises(StoreError, match="'web' cannot be read") as caught:
        store.load("web")
    assert str(path) in str(caught.value)
    assert store.names() == ["good", "web"]
    assert store.records() == [good]
    assert list(store.broken()) == ["web"]
    store.remove("web")
    assert store.names() == ["good"]
    assert not path.parent.exists()


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_content_of_a_record_gets_through_unread(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as path:
        directory = Path(path, "machines", "web")
        directory.mkdir(parents=True)
        (directory / RECORD).write_bytes(content)
        assert list(Store(Path(path)).broken()) == ["web"]


def test_a_truncated_record_is_never_taken_for_a_whole_one(store: Store, make_record: Make) -> None:
    store.add(make_record(address=Address(ip="10.0.0.1")))
    path = store.path / "machines" / "web" / RECORD
    whole = path.read_bytes()
    # The last two bytes are the closing brace and the end of the line.
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        assert list(store.broken()) == ["web"]


@pytest.mark.parametrize("version", [2, 9, 10**9])
def test_a_newer_versions_record_is_refused_and_stays_as_it_is(store: Store, make_record: Make, version: int) -> None:
    store.add(make_record())
    path = store.path / "machines" / "web" / RECORD
    newer = json.dumps({**json.loads(path.read_text()), "version": version, "invented": [1]})
    path.write_text(newer)
    with pytest.raises(StoreError, match=f"version {version}, and this pytest-machine reads version 1: upgrade"):
        store.load("web")
    left = store.salvaged("web")
    assert left is not None
    assert left.newer
    assert store.names() == ["web"]
    assert list(store.broken()) == ["web"]
    assert path.read_text() == newer


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.5, None, [], 10**400])
def test_what_is_no_version(store: Store, make_record: Make, version: object) -> None:
    store.add(make_record())
    path = store.path / "machines" / "web" / RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))
    with pytest.raises(StoreError, match="'version'"):
        store.load("web")
    left = store.salvaged("web")
    assert left is not None
    assert not left.newer


def test_a_store_may_be_moved(store: Store, make_record: Make, tmp_path: Path) -> None:
    store.add(make_record())
    store.path.rename(tmp_path / "moved")
    moved = Store(tmp_path / "moved")
    assert moved.load("web").store == tmp_path / "moved"
    assert moved.load("web").directory.is_dir()


@posix
def test_links_are_not_followed(store: Store, make_record: Make, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / RECORD).write_text("{}")
    (outside / "precious").write_text("keep me")
    (store.path / "machines").mkdir(parents=True)
    (store.path / "machines" / "web").symlink_to(outside)
    store.add(make_record("db"))
    record = store.path / "machines" / "db" / RECORD
    record.rename(tmp_path / "record")
    record.symlink_to(tmp_path / "record")
    for name in ("web", "db"):
        for call in (store.load, store.secrets):
            with pytest.raises(StoreError, match="symbolic link"):
                call(name)
        with pytest.raises(MachineExists):
            store.add(make_record(name))
    assert list(store.broken()) == ["db", "web"]
    for name in ("web", "db"):
        store.remove(name)
    assert store.names() == []
    assert (outside / "precious").read_text() == "keep me"
    assert (outside / RECORD).exists()
    assert (tmp_path / "record").exists()


@posix
def test_everything_is_private(store: Store, make_record: Make) -> None:
    before = os.umask(0)
    try:
        store.add(make_record())
        store.save_secrets("web", {"token": "s3cret"})
    finally:
        os.umask(before)
    directory = store.path / "machines" / "web"
    for path in (store.path, directory.parent, directory, store.path / "locks"):
        assert mode(path) == 0o700
    for file in (RECORD, SECRETS):
        assert mode(directory / file) == 0o600


def test_secrets_stay_out_of_the_record_and_go_with_the_machine(store: Store, make_record: Make) -> None:
    store.add(make_record())
    assert store.secrets("web") == {}
    store.save_secrets("web", {"token": "s3cret", "more": ("a", "b")})
    assert store.secrets("web") == {"token": "s3cret", "more": ("a", "b")}
    path = store.path / "machines" / "web" / SECRETS
    assert "s3cret" not in path.with_name(RECORD).read_text()
    path.write_text('{"token": "s3cret"')
    with pytest.raises(StoreError) as caught:
        store.secrets("web")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    store.remove("web")
    assert not path.parent.exists()


class Died(BaseException):
    """The process is no more."""


def dying(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process remove so many files and directories, and die at the next."""
    left = iter(range(after))
    for name in ("unlink", "rmdir"):
        real = getattr(os, name)

        def step(*args: object, real: Callable[..., None] = real, **more: object) -> None:
            if next(left, None) is None:
                raise Died
            real(*args, **more)

        monkeypatch.setattr(os, name, step)


# Seven things to remove: secrets, key, file, the two in the directory, record and the machine's directory itself.
@pytest.mark.parametrize("after", range(7))
def test_a_removal_that_dies_anywhere_can_be_done_again(
    store: Store, make_record: Make, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    store.add(make_record())
    store.save_secrets("web", {"token": "s3cret"})
    directory = store.path / "machines" / "web"
    for file in ("key.pem", "aaa"):
        (directory / file).write_text("x")
    (directory / "upper").mkdir()
    (directory / "upper" / "file").write_text("x")

    with monkeypatch.context() as patched:
        dying(after, patched)
        with pytest.raises(Died):
            store.remove("web")
    left = {path.name for path in directory.rglob("*")}
    assert RECORD in left or not left
    assert after < 2 or not left & {SECRETS, "key.pem"}

    store.remove("web")
    assert store.names() == []
    store.add(make_record())


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_lock_excludes_threads_and_lets_its_own_in_again(store: Store, make_record: Make) -> None:
    store.add(make_record())
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with store.lock("web"), Store(store.path).lock("web"):
                inside += 1
                most = max(most, inside)
                store.save(store.load("web"))
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# Each adds one to a number under the lock, adds and removes machines of everybody's names, and reads all the time.
HAMMER = """
import sys
from pathlib import Path
from pytest_machine.errors import MachineExists, UnknownMachine
from pytest_machine.model import Record, new_id
from pytest_machine.store import Store

store = Store(Path(sys.argv[1]))
own = []
for turn in range(50):
    # Each turn is one operation on what all share, one on a name that some want at once, one on a machine of its own.
    with store.lock("count"):
        record = store.load("count")
        store.save(record.with_(created=record.created + 1))
    name = f"shared-{turn % 3}"
    try:
        store.add(Record(id=new_id(), name=name, driver="fake", store=store.path, host="h", created=1))
        print(name, flush=True)
    except MachineExists:
        store.remove(name)
    own.append(new_id())
    store.add(Record(id=own[-1], name=f"own-{own[-1]}", driver="fake", store=store.path, host="h", created=turn))
    store.save_secrets(f"own-{own[-1]}", {"token": own[-1]})
    if turn % 2:
        store.remove(f"own-{own.pop(0)}")
    assert not store.broken(), store.broken()
    assert {record.name for record in store.records()} >= {"count"} | {f"own-{id}" for id in own}
print("own", *own, flush=True)
"""


@pytest.mark.real
def test_eight_processes_at_once(store: Store, make_record: Make) -> None:
    store.add(make_record("count", created=0))
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", HAMMER, str(store.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(8)
    ]
    said = [[text.decode() for text in process.communicate(timeout=300)] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, "\n".join(errors for _, errors in said)
    assert store.load("count").created == 8 * 50, "an update is lost"
    own = {Id(each) for lines, _ in said for each in lines.split("own ")[1].split()}
    assert len(own) == 8 * 25
    there = {record.id: record.name for record in store.records() if record.name.startswith("own-")}
    assert set(there) == own, "a machine is lost, or has come back"
    assert all(store.secrets(name) == {"token": each} for each, name in there.items())
    assert store.broken() == {}
    for name in store.names():
        store.remove(name)
    assert list((store.path / "machines").iterdir()) == []


NAMES = st.sampled_from(["a", "b", "web-1", "web-2", "X"])


class StoreLikeADict(RuleBasedStateMachine):
    """Whatever is done to a store, in whatever order, it is as if it had been done to a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.directory.name))
        self.model: dict[str, Record] = {}
        self.secrets: dict[str, dict[str, object]] = {}

    def teardown(self) -> None:
        self.directory.cleanup()

    def record(self, name: str, created: float) -> Record:
        return Record(
            id=Id(new_id()),
            name=name,
            driver="fake",
            store=self.store.path,
            host="h",
            created=created,
            options={"n": 1},
        )

    @rule(name=NAMES, created=st.floats(0, 2e11))
    def add(self, name: str, created: float) -> None:
        record = self.record(name, created)
        if name in self.model:
            with pytest.raises(MachineExists):
                self.store.add(record)
        else:
            self.store.add(record)
            self.model[name] = record

    @rule(name=NAMES, created=st.floats(0, 2e11))
    def save(self, name: str, created: float) -> None:
        record = self.record(name, created)
        if name in self.model:
            self.store.save(record)
            self.model[name] = record
        else:
            with pytest.raises(UnknownMachine):
                self.store.save(record)

    @rule(name=NAMES, value=st.text() | st.integers() | st.none() | st.booleans())
    def save_secrets(self, name: str, value: str | int | None) -> None:
        if name in self.model:
            self.store.save_secrets(name, {"it": value})
            self.secrets[name] = {"it": value}

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.store.remove(name)
        self.model.pop(name, None)
        self.secrets.pop(name, None)

    @rule()
    def look_with_other_eyes(self) -> None:
        self.store = Store(Path(self.directory.name))

    @invariant()
    def same(self) -> None:
        assert sorted(self.store.names()) == sorted(self.model)
        assert {record.name: record for record in self.store.records()} == self.model
        assert self.store.broken() == {}
        for name in self.model:
            assert self.store.secrets(name) == self.secrets.get(name, {})


TestStoreLikeADict = StoreLikeADict.TestCase
TestStoreLikeADict.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_a_record_that_cannot_be_written_leaves_no_directory(
    store: Store, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pytest_machine.store.write", full)
        with pytest.raises(OSError, match="No space"):
            store.add(make_record("web"))
    assert list((store.path / "machines").iterdir()) == []
    store.add(make_record("web"))
    assert store.names() == ["web"]
