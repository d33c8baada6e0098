from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine import contexts
from pytest_machine.errors import BadSpec, StoreError
from pytest_machine.model import Address, Record
from pytest_machine.store import Store

ADDRESS = Address(ip="10.0.0.1")


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


@pytest.fixture
def noted(make_record: Callable[..., Record]) -> Callable[..., Record]:
    """Return a function that makes a record which is in its store, with certificates."""

    def note(name: str = "web", **changes: object) -> Record:
        record = make_record(name, address=ADDRESS, **changes)
        Store(record.store).add(record)
        for each in ("ca", "cert", "key"):
            (record.directory / f"{each}.pem").write_text(f"-----BEGIN {name}'s {each}")
        return record

    return note


def files(docker: Path, name: str) -> tuple[Path, Path]:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return docker / "contexts/meta" / digest / "meta.json", docker / "contexts/tls" / digest / "docker"


@pytest.mark.parametrize(
    ("machine", "expected"), [("web", "web"), ("default", "machine-default"), ("a", "machine-a"), ("a.b-1", "a.b-1")]
)
def test_names_that_docker_allows(machine: str, expected: str) -> None:
    assert contexts.name_of(machine) == expected


def test_a_life(docker: Path, noted: Callable[..., Record]) -> None:
    record = noted()
    meta, tls = files(docker, "web")
    assert not contexts.has(record)
    assert not contexts.remove(record)
    contexts.refresh(record)
    assert not docker.exists()
    assert contexts.add(record, ADDRESS) == "web"
    assert json.loads(meta.read_text())["Endpoints"] == {
        "docker": {"Host": "tcp://10.0.0.1:2376", "SkipTLSVerify": False}
    }
    assert {path.name: path.read_text() for path in tls.iterdir()} == {
        "ca.pem": "-----BEGIN web's ca",
        "cert.pem": "-----BEGIN web's cert",
        "key.pem": "-----BEGIN web's key",
    }
    if os.name != "nt":
        assert stat.S_IMODE((tls / "key.pem").stat().st_mode) == 0o600
        assert stat.S_IMODE(tls.stat().st_mode) == 0o700
    assert contexts.has(record)

    # What the user wrote of it stays, what we know goes with the machine.
    data = json.loads(meta.read_text())
    meta.write_text(json.dumps({**data, "Metadata": {**data["Metadata"], "Description": "mine"}}))
    (record.directory / "cert.pem").write_text("-----BEGIN new")
    contexts.refresh(record.with_(address=Address(ip="fd00::2", engine_port=1)))
    data = json.loads(meta.read_text())
    assert data["Metadata"]["Description"] == "mine"
    assert data["Endpoints"]["docker"]["Host"] == "tcp://[fd00::2]:1"
    assert (tls / "cert.pem").read_text() == "-----BEGIN new"

    assert contexts.remove(record)
    assert not contexts.remove(record)
    assert [path for path in docker.rglob("*") if path.is_file()] == []


def test_one_in_use_is_left(docker: Path, noted: Callable[..., Record]) -> None:
    record = noted()
    contexts.add(record, ADDRESS)
    config = docker / "config.json"
    for current in ("web", "other"):
        config.write_text(json.dumps({"auths": {"x": {}}, "currentContext": current}))
        contexts.add(record, ADDRESS)
        contexts.remove(record)
        rest = {"currentContext": "other"} if current == "other" else {}
        assert json.loads(config.read_text()) == {"auths": {"x": {}}, **rest}
    config.write_text("{ broken")
    contexts.add(record, ADDRESS)
    assert contexts.remove(record)
    assert config.read_text() == "{ broken"


def test_without_tls(docker: Path, make_record: Callable[..., Record]) -> None:
    record = make_record()
    contexts.add(record, ADDRESS)
    meta, tls = files(docker, "web")
    assert meta.exists()
    assert not tls.exists()


@pytest.mark.parametrize("metadata", [{}, {"Description": "x"}, {"pytest-machine": "x"}])
def test_strangers_are_not_touched(docker: Path, noted: Callable[..., Record], metadata: dict[str, str]) -> None:
    record = noted()
    meta, _ = files(docker, "web")
    meta.parent.mkdir(parents=True)
    content = json.dumps({"Name": "web", "Metadata": metadata, "Endpoints": {}})
    meta.write_text(content)
    with pytest.raises(BadSpec, match="already a Docker context 'web'"):
        contexts.add(record, ADDRESS)
    with pytest.raises(BadSpec, match="already a Docker context 'web'"):
        contexts.check_free("web")
    contexts.refresh(record)
    assert not contexts.remove(record)
    assert contexts.left() == []
    assert meta.read_text() == content


def test_another_machine_of_that_name(noted: Callable[..., Record], tmp_path: Path) -> None:
    record, other = noted(), noted(store=tmp_path / "other")
    contexts.add(record, ADDRESS)
    with pytest.raises(BadSpec, match="already a Docker context 'web'") as caught:
        contexts.add(other, ADDRESS)
    assert caught.value.facts["machine"] == "web"
    assert contexts.left() == []
    # Once the first is gone, its context is in nobody's way; one of Docker Machine's own is there by its own file.
    Store(record.store).remove("web")
    record.directory.mkdir()
    (record.directory / "config.json").touch()
    assert contexts.left() == []
    (record.directory / "config.json").unlink()
    assert contexts.left() == ["web"]
    contexts.check_free("web")
    contexts.add(other, ADDRESS)
    assert contexts.has(other)
    assert contexts.left() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"Metadata": 1}'])
def test_one_that_is_broken(docker: Path, noted: Callable[..., Record], content: str) -> None:
    record = noted()
    meta, _ = files(docker, "web")
    meta.parent.mkdir(parents=True)
    meta.write_text(content)
    for work in (lambda: contexts.add(record, ADDRESS), lambda: contexts.remove(record)):
        with pytest.raises(StoreError, match="cannot be read"):
            work()
    assert contexts.left() == []
    assert meta.read_text() == content
