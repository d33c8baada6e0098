"""What is written on all that the driver makes in an engine, and read back when no store is left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from pytest_machine import stored
from pytest_machine.model import Address, Network, Record
from pytest_machine.stored import Damaged, Newer
from pytest_machine.support import parsing
from pytest_machine.support.parsing import Malformed

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
    """Return the record that labels hold; None when they are not ours, or damaged."""
    with contextlib.suppress(Malformed):
        return Record.from_json(_value(labels, RECORD))
    return None


def address(labels: Mapping[str, str]) -> Address | None:
    """Return the address that labels hold; None when they hold none, or it is damaged."""
    with contextlib.suppress(Malformed):
        return Address.from_json(_value(labels, ADDRESS))
    return None


def network(labels: Mapping[str, str] | None) -> Network | None:
    """Return the network that labels hold; None when they are not ours, or damaged."""
    with contextlib.suppress(Malformed):
        return Network.from_json(_value(labels, NETWORK))
    return None


def damaged(labels: Mapping[str, str] | None, place: str) -> Damaged | None:
    """Return what is left to know of a thing with a machine's or network's label that is damaged; None of any other."""
    given = labels or {}
    for kind, key, whole, read in (
        ("machine", ID, RECORD, Record.from_json),
        ("network", NETWORK_ID, NETWORK, Network.from_json),
    ):
        if key not in given:
            continue
        data: object = {name: given.get(f"{PREFIX}.{name}", "") for name in ("name", "host", "run")}
        try:
            id_ = stored.id_(given[key], f"the label '{key}'")
            read(_value(given, whole))
        except Newer as error:
            return stored.damaged(data, error, id=id_, place=place, kind=kind)
        except Malformed as error:
            with contextlib.suppress(Malformed):
                return stored.damaged(data, error, id=stored.id_(given[key]), place=place, kind=kind)
            return stored.damaged(data, error, id="", place=place, kind=kind)
    return None


def _value(labels: Mapping[str, str] | None, key: str) -> object:
    text = (labels or {}).get(key)
    if not isinstance(text, str):
        raise Malformed(f"there is no label '{key}'")
    return parsing.json_value(text.encode("utf-8", "surrogatepass"), f"the label '{key}'")
