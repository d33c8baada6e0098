"""The project's rules bite: a rule that nothing can break is none."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def ruff(source: str, *, as_file: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--no-cache",
            "--output-format=concise",
            "--stdin-filename",
            as_file,
            "-",
        ],
        input=source,
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=TOP,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["fcntl", "grp", "pwd", "resource", "termios"])
@pytest.mark.parametrize("form", ["import {0}", "from {0} import error", "def f():\n    import {0}"])
def test_what_only_unix_has_stays_in_linux_drivers(module: str, form: str) -> None:
    source = form.format(module)
    assert "TID251" in ruff(source, as_file="pytest_machine/store.py")
    assert "TID251" in ruff(source, as_file="pytest_machine/plugin/levels.py")
    assert "TID251" not in ruff(source, as_file="pytest_machine/drivers/runc/anything.py")


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        pytest.param("model.py", "from . import store", "Imports only go down", id="up"),
        pytest.param("nowhere.py", "", "Imports only go down", id="a room that no floor knows"),
        pytest.param("drivers/other.py", "from .runc import RuncDriver", "Drivers are strangers", id="between drivers"),
        pytest.param("driver.py", "import pytest", "need no pytest", id="pytest below the plugin"),
    ],
)
def test_floors(tmp_path: Path, module: str, line: str, contract: str) -> None:
    """A copy of the package with one wrong import is refused, by the contract that it breaks."""
    for path in [TOP / "pyproject.toml", *(TOP / "pytest_machine").rglob("*.py")]:
        copy = tmp_path / path.relative_to(TOP)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    wrong = tmp_path / "pytest_machine" / module
    text = wrong.read_text("utf-8") if wrong.exists() else '"""A room."""\n'
    wrong.write_text(f"{text}\n{line}\n", "utf-8")
    program = textwrap.dedent("""
        import sys
        sys.path.insert(0, ".")
        from importlinter.cli import lint_imports
        sys.exit(lint_imports(config_filename="pyproject.toml", cache_dir=None))
    """)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    broken = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert len(broken) == 1, done.stdout + done.stderr
    assert contract in broken[0]


def test_the_design_page_shows_the_floors_that_are_held() -> None:
    """Every room that there is, on its floor, in the table as in the contract."""
    held = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]["layers"]
    there = {path.stem for path in (TOP / "pytest_machine").iterdir() if path.suffix == ".py" or path.is_dir()}
    floors = [set(re.findall(r"\w+", layer)) & there - {"__main__"} for layer in held]
    page = (TOP / "docs/design.md").read_text("utf-8")
    rows = re.findall(r"^\| \d \| (.*?) \|", page, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)/?`", row)) & there for row in rows] == [floor for floor in floors if floor]


def test_no_room_is_forgotten_where_pytest_is_forbidden() -> None:
    contract = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][-1]
    there = {path.stem for path in (TOP / "pytest_machine").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {
        f"pytest_machine.{room}" for room in there - {"__init__", "__main__", "__pycache__", "plugin", "testing"}
    } == {*contract["source_modules"]}


def test_the_oldest_dependencies_are_those_that_are_tried() -> None:
    """What `tox -e lowest` installs is what the package says that it can live with."""
    said = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(TOP / "tox.ini", "utf-8")
    tried = tox["testenv:lowest"]["deps"].split()
    assert [name.replace("==", ">=") for name in tried] == said
