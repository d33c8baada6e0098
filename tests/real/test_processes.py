"""Commands that leave processes behind, that take too long, and that are to go on in the background."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytest_machine.errors import CommandFailed, UsageError, WaitTimeout
from pytest_machine.machine import Machine


@pytest.fixture
def machine(module_machine: Machine) -> Machine:
    return module_machine


class TestLeftBehind:
    @pytest.mark.parametrize(
        "held", ["sleep 60 &", "sleep 60 >/dev/null &", "sleep 60 2>/dev/null &", "(sleep 60; echo late) & sleep 0"]
    )
    def test_a_command_ends_when_it_ends(self, machine: Machine, held: str) -> None:
        begun = time.monotonic()
        result = machine.run("sh", "-c", f"echo out; echo err >&2; {held}")
        assert time.monotonic() - begun < 20
        assert (result.returncode, result.stdout, result.stderr) == (0, "out\n", "err\n")

    @pytest.mark.parametrize("code", [0, 1, 7, 254, 255])
    def test_its_return_code(self, machine: Machine, code: int) -> None:
        result = machine.run("sh", "-c", f"sleep 60 & echo -n out; echo -n err >&2; exit {code}", check=False)
        assert (result.returncode, result.stdout, result.stderr) == (code, "out", "err")
        if code:
            with pytest.raises(CommandFailed):
                machine.run("sh", "-c", f"sleep 60 & exit {code}")

    def test_everything_that_it_printed_is_there(self, machine: Machine) -> None:
        script = "sleep 60 & i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        assert machine.run("sh", "-c", script).stdout == "".join(f"line {i}\n" for i in range(20000))

    def test_what_it_left_behind_goes_on_and_may_print(self, machine: Machine) -> None:
        machine.run("rm", "-f", "/srv/alive")
        script = "(i=0; while [ $i -lt 20 ]; do echo still here; sleep 0.1; i=$((i+1)); done; touch /srv/alive) &"
        machine.run("sh", "-c", script)
        machine.run("sh", "-c", "until [ -e /srv/alive ]; do sleep 0.1; done", timeout=60)

    def test_one_that_keeps_printing(self, machine: Machine) -> None:
        begun = time.monotonic()
        result = machine.run("sh", "-c", "(while sleep 0.01; do echo more; done) & echo first; exit 3", check=False)
        assert time.monotonic() - begun < 20
        assert result.returncode == 3
        assert "first\n" in result.stdout
        machine.run("pkill", "-f", "sleep 0.01|echo more", check=False)


class TestTooLate:
    def test_what_it_printed_is_kept(self, machine: Machine) -> None:
        with pytest.raises(WaitTimeout) as caught:
            machine.run("sh", "-c", "echo before; echo wrong >&2; sleep 60", timeout=2)
        assert (caught.value.stdout, caught.value.stderr) == ("before\n", "wrong\n")
        assert "wrong" in str(caught.value)


class TestInTheBackground:
    def test_its_lines_and_its_end(self, machine: Machine) -> None:
        with machine.start_process("sh", "-c", "echo one; echo two; echo wrong >&2; exit 3") as process:
            assert list(process.lines(timeout=30)) == ["one", "two"]
            assert process.wait(timeout=30) == 3
            assert process.returncode == 3
            assert process.stderr == "wrong\n"

    def test_it_goes_on_until_it_is_stopped(self, machine: Machine) -> None:
        script = "touch /srv/going; (while sleep 0.1; do echo tick; done) & sleep 1000"
        with machine.start_process("sh", "-c", script) as process:
            assert process.wait_line("^tick$", timeout=30) == "tick"
            running = process.returncode
            assert running is None
            assert next(process.lines(timeout=30)) == "tick"
            assert machine.run("pgrep", "-f", "[s]leep 1000").stdout
        assert process.stop() == process.returncode != 0
        assert machine.run("pgrep", "-f", "[s]leep 1000", check=False).stdout == ""

    def test_words_arrive_as_they_are(self, machine: Machine) -> None:
        with machine.start_process("printf", "%s|", "a b", "$HOME", "'", "*") as process:
            assert list(process.lines(timeout=30)) == ["a b|$HOME|'|*|"]

    def test_waits_are_bounded(self, machine: Machine) -> None:
        with machine.start_process("sleep", "1000") as process:
            with pytest.raises(WaitTimeout, match="did not end"):
                process.wait(timeout=0.3)
            with pytest.raises(WaitTimeout, match="no further line"):
                next(process.lines(timeout=0.3))
        with (
            machine.start_process("echo", "other") as process,
            pytest.raises(WaitTimeout, match="ended and printed no"),
        ):
            process.wait_line("ready")

    def test_what_nobody_reads_is_bounded(self, machine: Machine) -> None:
        with machine.start_process(
            "sh", "-c", "head -c 8000000 /dev/zero | tr '\\0' x | fold -w 1000; echo; echo last"
        ) as p:
            assert p.wait(timeout=60) == 0
            lines = list(p.lines())
        assert lines[-1] == "last"
        assert 900_000 < sum(map(len, lines)) <= 1 << 20

    def test_no_words(self, machine: Machine) -> None:
        with pytest.raises(UsageError):
            machine.start_process()

    def test_it_ends_with_its_machine(self, machine_factory: Callable[[], Machine]) -> None:
        machine = machine_factory()
        process = machine.start_process("sleep", "1000")
        machine.destroy()
        assert process.wait(timeout=30) != 0
