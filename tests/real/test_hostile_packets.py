"""A hostile machine sends what it likes: no frame of it reaches a neighbour, or changes what the host or one knows.

Each attack is tried on the bridge that the host is on, and on a lab's network. The frames are looked for on the way to
the neighbour, and what host and neighbours believe afterwards is compared with the truth, and with what it was.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_machine import Net, Role, Topology
from pytest_machine.drivers.runc import firewall
from pytest_machine.errors import DriverError
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec
from tests.real.asked import on_host
from tests.real.frames import ATTACKS, ON_THE_HOSTS_BRIDGE, Build, Party, Scene

# A packet socket (17) for all protocols, and `struct sockaddr_ll`.
SEND = (
    'my ($device, @frames) = @ARGV; open(F, "/sys/class/net/$device/ifindex"); my $index = <F>;'
    'socket(S, 17, 3, 0x0300) or die "socket: $!";'
    'for (@frames, @frames) { send(S, pack("H*", $_), 0, pack("Snisccx8", 17, 3, $index, 0, 0, 6)) or die "send: $!" }'
)
LOOK = (
    "ip -o address | sed 's/ [a-z_]*lft.*//'; ip route show table all;"
    "ip -6 route show table all | sed 's/ expires [^ ]*//'; ip route show cache;"
    "ip -6 route show cache; cat /etc/resolv.conf"
)


@pytest.fixture(scope="module")
def hosts(module_lab: Lab) -> Lab:
    """Three machines on the host's own bridge, and three on a network of the lab."""
    topology = Topology(
        networks={"front": Net(ipv6=True)},
        roles={"host": Role(count=3), "lab": Role(count=3, networks=["front"])},
    )
    module_lab.create(
        *(
            Spec(name=name, driver="runc", networks=own, topology=topology, timeout=60)
            for name, own in topology.members.items()
        )
    )
    return module_lab


class Stage:
    """Three machines of one network, the first of which is hostile."""

    def __init__(self, lab: Lab, network: str) -> None:
        self.machines = [lab[f"{network}-{number}"] for number in (1, 2, 3)]
        self.device = "eth0" if network == "host" else _device(self.machines[0])
        self.parties = [_party(machine, self.device) for machine in self.machines]
        route = on_host("ip", "-o", "route", "get", self.machines[0].ip).split()
        self.home = route[route.index("dev") + 1]
        index = int(self.device.removeprefix("eth"))
        self.ports = [f"ptm{machine.id}{index:x}" for machine in self.machines]
        self.bridge = Path(f"/sys/class/net/{self.ports[0]}/master").resolve().name
        self.scene = Scene(
            own=self.parties[0],
            victim=self.parties[1],
            third=self.parties[2],
            gateway=route[route.index("src") + 1],
            gateway_mac=Path(f"/sys/class/net/{self.bridge}/address").read_text().strip(),
        )

    def believed(self) -> dict[str, str]:
        """Return what host and neighbours know of addresses and ways."""
        found = {"host": on_host("sh", "-c", LOOK.replace("cat /etc/resolv.conf", "true"))}
        found |= {machine.name: machine.run("sh", "-c", LOOK).stdout for machine in self.machines[1:]}
        found["way"] = re.sub(r"expires \S+", "", on_host("ip", "route", "get", self.machines[2].ip))
        return found

    def check_neighbours(self) -> None:
        """Compare every neighbour that host and machines know with the truth."""
        truth = {address: party.mac for party in self.parties for address in (party.ip, *party.all6)}
        truth[self.scene.gateway] = Path(f"/sys/class/net/{self.home}/address").read_text().strip()
        for machine in self.machines[1:]:
            for entry in json.loads(machine.run("ip", "-json", "neigh", "show", "dev", self.device).stdout or "[]"):
                assert "router" not in entry, f"{machine.name} takes {entry} for a router"
                assert entry.get("lladdr") in (None, truth.get(entry["dst"])), f"{machine.name} believes {entry}"
        for entry in json.loads(on_host("ip", "-json", "neigh")):
            if entry["dev"] in (self.bridge, *self.ports):
                assert entry["dev"] == self.home, f"the host knows {entry}"
                card = "02:74:" + ipaddress.ip_address(entry["dst"]).packed.hex(":")
                assert entry.get("lladdr") in (None, card), f"the host believes {entry}"
        table = json.loads(on_host("bridge", "-json", "fdb", "show", "br", self.bridge))
        for entry in table:
            for party, port in zip(self.parties, self.ports, strict=True):
                if entry["mac"] == party.mac:
                    assert entry["ifname"] == port, f"the bridge believes {entry}"

    def reach_each_other(self) -> None:
        """See to it that the neighbours have each other, and the host has them."""
        third = self.machines[2]
        assert self.neighbours_answer()
        assert third.run("hostname").stdout.strip() == third.name

    def neighbours_answer(self) -> bool:
        """Whether the victim reaches its neighbour by each of its addresses."""
        party = self.parties[2]
        targets = [party.ip, f"{party.link_local}%{self.device}", *([party.ip6] if party.ip6 else [])]
        pings = " && ".join(f"ping -n -c 1 -W 2 {target} >/dev/null" for target in targets)
        return self.machines[1].run("sh", "-c", pings, check=False).returncode == 0


