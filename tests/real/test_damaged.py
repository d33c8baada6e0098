"""Damaged files and full disks below real machines, each on a host of its own."""

from __future__ import annotations

import pytest

from tests.conftest import SLOWNESS

from . import private
from .damaged import CASES


@pytest.mark.real
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_after(case: str) -> None:
    done = private.run("tests.real.damaged", case, timeout=180 * SLOWNESS, size="128m")
    assert done.returncode == 0, done.stdout
