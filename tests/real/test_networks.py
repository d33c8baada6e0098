"""Real packets between machines, between their containers, and past a host's own firewall."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from tests.conftest import alone
from tests.outside import Outside
from tests.real.asked import on_host, spec, specs


def _reaches(here: Machine, there: str, *, seconds: float = 5) -> bool:
    """Whether a TCP connection to its SSH comes about, and the other end says something."""
    script = f"exec 3<>/dev/tcp/{there}/22 && read -r line <&3 && [[ $line == SSH* ]]"
    return here.run("timeout", str(seconds), "bash", "-c", script, check=False).returncode == 0


def test_networks_of_a_lab(lab: Lab) -> None:
    """Who shares a network reaches the other by name, over it; who does not, does not."""
    lab.create(
        spec("web", networks=("front",)),
        spec("app", networks=("front", "back")),
        spec("db", networks=("back",)),
        spec("lonely"),
    )
    web, app, db, lonely = lab
    assert set(app.networks) == {"front", "back"}
    for here, there, network in ((web, app, "front"), (app, web, "front"), (app, db, "back"), (db, app, "back")):
        asked = here.run("getent", "hosts", there.name).stdout.split()[0]
        assert asked == there.networks[network].ip
        before = _received(there, asked)
        assert _reaches(here, there.name)
        assert _received(there, asked) > before
    for here, there in ((web, db), (db, web), (web, lonely), (lonely, web)):
        assert here.run("getent", "hosts", there.name, check=False).returncode != 0
        for address in (there.ip, *(link.ip for link in there.networks.values())):
            assert not _reaches(here, address, seconds=0.7), f"'{here.name}' reaches '{there.name}' at {address}"
    # Not by the host either, which is their router.
    gateway = web.run("sh", "-c", "ip route get 192.0.2.1 | sed -n 's/.* via \\([^ ]*\\) .*/\\1/p'").stdout.strip()
    web.run("ip", "route", "replace", f"{db.networks['back'].ip}/32", "via", gateway)
    web.run("ip", "route", "replace", f"{db.ip}/32", "via", gateway)
    assert not _reaches(web, db.networks["back"].ip, seconds=0.7)
    assert not _reaches(web, db.ip, seconds=0.7)

    # One more, later; and what was cut is cut at once.
    (late,) = lab.create(spec("late", networks=("back",)))
    assert _reaches(late, "db")
    assert _reaches(db, "late")
    app.disconnect(lab.networks["back"])
    assert set(app.networks) == {"front"}
    assert not _reaches(db, app.name, seconds=0.7)
    # A boot changes nothing of it.
    ip = web.networks["front"].ip
    web.restart()
    assert web.networks["front"].ip == ip
    assert _reaches(app, "web")
    assert not _reaches(web, db.ip, seconds=0.7)


def _received(machine: Machine, ip: str) -> int:
    """Return how many packets came in at the interface that has the address."""
    script = f"d=$(ip -o addr show to {ip} | awk '{{print $2}}'); cat /sys/class/net/$d/statistics/rx_packets"
    return int(machine.run("sh", "-c", script.replace("awk '{print $2}'", "cut -d' ' -f2")).stdout)


def test_a_machine_cannot_take_anothers_address(lab: Lab) -> None:
    thief, owner, third = lab.create(*specs("thief owner third"))
    if f"table bridge {_bridge_of(thief)}" not in on_host("nft", "list", "tables"):
        pytest.skip("this kernel has no nftables for bridges")
    assert _reaches(third, owner.ip)
    # By IPv6 as well: a ping in its own name arrives, one in the other's does not.
    own, others, target = (_link_local(machine) for machine in (thief, owner, third))
    thief.run("ip", "addr", "add", f"{others}/128", "dev", "eth0", "nodad")
    # New addresses are not used before the kernel has asked whether anybody else has them.
    once = ("ping", "-n", "-c", "1", "-W", "1", "-I", f"{own}%eth0", f"{target}%eth0")
    lab.wait_until(lambda: thief.run(*once, check=False).returncode == 0, "IPv6 between them")
    heard = "".join(f"ip6 saddr {source} icmpv6 type echo-request counter\n" for source in (own, others))
    chain = f"chain c {{\ntype filter hook input priority 0;\n{heard}}}"
    third.run("nft", "-f", "-", input=f"table ip6 heard {{\n{chain}\n}}\n")
    for source in (own, others):
        thief.run(
            "ping", "-n", "-c", "3", "-i", "0.1", "-W", "1", "-I", f"{source}%eth0", f"{target}%eth0", check=False
        )
    assert re.findall(r"counter packets (\d+)", third.run("nft", "list", "table", "ip6", "heard").stdout) == ["3", "0"]
    thief.run("ip", "addr", "add", f"{owner.ip}/32", "dev", "eth0")
    # It shouts that the address is its own, and nobody hears it.
    thief.run("sh", "-c", "(sleep 0.2; ip link set eth0 address 02:00:00:00:00:99) >/dev/null 2>&1 &")
    time.sleep(0.5)
    before = owner.docker.info()["ID"]
    for _ in range(3):
        assert _reaches(third, owner.ip)
        assert owner.run("hostname").stdout == "owner\n"
    owner.connection.close()
    assert owner.run("hostname").stdout == "owner\n"
    assert owner.docker.info()["ID"] == before


def _link_local(machine: Machine) -> str:
    said = machine.run("ip", "-o", "-6", "address", "show", "dev", "eth0", "scope", "link").stdout
    return said.split()[3].partition("/")[0]


def _bridge_of(machine: Machine) -> str:
    route = on_host("ip", "-o", "route", "get", machine.ip).split()
    return route[route.index("dev") + 1]


@pytest.fixture
def docker_like_firewall(usable: None) -> Iterator[None]:
    """A FORWARD chain that drops what nobody lets pass, as a host's own Docker leaves it; afterwards as it was."""
    if not shutil.which("iptables"):
        pytest.skip("this host has no iptables")
    before = on_host("iptables-save")
    was_there = "*filter" in before
    policy = on_host("iptables", "-S", "FORWARD").splitlines()[0].split()[2]
    on_host("iptables", "-P", "FORWARD", "DROP")
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    called = bridged.read_text() if bridged.exists() else ""
    if called:
        bridged.write_text("1")
    try:
        yield
    finally:
        if called:
            bridged.write_text(called)
        on_host("iptables", "-P", "FORWARD", policy)
        if not was_there:
            # Asking for the chain has made the table. Empty and harmless, but it was not there.
            subprocess.run(["nft", "delete", "table", "ip", "filter"], capture_output=True, check=False)


