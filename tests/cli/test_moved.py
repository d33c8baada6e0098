"""A machine whose address has changed behind the store's back: every command goes by what its driver says now."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_machine.model import Address, Record

from .conftest import Program


@pytest.fixture
def moved(quick: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Record:
    """A machine that was noted at another address than it has."""
    quick.make("web")
    record = quick.store.load("web")
    assert record.address is not None
    old = replace(record.address, ip="127.0.0.9", engine_port=9)
    quick.store.save(record.with_(address=old))
    known = record.directory / "known_hosts"
    known.write_text(known.read_text().replace("127.0.0.1", "127.0.0.9"))
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("ssh", "scp", "sshfs"):
        (place / name).write_text(
            f"#!{sys.executable}\nimport sys\nprint(*sys.argv, sep='\\n')\n"
            "for word in sys.argv:\n    if word.endswith('ssh_config'): print(open(word).read())\n"
        )
        (place / name).chmod(0o755)
    quick.environ["PATH"] = f"{place}{os.pathsep}{os.environ['PATH']}"
    quick.environ["DOCKER_CONFIG"] = str(tmp_path / "docker")
    return record


def now(program: Program) -> Address:
    address = program.store.load("web").address
    assert address is not None
    return address


@pytest.mark.parametrize(
    "argv", [["inspect", "web"], ["context", "web"], ["provision", "web"], ["regenerate-certs", "-f", "web"],
             ["upgrade", "web"], ["ssh", "web", "true"], ["scp", "a", "web:b"], ["mount", "web:/a", "b"]],
    ids=lambda argv: argv[0],
)  # fmt: skip
@pytest.mark.skipif(os.name == "nt", reason="scripts are put in the place of OpenSSH's programs")
def test_its_new_address_is_used_and_noted(quick: Program, moved: Record, tmp_path: Path, argv: list[str]) -> None:
    assert moved.address is not None
    program = Program(quick.store, quick.driver, quick.environ)
    said = (program if argv[0] in ("ssh", "scp", "mount") else quick)(*argv)
    assert now(quick) == moved.address, said
    assert "127.0.0.9" not in said.out + said.err
    assert (moved.directory / "known_hosts").read_text().split()[0] == "127.0.0.1"
    if argv[0] == "inspect":
        assert json.loads(said.out)["Driver"]["IPAddress"] == "127.0.0.1"
    elif argv[0] == "context":
        (meta,) = (tmp_path / "docker").rglob("meta.json")
        assert json.loads(meta.read_text())["Endpoints"]["docker"]["Host"] == moved.address.url
    elif argv[0] in ("ssh", "scp", "mount"):
        assert "127.0.0.1" in said.out + said.err


def test_those_that_only_show_it_agree(quick: Program, moved: Record) -> None:
    assert moved.address is not None
    assert quick("url", "web").out == f"{moved.address.url}\n"
    assert quick("ip", "web").out == "127.0.0.1\n"
    assert f'DOCKER_HOST="{moved.address.url}"' in quick("env", "--shell", "bash", "web").out
    assert f"-H={moved.address.url}" in quick("config", "web").out


def test_a_driver_that_cannot_be_asked(quick: Program, moved: Record) -> None:
    """What is noted has to do."""
    (quick.driver.directory / "machines" / f"{moved.id}.json").unlink()
    assert json.loads(quick("inspect", "web").out)["Driver"]["IPAddress"] == "127.0.0.9"
