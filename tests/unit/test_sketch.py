"""Faults in the few words of a drawing."""

from __future__ import annotations

from typing import cast

import pytest

from pytest_machine.breaking import Breaking, Injection
from pytest_machine.fault import Fault
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
)
from pytest_machine.faults.power import Pause
from pytest_machine.faults.resources import MemoryPressure
from pytest_machine.sketch import _befalls, _everywhere, _line, _words, label

NAMES = ["a", "b", "c"]


def injection(fault: Fault, *touched: str) -> Injection:
    found = Injection(cast("Breaking", None), fault)
    found.touched.update(touched)
    return found


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Partition(["a"], ["b"]), "cut"),
        (Loss(0.3, "a", "b"), "loss 30 %"),
        (Duplicate(0.005, "a", "b"), "duplicate 0.5 %"),
        (Corrupt(1, "a", "b"), "corrupt 100 %"),
        (Reorder(0.25, "a", "b", delay=0.01), "delay 10 ms, reorder 25 %"),
        (Delay(0.1, "a", "b", jitter=0.02), "delay 100 ms ± 20 ms"),
        (Delay(1.5, "a", "b"), "delay 1.5 s"),
        (Rate("1mbit", "a", "b"), "rate 1 Mbit/s"),
        (Rate("512kbit", "a", "b"), "rate 512 kbit/s"),
        (Rate("2gbit", "a", "b"), "rate 2 Gbit/s"),
    ],
    ids=str,
)
def test_between_machines(fault: NetworkFault, said: str) -> None:
    lines = [_line(effect) for effect in fault.effects(NAMES)]
    assert {(line.sender, line.receiver) for line in lines} == {("a", "b"), ("b", "a")}
    assert {line.label for line in lines} == {said}
    assert {line.kind for line in lines} == {"cut" if said == "cut" else "impaired"}


def test_which_packets_alone() -> None:
    (line,) = map(_line, Partition(["a"], ["b"], one_way=True, network="back", port=5432).effects(NAMES))
    assert (line.sender, line.receiver, line.where, line.network) == ("a", "b", "port 5432", "back")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Loss(0.3, "a"), ["loss 30 %, all"]),
        (Loss(0.3, "a", one_way=True), ["loss 30 %, what it sends"]),
        (Delay(0.1, "a", network="back"), ["delay 100 ms, all on back"]),
        (Loss(0.3, "b"), []),
        (Loss(0.3, "a", "b"), []),
    ],
    ids=str,
)
def test_of_all_that_a_machine_sends_and_gets(fault: NetworkFault, said: list[str]) -> None:
    assert _everywhere("a", fault.effects(NAMES)) == said


def test_whom_a_fault_befalls() -> None:
    assert _befalls(injection(Pause("a")), "a")
    assert not _befalls(injection(Pause("a")), "b")
    assert _befalls(injection(Pause(), "c"), "c")  # nobody was named: it is who was touched
    assert _befalls(injection(DnsFailure("b")), "b")
    assert not _befalls(injection(Partition(["a"], ["b"]), "a", "b"), "a")  # that is drawn between them


def test_in_words() -> None:
    assert [_words(fault) for fault in (EngineHang("a"), MemoryPressure("a"), DnsFailure("a"))] == [
        "engine hang",
        "memory pressure",
        "no DNS",
    ]
    assert label(Loss(0.1, "a").effects(NAMES)[0]) == "loss 10 %"
