"""Reads a template into nodes: the texts between the actions as they are, and each action as Go's own parser does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from .errors import TemplateUnread, Wrong
from .nodes import Literal, Name, Node, Operand, Path, Pipe
from .values import Fraction

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


class Parser:
    """Reads a template into nodes."""

    def __init__(self, source: str, functions: Mapping[str, Callable[..., object]]) -> None:
        self.functions = functions
        self.named: dict[str, list[Node]] = {}
        # What there is at the place that is read: variables, and ranges around it.
        self._variables = ["$"]
        self._ranges = 0
        self._place = (1, 0, "")
        self._next = 0
        try:
            self._parts = list(self._split(source))
            self.main = self._whole()
        except Wrong as error:
            raise TemplateUnread(f"template: :{self._place[0]}: {error}") from error
        except RecursionError:
            raise TemplateUnread(f"template: :{self._place[0]}: it is nested too deeply") from None

    def _whole(self) -> list[Node]:
        nodes, ended = self._list()
        if ended:
            raise Wrong(f"unexpected {{{{{ended}}}}}")
        return nodes

    def _split(self, source: str) -> Iterator[tuple[tuple[int, int, str] | None, str]]:
        """Yield texts, and insides of actions with their places."""
        place, trim = 0, False
        while (start := source.find("{{", place)) >= 0:
            found = _ACTION.match(source, start)
            self._place = (source.count("\n", 0, start) + 1, start, "")
            if found is None:
                raise Wrong("unclosed action")
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

    def _list(self) -> tuple[list[Node], str]:
        """Return the nodes up to an ``end`` or ``else``, and that action; empty at the end of the template."""
        nodes: list[Node] = []
        while self._next < len(self._parts):
            place, text = self._parts[self._next]
            self._next += 1
            if place is None:
                if text:
                    nodes.append(Node("text", text))
                continue
            self._place = place
            word = (re.match(r"\w+", text) or [""])[0]
            if word in ("end", "else"):
                return nodes, text
            for node in self._action(word, text):
                node.place = place
                nodes.append(node)
        return nodes, ""

    def _action(self, word: str, text: str) -> list[Node]:
        rest = text[len(word) :].strip()
        if word in _BLOCKS:
            return self._block(word, rest)
        if word in ("break", "continue"):
            if rest:
                raise Wrong(f"unexpected '{rest}' in {{{{{word}}}}}")
            if not self._ranges:
                raise Wrong(f"{{{{{word}}}}} outside {{{{range}}}}")
            return [Node(word)]
        if word == "template":
            name, pipe = self._called(rest)
            return [Node("template", name, pipe)]
        if not text:
            raise Wrong("missing value for command")
        return [Node("pipe", pipe=self._pipe(text))]

    def _pipe(self, text: str) -> Pipe:
        return _Tokens(text, self.functions, self._variables).pipe()

    def _called(self, text: str) -> tuple[str, Pipe | None]:
        found = re.match(r"""("(?:\\.|[^"\\\n])*"|`[^`]*`)\s*""", text)
        if found is None:
            raise Wrong("a template is called by its name, in quotes")
        rest = text[found.end() :]
        return _text(found[1]), self._pipe(rest) if rest else None

    def _block(self, word: str, rest: str) -> list[Node]:
        if word in ("define", "block"):
            name, pipe = self._called(rest)
            self.named[name] = self._named(word)
            return [Node("template", name, pipe)] if word == "block" else []
        known = len(self._variables)
        node = self._control(word, rest)
        del self._variables[known:]
        return [node]

    def _named(self, word: str) -> list[Node]:
        """Return the nodes of a template within the template, which sees nothing of what is around it."""
        around, self._variables, self._ranges = (self._variables, self._ranges), ["$"], 0
        body, ended = self._list()
        if ended != "end":
            raise Wrong(f"{{{{{word}}}}} needs an {{{{end}}}}")
        self._variables, self._ranges = around
        return body

    def _control(self, word: str, rest: str) -> Node:
        node = Node(word, pipe=self._pipe(rest))
        self._ranges += word == "range"
        node.body, ended = self._list()
        self._ranges -= word == "range"
        if ended.startswith("else"):
            following = ended.removeprefix("else").strip()
            inner = (re.match(r"(if|with)\b", following) or [""])[0]
            if inner:
                # `else if` shares the `end` of what it belongs to.
                node.other = [self._control(inner, following[len(inner) :].strip())]
                return node
            if following:
                raise Wrong(f"unexpected '{following}' behind else")
            node.other, ended = self._list()
        if ended != "end":
            raise Wrong("unexpected {{else}}" if ended else "unexpected EOF")
        return node


