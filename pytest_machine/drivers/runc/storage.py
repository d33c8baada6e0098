"""A machine's file systems: its own layer over the shared image, its Docker's data, and the disk that holds both.

The image tree is never copied and never written: a machine sees it through an idmapped mount of its own uid range, as
the lower layer of an overlay whose upper directory is the machine's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from pytest_machine.errand import Errand
from pytest_machine.errors import DriverError
from pytest_machine.model import SeedFile, Value
from pytest_machine.options import size
from pytest_machine.support.folders import PUBLIC, make_folder

from .command import run
from .kernel import mount, mount_idmapped, mounts_below, unmount
from .places import Place, let_in, make_passable


def space(value: Value) -> int:
    """Return a disk's size in bytes; raises `ValueError` with the reason."""
    if (found := size(value)) < 16 << 20:
        raise ValueError("a machine needs a disk of '16m' at least")
    return found


def make(place: Place, *, disk: int | None, owner: int) -> None:
    """Make the machine's empty layers, on a disk of `disk` bytes of its own or beside its tag."""
    if disk is not None and not place.disk.exists():
        aside = place.disk.with_suffix(".partial")
        try:
            with aside.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.truncate(disk)
        except OSError as error:
            raise DriverError(
                f"A disk of {disk >> 20} MiB cannot be made here.",
                facts={"in": place.state, "reason": error.strerror},
                hint="ask for less: disk='4g'",
            ) from error
        # Lazy tables: a sparse file is zero already, and writing them would take the space that nobody has asked for.
        run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", aside)
        aside.replace(place.disk)
    home = attach(place)
    let_in(place.state, owner)
    for name in ("upper", "work", "docker"):
        folder = home / name
        make_folder(folder, PUBLIC)  # `upper` is the machine's own `/`
        os.chown(folder, owner, owner)


def attach(place: Place) -> Path:
    """Mount the machine's disk if it has one; return the folder that holds its layers."""
    if not place.disk.exists():
        return place.state
    make_passable(place.run)
    make_folder(place.mounted_disk)
    if not os.path.ismount(place.mounted_disk):
        seal(place, sealed=False)
        # util-linux marks the loop device to vanish with its mount, so nothing is left to detach.
        run("mount", "-o", "loop,nosuid,nodev,noatime", place.disk, place.mounted_disk)
    return place.mounted_disk


# linux/fs.h: _IOR('f', 1, long), _IOW('f', 2, long).
_GET_FLAGS = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
_SET_FLAGS = 1 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 2
_IMMUTABLE = 0x10


def seal(place: Place, *, sealed: bool) -> bool:
    """See to it that nobody can write to the machine's disk, or everybody again; return whether that is new.

    Raises `OSError` where the file system of the disk's file knows no such thing.
    """
    import fcntl  # here, so that the driver can be imported, and say that it needs Linux, where there is none

    if not place.disk.exists():
        return False
    descriptor = os.open(place.disk, os.O_RDONLY)
    try:
        flags = int.from_bytes(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))[:4], sys.byteorder)
        wanted = flags | _IMMUTABLE if sealed else flags & ~_IMMUTABLE
        if wanted != flags:
            fcntl.ioctl(descriptor, _SET_FLAGS, wanted.to_bytes(4, sys.byteorder) + bytes(4))
    except OSError as error:
        if sealed or error.errno != errno.ENOTTY:  # a file system without flags has none to take away
            raise
        return False
    else:
        return wanted != flags
    finally:
        os.close(descriptor)


def plant(place: Place, files: Mapping[str, SeedFile], *, owner: int) -> None:
    """Write what the machine is born with into its layer, owned by its root."""
    upper = attach(place) / "upper"
    for name, file in files.items():
        target = upper / name.lstrip("/")
        _make_parents(upper, target, owner)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, file.mode)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(file.content)
            os.fchown(descriptor, owner, owner)
            os.fchmod(descriptor, file.mode)
    if place.disk.exists():
        # A machine that crashes at once must still be the one that was born.
        run("sync", "--file-system", upper)


def _make_parents(upper: Path, target: Path, owner: int) -> None:
    for folder in reversed(target.relative_to(upper).parents):
        path = upper / folder
        if not path.exists():
            path.mkdir()
            os.chown(path, owner, owner)
            # A folder of the overlay hides the image's mode; sshd refuses keys below one that others may write.
            path.chmod(0o700 if path.name == ".ssh" or path == upper / "root" else 0o755)


