"""Reset: whatever was done to a machine, its engine and its host, the next one to use it sees a fresh machine."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytest_machine.driver import SupportsReset
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import State
from pytest_machine.store import Store
from tests.conftest import SLOWNESS

from .asked import on_host, pid_of, spec

# What a test can do to a machine's host, each in its own way; a shell in the machine does it.
HOST = {
    "a file": "echo mine > /etc/mine",
    "a file in a folder of the image": "echo mine > /usr/bin/docker-mine",
    "a change to a file": "echo 'PATH=/' >> /etc/profile",
    "a change that keeps size and time": "cd /run; touch -r /etc/issue t; tr D X </etc/issue >i; cat i >/etc/issue;"
    " touch -r t /etc/issue; rm t i",
    "a mode": "chmod 777 /etc/shadow",
    "an owner": "chown daemon /root",
    "a file gone": "rm /etc/motd",
    "a folder gone": "rm -rf /etc/ssh/sshd_config.d",
    "a link": "ln -sf /dev/null /etc/resolv.conf",
    "a file beside Docker's": "touch /var/lib/docker/mine",
    "a file in memory": "echo mine > /dev/shm/mine",
    "a file in /run": "echo mine > /run/mine",
    "a process": "nohup perl -e 'sleep 1000' >/dev/null 2>&1 &",
    "a process that is called as the init's own": "nohup sleep 1000 >/dev/null 2>&1 &",
    "another sshd": "/usr/sbin/sshd -p 2222",
    "a mount": "mount -t tmpfs mine /mnt",
    "a mount of a folder": "mount --bind /etc /srv",
    "a filter rule": "iptables -I INPUT -p tcp --dport 9 -j DROP",
    "a translation": "iptables -t nat -I PREROUTING -p tcp --dport 9 -j REDIRECT",
    "a route": "ip route add 10.99.0.0/24 dev eth0",
    "a routing rule": "ip rule add from 10.99.0.0/24 lookup 99",
    "an address": "ip addr add 10.99.0.1/24 dev eth0",
    "an interface": "ip link add mine type bridge",
    "another MTU": "ip link set eth0 mtu 1300",
    "a setting": "sysctl -q -w net.ipv4.tcp_syncookies=0",
    "a host name": "hostname mine",
    "shared memory": """perl -e 'shmget(77, 4096, 01600) // die "$!"'""",
    "a control group": "mkdir /sys/fs/cgroup/memory/mine 2>/dev/null || mkdir /sys/fs/cgroup/mine",
    "an engine's option": """echo '{"debug": true}' > /etc/docker/daemon.json; service docker restart""",
    "another engine process": "service docker restart",
}

# What is seen by a fact of its own: what is done, and how that fact's name begins. One reset undoes all of it.
FACTS = {
    "a change that keeps size and time": (
        (
            "t=$(stat -c %y /etc/hosts); printf X | dd of=/etc/hosts conv=notrunc bs=1 count=1 status=none;"
            ' touch -d "$t" /etc/hosts'
        ),
        "file /etc/hosts",
    ),
    "a change to a file in /run": ("echo 1 > /run/sshd.pid", "file /run/sshd.pid"),
    "a file where Docker looks for plugins": (
        "mkdir /run/docker/plugins; echo tcp://127.0.0.1:9 > /run/docker/plugins/mine.spec",
        "file /run/docker/plugins/mine.spec",
    ),
    "a folder among Docker's volumes": (
        "mkdir /var/lib/docker/volumes/mine",
        "file /var/lib/docker/volumes/mine",
    ),
    "a process that is stopped": ("kill -STOP $(pgrep -o sshd)", "process "),
    "a priority": ("renice 19 -p $(pgrep -o dockerd)", "process "),
    "a rule in the old tables of IPv6": (
        "ip6tables-legacy -A INPUT -p tcp --dport 9 -j DROP || ip6tables -A INPUT -p tcp --dport 9 -j DROP",
        "rule ",
    ),
    "a route of IPv6": ("ip -6 route add blackhole 2001:db8::/32", "route -6 2001:db8::/32"),
    "a neighbour": (
        "ip neigh replace 10.99.99.99 lladdr 02:00:00:00:00:01 nud permanent dev eth0",
        "neighbour 10.99.99.99 eth0",
    ),
    "a queue": ("tc qdisc add dev eth0 ingress", "queue eth0 ffff:fff1 ingress"),
    "a link that hears all": ("ip link set eth0 promisc on", "link eth0"),
    "a setting of another link": (
        "sysctl -q -w net.ipv4.conf.docker0.proxy_arp=1",
        "setting net/ipv4/conf/docker0/proxy_arp",
    ),
    "a setting of its shared memory": ("sysctl -q -w kernel.shmmax=12345", "setting kernel/shmmax"),
    "a limit for all containers": (
        (
            "for group in /sys/fs/cgroup/pids /sys/fs/cgroup; do"
            " if mkdir -p $group/docker 2>/dev/null; then echo 5 > $group/docker/pids.max; exit; fi; done; exit 1"
        ),
        "group ",
    ),
}
WORK = HOST | {name: script for name, (script, _) in FACTS.items()}


KEPT = "a change that keeps size and time"
HUNG = "pkill -STOP -x containerd"


def seen_at_a_glance(machine: Machine) -> bool:
    driver = machine.driver
    assert isinstance(driver, SupportsReset)
    return driver.is_touched(machine.record)


def container(machine: Machine, image: str) -> None:
    machine.docker.containers.run(image, ["sleep", "1000"], detach=True, name="mine", ports={"80/tcp": None})


def volume(machine: Machine, image: str) -> None:
    machine.docker.volumes.create("mine")
    machine.docker.containers.run(image, ["sh", "-c", "echo x > /v/x"], volumes={"mine": {"bind": "/v"}}, remove=True)


def network(machine: Machine, image: str) -> None:
    machine.docker.networks.create("mine")
    machine.docker.containers.run(image, ["sleep", "1000"], detach=True, network="mine")


def swarm(machine: Machine, image: str) -> None:
    machine.docker.swarm.init(advertise_addr=machine.ip)
    machine.docker.networks.create("mine", driver="overlay", attachable=True)
    machine.docker.containers.run(image, ["sleep", "1000"], detach=True, network="mine")


def built(machine: Machine, image: str) -> None:
    machine.docker.containers.create(image, ["true"], name="base").commit("mine", "1")


def tagged(machine: Machine, image: str) -> None:
    machine.docker.images.get(image).tag("mine", "2")


ENGINE: dict[str, Callable[[Machine, str], None]] = {
    "a container": container,
    "a volume": volume,
    "a network": network,
    "a swarm": swarm,
    "an image": built,
    "a tag": tagged,
}


@pytest.fixture(scope="module")
def shared(module_lab: Lab, busybox: Callable[..., str]) -> Machine:
    """The machine that is made dirty, with an image that belongs to it, and beside it one that nobody touches."""
    machine, fresh = module_lab.create(spec("dirty-7"), spec("fresh-7"))
    busybox(machine, fresh)
    machine.note()
    fresh.note()
    return machine


def pictured(machine: Machine) -> dict[str, list[str]]:
    """Return what somebody in the machine sees of it, by its own means, without what no two machines share."""
    scripts = {
        "files": "find / -xdev -path /var/log -prune -o -path /var/lib/docker -prune -o -type d -printf '%p %m %u\\n' "
        "-o -printf '%p %m %u %s\\n' | grep -v server | sort",
        "contents": "cat /etc/passwd /etc/profile /etc/issue /etc/resolv.conf /etc/hostname /etc/docker/daemon.json",
        "memory": "find /run /dev/shm -xdev -not -path '/run/docker/[^p]*' -not -path '/run/containerd/*' | sort;"
        " ls /run/docker/plugins; [ $(cat /run/sshd.pid) = $(pgrep -o sshd) ] || echo another pid",
        "processes": "ps -eo args --no-headers | grep -vE '^(ps|sort|sh|grep|sshd: root|sleep [0-9]+[.])' | sort;"
        " ps -eo stat,comm --no-headers | grep ^T; ps -eo ni,comm --no-headers | grep -v ' 0 ' | sort;"
        " cat /proc/$(pgrep -o dockerd)/oom_score_adj",
        "mounts": "cut -d' ' -f2,3 /proc/mounts | sort",
        "rules": "iptables-save | grep -v '^[#:]'",
        "links": "ip -br addr | sed 's/@.*UP/ UP/'; ip route; ip rule; ip -6 route | grep -v 'proto kernel';"
        " ip neigh show nud permanent; tc qdisc show; cat /sys/class/net/eth0/flags",
        "settings": "sysctl -a 2>/dev/null | grep -E '^(net|fs[.]mqueue|kernel[.](shm|msg|sem))'"
        " | grep -vE 'conntrack_count|stable_secret'",
        "ipc": "tail -n +2 /proc/sysvipc/shm | wc -l",
        "host name": "hostname",
        "groups": "find /sys/fs/cgroup -mindepth 2 -maxdepth 2 -type d -not -name docker | sort;"
        " cat /sys/fs/cgroup/pids/docker/pids.max /sys/fs/cgroup/docker/pids.max 2>/dev/null | grep -v max",
        "engine": "docker ps -aq; docker images --format '{{.Repository}}'; docker volume ls -q; "
        "docker network ls --format '{{.Name}}' | sort; docker info --format '{{.Swarm.LocalNodeState}} {{.Debug}}'",
        "docker": "ls /var/lib/docker /var/lib/docker/volumes",
    }
    hide = re.compile(rf"{re.escape(machine.ip)}\b|{machine.name}|02:74(:\w\w)+|fe80::\S+")
    return {
        name: hide.sub("-", machine.run("sh", "-c", script, check=False).stdout).splitlines()
        for name, script in scripts.items()
    }


@pytest.mark.parametrize("dirt", [pytest.param(script, id=name) for name, script in HOST.items()])
def test_what_was_done_to_the_host_is_seen_and_undone(shared: Machine, dirt: str) -> None:
    before = shared.id, shared.name, shared.ip
    shared.run("sh", "-c", dirt)
    assert shared.changes()
    shared.reset()
    assert shared.changes() == []
    assert (shared.id, shared.name, shared.ip) == before


def test_each_work_is_seen_by_a_fact_of_its_own(shared: Machine) -> None:
    known: set[str] = set()
    for name, (script, fact) in FACTS.items():
        shared.run("sh", "-c", script)
        seen = set(shared.changes())
        assert [each for each in seen - known if each.startswith(fact)], name
        known |= seen
        if "process" in fact:  # SSH may be what was stopped; and a process has one fact for all that it may take
            shared.reset()
            known = set()
    shared.reset()
    assert shared.changes() == []


@pytest.mark.parametrize("dirt", [pytest.param(work, id=name) for name, work in ENGINE.items()])
def test_what_was_done_to_the_engine_is_undone_without_another_boot(
    shared: Machine, busybox: Callable[..., str], dirt: Callable[[Machine, str], None]
) -> None:
    if not shared.docker.images.list():  # an earlier reset laid the machine again as it was born
        busybox(shared)
        shared.note()
    booted = pid_of(shared)
    dirt(shared, "busybox:latest")
    assert not seen_at_a_glance(shared)
    shared.reset()
    assert pid_of(shared) == booted
    assert [image.tags for image in shared.docker.images.list()] == [["busybox:latest"]]
    assert shared.docker.containers.list(all=True) == []
    assert shared.docker.volumes.list() == []
    assert len(shared.docker.networks.list()) == 3
    assert shared.docker.info()["Swarm"]["LocalNodeState"] == "inactive"


@pytest.mark.parametrize("script", [HOST["a file"], HOST["a file gone"], FACTS[KEPT][0], HUNG])
def test_what_is_seen_at_a_glance(shared: Machine, script: str) -> None:
    assert not seen_at_a_glance(shared)
    shared.run("sh", "-c", script)
    assert seen_at_a_glance(shared)
    shared.reset()


def test_an_untouched_machine_is_not_booted_again(shared: Machine) -> None:
    """Nor one that was laid again, with a setting changed beside a file: what it boots with is known then."""
    shared.run("sh", "-c", f"{HOST['a file']}; {HOST['a setting']}")
    shared.reset()
    assert shared.run("sysctl", "-n", "net.ipv4.tcp_syncookies").stdout == "1\n"
    booted = pid_of(shared)
    shared.run("cat", "/etc/passwd")
    shared.reset()
    assert pid_of(shared) == booted
    shared.run("sh", "-c", HOST["a setting"])
    shared.reset()
    assert pid_of(shared) != booted


def test_one_that_is_on_other_networks_than_it_was(lab: Lab) -> None:
    """Its settings are others then, as many as its interfaces have."""
    a, _ = lab.create(spec("a", networks=("front",)), spec("b", networks=("back",)))
    a.note()
    lab.attach("a", "back")
    a.run("sh", "-c", HOST["a file"])
    a.reset()
    assert a.changes() == []
    assert lab.reachable("a", "b")


def test_the_hosts_own_rules_come_back_with_it(lab: Lab) -> None:
    """A firewall's reload has swept them away, or the host has booted."""
    (machine,) = lab.create(spec("a", subnet="10.211.211.0/24"))
    machine.note()
    (bridge,) = re.findall(r"dev (\S+)", on_host("ip", "route", "show", "10.211.211.0/24"))
    before = on_host("nft", "--stateless", "list", "table", "ip", bridge)
    on_host("nft", "delete", "table", "ip", bridge)
    machine.run("sh", "-c", HOST["a file"])
    machine.reset()
    assert on_host("nft", "--stateless", "list", "table", "ip", bridge) == before


