"""Read the values of the settings from their four places: flags, variables, ini options, the table of pyproject.toml.

A text is read by the kind of its setting. The items of a list, and the ``key=value`` pairs of a table, are separated by
commas, or are on a line each. A list or table in TOML's own form (``["a", "b"]``, ``{a = "b,c"}``) is read too.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from .settings import BY_NAME, SETTINGS, Setting

TABLE = "pytest-machine"
_PREFIX = "PYTEST_MACHINE_"
_MAY_HOLD_SECRETS = ("engine_env", "engine_options", "options", "registry_mirror")


@dataclass(frozen=True, slots=True)
class Found:
    """The value of a setting, and where it was found."""

    setting: Setting
    place: str
    """The place, as an error shows it."""
    value: object
    near: bool
    """Whether it is a flag or a variable: they win over a driver's own variables."""
    form: str
    """How a value is written in that place; ``{}`` is the value."""

    def write(self, value: object) -> str:
        """Return how to write another value in the same place."""
        if self.form.startswith(f"{self.setting.name} ="):
            import json

            return self.form.format(json.dumps(value))
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={one}" for key, one in value.items())
        elif isinstance(value, list | tuple):
            value = ",".join(map(str, value))
        elif isinstance(value, bool):
            value = str(value).lower()
        return self.form.format(value)


def found_in(config: pytest.Config, environ: Mapping[str, str]) -> dict[str, Found]:
    """Return the nearest value of each setting that is set; raise `pytest.UsageError` for one that cannot be read."""
    _warn_of_unknown(config, environ)
    found: dict[str, Found] = {}
    for name, value in _table(config.rootpath / "pyproject.toml").items():
        place = f"'{name}' in [tool.{TABLE}] of pyproject.toml"
        found[name] = _read(Found(BY_NAME[name], place, value, near=False, form=f"{name} = {{}}"))
    for setting in SETTINGS:
        name = setting.name
        if (value := _ini(config, setting)) not in (None, "", []):
            place = f"The ini option '{setting.ini}'"
            found[name] = _read(Found(setting, place, value, near=False, form=f"{setting.ini} = {{}}"))
        if value := environ.get(setting.variable):
            place = f"The variable '{setting.variable}'"
            found[name] = _read(Found(setting, place, value, near=True, form=f"{setting.variable}={{}}"))
        if (value := config.getoption(setting.ini)) not in (None, ""):
            place = f"The option '{setting.flag}'"
            found[name] = _read(Found(setting, place, value, near=True, form=f"{setting.flag}={{}}"))
    return found


def wrong(found: Found, reason: str, hint: str = "") -> pytest.UsageError:
    """Return the error for a value that cannot be: where it stands, why, and what to write instead."""
    shown = "this value" if found.setting.name in _MAY_HOLD_SECRETS else f"'{found.value}'"
    text = f"{found.place} cannot be {shown}: {reason}."
    return pytest.UsageError(f"{text}\nhint: {hint}" if hint else text)


def _ini(config: pytest.Config, setting: Setting) -> object:
    try:
        value = config.getini(setting.ini)
    except (ValueError, TypeError, pytest.UsageError) as error:
        raise pytest.UsageError(f"The ini option '{setting.ini}': {error}.") from error
    return "\n".join(value) if isinstance(value, list) else value


def _read(found: Found) -> Found:
    """Return the value in its type, where it was a text."""
    if not isinstance(found.value, str):
        if found.setting.kind == "switch" and not isinstance(found.value, bool):
            raise wrong(found, "it takes true or false")
        return found
    try:
        value = _KINDS.get(found.setting.kind, str)(found.value)
    except ValueError as error:
        raise wrong(found, str(error)) from error
    return Found(found.setting, found.place, value, found.near, found.form)


def _number(text: str) -> object:
    try:
        value = float(text)
    except ValueError:
        return text  # its reader has the words for what is wrong
    return value if math.isfinite(value) else text


def _switch(text: str) -> object:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.strip().lower() in known:
        return known[text.strip().lower()]
    raise ValueError("it takes true or false")


def _list(text: str) -> object:
    return _toml(text) if text.lstrip().startswith("[") else _items(text)


def _pairs(text: str) -> object:
    if text.lstrip().startswith("{"):
        return _toml(text)
    found = {}
    for item in _items(text):
        key, separator, value = item.partition("=")
        if not separator or not key.strip():
            raise ValueError(_NO_PAIR)
        found[key.strip()] = value.strip()
    return found


_NO_PAIR = 'an entry is not a pair such as name=value; for a value with a comma write { name = "a,b" }'


def _typed_pairs(text: str) -> object:
    found = _pairs(text)
    if text.lstrip().startswith("{") or not isinstance(found, dict):
        return found
    return {key: _typed(value) for key, value in found.items()}


def _typed(text: str) -> object:
    """Return a number, a truth value, a list or a table if the text is one in TOML, else the text."""
    try:
        return _toml(text)
    except ValueError:
        return text


def _items(text: str) -> list[str]:
    parts = text.splitlines() if "\n" in text.strip() else text.split(",")
    return [part.strip() for part in parts if part.strip()]


def _toml(text: str) -> object:
    import tomllib

    try:
        return tomllib.loads(f"value = {' '.join(text.split())}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


_KINDS: Mapping[str, Callable[[str], object]] = {
    "number": _number,
    "switch": _switch,
    "list": _list,
    "pairs": _pairs,
    "table": _typed_pairs,
}
_OTHERS = {
    *("CACHE", "FAKES", "FAKE_PORTS", "GOLDEN", "HOME", "MIRROR", "PASSPHRASE", "PROOF", "SECURITY_MIRROR", "SEED"),
    "SHARED_HOST",
}
"""Variables with our prefix that are no settings of a test run."""


def _warn_of_unknown(config: pytest.Config, environ: Mapping[str, str]) -> None:
    known = [setting.variable for setting in SETTINGS]
    for name in environ:
        if not name.startswith(_PREFIX) or name in known or name.removeprefix(_PREFIX) in _OTHERS:
            continue
        if close := difflib.get_close_matches(name, known, n=1):
            text = f"The variable '{name}' is no setting; did you mean '{close[0]}'?"
            config.issue_config_time_warning(pytest.PytestConfigWarning(text), stacklevel=2)


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
    if not isinstance(table, dict):
        raise pytest.UsageError(f"[tool.{TABLE}] of pyproject.toml is no table.")
    for name in table:
        if name not in BY_NAME:
            close = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f"\nhint: did you mean '{close[0]}'?" if close else ""
            raise pytest.UsageError(
                f"[tool.{TABLE}] of pyproject.toml has no '{name}'; it has {', '.join(BY_NAME)}.{hint}"
            )
    return table
