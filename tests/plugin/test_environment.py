"""The variables of a test's machine: which test sees them, whatever gets the machine, and that they are gone after."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_machine.model import Record
from pytest_machine.testing.fake import FakeDriver
from tests.plugin.conftest import Run

NAMES = """
import os, pytest

NAMES = ["DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME", "TESTCONTAINERS_RYUK_DISABLED"]
NAMES += ["DOCKER_CONTEXT", "DOCKER_API_VERSION", "NO_PROXY", "no_proxy"]

def shown():
    return {name: os.environ[name] for name in NAMES if os.environ.get(name)}

BEFORE = shown()
"""


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "DOCKER_CONTEXT", "DOCKER_API_VERSION"):
        for each in (name, name.lower()):
            monkeypatch.delenv(each, raising=False)
    monkeypatch.delenv("TESTCONTAINERS_RYUK_DISABLED", raising=False)


@pytest.mark.parametrize(
    "theirs", [{}, {"DOCKER_HOST": "tcp://theirs:1", "DOCKER_CONTEXT": "far"}], ids=["none", "own"]
)
@pytest.mark.parametrize(
    "arguments", ["monkeypatch, machine", "machine, monkeypatch", "early, machine", "late, machine"]
)
def test_what_a_test_patches_does_not_outlive_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str], arguments: str
) -> None:
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    run(
        NAMES
        + f"""
@pytest.fixture
def early(monkeypatch):
    return monkeypatch

@pytest.fixture
def late(machine, monkeypatch):
    return monkeypatch

def test_it({arguments}):
    assert os.environ["DOCKER_HOST"] == machine.url
    patch = next(each for each in ({arguments}) if each is not machine)
    patch.setenv("DOCKER_HOST", "tcp://patched:1")
    patch.delenv("DOCKER_TLS_VERIFY")
    patch.setenv("DOCKER_CONTEXT", "patched")
    assert "DOCKER_TLS_VERIFY" not in os.environ

def test_after():
    assert shown() == BEFORE
""",
        passed=2,
    )


def test_what_a_test_leaves_changed_is_put_back(run: Run) -> None:
    run(
        NAMES
        + """
def test_it(machine):
    os.environ["DOCKER_HOST"] = "tcp://left:1"
    del os.environ["DOCKER_CERT_PATH"]

def test_after():
    assert shown() == BEFORE
""",
        passed=2,
    )


def test_a_modules_patches_end_with_the_module(run: Run) -> None:
    run(
        NAMES
        + """
URLS = []

@pytest.fixture(scope="class")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", "tcp://class:1")
        patch.setenv("DOCKER_CONTEXT", "class")
        yield
        assert os.environ["DOCKER_HOST"] == URLS[0]

@pytest.mark.usefixtures("patched")
class TestIt:
    def test_first(self, machine):
        assert "DOCKER_CONTEXT" not in os.environ

    def test_between(self):
        assert shown() == BEFORE | {"DOCKER_HOST": "tcp://class:1", "DOCKER_CONTEXT": "class"}

    def test_last(self, machine):
        URLS.append(machine.url)

def test_after():
    assert shown() == BEFORE

@pytest.fixture(scope="class")
def late(class_machine):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", "tcp://late:1")
        yield

class TestSavedMeanwhile:
    def test_it(self, late): ...

    def test_own(self, machine): ...

def test_after_again():
    assert shown() == BEFORE
""",
        passed=7,
    )


def test_unittest(run: Run) -> None:
    run(
        NAMES
        + """
import unittest

@pytest.mark.usefixtures("machine")
class TestIt(unittest.TestCase):
    def setUp(self):
        self.host = os.environ["DOCKER_HOST"]

    def tearDown(self):
        assert os.environ["DOCKER_HOST"] == self.host

    def test_one(self):
        os.environ["DOCKER_HOST"] = self.host

@pytest.mark.usefixtures("class_machine")
class TestWide(unittest.TestCase):
    hosts = set()

    def test_one(self):
        self.hosts.add(os.environ["DOCKER_HOST"])

    def test_two(self):
        self.hosts.add(os.environ["DOCKER_HOST"])
        assert len(self.hosts) == 1

