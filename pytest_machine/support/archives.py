"""Unpack tar archives that a machine has made: the one place that does.

`tarfile` is made for archives of friends: it follows links on the way to a member, trusts sizes, and recurses. Here an
archive is read by a small strict reader. Regular files and directories come out of it, each created below a descriptor
of its directory, so that no link can lead elsewhere; and symbolic links that lead down from their own directory. All
else is left out and reported. Modes lose the set-user-ID, set-group-ID and sticky bits, and others' right to write.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from pytest_machine.errors import LimitExceeded, TransferFailed

from .text import shell_word, visible

Read = Callable[[int], bytes]
"""Returns that many bytes, and fewer only at the end."""

_BLOCK = 512
_CHUNK = 1 << 18
# A header of extended facts (a long name, for example) has some hundred bytes.
_LONGEST_HEADER = 64 << 10
# Headers of one entry: its own, and those of a long name, a long link's goal, and comments.
_HEADERS = 8
# Of what was left out, so many names are reported.
_REPORTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is taken out of an archive."""

    size: int = 16 << 30
    """Bytes of all files together; more raise `LimitExceeded`."""
    entries: int = 1_000_000
    """Files, directories, links and all else; more raise `LimitExceeded`."""
    depth: int = 100
    """Directories in each other; what is deeper is left out. Other programs recurse in them, `shutil.rmtree` too."""
    path: int = 2048
    """Bytes of a path; what is longer is left out. With the target's own it must be one that the kernel takes."""


@dataclass(slots=True)
class Unpacked:
    """What came out of an archive."""

    files: int = 0
    size: int = 0
    """Bytes."""
    left: list[str] = field(default_factory=list)
    """What was left out and why, a line each; the first ones only."""
    left_count: int = 0

    def report(self) -> list[str]:
        """Return a line for each thing that was left out, and one for all that are too many to name."""
        more = self.left_count - len(self.left)
        return [*self.left, *([f"and {more} more"] if more else [])]


class _LeftOut(Exception):
    """One entry cannot be taken, for this reason."""


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: bytes
    name: bytes
    link: bytes
    size: int
    mode: int
    mtime: int
    sparse: bool


def unpack(read: Read, target: Path, *, limits: Limits = Limits()) -> Unpacked:
    """Unpack a tar archive into the directory `target`, which exists; return what came out and what was left out.

    What is there already is replaced, a link too, but never followed; a directory is not replaced by a file. Raises
    `TransferFailed` for what is no archive, or ends too early, or cannot be written here, and `LimitExceeded`. What was
    unpacked until then stays.
    """
    done = Unpacked()
    with _Target(target) as place:
        for entry in _Reader(read, limits):
            size = entry.size if entry.kind not in _WITHOUT_CONTENT else 0
            content = _Content(read, size)
            _count(done, size, limits)
            try:
                _take(entry, content, place, done, limits)
            except _LeftOut as reason:
                done.left_count += 1
                if len(done.left) < _REPORTED:
                    done.left.append(f"'{_shown(entry.name)}' was left out: {reason}")
            except OSError as error:
                raise TransferFailed(
                    f"'{_shown(entry.name)}' cannot be written into '{target}'.",
                    facts={"reason": error.strerror or error},
                    hint=f"df -h {shell_word(target)}",
                ) from error
            content.skip()
    return done


_WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
# What one entry's name or place is the reason of; anything else is wrong with our disk.
_ENTRYS_OWN = frozenset(
    getattr(errno, name)
    for name in ["ENAMETOOLONG", "ENOTDIR", "ELOOP", "EEXIST", "EISDIR", "ENOTEMPTY", "EINVAL", "EILSEQ", "EMLINK"]
)


