"""Faults of a machine's own disk, made from outside: it is slow, or it fails.

All of them in force are one trouble of the disk, which replaces the last one; so they end in any order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Self

from pytest_machine.errors import BadSpec, Unsupported
from pytest_machine.fault import Field, Host, OfMachines
from pytest_machine.model import DiskTrouble, State
from pytest_machine.options import size


class _OfDisks(OfMachines):
    def inject(self, field: Field) -> None:
        """Let it happen; raise `Unsupported` where the machine's driver cannot."""
        chosen = self.hosts(field)
        for host in chosen:
            if not host.disk:
                raise Unsupported(
                    f"The machine '{host.name}' has no disk of its own that could have trouble.",
                    facts={"drivers that can": "'runc', with disk="},
                    hint=f"@pytest.mark.machine('{host.name}', driver='runc', disk='2g')",
                )
        field.each(chosen, lambda host: _enforce(field, host))

    def renew(self, field: Field, host: Host) -> None:
        """Let it happen again to a machine that has booted."""
        if self.befalls(field, host):
            _enforce(field, host)

    def heal(self, field: Field) -> None:
        """Undo it; one whose disk had failed boots."""
        field.each([host for host in self.hosts(field) if host.disk], lambda host: _enforce(field, host))


def _enforce(field: Field, host: Host) -> None:
    """Put exactly that trouble in force that is active at a machine."""
    if host.state is State.ABSENT:
        return
    here = [fault for fault in field.active if isinstance(fault, _OfDisks) and fault.befalls(field, host)]
    slow = [fault for fault in here if isinstance(fault, DiskSlow)]
    trouble = DiskTrouble(
        rate=min((fault.rate for fault in slow if fault.rate), default=0),
        operations=min((fault.operations for fault in slow if fault.operations), default=0),
        fails=any(isinstance(fault, DiskError) for fault in here),
    )
    if not host.trouble(trouble) and not trouble.fails and host.state is not State.STOPPED:
        host.kill()
        host.start()


class DiskSlow(_OfDisks):
    """The disk is slow: ``DiskSlow("1m", "a")`` reads and writes as many bytes a second, and no more.

    `operations`: so many reads and so many writes a second, such as 20 for an old disk, where each takes a twentieth.
    What a program leaves to the kernel to write later goes by what the kernel does then: it is ``fsync`` that is slow.
    Where the host has the first version of control groups, a container that starts meanwhile is as fast as ever.
    """

    def __init__(self, rate: str | int = "1m", *machines: object, operations: int = 0) -> None:
        super().__init__(*machines)
        try:
            self.rate = size(rate)
        except ValueError as error:
            raise BadSpec(f"A disk cannot be as slow as '{rate}': {error}.", hint="DiskSlow('1m', 'a')") from error
        if operations < 0:
            raise BadSpec(f"A disk cannot do {operations} operations a second.", hint="DiskSlow('1m', operations=20)")
        self.operations = operations

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return one of 256 KiB to 16 MiB a second."""
        return cls(1 << lot.randrange(18, 25), lot.choice(machines))


class DiskError(_OfDisks):
    """The disk fails: ``DiskError("a")``: nothing can be written to it (EIO); what is on it can be read.

    After some seconds Linux gives up the whole file system for writing (EROFS), as it does with a real disk. Healed,
    the machine boots: what could not be written is lost, and the kernel would go on to complain.
    """
