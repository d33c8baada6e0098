"""The few Linux calls that no command line of a common distribution offers: namespaces to hand over, idmapped mounts.

``mount -o X-mount.idmap`` needs util-linux 2.39, newer than Debian 12's, so the three system calls behind it are made
here. Their numbers are the same on every architecture (they came after the tables were unified in Linux 5.1).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_machine.errors import DriverError

if TYPE_CHECKING:
    import ctypes

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_IDMAP = 0x00100000
_UMOUNT_DETACH = 2


# `struct mount_attr`: what to set, what to clear, the propagation, the descriptor of a user namespace.
_MOUNT_ATTR = struct.Struct("=4Q")


@cache
def _libc() -> ctypes.CDLL:
    import ctypes  # here, and below: who only asks for a machine's address mounts nothing, and is in a hurry

    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: object) -> int:
    import ctypes

    done: int = _libc().syscall(ctypes.c_long(number), *arguments)
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done


def mount_idmapped(source: Path, target: Path, userns: int) -> None:
    """Show `source` read-only at `target`, its owners shifted as the user namespace behind `userns` maps them.

    Raises `OSError`: the kernel or the file system of `source` cannot.
    """
    with _shifted(source, userns) as tree:
        _syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


def try_idmapped(source: Path, userns: int) -> None:
    """Raise `OSError` unless `mount_idmapped` could; nothing is mounted anywhere that could be left."""
    with _shifted(source, userns):
        pass


@contextlib.contextmanager
def _shifted(source: Path, userns: int) -> Iterator[int]:
    """Yield a mount that is nowhere yet; it goes with its descriptor unless it was moved to a place."""
    import ctypes

    tree = _syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC))
    try:
        wanted = _MOUNT_ATTR.pack(_MOUNT_ATTR_IDMAP | _MOUNT_ATTR_RDONLY, 0, 0, userns)
        _syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, ctypes.c_size_t(len(wanted)))
        yield tree
    finally:
        os.close(tree)


def mount(kind: str, source: str, target: Path, options: str) -> None:
    """Mount a file system; raises `DriverError` with the kernel's word for it."""
    import ctypes

    if _libc().mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(0), os.fsencode(options)):
        reason = os.strerror(ctypes.get_errno())
        raise DriverError(
            f"The kernel refused to mount '{kind}'.",
            facts={"at": target, "options": options, "reason": reason},
            hint="dmesg | tail",
        )


def unmount(target: Path) -> None:
    """Take a mount away, now from sight and later for good; one that is not there: nothing happens."""
    _libc().umount2(os.fsencode(target), _UMOUNT_DETACH)


def mounts_below(folder: Path) -> list[Path]:
    """Return every mount point at or below `folder`, innermost first."""
    points = [Path(line.split()[4].replace("\\040", " ")) for line in open_lines("/proc/self/mountinfo")]
    return sorted((p for p in points if p == folder or folder in p.parents), key=lambda p: -len(p.parts))