@alone  # the firewall is everybody's on this host
def test_beside_a_firewall_that_drops(docker_like_firewall: None, lab: Lab) -> None:
    quiet = _no_machines()
    rules = on_host("iptables-save", "-t", "filter")
    ours_before = on_host("iptables", "-S", "FORWARD")
    a, b = lab.create(*specs("a b"))
    assert on_host("iptables", "-S", "FORWARD").startswith("-P FORWARD DROP")
    assert _reaches(a, "b")
    assert _reaches(b, "a")
    # The outside: a network namespace behind this host, to which it forwards.
    outside = Outside()
    with outside as address:
        answer = a.run("timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/{address}/7 && cat <&3").stdout
        assert answer == "from outside\n"
        # Nobody comes in from there.
        probe = [
            "nsenter",
            f"--net=/run/netns/{outside.namespace}",
            "timeout",
            "2",
            "bash",
            "-c",
            f"exec 3<>/dev/tcp/{a.ip}/22",
        ]
        assert subprocess.run(probe, capture_output=True, check=False).returncode != 0
    lab.destroy()
    if quiet and _no_machines():  # and no rules that are another machine's, which comes or goes
        assert on_host("iptables", "-S", "FORWARD") == ours_before
        assert _uncounted(on_host("iptables-save", "-t", "filter")) == _uncounted(rules)


def _no_machines() -> bool:
    return ": ptm" not in on_host("ip", "-o", "link")


def _uncounted(rules: str) -> list[str]:
    """Return the rules without comments' times and without counters."""
    return [line.partition("[")[0] for line in rules.splitlines() if not line.startswith("#")]
