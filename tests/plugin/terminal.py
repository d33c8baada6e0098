"""Runs commands on a terminal of their own."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time

from tests.conftest import SLOWNESS

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]


def drive(argv: list[str], script: list[tuple[str, str]], timeout: float = 60 * SLOWNESS) -> tuple[int, str]:
    """Run a command on a terminal of its own: wait for each text, then type; return exit code and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(argv[0], argv)
    shown, seen = "", 0
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if script and (found := re.compile(script[0][0]).search(shown, seen)):
            seen = found.end()
            os.write(terminal, script.pop(0)[1].encode())
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # EIO: everybody has closed the other end
                break
            if not chunk:
                break
            shown += chunk.decode(errors="replace")
    else:
        os.kill(pid, 9)
        shown += "\n(timed out)"
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def screen(shown: str) -> str:
    """Return what a terminal that is wide and high enough shows in the end."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for part in re.findall(r"\x1b\[(?:\d*;?)*[A-Za-z]|.|\n", shown):
        if part.startswith("\x1b["):
            number, letter = int(part[2:-1].split(";")[0] or 1) if part[2:-1] else 1, part[-1]
            if letter == "K":
                rows[row] = rows[row][:column]
            elif letter == "A":
                row -= number
            elif letter == "C":
                column += number
        elif part == "\n":
            row += 1
            rows += [[]] if row == len(rows) else []
        elif part == "\r":
            column = 0
        else:
            rows[row] += [" "] * (column + 1 - len(rows[row]))
            rows[row][column] = part
            column += 1
    return "\n".join("".join(each) for each in rows)
