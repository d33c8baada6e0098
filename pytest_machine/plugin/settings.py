"""Settings of a test run: each is a flag, a variable, an ini option and a key of ``[tool.pytest-machine]``.

`SETTINGS` declares them once. Flags, ini options, the documentation's table and `Settings` are made from it.
The nearest place wins: flag, variable, ini option, table. `setting_values` reads the four places.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .marker import Asked
    from .setting_values import Found


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, by its name in the table of pyproject.toml."""

    name: str
    metavar: str
    help: str
    default: str = "–"
    """The default, as the documentation shows it."""
    kind: str = "text"
    """How a text is read: ``text``, ``number``, ``switch``, ``list``, ``pairs`` (text values) or ``table``."""

    @property
    def flag(self) -> str:
        """Return the flag of pytest's command line."""
        return f"--machine-{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Return the environment variable."""
        return f"PYTEST_MACHINE_{self.name.upper()}"

    @property
    def ini(self) -> str:
        """Return the ini option."""
        return f"machine_{self.name}"


SETTINGS = (
    Setting("driver", "NAME", "driver that creates the machines", "the first that works here"),
    Setting("image", "SUITE|PATH", "what the machines run: a Debian release or a path", "`trixie`"),
    Setting("engine", "VERSION|PATH", "version of Docker or its beginning, or a static build", "the image's"),
    Setting("memory", "SIZE", "memory of each machine: 512m", "the driver's"),
    Setting("cpus", "N", "processors of each machine: 1.5", "the driver's", kind="number"),
    Setting("disk", "SIZE", "size of the disk that holds Docker's data: 4g", "the driver's"),
    Setting(
        "reuse", "SCOPE",
        "how long equal machines are shared: never, class, module, package, session, runs",
        "`never`",
    ),
    Setting(
        "share", "WITH",
        "who shares a machine of the session under pytest-xdist: run (all workers), worker",
        "`run`",
    ),
    Setting("ttl", "TIME", "how long a machine of reuse='runs' stays after its creation: 90s, 30m, 8h, 7d", "`1h`"),
    Setting("spares", "N", "number of machines to create in advance for the next tests", "`0`"),
    Setting(
        "memory_cap", "SIZE",
        "memory that all machines of this host may take together: 8g",
        "80 % of what is available",
    ),
    Setting("teardown", "HOW", "how machines are destroyed: rm (shut down first), kill (at once)", "`rm`"),
    Setting("timeout", "SECONDS", "seconds until a machine must be ready", "`300`", kind="number"),
    Setting(
        "unavailable",
        "WHAT",
        "what happens to a test if no driver works here and none was named: skip, fail",
        "`skip`; `fail` if `CI` is set",
    ),
    Setting(
        "unsupported",
        "WHAT",
        "what happens to a test if the driver that a setting names lacks a capability: fail, skip",
        "`fail`",
    ),
    Setting(
        "keep", "WHEN",
        "machines that stay after the run: never, failed (those of failed tests), always",
        "`never`",
    ),
    Setting("shell", "WHEN", "open a shell in the machine when a test fails: never, failed", "`never`"),
    Setting("retries", "N", "how often to try again when a machine could not be created", "`1`"),
    Setting("artifacts", "DIR", "directory for files about machines of failed tests, and for the files of logs="),
    Setting(
        "pcap", "WHEN",
        "tests whose packets are kept, a file for each machine and network: never, failed, always",
        "`never`",
    ),
    Setting("timeline", "FILE", "HTML page to write, with the timeline of every machine: machines.html"),
    Setting(
        "offline", "",
        "download nothing: a machine that needs an image that is not here cannot be created",
        "off", kind="switch",
    ),
    Setting("preload", "IMAGES", "Docker images to load into each machine", kind="list"),
    Setting("registry_mirror", "URLS", "mirrors that Docker uses before Docker Hub", kind="list"),
    Setting("insecure_registries", "HOSTS", "registries that Docker may use without TLS", kind="list"),
    Setting("engine_options", "PAIRS", "options of Docker as in daemon.json: log-driver=json-file", kind="table"),
    Setting("engine_env", "PAIRS", "variables of the Docker daemon: HTTPS_PROXY=http://proxy:3128", kind="pairs"),
    Setting("labels", "PAIRS", "labels of the Docker daemon: zone=a", kind="pairs"),
    Setting(
        "options", "PAIRS",
        "options of the driver; a driver without such an option ignores it: pids=500",
        kind="pairs",
    ),
)  # fmt: skip
BY_NAME = {setting.name: setting for setting in SETTINGS}


