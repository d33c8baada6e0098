from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_machine import engine, errors
from pytest_machine.certs import Authority
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import ConnectFailed, NotRunning, Unsupported, UsageError
from pytest_machine.machine import Machine
from pytest_machine.model import Address, Id, Record, Seen, State
from pytest_machine.plugin import evidence
from pytest_machine.plugins import Registry
from pytest_machine.store import Store


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "Nothing was said to wait for."),
        ({"container": "web"}, "Nothing was said to wait for."),
        ({"log": "ready"}, "'ready' can only be waited for in a container's log"),
        ({"log": "(", "container": "web"}, "'(' is no regular expression."),
        ({"http": "/health"}, "'/health' is no page that could be waited for."),
        ({"http": 8080}, "'8080' is no page that could be waited for."),
        ({"port": "80"}, "'80' is no port."),
    ],
)
def test_nonsense_is_not_waited_for(make_record: Callable[..., Record], asked: dict[str, Any], says: str) -> None:
    record = make_record()
    machine = Machine(record, driver=RuncDriver(), store=Store(record.store), registry=Registry())
    with pytest.raises(UsageError) as refused:
        machine.wait_for(**asked)
    assert str(refused.value).startswith(says)
    assert "hint: machine.wait_for(" in str(refused.value)


class Seeing(RuncDriver):
    """Sees a machine as it is told to."""

    now = State.RUNNING

    def look(self, records: Iterable[Record]) -> Mapping[Id, Seen]:
        return {record.id: Seen(state=self.now) for record in records}


@pytest.fixture
def unreachable(make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine at an address where nobody listens, by either of its ways."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    record = make_record(address=Address(ip="127.0.0.1", engine_port=port, ssh_port=port))
    Store(record.store).add(record)
    machine = Machine(record, driver=Seeing(), store=Store(record.store), registry=Registry())

    def lost(*_: object, **__: object) -> None:
        raise ConnectFailed("SSH failed.", facts={"reason": "refused"}, hint="ssh -o ...")

    for name in ("run", "put", "get"):
        monkeypatch.setattr(machine.connection, name, lost)
    return machine


@pytest.mark.parametrize("state", [State.STOPPED, State.SAVED, State.PAUSED, State.ABSENT])
def test_what_needs_a_running_machine_says_so_at_once(
    unreachable: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: State
) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}")
    app = unreachable.compose(tmp_path / "compose.yaml")
    monkeypatch.setattr(Seeing, "now", state)
    says = "was destroyed" if state is State.ABSENT else "does not run.\n  state.*\nhint: machine."
    asks: list[Callable[[], object]] = [
        lambda: unreachable.docker,
        lambda: unreachable.port("web", 80),
        lambda: unreachable.wait_for(port=80),
        lambda: unreachable.wait_for(http=":80/"),
        lambda: unreachable.wait_for(log="ready", container="web"),
        app.__enter__,
        app.up,
        app.logs,
        lambda: app.run("ps"),
        lambda: app.container("web"),
    ]
    begun = time.monotonic()
    for ask in asks:
        with pytest.raises(NotRunning, match=says):
            ask()
    if state is State.ABSENT:
        app.down()
    else:
        with pytest.raises(NotRunning, match=says):
            app.down()
        first = ZeroDivisionError()
        app.__exit__(ZeroDivisionError, first, None)
        assert "does not run" in first.__notes__[0]
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        (State.STOPPED, "machine.start()"),
        (State.SAVED, "machine.start()"),
        (State.PAUSED, "machine.resume()"),
    ],
)
def test_a_machine_that_does_not_run_is_said_not_to(
    unreachable: Machine, monkeypatch: pytest.MonkeyPatch, state: State, hint: str
) -> None:
    monkeypatch.setattr(Seeing, "now", state)
    with pytest.raises(NotRunning) as off:
        _ = unreachable.docker
    assert str(off.value) == f"The machine 'web' does not run.\n  state  {state}\nhint: {hint}"
    assert isinstance(off.value, OSError), "whoever waits for it would give up"
    for ask in (
        lambda: unreachable.run("true"),
        lambda: unreachable.put(b"", "/file"),
        lambda: unreachable.get("/file", "file"),
    ):
        with pytest.raises(ConnectFailed) as lost:
            ask()
        assert lost.value.facts == {"state": state, "reason": "refused"}
        assert lost.value.hint == hint