def _take(entry: _Entry, content: _Content, place: _Target, done: Unpacked, limits: Limits) -> None:
    parts = _parts(entry.name, limits)
    if not parts:  # the directory itself
        return
    try:
        if entry.sparse:
            raise _LeftOut("it is stored as a file with holes")
        if entry.kind == b"5":
            place.directory(parts, 0o700 | entry.mode & 0o755)
        elif entry.kind == b"2":
            place.link(parts, _downward(entry.link))
        elif entry.kind in (b"0", b"1"):
            mode = 0o600 | entry.mode & 0o755
            if entry.kind == b"0":
                place.file(parts, content, mode, entry.mtime)
            else:
                with place.known(_parts(entry.link, limits)) as source:
                    _count(done, os.fstat(source.fileno()).st_size, limits)
                    place.file(parts, iter(partial(source.read, _CHUNK), b""), mode, entry.mtime)
            done.files += 1
        else:
            raise _LeftOut("it is neither a file nor a directory nor a link")
    except OSError as error:
        if error.errno in _ENTRYS_OWN:
            raise _LeftOut(_WHY.get(error.errno) or error.strerror) from error
        raise


_WHY: dict[int | None, str] = {
    errno.ENOTDIR: "what should be its directory is none",
    errno.ELOOP: "a link leads to its place",
    errno.EISDIR: "a directory has its place",
}


def _count(done: Unpacked, size: int, limits: Limits) -> None:
    done.size += size
    if done.size > limits.size:
        raise LimitExceeded(
            f"The machine's archive holds more than {limits.size:,} bytes, which is as much as is taken.",
            hint="get what you need of it alone, or pack it in the machine: machine.run('tar', '-czf', …)",
        )


def _shown(name: bytes) -> str:
    text = visible(name[:200].decode("utf-8", "replace"), lines=False)
    return text if len(name) <= 200 else f"{text}…"


def _parts(name: bytes, limits: Limits) -> tuple[str, ...]:
    """Return a path's names, none of which leads out; raises `_LeftOut`."""
    if len(name) > limits.path:
        raise _LeftOut(f"its path has more than {limits.path} bytes")
    if name.startswith(b"/"):
        raise _LeftOut("its path is absolute")
    found = tuple(_name(part) for part in name.split(b"/") if part not in (b"", b"."))
    if len(found) > limits.depth:
        raise _LeftOut(f"it lies more than {limits.depth} directories deep")
    return found


def _name(raw: bytes) -> str:
    """Return one name; raises `_LeftOut`."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _LeftOut("its name is not UTF-8") from None
    if name == "..":
        raise _LeftOut("its path leads out of the directory")
    if visible(name, lines=False) != name:
        raise _LeftOut("its name has control characters")
    if len(raw) > 255:
        raise _LeftOut("its name is too long")
    # There a name may hold a path, a drive, a stream or a device.
    if os.name == "nt" and (re.search(r'[\\:*?"<>|]|[. ]$', name) or _RESERVED.fullmatch(name.partition(".")[0])):
        raise _LeftOut("Windows has no such name")
    return name


_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³]) *", re.IGNORECASE)


def _downward(goal: bytes) -> str:
    """Return a link's goal. One that goes down alone stays inside, by whatever further links of this kind it leads."""
    parts = goal.split(b"/")
    if len(goal) > 1024 or any(part in (b"", b".", b"..") for part in parts):
        raise _LeftOut("it is a link that leads out of its own directory")
    return "/".join(_name(part) for part in parts)


