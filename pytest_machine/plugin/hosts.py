"""Which hosts that existed before the run this process uses, and for which of its labs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_machine.support import clock

if TYPE_CHECKING:
    from pytest_machine.lab import Lab
    from pytest_machine.model import Spec

    from .keeper import Keeper


class Hosts:
    """A lab that is destroyed releases its hosts; a lab that workers share keeps them until the process ends."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._labs: dict[Path, contextlib.ExitStack] = {}

    def take(self, lab: Lab, specs: Sequence[Spec]) -> None:
        """Wait until no other run uses the hosts of these machines; raises `DriverError`."""
        from pytest_machine.driver import SupportsSharedHost

        hosts: dict[str, float] = {}
        for spec in specs:
            driver = self._keeper.choice.registry.configure(spec)
            if isinstance(driver, SupportsSharedHost):
                hosts[driver.shared_host()] = spec.timeout
        if not hosts:
            return
        from pytest_machine.hosts import using
        from pytest_machine.owner import state_dir

        asked = clock.now()
        stack = self._labs.setdefault(lab.store.path, contextlib.ExitStack())
        with self._keeper.ledger.resting():
            for host, timeout in sorted(hosts.items()):  # in one order: two runs cannot wait for each other here
                stack.enter_context(
                    using(state_dir(), host, run=self._keeper.run.id, timeout=timeout, tell=self._keeper.notices.say)
                )
        self._keeper.journal.queued(asked)

    def release(self, lab: Lab) -> None:
        """Release the hosts of a lab. Idempotent."""
        if stack := self._labs.pop(lab.store.path, None):
            stack.close()

    def release_all(self) -> None:
        """Release all. Idempotent."""
        for stack in self._labs.values():
            stack.close()
        self._labs.clear()