def open_lines(path: str | Path) -> list[str]:
    """Return the lines of a small file of ``/proc``; none when it is gone."""
    try:
        # Names in it may be a machine's: of groups, mounts, programs.
        return Path(path).read_text("utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []


@contextlib.contextmanager
def namespaces(base: int | None, size: int) -> Iterator[int]:
    """Hold a new network namespace, in a user namespace with ids `base` to ``base + size`` unless that is None.

    Yields the pid of a process that sits in them. It dies with us, so a crash leaves nothing: what has joined them by
    then keeps them alive.
    """
    flags = ["--net"] if base is None else ["--user", "--net"]
    holder = subprocess.Popen(
        ["unshare", *flags, "sh", "-c", "echo; read -r _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if not holder.stdout.readline():
            raise DriverError(
                "The kernel refused new namespaces.", hint="sysctl user.max_user_namespaces user.max_net_namespaces"
            )
        if base is not None:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{holder.pid}/{name}").write_text(f"0 {base} {size}")
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.kill()
        holder.wait()


@contextlib.contextmanager
def user_namespace(inside: int, outside: int, size: int) -> Iterator[int]:
    """Yield a descriptor of a new user namespace that maps the ids from `inside` on to those from `outside` on.

    For `mount_idmapped`: what files of `inside` own belongs to `outside` there. Nothing ever runs in it.
    """
    # A child that waits to be told: it needs no program, so forking ourselves would do, were it safe beside threads.
    holder = subprocess.Popen(
        ["unshare", "--user", "sh", "-c", "echo; read -r _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if not holder.stdout.readline():
            raise DriverError("The kernel refused a new user namespace.", hint="sysctl user.max_user_namespaces")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text(f"{inside} {outside} {size}")
        descriptor = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.kill()
        holder.wait()


# linux/sockios.h and linux/if.h; `struct ifreq` is a name and 24 bytes for what is said of it.
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFNAME = 0x8913, 0x8914, 0x8923
IFF_UP = 1
"""An interface's flag that says whether it is up."""
_IFREQ_FLAGS, _IFREQ_NAME = struct.Struct("=16sH22x"), struct.Struct("=16s16s8x")


def set_down(interface: str) -> None:
    """Have an interface send and receive nothing; raises `OSError`."""
    _set_flag(interface, up=False)


def set_up(interface: str) -> None:
    """Let an interface send and receive; raises `OSError`."""
    _set_flag(interface, up=True)


def _set_flag(interface: str, *, up: bool) -> None:
    name = interface.encode()
    _, flags = _IFREQ_FLAGS.unpack(_tell_interfaces(_SIOCGIFFLAGS, _IFREQ_FLAGS.pack(name, 0)))
    _tell_interfaces(_SIOCSIFFLAGS, _IFREQ_FLAGS.pack(name, flags | IFF_UP if up else flags & ~IFF_UP))


def deafen(interface: str, *, arp_ignore: int = 8) -> None:
    """Have the host believe no router on an interface of its own; call it before the interface is up.

    The host speaks no IPv6 there. `arp_ignore`: see the kernel's ``ip-sysctl``; 8 answers no question.
    """
    settings = {
        "ipv6": {"disable_ipv6": 1, "accept_ra": 0, "autoconf": 0, "accept_redirects": 0},
        "ipv4": {"accept_redirects": 0, "secure_redirects": 0, "arp_accept": 0, "arp_ignore": arp_ignore},
    }
    for family, values in settings.items():
        folder = Path("/proc/sys/net", family, "conf", interface)
        if folder.exists():  # a kernel may be without IPv6
            for name, value in values.items():
                (folder / name).write_text(str(value))


def rename(interface: str, name: str) -> None:
    """Give an interface that is down another name; raises `OSError`: it is too long, for one."""
    if len(name) > 15:  # it would be cut off
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    _tell_interfaces(_SIOCSIFNAME, _IFREQ_NAME.pack(interface.encode(), name.encode()))


def _tell_interfaces(what: int, request: bytes) -> bytes:
    # By hand, because starting `ip` takes as long again as what it does.
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
        return fcntl.ioctl(any_, what, request)


def kill(pid: int, *, timeout: float, meanwhile: Callable[[], object] = lambda: None) -> bool:
    """Send SIGKILL, call `meanwhile`, and wait until the process is gone; return whether it is."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        meanwhile()
        return True
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        try:
            meanwhile()
        finally:
            gone = _wait(handle, timeout)
    finally:
        os.close(handle)
    return gone


def await_end(child: int, *, timeout: float) -> bool:
    """Wait until a child of ours has ended; return whether it has."""
    handle = os.pidfd_open(child)
    try:
        return _wait(handle, timeout)
    finally:
        os.close(handle)


def terminate(pid: int, *, timeout: float) -> bool:
    """Send SIGTERM and wait until the process is gone; return whether it is."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        return _wait(handle, timeout)
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def _wait(handle: int, timeout: float) -> bool:
    # A pidfd becomes readable when its process ends: no polling.
    waiter = select.poll()
    waiter.register(handle, select.POLLIN)
    return bool(waiter.poll(timeout * 1000))
