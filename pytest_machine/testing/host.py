"""What local drivers leave on a Linux host, seen with the host's own tools and never with a driver's code.

`host_leftovers` names whatever carries our prefix, for `DriverSuite.leftovers`. `census` counts everything, ours or
not, for the proof that after two hundred machines there are as many links, namespaces, mounts, rules, cgroups,
processes and files as before: what was left without a name shows there.

Tools that are not installed and kinds that this host does not have count as none. Run it as root: others see less.

Other programs create and remove things while this module looks. What goes meanwhile is no error, and a tool whose
listing was disturbed is asked again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

OURS = re.compile(r"pytest-machine|(?<![a-z0-9])ptm(?!x)", re.IGNORECASE)
"""What our things are called: ``pytest-machine…``, and ``ptm…`` where a name must be short. Not /dev/ptmx."""

_IPTABLES = ("iptables-legacy-save", "iptables-nft-save", "ip6tables-legacy-save", "ip6tables-nft-save")
# Packets and bytes count up on an idle host too; handles and numbers of loop devices are given out anew each time.
_COUNTERS = re.compile(r"\s*\[\d+:\d+\]|(?<=counter) packets \d+ bytes \d+|\s*# handle \d+")
_CGROUPS = Path("/sys/fs/cgroup")


def host_leftovers(*directories: Path) -> set[str]:
    """Return what of ours is on this host now, one text a thing, the same text as long as the thing is there.

    Links, named network namespaces, nft and iptables rules, mounts, loop devices, cgroups, runc's containers and
    processes that carry our prefix or mention one of `directories`; and every file in those, but for what is mounted.
    """
    ours = re.compile("|".join([OURS.pattern, *(re.escape(str(path)) for path in directories)]), re.IGNORECASE)
    found = {
        f"{kind}: {text}"
        for kind, look in {
            "link": _links,
            "network namespace": _named_namespaces,
            "nft": _nft,
            "iptables": _iptables,
            "mount": _mounts,
            "loop device": _loops,
            "cgroup": _cgroups,
            "runc container": _containers,
            "process": _processes,
        }.items()
        for text in look()
        if ours.search(text)
    }
    return found | {f"file: {path}" for path in _files(directories)}


def census(*directories: Path) -> dict[str, int]:
    """Return how many links, namespaces, mounts, … this host has, whosever they are, and files in `directories`.

    Namespaces are those of living processes and those kept by a mount. Kernel threads are not counted: they come
    and go.
    """
    kinds: dict[str, Callable[[], Iterable[str]]] = {
        "links": _links,
        "namespaces": _namespaces,
        "mounts": _mounts,
        "nft rules": _nft,
        "iptables rules": _iptables,
        "loop devices": _loops,
        "cgroups": _cgroups,
        "runc containers": _containers,
        "processes": _processes,
    }
    return {kind: sum(1 for _ in look()) for kind, look in kinds.items()} | {
        "files": sum(1 for _ in _files(directories))
    }


_TRIES = 5


def _output(*argv: str) -> list[str]:
    """Return what a tool lists, asked again where it says that the list changed under it; [] where it is absent."""
    if shutil.which(argv[0]) is None:
        return []
    for _ in range(_TRIES):
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=60)
        # `ip` says "Dump was interrupted and may be inconsistent" and exits with 0; the others fail.
        if done.returncode == 0 and "interrupted" not in done.stderr:
            break
    return done.stdout.splitlines()


def _links() -> Iterator[str]:
    for line in _output("ip", "-o", "link"):
        # 5: ptm0a1b2c3d4e5h@if4: <BROADCAST,… the flags and counters change, the name and kind do not
        yield line.split(": ")[1].partition("@")[0]


def _named_namespaces() -> Iterator[str]:
    for line in _output("ip", "netns"):
        yield line.split()[0]


def _nft() -> Iterator[str]:
    """Yield every line of the rule set behind its table and chain, without counters."""
    above: list[str] = []
    for line in _output("nft", "list", "ruleset"):
        text = _COUNTERS.sub("", line).strip()
        if text.endswith("{"):
            above.append(text.removesuffix("{").strip())
            yield " ".join(above)
        elif text == "}":
            above.pop()
        elif text and not text.startswith("#"):
            yield " ".join([*above, text])


def _iptables() -> Iterator[str]:
    for program in _IPTABLES:
        table = ""
        for line in _output(program):
            if line.startswith("*"):
                table = line
            elif line.startswith((":", "-")):
                yield f"{program} {table} {_COUNTERS.sub('', line)}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/mounts").read_text("utf-8", errors="replace").splitlines():
        source, target, kind, flags = line.split()[:4]
        yield f"{source} on {target} type {kind} ({flags})"


def _loops() -> Iterator[str]:
    for line in _output("losetup", "-a"):
        # /dev/loop0: [2049]:1234 (/var/lib/x/disk.img)
        yield line.partition("(")[2].rstrip(")")


def _cgroups() -> Iterator[str]:
    for entry in _entries([_CGROUPS]):
        if entry.is_dir(follow_symlinks=False):
            yield entry.path


def _containers() -> Iterator[str]:
    for pattern in ("run/runc", "run/ptm*", "run/*/runc", "run/pytest-machine*"):
        for root in Path("/").glob(pattern):
            # By runc's own files: `runc list` fails when a container ends while it lists.
            with contextlib.suppress(OSError):
                yield from (f"{root} {path.parent.name}" for path in sorted(root.glob("*/state.json")))


def _processes() -> Iterator[str]:
    """Yield each process's command line and, where it has one of our cgroups, that cgroup; never its number."""
    # This process and whoever started it mention our directories without being left by anyone.
    ancestors = _ancestors()
    for line in _output("ps", "-eww", "-o", "pid=,ppid=,stat=,args="):
        pid, ppid, state, args = [*line.split(None, 3), ""][:4]
        if 2 in (int(pid), int(ppid)) or state.startswith("Z") or int(pid) in ancestors or int(ppid) == os.getpid():
            continue
        cgroup = next((match[0] for match in _CGROUP_OURS.finditer(_cgroup_of(pid))), "")
        yield f"{args} in {cgroup}" if cgroup else args


