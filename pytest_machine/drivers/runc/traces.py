"""What a test did to a machine's host, outside of its Docker's data: noted when it is pristine, compared afterwards.

A flat table of facts, ``"file /etc/passwd"`` → what tells one version of it from another. Two equal tables mean a
host that nobody touched, which needs its engine cleaned and no more; anything else is laid again from its image. So a
fact too many costs half a second, and a fact too few lets one test see what another did: in doubt, it is in the table.

Everything is read from outside, by `/proc` and in the machine's namespaces, because what is inside may be wrecked.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pytest_machine.errors import DriverError
from pytest_machine.support import trees

from . import cgroups, kernel, storage, wiring
from .command import run
from .places import Place

Facts = dict[str, str]

# What an untouched machine writes by itself while it runs: its services' logs, and logins by SSH.
_OWN_FILES = frozenset(
    f"/var/log/{name}" for name in ("dockerd.log", "containerd.log", "sshd.log", "wtmp", "btmp", "lastlog")
)
# Below /run, the engine's own: containers that are gone leave their folders, and the rest changes by itself.
_OWN_RUN = frozenset(
    ("docker/netns", "docker/containerd", "docker/runtime-runc", "containerd", "motd.dynamic", "xtables.lock")
)
# Where Docker keeps what it has.
_DOCKERS = "/var/lib/docker"
# Processes that come and go in an untouched machine: the init's alarm clock, and our own SSH sessions.
_OWN_PROCESSES = re.compile(r"sleep \d+\.\d{6}|sshd(-session|-auth)?: (?!.*\[listener\]).*")
# How many logins its sshd has in hand, which it tells in its own name.
_LOGINS = re.compile(r" \d+ of [\d-]+ startups")
# A number that the kernel counts, among those that somebody sets.
_OWN_SETTINGS = ("sys/net/netfilter/nf_conntrack_count",)
# What each machine has for itself: names, settings of its network and its users, System V IPC, message queues.
_SETTINGS = tuple(
    f"/proc/{name}"
    for name in (
        *("sysvipc", "sys/net", "sys/user", "sys/fs/mqueue"),
        *(f"sys/kernel/{name}" for name in ("hostname", "domainname", "sem", "shmall", "shmmax", "shmmni")),
        *(f"sys/kernel/{name}" for name in ("shm_rmid_forced", "msgmax", "msgmnb", "msgmni")),
    )
)
# The engine's own control group stays when its containers are gone, and in it whatever was set: a limit, a freeze.
_ENGINE_GROUP = "docker"
_SETTABLE = ("memory.limit_in_bytes", "pids.max", "cpu.cfs_quota_us", "cpu.shares", "freezer.state", "cpuset.cpus",
           "memory.max", "memory.high", "cpu.max", "cpu.weight", "cgroup.freeze")  # fmt: skip
# What a new group has of those: no limit, an equal share, thawed.
_NEW_GROUP = frozenset(("9223372036854771712", "max", "-1", "1024", "THAWED", "max 100000", "100", "0"))


def take(place: Place, pid: int, *, known: Facts | None = None) -> Facts:
    """Return the facts of a running machine; `known` are those `lasting` ones of an earlier boot, if it is like that.

    Unless the machine has other interfaces now, they are not read: that takes more time than all else.
    """
    found: Facts = {}
    with ThreadPoolExecutor(len(_PROGRAMS)) as pool:
        cards = dict(wiring.cards(pid))
        alike = known and {f"link {key.partition(' ')[2]}" for key in cards} == _links(known)
        running = [] if alike else [pool.submit(lambda read: dict(read(pid)), read) for read in _PROGRAMS]
        # Not in threads of their own, because they would only take turns, and hold up those that wait for programs.
        for read in _READERS:
            found.update(read(pid))
        found.update(_files(storage.attach(place)))
        for each in running:
            found.update(each.result())
    return found | cards | (known or {} if alike else {})


def _links(facts: Facts) -> set[str]:
    return {key for key in facts if key.startswith("link ")}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names of the facts that are not what they were, sorted."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def lasting(facts: Facts) -> Facts:
    """Return those of the facts that each boot of a machine brings about alike."""
    return {key: value for key, value in facts.items() if not key.startswith(_OF_A_BOOT)}


# What differs from one boot to the next.
_OF_A_BOOT = ("file ", "process ", "mount ", "group ", "card ")


def is_touched(before: Mapping[str, str], place: Place, pid: int) -> bool:
    """Return whether a file in the machine's own layer is not what it was, or a process that was there from the start.

    Seen in milliseconds, and whatever Docker holds now: the files are none of Docker's, and its containers are further
    processes. An engine that was stopped or killed is not asked for an answer that it will not give.
    """
    elsewhere = tuple(f"file {folder}/" for folder in ("/run", "/dev", _DOCKERS))

    def own(facts: Iterable[tuple[str, str]]) -> Facts:
        return {key: value for key, value in facts if key.startswith("file /") and not key.startswith(elsewhere)}

    if own(before.items()) != own(_layer(storage.attach(place))):
        return True
    running = dict(_processes(pid))
    return any(running.get(key) != value for key, value in before.items() if key.startswith("process "))


def _files(home: Path) -> Iterator[tuple[str, str]]:
    """Every file on the machine's own disk."""
    yield from _layer(home)
    # What is deeper is the engine's to keep: an engine that was cleaned still notes what it has seen.
    for path, _ in _walk(home, "docker", depth=2):
        yield f"file {_DOCKERS}/{path}", ""


