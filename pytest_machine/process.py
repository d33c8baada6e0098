"""A command that goes on in a machine in the background, and the handle by which a test reads and ends it."""

from __future__ import annotations

import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from typing import IO, Self

from .errors import WaitTimeout
from .support import clock

# In a process group of its own, so that all of it can be ended; when our end goes, by whatever way, so does the group.
SCRIPT = """\
exec 3<&0
if command -v setsid >/dev/null; then setsid "$@" </dev/null 3<&- & else "$@" </dev/null 3<&- & fi
p=$!
end() { kill "-$1" "-$p" 2>/dev/null || kill "-$1" "$p" 2>/dev/null; }
( while read -r _ <&3; do :; done; end TERM; sleep 5; end KILL ) >/dev/null 2>&1 &
w=$!
exec 3<&-
wait "$p"; r=$?
kill "$w" 2>/dev/null
exit "$r"
"""
KEPT = 1 << 20
"""Bytes of unread output that are kept of each stream; the oldest lines go first."""
# Seconds for the command to end once it is told to, of which the script above takes five before it kills.
_GRACE = 10.0


class Process:
    """A command that runs in a machine; a context manager that ends it. Made by `Machine.start_process`."""

    def __init__(self, argv: tuple[str, ...], machine: str, ssh: subprocess.Popen[bytes]) -> None:
        self.argv = argv
        self._machine = machine
        self._ssh = ssh
        self._news = threading.Condition()
        assert ssh.stdout is not None
        assert ssh.stderr is not None
        self._out, self._err = _Stream(), _Stream()
        for pipe, stream in ((ssh.stdout, self._out), (ssh.stderr, self._err)):
            threading.Thread(target=self._read, args=(pipe, stream), daemon=True, name="process").start()

    def __repr__(self) -> str:
        return f"<Process '{self.argv[0]}' on '{self._machine}'>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def returncode(self) -> int | None:
        """Return what the command returned: None while it runs, 255 where the connection was lost."""
        return self._ssh.poll()

    @property
    def stderr(self) -> str:
        """What it has printed on its error stream: the last MiB."""
        with self._news:
            return "".join(self._err.lines)

    def lines(self, *, timeout: float | None = None) -> Iterator[str]:
        """Yield the lines of its output as they come, without their ends, until it ends.

        Raises `WaitTimeout` when the next takes longer than `timeout` seconds. Of what is not read, the last MiB stays.
        """
        while (line := self._next(timeout)) is not None:
            yield line.rstrip("\r\n")

    def wait_line(self, pattern: str, *, timeout: float = 60.0) -> str:
        """Read its output up to the first line in which a regular expression is found, and return that line.

        Raises `WaitTimeout` after `timeout` seconds, and when it ends before.
        """
        until = clock.monotonic() + timeout
        last = "nothing"
        while (line := self._next(max(0.0, until - clock.monotonic()), last)) is not None:
            last = line.rstrip("\r\n")
            if re.search(pattern, last):
                return last
        raise self._late(f"ended and printed no line with '{pattern}'", last)

    def wait(self, *, timeout: float | None = None) -> int:
        """Wait until it has ended and return its code; raises `WaitTimeout` after `timeout` seconds."""
        until = None if timeout is None else clock.monotonic() + timeout
        with self._news:
            while self._out.open or self._err.open:
                left = None if until is None else until - clock.monotonic()
                if left is not None and left <= 0:
                    raise self._late(f"did not end within {timeout:g} s", self._last())
                self._news.wait(left)
        code = self._ssh.wait()
        self._close()
        return code

    def stop(self) -> int:
        """End it and all that it has started, by SIGTERM and after 5 s by SIGKILL; return its code. Idempotent."""
        self._close()
        try:
            return self.wait(timeout=_GRACE)
        except WaitTimeout:  # the machine does not answer, or it has left something behind in another group
            self.abandon()
            return self._ssh.wait()

    def abandon(self) -> None:
        """End the connection to it without waiting for the machine. Idempotent."""
        self._ssh.kill()
        self._ssh.wait()
        self._close()

    def _close(self) -> None:
        if self._ssh.stdin is not None:
            self._ssh.stdin.close()

    def _next(self, timeout: float | None, seen: str = "") -> str | None:
        until = None if timeout is None else clock.monotonic() + timeout
        with self._news:
            while not self._out.lines:
                if not self._out.open:
                    return None
                left = None if until is None else until - clock.monotonic()
                if left is not None and left <= 0:
                    raise self._late(f"printed no further line within {timeout:g} s", seen or self._last())
                self._news.wait(left)
            return self._out.take()

    def _last(self) -> str:
        last = [*self._err.lines, *self._out.lines][-1:]
        return " ".join(last[0].split())[:200] if last else "nothing"

    def _late(self, what: str, seen: str) -> WaitTimeout:
        return WaitTimeout(
            f"The command '{self.argv[0]}' on '{self._machine}' {what}.",
            facts={"last seen": seen, "stderr": " ".join(self.stderr.split())[-200:] or "nothing"},
            hint="allow a longer timeout, or look at what it waits for",
        )

    def _read(self, pipe: IO[bytes], stream: _Stream) -> None:
        with pipe:
            # A line without an end is taken in parts.
            while part := pipe.readline(KEPT):
                with self._news:
                    stream.add(part.decode(errors="replace"))
                    self._news.notify_all()
        with self._news:
            stream.open = False
            self._news.notify_all()


class _Stream:
    """The last lines of an output."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()
        self.open = True
        self._size = 0

    def add(self, line: str) -> None:
        self.lines.append(line)
        self._size += len(line)
        while self._size > KEPT and len(self.lines) > 1:
            self.take()

    def take(self) -> str:
        line = self.lines.popleft()
        self._size -= len(line)
        return line
