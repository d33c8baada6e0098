"""What networks cost: twenty machines on five of them, against twenty without, in the same run.

``python benchmarks/topologies.py [--rounds 3]`` prints the ratio of the medians, and whether every pair talked that
should, and no other, by packets. As root, on Linux, with the machine image built.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pytest_machine import Lab, Spec, Topology
from pytest_machine.plan import pairs
from pytest_machine.plugins import Registry
from pytest_machine.store import Store

sys.path.insert(0, str(Path(__file__).parents[1]))  # this is run as a file, and `tests` is beside its folder
from tests.real.meeting import meeting

TWENTY = Path(__file__).with_name("twenty.toml")


def specs(declared: Topology) -> list[Spec]:
    """Return the specs of a topology's machines."""
    return [
        Spec(name=name, driver="runc", networks=own, router=name in declared.routers, topology=declared)
        for name, own in declared.members.items()
    ]


def time_lab(wanted: Sequence[Spec], folder: Path, declared: Topology | None = None) -> tuple[float, float]:
    """Return the seconds to create and to destroy a lab; of one with a topology, check who reaches whom."""
    with Lab(store=Store(folder), registry=Registry()) as lab:
        begun = time.perf_counter()
        lab.create(*wanted)
        ready = time.perf_counter() - begun
        if declared is not None:
            should = pairs(declared.members, declared.routers, declared.open)
            found = meeting(lab, should)
            well, badly = len(found & should), len(found - should)
            print(f"  {well} of {len(should)} pairs talk that should, and {badly} that should not", flush=True)
        begun = time.perf_counter()
        lab.destroy()
        return ready, time.perf_counter() - begun


def main() -> None:
    """Measure both in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    declared = Topology.read(TWENTY)
    plain = [Spec(name=name, driver="runc") for name in declared.members]
    with_networks, without = [], []
    with tempfile.TemporaryDirectory(prefix="pytest-machine-bench-") as name:
        folder = Path(name)
        time_lab(plain[:1], folder / "warm")
        for number in range(rounds):
            without.append(time_lab(plain, folder / f"plain-{number}"))
            with_networks.append(time_lab(specs(declared), folder / f"networks-{number}", declared))
    for what, at in (("created", 0), ("destroyed", 1)):
        a, b = (statistics.median(each[at] for each in found) for found in (with_networks, without))
        print(f"20 machines on 5 networks ÷ 20 without, {what:<10} {a / b:5.2f}  {a:.2f} s ÷ {b:.2f} s", flush=True)


if __name__ == "__main__":
    main()
