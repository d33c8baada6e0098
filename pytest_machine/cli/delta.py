"""Between two machines, what has changed alone: the rsync of one speaks with that of the other through here.

Neither machine knows the other, nor a key of it. So the first one's rsync is given, in the place of ``ssh``, a relay
that hands what rsync would have run on the other machine, and all that it says, to the connection that it was started
by; here that connection's ends become the other one's. Nothing is kept here, and this computer needs no rsync.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .remote import LOST, Place

# The other machine in the words of the first one's rsync: who that is is known here alone.
_OTHER = "other"

# Standard input and output are the connection: rsync itself shows what it shows on the other one. A NUL before the
# words, because a login shell may have said something of its own. What reads must not hold what is written: the other
# side would never hear the end.
# rsync waits for its relay, which has to end when the other machine has said all: so that is what it becomes.
_RELAY = r"""printf "\0%s\0" "$*" >&4; exec 5<&0; cat <&5 >&4 3<&- & exec cat <&3 4>&- 5<&-"""
_SENDER = """\
exec 3<&0 4>&1 </dev/null >&2
relay="sh -c '$1'"
shift
exec rsync -e "$relay" "$@"
"""


def copy(config: Path, source: Place, target: Place, flags: Sequence[str]) -> int:
    """Copy from one machine to another; return rsync's exit code, or ssh's where a machine was not reached."""
    argv = ["ssh", "-F", str(config), "--"]
    path = source.path or "."
    # Or it would pass for an option, or for a path in a machine.
    path = f"./{path}" if path.startswith("-") or ":" in path.partition("/")[0] else path
    words = ["sh", "-c", _SENDER, "sh", _RELAY, *flags, "--", path, f"{_OTHER}:{target.path}"]
    sender = subprocess.Popen(
        [*argv, source.whom, shlex.join(words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert sender.stdin is not None
    assert sender.stdout is not None
    with sender.stdin, sender.stdout:
        command = _asked(sender.stdout.fileno())
        if command is None:
            sender.stdin.close()
            return _code(sender)
        receiver = subprocess.Popen([*argv, target.whom, command], stdin=sender.stdout, stdout=sender.stdin)
    # Each is told by its own rsync; where the other machine was not reached, by ssh.
    there, here = _code(receiver), _code(sender)
    return LOST if there == LOST else here or there


def _asked(said: int) -> str | None:
    """Return what the sender's rsync wants to have run on the other machine; None when it never came to that."""
    found = b""
    # Byte by byte: what follows is the other machine's.
    while found.count(b"\0") < 2:
        if not (byte := os.read(said, 1)):
            return None
        found += byte
    return os.fsdecode(found.split(b"\0")[1])


def _code(process: subprocess.Popen[bytes]) -> int:
    code = process.wait()
    return code if code >= 0 else 128 - code