class _Tokens:
    """Reads the inside of one action."""

    def __init__(self, text: str, functions: Mapping[str, Callable[..., object]], variables: list[str]) -> None:
        self._functions = functions
        self._variables = variables
        self._tokens: list[tuple[str, str, bool]] = []
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise Wrong(f"unexpected '{text[place:].strip()[:20]}' in an action")
            kind = next(name for name, word in found.groupdict().items() if word is not None)
            self._tokens.append((kind, found[kind], bool(found["space"])))
            place = found.end()
        self._tokens.reverse()

    def pipe(self) -> Pipe:
        """Return the pipeline; all there is."""
        names, declares = self._names()
        self._variables += names
        found = self._pipe(names, declares)
        if self._tokens:
            raise Wrong(f"unexpected '{self._tokens[-1][1]}'")
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

    def _pipe(self, names: tuple[str, ...] = (), declares: bool = False) -> Pipe:
        commands = [self._command()]
        while self._tokens and self._tokens[-1][1] == "|" and self._tokens[-1][0] == "sign":
            self._tokens.pop()
            commands.append(self._command())
            if not isinstance(commands[-1][0], Name):
                raise Wrong("non executable command in pipeline")
        return Pipe(tuple(commands), names, declares)

    def _command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while self._tokens and not (self._tokens[-1][0] == "sign" and self._tokens[-1][1] in "|)"):
            operands.append(self._operand())
        if not operands:
            raise Wrong("missing value for command")
        return tuple(operands)

    def _operand(self) -> Operand:
        kind, word, space = self._tokens.pop()
        if kind == "sign" and word == "(":
            inner = self._pipe()
            if not self._tokens or self._tokens[-1][1] != ")":
                raise Wrong("unclosed left paren")
            space = self._tokens.pop()[2]
            fields = () if space else self._fields()
            return Path(inner, fields) if fields else inner
        if kind == "sign" and word == ".":
            return Path("", ())
        if kind == "field":
            return Path("", (word[1:], *(() if space else self._fields())))
        if kind == "variable":
            return Path(self._known(word), () if space else self._fields())
        if kind == "name":
            return self._word(word)
        if kind in ("text", "raw"):
            return Literal(_text(word))
        if kind == "char":
            return Literal(_rune(word))
        if kind == "number":
            return Literal(_number(word))
        raise Wrong(f"unexpected '{word}' in an operand")

    def _known(self, variable: str) -> str:
        if variable not in self._variables:
            raise Wrong(f'undefined variable "{variable}"')
        return variable

    def _word(self, word: str) -> Operand:
        if word in ("true", "false"):
            return Literal(word == "true")
        if word == "nil":
            return Literal(None)
        if word not in self._functions:
            raise Wrong(f'function "{word}" not defined')
        return Name(word)

    def _fields(self) -> tuple[str, ...]:
        found: list[str] = []
        while self._tokens and self._tokens[-1][0] == "field":
            _, word, space = self._tokens.pop()
            found.append(word[1:])
            if space:
                break
        return tuple(found)


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
        raise Wrong(f"unknown escape sequence '\\{code}'") from None


def _rune(word: str) -> int:
    text = _text(word)
    if len(text) != 1:
        raise Wrong(f"malformed character constant: {word}")
    return ord(text)


def _number(word: str) -> int | float:
    try:
        return int(word, 0)
    except ValueError:
        return Fraction(word)
