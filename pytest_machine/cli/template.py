"""Go's text/template, as far as people write it behind ``-f``: a template is parsed to nodes, and these are run.

The data are what JSON can say. As in Go, a number of theirs is a float64, a missing key prints ``<no value>``, and a
field of nothing is an error; so is one that a `Struct` does not have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote_plus

from pytest_machine.errors import UsageError


class TemplateError(UsageError):
    """A template that cannot be run on these data; or not be read: then it is a `TemplateUnread`."""


class TemplateUnread(TemplateError):
    """A template that cannot be read."""


class Struct(dict[str, object]):
    """A map as Go's structs are: printed without its keys, and to ask it for one that it does not have is an error."""

    def __init__(self, kind: str, fields: Mapping[str, object]) -> None:
        super().__init__(fields)
        self.kind = kind
        """What Go calls its type."""


class Template:
    """A template that was read; `functions` are further ones, by name. Raises `TemplateUnread`."""

    def __init__(self, source: str, functions: Mapping[str, Callable[..., object]] | None = None) -> None:
        self._parsed = _Parser(source, {**_FUNCTIONS, **(functions or {})})

    def render(self, data: object) -> str:
        """Return what it makes of data; raises `TemplateError`."""
        run = _Run(self._parsed, data)
        try:
            run.nodes(self._parsed.main, data)
        except (_Break, _Continue):
            raise run.wrong("{{break}} and {{continue}} belong into {{range}}") from None
        except RecursionError:
            raise run.wrong("it is nested too deeply") from None
        except _Wrong as error:
            raise run.wrong(str(error)) from error
        return "".join(run.out)


def render(source: str, data: object, functions: Mapping[str, Callable[..., object]] | None = None) -> str:
    """Return what a template makes of data; see `Template`."""
    return Template(source, functions).render(data)


class _Wrong(Exception):
    """What is wrong, before it is known where."""


def _wrong(why: str) -> _Wrong:
    return _Wrong(why)


# What a template is made of.


@dataclass(frozen=True, slots=True)
class _Literal:
    value: object


@dataclass(frozen=True, slots=True)
class _Name:
    """A function."""

    name: str


@dataclass(frozen=True, slots=True)
class _Path:
    """Fields of the dot (`base` empty), of a variable, or of what is in parentheses."""

    base: str | _Pipe
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Pipe:
    commands: tuple[tuple[_Operand, ...], ...]
    names: tuple[str, ...] = ()
    declares: bool = False


_Operand: TypeAlias = "_Literal | _Name | _Path | _Pipe"


@dataclass(slots=True)
class _Node:
    kind: str
    """``text``, ``pipe``, ``if``, ``range``, ``with``, ``template``, ``break`` or ``continue``."""
    text: str = ""
    pipe: _Pipe | None = None
    place: tuple[int, int, str] = (1, 0, "")
    """Line and column of an action, and what it says."""
    body: list[_Node] = field(default_factory=list)
    other: list[_Node] = field(default_factory=list)


