"""The examples of the documentation do what they say: each block below a ``<!-- run -->`` is a test module that passes.

Containers come from an image that is imported before the test, because a test of ours must not need a registry.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo.conftest import busybox_archive
from pytest_machine.errors import DriverUnavailable
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry

TOP = Path(__file__).parents[2]
BLOCK = re.compile(r"^<!-- run -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

CONFTEST = '''
import pathlib
import pytest

ARCHIVE = pathlib.Path(__file__).with_name("busybox.tar").read_bytes()


@pytest.fixture(autouse=True)
def busybox(request):
    """Put the image that the examples pull on the machines that they pull it to."""
    if "machines" in request.fixturenames:  # those of `lab`, `machine` and `swarm` too
        for machine in request.getfixturevalue("lab").machines:
            machine.docker.api.import_image_from_data(ARCHIVE, repository="busybox", tag="latest")
'''


def pages() -> dict[str, list[tuple[int, str]]]:
    """Return each page that has blocks to run, with (line number, code) of each."""
    found = {}
    for path in [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]:
        text = path.read_text("utf-8")
        if blocks := [(text.count("\n", 0, block.start()) + 1, block[1]) for block in BLOCK.finditer(text)]:
            found[path.relative_to(TOP).as_posix()] = blocks
    return found


@pytest.fixture(scope="module", autouse=True)
def _runc() -> None:
    try:
        Registry().configure(Spec(driver="runc")).check()
    except DriverUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("page", pages())
def test_blocks_of(page: str, tmp_path: Path) -> None:
    blocks = pages()[page]
    for line, code in blocks:
        (tmp_path / f"test_line_{line}.py").write_text(code, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")  # the root: nothing of this project's settings
    (tmp_path / "conftest.py").write_text(CONFTEST, "utf-8")
    (tmp_path / "busybox.tar").write_bytes(busybox_archive())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "--machine-driver=runc", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
