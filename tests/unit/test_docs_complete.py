"""Everything that a user can name is in the documentation."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import pytest_machine
from pytest_machine import driver, errors, hookspecs
from pytest_machine.plugin import marker, settings

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str) -> set[str]:
    """Return what the first cells of a page's tables name, without quotes, stars and equal signs."""
    text = (DOCS / page).read_text("utf-8")
    return {
        name for cell in re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE) for name in re.findall(r"[\w-]+", cell)
    }


def error_classes() -> list[str]:
    return [
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.MachineError)
    ]


@pytest.mark.parametrize("name", error_classes())
def test_every_error_is_in_the_tree_that_the_page_shows(name: str) -> None:
    assert re.search(rf"\b{name}\b", inspect.getdoc(errors) or "")
    assert (getattr(errors, name).__doc__ or "").strip(), "the page shows docstrings"


def test_the_page_of_errors_shows_them_all() -> None:
    page = (DOCS / "errors.md").read_text("utf-8")
    assert re.search(r"automodule:: pytest_machine\.errors\n +:members:$", page, re.MULTILINE)


def test_every_argument_of_the_marker() -> None:
    assert rows("reference/marker.md") == {*marker.ARGUMENTS, "names"}


def test_every_value_of_reuse_and_teardown() -> None:
    page = (DOCS / "reference/marker.md").read_text("utf-8")
    missing = [word for word in (*marker.REUSE, *marker.TEARDOWN) if f'"{word}"' not in page]
    assert not missing


def test_every_fixture(pytester: pytest.Pytester) -> None:
    """What `pytest --fixtures` lists from our plugin."""
    shown = pytester.runpytest_inprocess("--fixtures", "-p", "no:cacheprovider").stdout.str()
    ours = set(re.findall(r"^(\w+)(?: \[\w+ scope\])? -- .*pytest_machine[/\\]plugin", shown, re.MULTILINE))
    assert rows("reference/fixtures.md") == ours


def test_every_need() -> None:
    assert rows("reference/needs.md") == driver.NEEDS


def test_every_capability_names_its_protocol() -> None:
    page = (DOCS / "reference/needs.md").read_text("utf-8")
    for word, protocol in driver.CAPABILITIES.items():
        assert f"| `{word}` | `{protocol.__name__}` |" in page


def test_every_ini_option_and_flag(pytester: pytest.Pytester) -> None:
    """`pytest --help` lists what the page's table is made from."""
    shown = pytester.runpytest_inprocess("--help").stdout.str()
    page = (DOCS / "reference/configuration.md").read_text("utf-8")
    assert "```{settings}" in page
    assert {one.ini for one in settings.SETTINGS} == set(re.findall(r"^  (machine_\w+)", shown, re.MULTILINE))
    assert {one.flag for one in settings.SETTINGS} == set(re.findall(r"^  (--machine-[\w-]+)", shown, re.MULTILINE))


def test_every_hook() -> None:
    page = (DOCS / "reference/drivers.md").read_text("utf-8")
    hooks = [name for name, found in vars(hookspecs).items() if name.startswith("pytest_machine_") and callable(found)]
    assert hooks
    for name in hooks:
        assert name in page


def faults() -> dict[str, type]:
    return {
        name: getattr(pytest_machine, name)
        for name, home in pytest_machine._HOMES.items()
        if home.startswith("faults.")
    }


@pytest.mark.parametrize("name", faults())
def test_every_fault(name: str) -> None:
    """It is in the table that its docstring makes, with an example; and among what says what it takes."""
    page = (DOCS / "faults.md").read_text("utf-8")
    assert "```{faults}" in page
    assert f"``{name}(" in (faults()[name].__doc__ or ""), "no example in its docstring"
    takes = page.partition("## Requirements")[2].partition("\n\nIf")[0]
    assert f"`{name}`" in takes or name == "Partition"


def test_every_fault_can_be_imported() -> None:
    """Whatever a module of faults defines, and whatever makes a cut."""
    for path in (DOCS.parent / "pytest_machine" / "faults").iterdir():
        if path.stem.startswith("__"):
            continue
        module = importlib.import_module(f"pytest_machine.faults.{path.stem}")
        for name, found in vars(module).items():
            if inspect.isclass(found) and found.__module__ == module.__name__ and hasattr(found, "inject"):
                assert name.startswith("_") or name == "NetworkFault" or name in pytest_machine.__all__
    page = (DOCS / "faults.md").read_text("utf-8")
    assert all(name in page for name in ("halves", "isolate", "bridge", "majorities_ring"))


def test_every_python_block_is_python() -> None:
    for path in [DOCS.parent / "README.md", *DOCS.rglob("*.md")]:
        text = path.read_text("utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            # "driver=," says that the argument is there, not what it may be.
            code = re.sub(r"=(?=[,)])", "=...", block[1])
            if code.lstrip().startswith("@") and "def " not in code:
                code = f"{code}\ndef f(): ..."
            compile(code, f"{path}:{text.count(chr(10), 0, block.start()) + 1}", "exec")