_ACTION = re.compile(
    r"""\{\{(-\s)?(?:/\*.*?\*/|((?:"(?:\\.|[^"\\\n])*"|`[^`]*`|'(?:\\.|[^'\\\n])*'|[^"`'])*?))(\s-)?\}\}""", re.DOTALL
)
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:\\.|[^"\\\n])*") | (?P<raw>`[^`]*`) | (?P<char>'(?:\\.|[^'\\\n])+')
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
    | (?P<field>\.[^\W\d]\w*) | (?P<variable>\$\w*) | (?P<name>[^\W\d]\w*)
    | (?P<sign>:=|[=|(),.])
    )(?P<space>\s*)""",
    re.VERBOSE,
)
_BLOCKS = ("if", "range", "with", "define", "block")


class _Parser:
    """Reads a template into nodes."""

    def __init__(self, source: str, functions: Mapping[str, Callable[..., object]]) -> None:
        self.functions = functions
        self.named: dict[str, list[_Node]] = {}
        self._place = (1, 0, "")
        self._next = 0
        try:
            self._parts = list(self._split(source))
            self.main, ended = self._list()
            if ended:
                raise _wrong(f"unexpected {{{{{ended}}}}}")
        except _Wrong as error:
            raise TemplateUnread(f"template: :{self._place[0]}: {error}") from error
        except RecursionError:
            raise TemplateUnread(f"template: :{self._place[0]}: it is nested too deeply") from None

    def _split(self, source: str) -> Iterator[tuple[tuple[int, int, str] | None, str]]:
        """Yield texts, and insides of actions with their places."""
        place, trim = 0, False
        while (start := source.find("{{", place)) >= 0:
            found = _ACTION.match(source, start)
            self._place = (source.count("\n", 0, start) + 1, start, "")
            if found is None:
                raise _wrong("unclosed action")
            text = source[place:start]
            yield None, self._trimmed(text, left=trim, right=bool(found[1]))
            if found[2] is not None:
                inside = found.start(2) + len(found[2]) - len(found[2].lstrip())
                column = inside - source.rfind("\n", 0, inside) - 1
                yield (source.count("\n", 0, inside) + 1, column, found[2].strip()), found[2].strip()
            place, trim = found.end(), bool(found[3])
        yield None, self._trimmed(source[place:], left=trim, right=False)

    @staticmethod
    def _trimmed(text: str, *, left: bool, right: bool) -> str:
        text = text.lstrip(" \t\r\n") if left else text
        return text.rstrip(" \t\r\n") if right else text

    def _list(self) -> tuple[list[_Node], str]:
        """Return the nodes up to an ``end`` or ``else``, and that action; empty at the end of the template."""
        nodes: list[_Node] = []
        while self._next < len(self._parts):
            place, text = self._parts[self._next]
            self._next += 1
            if place is None:
                if text:
                    nodes.append(_Node("text", text))
                continue
            self._place = place
            word = (re.match(r"\w+", text) or [""])[0]
            if word in ("end", "else"):
                return nodes, text
            for node in self._action(word, text):
                node.place = place
                nodes.append(node)
        return nodes, ""

    def _action(self, word: str, text: str) -> list[_Node]:
        rest = text[len(word) :].strip()
        if word in _BLOCKS:
            return self._block(word, rest)
        if word in ("break", "continue"):
            if rest:
                raise _wrong(f"unexpected '{rest}' in {{{{{word}}}}}")
            return [_Node(word)]
        if word == "template":
            name, pipe = self._called(rest)
            return [_Node("template", name, pipe)]
        if not text:
            raise _wrong("missing value for command")
        return [_Node("pipe", pipe=_Tokens(text, self.functions).pipe())]

    def _called(self, text: str) -> tuple[str, _Pipe | None]:
        found = re.match(r"""("(?:\\.|[^"\\\n])*"|`[^`]*`)\s*""", text)
        if found is None:
            raise _wrong("a template is called by its name, in quotes")
        rest = text[found.end() :]
        return _text(found[1]), _Tokens(rest, self.functions).pipe() if rest else None

    def _block(self, word: str, rest: str) -> list[_Node]:
        if word in ("define", "block"):
            name, pipe = self._called(rest)
            body, ended = self._list()
            if ended != "end":
                raise _wrong(f"{{{{{word}}}}} needs an {{{{end}}}}")
            self.named[name] = body
            return [_Node("template", name, pipe)] if word == "block" else []
        node = _Node(word, pipe=_Tokens(rest, self.functions).pipe())
        node.body, ended = self._list()
        if ended.startswith("else"):
            following = ended.removeprefix("else").strip()
            inner = (re.match(r"(if|with)\b", following) or [""])[0]
            if inner:
                # `else if` shares the `end` of what it belongs to.
                node.other = self._block(inner, following[len(inner) :].strip())
                return [node]
            if following:
                raise _wrong(f"unexpected '{following}' behind else")
            node.other, ended = self._list()
        if ended != "end":
            raise _wrong("unexpected {{else}}" if ended else "unexpected EOF")
        return [node]


class _Tokens:
    """Reads the inside of one action."""

    def __init__(self, text: str, functions: Mapping[str, Callable[..., object]]) -> None:
        self._functions = functions
        self._tokens: list[tuple[str, str, bool]] = []
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise _wrong(f"unexpected '{text[place:].strip()[:20]}' in an action")
            kind = next(name for name, word in found.groupdict().items() if word is not None)
            self._tokens.append((kind, found[kind], bool(found["space"])))
            place = found.end()
        self._tokens.reverse()

    def pipe(self) -> _Pipe:
        """Return the pipeline; all there is."""
        names, declares = self._names()
        found = self._pipe(names, declares)
        if self._tokens:
            raise _wrong(f"unexpected '{self._tokens[-1][1]}'")
        return found

    def _names(self) -> tuple[tuple[str, ...], bool]:
        """Return the variables that get the value, and whether they are new."""
        words = [word for _, word, _ in self._tokens[::-1]]
        for count, pattern in ((1, r"\$\w+ (:=|=)"), (2, r"\$\w+ , \$\w+ (:=|=)")):
            taken = 2 * count
            if found := re.fullmatch(pattern, " ".join(words[:taken])):
                del self._tokens[-taken:]
                return tuple(words[0:taken:2]), found[1] == ":="
        return (), False

    def _pipe(self, names: tuple[str, ...] = (), declares: bool = False) -> _Pipe:
        commands = [self._command()]
        while self._tokens and self._tokens[-1][1] == "|" and self._tokens[-1][0] == "sign":
            self._tokens.pop()
            commands.append(self._command())
            if not isinstance(commands[-1][0], _Name):
                raise _wrong("non executable command in pipeline")
        return _Pipe(tuple(commands), names, declares)

    def _command(self) -> tuple[_Operand, ...]:
        operands: list[_Operand] = []
        while self._tokens and not (self._tokens[-1][0] == "sign" and self._tokens[-1][1] in "|)"):
            operands.append(self._operand())
        if not operands:
            raise _wrong("missing value for command")
        return tuple(operands)

    def _operand(self) -> _Operand:
        kind, word, space = self._tokens.pop()
        if kind == "sign" and word == "(":
            inner = self._pipe()
            if not self._tokens or self._tokens[-1][1] != ")":
                raise _wrong("unclosed left paren")
            space = self._tokens.pop()[2]
            fields = () if space else self._fields()
            return _Path(inner, fields) if fields else inner
        if kind == "sign" and word == ".":
            return _Path("", ())
        if kind == "field":
            return _Path("", (word[1:], *(() if space else self._fields())))
        if kind == "variable":
            return _Path(word, () if space else self._fields())
        if kind == "name":
            return self._word(word)
        if kind in ("text", "raw"):
            return _Literal(_text(word))
        if kind == "char":
            return _Literal(_rune(word))
        if kind == "number":
            return _Literal(_number(word))
        raise _wrong(f"unexpected '{word}' in an operand")

    def _word(self, word: str) -> _Operand:
        if word in ("true", "false"):
            return _Literal(word == "true")
        if word == "nil":
            return _Literal(None)
        if word not in self._functions:
            raise _wrong(f'function "{word}" not defined')
        return _Name(word)

    def _fields(self) -> tuple[str, ...]:
        found: list[str] = []
        while self._tokens and self._tokens[-1][0] == "field":
            _, word, space = self._tokens.pop()
            found.append(word[1:])
            if space:
                break
        return tuple(found)


# What runs it.


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Absent:
    """What a key that is not there gives: it prints as such, and counts as nothing."""

    def __bool__(self) -> bool:
        return False


_ABSENT = _Absent()


class _Run:
    def __init__(self, parsed: _Parser, data: object) -> None:
        self._parsed = parsed
        self._variables: list[tuple[str, object]] = [("$", data)]
        self._depth = 0
        self._place = (1, 0, "")
        self.out: list[str] = []

    def wrong(self, why: str) -> TemplateError:
        """Return the error, in Go's words, at the action that is being run."""
        line, column, action = self._place
        return TemplateError(f'template: :{line}:{column}: executing "" at <{action}>: {why}')

    def nodes(self, nodes: Sequence[_Node], dot: object) -> None:
        """Run nodes; variables that they declare end with them."""
        known = len(self._variables)
        try:
            for node in nodes:
                self._node(node, dot)
        finally:
            del self._variables[known:]

    def _node(self, node: _Node, dot: object) -> None:
        if node.kind != "text":
            self._place = node.place
        if node.kind == "text":
            self.out.append(node.text)
        elif node.kind == "break":
            raise _Break
        elif node.kind == "continue":
            raise _Continue
        elif node.kind == "template":
            self._template(node, dot)
        elif node.kind == "range":
            self._range(node, dot)
        else:
            assert node.pipe is not None
            if node.kind == "pipe":
                value = self._pipe(node.pipe, dot)
                if not node.pipe.names:
                    self.out.append(_printed(value))
                return
            known = len(self._variables)
            value = self._pipe(node.pipe, dot)
            if _true(value):
                self.nodes(node.body, value if node.kind == "with" else dot)
            else:
                self.nodes(node.other, dot)
            del self._variables[known:]

    def _template(self, node: _Node, dot: object) -> None:
        if node.text not in self._parsed.named:
            raise _wrong(f'template "{node.text}" not defined')
        self._depth += 1
        if self._depth > 100:
            raise RecursionError
        value = self._pipe(node.pipe, dot) if node.pipe else None
        outer, self._variables = self._variables, [("$", value)]
        self.nodes(self._parsed.named[node.text], value)
        self._variables = outer
        self._depth -= 1

    def _range(self, node: _Node, dot: object) -> None:
        assert node.pipe is not None
        pairs = _pairs(self._value(node.pipe, dot))
        known = len(self._variables)
        for key, element in pairs:
            each = _given(element)
            if len(node.pipe.names) == 1:
                self._set(node.pipe, (each,))
            elif node.pipe.names:
                self._set(node.pipe, (key, each))
            try:
                self.nodes(node.body, each)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self._variables[known:]
        if not pairs:
            self.nodes(node.other, dot)

    def _pipe(self, pipe: _Pipe, dot: object) -> object:
        value = self._value(pipe, dot)
        if pipe.names:
            self._set(pipe, (value,) * len(pipe.names))
        return value

    def _set(self, pipe: _Pipe, values: Sequence[object]) -> None:
        for name, value in zip(pipe.names, values, strict=True):
            if pipe.declares:
                self._variables.append((name, value))
                continue
            for place in range(len(self._variables) - 1, -1, -1):
                if self._variables[place][0] == name:
                    self._variables[place] = (name, value)
                    break
            else:
                raise _wrong(f'undefined variable "{name}"')

    def _value(self, pipe: _Pipe, dot: object) -> object:
        piped: tuple[object, ...] = ()
        for first, *rest in pipe.commands:
            if isinstance(first, _Name):
                piped = (self._call(first.name, rest, piped, dot),)
            elif rest or piped:
                raise _wrong("can't give argument to non-function")
            else:
                piped = (self._operand(first, dot),)
        return piped[0]

    def _call(self, name: str, operands: Sequence[_Operand], piped: tuple[object, ...], dot: object) -> object:
        if name in ("and", "or"):  # these look no further than they must
            value: object = None
            for operand in (*operands, *map(_Literal, piped)):
                value = self._operand(operand, dot)
                if _true(value) == (name == "or"):
                    return value
            if not operands and not piped:
                raise _wrong(f"wrong number of args for {name}: want at least 1 got 0")
            return value
        values = [*(self._operand(operand, dot) for operand in operands), *piped]
        try:
            return self._parsed.functions[name](*values)
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise _wrong(f"error calling {name}: {error}") from error

    def _operand(self, operand: _Operand, dot: object) -> object:
        if isinstance(operand, _Literal):
            return operand.value
        if isinstance(operand, _Name):
            return self._call(operand.name, (), (), dot)
        if isinstance(operand, _Pipe):
            return self._pipe(operand, dot)
        if isinstance(operand.base, _Pipe):
            value = self._pipe(operand.base, dot)
        elif operand.base:
            value = self._variable(operand.base)
        else:
            value = dot
        for name in operand.fields:
            value = _field(value, name)
        return value

    def _variable(self, name: str) -> object:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise _wrong(f'undefined variable "{name}"')


