"""Settings: each in its four places, the nearest wins, and a wrong value names its place."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_machine.plugin.settings import SETTINGS, Setting, Settings

from .conftest import Run

PLACES = ("table", "ini", "variable", "flag")
"""The widest first."""

# Two values of each setting: as the table has them, as a text, and as `Settings` holds them.
VALUES: dict[str, list[tuple[Any, str, Any]]] = {
    "driver": [("fake", "fake", "fake"), ("docker", "docker", "docker")],
    "image": [("bookworm", "bookworm", "bookworm"), ("sid", "sid", "sid")],
    "engine": [("26.1", "26.1", "26.1"), ("20.10", "20.10", "20.10")],
    "memory": [("1g", "1g", "1g"), (600 << 20, "2g", ...)],
    "cpus": [(1.5, "1.5", 1.5), (2, "2", 2.0)],
    "disk": [("4g", "4g", "4g"), ("8g", "8g", "8g")],
    "reuse": [("module", "module", "module"), ("class", "class", "class")],
    "share": [("worker", "worker", "worker"), ("run", "run", "run")],
    "ttl": [("30m", "30m", 1800.0), ("2h", "2h", 7200.0)],
    "spares": [(2, "2", 2), (3, "3", 3)],
    "memory_cap": [("8g", "8g", 8 << 30), ("9g", "9g", 9 << 30)],
    "teardown": [("kill", "kill", "kill"), ("rm", "rm", "rm")],
    "timeout": [(90, "90", 90.0), (1.5, "1.5", 1.5)],
    "unsupported": [("fail", "fail", "fail"), ("skip", "skip", "skip")],
    "unavailable": [("fail", "fail", "fail"), ("skip", "skip", "skip")],
    "keep": [("failed", "failed", "failed"), ("always", "always", "always")],
    "shell": [("failed", "failed", "failed"), ("never", "never", "never")],
    "retries": [(3, "3", 3), (0, "0", 0)],
    "artifacts": [("one", "one", "one"), ("two", "two", "two")],
    "pcap": [("failed", "failed", "failed"), ("always", "always", "always")],
    "timeline": [("one.html", "one.html", "one.html"), ("two.html", "two.html", "two.html")],
    "offline": [(True, "true", True), (False, "no", False)],
    "preload": [(["a:1", "b:2"], "a:1,b:2", ("a:1", "b:2")), (["c"], "c", ("c",))],
    "registry_mirror": [(["https://a"], "https://a", ("https://a",)), (["https://b"], '["https://b"]', ("https://b",))],
    "insecure_registries": [(["a:5000"], "a:5000", ("a:5000",)), (["b:5000", "c"], "b:5000\nc", ("b:5000", "c"))],
    "engine_options": [
        ({"debug": True, "mtu": 1400}, "debug=true,mtu=1400", {"debug": True, "mtu": 1400}),
        ({"log-driver": "none"}, "log-driver=none", {"log-driver": "none"}),
    ],
    "engine_env": [
        ({"A": "1", "B": "x=y"}, "A=1, B=x=y", {"A": "1", "B": "x=y"}),
        ({"NO_PROXY": "a,b"}, '{ NO_PROXY = "a,b" }', {"NO_PROXY": "a,b"}),
    ],
    "labels": [({"zone": "a"}, "zone=a", {"zone": "a"}), ({"z": "b", "r": "7"}, "z=b,r=7", {"z": "b", "r": "7"})],
    "options": [({"pids": "5"}, "pids=5", {"pids": "5"}), ({"p": "6", "x": ""}, "p=6,x=", {"p": "6", "x": ""})],
}  # fmt: skip
WRONG = {
    **dict.fromkeys(("driver", "image", "engine", "artifacts", "timeline"), None),  # every text is one
    **dict.fromkeys(("engine_options", "engine_env", "labels", "options"), "no-pair"),
    **dict.fromkeys(("preload", "registry_mirror", "insecure_registries"), '["a"'),
}


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


class Places:
    """Set settings in their four places, and read them as a run does."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self._table: dict[str, object] = {}
        self._ini: dict[str, str] = {}
        self._flags: list[str] = []
        self._environ: dict[str, str] = {}

    def say(self, place: str, setting: Setting, value: object, text: str) -> None:
        if place == "table":
            self._table[setting.name] = value
        elif place == "ini":
            self._ini[setting.ini] = text.replace("\n", "\n    ")
        elif place == "variable":
            self._environ[setting.variable] = text
        elif setting.kind == "switch":
            self._flags.append(setting.flag if value is True else f"--no{setting.flag[1:]}")
        else:
            self._flags.append(f"{setting.flag}={text}")

    def read(self) -> Settings:
        lines = [f"{key} = {toml(value)}" for key, value in self._table.items()]
        self._pytester.makepyprojecttoml("[tool.pytest-machine]\n" + "\n".join(lines))
        self._pytester.makeini("[pytest]\n" + "\n".join(f"{key} = {text}" for key, text in self._ini.items()))
        config = self._pytester.parseconfigure("-p", "no:cacheprovider", *self._flags)
        try:
            return Settings.of(config, self._environ)
        finally:
            config._ensure_unconfigure()


@pytest.fixture
def places(pytester: pytest.Pytester) -> Places:
    return Places(pytester)


def value_of(settings: Settings, name: str) -> object:
    if name == "options":
        return dict(settings.asked.options)
    if name in ("image", "engine", "memory", "cpus", "disk"):
        return settings.asked.options[name]
    found = getattr(settings if hasattr(settings, name) else settings.asked, name)
    return found.name if isinstance(found, Path) else dict(found) if hasattr(found, "keys") else found


