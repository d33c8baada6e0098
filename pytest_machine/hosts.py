"""Which run uses a host that existed before it: one run at a time, on this computer.

::

    STATE/hosts/KEY/lock              held for a moment, while a process looks who uses the host
    STATE/hosts/KEY/RUN--PID-HEX.use  locked by a process of the run, for as long as it uses the host

All processes of a run share the host, so that they cannot wait for each other. The kernel releases the lock of a
process that dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import DriverError
from .support import clock
from .support.folders import make_folder
from .support.locks import is_held, lock_file

# Seconds: between two looks; from when on a line says that it takes long; that a look at the users may take.
_EVERY, _QUIET, _LOOK = 0.1, 2.0, 60.0


def resolved(address: str, port: int) -> str:
    """Return what is the same for all names of a host: its first address, and the port."""
    with contextlib.suppress(OSError, UnicodeError):  # a name that is not known is its own key
        found = sorted(str(info[4][0]) for info in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM))
        address = found[0]
    return f"{address}:{port}"


@contextlib.contextmanager
def using(
    state: Path, host: str, *, run: str, timeout: float, tell: Callable[[str], object] = lambda _: None
) -> Iterator[None]:
    """Use a host for the block, as a process of a run; wait until no other run uses it.

    Raises `DriverError` after `timeout` seconds. `tell` gets a line when the wait is long.
    """
    directory = state / "hosts" / hashlib.sha256(host.encode()).hexdigest()[:16]
    make_folder(directory)
    mine = directory / f"{run}--{os.getpid()}-{secrets.token_hex(4)}.use"
    use = lock_file(mine, thread_local=False)
    begun, told = clock.monotonic(), False
    while True:
        with lock_file(directory / "lock", thread_local=False).acquire(timeout=_LOOK):
            others = sorted(
                path.stem for path in directory.glob("*.use") if path.stem.partition("--")[0] != run and is_held(path)
            )
            if not others:
                use.acquire()
                break
        who = ", ".join(map(_said, others))
        waited = clock.monotonic() - begun
        if waited >= timeout:
            raise DriverError(
                f"The host {host} is in use by another test run.",
                facts={"in use by": who, "waited": f"{waited:.1f} s"},
                hint="wait until that run has ended, or give each run a host of its own; timeout= allows a longer wait",
                transient=False,
            )
        if not told and waited >= min(_QUIET, timeout):
            told = True
            tell(f"waiting for the host {host}, which {who} uses (at most {timeout:g} s)")
        clock.sleep(_EVERY)
    try:
        yield
    finally:
        use.release()
        mine.unlink(missing_ok=True)


def _said(stem: str) -> str:
    run, _, process = stem.partition("--")
    return f"run {run} (process {process.partition('-')[0]})"
