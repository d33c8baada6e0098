"""Walk and remove directory trees that a machine, or another person, has shaped.

Such a tree may be deeper than Python recurses, its paths longer than the kernel takes, its names links to elsewhere,
and its content endless. So everything here goes by directory descriptors, one name at a time; no link is followed; the
number of open descriptors does not grow with the depth; and a walk has `Limits`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_machine.errors import LimitExceeded

from . import clock

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_PLAIN_DIRECTORY = _DIRECTORY | getattr(os, "O_NOFOLLOW", 0)
# Open descriptors of one walk. Above the last ones, a directory is opened again by its child's "..".
_KEPT = 32
# Directory entries that `remove` takes into memory at once.
_BATCH = 10_000
# The names of a path that are shown of a longer one.
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a walk goes; past one of them it raises `LimitExceeded`."""

    entries: float = 1_000_000
    """Files and directories. A Docker host with 20 images has about 300,000."""
    depth: float = 100_000
    """Directories in each other."""
    seconds: float = 60


USUAL = Limits()
ENDLESS = Limits(entries=float("inf"), depth=float("inf"), seconds=float("inf"))
"""For a tree that has to be walked whole, however long that takes."""


class Folder:
    """One directory of a walk; its descriptor and its entries are valid until the walk goes on."""

    __slots__ = ("descriptor", "device", "entries", "inode", "into", "name", "parent")

    def __init__(self, name: str, parent: Folder | None, descriptor: int) -> None:
        self.name = name
        self.parent = parent
        self.descriptor = descriptor
        """An open descriptor, for ``dir_fd=``; the only way to a directory whose path is too long."""
        self.entries: list[os.DirEntry[str]] = []
        """What is in it; ``entry.path`` is its name, ``entry.stat(follow_symlinks=False)`` works."""
        self.into: list[str] = []
        """The directories in it that are walked next; remove names to leave these out."""
        status = os.fstat(descriptor)
        self.device, self.inode = status.st_dev, status.st_ino

    @property
    def names(self) -> list[str]:
        """The names on the way from the walk's top to here; none at the top."""
        found = []
        folder = self
        while folder.parent is not None:
            found.append(folder.name)
            folder = folder.parent
        return found[::-1]

    @property
    def path(self) -> str:
        """The path below the walk's top; empty at the top."""
        return "/".join(self.names)

    def read(self, name: str, *, size: int = 1 << 20) -> bytes:
        """Return the first `size` bytes of a file in it; nothing for a link, and where there is no such file."""
        try:
            descriptor = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.descriptor
            )
        except OSError:
            return b""
        found = bytearray()
        try:
            while len(found) < size and (part := os.read(descriptor, min(65536, size - len(found)))):
                found += part
        except OSError:  # a directory, or a control group that has just gone
            return b""
        finally:
            os.close(descriptor)
        return bytes(found)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file in it; none for a link, and where there is no such file."""
        return self.read(name).decode(errors="replace").splitlines()

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def below(self, name: str) -> Folder:
        """Open a directory in it, never a link; raises `OSError`."""
        return Folder(name, self, os.open(name, _PLAIN_DIRECTORY, dir_fd=self.descriptor))

    def above(self) -> Folder:
        """Return the directory that holds this one, open; raises `OSError` when this one was moved elsewhere."""
        parent = self.parent
        assert parent is not None
        if parent.descriptor < 0:
            descriptor = os.open("..", _PLAIN_DIRECTORY, dir_fd=self.descriptor)
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != (parent.device, parent.inode):
                os.close(descriptor)
                raise OSError(errno.ESTALE, "a directory was moved while it was looked at", _short(self.names))
            parent.descriptor = descriptor
        return parent


class _Way:
    """The directories from the top to the one that is looked at; only the last ones are open."""

    def __init__(self, top: Folder) -> None:
        self.folders = [top]

    def enter(self, folder: Folder) -> None:
        self.folders.append(folder)
        if len(self.folders) > _KEPT:
            self.folders[-_KEPT].close()

    def leave(self) -> Folder:
        """Close the last directory and return the one above it, open."""
        folder = self.folders[-1]
        above = folder.above()
        folder.close()
        self.folders.pop()
        return above

    def close(self) -> None:
        for folder in self.folders:
            folder.close()


def open_directory(top: Path, *below: str) -> int:
    """Return a descriptor of a directory; raises `OSError` where one of the names is a link.

    `top` is a path of our own. With names in `below`, which a machine may have shaped, `top` may be a link and none of
    the names may; without, `top` itself may not.
    """
    descriptor = os.open(top, _DIRECTORY if below else _PLAIN_DIRECTORY)
    for name in below:
        try:
            inner = os.open(name, _PLAIN_DIRECTORY, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def walk(top: Path, *below: str, bottom_up: bool = False, limits: Limits = USUAL) -> Generator[Folder, None, None]:
    """Yield each directory of a tree: the top first, or with `bottom_up` each one after those in it. Unix only.

    `top` and `below` are those of `open_directory`; a tree whose top is missing or a link has no directories. What
    cannot be opened, such as a directory that has just gone, is left out. Close the walk (`contextlib.closing`) if you
    leave it early. Raises `LimitExceeded`, and `OSError` when a directory is moved while it is looked at.
    """
    first = _first(top, below)
    if first is None:
        return
    counted = _Counted(limits, Path(top, *below))
    way = _Way(first)
    try:
        counted.list(first)
        if not bottom_up:
            yield first
        while True:
            folder = way.folders[-1]
            if folder.into:
                inner = _entered(way, folder.into.pop())
                if inner is not None:
                    counted.list(inner, depth=len(way.folders))
                    if not bottom_up:
                        yield inner
                continue
            folder.entries = []
            if folder.parent is not None:
                folder.above()  # the caller removes it there
            if bottom_up:
                yield folder
            if folder.parent is None:
                return
            way.leave()
    finally:
        way.close()


def _first(top: Path, below: Sequence[str]) -> Folder | None:
    try:
        return Folder("", None, open_directory(top, *below))
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return None


def _entered(way: _Way, name: str) -> Folder | None:
    try:
        inner = way.folders[-1].below(name)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return None
    way.enter(inner)
    return inner


# This process has no descriptors or memory left: nothing can be said of the tree.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class _Counted:
    """Lists directories within limits."""

    def __init__(self, limits: Limits, top: Path) -> None:
        self._limits = limits
        self._top = top
        self._entries = 0
        self._begun = clock.monotonic()

    def list(self, folder: Folder, *, depth: int = 1) -> None:
        if depth > self._limits.depth:
            raise self._exceeded(f"{self._limits.depth:,.0f} directories in each other")
        try:
            with os.scandir(folder.descriptor) as entries:
                for entry in entries:
                    self._entries += 1
                    if self._entries > self._limits.entries:
                        raise self._exceeded(f"{self._limits.entries:,.0f} files")
                    folder.entries.append(entry)
                    if entry.is_dir(follow_symlinks=False):
                        folder.into.append(entry.name)
        except OSError as error:
            if error.errno in _EXHAUSTED:
                raise
        if clock.monotonic() - self._begun > self._limits.seconds:
            raise self._exceeded(f"what can be looked at in {self._limits.seconds:g} s")

    def _exceeded(self, what: str) -> LimitExceeded:
        return LimitExceeded(
            f"The directory '{self._top}' holds more than {what}.",
            facts={"looked at": f"{self._entries:,} entries"},
            hint=f"du --inodes -s '{self._top}'",
        )


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory, however deep; what is gone already is gone. Idempotent.

    No link is followed and no other file system is entered. Everything that can go goes; then `OSError` is raised for
    the first thing that could not, with its path.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode) or _is_junction(status):
        path.unlink(missing_ok=True)
    elif os.scandir in os.supports_fd and os.open in os.supports_dir_fd:
        _Removal(path).run()
    else:  # Windows, where a path has 32,767 characters at most, and so a tree is not deeper
        _remove_by_path(path)


class _Removal:
    """Removes one directory: files as it enters each, and each directory when it leaves it."""

    def __init__(self, top: Path) -> None:
        self._top = top
        outside = Folder("", None, os.open(top.parent, _DIRECTORY))
        outside.into = [top.name]
        self._way = _Way(outside)
        self._device: int | None = None
        self._failed: OSError | None = None
        self._stuck: set[tuple[int, str]] = set()  # how deep, and its name

    def run(self) -> None:
        try:
            while True:
                folder = self._way.folders[-1]
                if folder.into:
                    self._enter(folder, folder.into.pop())
                elif folder.parent is None:
                    break
                elif self._emptied(folder, folder.above()):
                    # The same names may be met below another directory.
                    depth = len(self._way.folders)
                    self._stuck = {each for each in self._stuck if each[0] < depth}
                    self._way.leave()
        finally:
            self._way.close()
        if self._failed is not None:
            raise self._failed

    def _enter(self, folder: Folder, name: str) -> None:
        try:
            inner = folder.below(name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._fail(error, folder, name)
            return
        self._device = self._device or inner.device
        if inner.device != self._device:
            inner.close()
            self._fail(OSError(errno.EXDEV, "another file system is mounted there"), folder, name)
            return
        self._way.enter(inner)
        self._sweep(inner)

    def _emptied(self, folder: Folder, above: Folder) -> bool:
        """Remove a directory; return False when there is more in it to remove first."""
        try:
            os.rmdir(folder.name, dir_fd=above.descriptor)
        except FileNotFoundError:
            pass
        except OSError as error:
            # More than one batch, or another process still writes to it.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and self._sweep(folder):
                return False
            self._way.folders.pop()
            self._fail(error, above, folder.name)
            self._way.folders.append(folder)
        return True

    def _sweep(self, folder: Folder) -> bool:
        """Remove the files of a directory and collect its directories, a batch at most; return whether it had any."""
        depth, done = len(self._way.folders), 0
        try:
            with os.scandir(folder.descriptor) as entries:
                for entry in entries:
                    if (depth, entry.name) in self._stuck:
                        continue
                    done += self._take(folder, entry)
                    if done >= _BATCH:
                        break
        except OSError as error:
            self._failed = self._failed or _named(error, self._top, folder.names[1:])
        return done > 0

    def _take(self, folder: Folder, entry: os.DirEntry[str]) -> bool:
        try:
            if entry.is_dir(follow_symlinks=False):
                folder.into.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder.descriptor)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._fail(error, folder, entry.name)
            return False
        return True

    def _fail(self, error: OSError, folder: Folder, name: str) -> None:
        self._failed = self._failed or _named(error, self._top, [*folder.names, name][1:])
        self._stuck.add((len(self._way.folders), name))


def _named(error: OSError, top: Path, names: list[str]) -> OSError:
    return OSError(error.errno, error.strerror, str(top / _short(names)))


def _short(names: list[str]) -> str:
    return "/".join(names if len(names) <= _SHOWN else ["…", *names[-_SHOWN:]])


def _is_junction(status: os.stat_result) -> bool:
    # Windows' other kind of link to a directory, which `S_ISLNK` does not know.
    return bool(getattr(status, "st_reparse_tag", 0))


def _remove_by_path(top: Path) -> None:
    waiting, emptied = [top], []
    while waiting:
        folder = waiting.pop()
        emptied.append(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and not _is_junction(status):
                    waiting.append(Path(entry.path))
                elif stat.S_ISDIR(status.st_mode):
                    Path(entry.path).rmdir()
                else:
                    Path(entry.path).unlink()
    for folder in reversed(emptied):
        folder.rmdir()
