"""Tracebacks of failed tests end in the test: none of our frames is in them, unless all are asked for."""

from __future__ import annotations

import pytest

from .conftest import Run

# What a test may call, each so that it fails.
CALLS = {
    "run": "machine.run('false')",
    "put": "machine.put('/nowhere', '/x')",
    "get": "machine.get('/nowhere', '/nowhere')",
    "wait_for": "machine.wait_for(port=1, timeout=0.1)",
    "wait_until": "lab.wait_until(lambda: False, timeout=0.1)",
    "a lambda": "lab.wait_until(lambda: 1 / 0, timeout=0.1)",
    "inject": "lab.inject(pytest_machine.Pause('nobody')).__enter__()",
    "port": "machine.port('nobody', 80)",
    "docker": "machine.kill()\n    machine.docker",
    "create": "lab.create(pytest_machine.Spec(name='a b', driver='fake'))",
    "by name": "lab['nobody']",
    "compose": "machine.compose('/nowhere.yaml').up()",
    "halves": "pytest_machine.halves([1])",
    "a fault": "pytest_machine.Loss(30)",
}
SOURCE = """
import pytest, pytest_machine

def test_it(machine, lab, machine_factory):
    {call}
"""


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_traceback_ends_in_the_test(run: Run, call: str) -> None:
    result = run(SOURCE.format(call=call), failed=1)
    report = result.stdout.str().partition("= FAILURES =")[2].partition("machines when the test")[0]
    report = report.partition("short test summary")[0]
    assert "pytest_machine/" not in report
    assert "site-packages" not in report
    assert "socket.py" not in report
    assert f">       {call.splitlines()[-1].strip()}" in report or "1 / 0" in report


def test_all_of_it_with_full_trace(run: Run) -> None:
    result = run(SOURCE.format(call=CALLS["wait_for"]), "--full-trace", failed=1)
    result.stdout.fnmatch_lines(["*pytest_machine/machine.py:*", "*pytest_machine/waiting.py:*"])


def test_a_test_without_machines_keeps_our_frames(run: Run) -> None:
    source = "import pytest_machine\ndef test_with(machine): assert 0\ndef test_it():\n    pytest_machine.Loss(30)\n"
    run(source, failed=2).stdout.fnmatch_lines(["*pytest_machine/faults/*.py:*"])


def test_a_machine_that_was_asked_for_while_the_test_ran(inner: pytest.Pytester) -> None:
    inner.makepyfile("def test_it(request):\n    request.getfixturevalue('machine').wait_for(port=1, timeout=0.1)")
    report = inner.runpytest_subprocess().stdout.str()
    assert ">       request.getfixturevalue" in report
    assert "socket.py" not in report


def test_a_library_that_the_test_calls_is_shown(run: Run) -> None:
    run("def test_it(machine): machine.docker.containers.get('nope')", failed=1).stdout.fnmatch_lines(
        ["*docker/*.py:*"]
    )
