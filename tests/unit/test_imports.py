from __future__ import annotations

import subprocess
import sys

import pytest

# What costs a tenth of a second and more, and is needed only once there is a machine.
HEAVY = ["cryptography", "docker", "requests", "http.server", "asyncio"]


@pytest.mark.real
@pytest.mark.parametrize(
    "module", ["certs", "engine", "facts", "guest", "owner", "ssh", "store", "waiting", "hookspecs", "options"]
)
def test_nothing_heavy_is_imported_with(module: str) -> None:
    code = f"import sys, pytest_machine.{module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
