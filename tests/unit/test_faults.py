"""Faults as values, what they do to packets, and the scripts that do it; schedules."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pytest_machine
from pytest_machine import fault, schedule
from pytest_machine.errors import BadSpec, MachineError, UnknownMachine
from pytest_machine.faults.clock import ClockSkew, moved
from pytest_machine.faults.disk import DiskSlow
from pytest_machine.faults.engine import EngineHang
from pytest_machine.faults.network import (
    Corrupt,
    Delay,
    DnsFailure,
    Duplicate,
    Loss,
    NetworkFault,
    Partition,
    Rate,
    Reorder,
    read,
)
from pytest_machine.faults.network.script import UNDO, Effect, Place, holding, program, render
from pytest_machine.faults.power import Kill, Pause
from pytest_machine.faults.resources import CpuStress, DiskFull, MemoryPressure
from pytest_machine.topology import halves, isolate

RENDERED = Path(__file__).parents[1] / "rendered"
NAMES = ["a", "b", "c"]
ADDRESSES = {
    "a": {"": ["10.213.0.2"], "back": ["10.214.0.2"]},
    "b": {"": ["10.213.0.3"], "back": ["10.214.0.3", "fd00::3"]},
    "c": {"": ["10.213.0.4"]},
}
HERE = Place(name="a", devices={"": "eth0", "back": "eth1"}, controller="10.213.0.1")
PLAIN = replace(HERE, netem=False, holds=True)
"""A kernel without netem, as many hosts of containers have it."""


class Combined(NetworkFault):
    """Several effects at once, as those of a declared link."""

    def effects(self, machines: Sequence[str]) -> list[Effect]:
        each = Effect(delay=0.03, jitter=0.01, loss=0.1, duplicate=0.2, rate=10_000_000)
        return [replace(each, sender=here, receiver=there) for here, there in (("a", "b"), ("b", "a"))]


SCRIPTS: dict[str, tuple[Place, list[NetworkFault]]] = {
    "partition": (HERE, [Partition(["a"], ["b", "c"])]),
    "partition-one-way": (HERE, [Partition(["a"], ["b"], one_way=True), Partition(["c"], ["a"], one_way=True)]),
    "partition-network-port": (HERE, [Partition(["a"], ["b"], network="back"), Partition("a", "c", port=5432)]),
    "partition-old-kernel": (replace(HERE, egress=False), [Partition(["a"], ["b", "c"])]),
    "dns": (HERE, [DnsFailure("a")]),
    "loss": (HERE, [Loss(0.3, "a", "b"), Loss(0.05, "a")]),
    "duplicate-netem": (HERE, [Duplicate(0.5, "a", "b")]),
    "duplicate-nft": (replace(HERE, netem=False), [Duplicate(0.5, "a", "b")]),
    "rate": (HERE, [Rate("1mbit", "a", "b"), Rate("10mbit", "a")]),
    "netem": (
        HERE,
        [
            Delay(0.1, "a", "b", jitter=0.02),
            Delay(0.05, "a", network="back"),
            Corrupt(0.01, "a", "c"),
            Reorder(0.25, "a", "c"),
        ],
    ),
    "held": (
        PLAIN,
        [
            Delay(0.1, "a", "b", jitter=0.02),
            Delay(0.05, "a", network="back"),
            Corrupt(0.01, "a", "c"),
            Reorder(0.25, "a", "c"),
        ],
    ),
    "held-all": (PLAIN, [Delay(0.1, "a"), Corrupt(0.01, "b", "a", one_way=True), Rate("1mbit", "a", "b")]),
    "held-rate": (PLAIN, [Combined()]),
    "held-by-nobody": (PLAIN, [Partition(["a"], ["b"])]),
    "stacked": (
        HERE,
        [
            Partition(isolate(NAMES, "c")),
            Loss(0.1, "b", "a"),
            Delay(0.1, "a"),
            Delay(0.2, "a", "b"),
            Rate("2mbit", "b"),
        ],
    ),
}


def rendered(here: Place, faults: list[NetworkFault]) -> str:
    return render(here, [effect for each in faults for effect in each.effects(NAMES)], ADDRESSES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name: str) -> None:
    found = rendered(*SCRIPTS[name]).replace(program(), "(hold.pl)\n")
    assert found == (RENDERED / f"fault-{name}.sh").read_text("utf-8")


def test_what_undoes_them() -> None:
    assert (RENDERED / "fault-undo.sh").read_text("utf-8") == UNDO


def test_every_script_is_tested() -> None:
    assert {path.stem for path in RENDERED.glob("fault-*.sh")} == {*(f"fault-{name}" for name in SCRIPTS), "fault-undo"}


FAULTS = st.sampled_from(
    [
        Partition(["a"], ["b"]),
        Partition(["a"], ["b"], one_way=True),
        Partition(halves(NAMES)),
        Partition(isolate(NAMES, "c"), port=80),
        Loss(0.2, "b", "c"),
        Loss(0.2, "a"),
        Delay(0.1, "b"),
        Delay(0.1, "a", "b", one_way=True),
        Rate("1mbit", "a"),
        Corrupt(0.1, "b", "a"),
        Reorder(0.1, "a", one_way=True),
        Duplicate(0.1, "c"),
        DnsFailure("b"),
    ]
)


CHANCES = st.sampled_from([0.0, 0.25, 1.0])
SECONDS = st.sampled_from([0.0, 0.01, 0.3])
EFFECTS = st.builds(
    Effect,
    sender=st.sampled_from(["", *NAMES]),
    receiver=st.sampled_from(["", *NAMES]),
    network=st.sampled_from([None, "front", "back"]),
    loss=CHANCES, duplicate=CHANCES, corrupt=CHANCES, reorder=CHANCES, delay=SECONDS, jitter=SECONDS,
    rate=st.sampled_from([0, 1_000_000, 10_000_000]),
)  # fmt: skip
"""Effects of several kinds in one, as a declared link or a fault of a user's own has them."""


