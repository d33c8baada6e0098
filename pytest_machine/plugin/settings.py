"""What was said about machines outside of the tests: flag, environment, ini option, ``[tool.pytest-machine]``.

The flag is nearest and wins; then ``PYTEST_MACHINE_DRIVER``, which only a driver has; then pytest's own ini files; then
the table, which is for those who keep everything in pyproject.toml (a table below ``[tool.pytest]`` would fail under
``strict = true``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .marker import Asked

TABLE = "pytest-machine"
_TABLE_ONLY = (
    *("engine", "memory", "cpus", "disk", "preload", "registry_mirror", "insecure_registries"),
    *("engine_options", "engine_env", "labels", "options"),
)
_UNAVAILABLE = ("skip", "fail")
_KEEP = ("never", "failed", "always")
_SHELL = ("never", "failed")
_PCAP = ("never", "failed", "always")
_OPTIONS = {
    "driver": ("NAME", "which driver makes the machines, where no mark says (default: the first that works here)"),
    "image": ("SUITE|PATH", "what the machines run, where no mark says: a Debian suite or a path"),
    "reuse": ("SCOPE", "who shares equal machines, where no mark says: never, class, module, package, session, runs"),
    "share": (
        "WITH",
        "who has a session's machine under pytest-xdist, where no mark says: run (all workers) or worker",
    ),
    "ttl": ("TIME", "how long after its making a machine of reuse='runs' may be found again: 30m, 2h (default: 1h)"),
    "spares": ("N", "how many machines to keep ready for the tests that come next (default: 0)"),
    "memory_cap": ("SIZE", "how much of this host's memory all machines may take (default: 0.8 of what is free)"),
    "teardown": ("HOW", "how machines are destroyed, where no mark says: rm (in order) or kill (at once)"),
    "timeout": ("SECONDS", "how long a machine may take to be ready, where no mark says (default: 300)"),
    "unavailable": ("WHAT", "where no driver works and none was asked for: skip or fail (default: skip; fail in CI)"),
    "keep": ("WHEN", "which machines stay after the run: never, failed (those of failed tests), always"),
    "shell": ("WHEN", "open a shell in the machine where a test fails: never or failed"),
    "retries": ("N", "how often machines that could not be made are tried again (default: 1)"),
    "artifacts": ("DIR", "write what is found in machines of failed tests, and the files of logs=, to this directory"),
    "pcap": ("WHEN", "keep the packets of machines, a file a network, openable in Wireshark: never, failed, always"),
    "timeline": ("FILE", "write a page that shows the life of every machine, such as machines.html"),
}
_FLAGS = {"offline": "never ask the network for anything: what needs an image that is not here cannot be made"}


def add(parser: pytest.Parser) -> None:
    """Add each setting twice: ``--machine-NAME`` and the ini option ``machine_NAME``."""
    group = parser.getgroup("machine", "throwaway Docker hosts (pytest-machine)")
    for name, (metavar, text) in _OPTIONS.items():
        group.addoption(f"--machine-{_dashed(name)}", metavar=metavar, dest=f"machine_{name}", default=None, help=text)
        parser.addini(f"machine_{name}", f"{text}; like --machine-{_dashed(name)}", default=None)
    for name, text in _FLAGS.items():
        group.addoption(f"--machine-{name}", action="store_true", dest=f"machine_{name}", default=None, help=text)
        parser.addini(f"machine_{name}", f"{text}; like --machine-{name}", type="bool", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds where no mark says."""

    asked: Asked
    """The widest level of all marks; its options are for drivers that have them."""
    unavailable: str
    """``skip`` or ``fail``."""
    ttl: float = 3600.0
    """Seconds from its making in which a machine of ``reuse="runs"`` may be found again."""
    spares: int = 0
    """How many machines to keep ready, in each process that runs tests."""
    memory_cap: int | None = None
    """Bytes that all machines on this host may take; None: `pytest_machine.memory.SHARE` of what is available."""
    keep: str = "never"
    """Which machines stay after the run: ``never``, ``failed``, ``always``."""
    shell: str = "never"
    """When a shell is opened: ``never`` or ``failed``."""
    pcap: str = "never"
    """Of which tests packets are kept: ``never``, ``failed``, ``always``."""
    retries: int = 1
    """How often a creation that failed is tried again."""
    offline: bool = False
    artifacts: Path | None = None
    timeline: Path | None = None

    @classmethod
    def of(cls, config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read them; raise `pytest.UsageError`, which says where the wrong one stands."""
        # Only a run with machines comes here, and only that should import them.
        from pytest_machine.errors import BadSpec
        from pytest_machine.model import names

        from .marker import read

        said: dict[str, object] = {}
        places: dict[str, str] = {}
        for name, (place, value) in _found(config, environ).items():
            said[name], places[name] = value, place
        own: dict[str, Any] = {
            name: _own(name, said.pop(name), places[name]) for name in ("ttl", "spares", "memory_cap") if name in said
        }

        def word(name: str, words: tuple[str, ...], default: str) -> str:
            if (found := said.pop(name, None) or default) not in words:
                raise pytest.UsageError(f"{places[name]}: it takes one of {names(words)}, not '{found}'.")
            return str(found)

        def path(name: str) -> Path | None:
            found = said.pop(name, None)
            return config.invocation_params.dir / str(found) if found else None

        own |= {
            "unavailable": word("unavailable", _UNAVAILABLE, "fail" if environ.get("CI") else "skip"),
            "keep": word("keep", _KEEP, "never"),
            "shell": word("shell", _SHELL, "never"),
            "pcap": word("pcap", _PCAP, "never"),
            "artifacts": _writable(path("artifacts"), places.get("artifacts", ""), directory=True),
            "timeline": _writable(path("timeline"), places.get("timeline", ""), directory=False),
            "offline": bool(said.pop("offline", False)),
        }
        retries = str(said.pop("retries", 1))
        if not retries.isdecimal():
            raise pytest.UsageError(f"{places['retries']}: '{retries}' is no number of tries, such as 0 or 2.")
        arguments: dict[str, object] = {}
        for name, value in said.items():
            try:
                arguments[name] = float(value) if name == "timeout" and isinstance(value, str) else value
                read((), {name: arguments[name]})
            except ValueError as error:
                raise pytest.UsageError(f"{places[name]}: '{value}' is no number of seconds.") from error
            except BadSpec as error:
                said_so = error.facts.get("reason") or error.message
                raise pytest.UsageError(
                    f"{places[name]} cannot be '{value}': {said_so}.\nhint: {error.hint}"
                ) from error
        if isinstance(arguments.get("engine"), list):
            raise pytest.UsageError(f"{places['engine']}: a list of engines is for marks; here it takes one.")
        return cls(asked=read((), arguments)[0], retries=int(retries), **own)


def _writable(path: Path | None, place: str, *, directory: bool) -> Path | None:
    """Return a path where something is to be written in the end; better to hear now that it cannot be."""
    if path is None:
        return None
    there = next((each for each in (path, *path.parents) if each.exists()), path)
    if there == path and path.is_dir() != directory:
        wrong = f"'{path}' is {'no' if directory else 'a'} directory"
    elif there != path and not there.is_dir():
        wrong = f"'{there}' is no directory"
    elif not os.access(there, os.W_OK):
        wrong = f"'{there}' cannot be written to"
    else:
        return path
    raise pytest.UsageError(f"{place}: {wrong}.")


def _own(name: str, value: object, place: str) -> object:
    from pytest_machine.options import duration, size

    readers: dict[str, Callable[[Any], object]] = {"ttl": duration, "spares": _number, "memory_cap": size}
    try:
        return readers[name](value)
    except (ValueError, TypeError) as error:
        raise pytest.UsageError(f"{place} cannot be '{value}': {error}.") from error


def _number(value: object) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool) and str(value).isdigit():
        return int(value)
    raise ValueError("it takes a whole number, 0 or more")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _found(config: pytest.Config, environ: Mapping[str, str]) -> dict[str, tuple[str, object]]:
    """Return name → (where it stands, value), the nearest place of each."""
    found: dict[str, tuple[str, object]] = {}
    for name, value in _table(config.rootpath / "pyproject.toml").items():
        found[name] = (f"'{name}' in [tool.{TABLE}] of pyproject.toml", value)
    for name in _OPTIONS:
        if value := config.getini(f"machine_{name}"):
            found[name] = (f"The ini option 'machine_{name}'", value)
        if name == "driver" and (value := environ.get("PYTEST_MACHINE_DRIVER")):
            found[name] = ("The variable 'PYTEST_MACHINE_DRIVER'", value)
        if value := config.getoption(f"machine_{name}"):
            found[name] = (f"The option '--machine-{_dashed(name)}'", value)
    for name in _FLAGS:
        if config.getini(f"machine_{name}") or config.getoption(f"machine_{name}"):
            found[name] = (f"The option '--machine-{name}'", True)
    return found


def _table(path: Path) -> Mapping[str, object]:
    try:
        text = path.read_text("utf-8")
    except OSError:
        return {}
    if TABLE not in text:  # most projects have no table of ours, and a large file takes milliseconds to parse
        return {}
    import tomllib

    try:
        table = tomllib.loads(text).get("tool", {}).get(TABLE, {})
    except tomllib.TOMLDecodeError as error:
        raise pytest.UsageError(f"{path}: {error}") from error
    known = (*_OPTIONS, *_FLAGS, *_TABLE_ONLY)
    for name in table:
        if name not in known:
            raise pytest.UsageError(f"[tool.{TABLE}] of pyproject.toml has no '{name}'; it has {', '.join(known)}.")
    return dict(table)
