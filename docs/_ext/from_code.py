"""Directives that draw pages from the code, so that they cannot be out of step with it.

``{drivers}`` is the matrix of drivers, ``{driver-options}`` a section for each with its options, ``{commands}`` the
help of every command, ``{faults}`` a table of all faults, ``{settings}`` a table of pytest's settings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import pytest_machine
from pytest_machine.cli import main
from pytest_machine.driver import CAPABILITIES, Driver
from pytest_machine.options import Option, configure, options
from pytest_machine.plugin.settings import SETTINGS
from pytest_machine.plugins import Registry

PROGRAM = "pytest-machine"


def drivers() -> list[type[Driver]]:
    """Return every driver that this package has."""
    registry = Registry()
    return [registry.driver(name) for name in registry.names()]


def matrix() -> Iterator[str]:
    """Return the lines of a table: drivers, their isolation, who can do what."""
    yield "| driver | isolation | " + " | ".join(CAPABILITIES) + " |"
    yield "| --- " * (len(CAPABILITIES) + 2) + "|"
    for driver in drivers():
        able = ["yes" if issubclass(driver, protocol) else "–" for protocol in CAPABILITIES.values()]
        yield f"| [`{driver.name}`](#{driver.name}) | {configure(driver, {}).isolation} | " + " | ".join(able) + " |"


def sections() -> Iterator[str]:
    """Return the lines of a section a driver: what its docstring says, and a table of its options."""
    for driver in drivers():
        yield from (f"({driver.name})=", f"## {driver.name}", "", inspect.cleandoc(driver.__doc__ or ""), "")
        yield "| option | default | flag | variable | meaning |"
        yield "| --- | --- | --- | --- | --- |"
        for option in options(driver).values():
            flag = f"`{option.flag}`" if option.flag else "–"
            yield f"| `{option.name}` | {_default(option)} | {flag} | `{option.env}` | {option.help} |"
        yield ""


def settings() -> Iterator[str]:
    """Return the lines of a table: every setting of a test run in its four places."""
    yield "| Key of the table, ini option | Flag, variable | Default | Meaning |"
    yield "| --- | --- | --- | --- |"
    for one in SETTINGS:
        flag = f"{one.flag}`, `--no{one.flag[1:]}" if one.kind == "switch" else one.flag
        yield f"| `{one.name}`, `{one.ini}` | `{flag}`, `{one.variable}` | {one.default} | {one.help} |"


def _default(option: Option) -> str:
    return "–" if option.default in (None, "", ()) else f"`{option.default}`"


def commands(command: click.Command, path: str = PROGRAM) -> Iterator[tuple[str, str]]:
    """Return (words, help text) of a command and of all below it."""
    context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
    # Where machines are kept is shown as it is here, and this page is read elsewhere.
    yield path, command.get_help(context).replace(str(Path.home()), "~")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from commands(below, f"{path} {name}")


def faults() -> Iterator[str]:
    """Return the lines of a table: every fault that comes with us, and what its docstring says first."""
    homes = {name: home for name, home in pytest_machine._HOMES.items() if home.startswith("faults.")}  # noqa: SLF001  # ours
    yield "| fault | what happens |"
    yield "| --- | --- |"
    for name in sorted(homes, key=lambda name: (homes[name], name)):
        text = inspect.cleandoc(getattr(pytest_machine, name).__doc__ or "")
        words = re.sub(r"``(.*?)``", lambda m: "`" + m[1].replace("|", "\\|") + "`", " ".join(text.split()))
        yield f"| `{name}` | {words} |"


class Drivers(SphinxDirective):
    """``{drivers}``."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes("\n".join(matrix()))


class DriverOptions(SphinxDirective):
    """``{driver-options}``."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return self.parse_text_to_nodes("\n".join(sections()), allow_section_headings=True)


class Faults(SphinxDirective):
    """``{faults}``."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes("\n".join(faults()))


class SettingsTable(SphinxDirective):
    """``{settings}``."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes("\n".join(settings()))


class Commands(SphinxDirective):
    """``{commands}``."""

    def run(self) -> list[nodes.Node]:
        """Return a section a command, with its help as it prints it."""
        text = "\n\n".join(f"## {words}\n\n```text\n{shown}\n```" for words, shown in commands(main))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("drivers", Drivers)
    app.add_directive("driver-options", DriverOptions)
    app.add_directive("commands", Commands)
    app.add_directive("faults", Faults)
    app.add_directive("settings", SettingsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
