"""The fault of the clock: a machine believes that it is another time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Self

from pytest_machine.errors import Unsupported
from pytest_machine.fault import Field, Host, OfMachines, number
from pytest_machine.model import Isolation, State, names


class ClockSkew(OfMachines):
    """The clock is wrong: ``ClockSkew(3600, "a")`` is an hour ahead, in seconds; a negative number is behind.

    Only of a machine with a kernel of its own, which no driver has yet. Elsewhere the clock is its host's and
    everybody's; a time namespace moves other clocks than the one that tells the time of day.
    """

    def __init__(self, seconds: float = 3600.0, *machines: object) -> None:
        super().__init__(*machines)
        self.seconds = number(seconds, "What a clock is wrong by", "seconds: ClockSkew(3600, 'a')")

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return up to a day, either way."""
        return cls(lot.randrange(-86400, 86400), lot.choice(machines))

    def inject(self, field: Field) -> None:
        """Move it; raise `Unsupported` where it is not the machine's own."""
        chosen = self.hosts(field)
        for host in chosen:
            if not host.isolation.includes(Isolation.OWN_KERNEL):
                raise Unsupported(
                    f"The machine '{host.name}' has no clock of its own: it is its host's.",
                    facts={"isolation": host.isolation, "drivers that can": names(field.having("own-kernel"))},
                    hint="@pytest.mark.machine(needs=['own-kernel']), or libfaketime in the container",
                )
        field.each(chosen, lambda host: self._move(field, host))

    def renew(self, field: Field, host: Host) -> None:
        """Move it again: a boot takes the time from the hardware."""
        if self.befalls(field, host):
            self._move(field, host)

    def heal(self, field: Field) -> None:
        """Move it back by as much: what time has passed has passed."""
        field.each(self.hosts(field), lambda host: host.settle())

    def _move(self, field: Field, host: Host) -> None:
        if host.state is State.RUNNING:
            note = f"/run/pytest-machine-{field.token}"
            back = f"[ ! -e {note} ] || {{ {moved(-self.seconds)} && rm -f {note}; }}"
            host.upset(f"{moved(self.seconds)} && touch {note}", undo=back)


def moved(seconds: float) -> str:
    """Return the command that moves the clock."""
    return f'date -u -s "@$(date +%s.%N | awk \'{{ printf "%.6f", $1 + {seconds:f} }}\')" >/dev/null'