def _device(machine: Machine) -> str:
    said = machine.run("ip", "-o", "address", "show", "to", machine.networks["front"].ip).stdout
    return said.split()[1]


def _party(machine: Machine, device: str) -> Party:
    said = machine.run("ip", "-json", "address", "show", "dev", device).stdout
    (card,) = json.loads(said)
    by = {(each["family"], each["scope"]): each["local"] for each in card["addr_info"]}
    return Party(card["address"], by["inet", "global"], by["inet6", "link"], by.get(("inet6", "global"), ""))


@pytest.fixture(scope="module", params=["host", "lab"])
def stage(hosts: Lab, request: pytest.FixtureRequest) -> Stage:
    made = Stage(hosts, request.param)
    # A new address of IPv6 is not used before the kernel has asked whether it is free.
    hosts.wait_until(made.neighbours_answer, "the neighbours")
    return made


@pytest.fixture
def arrived(stage: Stage) -> Iterator[socket.socket]:
    """What goes out to the victim, as the host's end of its cable sees it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        ear.bind((stage.ports[1], 3))
        ear.setblocking(False)
        yield ear


def _heard(ear: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            frame, where = ear.recvfrom(65536)
        except BlockingIOError:
            return
        if where[2] == socket.PACKET_OUTGOING:
            yield frame


def _attack(stage: Stage, build: Build, ear: socket.socket) -> None:
    before = stage.believed()
    list(_heard(ear))
    frames = list(build(stage.scene))
    stage.machines[0].run("perl", "-e", SEND, stage.device, *(frame.hex() for frame in frames))
    assert stage.believed() == before
    stage.check_neighbours()
    # Behind the cards and the tags, which the kernel keeps beside a frame.
    reached = [frame.hex() for frame in _heard(ear) for sent in frames if sent[-40:] in frame]
    assert not reached, "a frame reached the victim"
    stage.reach_each_other()
    stage.check_neighbours()


@pytest.mark.parametrize("name", ATTACKS)
def test_no_frame_changes_what_others_believe(stage: Stage, arrived: socket.socket, name: str) -> None:
    _attack(stage, ATTACKS[name], arrived)


@pytest.mark.parametrize("name", ON_THE_HOSTS_BRIDGE)
def test_nobody_speaks_from_anothers_address(hosts: Lab, name: str) -> None:
    stage = Stage(hosts, "host")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        ear.bind((stage.ports[1], 3))
        ear.setblocking(False)
        _attack(stage, ON_THE_HOSTS_BRIDGE[name], ear)


@pytest.mark.usefixtures("usable")
def test_rules_that_are_refused_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a kernel without nftables for bridges goes without them."""
    with pytest.raises(DriverError, match="'nft' failed"):
        firewall._filter_frames("table bridge ptm-test { nonsense }\n")
    monkeypatch.setattr(firewall, "_PROBE", "table nonsense ptm-probe {\n}\n")
    firewall._filter_frames("table bridge ptm-test { nonsense }\n")
