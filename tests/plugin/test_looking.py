"""What is left of a failed test: sections, files, properties, incidents, tries; on fake machines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pytest_machine.model import Record
from pytest_machine.plugin.artifacts import places
from tests.conftest import SLOWNESS

from .conftest import Run

FAILS = "def test_it(machine): assert 0"

# A driver that fails as often as the file says.
FLAKY = """
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from pytest_machine.errors import BadSpec, DriverError
from pytest_machine.testing.fake import FakeDriver

@dataclass(frozen=True, kw_only=True)
class Flaky(FakeDriver):
    name: ClassVar[str] = "flaky"
    def create(self, record, seed):
        super().create(record, seed)
        left = Path("fails").read_text()
        if left:
            Path("fails").write_text(left[1:])
            raise (BadSpec if left[0] == "u" else DriverError)("The stars are wrong.", hint="wait")

def pytest_machine_drivers():
    return [FakeDriver, Flaky]
"""


def test_a_failed_test_says_a_line_of_its_machine(run: Run) -> None:
    result = run(FAILS, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *assert 0",
            "*- machines when the test failed (all of it: --machine-artifacts=DIR) -*",
            "machine 'machine': running, 0 containers; SSH: *",
        ]
    )
    result.stdout.no_fnmatch_line("*CONTAINER ID*")
    result.stdout.no_fnmatch_line("*engine of 'machine' listens*")
    result.stdout.no_fnmatch_line("*files of machines*")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_how_many_lines_a_machine_adds(inner: pytest.Pytester, count: int) -> None:
    inner.makepyfile(
        test_with=f"import pytest\n@pytest.mark.machine(count={count})\ndef test_it(machines): assert 0",
        test_without="import pytest\n@pytest.mark.filterwarnings('error')\ndef test_it(): assert 0",
    )
    lines = {name: len(inner.runpytest_subprocess(f"test_{name}.py").stdout.lines) for name in ("with", "without")}
    # The value of the fixture, the kind of machine, a title with a line a machine, the summary at the end.
    summary = 3 if count == 1 else 4
    assert lines["with"] - lines["without"] == 2 + 1 + (count + 1) + summary
    assert count > 1 or lines["with"] - lines["without"] <= 8


USAGE = {
    "an argument of a method": "machine.run('ls', cwd='/')",
    "an argument of a fault": "import pytest_machine\n    pytest_machine.Delay(0.1, evry=1)",
    "too few": "machine.put('x')",
    "a name": "machine.dokcer.ping()",
    "an import": "from pytest_machine import Partitoin",
    "a value": "machine.run(['ls'])",
    "nothing to wait for": "machine.wait_for()",
    "what the driver lacks": "from pytest_machine.errors import Unsupported\n    raise Unsupported('no')",
    "a factory's argument": "request.getfixturevalue('machine_factory')(memroy='1g')",
}


@pytest.mark.parametrize("source", USAGE.values(), ids=USAGE)
def test_an_error_of_usage_needs_no_look_at_machines(run: Run, source: str) -> None:
    result = run(f"def test_it(machine, request):\n    {source}", failed=1)
    result.stdout.no_fnmatch_line("*machines when the test failed*")
    result.stdout.no_fnmatch_line("*machine 'machine'*")


@pytest.mark.parametrize("source", ["machine.run('false')", "{}.nothing", "int([])", "dict().update(1, 2)"])
def test_any_other_error_needs_one(run: Run, source: str) -> None:
    result = run(f"def test_it(machine):\n    {source}", failed=1)
    result.stdout.fnmatch_lines(["machine 'machine': running, *"])


def test_a_test_that_passes_is_not_looked_at(run: Run) -> None:
    result = run("def test_it(machine): ...", "-rA", "--machine-artifacts=art")
    result.stdout.no_fnmatch_line("*docker ps -a*")
    assert not Path("art").exists()


@pytest.mark.parametrize("arguments", [(), ("-n1",)], ids=["alone", "xdist"])
def test_artifacts(inner: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    inner.mkdir("sub")
    inner.path.joinpath("sub/test_a.py").write_text(
        "import pytest\n"
        "class TestA:\n"
        "    @pytest.mark.parametrize('x', ['a/b'])\n"
        "    @pytest.mark.machine('web')\n"
        "    @pytest.mark.machine('db')\n"
        "    def test_b(self, lab, x): assert 0\n"
    )
    (test,) = places("test_b[a/b]")
    stale = inner.path / "art/sub/test_a.py/TestA" / test / "web/old.txt"
    stale.parent.mkdir(parents=True)
    stale.touch()
    result = inner.runpytest_subprocess("--machine-artifacts=art", *arguments)
    result.assert_outcomes(failed=1)
    for name in ("web", "db"):
        folder = inner.path / "art/sub/test_a.py/TestA" / test / name
        assert "engine of" in (folder / "console.txt").read_text()
        assert (folder / "docker-ps--a.txt").exists()
    assert not stale.exists()
    result.stdout.fnmatch_lines([f"files of machines: {inner.path}/art"])


def test_no_two_tests_share_a_directory() -> None:
    alike = ["[a/b]", "[a-b]", "[a:b]", "[a b]", f"[{'x' * 120}]", f"[{'x' * 121}]"]
    assert len({"/".join(places(f"t.py::test{each}")) for each in alike}) == len(alike)
    assert places("sub/t.py::Test::test_it[a-b]") == ["sub", "t.py", "Test", "test_it[a-b]"]


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--machine-artifacts=file", "*--machine-artifacts' cannot be 'file*': '*file' is no directory."),
        ("--machine-artifacts=file/in", "*--machine-artifacts' cannot be 'file*': '*file' is no directory."),
        ("--machine-timeline=.", "*--machine-timeline' cannot be '.': '*' is a directory."),
        ("--machine-timeline=file/page.html", "*--machine-timeline' cannot be 'file*': '*file' is no directory."),
    ],
)
def test_where_nothing_can_be_written(inner: pytest.Pytester, argument: str, says: str) -> None:
    """Said before the first test, for the last one would be too late."""
    inner.path.joinpath("file").touch()
    inner.makepyfile("def test_it(machine): ...")
    result = inner.runpytest_subprocess(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([says])


@pytest.mark.parametrize("arguments", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_what_cannot_be_written_hides_no_result(inner: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    inner.makepyfile(
        """
        import pathlib, pytest

        @pytest.mark.machine(logs=["/etc/hosts"])
        def test_bad(machine):
            pathlib.Path("art").touch()
            pathlib.Path("page").touch()
            assert 0

        def test_good(machine): ...
        """
    )
    result = inner.runpytest_subprocess("--machine-artifacts=art/in", "--machine-timeline=page/in.html", *arguments)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        ["machine 'machine': running*", "no file '*art*': *", "timeline: '*in.html' could not be written: *"]
    )
    assert "INTERNALERROR" not in result.stdout.str()


def test_a_frozen_machine_does_not_hang_the_report(run: Run) -> None:
    begun = time.monotonic()
    result = run("def test_it(machine):\n    machine.pause()\n    assert 0", failed=1)
    assert time.monotonic() - begun < 25 * SLOWNESS
    result.stdout.fnmatch_lines(["machine 'machine': paused; *its Docker: *"])


def test_secrets_are_masked(inner: pytest.Pytester) -> None:
    inner.makeconftest(
        FLAKY.replace(
            "class Flaky(FakeDriver):",
            "class Flaky(FakeDriver):\n    token: str = option('', help='x', secret=True)\n"
            "    def console(self, record): return f'it said xyzzy-42 and PASSWORD=hunter2 to {record.name}'",
        ).replace("from pathlib", "from pytest_machine.options import option\nfrom pathlib")
    )
    inner.path.joinpath("fails").touch()
    inner.makepyfile(
        "import pytest\n@pytest.mark.machine(driver='flaky', options={'token': 'xyzzy-42'})\n"
        "def test_it(machine): assert 0"
    )
    result = inner.runpytest_inprocess("--machine-artifacts=art")
    assert "xyzzy" not in result.stdout.str().partition("machine 'machine'")[2]
    (console,) = (inner.path / "art").rglob("console.txt")
    assert console.read_text() == "it said *** and PASSWORD=*** to machine"
    for path in (inner.path / "art").rglob("*.txt"):
        assert "xyzzy" not in path.read_text()
        assert "hunter2" not in path.read_text()


class TestTries:
    @pytest.fixture(autouse=True)
    def _flaky(self, inner: pytest.Pytester) -> None:
        inner.makeconftest(FLAKY)
        inner.makepyfile("import pytest\n@pytest.mark.machine('web', driver='flaky')\ndef test_it(machine): ...")

    def test_a_failed_creation_is_tried_again_and_its_log_kept(self, inner: pytest.Pytester) -> None:
        inner.path.joinpath("fails").write_text("x")
        result = inner.runpytest_inprocess("--machine-artifacts=art")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["1 machine made: *", "failed try: 'web': The stars are wrong.", "files of *"])
        folder = inner.path / "art/test_a_failed_creation_is_tried_again_and_its_log_kept.py/test_it/web"
        assert "engine of 'web'" in (folder / "try-1-console.txt").read_text()
        assert (folder / "try-1-why.txt").read_text() == "The stars are wrong."

    def test_once_by_default(self, inner: pytest.Pytester, left: Callable[[], list[Record]]) -> None:
        inner.path.joinpath("fails").write_text("xxx")
        result = inner.runpytest_inprocess()
        result.assert_outcomes(errors=1)
        assert inner.path.joinpath("fails").read_text() == "x"
        result.stdout.fnmatch_lines(["*machine 'web', try 1: console*", "*machine 'web', try 2: console*"])
        assert left() == []

    @pytest.mark.parametrize(("retries", "rest"), [("0", "xx"), ("2", "")])
    def test_as_often_as_is_said(self, inner: pytest.Pytester, retries: str, rest: str) -> None:
        inner.path.joinpath("fails").write_text("xxx")
        inner.runpytest_inprocess(f"--machine-retries={retries}").assert_outcomes(errors=1)
        assert inner.path.joinpath("fails").read_text() == rest

    def test_what_the_user_can_mend_is_not_tried_again(self, inner: pytest.Pytester) -> None:
        inner.path.joinpath("fails").write_text("uu")
        inner.runpytest_inprocess().assert_outcomes(errors=1)
        assert inner.path.joinpath("fails").read_text() == "u"

    def test_a_number_is_asked_for(self, inner: pytest.Pytester) -> None:
        result = inner.runpytest_inprocess("--machine-retries=often")
        assert "cannot be 'often': it takes a whole number" in result.stdout.str() + result.stderr.str()


BEFALLS = """
import pytest
from pytest_machine.model import Incident, Trouble

