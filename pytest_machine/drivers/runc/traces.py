"""What a test did to a machine's host, outside of its Docker's data: noted when it is pristine, compared afterwards.

A flat table of facts, ``"file /etc/passwd"`` → what tells one version of it from another. Two equal tables mean a
host that nobody touched, which needs its engine cleaned and no more; anything else is laid again from its image. So a
fact too many costs half a second, and a fact too few lets one test see what another did: in doubt, it is in the table.

Everything is read from outside, by `/proc` and in the machine's namespaces, because what is inside may be wrecked.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from pytest_machine.errors import DriverError

from . import cgroups, kernel, storage
from .command import run
from .places import Place

Facts = dict[str, str]

# What an untouched machine writes by itself while it runs: its services' logs, and logins by SSH.
_OWN_FILES = frozenset(
    f"/var/log/{name}" for name in ("dockerd.log", "containerd.log", "sshd.log", "wtmp", "btmp", "lastlog")
)
# Below /run, the engine's own: containers that are gone leave no file, and the rest changes by itself.
_OWN_RUN = ("docker", "containerd", "machine-init", "motd.dynamic", "xtables.lock")
# Processes that come and go in an untouched machine: the init's alarm clock, and our own SSH sessions.
_OWN_PROCESSES = re.compile(r"sleep \d+\.\d{6}|sshd: (?!.*\[listener\]).*")
# A number that the kernel counts, among those that somebody sets.
_OWN_SETTINGS = ("net/netfilter/nf_conntrack_count",)
_NAMESPACES = 0x40000000 | 0x08000000 | 0x04000000  # CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS


def take(place: Place, pid: int) -> Facts:
    """Return the facts of a running machine."""
    readers = (
        partial(_files, storage.attach(place)),
        *(partial(read, pid) for read in (_memory_files, _processes, _mounts, _groups, _rules, _links, _inside)),
    )
    with ThreadPoolExecutor(len(readers)) as pool:
        parts = list(pool.map(lambda read: dict(read()), readers))
    return {key: value for part in parts for key, value in part.items()}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names of the facts that are not what they were, sorted."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _files(home: Path) -> Iterator[tuple[str, str]]:
    """Every file in the machine's own layer: what is not there is as the image has it."""
    upper = home / "upper"
    for path, status in _walk(upper):
        name = "/" + str(path.relative_to(upper))
        if name not in _OWN_FILES and not name.startswith("/var/lib/docker/"):
            # A folder's times change when a file in it does, and that one is in the table itself.
            content = "" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
            yield f"file {name}", f"{status.st_mode:o} {status.st_uid} {status.st_gid} {status.st_rdev} {content}"
    for entry in os.scandir(home / "docker"):
        yield f"file /var/lib/docker/{entry.name}", ""


def _memory_files(pid: int) -> Iterator[tuple[str, str]]:
    """Every file in the memory file systems of the machine that is not its engine's."""
    root = Path(f"/proc/{pid}/root")
    for folder in ("run", "dev"):
        if (root / folder).is_symlink():  # which would lead us out of the machine
            yield f"file /{folder}", "a link"
            continue
        for path, status in _walk(root / folder, passing=lambda p: p.parent == root / "run" and p.name in _OWN_RUN):
            name = f"/{path.relative_to(root)}"
            if name.startswith("/dev/pts/"):
                continue  # terminals come and go with logins
            yield f"file {name}", f"{status.st_mode:o} {status.st_uid} {status.st_rdev}"


def _walk(top: Path, passing: Callable[[Path], bool] = lambda _: False) -> Iterator[tuple[Path, os.stat_result]]:
    waiting = [top]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            path = Path(entry.path)
            if passing(path):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)


def _processes(pid: int) -> Iterator[tuple[str, str]]:
    """Every process but those that come and go: also the engine's own, so that one that was restarted shows."""
    pids = {int(line) for group in cgroups.of_process(pid) for line in _below(group)}
    for each in pids:
        with suppress(OSError, IndexError):
            words = Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            started = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[19]
            if words and not _OWN_PROCESSES.fullmatch(words):
                yield f"process {each} {words[:80]}", started


def _below(group: Path) -> Iterator[str]:
    for folder, _, _ in os.walk(group):
        yield from kernel.open_lines(Path(folder) / "cgroup.procs")


