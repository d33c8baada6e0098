"""Runs the host's programs (`ip`, `nft`, `runc`, `mount`) and turns their refusals into `DriverError`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pytest_machine.errors import DriverError

# A plain user's PATH, or a cron job's, often lacks these, and every program that we need lives in one of them.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])

# Nothing here takes longer than a second on an idle host; a minute is a host that hangs.
_TIMEOUT = 60.0


def run(*argv: str | Path, input: str = "", check: bool = True, timeout: float = _TIMEOUT) -> str:
    """Run a program of the host and return what it printed.

    Raises `DriverError` with its own words when it fails; with ``check=False`` failure is what the caller expected.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=input,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env={**os.environ, "PATH": _PATH, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise DriverError(f"The program '{words[0]}' is not installed.", hint="pytest-machine doctor") from error
    except subprocess.TimeoutExpired as error:
        raise DriverError(
            f"'{words[0]}' did not end within {timeout:.0f} s.", facts={"command": " ".join(words)}
        ) from error
    if check and done.returncode != 0:
        raise DriverError(
            f"'{words[0]}' failed on this host.",
            facts={
                "command": " ".join(words),
                "exit code": done.returncode,
                "it said": (done.stderr or done.stdout).strip()[-2000:],
            },
        )
    return done.stdout


def succeeds(*argv: str) -> bool:
    """Whether a program of the host says yes."""
    done = subprocess.run(argv, capture_output=True, check=False, timeout=_TIMEOUT, env={**os.environ, "PATH": _PATH})
    return done.returncode == 0


def installed(program: str) -> bool:
    """Whether the host has a program."""
    return any(os.access(Path(folder) / program, os.X_OK) for folder in _PATH.split(os.pathsep) if folder)
