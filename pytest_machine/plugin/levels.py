"""Where the ``machine`` marks of a pytest node stand: its levels, widest first, each in source order.

pytest hands out marks closest first, and those of decorators bottom up, because that is the order in which Python
applies them; a ``pytestmark`` list it keeps as written. People read top to bottom, so decorators are turned round here.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Sequence

import pytest
from _pytest.nodes import Node

from .marker import Asked, merge, read
from .matrix import settled

NAME = "machine"


def asked(node: pytest.Item | pytest.Collector, nearest: Sequence[Asked] = ()) -> list[Asked]:
    """Return the machines that `node` asks for by its marks; raise `BadSpec`. `nearest` is a further, nearest level."""
    return [settled(node, one) for one in merge([*machines(node), nearest])]


def machines(node: pytest.Item | pytest.Collector) -> list[list[Asked]]:
    """Return what each level of `node` asks for, widest first."""
    folders = [node.path.parent, node.config.rootpath]
    return [
        [one for mark in level if mark.name == NAME for one in read(mark.args, mark.kwargs, folders)]
        for level in levels(node)
    ]


def levels(node: pytest.Item | pytest.Collector) -> list[list[pytest.Mark]]:
    """Return the marks that hold for `node`, in groups: widest level first, in each as they stand in the source."""
    found: list[list[pytest.Mark]] = []
    for part in node.listchain():
        if any(mark.name == NAME for mark in part.own_markers):
            found += _of(part)
    return found


def _of(node: Node) -> list[list[pytest.Mark]]:
    """Return the levels of one node: a class has its bases' below it, a function its parameters' above it."""
    written: list[list[pytest.Mark]] = []
    thing = getattr(node, "obj", None)
    if isinstance(node, pytest.Class) and isinstance(thing, type):
        written = [_of_class(part) for part in reversed(thing.__mro__)]
    elif isinstance(node, pytest.Function):
        written = [_marks(getattr(thing, "pytestmark", ()))[::-1]]
        # Parameters are marked by `pytest.param(…, marks=[…])`: written in order, and nearer than the function.
        written.append(list(node.callspec.marks) if hasattr(node, "callspec") else [])
    # What a hook added by `add_marker` is not written on the object: behind the others it is wider, before them nearer.
    known = {id(mark) for level in written for mark in level}
    own = node.own_markers
    places = [i for i, mark in enumerate(own) if id(mark) in known]
    before = [mark for mark in own[: places[0] if places else 0] if id(mark) not in known]
    after = [mark for mark in own[len(before) :] if id(mark) not in known]
    return [after, *written, before]


def _of_class(cls: type) -> list[pytest.Mark]:
    """Return the marks of one class: its decorators from the top, then its body's ``pytestmark``."""
    marks = _marks(cls.__dict__.get("pytestmark", ()))
    if sum(mark.name == NAME for mark in marks) < 2:
        return marks
    body = _in_body(cls, len(marks))
    return marks[body:][::-1] + marks[:body]


def _in_body(cls: type, total: int) -> int:
    """Return how many of a class's marks are from ``pytestmark = …`` in its body; the others are decorators.

    Only the source can tell: by now both are one list.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError, SyntaxError):
        return 0
    if not isinstance(tree, ast.ClassDef):
        return 0
    for line in tree.body:
        targets = (
            line.targets if isinstance(line, ast.Assign) else [line.target] if isinstance(line, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in targets):
            value = line.value  # type: ignore[attr-defined]  # an assignment has one
            if isinstance(value, ast.List | ast.Tuple):
                return len(value.elts)
            return max(total - len(tree.decorator_list), 0)
    return 0


def _marks(found: object) -> list[pytest.Mark]:
    listed = found if isinstance(found, list | tuple) else [found]
    return [mark for one in listed if isinstance(mark := getattr(one, "mark", one), pytest.Mark)]