def _layer(home: Path) -> Iterator[tuple[str, str]]:
    """Every file in the machine's own layer: what is not there is as the image has it."""
    for path, status in _walk(home, "upper"):
        name = f"/{path}"
        if name not in _OWN_FILES and not name.startswith(f"{_DOCKERS}/"):
            # A folder's times change when a file in it does, and that one is in the table itself.
            content = "" if stat.S_ISDIR(status.st_mode) else f"{_version(status)} {status.st_ino}"
            yield f"file {name}", f"{status.st_mode:o} {status.st_uid} {status.st_gid} {status.st_rdev} {content}"


def _version(status: os.stat_result) -> str:
    """Return what tells one content of a file from another. Nobody can set the time of its last change (ctime)."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _memory_files(pid: int) -> Iterator[tuple[str, str]]:
    """Every file in the memory file systems of the machine that is not its engine's."""
    root = Path(f"/proc/{pid}/root")
    for folder in ("run", "dev"):
        if (root / folder).is_symlink():  # which would lead us out of the machine
            yield f"file /{folder}", "a link"
            continue
        for path, status in _walk(root, folder, passing=_OWN_RUN if folder == "run" else frozenset()):
            name = f"/{folder}/{path}"
            if name.startswith("/dev/pts/"):
                continue  # terminals come and go with logins
            content = _version(status) if stat.S_ISREG(status.st_mode) else ""
            yield f"file {name}", f"{status.st_mode:o} {status.st_uid} {status.st_rdev} {content}"


# An untouched machine has some hundred files of its own, and few of them lie deeper than ten directories.
_LIMITS = trees.Limits(entries=500_000, depth=200, seconds=30)


