"""What the operating system refuses during a run is a sentence with a hint, never an error number alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]


def shown(*argv: str) -> str:
    return subprocess.run([*PYTEST, *argv], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("spare", [1, 3, 5, 8])
def test_too_many_open_files(inner: pytest.Pytester, spare: int) -> None:
    """Wherever in the making of a machine the limit is met."""
    resource = pytest.importorskip("resource")
    assert resource
    inner.makepyfile(
        f"""
        import os, pytest, resource

        @pytest.fixture
        def scarce():
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            next_one = os.dup(1)
            os.close(next_one)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_one + {spare}, before[1]))
            yield
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

        def test_it(scarce, request): request.getfixturevalue("machine")
        """
    )
    text = shown()
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    if "1 passed" not in text:
        assert "Too many open files" in text
        assert "ulimit -n 4096" in text


def test_a_directory_of_artifacts_that_vanishes(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import pathlib, shutil

        def test_it(machine):
            shutil.rmtree("art", ignore_errors=True)
            pathlib.Path("art").touch()
            assert 0
        """
    )
    text = shown("--machine-artifacts=art")
    assert "1 failed" in text
    lines = [line for line in text.splitlines() if line.startswith("no file ")]
    assert lines
    assert all("art" in line and "Not a directory (hint: " in line for line in lines)
