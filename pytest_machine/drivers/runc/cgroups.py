"""The control groups of a machine, on cgroup v1, hybrid and v2 hosts alike.

They are read from the machine's own processes, because no rule says where a controller is mounted or how deep we sit.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_machine.model import Id
from pytest_machine.support import clock, trees

from .kernel import kill, open_lines

ROOT = "pytest-machine"
"""The group that holds all our machines, in every hierarchy."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy: its controllers (``{""}`` is v2's own) and where which group of it is mounted."""

    controllers: frozenset[str]
    group: str
    point: Path


@cache
def hierarchies() -> tuple[Hierarchy, ...]:
    """Return every cgroup hierarchy that is mounted here."""
    found = []
    for line in open_lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        group, point = left.split()[3:5]
        if kind == "cgroup2":
            found.append(Hierarchy(frozenset({""}), group, Path(point)))
        elif kind == "cgroup":
            found.append(Hierarchy(frozenset(options.split(",")) - {"rw", "relatime"}, group, Path(point)))
    return tuple(found)


def version() -> int:
    """Return 2 when controllers are on the unified hierarchy, else 1 (hybrid hosts are v1: their v2 has none)."""
    return 2 if all(h.controllers == {""} for h in hierarchies()) else 1


def of_process(pid: int) -> list[Path]:
    """Return the directory of each group that a process is in."""
    found = []
    for line in open_lines(f"/proc/{pid}/cgroup"):
        _, controllers, group = line.split(":", 2)
        for hierarchy in hierarchies():
            if set(controllers.split(",")) <= hierarchy.controllers:
                inside = os.path.relpath(group, hierarchy.group)
                found.append(hierarchy.point / inside)
    return [path for path in found if path.is_dir()]


def of_machine(id_: Id) -> Iterator[Path]:
    """Return the directory of each group of a machine that exists, whether or not anything runs in it."""
    for hierarchy in hierarchies():
        direct = hierarchy.point / ROOT / id_
        if direct.is_dir():
            yield direct
            continue
        # A runtime that was itself started in a group nests ours below that one.
        for line in open_lines("/proc/self/cgroup"):
            _, controllers, group = line.split(":", 2)
            nested = hierarchy.point / os.path.relpath(group, hierarchy.group) / ROOT / id_
            if set(controllers.split(",")) <= hierarchy.controllers and nested.is_dir():
                yield nested


def delegate(pid: int, owner: int) -> None:
    """Let root inside the machine make groups below its own, as its Docker must. Its own limits stay ours."""
    for group in of_process(pid):
        if ROOT not in group.parts:
            continue
        for name in ("", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"):
            if (group / name).exists():
                os.chown(group / name, owner, owner)


def limit_disk(id_: Id, device: str, *, rate: int, operations: int) -> bool:
    """Limit what every group of the machine does to a device (``7:0``): bytes and operations a second; 0: no limit.

    Return whether there are groups that limit such things. Version 1 of control groups limits each group by itself, so
    a container that comes later is not met there.
    """
    old = {f"blkio.throttle.{way}_{what}_device": number
           for way in ("read", "write") for what, number in (("bps", rate), ("iops", operations))}  # fmt: skip
    new = " ".join(
        f"{way}{what}={number or 'max'}" for what, number in (("bps", rate), ("iops", operations)) for way in "rw"
    )
    limits = False
    for group in of_machine(id_):
        for folder in trees.walk(group, limits=trees.ENDLESS):
            if folder.parent is None:
                limits |= _put(folder, "io.max", f"{device} {new}")
            written = [_put(folder, name, f"{device} {number}") for name, number in old.items()]
            limits |= any(written)
    return limits


def _put(folder: trees.Folder, name: str, text: str) -> bool:
    """Write to a file of a group; return whether the group has it, and is still there."""
    try:
        # Not made where there is none, which the kernel would refuse in words of its own.
        descriptor = os.open(name, os.O_WRONLY | os.O_TRUNC, dir_fd=folder.descriptor)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ENODEV:  # the group has just gone
            return False
        raise
    return True


def remove(id_: Id, *, timeout: float = 5.0) -> None:
    """Remove the machine's groups, children first; processes that are still in one are killed.

    Gives up when no further group could be removed for `timeout` seconds.
    """
    for group in list(of_machine(id_)):
        deadline = clock.monotonic() + timeout
        while group.is_dir():
            removed, stuck = _remove(group)
            if removed:
                deadline = clock.monotonic() + timeout
            elif clock.monotonic() > deadline:
                break
            for pid in stuck:
                kill(pid, timeout=0.5)
            # The kernel empties a group a moment after its last process was reaped.
            clock.sleep(0.002)


def _remove(group: Path) -> tuple[int, list[int]]:
    """Remove what can go of a group; return how many have gone, and the processes in those that could not."""
    removed, stuck = 0, []
    for folder in trees.walk(group, bottom_up=True, limits=trees.ENDLESS):
        try:
            if folder.parent is None:
                group.rmdir()
            else:
                os.rmdir(folder.name, dir_fd=folder.parent.descriptor)
            removed += 1
        except FileNotFoundError:
            continue
        except OSError:
            # 0 is one that has just ended, or one of a namespace that we do not see.
            stuck += [int(line) for line in folder.lines("cgroup.procs") if line.strip("0")]
    return removed, stuck


def remove_root() -> None:
    """Remove the empty groups above the machines' own; call it when no machine is left or on its way."""
    for hierarchy in hierarchies():
        _rmdir(hierarchy.point / ROOT)
        for line in open_lines("/proc/self/cgroup"):
            _, controllers, group = line.split(":", 2)
            if set(controllers.split(",")) <= hierarchy.controllers:
                _rmdir(hierarchy.point / os.path.relpath(group, hierarchy.group) / ROOT)


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def frozen(id_: Id) -> bool:
    """Whether the machine is paused."""
    for group in of_machine(id_):
        for name, word in (("freezer.state", "FR"), ("cgroup.freeze", "1")):
            if any(line.startswith(word) for line in open_lines(group / name)):
                return True
    return False


def thaw(id_: Id) -> None:
    """Let frozen processes run: a frozen one does not even die."""
    for group in of_machine(id_):
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            for folder in trees.walk(group, limits=trees.ENDLESS):
                _put(folder, name, word)
