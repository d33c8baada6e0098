"""What mypy and pyright say about the code of users: right code is clean, and each wrong line is refused by both."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
RIGHT, WRONG = TOP / "tests/typing/right", TOP / "tests/typing/wrong"
FILES = sorted([*RIGHT.glob("*.py"), *WRONG.glob("*.py")])


def mypy(tmp_path: Path) -> set[tuple[Path, int]]:
    """Return the lines that ``mypy --strict`` refuses."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-warn-unused-ignores", "--config-file", "/dev/null"]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path), "--no-error-summary", "--explicit-package-bases", *map(str, FILES)],
        cwd=TOP, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    found = re.findall(r"^(.+?):(\d+): error:", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return {(TOP / file, int(line)) for file, line in found}


def pyright(tmp_path: Path) -> set[tuple[Path, int]]:
    """Return the lines that pyright refuses, in its standard mode."""
    program = shutil.which("basedpyright", path=str(Path(sys.executable).parent)) or shutil.which("basedpyright")
    if program is None:
        pytest.skip("basedpyright is not installed (pip install --group types)")
    config = tmp_path / "pyrightconfig.json"
    # Absolute paths: they are else seen from the configuration's own place.
    config.write_text(
        json.dumps({"typeCheckingMode": "standard", "include": [str(RIGHT), str(WRONG)], "extraPaths": [str(TOP)]})
    )
    done = subprocess.run(
        [program, "--project", str(config), "--pythonpath", sys.executable, "--outputjson"],
        cwd=TOP, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {(Path(each["file"]), each["range"]["start"]["line"] + 1) for each in found if each["severity"] == "error"}


@pytest.mark.real
@pytest.mark.parametrize("check", [mypy, pyright])
def test_the_code_of_users(check: object, tmp_path: Path) -> None:
    assert callable(check)
    wanted = {
        (file, number)
        for file in FILES
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if line.endswith("# error")
    }
    assert {file for file, _ in wanted} == set(WRONG.glob("*.py"))
    assert check(tmp_path) == wanted