def _walk(
    top: Path, below: str, *, passing: frozenset[str] = frozenset(), depth: int | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file and directory in `below`, by its path there; raises `LimitExceeded`."""
    for folder in trees.walk(top, below, limits=_LIMITS):
        names = folder.names
        before = "".join(f"{name}/" for name in names)
        for entry in folder.entries:
            path = before + entry.name
            if path not in passing:
                with suppress(FileNotFoundError):
                    yield path, entry.stat(follow_symlinks=False)
        last = depth is not None and len(names) + 1 >= depth
        folder.into[:] = [] if last else [name for name in folder.into if before + name not in passing]


def _processes(pid: int) -> Iterator[tuple[str, str]]:
    """Every process but those that come and go: also the engine's own, so that one that was restarted or stopped shows.

    What was done to one that runs: stopped by a signal, another priority, other limits, other processors.
    """
    pids = {int(line) for group in cgroups.of_process(pid) for line in _below(group)}
    for each in pids:
        with suppress(OSError, IndexError):
            words = Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            words = _LOGINS.sub("", words)
            if words and not _OWN_PROCESSES.fullmatch(words):
                yield f"process {each} {words[:80]}", _condition(Path(f"/proc/{each}"))


def _condition(process: Path) -> str:
    """Return since when a process runs, whether it is stopped, and what it may take."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()  # from the third of proc(5) on: its state
    stopped = "stopped" if fields[0] in "Tt" else ""
    started, nice, policy, priority = fields[19], fields[16], fields[38], fields[37]
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    limits = zlib.crc32((process / "limits").read_bytes())  # the same in every process that asks
    score = (process / "oom_score_adj").read_text().strip()
    return f"{started} {stopped} {nice} {policy} {priority} {status['Cpus_allowed_list'].strip()} {limits} {score}"


def _below(group: Path) -> Iterator[str]:
    for folder in trees.walk(group, limits=_LIMITS):
        yield from folder.lines("cgroup.procs")


def _mounts(pid: int) -> Iterator[tuple[str, str]]:
    """Every mount in the machine's own mount namespace, but those that the engine has for a running container."""
    for line in kernel.open_lines(f"/proc/{pid}/mountinfo"):
        left, _, right = line.partition(" - ")
        _, _, _, root, point, options, *groups = left.split()
        kind, source, _ = right.split(" ", 2)
        if kind == "nsfs" and point.startswith("/run/docker/netns/"):
            continue
        propagation = [group.partition(":")[0] for group in groups]
        yield f"mount {point} {kind}", f"{root} {options} {source} {propagation}"


def _groups(pid: int) -> Iterator[tuple[str, str]]:
    """Every control group below the machine's, but the engine's containers'; of the engine's, what was set in it."""
    for group in cgroups.of_process(pid):
        what = group.parts[4] if len(group.parts) > 4 else ""
        for folder in trees.walk(group, limits=_LIMITS):
            if folder.names == [_ENGINE_GROUP]:
                folder.into.clear()
                for name in _SETTABLE:
                    # It is made with the first container, so it is compared with a new group and not with what was.
                    yield from ((f"group {what} docker {name}", value) for value in _set(group / _ENGINE_GROUP, name))
            elif folder.parent is not None:
                yield f"group {what} {folder.path}", ""


def _set(group: Path, name: str) -> list[str]:
    """Return the value of a group's setting, unless it is as in a new group."""
    value = " ".join(kernel.open_lines(group / name))
    if name == "cpuset.cpus":
        return [value] if value != " ".join(kernel.open_lines(group.parent / name)) else []
    return [value] if value and value not in _NEW_GROUP else []


def _settings(pid: int) -> Iterator[tuple[str, str]]:
    """What only a process in the machine's namespaces sees: its names, its System V IPC, its settings."""
    kinds = ["net", "ipc", "uts"]
    if Path(f"/proc/{pid}/ns/user").stat().st_ino != Path("/proc/self/ns/user").stat().st_ino:
        kinds.append("user")
    spaces = [f"--{kind}=/proc/{pid}/ns/{kind}" for kind in kinds]
    # A program reads a thousand files in a sixth of the time that we take. What nobody may read is passed over.
    lines = run("nsenter", *spaces, "grep", "-ars", ".", *_SETTINGS, check=False).splitlines()
    if not lines:
        raise DriverError("The machine's namespaces cannot be looked into.", facts={"pid": pid})
    found: dict[str, list[str]] = {}
    for path, _, value in (line.removeprefix("/proc/").partition(":") for line in lines):
        found.setdefault(path, []).append(value)
    for path, values in found.items():
        if path.startswith("sysvipc/"):
            for value in values[1:]:
                yield f"ipc {path.removeprefix('sysvipc/')} {value.split()[1]}", ""
        elif path not in _OWN_SETTINGS:
            yield f"setting {path.removeprefix('sys/')}", "\n".join(values)


_READERS = (_memory_files, _processes, _mounts, _groups)
# What programs of this host are asked.
_PROGRAMS = (wiring.rules, wiring.links, _settings)
