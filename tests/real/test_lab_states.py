"""A lab whose machines are stopped, killed, frozen, wrecked or gone: it asks, and works on with the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_machine import engine
from pytest_machine.errors import NotRunning, UnknownMachine
from pytest_machine.faults import network, power
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec, State
from tests.conftest import SLOWNESS


def _spec(name: str, *networks: str, **options: str) -> Spec:
    return Spec(name=name, driver="runc", networks=networks, options=options)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    assert took < seconds * SLOWNESS, f"it took {took:.1f} s"


def _knows(machine: Machine) -> set[str]:
    lines = machine.run("cat", "/etc/hosts").stdout.splitlines()
    return {line.split()[1] for line in lines if not line.startswith(("127.", "::1"))}


def _wreck_shell(machine: Machine) -> None:
    machine.run("sh", "-c", "echo 'exit 3' >/bin/broken && chmod 755 /bin/broken && usermod -s /bin/broken root")
    machine.close()  # a connection that is open knows the shell of before


def _kill_sshd(machine: Machine) -> None:
    machine.run("sh", "-c", "mv /usr/sbin/sshd /usr/sbin/sshd.off && pkill sshd", check=False)
    machine.close()


def _silence_sshd(machine: Machine) -> None:
    machine.run("iptables", "-I", "INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP", check=False)
    machine.close()


WAYS: dict[str, Callable[[Machine], object]] = {
    "stopped": lambda machine: machine.stop(),
    "killed": lambda machine: machine.kill(),
    "paused": lambda machine: machine.pause(),
    "destroyed": lambda machine: machine.destroy(),
    "gone behind our back": lambda machine: machine.driver.destroy(machine.record),
    "without a shell": _wreck_shell,
    "with a dead sshd": _kill_sshd,
    "with a silent sshd": _silence_sshd,
    "with a full disk": lambda machine: machine.run(
        "sh", "-c", "yes >/fill; while echo x >/etc/f$((n+=1)); do :; done"
    ),
    "with a read-only /etc": lambda machine: machine.run(
        "sh", "-c", "mount -B /etc /etc; mount -o remount,bind,ro /etc"
    ),
}


@pytest.mark.parametrize("network", [(), ("front",)], ids=["the driver's network", "a lab's network"])
@pytest.mark.parametrize("way", list(WAYS))
def test_a_healthy_machine_is_made_whatever_state_its_siblings_are_in(
    lab: Lab, way: str, network: tuple[str, ...]
) -> None:
    options = {"disk": "64m"} if way == "with a full disk" else {}
    _, sick = lab.create(_spec("well", *network), _spec("sick", *network, **options))
    WAYS[way](sick)
    with _within(4 if way != "with a silent sshd" else 9):
        (new,) = lab.create(_spec("new", *network))
    gone = way in ("destroyed", "gone behind our back")
    assert ("sick" in lab) is not gone
    assert {"well", "new"} <= _knows(lab["well"])
    assert {"well"} <= _knows(new)
    if gone:
        assert "sick" not in _knows(new)
        (again,) = lab.create(_spec("sick", *network))
        assert lab["sick"] is again
        assert "sick" in _knows(new)


@pytest.mark.parametrize("way", ["stopped", "killed", "paused"])
def test_one_that_comes_back_is_told_what_it_missed(lab: Lab, way: str) -> None:
    a, b = lab.create(_spec("a"), _spec("b"))
    WAYS[way](b)
    (c,) = lab.create(_spec("c"))
    a.destroy()
    (b.resume if way == "paused" else b.start)()
    assert _knows(b) == {"b", "c"}
    assert _knows(c) == {"b", "c"}


@pytest.mark.parametrize("way", ["destroyed", "gone behind our back", "removed from the store"])
def test_one_that_is_gone_leaves_its_lab_and_says_so_at_once(lab: Lab, way: str, tmp_path: Path) -> None:
    a, b = lab.create(_spec("a"), _spec("b"))
    b.run("true")
    assert b.docker.ping()
    if way == "removed from the store":  # what `rm` in another shell does
        other = Machine.load("b", store=lab.store, registry=lab.registry)
        other.destroy()
    else:
        WAYS[way](b)
    uses: dict[str, Callable[[], object]] = {
        "run": lambda: b.run("true"),
        "put": lambda: b.put(b"", "/x"),
        "get": lambda: b.get("/etc/hosts", tmp_path / "x"),
        "env": lambda: b.env,
        "docker": lambda: b.docker,
        "capture": lambda: b.capture(tmp_path / "b.pcap"),
        "provision": b.provision,
        "regenerate_certs": b.regenerate_certs,
        "renew": b.renew,
        "start": b.start,
        "wait_for": lambda: b.wait_for(port=22),
    }
    for name, use in uses.items():
        with _within(0.3), pytest.raises(NotRunning, match="'b' was destroyed"):
            pytest.fail(f"{name} of a machine that is gone returned {use()!r}")
    with _within(5):
        lab.mend()
        assert [machine.name for machine in lab] == ["a"]
        with pytest.raises(UnknownMachine, match="'b' in this lab: it was destroyed"):
            _ = lab["b"]
        with lab.capture(tmp_path) as captures, lab.environment():
            assert len(captures) == 1
        assert not lab.reachable(a, b)
        assert lab.draw(tmp_path / "lab.svg").read_text().count(">b<") == 0
        with lab.inject(network.Loss(0.5, "a")):
            pass
        lab.heal()
        b.destroy()
    assert _knows(a) == {"a"}


def test_an_address_that_is_handed_out_again_is_not_taken_for_the_old_machine(lab: Lab) -> None:
    a, b = lab.create(_spec("a"), _spec("b"))
    b.run("true")
    b.docker.images.list()
    b.driver.destroy(b.record)
    (c,) = lab.create(_spec("c"))
    assert c.ip == b.ip, "the freed address is the next one"
    c.docker.api.import_image_from_data(b"", repository="c")
    for use in (lambda: b.run("true"), lambda: b.docker, b.stop, b.kill, lambda: b.env):
        with pytest.raises(NotRunning, match="'b' was destroyed"):
            use()
    b.destroy()
    assert c.state is State.RUNNING
    assert engine.ping(c.address, certs=c.record.directory)
    assert _knows(a) == {"a", "c"}


def test_faults_heal_for_those_that_are_left(lab: Lab) -> None:
    a, b, c = lab.create(*(_spec(name, "front") for name in "abc"))
    cut = lab.inject(network.Partition(["a"], ["b", "c"]))
    dead = lab.inject(power.Kill("b"))
    frozen = lab.inject(power.Pause("c"))
    b.destroy()
    c.driver.destroy(c.record)
    with _within(10):
        for injection in (dead, frozen, cut):
            injection.heal()
        lab.heal()
    assert lab.faults == []
    (b2,) = lab.create(_spec("b", "front"))
    assert lab.reachable(a, b2)


def test_links_and_a_wrecked_sibling(lab: Lab) -> None:
    """What links and faults do at a sibling is bookkeeping when another machine comes."""
    a, b = lab.create(_spec("a", "front"), _spec("b", "front"))
    with lab.inject(network.Loss(0.01, "a")):
        _wreck_shell(b)
        lab.attach(a, "back")
        lab.detach(a, "back")
    (c,) = lab.create(_spec("c", "front"))
    assert lab.reachable(a, c)
