from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_machine import engine, errors
from pytest_machine.certs import Authority
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import ConnectFailed, NotRunning, UsageError
from pytest_machine.machine import Machine
from pytest_machine.model import Address, Id, Record, Seen, State
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
    machine = Machine(record, driver=Seeing(), store=Store(record.store), registry=Registry())

    def lost(*_: object, **__: object) -> None:
        raise ConnectFailed("SSH failed.", facts={"reason": "refused"}, hint="ssh -o ...")

    for name in ("run", "put", "get"):
        monkeypatch.setattr(machine.connection, name, lost)
    return machine


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        (State.STOPPED, "machine.start()"),
        (State.SAVED, "machine.start()"),
        (State.PAUSED, "machine.resume()"),
        (State.ABSENT, "docker-machine ls"),
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
