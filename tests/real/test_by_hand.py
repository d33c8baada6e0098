"""Machines of the command line on the driver 'runc': killed creations, access elsewhere, a file of machines."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_machine.cli.declared import lab_of
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.model import Network
from pytest_machine.store import Store
from tests.conftest import SLOWNESS, full_only

from . import private

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("usable")]

FILE = """
[machines.web]
driver = "runc"
networks = ["front"]

[machines.db]
driver = "runc"
networks = ["front", "back"]
"""


@dataclass
class ByHand:
    """The program, with a store of this test's own."""

    place: Path

    def __call__(self, *argv: str, store: str = "here", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest_machine", "-s", str(self.place / store), *argv],
            env={**os.environ, "PYTEST_MACHINE_PASSPHRASE": "correct horse"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120 * SLOWNESS,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[ByHand]:
    program = ByHand(tmp_path)
    yield program
    if left := Store(tmp_path / "here").names():
        program("rm", "-y", *left)


def networks(file: Path) -> list[Network]:
    return [each for each in RuncDriver().find_networks() if each.lab == lab_of(file)]


def test_killed_creations_block_no_name_and_leave_nothing(rounds: Callable[[int, int], int], tmp_path: Path) -> None:
    seed = int(os.environ.get("PYTEST_MACHINE_SEED") or random.randrange(10**6))
    print(f"seed {seed}; the same again: PYTEST_MACHINE_SEED={seed}")
    count = rounds(30, 2)
    limit = (60 + 30 * count) * SLOWNESS
    done = private.run("tests.real.creates", str(seed), str(count), str(tmp_path / "c"), timeout=limit)
    print(done.stdout)
    played = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(played) == count, f"it broke off, with {done.returncode}"
    assert [line for line in played if line["wrong"] or line["left"]] == []
    assert any(line["machines"] for line in played)


@full_only  # tests/cli plays the same on machines that are quicker made
def test_a_file_of_machines_and_access_to_one(by_hand: ByHand, tmp_path: Path) -> None:
    file = tmp_path / "machines.toml"
    file.write_text(FILE)
    by_hand("up", "-f", str(file))
    by_hand("ssh", "web", "ping", "-c", "1", "-W", "5", "db")

    # What an 'up' that was killed has not come to, the next one does.
    driver, db = RuncDriver(), Store(tmp_path / "here").load("db")
    front = next(each for each in networks(file) if each.name == "front")
    driver.disconnect(db, front)
    by_hand("up", "-f", str(file))
    by_hand("ssh", "web", "ping", "-c", "1", "-W", "5", "db")

    # A new one in the file, whom the others get to know.
    file.write_text(f'{FILE}\n[machines.late]\ndriver = "runc"\nnetworks = ["back"]\n')
    by_hand("up", "-f", str(file))
    by_hand("ssh", "db", "ping", "-c", "1", "-W", "5", "late")
    by_hand("ssh", "web", "ping", "-c", "1", "-W", "2", "late", code=2)
    assert {each.name for each in networks(file)} == {"front", "back"}

    by_hand("export", "web", "-o", str(tmp_path / "web.access"))
    by_hand("import", str(tmp_path / "web.access"), "--name", "borrowed", store="there")
    assert by_hand("ssh", "borrowed", "hostname", store="there") == "web\n"
    assert by_hand("version", "borrowed", store="there") == by_hand("version", "web")
    assert "is somebody else's" in by_hand("rm", "-y", "borrowed", store="there")
    assert by_hand("ssh", "web", "hostname") == "web\n"

    by_hand("down", "-y", "-f", str(file), "web")
    # As a 'down' leaves it that was killed between the last machine and the networks.
    by_hand("rm", "-y", "db", "late")
    assert {each.name for each in networks(file)} == {"front", "back"}
    by_hand("down", "-y", "-f", str(file))
    assert networks(file) == []
    assert not {db.id} & {record.id for record in driver.find()}


def test_a_login_at_a_terminal_shows_what_was_asked_for(by_hand: ByHand) -> None:
    by_hand("create", "-d", "runc", "web")
    # `-tt`: there is no terminal here, and the machine is to give one all the same.
    assert by_hand("ssh", "web", "-tt", "tty").strip().startswith("/dev/pts/")
