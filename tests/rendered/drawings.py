"""The labs whose drawings are kept beside this file: ``python -m tests.rendered.drawings`` writes them anew."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_machine import topology
from pytest_machine.drawing import IMPAIRED, LINK, Box, Bus, Line, Scene, svg

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "how-to" / "lab.svg"
"""The one that the documentation shows."""


def boxes(names: Sequence[str], networks: Mapping[str, Sequence[str]]) -> tuple[Box, ...]:
    """Return machines with addresses on the networks that list them."""
    return tuple(
        Box(
            name=name,
            address=f"10.213.0.{number}",
            places={net: (f"10.{220 + at}.0.{number}",) for at, net in enumerate(networks) if name in networks[net]},
        )
        for number, name in enumerate(names, 2)
    )


def lines(pairs: topology.Pairs, **how: str | None) -> tuple[Line, ...]:
    """Return what holds for these pairs."""
    return tuple(Line(sender=a, receiver=b, **how) for a, b in sorted(pairs))  # type: ignore[arg-type]  # by name


_TIERS = Scene(
    title="tests/test_shop.py::test_split",
    machines=boxes(["web", "app", "db"], {"front": ["web", "app"], "back": ["app", "db"]}),
    networks=(
        Bus(name="front", subnets=("10.220.0.0/24",)),
        Bus(name="back", subnets=("10.221.0.0/24", "fd00:1:2::/64"), mtu=1400, isolated=True),
    ),
)
_FIVE = [f"node-{number}" for number in range(1, 6)]
_ON_OWN = Scene(
    machines=tuple(
        Box(name=box.name, places={"runc's own": (box.address,)}) for box in boxes(_FIVE, {})
    ),
    networks=(Bus(name="runc's own", own="runc"),),
)  # fmt: skip
_MANY = [f"machine-{number:02}" for number in range(1, 21)]
_LOT = random.Random(1)
_OF_MANY = {
    net: [name for name in _MANY if _LOT.random() < 0.4] for net in ("front", "back", "storage", "management", "dmz")
}

SCENES: dict[str, Scene] = {
    "tiers": _TIERS,
    "tiers-cut": replace(
        _TIERS, lines=lines(topology.groups(["app"], ["db"])),
        faults=("Partition(app | db)", "Loss(between=('web',), chance=0.3)"),
        machines=(replace(_TIERS.machines[0], notes=("loss 30 %, all",)), *_TIERS.machines[1:]),
    ),
    "one-way": replace(
        _ON_OWN, title="one way",
        lines=(*lines(topology.one_way("node-1", ["node-2", "node-3"])),
               *lines(topology.one_way("node-5", "node-4"), where="port 5432")),
    ),
    "ring": replace(_ON_OWN, title="a ring of majorities", lines=lines(topology.majorities_ring(_FIVE))),
    "bridge": replace(
        _ON_OWN, title="a bridge, what is late, and a link",
        lines=(*lines(topology.bridge(_FIVE)),
               *lines(topology.both_ways(topology.one_way("node-1", "node-2")), kind=IMPAIRED,
                      label="delay 100 ms ± 20 ms"),
               *lines(topology.both_ways(topology.one_way("node-4", "node-5")), kind=LINK, label="rate 10 Mbit/s")),
    ),
    "states": replace(
        _ON_OWN, title="frozen, dead, alone", lines=lines(topology.isolate(_FIVE, "node-3")),
        machines=(_ON_OWN.machines[0], replace(_ON_OWN.machines[1], state="paused"), _ON_OWN.machines[2],
                  replace(_ON_OWN.machines[3], state="stopped", notes=("engine hang",)), _ON_OWN.machines[4]),
    ),
    "across": Scene(
        title="two networks, cut across each other",
        machines=boxes("abcdef", {"x": "abcdef", "y": "abcdef"}),
        networks=(Bus(name="x"), Bus(name="y")),
        lines=(*lines(topology.groups(list("abc"), list("def")), network="x"),
               *lines(topology.groups(list("ace"), list("bdf")), network="y")),
    ),
    "many": Scene(
        title="twenty machines, five networks",
        machines=boxes(_MANY, _OF_MANY),
        networks=tuple(Bus(name=net, subnets=(f"10.{220 + at}.0.0/24",)) for at, net in enumerate(_OF_MANY)),
        lines=(*lines(topology.halves(_MANY, seed=3)),
               *lines(topology.isolate(_OF_MANY["front"], _OF_MANY["front"][0]), network="front"),
               *lines(topology.both_ways(topology.one_way(_MANY[3], _MANY[9])), kind=IMPAIRED,
                      label="rate 1 Mbit/s")),
    ),
    "wide": Scene(
        title="what is long, <b>sharp</b> & not of this world \x01",
        machines=tuple(
            Box(name=name, places={"lan": ("10.1.2.3", "fd12:3456:789a:bcde:1234:5678:9abc:def0")})
            for name in ('a<b>&"c"', "x" * 63)
        ),
        networks=(Bus(name="lan", subnets=("fd12:3456:789a:bcde::/64",)), Bus(name="n" * 60)),
        lines=lines(topology.groups(['a<b>&"c"'], ["x" * 63]), label="障害", where="of all of them but for some"),
    ),
}  # fmt: skip

if __name__ == "__main__":
    for name, scene in SCENES.items():
        (HERE / f"drawing-{name}.svg").write_text(svg(scene), "utf-8")
    DOCS.write_text(svg(SCENES["tiers-cut"]), "utf-8")
