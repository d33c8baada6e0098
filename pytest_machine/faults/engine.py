"""Faults of a machine's Docker daemon: it hangs, is dead, is restarted. The machine itself goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pytest_machine.fault import Field, Host, OfMachines
from pytest_machine.model import State

# By the daemon's own note of its pid, so that no engine in a container is meant; the note of one that is dead may be
# of a pid that is somebody else's by now.
_UP = """\
up() { pid=$(cat /run/docker.pid 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; }
"""
# One that has just been killed or restarted is waited for.
_HANG = f"""\
{_UP}i=0
until up; do i=$((i + 1)) && [ $i -lt 100 ] || {{ echo "no dockerd is running" >&2; exit 1; }}; sleep 0.1; done
kill -STOP "$pid\""""
_GO_ON = f'{_UP}! up || kill -CONT "$pid" 2>/dev/null; true'
# Kept down first, or whoever starts services starts it at once. `systemctl` is our own image's init, too.
_DOWN = """\
if [ -d /run/machine-init ]; then echo down >/run/machine-init/dockerd.want
else systemctl mask --runtime --quiet docker.service docker.socket && systemctl stop docker.socket
fi
"""
_KILL = f'{_UP}{_DOWN}while up; do kill -KILL "$pid" 2>/dev/null; sleep 0.01; done'
_START = """\
[ -d /run/machine-init ] || systemctl unmask --runtime --quiet docker.service docker.socket
systemctl start docker
"""
_RESTART = "systemctl restart docker"


class _Engine(OfMachines):
    key: ClassVar[str]
    script: ClassVar[str]
    undo: ClassVar[str]

    def inject(self, field: Field) -> None:
        """Do it on every machine that runs."""
        field.each(self.hosts(field), lambda host: self._do(field, host))

    def renew(self, field: Field, host: Host) -> None:
        """Do it again on one that has booted."""
        if self.befalls(field, host):
            self._do(field, host)

    def _do(self, field: Field, host: Host) -> None:  # noqa: ARG002  # for others
        if host.state is State.RUNNING:
            host.upset(self.script, undo=self.undo, key=self.key)

    def heal(self, field: Field) -> None:
        """Undo it where no other of its kind is in force."""
        field.each([host for host in self.hosts(field) if not self.still(field, host)], lambda h: h.settle(self.key))


class EngineHang(_Engine):
    """Docker hangs: ``EngineHang("a")`` stops its daemon with SIGSTOP; it takes connections and answers nothing.

    Containers go on. Healed, it goes on too, and answers what it was asked meanwhile.
    """

    key = "engine-hang"
    script = _HANG
    undo = _GO_ON

    def _do(self, field: Field, host: Host) -> None:
        # One that is kept dead hangs as soon as it lives.
        if not any(isinstance(fault, EngineKill) and fault.befalls(field, host) for fault in field.active):
            super()._do(field, host)


class EngineKill(_Engine):
    """Docker is dead: ``EngineKill("a")`` kills its daemon and keeps it down. Healed, it is started and answers."""

    key = "engine-kill"
    script = _KILL
    undo = _START

    def heal(self, field: Field) -> None:
        """Start it, and wait until it answers."""
        super().heal(field)
        for fault in field.active:
            if isinstance(fault, EngineHang):
                for host in self.hosts(field):
                    fault.renew(field, host)
        field.each(_free(field, self.hosts(field)), lambda host: host.engine_answers())


class EngineRestart(OfMachines):
    """Docker is restarted: ``EngineRestart("a")``. Over when it is in force."""

    def inject(self, field: Field) -> None:
        """Restart it, unless it is being kept hanging or down."""

        def again(host: Host) -> None:
            host.shell(_RESTART, timeout=60)
            host.engine_answers()

        field.each(_free(field, self.hosts(field)), again)

    def heal(self, field: Field) -> None:
        """Nothing is left of it."""


def _free(field: Field, hosts: Sequence[Host]) -> list[Host]:
    """Return those whose Docker no fault keeps from answering."""
    held = [fault for fault in field.active if isinstance(fault, _Engine)]
    return [h for h in hosts if h.state is State.RUNNING and not any(fault.befalls(field, h) for fault in held)]
