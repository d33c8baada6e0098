"""What the kernel's log tells of one machine among others."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_machine.drivers.runc import incidents
from pytest_machine.drivers.runc.incidents import Line, of_log
from pytest_machine.drivers.runc.places import Place
from pytest_machine.model import Id, Incident, Trouble

GROUP = "/pytest-machine/0123456789"
UIDS = range(100000, 165536)

KILL = "Memory cgroup out of memory: Killed process {pid} (java) total-vm:9kB, anon-rss:8kB, UID:{uid} pgtables:60kB"
NAMES = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,"
    "oom_memcg={g},task_memcg={g}/docker/c,task=java,pid={pid},uid=1"
)


def told(*texts: str, at: float = 10.0) -> Sequence[Incident]:
    return of_log([Line(at, f"{i}.0", text) for i, text in enumerate(texts)], group=GROUP, uids=UIDS, since=5.0)


def test_a_kill_is_known_by_its_group() -> None:
    found = told(NAMES.format(g=GROUP, pid=7), KILL.format(pid=7, uid=1))
    assert [(each.kind, each.text[:5]) for each in found] == [(Trouble.OOM, "[1.0]")]
    assert told(NAMES.format(g=GROUP + "a", pid=7), KILL.format(pid=7, uid=1)) == []


def test_or_by_its_uid_when_the_kernel_says_less() -> None:
    assert [each.kind for each in told(KILL.format(pid=8, uid=100033))] == [Trouble.OOM]
    assert told(KILL.format(pid=8, uid=99999)) == []
    assert told(KILL.format(pid=8, uid=100033), at=4.0) == [], "whoever had these uids before"


@pytest.mark.parametrize(
    "text",
    [
        "Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "kernel BUG at mm/slub.c:305!",
        "BUG: unable to handle page fault for address: ffffffffdeadbeef",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [stress:123]",
        "general protection fault, probably for non-canonical address",
        "INFO: task dockerd:77 blocked for more than 120 seconds.",
    ],
)
def test_oops(text: str) -> None:
    assert [each.kind for each in told(text)] == [Trouble.OOPS]
    assert told(text, at=1.0) == []


def test_the_rest_is_shown_when_it_names_the_group() -> None:
    refused = f"cgroup: fork rejected by pids controller in {GROUP}/docker/x"
    assert [each.kind for each in told(refused)] == [Trouble.KERNEL]
    assert told("cgroup: fork rejected by pids controller in /other", "ptm0123456789: link up") == []
    assert told(f"Memory cgroup stats for {GROUP}:") == []


def test_each_stays_equal() -> None:
    assert told(KILL.format(pid=8, uid=100033)) == told(KILL.format(pid=8, uid=100033))


def test_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incidents, "core_pattern", lambda: "/var/crash/core.%e.%p")
    monkeypatch.setattr(Place, "state", tmp_path)
    monkeypatch.setattr(Place, "mounted_disk", tmp_path / "none")
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    layer = tmp_path / "docker/overlay2/abc"
    for path, kind in (
        (tmp_path / "upper/var/crash/core.java.7", 4),
        (tmp_path / "upper/usr/bin/core.x", 2),
        (layer / "diff/core.sh.1", 4),
        (tmp_path / "docker/overlay2/image/diff/core.sh.1", 4),
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(head + struct.pack("<H", kind))
    (tmp_path / "docker/overlay2/abc-init").mkdir()
    (tmp_path / "upper/var/crash/core.text").write_text("no")
    (tmp_path / "upper/var/crash/core.link").symlink_to("core.java.7")
    found = sorted(each.text for each in incidents.cores(Place(Id("0123456789"))))
    assert found == ["core dump /var/crash/core.java.7", "core dump in the container's layer abc: /core.sh.1"]


def test_what_a_program_takes_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incidents, "core_pattern", lambda: "|/usr/lib/systemd/systemd-coredump %P")
    assert "systemd-coredump" in incidents.unseen()[Trouble.CORE]
    assert incidents.cores(Place(Id("0123456789"))) == []