def test_its_old_interface_is_gone_and_never_in_the_way(lab: Lab) -> None:
    """Also one whose namespace is held by somebody, as by a connection that cannot be closed."""
    (machine,) = lab.create(spec("a"))
    machine.note()
    with Path(f"/proc/{pid_of(machine)}/ns/net").open():
        machine.run("sh", "-c", HOST["a file"])
        machine.reset()
        ours = [path.name for path in Path("/sys/class/net").glob(f"ptm{machine.id}*")]
        assert ours == [f"ptm{machine.id}0"]
        assert machine.docker.ping()
        assert machine.run("true").returncode == 0


def test_who_breaks_it_meanwhile_is_not_waited_for(shared: Machine) -> None:
    """They hold its lab, and want the machine; a reset that held the machine while it waits for the lab never ends."""
    taken: list[str] = []

    def want(machine: Machine) -> None:
        def take() -> None:
            with Store(machine.record.directory.parent.parent).lock(machine.name, timeout=20):
                taken.append(machine.name)

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()

    before = shared.equip, shared.booted
    try:
        shared.equip = shared.booted = want
        shared.run("sh", "-c", HOST["a file"])
        shared.reset()
    finally:
        shared.equip, shared.booted = before
    assert taken == [shared.name] * 2


@pytest.mark.parametrize("end", ["stop", "kill", "pause"])
def test_a_machine_that_does_not_run_is_brought_back(shared: Machine, end: str) -> None:
    getattr(shared, end)()
    shared.reset()
    assert shared.state is State.RUNNING
    assert shared.docker.ping()


