"""Whatever stands at the place of a state file: the neighbours are seen and destroyed, and what is damaged is named.

The machines are records and tags alone: what reads them is tested, and no engine is needed for that.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine import reaper
from pytest_machine.model import Record, new_id
from pytest_machine.owner import Run, host_id
from pytest_machine.plugins import Registry
from pytest_machine.reaper import prune, sweep
from pytest_machine.shelf import Shelf
from pytest_machine.store import RECORD, SECRETS, Store

from .conftest import Program

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs, and links for the few alone")

Damage = Callable[[Path], object]


def changed(**values: object) -> Damage:
    """Return what changes values of a JSON table."""

    def damage(path: Path) -> None:
        data = json.loads(path.read_text()) if path.is_file() and path.stat().st_size else {}
        path.write_text(json.dumps({**data, **values}))

    return damage


def instead(make: Damage) -> Damage:
    """Return what puts something else in a file's place."""

    def damage(path: Path) -> None:
        if path.is_file():
            path.unlink()
        make(path)

    return damage


def full(path: Path) -> None:
    (path / "below").mkdir(parents=True)
    (path / "below" / "file").touch()


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


DAMAGES: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:-9] if path.is_file() else b"{"),
    "a list": lambda path: path.write_bytes(b"[1, 2]"),
    "deep": lambda path: path.write_bytes(b'{"a":' * 50_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00\x80"),
    "nul": lambda path: path.write_bytes(b"\0" * 4096),
    "huge": instead(sparse),
    "a directory": instead(full),
    "a FIFO": instead(os.mkfifo),
    "a link": instead(lambda path: path.symlink_to("/etc/passwd")),
    "a loop": instead(lambda path: path.symlink_to(path.name)),
}
# Of records and tags alone: JSON as it was, but for one value.
VALUES: dict[str, Damage] = {
    "an address": changed(address={"ip": "10.0.0.\x07"}),
    "a port": changed(address={"ip": "10.0.0.1", "ssh_port": "22\nProxyCommand true"}),
    "a surrogate": changed(options={"a": "\ud800"}),
    "an option's kind": changed(options=[]),
    "a time": changed(created="now"),
    "a huge time": changed(created=10**400),
    "a driver": changed(driver=3),
    "no id": changed(id=None),
    "a lab": changed(lab=["x"]),
    "a run": changed(run="../../up"),
}
every = pytest.mark.parametrize("damage", [pytest.param(each, id=name) for name, each in DAMAGES.items()])
record_too = pytest.mark.parametrize(
    "damage", [pytest.param(each, id=name) for name, each in {**DAMAGES, **VALUES}.items()]
)