def test_every_setting_has_two_values() -> None:
    assert VALUES.keys() == {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_place_sets_it(setting: Setting, place: str, places: Places) -> None:
    value, text, expected = VALUES[setting.name][0]
    places.say(place, setting, value, text)
    assert value_of(places.read(), setting.name) == expected


@pytest.mark.parametrize(("wide", "near"), list(itertools.pairwise(PLACES)))
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_nearer_place_wins(setting: Setting, wide: str, near: str, places: Places) -> None:
    (first, first_text, _), (second, second_text, expected) = VALUES[setting.name]
    places.say(wide, setting, first, first_text)
    places.say(near, setting, second, second_text)
    assert value_of(places.read(), setting.name) == ("2g" if expected is ... else expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "setting",
    [each for each in SETTINGS if WRONG.get(each.name, "") is not None],
    ids=lambda setting: setting.name,
)
def test_a_wrong_value_names_its_place(setting: Setting, place: str, places: Places) -> None:
    text = WRONG.get(setting.name) or "@ no value @"
    if setting.kind == "switch" and place == "flag":
        pytest.skip("a switch takes no value")
    places.say(place, setting, [["deep"]], text)
    shown = {
        "table": f"'{setting.name}' in [tool.pytest-machine] of pyproject.toml cannot be ",
        "ini": f"The ini option '{setting.ini}'",
        "variable": f"The variable '{setting.variable}' cannot be ",
        "flag": f"The option '{setting.flag}' cannot be ",
    }
    with pytest.raises(pytest.UsageError) as error:
        places.read()
    assert str(error.value).startswith(shown[place])


def test_a_list_of_engines_is_for_marks(places: Places) -> None:
    setting = next(each for each in SETTINGS if each.name == "engine")
    places.say("table", setting, ["20.10", "26.1"], "")
    with pytest.raises(
        pytest.UsageError, match=r"'engine' in \[tool.pytest-machine\].*a list of versions is for marks"
    ):
        places.read()


def test_a_value_that_may_be_a_secret_is_not_shown(places: Places) -> None:
    setting = next(each for each in SETTINGS if each.name == "engine_env")
    places.say("variable", setting, None, "PASSWORD:hunter2")
    with pytest.raises(pytest.UsageError) as error:
        places.read()
    assert "hunter2" not in str(error.value)


def test_a_misspelt_variable_is_a_warning(inner: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_MACHINE_DRIVERS", "fake")
    shown = run("def test_it(machine): pass").stdout
    shown.fnmatch_lines(["*'PYTEST_MACHINE_DRIVERS' is no setting; did you mean 'PYTEST_MACHINE_DRIVER'?*"])
    shown.no_fnmatch_line("*PYTEST_MACHINE_HOME*")


DRIVER = """
from dataclasses import dataclass
from typing import ClassVar
from pytest_machine.testing.fake import FakeDriver
from pytest_machine.options import option, size

@dataclass(frozen=True, kw_only=True)
class Mine(FakeDriver):
    name: ClassVar[str] = "mine"
    level: str = option("default", help="how high")

def pytest_machine_drivers():
    return [Mine]
"""
SHOW = "def test_it(machine): print('memory', machine.driver.memory, 'level', machine.driver.level)\n"
MARKED = "import pytest\n@pytest.mark.machine(memory='6m', options={'level': 'mark'})\n" + SHOW


def test_options_of_a_driver(inner: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step adds a nearer place; the driver's own variables stand between ours and the files."""
    inner.makeconftest(DRIVER)
    monkeypatch.setenv("PYTEST_MACHINE_DRIVER", "mine")

    def shows(memory: int, level: str, *args: str, test: str = SHOW) -> None:
        run(test, "-s", *args).stdout.fnmatch_lines([f"*memory {memory << 20} level {level}*"])

    inner.makepyprojecttoml("[tool.pytest-machine]\nmemory = '1m'\noptions = { level = 'table', other = 'x' }\n")
    shows(1, "table")
    addopts = "addopts = -p no:cacheprovider -p no:hypothesispytest"
    inner.makeini(f"[pytest]\n{addopts}\nmachine_memory = 2m\nmachine_options = level=ini")
    shows(2, "ini")
    monkeypatch.setenv("MINE_MEMORY", "3m")
    monkeypatch.setenv("MINE_LEVEL", "own")
    shows(3, "own")
    monkeypatch.setenv("PYTEST_MACHINE_MEMORY", "4m")
    monkeypatch.setenv("PYTEST_MACHINE_OPTIONS", "level=ours")
    shows(4, "ours")
    shows(5, "flag", "--machine-memory=5m", "--machine-options=level=flag")
    expects = "def test_it(machine): assert (machine.driver.memory, machine.driver.level) == (5 << 20, 'flag')"
    run(expects, "--machine-memory=5m", "--machine-options=level=flag", "-n1")
    shows(6, "mark", "--machine-memory=5m", "--machine-options=level=flag", test=MARKED)


@pytest.mark.parametrize(
    ("variables", "args", "place"),
    [
        ({"MINE_MEMORY": "much"}, (), "the variable 'MINE_MEMORY'"),
        ({"PYTEST_MACHINE_OPTIONS": "delay=soon"}, (), "The variable 'PYTEST_MACHINE_OPTIONS'"),
        ({"MINE_DELAY": "1"}, ("--machine-options=delay=soon",), "The option '--machine-options'"),
    ],
)
def test_a_wrong_option_of_a_driver_names_its_place(
    inner: pytest.Pytester,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    args: tuple[str, ...],
    place: str,
) -> None:
    inner.makeconftest(DRIVER)
    for name, value in variables.items():
        monkeypatch.setitem(os.environ, name, value)
    inner.makepyfile(SHOW)
    result = inner.runpytest_inprocess("--machine-driver=mine", *args)
    result.stdout.fnmatch_lines([f"*set by*{place}*", "*change it there, or remove it*"])
