"""Reading and merging marks, as pure functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_machine.errors import BadSpec
from pytest_machine.plugin.marker import ARGUMENTS, Asked, merge, read, single, swarm


def mark(*names: object, **arguments: object) -> list[Asked]:
    return read(names, arguments)


def named(*levels: list[Asked]) -> list[str]:
    return [asked.name for asked in merge(levels)]


def test_every_argument_is_read() -> None:
    (asked,) = mark(
        "web",
        driver="runc",
        count=2,
        reuse="module",
        teardown="kill",
        image=Path("image"),
        memory="512m",
        cpus=1.5,
        disk="4g",
        networks=["front", "back"],
        needs=["pause", "own-kernel"],
        options={"subnet": "10.0.0.0/24"},
        timeout=60,
    )
    assert asked == Asked(
        name="web",
        driver="runc",
        count=2,
        reuse="module",
        teardown="kill",
        networks=("front", "back"),
        needs=frozenset({"pause", "own-kernel"}),
        timeout=60,
        options={"image": "image", "memory": "512m", "cpus": 1.5, "disk": "4g", "subnet": "10.0.0.0/24"},
    )


def test_none_says_nothing() -> None:
    assert read((), dict.fromkeys(ARGUMENTS)) == [Asked()]


def test_one_text_is_a_list_of_one() -> None:
    assert mark(networks="front", needs="pause") == [Asked(networks=("front",), needs=frozenset({"pause"}))]


@pytest.mark.parametrize(
    ("names", "arguments", "says", "hint"),
    [
        ((), {"memroy": "1g"}, "takes no argument 'memroy'", "did you mean 'memory='?"),
        ((), {"subnet": "1"}, "takes no argument 'subnet'", "options={'subnet': …}"),
        ((3,), {}, "cannot be called 3", "given by keyword"),
        (("two words",), {}, "cannot be called 'two words'", "write 'two-words'"),
        (("web", "web"), {}, "both called 'web'", "a name of its own"),
        ((), {"driver": 1}, "driver=1", "driver='…'"),
        ((), {"count": 0}, "count=0", "count=3"),
        ((), {"count": True}, "count=True", "count=3"),
        ((), {"timeout": float("inf")}, "timeout=inf", "timeout=1.5"),
        ((), {"reuse": "modul"}, "reuse='modul'", "did you mean 'module'?"),
        ((), {"reuse": ["module"]}, "reuse=['module']", "write reuse='never'"),
        ((), {"teardown": "gently"}, "teardown='gently'", "write teardown='rm'"),
        ((), {"image": 12}, "image=12", "image='…'"),
        ((), {"memory": "lots"}, "memory='lots'", "memory='512m'"),
        ((), {"disk": -1}, "disk=-1", "disk='512m'"),
        ((), {"cpus": "two"}, "cpus='two'", "cpus=1.5"),
        ((), {"timeout": 0}, "timeout=0", "timeout=1.5"),
        ((), {"networks": {"front": 1}}, "networks={'front': 1}", "networks=['…']"),
        ((), {"networks": ["a b"]}, "networks=['a b']", "'front'"),
        ((), {"needs": ["snapshot"]}, "needs=['snapshot']", "did you mean 'snapshots'?"),
        ((), {"options": ["image"]}, "options=['image']", "options={"),
        ((), {"image": "sid", "options": {"image": "sid"}}, "image='sid'", "say image once"),
        ((), {"swarm": 1}, "swarm=1", "swarm=True"),
        ((), {"role": "boss"}, "role='boss'", "write role='manager'"),
        ((), {"role": "manger"}, "role='manger'", "did you mean 'manager'?"),
        ((), {"swarm": False, "role": "worker"}, "role='worker'", "leave out one of them"),
    ],
)
def test_wrong_arguments(names: tuple[Any, ...], arguments: dict[str, Any], says: str, hint: str) -> None:
    with pytest.raises(BadSpec) as caught:
        read(names, arguments)
    assert says in caught.value.message
    assert hint in caught.value.hint


class TestMerge:
    """Levels widest first, as the source reads from top to bottom."""

    def test_no_mark_is_one_machine(self) -> None:
        assert merge([]) == merge([[], []]) == [Asked(name="machine")]

    def test_unnamed_on_two_levels_the_nearest_wins_per_argument(self) -> None:
        found = merge([mark(driver="runc", memory="1g"), mark(memory="2g", timeout=9)])
        assert found == [Asked(name="machine", driver="runc", timeout=9, options={"memory": "2g"})]

    def test_options_merge_one_by_one(self) -> None:
        found = merge([mark(options={"a": 1, "b": 1}), mark(options={"b": 2})])
        assert found[0].options == {"a": 1, "b": 2}

    def test_wide_unnamed_speaks_of_named_ones_below(self) -> None:
        found = merge([mark(driver="qemu"), mark("web") + mark("db", driver="runc")])
        assert [(one.name, one.driver) for one in found] == [("web", "qemu"), ("db", "runc")]

    def test_near_unnamed_speaks_of_named_ones_above(self) -> None:
        found = merge([mark("web", "db"), mark(reuse="module")])
        assert [(one.name, one.reuse) for one in found] == [("web", "module"), ("db", "module")]

    def test_same_name_on_two_levels_is_merged_and_keeps_its_place(self) -> None:
        found = merge([mark("web", memory="1g") + mark("db"), mark("db", cpus=2) + mark("cache")])
        assert [one.name for one in found] == ["web", "db", "cache"]
        assert found[1].options == {"cpus": 2}

    def test_several_on_one_level_are_several_machines_in_source_order(self) -> None:
        assert named(mark("web") + mark("db")) == ["web", "db"]
        found = merge([mark(driver="runc") + mark(driver="qemu")])
        assert [(one.name, one.driver) for one in found] == [("machine-1", "runc"), ("machine-2", "qemu")]

    def test_unnamed_beside_named_on_one_level_is_a_machine(self) -> None:
        assert named(mark("web") + mark(memory="1g")) == ["web", "machine"]

    def test_several_unnamed_take_the_place_of_wider_ones(self) -> None:
        found = merge([mark(cpus=1) + mark(cpus=2) + mark("web"), mark(cpus=3) + mark(cpus=4)])
        assert [(one.name, one.options.get("cpus")) for one in found] == [
            ("web", None),
            ("machine-1", 3),
            ("machine-2", 4),
        ]

    def test_three_levels(self) -> None:
        found = merge([mark(driver="runc"), mark("web", memory="1g"), mark(memory="2g")])
        assert found == [Asked(name="web", driver="runc", options={"memory": "2g"})]

    def test_count(self) -> None:
        assert named(mark(count=3)) == ["machine-1", "machine-2", "machine-3"]
        assert named(mark("node", count=2) + mark("web")) == ["node-1", "node-2", "web"]
        assert named(mark("node", count=3), mark("node", count=1)) == ["node"]
        assert all(one.count is None for one in merge([mark(count=2)]))

    def test_same_name_twice_on_one_level(self) -> None:
        with pytest.raises(BadSpec, match="both name a machine 'web'"):
            merge([mark("web") + mark("web")])

    def test_names_that_counting_makes_equal(self) -> None:
        with pytest.raises(BadSpec, match="both called 'node-1'"):
            merge([mark("node", count=2) + mark("node-1")])


class TestSingle:
    """A factory's call, over the marks of its test."""

    def test_what_all_machines_are_like_holds_for_it_too(self) -> None:
        assert single([mark(driver="runc", count=3)], mark("late")[0]) == Asked(name="late", driver="runc")

    def test_named_marks_hold_for_their_name_alone(self) -> None:
        levels = [mark("web", memory="1g") + mark("db", memory="2g")]
        assert single(levels, mark("db")[0]).options == {"memory": "2g"}
        assert single(levels, mark("cache")[0]) == Asked(name="cache")
        assert single(levels, mark()[0]) == Asked()


