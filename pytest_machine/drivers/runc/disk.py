"""Trouble with a machine's own disk, made from outside of it: slow, failing, or gone with what it had not yet written.

The disk is a file of this host with ext4 in it, on a loop device. What slows it down are the block limits of the
machine's groups, which go with the groups. What makes it fail is the file being immutable: the kernel lets nobody write
to it then, whoever has it open. That is undone before each boot and before the machine is destroyed, too.
"""

from __future__ import annotations

import os
import struct

from pytest_machine.errors import Unsupported
from pytest_machine.model import DiskTrouble, Record

from . import cgroups, kernel, storage
from .places import Place

# _IOR('X', 125, __u32) of linux/fs.h's neighbours: ext4's and xfs's own "power loss", which their tests use.
_SHUTDOWN = 0x8004587D
_WITHOUT_WRITING = 2


def trouble(place: Place, record: Record, asked: DiskTrouble) -> bool:
    """Put this trouble in force and return whether the file system can be relied on."""
    _check(place, record)
    if os.path.ismount(place.mounted_disk):
        device = place.mounted_disk.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        limited = cgroups.limit_disk(record.id, number, rate=asked.rate, operations=asked.operations)
        if (asked.rate or asked.operations) and not limited:
            raise _cannot(place, record, "its control groups do not limit what is done to a disk")
    if not asked.fails:
        # What failed once is not asked for again by the kernel, and is told to whoever asks next.
        return not (storage.seal(place, sealed=False) or _gave_up(place))
    _seal(place, record)
    return False


def _seal(place: Place, record: Record) -> None:
    """Have nobody write to the disk's file, not even who has it open; raise `Unsupported` where that cannot be."""
    try:
        descriptor = os.open(place.disk, os.O_WRONLY)
    except PermissionError:
        return  # it is so already
    try:
        try:
            storage.seal(place, sealed=True)
        except OSError as error:
            raise _cannot(place, record, f"its file cannot be made immutable: {error.strerror}") from error
        try:
            os.pwrite(descriptor, b"", 0)  # nothing, which is refused all the same
        except PermissionError:
            return
        storage.seal(place, sealed=False)
        raise _cannot(place, record, "its file system lets go on who has a file open")
    finally:
        os.close(descriptor)


def lose(place: Place, record: Record) -> None:
    """Stop the machine's file system at once, so that nothing more of it is written."""
    import fcntl  # here, so that the driver can be imported, and say that it needs Linux, where there is none

    _check(place, record)
    if not os.path.ismount(place.mounted_disk):
        return
    descriptor = os.open(place.mounted_disk, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_WRITING))
    except OSError as error:
        raise _cannot(place, record, f"it does not stop a file system: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _check(place: Place, record: Record) -> None:
    if not place.disk.exists():
        raise Unsupported(
            f"The machine '{record.name}' has no disk of its own: it would be its host's trouble.",
            hint=f"@pytest.mark.machine('{record.name}', disk='2g')",
        )


def _cannot(place: Place, record: Record, reason: str) -> Unsupported:
    return Unsupported(
        f"This host cannot trouble the disk of the machine '{record.name}'.",
        facts={"disk": place.disk, "reason": reason},
        hint=f"keep {place.state.parent} on ext4",
    )


def _gave_up(place: Place) -> bool:
    """Whether the kernel says that it writes no more to the file system."""
    for line in kernel.open_lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        if left.split()[4] == str(place.mounted_disk):
            return bool({"ro", "emergency_ro", "shutdown"} & set(right.split()[2].split(",")))
    return False