_CGROUP_OURS = re.compile(rf"[^\n/]*(?:{OURS.pattern}).*", re.IGNORECASE)


def _cgroup_of(pid: str) -> str:
    try:
        lines = Path("/proc", pid, "cgroup").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return "\n".join(line.split(":", 2)[2] for line in lines)


def _ancestors() -> set[int]:
    parents = {int(pid): int(parent) for pid, parent in map(str.split, _output("ps", "-e", "-o", "pid=,ppid="))}
    found: set[int] = set()
    pid = os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


def _namespaces() -> set[str]:
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found |= {str(link.readlink()) for link in (process / "ns").iterdir()}
        except OSError:
            continue  # it ended while we looked
    # One that a mount keeps (`ip netns`) shows its number as the mount's root.
    for line in Path("/proc/self/mountinfo").read_text("utf-8", errors="replace").splitlines():
        root = line.split()[3]
        if re.fullmatch(r"[a-z_]+:\[\d+\]", root):
            found.add(root)
    return found


def _files(directories: Iterable[Path]) -> Iterator[Path]:
    for entry in _entries(directories, mounts=False):
        yield Path(entry.path)


def _entries(tops: Iterable[Path], *, mounts: bool = True) -> Iterator[os.DirEntry[str]]:
    """Yield all below some directories, but for what is mounted there unless `mounts`; no link is followed.

    What is mounted there is counted as a mount; a machine's whole root would be in the way. By a list and without
    recursion: a machine may nest directories deeper than Python recurses.
    """
    mounted = set() if mounts else _mount_points()
    waiting = [str(top) for top in tops]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False) and entry.path not in mounted:
                    waiting.append(entry.path)


def _mount_points() -> set[str]:
    """Return where something is mounted; the kernel writes blanks and the like as octal numbers."""
    lines = Path("/proc/mounts").read_bytes().splitlines()
    escaped = (line.split()[1] for line in lines)
    return {os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), each)) for each in escaped}
