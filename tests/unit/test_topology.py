"""Who may not talk to whom: what holds for every set of machines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine.errors import BadSpec
from pytest_machine.topology import (
    Pairs,
    both_ways,
    bridge,
    groups,
    halves,
    isolate,
    majorities_ring,
    names_of,
    one_way,
)

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=5, max_size=12, unique=True)
SEEDS = st.none() | st.integers(0, 1 << 32)


def sees(names: list[str], cut: Pairs) -> dict[str, frozenset[str]]:
    """Whom each hears, itself included."""
    return {here: frozenset(n for n in names if n == here or (n, here) not in cut) for here in names}


@given(NAMES, SEEDS)
def test_halves(names: list[str], seed: int | None) -> None:
    seen = sees(names, halves(names, seed=seed))
    sides = set(seen.values())
    assert len(sides) == 2
    assert frozenset.union(*sides) == frozenset(names)
    assert {len(side) for side in sides} == {len(names) // 2, len(names) - len(names) // 2}


@given(NAMES, st.data())
def test_isolate(names: list[str], data: st.DataObject) -> None:
    alone = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True))
    seen = sees(names, isolate(names, *alone))
    rest = frozenset(names) - frozenset(alone)
    assert all(seen[name] == {name} for name in alone)
    assert all(seen[name] == rest for name in rest)


@given(NAMES, SEEDS)
def test_bridge(names: list[str], seed: int | None) -> None:
    """One talks to all; the others only to their half and to that one."""
    seen = sees(names, bridge(names, names[0], seed=seed))
    assert seen[names[0]] == frozenset(names)
    sides = {seen[name] for name in names[1:]}
    assert len(sides) == 2
    assert frozenset.intersection(*sides) == {names[0]}


@given(NAMES, SEEDS)
def test_ring_of_majorities(names: list[str], seed: int | None) -> None:
    cut = majorities_ring(names, seed=seed)
    seen = sees(names, cut)
    assert all(len(side) > len(names) / 2 for side in seen.values())
    assert len(set(seen.values())) == len(names), "no two see the same"
    assert cut == {(b, a) for a, b in cut}


@given(NAMES, SEEDS)
def test_equal_seeds_are_equal_cuts(names: list[str], seed: int | None) -> None:
    for make in (halves, majorities_ring):
        assert make(names, seed=seed) == make(names, seed=seed)


@given(st.sets(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_groups_cut_exactly_what_is_between_them(names: set[str], lot: object) -> None:
    sides: list[list[str]] = [[], [], []]
    for name in sorted(names):
        lot.choice(sides).append(name)  # type: ignore[attr-defined]  # a Random
    cut = groups(*sides)
    for i, side in enumerate(sides):
        for j, other in enumerate(sides):
            for a in side:
                for b in other:
                    assert ((a, b) in cut) == (i != j)


def test_one_way() -> None:
    assert one_way("a", ["a", "b"]) == {("a", "b")}
    assert both_ways(one_way("a", "b")) == {("a", "b"), ("b", "a")}


def test_names_of_what_has_names() -> None:
    class Machine:
        name = "web"

    assert names_of(Machine()) == ("web",)
    assert names_of([Machine(), "db"]) == ("web", "db")
    assert names_of("web") == ("web",)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: halves(["a"]),
        lambda: halves(["a", "a"]),
        lambda: bridge(["a", "b"]),
        lambda: majorities_ring("abcd"),
        lambda: majorities_ring(list("abcd")),
        lambda: isolate(["a", "b"], "c"),
        lambda: bridge(list("abc"), "d"),
        lambda: groups(["a", "b"], ["b", "c"]),
    ],
)
def test_what_makes_no_sense(wrong: object) -> None:
    with pytest.raises(BadSpec, match="hint: "):
        wrong()  # type: ignore[operator]  # a lambda
