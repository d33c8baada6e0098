"""Unit tests touch neither processes nor the network, unless they say `@pytest.mark.real`."""

from __future__ import annotations

import multiprocessing.process
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine.model import Id, Record, new_id


class Refused(AssertionError):
    """A unit test reached out into the world."""


def _refuse(what: str) -> Callable[..., object]:
    def refuse(*args: object, **_: object) -> object:
        raise Refused(f"A unit test wants {what}; mark it `@pytest.mark.real` if it must: {args[1:]}")

    return refuse


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse new processes, and connections that leave this computer."""
    if request.node.get_closest_marker("real"):
        return
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
            assert address[0] in ("127.0.0.1", "::1", "localhost"), f"{address} is not this computer"
        connect(self, address)  # type: ignore[arg-type]  # whatever it was, it is passed on

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(subprocess.Popen, "__init__", _refuse("a process"))
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", _refuse("a process"))
    for name in ("fork", "system", "posix_spawn"):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, _refuse(f"os.{name}"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test's state away from the user's."""
    monkeypatch.setenv("PYTEST_MACHINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(tmp_path / "storage"))
    return tmp_path / "home"


@pytest.fixture
def make_record(tmp_path: Path) -> Callable[..., Record]:
    """Return a function that makes a record; by name, with any field."""

    def make(name: str = "web", **changes: object) -> Record:
        record = Record(
            id=Id(new_id()), name=name, driver="fake", store=tmp_path / "store", host="0123456789ab", created=1.5
        )
        return record.with_(**changes)

    return make
