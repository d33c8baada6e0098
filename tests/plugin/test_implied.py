"""A test with the mark and without a fixture has its machine: it never meets the Docker of the user."""

from __future__ import annotations

import pytest

from .conftest import Forgotten, Left, Run

# DOCKER_HOST is the user's own before each test, and the test sees a machine's.
USERS = "tcp://192.0.2.1:2376"
SAFE = f"""
import os, pytest, unittest

def safe():
    host = os.environ["DOCKER_HOST"]
    assert host != {USERS!r}, "the user's own Docker"
    import docker
    client = docker.from_env()
    client.ping()
    client.close()
"""

PLACES = {
    "function": "@pytest.mark.machine\ndef test_it(): safe()",
    "function, named": "@pytest.mark.machine('web', memory='512m')\ndef test_it(): safe()",
    "class": "@pytest.mark.machine('web')\nclass TestIt:\n    def test_it(self): safe()",
    "class's pytestmark": "class TestIt:\n    pytestmark = pytest.mark.machine('web')\n    def test_it(self): safe()",
    "module": "pytestmark = pytest.mark.machine('web')\ndef test_it(): safe()",
    "module, a list": "pytestmark = [pytest.mark.machine('web')]\ndef test_it(): safe()",
    "parameter": (
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.machine('web'))])\ndef test_it(x): safe()"
    ),
    "unittest": "pytestmark = pytest.mark.machine\nclass TestIt(unittest.TestCase):\n    def test_it(self): safe()",
    "unittest's setUp": (
        "@pytest.mark.machine\nclass TestIt(unittest.TestCase):\n"
        "    def setUp(self): safe()\n    def test_it(self): ..."
    ),
    "setup_method": (
        "@pytest.mark.machine\nclass TestIt:\n    def setup_method(self): safe()\n    def test_it(self): ..."
    ),
    "a fixture of the test": (
        "@pytest.fixture\ndef box():\n    safe()\n    yield\n    safe()\n@pytest.mark.machine\ndef test_it(box): safe()"
    ),
    "an autouse fixture": (
        "@pytest.fixture(autouse=True)\ndef box():\n    safe()\n    yield\n    safe()\n"
        "@pytest.mark.machine\ndef test_it(): safe()"
    ),
    "only docker_client": "@pytest.mark.machine('web')\ndef test_it(docker_client): safe()",
    "asked for while it runs": (
        "@pytest.mark.machine('web')\ndef test_it(request):\n"
        "    safe()\n    assert request.getfixturevalue('machine').name == 'web'\n    safe()"
    ),
    "several": (
        "pytestmark = [pytest.mark.machine('web'), pytest.mark.machine('db')]\n"
        "def test_it(request):\n    safe()\n    assert len(request.getfixturevalue('lab').machines) == 2"
    ),
    "added by a fixture": (
        "@pytest.fixture(autouse=True)\ndef mark(request):\n    request.node.add_marker(pytest.mark.machine('web'))\n"
        "def test_it(): safe()"
    ),
    "added by a fixture of a class": (
        "@pytest.fixture(autouse=True, scope='class')\ndef mark(request):\n    request.node.add_marker('machine')\n"
        "class TestIt:\n    def test_it(self): safe()"
    ),
}