@given(st.lists(EFFECTS, max_size=6))
def test_without_netem_a_rate_is_the_same_beside_anything_else(effects: list[Effect]) -> None:
    """The sender's kernel does the rate alone, by HTB; the rest is the work of nft and of the receiver's program."""

    def queues(asked: list[Effect]) -> list[str]:
        script = render(PLAIN, asked, ADDRESSES).replace(program(), "")
        assert "netem" not in script
        return [line for line in script.splitlines() if line.startswith(("tc qdisc add", "tc class add"))]

    rates = [Effect(sender=e.sender, receiver=e.receiver, network=e.network, rate=e.rate) for e in effects]
    assert queues(effects) == queues(rates)


@given(st.lists(FAULTS, max_size=6), st.booleans(), st.booleans())
def test_a_script_touches_our_own_alone(faults: list[NetworkFault], netem: bool, egress: bool) -> None:
    """Our tables of nft, and qdiscs under our handle on the machine's interfaces; and never who controls it."""
    script = rendered(replace(HERE, netem=netem, egress=egress), faults)
    assert set(re.findall(r"table \w+ (\w+)", script)) <= {"pytest_machine"}
    for line in script.splitlines():
        if line.strip().startswith("tc ") and " delete " not in line:
            assert re.match(r"tc (qdisc|class) add dev eth[01] (root handle 7074:|parent 7074:)", line)
    assert "flush ruleset" not in script
    drops = [line for line in script.splitlines() if re.search(r"drop|fwd|priority set|dup to", line)]
    for line in drops:
        whole = not re.search(r"ip6? [sd]addr|th [sd]port", line)
        if whole:  # then who controls the machine is let through by a rule before it, in the same chain
            chain = script[: script.index(line)].rpartition("chain")[2]
            assert "10.213.0.1 tcp" in chain
        assert "10.213.0.1" not in line


@given(st.lists(FAULTS, max_size=6))
def test_the_cut_is_held_by_both_ends(faults: list[NetworkFault]) -> None:
    effects = [effect for each in faults for effect in each.effects(NAMES) if effect.cut and effect.receiver]
    for effect in effects:
        sender, receiver = replace(HERE, name=effect.sender), replace(HERE, name=effect.receiver)
        there = " ".join(a for listed in ADDRESSES[effect.receiver].values() for a in listed if ":" not in a).split()[0]
        here = next(a for listed in ADDRESSES[effect.sender].values() for a in listed if ":" not in a)
        assert re.search(rf"ip daddr {{ {there}", render(sender, effects, ADDRESSES))
        assert re.search(rf"ip saddr {{ {here}", render(receiver, effects, ADDRESSES))


def test_nothing_is_rendered_for_nothing() -> None:
    assert render(HERE, [], ADDRESSES) == ""
    assert render(replace(HERE, name="c"), Partition("a", "b").effects(NAMES), ADDRESSES) == ""


def test_what_the_probe_says() -> None:
    said = (
        "from 10.213.0.1 50022 10.213.0.2 2222\n"
        "2: eth0    inet 10.213.0.2/20 brd 10.213.15.255 scope global eth0\\ valid_lft forever\n"
        "3: docker0    inet 172.17.0.1/16 scope global docker0\\ valid_lft forever\n"
        "4: eth1    inet 10.214.0.2/24 scope global eth1\\ valid_lft forever\n"
        "has egress\nhas dup\nhas htb\n"
    )
    place = read("a", said, {"": "10.213.0.2", "back": "10.214.0.2"})
    assert place.devices == {"": "eth0", "back": "eth1"}
    assert (place.controller, place.control_ports) == ("10.213.0.1", (2222, 2376))
    assert (place.egress, place.duplicates, place.netem, place.silent) == (True, True, False, False)


