"""Power loss, a deleted store, a full disk: on a host of its own, judged by that host's own tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import SLOWNESS

from . import private
from .mishaps import MISHAPS

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("usable")]


@pytest.mark.parametrize("mishap", [each.__name__ for each in MISHAPS])
def test_nothing_is_left_after(mishap: str, tmp_path: Path) -> None:
    limit = 180 * SLOWNESS
    done = private.run("tests.real.mishaps", mishap, str(tmp_path / "host"), timeout=limit, size="256m")
    assert done.returncode == 0, done.stdout