@pytest.fixture(autouse=True)
def users(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", USERS)


@pytest.mark.parametrize("source", PLACES.values(), ids=PLACES)
def test_a_mark_makes_the_machine(run: Run, source: str) -> None:
    made = run(SAFE + source).stdout
    made.fnmatch_lines([f"{2 if 'lab' in source else 1} machine* made: *"])


HOOKS = {
    "collection": "def pytest_collection_modifyitems(items):\n    for item in items: item.add_marker('machine')",
    "collection, last": (
        "@pytest.hookimpl(trylast=True)\n"
        "def pytest_collection_modifyitems(items):\n    for item in items: item.add_marker('machine')"
    ),
    "collected": "def pytest_itemcollected(item): item.add_marker(pytest.mark.machine('web'))",
    "finished": "def pytest_collection_finish(session):\n    for item in session.items: item.add_marker('machine')",
    "setup": "def pytest_runtest_setup(item): item.add_marker('machine')",
    "setup, first": "@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_setup(item): item.add_marker('machine')",
}


@pytest.mark.parametrize("arguments", [(), ("-n1",)], ids=["alone", "xdist"])
@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_a_mark_of_another_plugin_makes_the_machine(
    inner: pytest.Pytester, left: Left, hook: str, arguments: tuple[str, ...]
) -> None:
    with inner.path.joinpath("conftest.py").open("a") as file:
        file.write(f"\nimport pytest\n{hook}\n")
    inner.makepyfile(test_it=SAFE + "def test_it(): safe()")
    result = inner.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 machine made: *"])
    assert left() == []


def test_a_parameter_without_the_mark_has_no_machine(run: Run) -> None:
    source = f"""
@pytest.mark.parametrize("marked", [pytest.param(True, marks=pytest.mark.machine), False])
def test_it(marked):
    assert (os.environ["DOCKER_HOST"] != {USERS!r}) == marked

def test_unmarked():
    assert os.environ["DOCKER_HOST"] == {USERS!r}
"""
    run(SAFE + source, passed=3).stdout.fnmatch_lines(["1 machine made: *"])


def test_a_list_of_engines_without_a_fixture(run: Run) -> None:
    source = "@pytest.mark.machine(engine=['20.10', '26.1'])\ndef test_it(): safe()"
    run(SAFE + source, "-v", passed=2).stdout.fnmatch_lines(["*test_it[[]docker-20.10[]]*", "2 machines made: *"])


WIDER = {
    "class_machine": "@pytest.mark.machine('web')\nclass TestIt:\n    def test_it(self, class_machine): safe()",
    "module_machine": "pytestmark = pytest.mark.machine('web')\ndef test_it(module_machine): safe()",
    "module_machine, class's mark": (
        "@pytest.mark.machine('web')\nclass TestIt:\n    def test_it(self, module_machine): safe()"
    ),
    "through a fixture": (
        "pytestmark = pytest.mark.machine('web')\n"
        "@pytest.fixture(scope='module')\ndef box(module_machine): return module_machine\ndef test_it(box): safe()"
    ),
    "module_lab": "pytestmark = pytest.mark.machine('web')\ndef test_it(module_lab): safe()",
    "machine_factory": "@pytest.mark.machine('web')\ndef test_it(machine_factory):\n    machine_factory()\n    safe()",
}


@pytest.mark.parametrize("source", WIDER.values(), ids=WIDER)
def test_a_fixture_of_a_wider_scope_is_enough(run: Run, source: str) -> None:
    run(SAFE + source).stdout.fnmatch_lines(["1 machine made: *"])


@pytest.mark.parametrize("file", ["test_it.py", "test_it.txt"])
def test_doctests_have_machines(inner: pytest.Pytester, left: Left, file: str) -> None:
    doctest = f"""
>>> import os
>>> os.environ["DOCKER_HOST"] == {USERS!r}
False
"""
    if file.endswith(".py"):
        doctest = f'"""{doctest}"""\nimport pytest\npytestmark = pytest.mark.machine\n'
    else:
        with inner.path.joinpath("conftest.py").open("a") as conftest:
            conftest.write("\ndef pytest_itemcollected(item): item.add_marker('machine')\n")
    inner.path.joinpath(file).write_text(doctest)
    result = inner.runpytest_inprocess("--doctest-modules")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 machine made: *"])
    assert left() == []


def test_an_item_that_has_no_fixtures_fails(inner: pytest.Pytester, forgotten: Forgotten) -> None:
    with inner.path.joinpath("conftest.py").open("a") as file:
        file.write(
            """
import pytest

class Item(pytest.Item):
    def runtest(self): raise SystemError("it ran")

class File(pytest.File):
    def collect(self):
        item = Item.from_parent(self, name="one")
        item.add_marker("machine")
        return [item]

def pytest_collect_file(file_path, parent):
    return File.from_parent(parent, path=file_path) if file_path.suffix == ".yaml" else None
"""
        )
    inner.path.joinpath("cases.yaml").touch()
    result = inner.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["'cases.yaml::one' has the mark 'machine' and gets no machine.", "*reason*", "hint: *"]
    )
    result.stdout.no_fnmatch_line("*it ran*")
    forgotten()


def test_a_mark_that_comes_too_late_fails_the_test(run: Run) -> None:
    source = "def test_it(request): request.node.add_marker('machine')"
    result = run(SAFE + source, failed=1)
    result.stdout.fnmatch_lines(
        ["*test_it* has the mark 'machine' and gets no machine.", "*while the test ran*", "hint: *"]
    )


def test_a_test_that_is_skipped_has_no_machine(run: Run) -> None:
    source = "@pytest.mark.skip\n@pytest.mark.machine\ndef test_it(): ..."
    run(SAFE + source, skipped=1).stdout.no_fnmatch_line("*machine made*")