def test_after():
    assert shown() == BEFORE
""",
        passed=4,
    )


def test_again_in_the_same_run(run: Run, inner: pytest.Pytester) -> None:
    """As plugins do that run a failed test again."""
    inner.makeconftest(
        (inner.path / "conftest.py").read_text()
        + """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for last in (False, True):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=last)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
    )
    run(
        NAMES
        + """
def test_it(monkeypatch, machine, request):
    module = request.getfixturevalue("module_machine")
    monkeypatch.setenv("DOCKER_HOST", "x")

def test_after():
    assert shown() == BEFORE
""",
        passed=2,
    )


@pytest.mark.parametrize("scope", ["class", "module", "session"])
@pytest.mark.parametrize("what", ["machine", "lab"])
def test_whatever_gets_a_wider_machine(run: Run, scope: str, what: str) -> None:
    get = f'request.getfixturevalue("{scope}_{what}")' + ("" if what == "machine" else "[0]")
    run(
        NAMES
        + f"""
@pytest.fixture(scope="{scope}")
def hidden(request):
    return {get}

@pytest.fixture(scope="{scope}")
def behind(request):
    return request.getfixturevalue("hidden")

@pytest.fixture
def each(request):
    return {get}

class TestIt:
    hosts = []

    def seen(self, machine):
        self.hosts.append(machine.url)
        assert os.environ["DOCKER_HOST"] == machine.url == self.hosts[0]

    def test_in_a_test(self, request):
        assert shown() == BEFORE
        self.seen({get})

    def test_in_a_later_test(self, request):
        assert shown() == BEFORE
        self.seen({get})

    def test_without(self):
        assert shown() == BEFORE

    def test_in_a_fixture(self, hidden):
        self.seen(hidden)

    def test_from_the_cache(self, hidden):
        self.seen(hidden)

    def test_from_the_cache_when_asked_for(self, request):
        assert shown() == BEFORE
        self.seen(request.getfixturevalue("hidden"))

    def test_behind_another(self, behind):
        self.seen(behind)

    def test_behind_another_again(self, behind):
        self.seen(behind)

    def test_in_a_fixture_of_its_own(self, each):
        self.seen(each)

    @pytest.mark.usefixtures("hidden")
    def test_used(self):
        assert os.environ["DOCKER_HOST"] == self.hosts[0]

    def test_without_again(self):
        assert shown() == BEFORE

def test_after():
    assert shown() == BEFORE
""",
        passed=12,
    )


def test_machines_of_the_test_that_are_got_late(run: Run) -> None:
    run(
        NAMES
        + """
def test_it(monkeypatch, request):
    machine = request.getfixturevalue("machine")
    assert os.environ["DOCKER_HOST"] == machine.url
    monkeypatch.setenv("DOCKER_HOST", "x")

def test_factory(request):
    machine = request.getfixturevalue("machine_factory")()
    assert os.environ["DOCKER_HOST"] == machine.url

def test_after():
    assert shown() == BEFORE
""",
        passed=3,
    )


def test_a_failure_shows_what_was_got_late(run: Run, inner: pytest.Pytester) -> None:
    result = run(
        """
        def test_first(request):
            request.getfixturevalue("module_machine")

        def test_second(request):
            assert request.getfixturevalue("module_machine") is None
        """,
        "--machine-artifacts=found",
        passed=1,
        failed=1,
    )
    result.stdout.fnmatch_lines(["*machine 'machine'*"])
    assert list((inner.path / "found").rglob("*machine*"))


def test_a_failure_keeps_what_was_got_late(inner: pytest.Pytester, left: Callable[[], list[Record]]) -> None:
    inner.makepyfile(
        """
        def test_first(request):
            request.getfixturevalue("module_machine")

        def test_second(request):
            assert request.getfixturevalue("module_machine") is None
        """
    )
    inner.runpytest_inprocess("--machine-keep=failed").assert_outcomes(passed=1, failed=1)
    kept = left()
    for record in kept:
        FakeDriver().destroy(record)
    assert [record.name for record in kept] == ["machine"]
