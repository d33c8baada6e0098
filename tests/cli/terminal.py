"""A terminal with somebody at it: what a program shows there, and what is typed when it has shown something."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence

from tests.conftest import SLOWNESS


def at_terminal(
    argv: Sequence[str], dialogue: Sequence[str] = (), *, environ: Mapping[str, str], timeout: float = 30.0 * SLOWNESS
) -> tuple[str, int]:
    """Run a program at a terminal of its own; return what that showed, and the exit code.

    In the `dialogue`, each text that is waited for is followed by the line that is typed then.
    """
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        # What asks for a passphrase opens the terminal that controls it.
        ["setsid", "--ctty", *argv],
        env=dict(environ),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown, seen, step = "", 0, 0
    deadline = time.monotonic() + timeout
    try:
        while piece := _read(leader, deadline):
            shown += piece
            while step < len(dialogue) and (place := shown.find(dialogue[step], seen)) >= 0:
                seen = place + len(dialogue[step])
                os.write(leader, dialogue[step + 1].encode() + b"\n")
                step += 2
        assert time.monotonic() < deadline, f"it hangs, after {shown!r}"
        return shown, process.wait(timeout)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def _read(leader: int, deadline: float) -> str:
    if not select.select([leader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        return ""
    try:
        return os.read(leader, 4096).decode(errors="replace")
    except OSError:  # Linux says so when nobody has the other end any more
        return ""