def test_all_addresses_of_an_interface_are_known() -> None:
    """The kernel's own IPv6 addresses, too, and what else somebody gave it; not those of other interfaces."""
    said = (
        "from 10.213.0.1 50022 10.213.0.2 22\n"
        "2: eth0    inet 10.213.0.2/20 brd 10.213.15.255 scope global eth0\\ valid_lft forever\n"
        "2: eth0    inet6 fd00:7::2/64 scope global \\ valid_lft forever\n"
        "3: docker0    inet 172.17.0.1/16 scope global docker0\\ valid_lft forever\n"
        "2: eth0    inet6 fe80::74:aff:fed5:2/64 scope link \\ valid_lft forever\n"
        "3: docker0    inet6 fe80::42/64 scope link \\ valid_lft forever\n"
    )
    place = read("a", said, {"": "10.213.0.2"})
    assert place.addresses == {"": ["10.213.0.2", "fd00:7::2", "fe80::74:aff:fed5:2"]}
    script = render(replace(HERE, name="b"), Partition("a", "b").effects(NAMES), {"a": place.addresses, "b": {}})
    assert "ip6 saddr { fd00:7::2, fe80::74:aff:fed5:2 } drop" in script
    assert 'ip6 daddr { fd00:7::2, fe80::74:aff:fed5:2 } fwd to "lo"' in script


def test_only_one_of_two_ends_holds_back() -> None:
    """Whoever sends and has netem does it; else whoever receives, and answers to pings whoever sends them."""
    effects = Delay(0.1, "a", "b", one_way=True).effects(NAMES)
    receiver = replace(PLAIN, name="b")
    assert "netem" in render(HERE, effects, ADDRESSES, shapers={"a"})
    assert render(receiver, effects, ADDRESSES, shapers={"a"}) == ""
    assert render(replace(HERE, name="b", holds=True), effects, ADDRESSES, shapers={"a", "b"}) == ""
    for here in (receiver, replace(HERE, name="b", holds=True)):
        held = render(here, effects, ADDRESSES, shapers={"b"} if here.netem else set())
        assert "ip saddr { 10.213.0.2, 10.214.0.2 } goto held_0" in held
    sent = render(PLAIN, effects, ADDRESSES, shapers=set())
    assert "icmp type echo-reply goto held_0" in sent
    assert "saddr" not in sent
    assert " 0.1:0:0:0:1 <<" in sent


@given(st.lists(FAULTS, max_size=6), st.sets(st.sampled_from(NAMES)))
def test_who_has_to_hold_back_is_asked_whether_it_can(faults: list[NetworkFault], shapers: set[str]) -> None:
    effects = [effect for each in faults for effect in each.effects(NAMES)]
    for name in NAMES:
        here = replace(PLAIN, name=name, netem=name in shapers)
        script = render(here, effects, ADDRESSES, shapers=shapers)
        asked = any(holding(here, effect, NAMES, shapers) for effect in effects)
        assert ("perl - " in script) == asked


def homes() -> dict[str, type[Any]]:
    return {
        name: getattr(pytest_machine, name)
        for name, home in pytest_machine._HOMES.items()
        if home.startswith("faults.")
    }


@pytest.mark.parametrize("name", homes())
def test_every_kind(name: str) -> None:
    """It can be made without a word, is equal to one that was given the same, and can be drawn by lot."""
    kind = homes()[name]
    assert issubclass(kind, fault.SupportsDraw)
    assert kind() == kind()
    assert hash(kind()) == hash(kind())
    assert repr(kind()).startswith(f"{name}(")
    drawn = [kind.draw(random.Random(seed), NAMES) for seed in range(20)]
    assert drawn == [kind.draw(random.Random(seed), NAMES) for seed in range(20)]
    assert len(set(map(repr, drawn))) > 1
    made: Any = kind()
    assert callable(made.inject)
    assert callable(made.heal)


@pytest.mark.parametrize("name", [n for n, kind in homes().items() if issubclass(kind, NetworkFault)])
def test_a_network_fault_of_an_unknown_machine(name: str) -> None:
    kind = homes()[name]
    given: tuple[object, ...] = {Partition: ("a", "zz"), DnsFailure: ("zz",), Rate: ("1mbit", "zz")}.get(
        kind, (0.1, "zz")
    )
    asked = kind(*given)
    with pytest.raises(UnknownMachine, match="'zz'"):
        asked.check(NAMES)
    asked.effects(NAMES)  # a machine may go while it is in force


