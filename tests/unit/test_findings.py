from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_machine.plugin.findings import of, warnings

DF = """Filesystem      Size  Used Avail Use% Mounted on
overlay         252G   26G   76G  {disk}% /
tmpfs            12G   12G     0  100% /sys/fs/cgroup
/dev/vda        252G   26G   76G  26% /var/lib/docker

Filesystem       Inodes  IUsed    IFree IUse% Mounted on
overlay        16777216 496070 16281146    {inodes}% /

               total        used        free      shared  buff/cache   available
Mem:           24105        1542       20193           8        2675       22563
"""
PS = "CONTAINER ID   IMAGE   COMMAND   STATUS   PORTS   NAMES\n0123   box   sh   Up 1 s      shop"


def parts(disk: int = 29, inodes: int = 3, **state: object) -> dict[str, str]:
    inspected = {"State": {"Status": "running", "ExitCode": 0, **state}, "RestartCount": state.pop("restarts", 0)}
    return {
        "state": "running",
        "docker ps -a": PS,
        "log of 'shop'": "it said \x1b[31mred",
        "inspect of 'shop'": json.dumps(inspected),
        "disk and memory": DF.format(disk=disk, inodes=inodes),
        "daemon log": 'time="2026-11-29T10:00:00Z" level=info msg="API listen"',
        "console": "booted",
        "processes": "1 init",
    }


def test_an_ordinary_machine_is_a_line() -> None:
    found = of(parts(), ready=1.0)
    assert (found.line, found.odd) == ("running, 1 container, disk 29 %", ())


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"Status": "exited", "ExitCode": 3}, "exited with 3"),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, "was killed: out of memory"),
        ({"Status": "restarting", "ExitCode": 1}, "is restarting"),
        ({"Status": "paused"}, "is paused"),
        ({"restarts": 2}, "restarted 2 times"),
        ({"Health": {"Status": "unhealthy"}}, "is unhealthy"),
        ({"Status": "created", "ExitCode": 127, "Error": "no such\nfile"}, "did not start: no such file"),
    ],
)
def test_a_container_that_is_not_well(state: dict[str, Any], says: str) -> None:
    found = of(parts(**state), ready=1.0)
    assert f"'shop' {says}" in found.line
    odd = dict(found.odd)
    assert odd["log of 'shop'"] == r"it said \x1b[31mred"
    assert "docker ps -a" in odd
    assert ("disk and memory" in odd) == ("memory" in says)


def test_a_container_that_ended_well_is_ordinary() -> None:
    assert of(parts(Status="exited", ExitCode=0), ready=1.0).odd == ()


@pytest.mark.parametrize(("disk", "inodes"), [(97, 3), (100, 3), (20, 100)])
def test_a_full_disk(disk: int, inodes: int) -> None:
    assert [title for title, _ in of(parts(disk, inodes), ready=1.0).odd] == ["disk and memory"]


@pytest.mark.parametrize("inspected", ["", "[]", "[" * 100_000, '{"State": 1}', '{"State": {"Health": []}}', "{"])
def test_what_no_docker_says_is_ordinary(inspected: str) -> None:
    found = of({**parts(), "inspect of 'shop'": inspected, "disk and memory": "Filesystem\nUse%\n/ / /"}, ready=1.0)
    assert found.odd == ()


def test_names_of_containers_are_made_visible() -> None:
    inspected = json.dumps({"State": {"Status": "exited", "ExitCode": 1}})
    found = of({"state": "running", "docker ps -a": PS, "inspect of '\x1b]0;x'": inspected}, ready=1.0)
    assert r"'\x1b]0;x' exited with 1" in found.line


@pytest.mark.parametrize("state", ["stopped", "absent", "error it died"])
def test_a_machine_that_does_not_run(state: str) -> None:
    silent = "its Docker: The machine 'web' does not run.\n  state  stopped\nhint: machine.start()\nSSH: refused"
    found = of({"state": state, "console": "Kernel panic", "what could not be asked": silent}, ready=1.0)
    assert found.line == f"{state}; its Docker: The machine 'web' does not run.; SSH: refused"
    assert found.odd == (("console", "Kernel panic"),)


LOG = """\
time="2026-11-29T10:00:00.5Z" level=info msg="Starting up"
time="2026-11-29T10:00:01.123456789Z" level=warning msg="Not using native diff" storage-driver=overlay2
time="2026-11-29T10:05:00Z" level=warning msg="Not using native diff" storage-driver=overlay2
time="2026-11-29T10:05:01Z" level=warning msg="[core] [Channel #1] grpc: addrConn" module=grpc
time="2026-11-29T10:05:02Z" level=info msg="2026/11/29 level of things" module=grpc
time="2026-11-29T10:05:03Z" level=error msg="No space left" error="x"
Nov 29 10:05:04 web dockerd[9]: time="2026-11-29T10:05:04Z" level=warning msg="slow disk"
panic: runtime error
"""


def test_a_daemon_says_warnings_that_are_news() -> None:
    ready = 1795946700.0  # 10:05:00 of that day
    assert [line[-30:] for line in warnings(LOG, ready=ready - 100)] == [
        line[-30:] for line in LOG.splitlines() if "No space" in line or "slow disk" in line or "panic" in line
    ]


def test_a_daemon_that_was_never_ready_says_all_its_warnings() -> None:
    assert len(warnings(LOG, ready=None)) == 5
