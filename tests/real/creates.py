"""Kills `docker-machine create` at random moments; then the same `create` succeeds, or `rm` leaves nothing.

Run on a host of its own (see `private`): ``python -m tests.real.creates SEED MOMENTS DIRECTORY``. What is left is
looked for with the host's own tools, as `chaos` does for test runs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import SLOWNESS

from .chaos import ALLOWED, RUN, Chaos


class Creates(Chaos):
    """Plays rounds with a machine 'web' of a store of its own."""

    modes = (False,)

    @property
    def store(self) -> Path:
        """Where the machine is noted."""
        return self.home / "store"

    def call(self, *argv: str) -> subprocess.Popen[str]:
        """Start the program."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest_machine", *argv],
            env={
                **os.environ,
                "PYTEST_MACHINE_HOME": str(self.home),
                "MACHINE_STORAGE_PATH": str(self.store),
                "XDG_RUNTIME_DIR": str(RUN),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def said(self, *argv: str) -> tuple[int, str]:
        """Run the program; return its exit code and all that it said."""
        process = self.call(*argv)
        text, _ = process.communicate(timeout=120 * SLOWNESS)
        return process.returncode, text

    def undisturbed(self, *, xdist: bool) -> float:
        """Return the seconds that a creation takes when nobody disturbs it."""
        begun = time.monotonic()
        code, text = self.said("create", "-d", "runc", "web")
        took = time.monotonic() - begun
        if code or xdist:
            raise RuntimeError(text)
        self.said("rm", "-y", "web")
        return took

    def stays(self, thing: str) -> bool:
        """Return whether it is there when the store is empty too."""
        kind, _, text = thing.partition(": ")
        empty = (self.store, self.store / "machines")
        own = kind == "file" and (
            Path(text) in empty
            or any((self.store / name) in (Path(text), *Path(text).parents) for name in ("certs", "locks"))
        )
        return own or super().stays(thing)

    def round(self, number: int, share: float) -> dict[str, object]:
        """Play a round; return what came of it: ``wrong`` and ``left`` are empty when it went well."""
        wrong: list[str] = []
        with self.watched():
            process = self.call("create", "-d", "runc", "web")
            time.sleep(share * self.length[False])
            process.send_signal(signal.SIGKILL)
            process.communicate()
            noted = (self.store / "machines/web/pytest-machine.json").exists()
            if number % 2:
                code, text = self.said("create", "-d", "runc", "web")
                # It may have been killed when all was done.
                if code and "already exists" not in text:
                    wrong.append(text)
                code, text = self.said("version", "web")
                if code:
                    wrong.append(text)
            code, text = self.said("rm", "-y", "web")
            if code and (noted or "does not exist" not in text):
                wrong.append(text)
            deadline = time.monotonic() + ALLOWED
            while (left := self.left()) and time.monotonic() < deadline:
                time.sleep(0.1)
        if left:
            self.rescue()
        return {
            "number": number,
            "at": round(share * self.length[False], 2),
            "noted": noted,
            "machines": len(self.ids),
            "wrong": wrong,
            "left": sorted(left),
        }


def main() -> None:
    """Play the rounds, a line of JSON each."""
    seed, moments, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    creates = Creates(directory)
    for number in range(moments):
        share = random.Random(f"{seed}-{number}").uniform(0.05, 1.05)
        print(json.dumps(creates.round(number, share)), flush=True)


if __name__ == "__main__":
    main()
