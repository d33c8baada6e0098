"""Who reaches whom in a lab, found out by packets: from every machine to every address of every other."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from pytest_machine.lab import Lab
from pytest_machine.machine import Machine

# To the SSH of each address at once; a line for each that answered. Whoever cannot be reached takes the whole time.
PROBE = """\
try() { timeout 1.5 bash -c 'exec 3<>"/dev/tcp/$0/22" && read -r line <&3 && [[ $line == SSH* ]]' "$1" 2>/dev/null; }
for each; do { try "$each" && echo "$each"; } & done
wait
"""


def addresses(machine: Machine) -> list[str]:
    """Return every address of a machine."""
    links = machine.networks.values()
    return [machine.ip, *(link.ip for link in links), *(link.ip6 for link in links if link.ip6)]


def reached(lab: Lab, here: Collection[str] = ()) -> set[tuple[str, str]]:
    """Return every (machine, address of another) that answers; `here`: from these machines alone."""
    known = {machine.name: addresses(machine) for machine in lab}

    def probe(machine: Machine) -> list[str]:
        others = [address for name, listed in known.items() if name != machine.name for address in listed]
        return machine.run("sh", "-c", PROBE, "sh", *others).stdout.split()

    asking = [machine for machine in lab if not here or machine.name in here]
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(asking, pool.map(probe, asking), strict=True))
    return {(machine.name, address) for machine, listed in found.items() for address in listed}


def owners(lab: Lab) -> dict[str, str]:
    """Return whose each address is."""
    return {address: machine.name for machine in lab for address in addresses(machine)}


def meeting(lab: Lab, here: Collection[str] = ()) -> set[tuple[str, str]]:
    """Return every (machine, other) that reach each other at some address."""
    whose = owners(lab)
    return {(name, whose[address]) for name, address in reached(lab, here)}
