"""Who reaches whom in a lab, found out by packets: from every machine to every address of every other."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from pytest_machine.lab import Lab
from pytest_machine.machine import Machine

# A line for each address that answers.
_PROBE = """\
printf '%s\\n' "$@" | xargs -P 16 -I @ sh -c 'ping -n -c 1 -W 1 @ >/dev/null 2>&1 && echo @; true'
"""
# How often those are asked again who should answer and have not: this computer may have other things to do.
_ROUNDS = 6

Pair = tuple[str, str]


def addresses(machine: Machine) -> list[str]:
    """Return every address of a machine."""
    links = machine.networks.values()
    return [machine.address.among, *(link.ip for link in links), *(link.ip6 for link in links if link.ip6)]


def owners(lab: Lab) -> dict[str, str]:
    """Return whose each address is."""
    return {address: machine.name for machine in lab for address in addresses(machine)}


def reached(lab: Lab, wanted: Collection[Pair], *, at_once: bool = True) -> set[Pair]:
    """Return every (machine, address of another) that answers; `wanted` are those of (machine, other) that should."""
    whose = owners(lab)

    def probe(asked: tuple[str, Iterable[str]]) -> set[Pair]:
        name, others = asked
        return {(name, address) for address in lab[name].run("sh", "-c", _PROBE, "sh", *others).stdout.split()}

    asking = {machine.name: [a for a, owner in whose.items() if owner != machine.name] for machine in lab}
    found: set[Pair] = set()
    for _ in range(_ROUNDS):
        if at_once:
            with ThreadPoolExecutor(4) as pool:
                found = found.union(*pool.map(probe, asking.items()))
        else:
            found = found.union(*map(probe, asking.items()))
        missing = set(wanted) - {(name, whose[address]) for name, address in found}
        if not missing:
            break
        asking = {a: [address for address, owner in whose.items() if (a, owner) in missing] for a, _ in missing}
    return found


def meeting(lab: Lab, wanted: Collection[Pair], *, at_once: bool = True) -> set[Pair]:
    """Return every (machine, other) of which the one reaches the other at some address."""
    whose = owners(lab)
    return {(name, whose[address]) for name, address in reached(lab, wanted, at_once=at_once)}
