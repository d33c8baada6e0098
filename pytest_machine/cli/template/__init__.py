"""Go's text/template, as far as people write it behind ``-f``: a template is parsed to nodes, and these are run.

The data are what JSON can say. As in Go, a number of theirs is a float64, a missing key prints ``<no value>``, and a
field of nothing is an error; so is one that a `Struct` does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .errors import TemplateError, TemplateUnread, Wrong
from .functions import FUNCTIONS, pretty
from .parse import Parser
from .run import Run
from .values import Struct

__all__ = ["Struct", "Template", "TemplateError", "TemplateUnread", "pretty", "render"]


class Template:
    """A template that was read; `functions` are further ones, by name. Raises `TemplateUnread`."""

    def __init__(self, source: str, functions: Mapping[str, Callable[..., object]] | None = None) -> None:
        self._parsed = Parser(source, {**FUNCTIONS, **(functions or {})})

    def render(self, data: object) -> str:
        """Return what it makes of data; raises `TemplateError`."""
        run = Run(self._parsed, data)
        try:
            run.nodes(self._parsed.main, data)
        except RecursionError:
            raise run.wrong("it is nested too deeply") from None
        except Wrong as error:
            raise run.wrong(str(error)) from error
        return "".join(run.out)


def render(source: str, data: object, functions: Mapping[str, Callable[..., object]] | None = None) -> str:
    """Return what a template makes of data; see `Template`."""
    return Template(source, functions).render(data)