def _pairs(value: object) -> list[tuple[object, object]]:
    """Return what a range goes through: keys or places, and what is there."""
    if isinstance(value, dict):
        return sorted(value.items(), key=lambda pair: str(pair[0]))
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if value is None or isinstance(value, _Absent):
        return []
    raise _wrong(f"range can't iterate over {_printed(value)}")


def _field(value: object, name: str) -> object:
    if isinstance(value, Struct) and name not in value:
        raise _wrong(f"can't evaluate field {name} in type {value.kind}")
    if isinstance(value, dict):
        return _given(value[name]) if name in value else _ABSENT
    if value is None or isinstance(value, _Absent):
        raise _wrong(f"nil pointer evaluating interface {{}}.{name}")
    raise _wrong(f"can't evaluate field {name} in type {_type(value)}")


def _given(value: object) -> object:
    """Return a value of the data as Go has it from JSON."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _true(value: object) -> bool:
    return not isinstance(value, _Absent) and bool(value)


def _type(value: object) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "interface {}")


# How Go prints.


def _printed(value: object) -> str:
    return "<no value>" if value is None or isinstance(value, _Absent) else _plain(value)


def _plain(value: object) -> str:
    if value is None or isinstance(value, _Absent):
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _float(value) if isinstance(value, float) else str(value)
    if isinstance(value, Struct):
        return f"{{{' '.join(_plain(_given(each)) for each in value.values())}}}"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_plain(_given(each))}' for key, each in sorted(value.items()))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(_plain(_given(each)) for each in value)}]"
    return str(value)


def _float(value: float) -> str:
    """Return it in the fewest digits that mean it, with an exponent from a million on."""
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[repr(value)]
    digits, _, exponent = f"{value:.17e}".partition("e")
    for precision in range(18):
        shortest = f"{value:.{precision}e}"
        if float(shortest) == value:
            digits, _, exponent = shortest.partition("e")
            break
    if -4 <= int(exponent) < 6:
        decimals = max(0, len(digits.lstrip("-").replace(".", "")) - 1 - int(exponent))
        return f"{value:.{decimals}f}"
    return f"{digits}e{exponent}"


def _quoted(value: object) -> str:
    return json.dumps(value if isinstance(value, str) else _plain(value), ensure_ascii=False)


_VERB = re.compile(r"%([-+# 0]*)(\d+)?(?:\.(\d+))?(.)", re.DOTALL)


def _printf(form: object, *values: object) -> str:
    if not isinstance(form, str):
        raise TypeError("a format is a string")
    left = list(values)

    def put(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        text = _verb(verb, left.pop(0), precision, flags)
        size = int(width or 0)
        if "-" in flags:
            return text.ljust(size)
        if "0" in flags and verb in "dfgxob":
            return text.zfill(size)
        return text.rjust(size)

    done = _VERB.sub(put, form)
    return done + (f"%!(EXTRA {', '.join(f'{_type(each)}={_plain(each)}' for each in left)})" if left else "")


def _verb(verb: str, value: object, precision: str | None, flags: str) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = number and not isinstance(value, float)
    if verb == "v":
        return _plain(value)
    if verb == "q" and isinstance(value, str):
        return _quoted(value)
    if verb == "s" and isinstance(value, (str, list, tuple, dict)):
        return _plain(value)[: int(precision) if precision else None]
    if verb == "t" and isinstance(value, bool):
        return _plain(value)
    if verb == "T":
        return _type(value)
    if verb in "dxXob" and whole:
        assert isinstance(value, int)
        return ("+" if "+" in flags and value >= 0 else "") + format(value, verb)
    if verb in "fFeEgG" and isinstance(value, float):
        if verb in "gG" and precision is None:
            return _float(value)
        return f"{value:.{precision or 6}{verb}}"
    return f"%!{verb}({_type(value)}={_plain(value)})"


# What a template can call.


def _spaced(*values: object) -> str:
    """Join as Go's Sprint: with a space between two of which neither is a string."""
    out = ""
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            out += " "
        out += _plain(value)
    return out


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = _given(value[key]) if key in value else _ABSENT
        elif isinstance(value, (list, str)) and isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < len(value):
                raise LookupError(f"index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else _given(value[key])
        else:
            raise TypeError("index of nil pointer" if not _true(value) else f"can't index item of type {_type(value)}")
    return value


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, (str, list)):
        raise TypeError(f"can't slice item of type {_type(value)}")
    whole = [bound for bound in bounds if isinstance(bound, int)]
    start, end = [*whole, *[0, len(value)][len(whole) :]][:2]
    if len(whole) != len(bounds) or not 0 <= start <= end <= len(value):
        raise LookupError(f"index out of range: {end}")
    return value[start:end]


