"""A lab as it is now, or as it was when something failed, as the value that is drawn (`pytest_machine.drawing`)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from . import presence
from .drawing import CUT, IMPAIRED, Box, Bus, Line, Scene
from .errors import MachineError
from .fault import Fault, OfMachines
from .faults.network import DnsFailure, NetworkFault
from .faults.power import Kill, Pause, Restart
from .model import Network, Seen, State

if TYPE_CHECKING:
    from .breaking import Injection
    from .faults.network.script import Effect
    from .lab import Lab
    from .machine import Machine


def scene(lab: Lab, faults: Iterable[Injection] | None = None, *, title: str = "") -> Scene:
    """Return the lab as it is, under these faults: those in force, unless others are given.

    Its drivers are asked for the machines' states and networks; what cannot be asked is left out, and nothing raised.
    """
    injected = list(lab.faults if faults is None else faults)
    machines = lab.machines
    names = [machine.name for machine in machines]
    seen = presence.look((machine.driver, machine.record) for machine in machines)
    effects = [effect for one in injected if isinstance(one.fault, NetworkFault) for effect in _effects(one, names)]
    lines = tuple(_line(each) for each in effects if each.sender and each.receiver)
    boxes = tuple(_box(machine, seen.get(machine.id), injected, effects) for machine in machines)
    owners = dict.fromkeys(machine.record.driver for machine in machines if not machine.record.networks)
    buses = [_bus(each) for each in lab.networks.values()]
    return Scene(
        title=title,
        machines=boxes,
        networks=(*buses, *(Bus(name=_own(driver), own=driver) for driver in owners)),
        lines=tuple(dict.fromkeys(lines)),
        faults=tuple(repr(one.fault) for one in injected),
    )


def _bus(network: Network) -> Bus:
    return Bus(name=network.name, subnets=(network.subnet,) if network.subnet else ())


def _own(driver: str) -> str:
    # No network of a lab can be called so: their names have no blank.
    return f"{driver}'s own"


def _box(machine: Machine, seen: Seen | None, injected: Sequence[Injection], effects: Sequence[Effect]) -> Box:
    address = machine.record.address
    places: dict[str, tuple[str, ...]] = {name: (ip,) for name, ip in seen.networks.items()} if seen else {}
    if not machine.record.networks:
        places[_own(machine.record.driver)] = (address.among,) if address else ()
    state = str(seen.state) if seen and seen.state is not State.ERROR else "unknown"
    notes: list[str] = []
    for one in injected:
        if not _befalls(one, machine.name):
            continue
        # What was killed or frozen when a test failed is healed by the time at which it is drawn.
        if isinstance(one.fault, Kill):
            state = State.STOPPED
        elif isinstance(one.fault, Pause):
            state = State.PAUSED if state != State.STOPPED else state
        elif not isinstance(one.fault, Restart):  # over when it is in force
            notes.append(_words(one.fault))
    notes += _everywhere(machine.name, effects)
    ip = address.ip if address and address.ip not in {each for place in places.values() for each in place} else ""
    return Box(name=machine.name, state=str(state), address=ip, places=places, notes=tuple(dict.fromkeys(notes)))


def _befalls(injection: Injection, name: str) -> bool:
    fault = injection.fault
    if isinstance(fault, DnsFailure):
        return name in (fault.machines or injection.touched)
    if isinstance(fault, NetworkFault):
        return False
    return name in (fault.machines if isinstance(fault, OfMachines) and fault.machines else injection.touched)


def _words(fault: Fault) -> str:
    """Return what a fault is called, in words: ``engine hang``."""
    if isinstance(fault, DnsFailure):
        return "no DNS"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(fault).__name__).lower()


# ----------------------------------------------------------------------------------------------------- between machines


def _effects(injection: Injection, names: Sequence[str]) -> list[Effect]:
    fault = injection.fault
    if not isinstance(fault, NetworkFault) or isinstance(fault, DnsFailure):
        return []
    with contextlib.suppress(MachineError):  # it may be that machines have gone since
        return fault.effects(names)
    return []


def _line(effect: Effect) -> Line:
    return Line(
        sender=effect.sender,
        receiver=effect.receiver,
        kind=CUT if effect.cut else IMPAIRED,
        label=label(effect),
        where=_where(effect),
        network=effect.network,
    )


def _everywhere(name: str, effects: Sequence[Effect]) -> list[str]:
    """Return what happens to all that a machine sends or gets."""
    sent = {(label(e), _rest(e)) for e in effects if e.sender == name and not e.receiver}
    got = {(label(e), _rest(e)) for e in effects if e.receiver == name and not e.sender}
    found = []
    for said, rest in sorted(sent | got):
        both = (said, rest) in sent and (said, rest) in got
        what = "all" if both else "what it sends" if (said, rest) in sent else "what it gets"
        found.append(f"{said}, {what}{rest}")
    return found


def _where(effect: Effect) -> str:
    return f"port {effect.port}" if effect.port is not None else ""


def _rest(effect: Effect) -> str:
    on = f" on {effect.network}" if effect.network is not None else ""
    return f"{on}, {_where(effect)}" if effect.port is not None else on


def label(effect: Effect) -> str:
    """Return what happens to a packet, in a few words: ``delay 100 ms ± 20 ms``."""
    if effect.cut:
        return "cut"
    said = []
    if effect.delay or effect.jitter:
        said.append(f"delay {_time(effect.delay)}" + (f" ± {_time(effect.jitter)}" if effect.jitter else ""))
    chances = {word: getattr(effect, word) for word in ("loss", "duplicate", "corrupt", "reorder")}
    said += [f"{word} {100 * chance:.3g} %" for word, chance in chances.items() if chance]
    if effect.rate:
        said.append(f"rate {_speed(effect.rate)}")
    return ", ".join(said)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"


def _speed(bits: int) -> str:
    for name, size in (("Gbit", 10**9), ("Mbit", 10**6), ("kbit", 10**3)):
        if bits >= size:
            return f"{bits / size:.3g} {name}/s"
    return f"{bits} bit/s"
