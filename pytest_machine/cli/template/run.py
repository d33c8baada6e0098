"""Runs the nodes of a template on data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from .errors import TemplateError, Wrong
from .nodes import Literal, Name, Node, Operand, Pipe
from .parse import Parser
from .values import Absent, field_of, given, printed, true


class Break(Exception):
    """``{{break}}`` was run."""


class Continue(Exception):
    """``{{continue}}`` was run."""


class Run:
    """One run of a template. `out` is what it has made so far."""

    def __init__(self, parsed: Parser, data: object) -> None:
        self._parsed = parsed
        self._variables: list[tuple[str, object]] = [("$", data)]
        self._depth = 0
        self._place = (1, 0, "")
        self.out: list[str] = []

    def wrong(self, why: str) -> TemplateError:
        """Return the error, in Go's words, at the action that is being run."""
        line, column, action = self._place
        return TemplateError(f'template: :{line}:{column}: executing "" at <{action}>: {why}')

    def nodes(self, nodes: Sequence[Node], dot: object) -> None:
        """Run nodes; variables that they declare end with them."""
        known = len(self._variables)
        try:
            for node in nodes:
                self._node(node, dot)
        finally:
            del self._variables[known:]

    def _node(self, node: Node, dot: object) -> None:
        if node.kind != "text":
            self._place = node.place
        if node.kind == "text":
            self.out.append(node.text)
        elif node.kind == "break":
            raise Break
        elif node.kind == "continue":
            raise Continue
        elif node.kind == "template":
            self._template(node, dot)
        elif node.kind == "range":
            self._range(node, dot)
        else:
            assert node.pipe is not None
            if node.kind == "pipe":
                value = self._pipe(node.pipe, dot)
                if not node.pipe.names:
                    self.out.append(printed(value))
                return
            known = len(self._variables)
            value = self._pipe(node.pipe, dot)
            if true(value):
                self.nodes(node.body, value if node.kind == "with" else dot)
            else:
                self.nodes(node.other, dot)
            del self._variables[known:]

    def _template(self, node: Node, dot: object) -> None:
        if node.text not in self._parsed.named:
            raise Wrong(f'template "{node.text}" not defined')
        self._depth += 1
        if self._depth > 100:
            raise RecursionError
        value = self._pipe(node.pipe, dot) if node.pipe else None
        outer, self._variables = self._variables, [("$", value)]
        self.nodes(self._parsed.named[node.text], value)
        self._variables = outer
        self._depth -= 1

    def _range(self, node: Node, dot: object) -> None:
        assert node.pipe is not None
        pairs = _pairs(self._value(node.pipe, dot))
        known = len(self._variables)
        for key, element in pairs:
            each = given(element)
            if len(node.pipe.names) == 1:
                self._set(node.pipe, (each,))
            elif node.pipe.names:
                self._set(node.pipe, (key, each))
            try:
                self.nodes(node.body, each)
            except Break:
                break
            except Continue:
                continue
            finally:
                del self._variables[known:]
        if not pairs:
            self.nodes(node.other, dot)

    def _pipe(self, pipe: Pipe, dot: object) -> object:
        value = self._value(pipe, dot)
        if pipe.names:
            self._set(pipe, (value,) * len(pipe.names))
        return value

    def _set(self, pipe: Pipe, values: Sequence[object]) -> None:
        for name, value in zip(pipe.names, values, strict=True):
            if pipe.declares:
                self._variables.append((name, value))
                continue
            for place in range(len(self._variables) - 1, -1, -1):
                if self._variables[place][0] == name:
                    self._variables[place] = (name, value)
                    break
            else:
                raise Wrong(f"undefined variable: {name}")

    def _value(self, pipe: Pipe, dot: object) -> object:
        piped: tuple[object, ...] = ()
        for first, *rest in pipe.commands:
            if isinstance(first, Name):
                piped = (self._call(first.name, rest, piped, dot),)
            elif first == Literal(None):
                raise Wrong("nil is not a command")
            elif rest or piped:
                raise Wrong("can't give argument to non-function")
            else:
                piped = (self._operand(first, dot),)
        return piped[0]

    def _call(self, name: str, operands: Sequence[Operand], piped: tuple[object, ...], dot: object) -> object:
        function = self._parsed.functions[name]
        _count(name, function, len(operands) + len(piped))
        if name in ("and", "or"):  # these look no further than they must
            value: object = None
            for operand in (*operands, *map(Literal, piped)):
                value = self._operand(operand, dot)
                if true(value) == (name == "or"):
                    return value
            return value
        values = [*(self._operand(operand, dot) for operand in operands), *piped]
        try:
            return function(*values)
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise Wrong(f"error calling {name}: {error}") from error

    def _operand(self, operand: Operand, dot: object) -> object:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Name):
            return self._call(operand.name, (), (), dot)
        if isinstance(operand, Pipe):
            return self._pipe(operand, dot)
        if isinstance(operand.base, Pipe):
            value = self._pipe(operand.base, dot)
        elif operand.base:
            value = self._variable(operand.base)
        else:
            value = dot
        for name in operand.fields:
            value = field_of(value, name)
        return value

    def _variable(self, name: str) -> object:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise Wrong(f"undefined variable: {name}")


def _count(name: str, function: Callable[..., object], given: int) -> None:
    """Raise unless a function takes as many arguments."""
    known = inspect.signature(function).parameters.values()
    least = sum(each.kind is not each.VAR_POSITIONAL for each in known)
    more = least < len(known)
    if given < least or (given > least and not more):
        raise Wrong(f"wrong number of args for {name}: want {'at least ' if more else ''}{least} got {given}")


def _pairs(value: object) -> list[tuple[object, object]]:
    """Return what a range goes through: keys or places, and what is there."""
    if isinstance(value, dict):
        return sorted(value.items(), key=lambda pair: str(pair[0]))
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if value is None or isinstance(value, Absent):
        return []
    raise Wrong(f"range can't iterate over {printed(value)}")
