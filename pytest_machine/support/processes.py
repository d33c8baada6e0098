"""Talk to a program whose output somebody else decides: bounded in size and time.

`subprocess.run` reads whatever comes into memory, for as long as it comes. A `Conversation` reads no more than it is
asked for, and ends with the program killed when a bound is met.
"""

from __future__ import annotations

import queue
import re
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Self

from . import clock

_CHUNK = 1 << 16
# Seconds that a program gets to end by itself once it has said its last, and the bytes of its mark.
_AT_ONCE, _LONGEST_MARK = 0.1, 64
# Chunks that wait to be read: a program that prints faster than we read has to wait.
_WAITING = 8


class TooMuch(Exception):
    """A program printed more than it may; `size` is the limit in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"more than {size:,} bytes")
        self.size = size


class TooLong(Exception):
    """A program did not end, or printed nothing, for longer than it may; `seconds` is the limit."""

    def __init__(self, seconds: float, *, silent: bool) -> None:
        super().__init__(f"{'printed nothing for' if silent else 'did not end within'} {seconds:g} s")
        self.seconds = seconds
        self.silent = silent


class Conversation:
    """A program that runs, with its input and output; a context manager that ends it.

    `size` is how many bytes it may print in all, on both streams; `timeout` how many seconds it may run; `silence` how
    many seconds it may print nothing. Methods that read raise `TooMuch` and `TooLong`, after which the program is dead
    and what it had printed is in `printed` and `errors`. Raises `OSError` where it cannot be started.

    A `mark`, a blank and a number at the end of a line of the error stream are the program's real return code. With
    `marks_output` both streams have it, and its last words end there: a process that still holds the streams is not
    waited for.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        input: bytes | IO[bytes] = b"",
        size: int,
        timeout: float | None = None,
        silence: float | None = None,
        mark: bytes = b"",
        marks_output: bool = False,
    ) -> None:
        self._mark = re.compile(re.escape(mark) + rb" (\d+)\n") if mark else None
        self._awaited = 2 if marks_output else 0
        self._code: int | None = None
        self._said = 0.0  # when the mark came
        self._left_alone = False
        self._begun = clock.monotonic()
        self._timeout = timeout
        self._silence = silence
        self._size = size
        self._count = 0
        self.printed = bytearray()
        """What was printed and not read yet."""
        self.errors = bytearray()
        """What it printed on its error stream."""
        self._over = threading.Event()
        self._chunks: queue.Queue[tuple[bytearray, bytes]] = queue.Queue(_WAITING)
        self._open = 2
        feed = isinstance(input, bytes) and bool(input)
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL if isinstance(input, bytes) else input,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        threads = [(self._pump, self._process.stdout, self.printed), (self._pump, self._process.stderr, self.errors)]
        if feed:
            threads.append((self._feed, self._process.stdin, input))  # type: ignore[arg-type]
        for target, *arguments in threads:
            # Daemons: a pipe that another process still holds must not keep this one from ending.
            threading.Thread(target=target, args=arguments, daemon=True, name="conversation").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def read(self, size: int) -> bytes:
        """Return that many bytes of what it prints, and fewer only at the end."""
        while len(self.printed) < size and self._more():
            pass
        part = bytes(self.printed[:size])
        del self.printed[:size]
        return part

    def end(self, *, keep: bool = True) -> int:
        """Wait until it has ended and return its code; what it still prints is kept in `printed`, or else dropped."""
        while self._more():
            if not keep:
                self.printed.clear()
        if self._open:
            self._leave()
            assert self._code is not None
            return self._code
        try:
            code = self._process.wait(self._left())
        except subprocess.TimeoutExpired:
            raise self._too_long(silent=False) from None
        return code if self._code is None else self._code

    @property
    def has_code(self) -> bool:
        """Whether the mark has come."""
        return self._code is not None

    def _leave(self) -> None:
        """Let it go on by itself, if it does not end at once; what it still prints is read and dropped."""
        self._left_alone = True
        self._over.set()

    def hurry(self, seconds: float) -> None:
        """Let it run for so many seconds more, and no longer."""
        self._begun, self._timeout = clock.monotonic(), seconds

    def kill(self) -> None:
        """End it now. Idempotent."""
        self._over.set()
        if self._process.poll() is None and not self._left_alone:
            self._process.kill()
            self._process.wait()

    def _more(self) -> bool:
        """Take the next chunk; return whether there may be another."""
        if not self._open:
            return False
        if self._marked:
            return self._last()
        left = self._left()
        silent = self._silence is not None and (left is None or self._silence < left)
        try:
            where, part = self._chunks.get(timeout=self._silence if silent else left)
        except queue.Empty:
            raise self._too_long(silent=silent) from None
        return self._take(where, part)

    @property
    def _marked(self) -> bool:
        return self._awaited < 0

    def _last(self) -> bool:
        """Take what comes when all is said: mostly the ends of both streams, at once."""
        if (left := self._said + _AT_ONCE - clock.monotonic()) <= 0:
            return False
        try:
            return self._take(*self._chunks.get(timeout=left))
        except queue.Empty:
            return False

    def _take(self, where: bytearray, part: bytes) -> bool:
        if not part:
            self._open -= 1
            return self._open > 0
        before = len(where)
        where += part
        if self._mark and (found := self._mark.search(where, max(0, before - _LONGEST_MARK))):
            self._code, self._said = int(found[1]), clock.monotonic()
            del where[found.start() : found.end()]
            self._awaited = -1 if self._awaited == 1 else self._awaited - 1 if self._awaited else 0
        self._count += len(part)
        if self._count > self._size:
            self.kill()
            raise TooMuch(self._size)
        return True

    def _left(self) -> float | None:
        return None if self._timeout is None else max(0.0, self._begun + self._timeout - clock.monotonic())

    def _too_long(self, *, silent: bool) -> TooLong:
        self.kill()
        seconds = self._silence if silent else self._timeout
        assert seconds is not None
        return TooLong(seconds, silent=silent)

    def _pump(self, pipe: IO[bytes], where: bytearray) -> None:
        with pipe, suppress(OSError):
            while (part := pipe.read(_CHUNK)) and (self._hand(where, part) or self._left_alone):
                pass
        self._hand(where, b"")
        if self._left_alone:
            self._process.wait()

    def _hand(self, where: bytearray, part: bytes) -> bool:
        while not self._over.is_set():
            with suppress(queue.Full):
                self._chunks.put((where, part), timeout=0.2)
                return True
        return False

    def _feed(self, pipe: IO[bytes], content: bytes) -> None:
        # It need not read all of it.
        with suppress(OSError), pipe:
            view = memoryview(content)
            while view and not self._over.is_set():
                view = view[pipe.write(view) :]