def test_halves_of_one_machine() -> None:
    with pytest.raises(BadSpec, match="at least 2"):
        Partition().check(["a"])
    assert Partition().effects(["a"]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Partition(["a"]),
        lambda: Partition(["a"], ["a"]),
        lambda: Partition(one_way=True),
        lambda: Loss(0),
        lambda: Loss(1.1),
        lambda: Loss("a"),  # type: ignore[arg-type]
        lambda: Loss(True, "a"),
        lambda: Loss(0.5, "a", "a"),
        lambda: Delay("100ms", "a"),  # type: ignore[arg-type]
        lambda: ClockSkew("a"),  # type: ignore[arg-type]
        lambda: Partition(["a"], ["b"], port=0),
        lambda: Partition(["a"], ["b"], port=1 << 16),
        lambda: Partition(["a"], ["b"], port="http"),  # type: ignore[arg-type]
        lambda: Partition([], ["a"]).check(NAMES),
        lambda: Partition(frozenset()).check(NAMES),
        lambda: Partition(frozenset({("a", "a")})).check(NAMES),
        lambda: schedule.steps(1, NAMES, [], every=1, stacked=1),
        lambda: schedule.steps(1, NAMES, Partition, every=1, stacked=1),  # type: ignore[arg-type]
        lambda: schedule.steps(1, NAMES, ["Kill"], every=1, stacked=1),  # type: ignore[list-item]
        lambda: schedule.steps(1, NAMES, [Kill], every=0, stacked=1),
        lambda: schedule.steps(1, NAMES, [Kill], every="2", stacked=1),  # type: ignore[arg-type]
        lambda: schedule.steps(1, NAMES, [Kill], every=1, stacked=0),
        lambda: schedule.steps("x", NAMES, [Kill], every=1, stacked=1),  # type: ignore[arg-type]
        lambda: Delay(-1),
        lambda: Delay(0.1, "a", jitter=-1),
        lambda: Rate("fast"),
        lambda: Rate(10),
        lambda: Rate("1.2.3mbit"),
        lambda: CpuStress("a", workers=0),
        lambda: MemoryPressure("a", size="much"),
        lambda: DiskFull("a", leave=-1),
        lambda: DiskSlow("slow", "a"),
        lambda: DiskSlow("1m", "a", operations=-1),
    ],
)
def test_what_makes_no_sense(wrong: object) -> None:
    with pytest.raises(BadSpec, match="hint: "):
        wrong()  # type: ignore[operator]  # a lambda


def test_they_are_shown_as_they_are_written() -> None:
    assert repr(Partition(["a"], ["b", "c"])) == "Partition(a | b, a | c)"
    assert repr(Partition(["a"], ["b"], one_way=True, port=80)) == "Partition(a -> b, port=80)"
    assert repr(Kill("a")) == "Kill(machines=('a',))"
    assert repr(Delay(0.1, "a", "b")) == "Delay(between=('a', 'b'), delay=0.1)"
    assert Kill("a") != Pause("a")
    assert Kill("a") != Kill("b")


def test_both_ways_and_one() -> None:
    assert Loss(0.5, "a", "b").effects(NAMES) == [
        Effect(sender="a", receiver="b", loss=0.5),
        Effect(sender="b", receiver="a", loss=0.5),
    ]
    assert Loss(0.5, "a", one_way=True).effects(NAMES) == [Effect(sender="a", loss=0.5)]
    assert Loss(0.5).effects(NAMES) == Loss(0.5, "c").effects(NAMES)


def test_the_clock_is_moved_and_moved_back() -> None:
    assert moved(3600.0) == (RENDERED / "fault-clock.txt").read_text("utf-8").strip()
    assert ClockSkew(-60, "a").seconds == -60.0


KINDS: list[schedule.Choice] = [Partition, Pause, Kill, Loss, EngineHang, Kill("a")]


@given(st.integers(0, 1 << 32), st.floats(0.1, 10), st.integers(1, 5))
def test_schedules(seed: int, every: float, stacked: int) -> None:
    def first(count: int) -> list[schedule.Step]:
        return list(itertools.islice(schedule.steps(seed, NAMES, KINDS, every=every, stacked=stacked), count))

    steps = first(30)
    assert steps == first(30), "the same seed does the same"
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    for step in steps:
        at_once = [each for each in steps if each.at <= step.at < each.at + each.lasts]
        assert len(at_once) <= stacked
        assert step.lasts > 0


def test_other_seeds_do_otherwise() -> None:
    def first(seed: int) -> list[str]:
        steps = schedule.steps(seed, NAMES, KINDS, every=1, stacked=2)
        return [str(step) for step in itertools.islice(steps, 5)]

    assert len({tuple(first(seed)) for seed in range(20)}) == 20


def test_a_schedule_of_nothing() -> None:
    with pytest.raises(MachineError, match="hint: "):
        next(schedule.steps(1, NAMES, [], every=1, stacked=1))