def _len(value: object) -> int:
    if not isinstance(value, (str, list, tuple, dict)):
        raise TypeError(f"len of type {_type(value)}")
    return len(value.encode()) if isinstance(value, str) else len(value)


def _same(one: object, other: object) -> bool:
    nothing = [each is None or isinstance(each, _Absent) for each in (one, other)]
    if any(nothing):
        return all(nothing)
    if isinstance(one, bool) != isinstance(other, bool):
        raise TypeError("incompatible types for comparison")
    if isinstance(one, str) != isinstance(other, str):
        raise TypeError("incompatible types for comparison")
    return one == other


def _eq(one: object, *others: object) -> bool:
    if not others:
        raise TypeError("missing argument for comparison")
    return any(_same(one, other) for other in others)


def _less(one: object, other: object) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one < other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one < other
    raise TypeError("incompatible types for comparison")


def _html(*values: object) -> str:
    text = _spaced(*values)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return text


def _js(*values: object) -> str:
    said = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
    return "".join(said.get(each, each if each >= " " else f"\\u{ord(each):04X}") for each in _spaced(*values))


def _whole(value: object) -> object:
    """Return a value as it was in the data: JSON writes no `.0` where Go's does not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(value[key]) for key in (value if isinstance(value, Struct) else sorted(value))}
    if isinstance(value, (list, tuple)):
        return [_whole(each) for each in value]
    return None if isinstance(value, _Absent) else value


def _json(value: object) -> str:
    return _safe(json.dumps(_whole(value), ensure_ascii=False, separators=(",", ":")))


def _prettyjson(value: object) -> str:
    return _safe(json.dumps(_whole(value), ensure_ascii=False, indent=4))


def pretty(value: object) -> str:
    """Return JSON as Go's ``json.MarshalIndent`` writes it by 4 spaces, keys in the order in which they are."""
    return _safe(json.dumps(value, ensure_ascii=False, indent=4))