class TestSwarm:
    """Who is in it, and as what."""

    @pytest.mark.parametrize(
        ("levels", "managers", "workers"),
        [
            ([mark(swarm=True)], "machine", ""),
            ([mark(swarm=True, count=3)], "machine-1", "machine-2 machine-3"),
            ([mark("a", "b", role="manager")], "a b", ""),
            ([mark("a", role="manager") + mark("w", role="worker", count=2)], "a", "w-1 w-2"),
            ([mark("a", swarm=True) + mark("b") + mark("c", swarm=True)], "a", "c"),
            ([mark(swarm=True), mark("a") + mark("b", role="manager")], "b", "a"),
            ([mark(swarm=True), mark("a") + mark("b", swarm=False)], "a", ""),
            ([mark("a", role="manager") + mark("b", role="worker"), mark(role="manager")], "a b", ""),
        ],
    )
    def test_members(self, levels: list[list[Asked]], managers: str, workers: str) -> None:
        found = swarm(merge(levels))
        assert found is not None
        assert (" ".join(found.managers), " ".join(found.workers)) == (managers, workers)

    @pytest.mark.parametrize(
        "levels",
        [
            [],
            [mark("a") + mark("b")],
            [mark(swarm=True, count=3), mark(swarm=False)],
            [mark("a", role="worker"), mark(swarm=False)],
        ],
    )
    def test_none(self, levels: list[list[Asked]]) -> None:
        assert swarm(merge(levels)) is None

    def test_a_fixture_that_wants_one_has_all_machines(self) -> None:
        found = swarm(merge([mark("a") + mark("b") + mark("c", swarm=False)]), wanted=True)
        assert found is not None
        assert (found.managers, found.workers) == (("a",), ("b",))
        with pytest.raises(BadSpec, match="its machines by marks are to form none"):
            swarm(merge([mark(swarm=False)]), wanted=True)
