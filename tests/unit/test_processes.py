"""Programs whose output somebody else decides: bounded in size and time, whatever they print, and wherever."""

from __future__ import annotations

import os
import sys
import tempfile
import time

import pytest

from pytest_machine.support.processes import Conversation, TooLong, TooMuch
from tests.conftest import SLOWNESS

pytestmark = pytest.mark.real


def python(script: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys, time; {script}"]


def test_what_it_prints() -> None:
    with Conversation(python("print('out'); print('err', file=sys.stderr); sys.exit(3)"), size=100) as talk:
        assert talk.end() == 3
        assert (bytes(talk.printed).split(), bytes(talk.errors).split()) == ([b"out"], [b"err"])


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_input_goes_in_while_output_comes(size: int) -> None:
    """More than any pipe holds, in both directions."""
    content = os.urandom(size)
    copy = "data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data)"
    with Conversation(python(copy), input=content, size=10_000_000) as talk:
        assert talk.end() == 0
        assert bytes(talk.printed) == content


def test_input_that_nobody_reads() -> None:
    with Conversation(python("pass"), input=bytes(5_000_000), size=100) as talk:
        assert talk.end() == 0


def test_input_from_a_file() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.seek(0)
        with Conversation(python("print(sys.stdin.read())"), input=file, size=100) as talk:
            assert talk.read(7) == b"content"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_too_much(stream: str) -> None:
    script = f"exec('while 1: sys.{stream}.write(1000 * chr(120))')"
    with Conversation(python(script), size=100_000) as talk:
        with pytest.raises(TooMuch, match="more than 100,000 bytes"):
            talk.end()
        assert 100_000 < len(talk.printed) + len(talk.errors) < 200_000


def test_too_long() -> None:
    begun = time.monotonic()
    with Conversation(python("print('begun', flush=True); time.sleep(60)"), size=100, timeout=1 * SLOWNESS) as talk:
        with pytest.raises(TooLong, match="did not end within") as caught:
            talk.end()
        assert not caught.value.silent
        assert talk.printed.strip() == b"begun"
    assert time.monotonic() - begun < 30 * SLOWNESS


def test_silence() -> None:
    script = "exec('for n in range(4): print(n, flush=True); time.sleep(0.2)'); time.sleep(60)"
    with Conversation(python(script), size=100, timeout=600, silence=2 * SLOWNESS) as talk:
        with pytest.raises(TooLong, match="printed nothing for") as caught:
            talk.end()
        assert caught.value.silent
        assert talk.printed.split() == [b"0", b"1", b"2", b"3"]


def test_it_is_ended_with_the_block() -> None:
    with Conversation(python("time.sleep(60)"), size=100) as talk:
        pid = talk._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_more_than_memory_would_hold_can_be_read_piece_by_piece() -> None:
    """What is read is not kept: a reader slower than the program makes that wait."""
    with Conversation(python("exec('for _ in range(300): sys.stdout.write(100000 * chr(120))')"), size=1 << 30) as talk:
        count = 0
        while part := talk.read(50_000):
            count += len(part)
            assert len(talk.printed) < 1 << 20
        assert count == 30_000_000
        assert talk.end() == 0


def test_what_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        Conversation(["no-such-program"], size=1)