USES: dict[str, Callable[[Machine], object]] = {
    "run": lambda machine: machine.run("true"),
    "put": lambda machine: machine.put(b"", "/file"),
    "get": lambda machine: machine.get("/file", "file"),
    "capture": lambda machine: machine.capture("file.pcap"),
    "docker": lambda machine: machine.docker,
    "env": lambda machine: machine.env,
    "environment": lambda machine: machine.environment().__enter__(),
    "start": Machine.start,
    "stop": Machine.stop,
    "kill": Machine.kill,
    "pause": Machine.pause,
    "resume": Machine.resume,
    "restart": Machine.restart,
    "reset": Machine.reset,
    "provision": Machine.provision,
    "regenerate_certs": Machine.regenerate_certs,
    "renew": Machine.renew,
    "upgrade": Machine.upgrade,
    "changes": Machine.changes,
    "port": lambda machine: machine.port("web", 80),
    "wait_for": lambda machine: machine.wait_for(port=80),
    "compose": lambda machine: machine.compose("compose.yaml", project="x").run("ps"),
}


@pytest.mark.parametrize("way", ["removed from the store", "its name given to another", "lost by its driver"])
@pytest.mark.parametrize("use", USES)
def test_one_that_is_gone_says_so_at_once(
    unreachable: Machine,
    make_record: Callable[..., Record],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    use: str,
    way: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("compose.yaml").write_text("services: {}\n")
    store = Store(unreachable.record.store)
    if way != "lost by its driver":
        store.remove("web")
    if way == "its name given to another":
        store.add(make_record())
    if way == "lost by its driver":
        monkeypatch.setattr(Seeing, "now", State.ABSENT)
    with pytest.raises(NotRunning, match="The machine 'web' was destroyed") as gone:
        USES[use](unreachable)
    assert not isinstance(gone.value, OSError), "nobody waits for it"
    assert gone.value.facts["id"] == unreachable.id


def test_destroying_the_old_one_spares_the_new_one_of_its_name(
    unreachable: Machine, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(unreachable.record.store)
    store.remove("web")
    new = make_record()
    store.add(new)
    monkeypatch.setattr(Seeing, "destroy", lambda *_: None)
    unreachable.destroy()
    assert store.load("web").id == new.id


def test_changes_of_one_that_was_never_noted_is_an_error(unreachable: Machine) -> None:
    with pytest.raises(Unsupported, match="its state was never noted") as refused:
        unreachable.changes()
    assert "machine.note()" in refused.value.hint


def test_of_one_that_runs_the_error_is_what_it_was(unreachable: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionRefusedError):
        _ = unreachable.docker
    with pytest.raises(ConnectFailed) as lost:
        unreachable.run("true")
    assert lost.value.hint == "ssh -o ..."

    def silent(*_: object, timeout: float, **__: object) -> str:
        asked.append(timeout)
        raise TimeoutError

    asked: list[float] = []
    monkeypatch.setattr(engine, "ping", silent)
    with pytest.raises(TimeoutError):
        _ = unreachable.docker
    assert asked == [5, 60], "one that is busy gets the time that it had"


def test_a_client_gives_each_answer_its_time(unreachable: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ping", lambda *_, **__: "1.40")
    Authority.ensure(unreachable.record.directory).copy_client(unreachable.record.directory)
    try:
        assert unreachable.docker.api.timeout == 60
    finally:
        unreachable.close()


def test_the_errors_are_said_to_be_public() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
    said = re.findall(r"^from pytest_machine\.errors import (.*)$", page, re.MULTILINE)
    named = {name.strip() for line in said for name in line.split(",")}
    assert {"CommandFailed", "WaitTimeout", "Unsupported", "UsageError"} <= named <= set(vars(errors))


@pytest.mark.parametrize(("state", "asked"), [(State.ABSENT, []), (State.RUNNING, ["Docker", "SSH"])])
def test_a_report_asks_nothing_at_the_address_of_one_that_is_gone(
    unreachable: Machine, monkeypatch: pytest.MonkeyPatch, state: State, asked: list[str]
) -> None:
    """Another machine may have its address by now."""
    found: list[str] = []
    monkeypatch.setattr(Seeing, "now", state)
    monkeypatch.setattr(evidence, "_engine", lambda *_: found.append("Docker"))
    monkeypatch.setattr(evidence, "_inside", lambda *_, **__: found.append("SSH"))
    evidence.gather(unreachable.record, unreachable.driver)
    assert sorted(found) == asked