def add(parser: pytest.Parser) -> None:
    """Add the flag and the ini option of each setting."""
    group = parser.getgroup("machine", "throwaway Docker hosts (pytest-machine)")
    kinds: dict[str, Any] = {"switch": "bool", "list": "linelist", "pairs": "linelist", "table": "linelist"}
    for setting in SETTINGS:
        text = setting.help
        if setting.kind == "switch":
            group.addoption(
                setting.flag, action=argparse.BooleanOptionalAction, dest=setting.ini, default=None, help=text
            )
        else:
            group.addoption(setting.flag, metavar=setting.metavar, dest=setting.ini, default=None, help=text)
        parser.addini(setting.ini, f"{text}; like {setting.flag}", type=kinds.get(setting.kind), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of the settings: what applies if no mark sets it."""

    asked: Asked
    """The widest level of all marks; its options are for drivers that have them."""
    nearer: Mapping[str, object] = field(default_factory=dict)
    """Those of ``asked.options`` that flags and variables of ours set: they win over a driver's own variables."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The flag, variable, ini option or key of the table that sets each of ``asked.options``."""
    unsupported: str = "fail"
    """``fail`` or ``skip``."""
    unavailable: str
    """``skip`` or ``fail``."""
    ttl: float = 3600.0
    """Seconds after its creation in which a machine of ``reuse="runs"`` can be found again."""
    spares: int = 0
    """Number of machines to keep ready, in each process that runs tests."""
    memory_cap: int | None = None
    """Bytes that all machines on this host may take; None: `pytest_machine.memory.SHARE` of what is available."""
    keep: str = "never"
    """Machines that stay after the run: ``never``, ``failed``, ``always``."""
    shell: str = "never"
    """When a shell is opened: ``never`` or ``failed``."""
    pcap: str = "never"
    """Tests whose packets are kept: ``never``, ``failed``, ``always``."""
    retries: int = 1
    """How often a creation that failed is tried again."""
    offline: bool = False
    artifacts: Path | None = None
    timeline: Path | None = None

    @classmethod
    def of(cls, config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read all settings; raise `pytest.UsageError`, which names the place of a wrong value."""
        # Only a run with machines comes here, and only such a run should import these modules.
        from pytest_machine.arguments import OPTIONS, Wrong, driver_options

        from .marker import Asked, value
        from .setting_values import found_in, wrong

        found = found_in(config, environ)
        readers = _readers()
        own: dict[str, Any] = {}
        said: dict[str, Any] = {}
        for name, one in found.items():
            try:
                if name in readers:
                    own[name] = readers[name](one.value)
                else:
                    said[name] = value(name, one.value)
            except Wrong as error:
                raise wrong(one, error.reason, error.said(one.write)) from error
            except (ValueError, TypeError) as error:
                raise wrong(one, str(error)) from error
        if isinstance(said.get("engine"), tuple):
            raise wrong(found["engine"], "a list of versions is for marks")
        for name, directory in (("artifacts", True), ("timeline", False)):
            if name in own:
                path = config.invocation_params.dir / own[name]
                own[name] = _writable(path, found[name], directory=directory)
        given = {key: said.pop(key) for key in ("options", *OPTIONS) if key in said}
        places = {key: found[key].place for key in given if key != "options"}
        places = {
            **dict.fromkeys(given.get("options", ()), found["options"].place if "options" in given else ""),
            **places,
        }
        near = {key: value for key, value in given.items() if found[key].near}
        try:
            far = driver_options({key: value for key, value in given.items() if key not in near})
            nearer = driver_options(near)
        except KeyError as error:
            key = str(error.args[0])
            raise wrong(found[key], f"{found['options'].place} sets it too", f"set {key} once") from None
        own.setdefault("unavailable", "fail" if environ.get("CI") else "skip")
        options: dict[str, Any] = {**far, **nearer}
        return cls(asked=Asked(options=options, **said), nearer=nearer, places=places, **own)


def _readers() -> Mapping[str, Callable[[Any], object]]:
    """Return the readers of settings that are no arguments of a mark."""
    from pytest_machine.arguments import path, word
    from pytest_machine.options import duration, size

    def words(*each: str) -> Callable[[object], object]:
        return lambda value: word(value, each)

    return {
        "ttl": duration,
        "spares": _number,
        "retries": _number,
        "memory_cap": size,
        "unavailable": words("skip", "fail"),
        "unsupported": words("fail", "skip"),
        "keep": words("never", "failed", "always"),
        "shell": words("never", "failed"),
        "pcap": words("never", "failed", "always"),
        "artifacts": path,
        "timeline": path,
        "offline": bool,
    }


def _number(value: object) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool) and str(value).isascii() and str(value).isdigit():
        return int(value)
    raise ValueError("it takes a whole number, 0 or more")


def _writable(path: Path, found: Found, *, directory: bool) -> Path:
    """Return a path to be written at the end of the run; raise `pytest.UsageError` now if that is impossible."""
    from .setting_values import wrong

    there = next((each for each in (path, *path.parents) if each.exists()), path)
    if there == path and path.is_dir() != directory:
        reason = f"'{path}' is {'no' if directory else 'a'} directory"
    elif there != path and not there.is_dir():
        reason = f"'{there}' is no directory"
    elif not os.access(there, os.W_OK):
        reason = f"'{there}' cannot be written to"
    else:
        return path
    raise wrong(found, reason)