class _Content:
    """The content of one entry, which is read once."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._left = size
        self._padding = -size % _BLOCK

    def __iter__(self) -> _Content:
        return self

    def __next__(self) -> bytes:
        if not self._left:
            raise StopIteration
        part = self._read(min(_CHUNK, self._left))
        if not part:
            raise _cut_short()
        self._left -= len(part)
        return part

    def skip(self) -> None:
        """Read what is left, and what fills the last block."""
        for _ in self:
            pass
        if len(self._read(self._padding)) < self._padding:
            raise _cut_short()


class _Target:
    """The directory that an archive is unpacked into. By descriptors, or by paths where there are none (Windows)."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._by_descriptor = os.open in os.supports_dir_fd and os.mkdir in os.supports_dir_fd
        # The way to the last entry's directory, for the next entry is mostly in the same.
        self._way: list[tuple[str, int]] = []
        self._ours: set[tuple[int, int]] = set()

    def __enter__(self) -> Self:
        if self._by_descriptor:
            self._way.append(("", os.open(self._top, os.O_RDONLY | os.O_DIRECTORY)))
        return self

    def __exit__(self, *_: object) -> None:
        while self._way:
            os.close(self._way.pop()[1])

    def directory(self, parts: tuple[str, ...], mode: int) -> None:
        """Make a directory; one that is there stays as it is."""
        self._enter(parts[:-1])
        new = self._make(parts)
        place = self._enter(parts)
        if new and place is not None:
            os.fchmod(place, mode)

    def link(self, parts: tuple[str, ...], goal: str) -> None:
        """Make a symbolic link."""
        if not self._by_descriptor:
            raise _LeftOut("it is a link, which is not made on this computer")
        place = self._enter(parts[:-1])
        self._clear(parts, place)
        os.symlink(goal, parts[-1], dir_fd=place)

    def file(self, parts: tuple[str, ...], content: Iterable[bytes], mode: int, mtime: int) -> None:
        """Write a regular file."""
        place = self._enter(parts[:-1])
        self._clear(parts, place)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._named(parts, place), flags, 0o600, dir_fd=place)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            status = os.fstat(descriptor)
            self._ours.add((status.st_dev, status.st_ino))
            for part in content:
                view = memoryview(part)
                while view:
                    view = view[file.write(view) :]
            if place is not None:
                os.fchmod(descriptor, mode)
                # Of the machine's choosing: it need not be one that this file system knows.
                with suppress(OSError, OverflowError):
                    os.utime(descriptor, (mtime, mtime))

    def known(self, parts: tuple[str, ...]) -> BinaryIO:
        """Open a file that came out of this archive."""
        if not parts:
            raise _LeftOut("it is another name of a directory")
        place = self._enter(parts[:-1])
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(self._named(parts, place), flags, dir_fd=place)
        except FileNotFoundError:
            raise _LeftOut("it is another name of a file that is not in the archive") from None
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) not in self._ours:
            os.close(descriptor)
            raise _LeftOut("it is another name of a file that did not come with it")
        return os.fdopen(descriptor, "rb", buffering=0)

    def _named(self, parts: tuple[str, ...], place: int | None) -> str:
        return parts[-1] if place is not None else str(self._top.joinpath(*parts))

    def _clear(self, parts: tuple[str, ...], place: int | None) -> None:
        """Remove what has the place of a file, unless that is a directory."""
        name = self._named(parts, place)
        try:
            status = os.stat(name, dir_fd=place, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise _LeftOut("a directory has its place")
        os.unlink(name, dir_fd=place)

    def _make(self, parts: tuple[str, ...]) -> bool:
        """Make a directory in one that was entered; return whether it is new."""
        place = self._way[-1][1] if self._by_descriptor else None
        try:
            os.mkdir(self._named(parts, place), 0o700, dir_fd=place)
        except FileExistsError:
            return False
        return True

    def _enter(self, parts: tuple[str, ...]) -> int | None:
        """Go to a directory, made where it is missing, never by a link; return its descriptor, or None without."""
        if not self._by_descriptor:
            for count in range(1, len(parts) + 1):
                self._make(parts[:count])
                status = os.lstat(self._named(parts[:count], None))
                # Windows' links to directories are directories with a tag.
                if not stat.S_ISDIR(status.st_mode) or bool(getattr(status, "st_reparse_tag", 0)):
                    raise _LeftOut(_WHY[errno.ELOOP])
            return None
        same = 0
        while same < min(len(parts), len(self._way) - 1) and self._way[same + 1][0] == parts[same]:
            same += 1
        while len(self._way) > same + 1:
            os.close(self._way.pop()[1])
        for count in range(same + 1, len(parts) + 1):
            self._make(parts[:count])
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            self._way.append((parts[count - 1], os.open(parts[count - 1], flags, dir_fd=self._way[-1][1])))
        return self._way[-1][1]


class _Reader:
    """The entries of an archive. Whoever iterates reads each one's content before the next."""

    def __init__(self, read: Read, limits: Limits) -> None:
        self._read = read
        self._limits = limits
        self._entries = 0

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> _Entry:
        facts: dict[str, bytes] = {}
        for _ in range(_HEADERS):
            block = self._block()
            if not block.strip(b"\0"):
                raise StopIteration
            self._check(block)
            kind, size = block[156:157], _number(block[124:136])
            if kind == b"L":
                facts["path"] = self._extended(size).rstrip(b"\0")
            elif kind == b"K":
                facts["linkpath"] = self._extended(size).rstrip(b"\0")
            elif kind == b"x":
                facts |= _pax(self._extended(size))
            elif kind == b"g":
                # Of all entries that follow: a comment, at most, in what a machine's tar writes.
                if _pax(self._extended(size)).keys() & {"path", "linkpath", "size"}:
                    raise _no_archive("it gives all files one name or size")
            else:
                self._entries += 1
                if self._entries > self._limits.entries:
                    raise _too_many(self._limits)
                return self._entry(block, kind, size, facts)
        raise _no_archive(f"a file in it has more than {_HEADERS} headers")

    def _entry(self, block: bytes, kind: bytes, size: int, facts: Mapping[str, bytes]) -> _Entry:
        name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
            name = prefix + b"/" + name
        name = facts.get("path", name)
        if "size" in facts:
            if not re.fullmatch(rb"[0-9]{1,19}", facts["size"]):
                raise _no_archive("a size in it is no number")
            size = int(facts["size"])
        sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in facts)
        more = kind == b"S" and block[482:483] not in (b"\0", b"")
        while more:
            more = self._block()[504:505] != b"\0"
        if kind in (b"\0", b"0", b"7"):
            kind = b"5" if name.endswith(b"/") else b"0"
        return _Entry(
            kind=kind,
            name=name,
            link=facts.get("linkpath", block[157:257].partition(b"\0")[0]),
            size=size,
            mode=_number(block[100:108]),
            mtime=_time(block[136:148]),
            sparse=sparse,
        )

    def _block(self) -> bytes:
        block = self._read(_BLOCK)
        if len(block) < _BLOCK:
            raise _cut_short()
        return block

    def _check(self, block: bytes) -> None:
        # The sum counts its own field as spaces.
        if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 0x20:
            raise _no_archive("a checksum in it is wrong")

    def _extended(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise _no_archive(f"a header in it has {size:,} bytes")
        content = _Content(self._read, size)
        found = b"".join(content)
        content.skip()
        return found


def _pax(content: bytes) -> dict[str, bytes]:
    """Return the facts of an extended header, a line each: its length, a space, a key, ``=``, the value."""
    found: dict[str, bytes] = {}
    while content:
        match = re.match(rb"([1-9][0-9]{0,5}) ([^=\n]+)=", content)
        length = int(match[1]) if match else 0
        if match is None or length <= match.end() or content[length - 1 : length] != b"\n":
            raise _no_archive("an extended header in it is damaged")
        found[match[2].decode("ascii", "replace")] = content[match.end() : length - 1]
        content = content[length:]
    return found


def _number(raw: bytes) -> int:
    """Return a header's number: octal digits, or GNU's binary form."""
    if raw[:1] >= b"\x80":
        if raw[0] != 0x80:  # a negative one, or more than any size
            raise _no_archive("a number in it is out of range")
        return int.from_bytes(raw[1:], "big")
    digits = raw.strip(b" \0")
    if not digits:
        return 0
    if not re.fullmatch(rb"[0-7]+", digits):
        raise _no_archive("a number in it is none")
    return int(digits, 8)


def _time(raw: bytes) -> int:
    # A file from before 1970 has a negative one, and nothing depends on it.
    return 0 if raw[:1] == b"\xff" else min(_number(raw), 1 << 34)


def _no_archive(why: str) -> TransferFailed:
    return TransferFailed(
        "What the machine sent is no archive.",
        facts={"reason": why},
        hint="look at it in the machine: tar -cf - DIRECTORY | tar -tvf -",
    )


def _cut_short() -> TransferFailed:
    return TransferFailed(
        "The archive that the machine sent ends too early.",
        hint="look at it in the machine: tar -cf - DIRECTORY | tar -tvf -",
    )


def _too_many(limits: Limits) -> LimitExceeded:
    return LimitExceeded(
        f"The machine's archive holds more than {limits.entries:,} files, which is as many as are taken.",
        hint="get what you need of it alone, or pack it in the machine: machine.run('tar', '-czf', …)",
    )
