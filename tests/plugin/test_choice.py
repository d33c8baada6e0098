"""Which driver makes a test's machines, from where, and what happens when it cannot."""

from __future__ import annotations

import pytest

from .conftest import Run

# Of the default order only what is built in can be chosen; a conftest may take the place of one of those.
STANDINS = """
from dataclasses import dataclass
from typing import ClassVar
from pytest_machine.testing.fake import FakeDriver
from pytest_machine.options import option

@dataclass(frozen=True, kw_only=True)
class First(FakeDriver):
    name: ClassVar[str] = "runc"
    {first}

@dataclass(frozen=True, kw_only=True)
class Second(FakeDriver):
    name: ClassVar[str] = "docker"
    {second}

def pytest_machine_drivers():
    return [First, Second, FakeDriver]
"""
UNAVAILABLE = 'unavailable: str = option("there is none", help="")'
SHOW = "def test_it(machine): print('made by', machine.record.driver)"


@pytest.fixture
def standins(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("PYTEST_MACHINE_DRIVER")
    inner.makeconftest(STANDINS.format(first="", second=""))
    return inner


def ini(pytester: pytest.Pytester, *lines: str) -> None:
    text = "[pytest]\naddopts = -p no:cacheprovider -p no:hypothesispytest --strict-config\n" + "\n".join(lines)
    pytester.makeini(text)


def test_nearest_place_wins(standins: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round adds a nearer place."""
    marked = "import pytest\n@pytest.mark.machine(driver='fake')\n" + SHOW
    run(SHOW, "-s").stdout.fnmatch_lines(["machine: runc (privileged)*", "*made by runc*"])
    standins.makepyprojecttoml("[tool.pytest-machine]\ndriver = 'docker'\n")
    run(SHOW, "-s").stdout.fnmatch_lines(["*made by docker*"])
    ini(standins, "machine_driver = fake")
    run(SHOW, "-s").stdout.fnmatch_lines(["*made by fake*"])
    monkeypatch.setenv("PYTEST_MACHINE_DRIVER", "docker")
    run(SHOW, "-s").stdout.fnmatch_lines(["*made by docker*"])
    run(SHOW, "-s", "--machine-driver=runc").stdout.fnmatch_lines(["*made by runc*"])
    run(marked, "-s", "--machine-driver=runc").stdout.fnmatch_lines(["machine: fake*", "*made by fake*"])


def test_all_settings_of_the_table(standins: pytest.Pytester, run: Run) -> None:
    """Also under strict configuration, where a table below ``[tool.pytest]`` would be refused."""
    standins.makepyprojecttoml(
        """
        [tool.pytest]
        strict = true
        addopts = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]

        [tool.pytest-machine]
        driver = "fake"
        image = "mine"
        memory = "64m"
        disk = "1g"
        reuse = "module"
        teardown = "kill"
        timeout = 100
        unavailable = "fail"
        options = { delay = 0.01 }
        """
    )
    (standins.path / "tox.ini").unlink()
    run(
        """
        seen = set()

        def test_one(machine):
            driver = machine.driver
            assert (driver.name, driver.image, driver.memory, driver.delay) == ("fake", "mine", 64 << 20, 0.01)
            seen.add(machine.id)

        def test_two(machine):
            assert machine.id in seen
        """,
        passed=2,
    )


def test_flags(standins: pytest.Pytester, run: Run) -> None:
    ini(standins, "machine_reuse = never", "machine_image = ini", "machine_timeout = 1")
    run(
        """
        seen = set()

        def test_one(machine):
            assert machine.driver.image == "flag"
            seen.add(machine.id)

        def test_two(machine):
            assert machine.id in seen
        """,
        *("--machine-driver=fake", "--machine-image=flag", "--machine-reuse=module"),
        *("--machine-teardown=kill", "--machine-timeout=100", "--machine-unavailable=fail"),
        passed=2,
    )


@pytest.mark.parametrize(
    ("lines", "args", "says"),
    [
        ((), ("--machine-reuse=modul",), "The option '--machine-reuse' cannot be 'modul'*hint: did you mean 'module'?"),
        (
            (),
            ("--machine-timeout=soon",),
            "The option '--machine-timeout' cannot be 'soon'*write --machine-timeout=1.5 *",
        ),
        (("machine_teardown = gently",), (), "The ini option 'machine_teardown' cannot be 'gently'*"),
        (("machine_unavailable = maybe",), (), "The ini option 'machine_unavailable' cannot be 'maybe': *"),
    ],
)
def test_wrong_settings(inner: pytest.Pytester, lines: tuple[str, ...], args: tuple[str, ...], says: str) -> None:
    ini(inner, *lines)
    inner.makepyfile(SHOW)
    result = inner.runpytest_inprocess(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: {line}*" if i == 0 else f"*{line}" for i, line in enumerate(says.split("*", 1))]
    )


def test_wrong_key_of_the_table(inner: pytest.Pytester) -> None:
    inner.makepyprojecttoml("[tool.pytest-machine]\ndirver = 'fake'\n")
    inner.makepyfile(SHOW)
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *tool.pytest-machine* has no 'dirver'; it has driver, *"])


class TestUnavailable:
    def test_asked_for_is_an_error(self, standins: pytest.Pytester, run: Run) -> None:
        standins.makeconftest(STANDINS.format(first=UNAVAILABLE, second=""))
        result = run(SHOW, "--machine-driver=runc", "--machine-unavailable=skip", errors=1)
        result.stdout.fnmatch_lines(["*The driver 'runc' cannot run here.*", "*there is none*", "*hint:*"])
        result.stdout.no_fnmatch_line("*choice.py*")

    def test_the_next_is_chosen(self, standins: pytest.Pytester, run: Run) -> None:
        standins.makeconftest(STANDINS.format(first=UNAVAILABLE, second=""))
        run(SHOW, "-s").stdout.fnmatch_lines(["machine: docker*", "*made by docker*"])

    def test_chosen_for_you_is_a_skip(self, standins: pytest.Pytester, run: Run) -> None:
        standins.makeconftest(STANDINS.format(first=UNAVAILABLE, second=UNAVAILABLE))
        result = run(SHOW, skipped=1)
        result.stdout.fnmatch_lines(
            ["SKIPPED*No driver can make a machine here.*", "*The driver 'runc' cannot run here*"]
        )

    @pytest.mark.parametrize(("ci", "lines", "outcome"), [
        ("true", (), "errors"),
        ("true", ("machine_unavailable = skip",), "skipped"),
        ("", ("machine_unavailable = fail",), "errors"),
    ])  # fmt: skip
    def test_in_ci(
        self,
        standins: pytest.Pytester,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        ci: str,
        lines: tuple[str, ...],
        outcome: str,
    ) -> None:
        standins.makeconftest(STANDINS.format(first=UNAVAILABLE, second=UNAVAILABLE))
        monkeypatch.setenv("CI", ci)
        ini(standins, *lines)
        run(SHOW, **{outcome: 1})


class TestNeeds:
    OWN_KERNEL = "isolation = property(lambda self: __import__('pytest_machine').model.Isolation.OWN_KERNEL)"

    def test_the_first_that_has_it_is_chosen(self, standins: pytest.Pytester, run: Run) -> None:
        standins.makeconftest(STANDINS.format(first="", second=self.OWN_KERNEL))
        marked = "import pytest\n@pytest.mark.machine(needs='own-kernel')\n" + SHOW
        run(marked, "-s").stdout.fnmatch_lines(["machine: docker (own-kernel)*", "*made by docker*"])

    def test_nobody_has_it(self, standins: pytest.Pytester, run: Run) -> None:
        marked = "import pytest\n@pytest.mark.machine(needs='own-kernel')\n" + SHOW
        run(marked, skipped=1).stdout.fnmatch_lines(["SKIPPED*", "*it does not have 'own-kernel'*"])

    def test_a_driver_that_a_flag_names_lacks_it(self, standins: pytest.Pytester, run: Run) -> None:
        """An error of that test alone: the mark is right, and others run."""
        standins.makeconftest(STANDINS.format(first="", second=self.OWN_KERNEL))
        marked = "import pytest\ndef test_other(): ...\n@pytest.mark.machine(needs='own-kernel')\n" + SHOW
        result = run(marked, "--machine-driver=fake", passed=1, errors=1)
        result.stdout.fnmatch_lines(["*The driver 'fake' does not have 'own-kernel'.*", "*'docker'*", "*hint:*"])


def test_unknown_driver_of_a_flag(inner: pytest.Pytester, run: Run) -> None:
    result = run(SHOW, "--machine-driver=fkae", errors=1)
    result.stdout.fnmatch_lines(["*There is no driver 'fkae'.*", "*did you mean 'fake'?*"])


def test_options_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_IMAGE", "theirs")
    run("def test_it(machine): assert machine.driver.image == 'theirs'")


@pytest.mark.parametrize("settings", [("--machine-unsupported=skip",), ("-o", "machine_unsupported=skip")])
def test_what_the_driver_of_a_setting_lacks_is_a_skip_if_wanted(run: Run, settings: tuple[str, ...]) -> None:
    source = "import pytest\n@pytest.mark.machine(needs=['incidents'])\ndef test_it(machine): ..."
    run(source, "--machine-driver=none", errors=1)
    result = run(source, "--machine-driver=none", *settings, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*does not have 'incidents'*"])


def test_what_the_driver_of_a_mark_lacks_is_an_error_all_the_same(run: Run) -> None:
    source = "import pytest\n@pytest.mark.machine(driver='none', needs=['incidents'])\ndef test_it(machine): ..."
    result = run(source, "--machine-unsupported=skip", errors=1)
    result.stdout.fnmatch_lines(["*does not have 'incidents'*"])