def hurt(machine, kind, text):
    machine.driver.befall(machine.record, Incident(Trouble(kind), text))

@pytest.mark.machine(fail_on=["oom", "oops"])
def test_named(machine): hurt(machine, "oom", "Killed process 7 (java)")

def test_shown(machine): hurt(machine, "core", "core dump /srv/core")

@pytest.mark.machine(fail_on=["oom"])
def test_other(machine): hurt(machine, "kernel", "fork rejected")

@pytest.mark.machine(fail_on="oom", reuse="module")
class TestShared:
    def test_one(self, machine): hurt(machine, "oom", "Killed process 8 (java)")
    def test_two(self, machine): ...
"""


def test_incidents(run: Run) -> None:
    result = run(BEFALLS, failed=2, passed=3)
    result.stdout.fnmatch_lines(
        [
            "The test passed, but something befell its machines that fail_on= names.",
            "  'machine': oom: Killed process 7 (java)",
            "hint: look into it: --machine-keep=failed; if it may happen, leave it out of fail_on=",
            "*machine 'machine': incidents*",
            "*= machines =*",
            "'machine': oom: Killed process 7 (java)",
            "'machine': core: core dump /srv/core",
            "'machine': kernel: fork rejected",
            "'machine': oom: Killed process 8 (java)",
        ]
    )


def test_fail_on_what_cannot_be_seen(inner: pytest.Pytester) -> None:
    inner.makeconftest(
        FLAKY.replace(
            "class Flaky(FakeDriver):",
            "class Flaky(FakeDriver):\n    def unseen(self, record): return {'core': 'a program takes them'}",
        )
    )
    inner.path.joinpath("fails").touch()
    inner.makepyfile(
        "import pytest\n@pytest.mark.machine(driver='flaky', fail_on=['core'])\ndef test_it(machine): ...\n"
        "@pytest.mark.machine(driver='flaky', fail_on=['oom'])\ndef test_ok(machine): ..."
    )
    result = inner.runpytest_inprocess()
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(
        ["A test wants to fail on 'core', which cannot be seen here.", "*a program takes them", "hint: leave 'core' *"]
    )


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("fail_on=['ooms']", "did you mean 'oom'?"),
        ("logs=['var/log']", "'var/log' is no absolute path"),
    ],
)
def test_wrong_arguments(inner: pytest.Pytester, argument: str, words: str) -> None:
    inner.makepyfile(f"import pytest\n@pytest.mark.machine({argument})\ndef test_it(machine): ...")
    assert words in inner.runpytest_inprocess().stdout.str()


@pytest.mark.parametrize("arguments", [(), ("-n1",)], ids=["alone", "xdist"])
def test_properties(inner: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    inner.makepyfile(
        "import pytest\n@pytest.mark.machine('web', image='one')\ndef test_own(machine): ...\n"
        "@pytest.mark.machine('shared', reuse='module')\ndef test_shared(machine): assert 0\n"
        "def test_none(): ..."
    )
    inner.runpytest_subprocess("--junitxml=junit.xml", *arguments).assert_outcomes(passed=2, failed=1)
    found = {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in ET.parse(inner.path / "junit.xml").iter("testcase")
    }
    own = found["test_own"]
    assert (own["machine.web.driver"], own["machine.web.image"], own["machine.web.engine"]) == ("fake", "one", "fake")
    assert 0 < float(own["machine.web.seconds"] or "") < 30
    assert found["test_shared"]["machine.shared.driver"] == "fake"
    assert found["test_none"] == {}


def test_where_the_time_went(run: Run) -> None:
    result = run("import time\ndef test_it(machine): time.sleep(0.3)", "-v")
    (line,) = [line for line in result.stdout.lines if line.startswith("time: ")]
    spent = {name: float(seconds) for name, seconds, _ in (part.split() for part in line[6:].split(", "))}
    assert 0.3 <= spent["tests"] < 3 * SLOWNESS
    assert "creating" in spent or "waiting" in spent


class TestOffline:
    @pytest.fixture(autouse=True)
    def _image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTEST_MACHINE_CACHE", str(tmp_path / "cache"))

    def test_images_are_not_built(self, inner: pytest.Pytester) -> None:
        inner.makeconftest(
            FLAKY.replace(
                "class Flaky(FakeDriver):",
                "class Flaky(FakeDriver):\n    def check(self):\n        from pytest_machine import images\n"
                "        images.check('trixie')",
            )
        )
        inner.makepyfile("import pytest\n@pytest.mark.machine(driver='flaky')\ndef test_it(machine): ...")
        result = inner.runpytest_inprocess("--machine-offline")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(
            [
                "The machine image 'trixie' is not on this computer, and nothing may be downloaded.",
                "*--machine-offline*",
                "hint: *pytest-machine image build trixie",
            ]
        )
        assert "PYTEST_MACHINE_OFFLINE" not in os.environ

    def test_its_ini_option(self, inner: pytest.Pytester) -> None:
        inner.makepyfile("import os\ndef test_it(machine): assert os.environ['PYTEST_MACHINE_OFFLINE'] == '1'")
        inner.runpytest_inprocess("-o", "machine_offline=true").assert_outcomes(passed=1)
        inner.runpytest_inprocess("-o", "machine_offline=false").assert_outcomes(failed=1)


def test_progress_is_silent_where_nobody_looks(run: Run) -> None:
    source = "import pytest\n@pytest.mark.machine(options={'delay': 0.2})\ndef test_it(machine): ..."
    assert "machine ready" not in run(source).stdout.str()


def test_events_are_json(run: Run) -> None:
    """What workers write for the controller survives the trip."""
    from dataclasses import asdict

    from pytest_machine.plugin.journal import Event

    event = Event(kind="test", machine="a", name="b", begun=1.0, ended=2.5, detail={"outcome": "failed"})
    assert Event(**json.loads(json.dumps(asdict(event)))) == event


def test_properties_are_there_once_however_many_reports_a_test_has(inner: pytest.Pytester) -> None:
    """As with subtests, and with plugins that run a failed test again."""
    inner.makepyfile(
        """
        from _pytest.runner import CallInfo

        def test_it(machine, request):
            item = request.node
            for _ in range(3):
                call = CallInfo.from_call(lambda: None, "call")
                item.ihook.pytest_runtest_makereport(item=item, call=call)
            names = [name for name, _ in item.user_properties if name.startswith("machine.")]
            assert names
            assert len(names) == len(set(names))
        """
    )
    inner.runpytest_inprocess().assert_outcomes(passed=1)