def test_a_wrecked_machine_is_brought_back(shared: Machine) -> None:
    shared.run("sh", "-c", "rm -rf --no-preserve-root /etc /usr /var/lib 2>/dev/null", check=False, timeout=60)
    shared.reset()
    assert shared.run("id", "-un").stdout == "root\n"
    assert shared.docker.ping()


def test_keys_and_certificates_stay(shared: Machine) -> None:
    files = ("server.pem", "id_ed25519", "known_hosts", "cert.pem")
    before = [(shared.record.directory / name).read_bytes() for name in files]
    shared.run("touch", "/etc/mine")
    shared.reset()
    assert [(shared.record.directory / name).read_bytes() for name in files] == before


def test_after_any_work_a_machine_is_as_a_fresh_one(
    shared: Machine, module_lab: Lab, busybox: Callable[..., str], rounds: Callable[[int, int], int]
) -> None:
    fresh = module_lab["fresh-7"]

    @settings(
        max_examples=rounds(60, 4),
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(st.lists(st.sampled_from([*WORK, *ENGINE]), min_size=1, max_size=5, unique=True))
    def work(dirt: list[str]) -> None:
        provide(shared)
        shared.note()
        for name in dirt:
            if name in WORK:
                shared.run("sh", "-c", WORK[name], check=False, timeout=20 * SLOWNESS)
            else:
                ENGINE[name](shared, "busybox:latest")
        shared.reset()
        provide(shared)
        seen = pictured(shared)
        assert {name: sorted({*seen[name]} ^ {*expected[name]}) for name in seen if seen[name] != expected[name]} == {}

    def provide(machine: Machine) -> None:
        """Put the image there unless it is: a machine that was laid again has what it was born with."""
        if not machine.docker.images.list():
            busybox(machine)

    fresh.reset()
    expected = pictured(fresh)
    work()
