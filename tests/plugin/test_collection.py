"""Wrong marks end the collection: node id, sentence, hint, no traceback."""

from __future__ import annotations

import pytest

WRONG = """
import pytest

@pytest.mark.machine(memroy="1g")
def test_wrong(machine): ...

def test_right(): ...
"""


def test_wrong_arguments(inner: pytest.Pytester) -> None:
    method = "import pytest\nclass TestIt:\n    @pytest.mark.machine('web', count=0)\n    def test_method(self): ..."
    inner.makepyfile(test_it=WRONG, test_other=method)
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting test_it.py*",
            "test_it.py::test_wrong: The mark 'machine' takes no argument 'memroy'.",
            "hint: did you mean 'memory='?",
            "*ERROR collecting test_other.py*",
            "test_other.py::TestIt::test_method: The mark 'machine' cannot have count=0.",
            "hint: write count=3",
            # Since pytest 9 the summary shows the text of such an error, too.
            "ERROR test_it.py - test_it.py::test_wrong: The mark *"
            if pytest.version_tuple >= (9,)
            else "ERROR test_it.py",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*marker.py*")


def test_wrong_arguments_under_xdist(inner: pytest.Pytester) -> None:
    inner.makepyfile(test_it=WRONG)
    result = inner.runpytest_subprocess("-n", "2")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*::test_wrong: The mark 'machine' takes no argument 'memroy'.", "hint: *"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_one_mark_for_many_tests_is_said_once(inner: pytest.Pytester) -> None:
    tests = "".join(f"def test_{name}(): ...\n" for name in "abcde")
    inner.makepyfile(test_it=f"import pytest\npytestmark = pytest.mark.machine(count=0)\n{tests}")
    result = inner.runpytest_inprocess()
    result.stdout.fnmatch_lines(["*::test_a, *::test_b, *::test_c and 2 more: The mark 'machine' cannot have count=0."])
    assert result.stdout.str().count("reason") == 1


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ("@machine(driver='fkae')", "There is no driver 'fkae'."),
        ("@machine(role='worker', count=2)", "A Swarm of workers alone cannot be: somebody has to take its orders."),
        (
            "@machine('a', swarm=True, networks=['x'])\n@machine('b', swarm=True)",
            "The machines of a Swarm do not share a network, so they could not talk to each other.",
        ),
        ("@machine(driver='fake', options={'imgae': 'x'})", "The driver 'fake' has no option 'imgae'."),
        ("@machine(driver='fake', needs=['own-kernel'])", "The driver 'fake' does not have 'own-kernel'."),
        ("@machine(driver='runc', image='potato')", "There is no machine image 'potato'."),
        ("@machine(driver='runc', engine='1.2')", "There is no machine image with Docker '1.2'."),
        (
            "@machine(driver='runc', options={'address': 'x'})",
            "The option 'address' of the driver 'runc' cannot be 'x'.",
        ),
        ("@machine(options={'imgae': 'x'})", "The driver 'fake' has no option 'imgae'."),
        ("@machine('a', reuse='module')\n@machine('b')", "shared together or not at all"),
        ("@machine('a')\n@machine('a')", "Two marks on one level both name a machine 'a'."),
    ],
)
def test_what_the_mark_alone_gets_wrong(inner: pytest.Pytester, marks: str, says: str) -> None:
    inner.makepyfile(f"import pytest\nmachine = pytest.mark.machine\n{marks}\ndef test_it(machine): ...")
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*::test_it: *{says}*", "*hint: *"])


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("image='potato'", "There is no machine image 'potato'."),
        ("options={'address': 'x'}", "The option 'address' of the driver 'runc' cannot be 'x'."),
    ],
)
def test_a_mark_that_suits_no_driver_as_a_flag_has_it(inner: pytest.Pytester, mark: str, says: str) -> None:
    inner.makepyfile(f"import pytest\n@pytest.mark.machine({mark})\ndef test_it(machine): ...")
    result = inner.runpytest_inprocess("--machine-driver=runc")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*::test_it: *{says}*", "*hint: *"])


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("options={'subnet': '10.99.0.0/24'}", "The driver 'fake' has no option 'subnet'."),
        ("needs=['own-kernel']", "The driver 'fake' does not have 'own-kernel'."),
    ],
)
def test_what_another_driver_has_is_the_tests_own_trouble(inner: pytest.Pytester, mark: str, says: str) -> None:
    """A mark that names no driver, and suits one: the test may be skipped here for that very reason."""
    inner.makepyfile(
        "import pytest\n"
        f"@pytest.mark.machine({mark})\ndef test_it(machine): ...\n"
        f"@pytest.mark.skip\n@pytest.mark.machine({mark})\ndef test_skipped(machine): ...\n"
        "def test_other(): ..."
    )
    result = inner.runpytest_inprocess("--machine-driver=fake")
    result.assert_outcomes(passed=1, skipped=1, errors=1)
    result.stdout.fnmatch_lines([f"*{says}*"])


def test_marks_that_a_hook_adds(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        conftest=(inner.path / "conftest.py").read_text()
        + "\n\nimport pytest\n\ndef pytest_collection_modifyitems(items):\n"
        + "    items[0].add_marker(pytest.mark.machine(count=0))\n",
        test_it="def test_it(machine): ...",
    )
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it.py::test_it: The mark 'machine' cannot have count=0."])


def test_mark_is_registered(inner: pytest.Pytester) -> None:
    inner.runpytest_inprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.machine(*names, driver=, *"])
