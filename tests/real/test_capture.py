"""Packets that were really sent, in files that the real tcpdump reads, and nothing left of the capture."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_machine import birth
from pytest_machine.capture import Capture
from pytest_machine.errors import BadSpec, Unsupported
from pytest_machine.faults.network import Partition
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import new_id
from pytest_machine.ssh import SshConnection
from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS
from tests.real.asked import spec

Two = tuple[Machine, Machine]


@pytest.fixture(scope="module")
def two(module_lab: Lab) -> Two:
    a, b = module_lab.create(spec("a", networks=("front",)), spec("b", networks=("front",)))
    return a, b


def read(machine: Machine, file: Path) -> list[str]:
    """Return what the real tcpdump reads from a file: a line a packet, with its payload."""
    return machine.run("tcpdump", "-n", "-l", "-q", "-A", "-r", "-", input=file.read_bytes()).stdout.splitlines()


def ping(here: Machine, there: Machine, count: int = 1) -> None:
    here.run("ping", "-n", "-c", str(count), "-i", "0.02", "-W", "10", there.networks["front"].ip)


def captors(machine: Machine) -> str:
    return machine.run("pgrep", "-x", "tcpdump", check=False).stdout


def test_what_was_sent_is_in_the_files(two: Two, module_lab: Lab, tmp_path: Path) -> None:
    a, b = two
    ips = [machine.networks["front"].ip for machine in two]
    secret = new_id()
    with module_lab.capture(tmp_path, network="front") as captures, a.capture(tmp_path / "lo", interface="lo") as lo:
        ping(a, b, count=20)
        a.run("bash", "-c", f"exec 3<>/dev/tcp/{ips[1]}/22; read -r -u 3 line; echo {secret} >&3", check=False)
        assert captures[0].flush()
        early = read(a, captures[0].file)
        a.run("ping", "-c", "2", "-i", "0.02", "127.0.0.1")
    assert [capture.file.name for capture in captures] == ["a.pcap", "b.pcap"]
    for capture in captures:
        assert capture.trouble == ""
        lines = read(a, capture.file)
        assert sum(f"IP {ips[0]} > {ips[1]}: ICMP echo request" in line for line in lines) == 20
        assert sum(f"IP {ips[1]} > {ips[0]}: ICMP echo reply" in line for line in lines) == 20
        assert any(secret in line for line in lines)
        assert any("SSH-2.0" in line for line in lines), "what the other end said"
    assert any(secret in line for line in early), "whoever flushes has it all before the end"
    said = "\n".join(read(a, lo.file))
    assert said.count("127.0.0.1 > 127.0.0.1: ICMP echo request") == 2
    # Of our own SSH, by which they come home, there is nothing.
    assert a.ip not in "\n".join(early)


def test_only_some_and_the_last_ones(two: Two, tmp_path: Path) -> None:
    a, b = two
    limit = 1 << 18
    # A megabyte in packets of a kilobyte: sixteen times as much as one half of the file has room for.
    with b.capture(tmp_path / "b.pcap", network="front", only="icmp", limit=limit) as capture:
        a.run("ping", "-n", "-c", "500", "-i", "0.004", "-s", "1000", "-W", "10", b.networks["front"].ip)
        a.run("bash", "-c", f"exec 3<>/dev/tcp/{b.networks['front'].ip}/22", check=False)
    lines = [line for line in read(a, capture.file) if " IP " in line]
    assert capture.packets + capture.lost == 1000
    assert capture.left_out == capture.packets - len(lines) > 0
    assert capture.lost or ", seq 500, " in lines[-1]
    assert all("ICMP" in line for line in lines)
    assert capture.file.stat().st_size <= limit
    assert f"the first {capture.left_out} left out" in capture.told()


def test_a_machine_that_was_listened_to_is_as_it_was(two: Two, tmp_path: Path) -> None:
    a, b = two
    a.run("true")
    a.note()
    with a.capture_all(tmp_path) as captures:
        ping(b, a)
        assert len(a.changes()) >= 2, "while it lasts there are processes, and that is why a reset ends it first"
    assert {capture.file.name for capture in captures} == {"front.pcap", "own-network.pcap"}
    assert captors(a) == ""
    assert a.changes() == []


def test_it_goes_on_when_the_machine_does(two: Two, tmp_path: Path) -> None:
    a, b = two
    with b.capture(tmp_path / "b.pcap", network="front", only="icmp") as capture:
        ping(a, b, count=3)
        b.kill()
        assert capture.packets == 6
        b.start()
        ping(a, b, count=2)
    assert capture.packets == len([line for line in read(a, capture.file) if " IP " in line]) == 10
    assert capture.trouble == ""


def test_what_is_cut_arrives_in_no_file(two: Two, module_lab: Lab, tmp_path: Path) -> None:
    """And SSH, by which packets come home, is never cut."""
    with module_lab.capture(tmp_path, only="icmp") as captures:
        with module_lab.inject(Partition(["a"], ["b"])):
            assert not module_lab.reachable("a", "b")
        assert captures[1].flush()
        assert captures[1].packets == 0
        assert module_lab.reachable("a", "b")
    assert captures[1].packets == 2
    assert [captors(machine) for machine in two] == ["", ""]


CAPTURE = """
import sys
from dataclasses import replace
from pathlib import Path
from pytest_machine.machine import Machine
from pytest_machine.plugins import Registry
from pytest_machine.store import Store
machine = Machine.load("b", store=Store(Path(sys.argv[1])), registry=Registry())
capture = machine.capture(sys.argv[2], network="front")
print("captures", flush=True)
sys.stdin.read()
"""


def test_nothing_outlives_who_is_killed(two: Two, tmp_path: Path) -> None:
    a, b = two
    file = tmp_path / "b.pcap"
    argv = [sys.executable, "-c", CAPTURE, str(b.record.store), str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"captures\n"
        assert captors(b)
        ping(a, b, count=5)

        def here() -> None:
            if sum("ICMP echo reply" in line for line in read(a, file)) < 5:
                raise NotYet("not all")

        wait(here, "What came before the end", timeout=20 * SLOWNESS)
        os.kill(owner.pid, signal.SIGKILL)

    def gone() -> None:
        # The shell that hears the orders ends behind it.
        if pids := captors(b) + b.run("pgrep", "-f", "[r]ead -r order", check=False).stdout:
            raise NotYet(pids)

    wait(gone, "The end of tcpdump", timeout=20 * SLOWNESS)
    assert sum("ICMP echo request" in line for line in read(a, file)) == 5


def test_by_who_is_not_root(two: Two, tmp_path: Path) -> None:
    """As on a host that is logged in to by a user who has sudo; on the interface by which he came."""
    a, b = two
    script = """
    useradd -m -s /bin/sh dev && echo 'dev ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/dev
    mkdir -p ~dev/.ssh && cp ~/.ssh/authorized_keys ~dev/.ssh/ && chown -R dev ~dev/.ssh
    """
    a.run("sh", "-c", script)
    address = replace(a.address, user="dev")
    known = a.record.directory / birth.KNOWN_HOSTS
    connection = SshConnection(address, key=a.record.directory / birth.KEY, known_hosts=known)
    try:
        with Capture(tmp_path / "a.pcap", lambda: connection, machine="a", only="port 9") as capture:
            capture.start()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((a.ip, 9), timeout=20)
            assert capture.flush()
            assert capture.packets == 2, "somebody asked, and was refused"
        assert captors(a) == ""
        assert sum(f"{a.ip}.9" in line for line in read(b, capture.file)) == 2
    finally:
        connection.close()


def test_what_cannot_be_captured_is_said(two: Two, module_lab: Lab, tmp_path: Path) -> None:
    a, _ = two
    with pytest.raises(BadSpec, match="'a' is not on a network 'back'"):
        a.capture(tmp_path / "x", network="back")
    with pytest.raises(BadSpec, match="No machine of this lab is on a network 'back'"):
        module_lab.capture(tmp_path, network="back")
    with pytest.raises(BadSpec, match="'all of it please' does not say which packets are meant") as said:
        a.capture(tmp_path / "x", only="all of it please")
    assert "syntax error" in str(said.value)
    a.run("mv", "/usr/bin/tcpdump", "/usr/bin/tcpdump.away")
    try:
        with pytest.raises(Unsupported, match="'a' lacks the program 'tcpdump'") as lacks:
            module_lab.capture(tmp_path)
    finally:
        a.run("mv", "/usr/bin/tcpdump.away", "/usr/bin/tcpdump")
    assert "apt-get" in str(lacks.value)
    for machine in two:
        assert captors(machine) == "", "all or none"
    assert list(tmp_path.glob("**/*.older")) == []


def test_networks_that_come_and_go(two: Two, module_lab: Lab, tmp_path: Path) -> None:
    a, b = two
    late = module_lab.network("late")
    with a.capture_all(tmp_path) as captures:
        for _ in range(2):
            there = b.connect(late).ip
            a.connect(late)
            a.run("ping", "-n", "-c", "2", "-i", "0.02", "-W", "10", there)
            for capture in captures:
                capture.flush()  # what nobody has read goes with its interface
            for machine in two:
                machine.disconnect(late)
    assert [capture.network for capture in captures] == ["front", "", "late"]
    assert sum("ICMP echo" in line for line in read(b, tmp_path / "late.pcap")) == 8
