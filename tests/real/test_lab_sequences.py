"""Random sequences of what may happen to a lab of real machines: they answer, or say why not; nothing is left."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FULL, SLOWNESS

from . import private

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("usable")]


def test_a_lab_survives_random_sequences(
    rounds: Callable[[int, int], int], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("PYTEST_MACHINE_SEED") or (random.randrange(10**6) if FULL else 2030))
    record_property("seed", seed)
    print(f"seed {seed}; the same again: PYTEST_MACHINE_SEED={seed}")
    examples, steps = rounds(25, 3), rounds(30, 20)
    limit = (60 + 5 * examples * steps) * SLOWNESS
    arguments = (str(seed), str(examples), str(steps), str(tmp_path / "sequences"))
    done = private.run("tests.real.sequences", *arguments, timeout=limit)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    played = json.loads(done.stdout.splitlines()[-1])
    assert len(played["machines"]) >= examples
    assert sum(played["machines"]) > 0, "no sequence made a machine"