def _mounts(pid: int) -> Iterator[tuple[str, str]]:
    """Every mount in the machine's own mount namespace, but those that the engine has for a running container."""
    for line in kernel.open_lines(f"/proc/{pid}/mountinfo"):
        left, _, right = line.partition(" - ")
        _, _, _, root, point, options = left.split()[:6]
        kind, source, _ = right.split(" ", 2)
        if kind == "nsfs" and point.startswith("/run/docker/netns/"):
            continue
        yield f"mount {point} {kind}", f"{root} {options} {source}"


def _groups(pid: int) -> Iterator[tuple[str, str]]:
    """Every control group below the machine's, but the engine's containers'."""
    for group in cgroups.of_process(pid):
        for folder, names, _ in os.walk(group):
            inside = Path(folder).relative_to(group)
            if inside.parts[:1] == ("docker",):
                names.clear()
            elif inside.parts:
                yield f"group {group.parts[4] if len(group.parts) > 4 else ''} {inside}", ""


def _rules(pid: int) -> Iterator[tuple[str, str]]:
    """Every firewall rule, by both of iptables' ways; counters are not rules."""
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net")
    ruleset = json.loads(run(*inside, "nft", "--json", "--stateless", "list", "ruleset", check=False) or "{}")
    for number, item in enumerate(ruleset.get("nftables", ())):
        if "metainfo" not in item:
            yield f"rule {number}", json.dumps(_without_handles(item), sort_keys=True)
    legacy = "".join(kernel.open_lines(f"/proc/{pid}/net/ip_tables_names"))
    if legacy:
        for number, line in enumerate(run(*inside, "iptables-legacy-save", check=False).splitlines()):
            if not line.startswith(("#", ":")):
                yield f"rule legacy {number}", line


def _without_handles(value: object) -> object:
    """Return a part of nft's JSON without the numbers that differ each time it is made."""
    if isinstance(value, dict):
        return {k: _without_handles(v) for k, v in value.items() if k not in ("handle", "packets", "bytes")}
    if isinstance(value, list):
        return [_without_handles(each) for each in value]
    return value


def _links(pid: int) -> Iterator[tuple[str, str]]:
    """Every interface, address, route and routing rule of the machine."""
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-json")
    for link in json.loads(run(*inside, "-details", "address") or "[]"):
        # docker0 goes down with its last container.
        keys = ("address", "mtu", "master", "qdisc") if link["ifname"] != "docker0" else ("address", "mtu")
        flags = "UP" in link["flags"] or link["ifname"] == "docker0"
        addresses = sorted(f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link")
        yield f"link {link['ifname']}", f"{[link.get(k) for k in keys]} {flags} {addresses}"
    for family in ("-4", "-6"):
        for route in json.loads(run(*inside, family, "route", "show", "table", "all") or "[]"):
            if family == "-4" and route.get("dev") != "docker0":
                yield (
                    f"route {route.get('dst')} {route.get('dev')} {route.get('table', '')}",
                    json.dumps({k: route.get(k) for k in ("gateway", "prefsrc", "type", "metric")}),
                )
        for rule in json.loads(run(*inside, family, "rule") or "[]"):
            yield f"routing rule {family} {json.dumps(rule, sort_keys=True)}", ""


def _inside(pid: int) -> Iterator[tuple[str, str]]:
    """What only a thread in the machine's namespaces sees: its names, its System V IPC, its network's settings."""
    _enter(pid)
    names = os.uname()
    yield "host name", f"{names.nodename} {Path('/proc/sys/kernel/domainname').read_text().strip()}"
    for kind in ("msg", "sem", "shm"):
        for line in kernel.open_lines(f"/proc/sysvipc/{kind}")[1:]:
            yield f"ipc {kind} {line.split()[1]}", ""
    top = Path("/proc/sys/net")
    devices = [f"{ip}/conf/{device}" for ip in ("ipv4", "ipv6") for device in ("all", "default", "eth0")]
    for folder in (top / name for name in ("core", "ipv4", "ipv6", "netfilter", "bridge", *devices)):
        with suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                name = str(Path(entry.path).relative_to("/proc/sys"))
                if entry.is_file() and name not in _OWN_SETTINGS:
                    with suppress(OSError):
                        yield f"sysctl {name}", Path(entry.path).read_text().strip()


def _enter(pid: int) -> None:
    """Move this thread, which is never used for anything else, into the machine's namespaces."""
    handle = os.pidfd_open(pid)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _NAMESPACES):
            reason = os.strerror(ctypes.get_errno())
            raise DriverError("The machine's namespaces cannot be looked into.", facts={"reason": reason})
    finally:
        os.close(handle)
