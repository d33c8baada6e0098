"""``--machine-pcap=failed``: the packets of every machine of a test, a file for each network that it sits on.

Captured from the moment in which a test has a machine until it fails or its teardown begins, so that nobody who has the
machine next, and no reset, meets a capture. They lie with pytest's own temporary files until it is known whether
anybody wants them; those of a run that is killed are cleared away with those.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_machine.errors import MachineError

from .artifacts import Artifacts, place

if TYPE_CHECKING:
    from pytest_machine.capture import Captures
    from pytest_machine.machine import Machine


class Packets:
    """Captures what the machines of the test that runs send and get."""

    def __init__(self, config: pytest.Config, when: str, artifacts: Artifacts) -> None:
        self._config = config
        self._when = when
        self._artifacts = artifacts
        self._captures: dict[str, Captures] = {}  # machine's name → its captures
        self._missing: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        """Why packets of machines could not be captured, by machine: for the end of the run."""

    def begin(self, machines: Iterable[Machine]) -> None:
        """Capture packets of these machines, of each once a test; where it cannot be, the reason is noted."""
        if self._when == "never":
            return
        fresh = {m.name: m for m in machines if m.name not in self._captures and m.name not in self._missing}
        if not fresh:
            return

        def start(machine: Machine) -> Captures | str:
            try:
                return machine.capture_all(self._room / place(machine.name))
            except (MachineError, OSError) as error:
                return str(error)

        with ThreadPoolExecutor(len(fresh), thread_name_prefix="capture") as pool:
            for name, found in zip(fresh, pool.map(start, fresh.values()), strict=True):
                if isinstance(found, str):
                    self._missing[name] = found
                    self.refused.setdefault(name, found.partition("\n")[0])
                else:
                    self._captures[name] = found

    @property
    def _room(self) -> Path:
        # What the fixture `tmp_path_factory` gives, which a hook cannot ask for.
        factory: pytest.TempPathFactory = self._config._tmp_path_factory  # type: ignore[attr-defined]  # noqa: SLF001
        return factory.getbasetemp() / "machine-packets"

    def sections(self, test: str) -> list[tuple[str, str]]:
        """End the captures, and return a section of the report for each machine: how many packets, and in which file.

        Whatever was sent before this call is there.
        """
        # Now and not at its teardown: who looks into the machines next is not to find us there.
        self.stop()
        found = []
        for name, captures in self._captures.items():
            directory = self._artifacts.path(test, name)
            lines = [
                f"{directory / _called(each.file)}: {each.told()}"
                if each.packets
                else f"{each.network or 'own network'}: {each.told()}"
                for each in captures
            ]
            found.append((f"machine '{name}': packets", "\n".join(lines)))
        found += [(f"machine '{name}': packets", f"none were captured: {why}") for name, why in self._missing.items()]
        return found

    def stop(self) -> None:
        """End the captures; again: nothing happens."""
        if open_ones := [each for captures in self._captures.values() for each in captures]:
            with ThreadPoolExecutor(len(open_ones), thread_name_prefix="capture") as pool:
                list(pool.map(lambda each: each.close(), open_ones))

    def settle(self, test: str, *, failed: bool) -> None:
        """Bring the files to where they are looked for, or throw them away."""
        if not self._captures and not self._missing:
            return
        self.stop()
        try:
            if self._when == "always" or (failed and self._when == "failed"):
                for name, captures in self._captures.items():
                    with self._artifacts.attempt():
                        directory = self._artifacts.directory(test, name)
                        for each in captures:
                            if each.packets:
                                shutil.move(each.file, directory / _called(each.file))
        finally:
            self._captures.clear()
            self._missing.clear()
            shutil.rmtree(self._room, ignore_errors=True)


def _called(file: Path) -> str:
    return f"packets-{file.name}"
