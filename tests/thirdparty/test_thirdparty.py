"""A stranger's distribution adds a driver by an entry point, and holds it to the published suite."""

from __future__ import annotations

import importlib
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from pytest_machine.errors import BadSpec, UnknownDriver, Unsupported
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry

PAPER = Path(__file__).parent / "paper"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the distribution as a wheel would: its module, and a dist-info that says what its pyproject says."""
    site = tmp_path / "site"
    project = tomllib.loads((PAPER / "pyproject.toml").read_text("utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    shutil.copy(PAPER / "pytest_machine_paper.py", site)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", "utf-8"
    )
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.delitem(sys.modules, "pytest_machine_paper", raising=False)
    importlib.invalidate_caches()
    return site


def test_unknown_before() -> None:
    with pytest.raises(UnknownDriver, match="paper"):
        Registry().driver("paper")


def test_found_by_its_entry_point(installed: Path) -> None:
    registry = Registry()
    assert "paper" in registry.names()
    assert "runc" in registry.names()
    driver = registry.configure(Spec(driver="paper", options={"folder": str(installed)}))
    assert driver.name == "paper"
    driver.check()


def test_its_options_and_needs_are_checked(installed: Path) -> None:
    registry = Registry()
    with pytest.raises(BadSpec, match="did you mean 'folder'"):
        registry.configure(Spec(driver="paper", options={"foldr": str(installed)}))
    with pytest.raises(Unsupported, match="'paper' does not have 'pause'"):
        registry.configure(Spec(driver="paper", needs=frozenset({"pause"})))


def test_its_suite_passes(installed: Path, pytester: pytest.Pytester) -> None:
    """Ten lines, and what it does not claim is skipped by name."""
    pytester.makepyfile(test_paper=(PAPER / "test_paper.py").read_text("utf-8"))
    result = pytester.runpytest_subprocess("-rs", "-p", "no:cacheprovider", "-W", "error")
    assert set(result.parseoutcomes()) == {"passed", "skipped"}
    assert result.parseoutcomes()["passed"] == 22
    result.stdout.fnmatch_lines("*the driver 'paper' does not claim 'snapshots' (SupportsSnapshots)*")
