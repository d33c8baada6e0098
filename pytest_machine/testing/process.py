"""`Elsewhere`: one call of a driver's method in a process of its own, which can be killed at any moment.

A driver remembers nothing, so a fresh process must see what this one sees; and a process can die at every point of a
`create`. Both are shown with real processes here, not with a second instance or an exception.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from pytest_machine.driver import Driver
from pytest_machine.support import clock

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pytest_machine.testing.process import main; main()"
)


class Elsewhere:
    """A process that is about to call ``driver.method(*arguments)``; it waits for `go`, so its imports cost no one.

    The driver's class must be importable by its module's name, with this process's `sys.path`.
    """

    def __init__(self, driver: Driver, method: str, *arguments: object) -> None:
        try:
            job = pickle.dumps((driver, method, arguments))
        except (pickle.PicklingError, AttributeError) as error:
            raise TypeError(
                f"{type(driver).__qualname__} cannot be sent to another process: define it at the top of a module that "
                f"can be imported, not in a function ({error})"
            ) from error
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A process group of its own shows when all that the driver started is gone too.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(len(job).to_bytes(8, "big") + job)
        self._process.stdin.flush()
        self._expect_ready()

    def _expect_ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"a fresh process could not load the driver:\n{self._rest()[1]}")

    def go(self) -> None:
        """Let it make the call."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def result(self, *, timeout: float) -> object:
        """Return what the call returned (an iterable as a list); `RuntimeError` with the traceback if it raised."""
        output, errors = self._rest(timeout)
        if not output:
            raise RuntimeError(f"the process died with {self._process.returncode}:\n{errors}")
        good, value = pickle.loads(output)  # noqa: S301  # written by our own child
        if not good:
            raise RuntimeError(f"in a fresh process:\n{value}")
        found: object = value
        return found

    def kill(self, *, patience: float = 0.5) -> bool:
        """Kill it with SIGKILL (Windows: TerminateProcess); return whether it was still at work.

        What it had started itself gets `patience` seconds to end, as it does before a reaper comes.
        """
        was_alive = self._process.poll() is None
        self._process.kill()
        self._process.wait()
        until = clock.monotonic() + patience
        while clock.monotonic() < until and _group_lives(self._process.pid):
            clock.sleep(0.01)
        return was_alive

    def _rest(self, timeout: float = 30) -> tuple[bytes, str]:
        try:
            output, errors = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return output, errors.decode("utf-8", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _group_lives(group: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    """Be the other process: read the call, say ``ready``, wait for ``go``, make the call, write what came of it."""
    # What the driver or its commands print must not mix with the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    driver, method, arguments = pickle.loads(source.read(int.from_bytes(source.read(8), "big")))  # noqa: S301  # our parent's
    answer.write(b"ready\n")
    answer.flush()
    if source.readline() != b"go\n":
        return
    try:
        value = getattr(driver, method)(*arguments)
        if not isinstance(value, Mapping | str | None) and hasattr(value, "__iter__"):
            value = list(value)
        result = pickle.dumps((True, value))
    except BaseException:  # noqa: BLE001  # whatever it was, the parent wants to know
        result = pickle.dumps((False, traceback.format_exc()))
    answer.write(result)
    answer.flush()