def _safe(text: str) -> str:
    """Return JSON that HTML cannot take for its own, as Go writes it."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "and": lambda *values: values[-1],
    "eq": _eq,
    "ge": lambda one, other: not _less(one, other),
    "gt": lambda one, other: _less(other, one),
    "html": _html,
    "index": _index,
    "js": _js,
    "json": _json,
    "le": lambda one, other: not _less(other, one),
    "len": _len,
    "lt": _less,
    "ne": lambda one, other: not _same(one, other),
    "not": lambda value: not _true(value),
    "or": lambda *values: values[-1],
    "prettyjson": _prettyjson,
    "print": _spaced,
    "printf": _printf,
    "println": lambda *values: " ".join(map(_plain, values)) + "\n",
    "slice": _slice,
    "urlquery": lambda *values: quote_plus(_spaced(*values)),
}


# Literals.


def _text(word: str) -> str:
    if word.startswith("`"):
        return word[1:-1]
    return _ESCAPE.sub(_unescaped, word[1:-1])


_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", '"': '"', "'": "'"}


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code in _PLAIN:
        return _PLAIN[code]
    try:
        return chr(int(code, 8) if code[0] in "01234567" else int(code[1:], 16))
    except (ValueError, OverflowError):
        raise _wrong(f"unknown escape sequence '\\{code}'") from None


def _rune(word: str) -> int:
    text = _text(word)
    if len(text) != 1:
        raise _wrong(f"malformed character constant: {word}")
    return ord(text)


def _number(word: str) -> int | float:
    try:
        return int(word, 0)
    except ValueError:
        return float(word)