@pytest.fixture
def world(quick: Program, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """The program, whose environment this process has too."""
    quick.environ["PYTEST_MACHINE_FAKES"] = str(quick.driver.directory)
    for name in (
        "PYTEST_MACHINE_FAKES",
        "PYTEST_MACHINE_HOME",
        "MACHINE_STORAGE_PATH",
        "FAKE_DIRECTORY",
        "CLOUD_DIRECTORY",
    ):
        monkeypatch.setenv(name, quick.environ[name])
    monkeypatch.setattr(Registry, "names", lambda self: ["fake"])
    monkeypatch.syspath_prepend(quick.environ["PYTHONPATH"].split(os.pathsep)[1])
    yield quick
    shutil.rmtree(quick.driver.directory, ignore_errors=True)


def put(world: Program, name: str, *, store: Store | None = None, noted: bool = True, **fields: object) -> Record:
    store = store or world.store
    record = Record(
        id=new_id(), name=name, driver="fake", store=store.path, host=host_id(), created=time.time(), ready=1.0
    ).with_(**fields)
    world.driver._tag(record)
    if noted:
        store.add(record)
    return record


def tag(world: Program, record: Record) -> Path:
    return world.driver._tags(record.id)


def there(world: Program) -> set[str]:
    return {path.stem for path in (world.driver.directory / "machines").glob("*.json")}


def dead_run(world: Program) -> Run:
    run = Run.begin()
    run._lock.release()
    return run


@record_too
def test_a_damaged_record(world: Program, damage: Damage) -> None:
    good, web = put(world, "good"), put(world, "web")
    path = web.directory / RECORD
    damage(path)
    said = world("ls")
    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == ["good", "web"]
    assert "cannot be read" in said.out
    assert world("ls", "-q").code == 0
    said = world("doctor")
    assert "'web'" in said.out
    assert "rm -f web" in said.out
    said = world("prune")
    assert said.code == 0, said.err
    assert "machine 'web'" in said.out
    assert "docker-machine rm -f " in said.out
    assert "Nothing is left behind." not in said.out
    said = world("rm", "-y", "web")
    assert said.code != 0
    assert "rm -f web" in said.err
    assert there(world) == {good.id, web.id}
    said = world("rm", "-f", "web")
    assert said.code == 0, said.err
    assert there(world) == {good.id}
    assert world.store.names() == ["good"]
    assert not web.directory.exists()
    assert (
        world("prune").out == f"machine 'good' (fake {good.id}) stays: it was made by hand\nNothing is left behind.\n"
    )


@record_too
def test_a_damaged_record_and_everything_goes(world: Program, damage: Damage) -> None:
    good, web = put(world, "good"), put(world, "web")
    damage(web.directory / RECORD)
    said = world("prune", "--all")
    assert said.code == 0, said.err
    assert said.out.count(" destroyed") == 2
    assert there(world) == set()
    assert world.store.names() == []
    assert not good.directory.exists()


@record_too
def test_a_damaged_record_of_nothing(world: Program, damage: Damage) -> None:
    web = put(world, "web")
    tag(world, web).unlink()
    damage(web.directory / RECORD)
    said = world("prune")
    assert said.code == 0
    assert "docker-machine rm -f web" in said.out
    assert world.store.names() == ["web"]
    said = world("rm", "-f", "web")
    assert said.code == 0, said.err
    assert world.store.names() == []


@every
@pytest.mark.parametrize("name", [SECRETS, "kept.json"])
def test_other_files_beside_a_record(world: Program, damage: Damage, name: str) -> None:
    good, web = put(world, "good"), put(world, "web")
    world.store.save_secrets("web", {"key": "opensesame"})
    damage(web.directory / name)
    for command in ("ls", "prune", "doctor"):
        said = world(command)
        assert "good" in said.out or command == "doctor"
        assert "opensesame" not in said.out + said.err
    assert there(world) == {good.id, web.id}
    said = world("rm", "-f", "web", "good")
    assert said.code == 0, said.err
    assert there(world) == set()


@record_too
def test_a_damaged_tag(world: Program, damage: Damage) -> None:
    """No store knows the machine: it is named with its id, and goes by that."""
    good, web = put(world, "good"), put(world, "web", noted=False)
    damage(tag(world, web))
    said = world("prune")
    assert said.code == 0
    assert web.id in said.out
    assert "its tag is damaged" in said.out
    assert "Nothing is left behind." not in said.out
    assert there(world) == {good.id, web.id}
    said = world("rm", "-f", web.id)
    assert said.code == 0, said.err
    assert there(world) == {good.id}
    assert world.store.names() == ["good"]


@record_too
def test_a_damaged_tag_goes_with_everything(world: Program, damage: Damage) -> None:
    web, known = put(world, "web", noted=False), put(world, "known")
    damage(tag(world, web))
    damage(tag(world, known))
    said = world("prune")
    assert f"machine 'known' (fake {known.id}) stays: it was made by hand" in said.out
    assert there(world) == {web.id, known.id}
    assert world("prune", "--all").code == 0
    assert there(world) == set()
    assert world.store.names() == []


@record_too
@pytest.mark.parametrize("what", ["record", "tag", "both"])
def test_a_dead_run_is_reaped(world: Program, damage: Damage, what: str) -> None:
    run = dead_run(world)
    good, web = (put(world, name, store=run.store, run=run.id, ready=None) for name in ("good", "web"))
    id_in_it = f'"id": "{web.id}"'
    if what != "tag":
        damage(web.directory / RECORD)
    if what != "record":
        damage(tag(world, web))
    found = prune(Registry(), by_hand=False)
    assert not [each.error for each in found if each.error]
    assert good.id not in there(world)
    known = what != "both" or (
        (web.directory / RECORD).is_file() and id_in_it in (web.directory / RECORD).read_text("latin-1")
    )
    if known:
        assert there(world) == set()
        assert not run.directory.exists()
        return
    # Nothing says any more that the two are one: people are asked.
    assert there(world) in ({web.id}, set())
    if there(world):
        assert any(each.damaged and web.id == each.id for each in prune(Registry()))
        assert world("prune", "--all").code == 0
    assert there(world) == set()


@record_too
def test_the_store_of_a_dead_process_is_swept(world: Program, damage: Damage) -> None:
    run = Run.begin()
    store = run.lab_store("lab")
    good, web = (put(world, name, store=store, run=run.id) for name in ("good", "web"))
    damage(web.directory / RECORD)
    assert not [each.error for each in sweep([store], Registry(), "it is dead") if each.error]
    assert good.id not in there(world)
    assert there(world) == set()
    run.end()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(DAMAGES[name], id=name)
        for name in ("half", "deep", "no text", "huge", "a directory", "a FIFO", "a loop")
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "runs/.lock", "runs/RUN/drivers.json", "runs/RUN/reaper.lock", "runs/RUN/reaping.lock", "runs/RUN/called-off",
        "runs/RUN/store/owner", "runs/RUN/store/locks/web.lock", "runs/RUN/store/machines/web/id_ed25519",
        "shelf/.lock", "shelf/salt", "shelf/abc-0/claim.json", "shelf/abc-0/drivers.json",
        "memory/.lock", "memory/0123456789ab.json", "memory/0123456789ab.lock", "memory/available",
        "memory/busy/1-01234567.lock",
    ],
)  # fmt: skip
def test_state_files(world: Program, damage: Damage, place: str) -> None:
    """Beside each of them, a dead run is reaped, and the machines of others stay."""
    run, hand = dead_run(world), put(world, "hand")
    web = put(world, "web", store=run.store, run=run.id)
    path = Path(world.environ["PYTEST_MACHINE_HOME"]) / place.replace("RUN", run.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    damage(path)
    said = world("prune")
    assert "Traceback" not in said.out + said.err
    assert web.id in said.out
    assert there(world) == {hand.id}, said.out + said.err
    assert world("ls").code == 0


@pytest.mark.parametrize("name", [b"a\x1b[31m", b"\xff\xfe", b"a\nb", b"-x", b"a b", b".hidden", b"x" * 200])
def test_odd_names_among_the_machines(world: Program, name: bytes) -> None:
    put(world, "good")
    odd = world.store.path / "machines" / os.fsdecode(name)
    odd.mkdir()
    (odd / RECORD).write_bytes(b"{}")
    said = world("ls")
    assert (said.code, len(said.out.splitlines())) == (0, 2)
    for command in ("prune", "doctor"):
        said = world(command)
        assert "rm -r -- " in said.out
        assert "\x1b" not in said.out
    word = next(line for line in said.out.splitlines() if "hint: rm -r -- " in line).partition("rm -r -- ")[2]
    if not word.startswith("$"):
        assert shlex.split(word) == [str(odd)]


@pytest.mark.parametrize("years", [0.001, 1, 1000])
@pytest.mark.parametrize("noted", [True, False])
def test_made_in_the_future(world: Program, years: float, noted: bool) -> None:
    """A clock that was set back: what counts is that the run is dead."""
    run = dead_run(world)
    web = put(world, "web", store=run.store, run=run.id, noted=noted, created=time.time() + years * 365 * 86400)
    (found,) = [each for each in prune(Registry(), older_than=60, destroy=False) if each.id == web.id]
    assert not found.doomed, "it counts as made now"
    (found,) = [each for each in prune(Registry(), by_hand=False) if each.id == web.id]
    assert found.doomed
    assert there(world) == set()


def test_a_creation_in_the_future_that_was_broken_off(world: Program) -> None:
    put(world, "web", created=time.time() + 86400, ready=None)
    assert world("prune").code == 0
    assert there(world) == set()


def newer(path: Path) -> None:
    changed(version=2, invented=[1])(path)


@pytest.mark.parametrize("both", [True, False])
def test_a_newer_versions_machine_stays(world: Program, both: bool) -> None:
    web = put(world, "web")
    path = web.directory / RECORD
    newer(path)
    if both:
        newer(tag(world, web))
    content = path.read_bytes()
    for command in ("ls", "doctor", "prune", "prune --all", "rm -y web", "inspect web", "start web", "ip web"):
        said = world(*command.split())
        if "doctor" not in command:
            assert "version 2" in said.out + said.err, command
    assert path.read_bytes() == content
    assert there(world) == {web.id}
    assert world("rm", "-f", "web").code == 0
    assert there(world) == set()
    assert not web.directory.exists()


def test_a_newer_versions_run_stays(world: Program) -> None:
    run = dead_run(world)
    web = put(world, "web", store=run.store, run=run.id)
    newer(web.directory / RECORD)
    newer(tag(world, web))
    found = prune(Registry(), by_hand=False)
    assert any("version 2" in each.why and each.damaged for each in found)
    assert there(world) == {web.id}
    assert run.store.names() == ["web"]


@pytest.mark.parametrize("everything", [True, False])
def test_the_keys_of_a_shelf_go_with_its_last_machine(world: Program, everything: bool) -> None:
    shelf, run = Shelf(), dead_run(world)
    store = shelf.claim("0123456789abcdef", run)
    put(world, "web", store=store, expires=time.time() + (600 if everything else -600))
    store.certificates.mkdir()
    (store.certificates / "ca-key.pem").write_text("secret")
    prune(Registry(), by_hand=False) if not everything else prune(Registry(), everything=True)
    assert there(world) == set()
    assert not store.path.exists()
    assert [path.name for path in shelf.path.glob("*-*")] == []


def test_the_keys_of_a_shelf_stay_while_they_may_be_needed(world: Program) -> None:
    shelf, run, dead = Shelf(), Run.begin(), dead_run(world)
    living, waiting = shelf.claim("a" * 16, run), shelf.claim("b" * 16, dead)
    put(world, "web", store=waiting, expires=time.time() + 600)
    prune(Registry())
    assert living.path.exists()
    assert waiting.path.exists()
    run.end()


@pytest.mark.parametrize("depth", [1500, 4000])
def test_deep_trees_are_removed(world: Program, depth: int) -> None:
    run = dead_run(world)
    web, hand = put(world, "web", store=run.store, run=run.id), put(world, "hand")
    here = Path.cwd()
    for top in (web.directory, hand.directory, run.directory):
        os.chdir(top)
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        os.chdir(here)
    assert world("prune").code == 0
    assert not run.directory.exists()
    assert world("rm", "-y", "hand").code == 0
    assert not hand.directory.exists()
    assert there(world) == set()


@every
def test_the_notes_of_a_reaper(world: Program, damage: Damage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reaper that is given garbage reaps with the drivers that are installed."""
    run = dead_run(world)
    put(world, "web", store=run.store, run=run.id)
    damage(run.directory / "drivers.json")
    monkeypatch.setattr(reaper, "_PULSE", 0.01)
    reaper.main(run.directory, b'{"drivers": {"x": 3}, "path": [1]}')
    assert there(world) == set()
    assert not run.directory.exists()
