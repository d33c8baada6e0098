"""Test runs on real machines that are killed at random moments: nothing is left of any, by the host's own tools."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SLOWNESS

from . import private

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("usable")]


def test_nothing_is_left_of_runs_that_are_killed_at_random_moments(
    rounds: Callable[[int, int], int], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("PYTEST_MACHINE_SEED") or random.randrange(10**6))
    again = "python -m tests.real.test_chaos SEED MOMENTS NUMBER"
    record_property("seed", seed)
    print(f"seed {seed}; the same again: PYTEST_MACHINE_SEED={seed}; one round: {again}")
    count = rounds(60, 6)
    limit = (60 + 30 * count) * SLOWNESS
    done = private.run("tests.real.chaos", str(seed), str(count), str(tmp_path / "chaos"), timeout=limit)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    played = [line for line in lines if "number" in line]
    print(done.stdout)
    assert len(played) == count, "it broke off"
    assert [line for line in played if line["left"]] == []
    assert [line for line in played if line["soup"]] == []
    assert sum(line["machines"] for line in played) > 0, "not one run was hit while it had machines"


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        print(
            private.run(
                "tests.real.chaos", sys.argv[1], sys.argv[2], f"{directory}/c", *sys.argv[3:], timeout=3600
            ).stdout
        )