def lay(place: Place, tree: Path, *, userns: int | None) -> Path:
    """Mount the machine's root; return where. It may be taken away again once something runs in it."""
    home = attach(place)
    root = place.run / "root"
    make_folder(root)
    lower = tree
    if userns is not None:
        lower = place.run / "lower"
        make_folder(lower)
        try:
            mount_idmapped(tree, lower, userns)
        except OSError as error:
            raise DriverError(
                "The kernel refused an idmapped mount of the image.",
                facts={"image": tree, "reason": error},
                hint="keep the image on ext4, xfs or btrfs: PYTEST_MACHINE_CACHE=/path pytest-machine image build",
            ) from error
    mount("overlay", "pytest-machine", root, f"lowerdir={lower},upperdir={home}/upper,workdir={home}/work")
    if userns is not None:
        unmount(lower)  # the overlay holds it from here on
    return root


def detach(place: Place) -> None:
    """Take away every mount that we made for the machine."""
    for point in mounts_below(place.run):
        unmount(point)


def console_path(place: Place) -> Path:
    """Return the file that PID 1 prints to, where root in the machine, who can write to it, cannot fill this host.

    It lies on the machine's own disk, or else in a file system of its own, in memory and of `_CONSOLE_SIZE` bytes.
    """
    if place.disk.exists():
        return attach(place) / "console.log"
    place.console.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.path.ismount(place.console):
        mount("tmpfs", "pytest-machine", place.console, f"size={_CONSOLE_SIZE},nr_inodes=4,mode=0700")
    return place.console / "console.log"


_CONSOLE_SIZE = 1 << 20
_CONSOLE_KEPT = 65536


def keep_console(place: Place) -> None:
    """Keep the end of the console before the file system that it lies on is taken away."""
    if os.path.ismount(place.mounted_disk) or os.path.ismount(place.console):
        with contextlib.suppress(OSError):  # on a full disk: to end a machine takes no space
            (place.state / "console.log").write_bytes(_console(place))


def console(place: Place) -> str:
    """Return the end of what PID 1 printed."""
    return _console(place).decode(errors="replace")


def _console(place: Place) -> bytes:
    if os.path.ismount(place.mounted_disk):
        return _tail(place.mounted_disk / "console.log")
    # Of this boot, after what earlier ones printed.
    found = _tail(place.state / "console.log")
    if os.path.ismount(place.console):
        found += _tail(place.console / "console.log")
    return found[-_CONSOLE_KEPT:]


def _tail(path: Path, size: int = _CONSOLE_KEPT) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        # What lay on a disk that is gone went with it.
        if error.errno != errno.EIO:
            raise
        return b""


def empty(place: Place) -> None:
    """Remove every file of the machine but its tag, by which whatever remains can still be found."""
    _remove(_entries(place))


@contextlib.contextmanager
def emptied(place: Place) -> Iterator[None]:
    """Have the machine's folder empty, but for its tag; what was in it is removed afterwards, in the background.

    For a machine that is laid again: removing takes as long as it wrote much, and it can boot meanwhile. Should we be
    killed before the end, `empty` removes what was put aside, as all that is in the folder.
    """
    entries = _entries(place)
    aside = place.state / f"{_ASIDE}{secrets.token_hex(4)}"
    aside.mkdir(mode=0o700)
    for entry in entries:
        entry.rename(aside / entry.name)
    try:
        yield
    finally:
        # Nobody waits for it, and who boots goes first.
        Errand(partial(_remove, [aside], "nice", "-n", "19"))


_ASIDE = "aside-"


def _entries(place: Place) -> list[Path]:
    if not place.state.exists():
        return []
    seal(place, sealed=False)
    return [entry for entry in place.state.iterdir() if entry != place.tag]


def _remove(paths: Iterable[Path], *how: str) -> None:
    # `rm`, because what a machine left behind may be nested deeper than Python can recurse.
    run(*how, "rm", "-rf", "--one-file-system", *paths, timeout=600)


def forget(place: Place) -> None:
    """Remove the tag: nothing of the machine is left."""
    if left := _entries(place):  # written since; without the tag nobody would find it
        _remove(left)
    place.tag.unlink(missing_ok=True)
    if place.state.exists():
        place.state.rmdir()
