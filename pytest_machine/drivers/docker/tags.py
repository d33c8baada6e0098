"""What is written on all that the driver makes in an engine, and read back when no store is left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields

from pytest_machine.model import Address, Network, Record

PREFIX = "pytest-machine"
ID = f"{PREFIX}.id"
"""The label of all that is a machine's: its container, its volume, and what only helps to make it."""
RECORD = f"{PREFIX}.record"
ADDRESS = f"{PREFIX}.address"
SLOT = f"{PREFIX}.slot"
NETWORK = f"{PREFIX}.network"
"""The label of a lab's network: the whole `Network`, as JSON."""
NETWORK_ID = f"{PREFIX}.network.id"
BLOCK = f"{PREFIX}.block"
"""The block of addresses that a machine's is of; the networks that all machines are on are found by this label."""
IMAGE = f"{PREFIX}.image"
"""The label of a machine image, and of the container that it is made in."""

Labels = dict[str, str]


def of_machine(record: Record) -> Labels:
    """Return the labels of what belongs to a machine."""
    return {
        ID: record.id,
        f"{PREFIX}.name": record.name,
        f"{PREFIX}.run": record.run,
        f"{PREFIX}.host": record.host,
        RECORD: json.dumps(record.with_(address=None).to_json()),
    }


def of_claim(record: Record, slot: int, address: Address, block: object) -> Labels:
    """Return the labels of a machine's volume, which holds its address for it; its container has them too."""
    return {**of_machine(record), SLOT: str(slot), BLOCK: str(block), ADDRESS: json.dumps(asdict(address))}


def of_network(network: Network) -> Labels:
    """Return the labels of a lab's network."""
    return {
        NETWORK_ID: network.id,
        f"{PREFIX}.name": network.name,
        f"{PREFIX}.run": network.run,
        f"{PREFIX}.host": network.host,
        NETWORK: json.dumps(network.to_json()),
    }


def record(labels: Mapping[str, str] | None) -> Record | None:
    """Return the record that labels hold; None when they are not ours, or not whole."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        return Record.from_json(json.loads((labels or {})[RECORD]))
    return None


def address(labels: Mapping[str, str]) -> Address | None:
    """Return the address that labels hold."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        found = json.loads(labels[ADDRESS])
        return Address(**{f.name: found[f.name] for f in fields(Address) if f.name in found})
    return None


def network(labels: Mapping[str, str] | None) -> Network | None:
    """Return the network that labels hold; None when they are not ours."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        return Network.from_json(json.loads((labels or {})[NETWORK]))
    return None
