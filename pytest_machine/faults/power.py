"""Faults of a whole machine: its power cut, itself frozen, booted again."""

from __future__ import annotations

from pytest_machine.errors import Unsupported
from pytest_machine.fault import Field, Host, OfMachines
from pytest_machine.model import Isolation, State, names


class Kill(OfMachines):
    """The power of machines is cut: ``Kill("a")``. Healed, they boot, and Docker answers again.

    Disks stay. Where the machine has no kernel of its own, so does what it had not yet written to its disk; to lose
    that too, see `Crash`.
    """

    def inject(self, field: Field) -> None:
        """Cut the power."""
        field.each(self.hosts(field), lambda host: host.kill())

    def heal(self, field: Field) -> None:
        """Power it on, unless another one wants it off."""

        def on(host: Host) -> None:
            if host.state is State.STOPPED and not _off(field, host):
                host.start()

        field.each(self.hosts(field), on)


class Crash(Kill):
    """The power of machines is cut, and what they had not yet written to their disks is lost: ``Crash("a")``.

    Only a machine with a kernel of its own loses it, or one of 'runc' with a disk of its own (``disk=``): elsewhere it
    is the host's kernel that writes, and goes on. What should be there afterwards, write before: ``sync``.
    """

    def inject(self, field: Field) -> None:
        """Cut the power; raise `Unsupported` where that loses nothing."""
        for host in self.hosts(field):
            if not (host.disk or host.isolation.includes(Isolation.OWN_KERNEL)):
                raise Unsupported(
                    f"The machine '{host.name}' loses nothing when it crashes: its host's kernel writes for it.",
                    facts={"isolation": host.isolation, "drivers that can": names(field.having("own-kernel"))},
                    hint=f"@pytest.mark.machine('{host.name}', disk='2g'), or Kill('{host.name}')",
                )
        field.each(self.hosts(field), lambda host: host.crash())


def _off(field: Field, host: Host) -> bool:
    """Whether a fault wants a machine's power off."""
    return any(isinstance(fault, Kill) and fault.befalls(field, host) for fault in field.active)


class Pause(OfMachines):
    """Machines are frozen: ``Pause("a")``. They keep their memory and answer nothing; healed, they go on."""

    def inject(self, field: Field) -> None:
        """Freeze them; one that does not run has nothing to freeze until it boots."""
        field.each(self.hosts(field), _freeze)

    def heal(self, field: Field) -> None:
        """Let them go on, unless another one wants them frozen."""

        def on(host: Host) -> None:
            if host.state is State.PAUSED and not self.still(field, host):
                host.resume()

        field.each(self.hosts(field), on)

    def renew(self, field: Field, host: Host) -> None:
        """Freeze one that has booted."""
        if self.befalls(field, host):
            _freeze(host)


def _freeze(host: Host) -> None:
    if host.state is State.RUNNING:
        host.pause()


class Restart(OfMachines):
    """Machines shut down in order and boot: ``Restart("a")``. Over when it is in force; healed, Docker answers."""

    def inject(self, field: Field) -> None:
        """Restart those that run."""

        def again(host: Host) -> None:
            if host.state is State.RUNNING:
                host.restart()

        field.each(self.hosts(field), again)

    def heal(self, field: Field) -> None:
        """Power on what a restart that went wrong has left off."""

        def on(host: Host) -> None:
            if host.state is State.STOPPED and not _off(field, host):
                host.start()

        field.each(self.hosts(field), on)
