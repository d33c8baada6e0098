"""Faults of what a machine runs on: its memory taken, its cores busy, its disk full.

What takes it is a process or a mount of the machine's own, which goes with a boot; so nothing can be left on a disk.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Sequence
from typing import Self

from pytest_machine.errors import BadSpec, Unsupported
from pytest_machine.fault import Field, Host, OfMachines
from pytest_machine.model import Isolation, State, names
from pytest_machine.options import size

# By a variable of theirs: a pid may be somebody else's by the time it is used. It is healed when they have ended,
# which is waited for: five seconds at most, because whoever waits for a dead disk cannot be killed.
_END = """\
found=
for each in /proc/[0-9]*; do
  if grep -qsz '^PTM_FAULT={token}$' "$each/environ"; then
    kill -KILL "${{each#/proc/}}" 2>/dev/null
    found="$found $each"
  fi
done
i=0
for each in $found; do
  while [ -e "$each" ] && ! grep -qs '^State:.Z' "$each/status" && [ $i -lt 500 ]; do sleep 0.01; i=$((i+1)); done
done
true"""


class _Resource(OfMachines):
    def inject(self, field: Field) -> None:
        """Take it on every machine that runs."""
        chosen = self.hosts(field)
        for host in chosen:
            self._check(field, host)
        field.each(chosen, lambda host: self._take(field, host))

    def renew(self, field: Field, host: Host) -> None:
        """Take it again on a machine that has booted."""
        if self.befalls(field, host):
            self._take(field, host)

    def heal(self, field: Field) -> None:
        """Give it back."""
        field.each(self.hosts(field), lambda host: host.settle())

    def _take(self, field: Field, host: Host) -> None:
        if host.state is State.RUNNING:
            script, undo = self._scripts(field.token)
            host.upset(script, undo=undo)

    def _check(self, field: Field, host: Host) -> None:
        """Raise `Unsupported` where it would harm others."""

    def _scripts(self, token: str) -> tuple[str, str]:
        """Return what takes it, and what gives it back."""
        raise NotImplementedError


class CpuStress(_Resource):
    """The cores are busy: ``CpuStress("a", workers=4)`` runs endless loops, as many as there are cores by default."""

    def __init__(self, *machines: object, workers: int | None = None) -> None:
        super().__init__(*machines)
        if workers is not None and workers < 1:
            raise BadSpec(f"Cores cannot be busy with {workers} loops.", hint="CpuStress('a', workers=2)")
        self.workers = workers

    def _scripts(self, token: str) -> tuple[str, str]:
        count = "$(nproc)" if self.workers is None else str(self.workers)
        take = (
            f"i=0; while [ $i -lt {count} ]; do\n"
            f"  PTM_FAULT={token} setsid sh -c 'while :; do :; done' </dev/null >/dev/null 2>&1 &\n"
            "  i=$((i+1))\ndone"
        )
        return take, _END.format(token=token)


class MemoryPressure(_Resource):
    """Memory is taken: ``MemoryPressure("a", size="256m")``. What no longer fits, the kernel ends.

    It counts against the machine's own limit (``memory=``) where there is one.
    """

    def __init__(self, *machines: object, size: str | int = "256m") -> None:  # the user's word
        super().__init__(*machines)
        self.size = _bytes(size)

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return up to 128 MiB of one machine's."""
        return cls(lot.choice(machines), size=lot.randrange(16, 129) << 20)

    def _scripts(self, token: str) -> tuple[str, str]:
        place = f"/run/pytest-machine-{token}"
        # Mounting leaves a directory of libmount's own behind.
        take = (
            f"[ -e /run/mount ] || new=1\nmkdir {place} && mount -t tmpfs -o mode=700,size={self.size} ptm {place} &&\n"
            f'fallocate -l {self.size} {place}/taken || exit\n[ -z "$new" ] || rm -rf /run/mount'
        )
        give = (
            f"[ -e /run/mount ] || new=1\numount -l {place} 2>/dev/null; rmdir {place} 2>/dev/null\n"
            f'[ -z "$new" ] || rm -rf /run/mount\n[ ! -e {place} ]'
        )
        return take, give


class DiskFull(_Resource):
    """The disk is full: ``DiskFull("a")``. `path` says which, `leave` how many bytes are left.

    Only of a machine with a disk of its own (``disk=``, or a kernel of its own): else it would be its host's.
    """

    def __init__(self, *machines: object, path: str = "/var/lib/docker", leave: str | int = 0) -> None:
        super().__init__(*machines)
        self.path = path
        self.leave = _bytes(leave) if leave else 0

    def _check(self, field: Field, host: Host) -> None:
        if not (host.isolation.includes(Isolation.OWN_KERNEL) or host.options.get("disk")):
            raise Unsupported(
                f"The machine '{host.name}' has no disk of its own: its host's would be full.",
                facts={"drivers whose machines always have one": names(field.having("own-kernel"))},
                hint=f"@pytest.mark.machine('{host.name}', disk='2g')",
            )

    def _scripts(self, token: str) -> tuple[str, str]:
        # Its name is gone once somebody holds it: the space comes back with the holder's end, or with a boot.
        file = shlex.quote(f"{self.path}/.pytest-machine-{token}")
        take = f"""\
set -e
exec 9>{file}
PTM_FAULT={token} setsid sleep 99999999 </dev/null >/dev/null 2>&1 &
rm -f {file}
free=$(($(df -P -k {shlex.quote(self.path)} | tail -n 1 | tr -s ' ' | cut -d' ' -f4) * 1024 - {self.leave}))
[ $free -le 0 ] || fallocate -l $free /proc/self/fd/9 2>/dev/null || [ {self.leave} -eq 0 ]
[ {self.leave} -gt 0 ] || dd if=/dev/zero of=/proc/self/fd/9 bs=4k oflag=append conv=notrunc 2>/dev/null || true
"""
        return take, f"rm -f {file}\n{_END.format(token=token)}"


def _bytes(given: str | int) -> int:
    try:
        return size(given)
    except ValueError as error:
        raise BadSpec(f"A size cannot be '{given}': {error}.", hint="MemoryPressure('a', size='256m')") from error
