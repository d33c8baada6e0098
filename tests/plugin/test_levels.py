"""Marks of collected tests come out widest level first, each level as it stands in the source."""

from __future__ import annotations

import pytest

from pytest_machine.plugin import levels

SOURCE = """
    import unittest
    import pytest

    machine = pytest.mark.machine
    pytestmark = [machine("module-1"), pytest.mark.filterwarnings("error"), machine("module-2")]

    @machine("function-1")
    @pytest.mark.filterwarnings("error")
    @machine("function-2")
    def test_function(): ...

    @machine("base-1")
    @machine("base-2")
    class Base:
        pass

    @machine("decorator-1")
    @machine("decorator-2")
    class TestClass(Base):
        pytestmark = [machine("body-1"), machine("body-2")]

        @machine("method-1")
        @machine("method-2")
        def test_method(self): ...

    class TestBody:
        pytestmark = [machine("body-1"), machine("body-2")]

        def test_method(self): ...

    class TestOther:
        @pytest.mark.parametrize("x", [pytest.param(1, marks=[machine("param-1"), machine("param-2")])])
        @machine("method")
        def test_parametrised(self, x): ...

    @machine("decorator-1")
    @machine("decorator-2")
    class TestUnit(unittest.TestCase):
        @machine("method-1")
        @machine("method-2")
        def test_method(self): ...
"""


def names(item: pytest.Item) -> list[list[str]]:
    return [[name for one in level for name in one.args] for level in _ours(item) if level]


def _ours(item: pytest.Item) -> list[list[pytest.Mark]]:
    return [[mark for mark in level if mark.name == "machine"] for level in levels.levels(item)]


MODULE = ["module-1", "module-2"]


@pytest.mark.parametrize(
    ("nodeid", "wanted"),
    [
        ("::test_function", [MODULE, ["function-1", "function-2"]]),
        (
            "::TestClass::test_method",
            [
                MODULE,
                ["base-1", "base-2"],
                ["decorator-1", "decorator-2", "body-1", "body-2"],
                ["method-1", "method-2"],
            ],
        ),
        ("::TestBody::test_method", [MODULE, ["body-1", "body-2"]]),
        ("::TestOther::test_parametrised[1]", [MODULE, ["method"], ["param-1", "param-2"]]),
        ("::TestUnit::test_method", [MODULE, ["decorator-1", "decorator-2"], ["method-1", "method-2"]]),
    ],
)
def test_source_order(pytester: pytest.Pytester, nodeid: str, wanted: list[list[str]]) -> None:
    items = pytester.getitems(SOURCE)
    (item,) = (item for item in items if item.nodeid.endswith(nodeid))
    assert names(item) == wanted


@pytest.mark.parametrize(("append", "wanted"), [(True, [["hook"], ["function"]]), (False, [["function"], ["hook"]])])
def test_added_by_a_hook(pytester: pytest.Pytester, append: bool, wanted: list[list[str]]) -> None:
    item = pytester.getitem("import pytest\n\n@pytest.mark.machine('function')\ndef test_it(): ...", "test_it")
    item.add_marker(pytest.mark.machine("hook"), append=append)
    assert names(item) == wanted
