"""Faults of the network: who does not reach whom, and what gets lost, late, twice or wrong on the way.

Each says what it does to packets (`script.Effect`); all that are in force at a machine become one script there. Both
ends of a cut hold it, so that it outlives the boot of either.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from pytest_machine import topology
from pytest_machine.errors import BadSpec, UnknownMachine, Unsupported
from pytest_machine.fault import Field, Host, Told, chance, seconds
from pytest_machine.model import State, meant, names
from pytest_machine.plan import bits

from . import script
from .script import Effect, Place

KEY = "network"
"""What undoes all of them in a machine: one script, whichever are in force."""
_FACT = "network"

# Asked for again whenever a script runs: a test may have given a machine others since.
_ADDRESSES = "ip -o address show scope global; ip -o address show scope link"

# In a network namespace of its own, which goes with it: nothing of the machine's is touched.
_PROBE = f"""\
echo "from ${{SSH_CONNECTION:-}}"
{_ADDRESSES}
command -v nft >/dev/null || {{ echo no nft; exit 0; }}
try() {{ word=$1; shift; unshare --net -- sh -c "$*" >/dev/null 2>&1 && echo "has $word"; }}
up='ip link set lo up;'
chain='nft add table netdev t && nft add chain netdev t c "{{ type filter hook egress device lo priority 0; }}"'
try egress "$up $chain"
try dup "$up $chain && nft add rule netdev t c dup to lo"
try fwd "$up $chain && nft add rule netdev t c fwd to lo"
try htb "$up tc qdisc add dev lo root handle 1: htb" &&
try netem "$up tc qdisc add dev lo root netem delay 1ms" && exit
try holds 'perl - pytest-machine-hold "" 0:0:0:0' <<'END'
{script.program()}table inet {script.TABLE} {{ chain held_0 {{ }}; }}
END
true
"""


class NetworkFault(Told):
    """What all of them share: they are effects, and are put in force together."""

    def effects(self, machines: Sequence[str]) -> list[Effect]:
        """Return what it does to the packets between machines of these names."""
        raise NotImplementedError

    def inject(self, field: Field) -> None:
        """Put all network faults in force, this one among them; raise `UnknownMachine` for one that is not there."""
        machines = list(field.hosts)
        self.check(machines)
        self.check_networks(field)
        concerned = self._concerned(field)
        running = [host for host in concerned if host.state is State.RUNNING]
        field.each(running, place)  # what is lacking is said before anything is done
        enforce(field, concerned)
        places, shapers = _places(field)
        holders = [
            here.name
            for here in places
            if any(script.holding(here, effect, machines, shapers) for effect in self.effects(machines))
        ]
        if holders:
            field.say(f"by a program in {_machines(holders)}: the kernel has no netem")

    def check(self, machines: Sequence[str]) -> None:
        """Raise `UnknownMachine` or `BadSpec` where it makes no sense among these machines."""
        _know(machines, {name for each in self.effects(machines) for name in (each.sender, each.receiver) if name})

    def check_networks(self, field: Field) -> None:
        """Raise `BadSpec` for a network that no machine is on: what happens there would show in no test."""
        if any(host.state is not State.RUNNING for host in field.hosts.values()):
            return  # not every driver says what a machine that is away is on
        known = sorted({name for host in field.hosts.values() for name in host.addresses if name})
        for effect in self.effects(list(field.hosts)):
            if effect.network and effect.network not in known:
                raise BadSpec(
                    f"No machine of this lab is on a network '{effect.network}'.",
                    facts={"networks": names(known) or "none but the driver's own"},
                    hint=f"@pytest.mark.machine('a', 'b', networks=['{effect.network}'])",
                )

    def heal(self, field: Field) -> None:
        """Put all others in force."""
        enforce(field, self._concerned(field))

    def renew(self, field: Field, host: Host) -> None:
        """Put all in force on a machine that has booted."""
        place(host)
        alike = len({each.netem for each in _places(field)[0]}) == 1
        # Who has netem does what others would have done for it, who were not told while it was away.
        enforce(field, [host] if alike else list(field.hosts.values()))

    def _concerned(self, field: Field) -> list[Host]:
        """Return the hosts whose scripts differ by this fault."""
        found = self.effects(list(field.hosts))
        if any(not effect.sender or not effect.receiver for effect in found):
            return list(field.hosts.values())
        named = {name for effect in found for name in (effect.sender, effect.receiver)}
        return [host for name, host in field.hosts.items() if name in named]


def enforce(field: Field, hosts: Sequence[Host]) -> None:
    """Put exactly the active network faults in force at these hosts."""
    machines = list(field.hosts)
    active = [fault for fault in field.active if isinstance(fault, NetworkFault)]
    effects = [effect for fault in active for effect in fault.effects(machines)]
    running = [host for host in hosts if host.state is State.RUNNING]
    field.each(running, place)
    # Through one that does not run nothing passes anyhow, and once it has booted it is told.
    if any(field.each(running, _worker(field, effects))):
        field.each(running, _worker(field, effects))


def _worker(field: Field, effects: Sequence[Effect]) -> Callable[[Host], bool]:
    """Return what puts effects in force at a host, and returns whether it has other addresses than was known."""
    places, shapers = _places(field)
    addresses = _addresses(field, effects, places)
    machines = list(field.hosts)

    def work(host: Host) -> bool:
        here = place(host)
        _check(here, effects, machines, shapers)
        rendered = script.render(here, effects, addresses, shapers=shapers)
        if not rendered:
            host.settle(KEY)
            return False
        said = host.upset(f"{rendered}{_ADDRESSES}", undo=script.UNDO, key=KEY).stdout
        on = dict(host.addresses)
        devices, more = _interfaces(said, on)
        host.facts[_FACT] = (on, replace(here, devices=devices, addresses=more))
        return (devices, more) != (here.devices, here.addresses)

    return work


def place(host: Host) -> Place:
    """Return what a host says of its network and kernel; asked once after each boot and change of its networks."""
    addresses = dict(host.addresses)
    known = host.facts.get(_FACT)
    if isinstance(known, tuple) and known[0] == addresses:
        found: Place = known[1]
        return found
    said = host.shell(_PROBE).stdout
    if "\nno nft\n" in said:
        raise Unsupported(
            f"The machine '{host.name}' lacks the program 'nft', which cuts networks.",
            hint="install it there: machine.run('apt-get', 'install', '-y', 'nftables')",
        )
    found = read(host.name, said, addresses)
    host.facts[_FACT] = (addresses, found)
    return found


def _places(field: Field) -> tuple[list[Place], frozenset[str]]:
    """Return what is known of all that run, and the names of those whose kernel has netem.

    Those of which nothing is known are taken to be like the others, if those are alike.
    """
    known = {name: host.facts.get(_FACT) for name, host in field.hosts.items()}
    places = [each[1] for each in known.values() if isinstance(each, tuple)]
    if all(here.netem for here in places):
        return places, frozenset(known)
    return places, frozenset(here.name for here in places if here.netem)


def read(name: str, said: str, addresses: dict[str, str]) -> Place:
    """Return what the probe's output says."""
    devices, all_addresses = _interfaces(said, addresses)
    words = set(re.findall(r"^has (\w+)$", said, re.MULTILINE))
    client = re.search(r"^from (\S+) \S+ \S+ (\d+)$", said, re.MULTILINE)
    return Place(
        name=name,
        devices=devices,
        controller=client[1] if client else "",
        control_ports=tuple(sorted({int(client[2]), 2376})) if client else (22, 2376),
        netem="netem" in words and "htb" in words,
        htb="htb" in words,
        egress="egress" in words,
        duplicates="dup" in words,
        silent="fwd" in words,
        holds="holds" in words,
        addresses=all_addresses,
    )


def _interfaces(said: str, addresses: Mapping[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return each network's interface, and all addresses of that."""
    pairs = re.findall(r"^\d+: (\S+)\s+inet6? ([^\s/]+)", said, re.MULTILINE)
    devices = {network: device for device, ip in pairs for network, known in addresses.items() if ip == known}
    return devices, {network: [ip for on, ip in pairs if on == device] for network, device in devices.items()}


def _machines(found: Sequence[str]) -> str:
    return f"the machine{'s' if len(found) > 1 else ''} {names(found)}"


def _addresses(field: Field, effects: Sequence[Effect], places: Iterable[Place]) -> script.Addresses:
    """Return what each machine is known by: what its driver says, and what else its interfaces have."""
    if not effects:
        return {}
    more = {here.name: here.addresses for here in places}
    return {
        name: {
            network: [
                each
                for each in dict.fromkeys([ip, host.addresses6.get(network), *more.get(name, {}).get(network, ())])
                if each
            ]
            for network, ip in host.addresses.items()
        }
        for name, host in field.hosts.items()
        if host.state is not State.ABSENT
    }


def _check(here: Place, effects: Iterable[Effect], machines: Sequence[str], shapers: Collection[str]) -> None:
    """Raise `Unsupported` where this machine's kernel cannot do what is asked of it."""
    for effect in effects:
        lacking = []
        if not here.holds and script.holding(here, effect, machines, shapers):
            lacking += [word for word in ("delay", "jitter", "corrupt", "reorder") if getattr(effect, word)]
        sends = effect.sender in ("", here.name)
        if sends and effect.duplicate and not (here.netem or here.duplicates):
            lacking.append("duplicate")
        if sends and effect.rate and not here.htb:
            lacking.append("rate")
        if lacking:
            raise Unsupported(
                f"The kernel of the machine '{here.name}' cannot {_VERBS[lacking[0]]} packets.",
                facts={
                    "what it lacks": _PARTS.get(lacking[0], "netem, and NFQUEUE or perl"),
                    "what it needs no part for": "Partition, Loss",
                },
                hint="sudo modprobe sch_netem sch_htb on the machine's host, or a driver with kernels of their own",
            )


_PARTS = {"duplicate": "netem, and nft's dup", "rate": "htb"}
_VERBS = {
    "delay": "delay",
    "jitter": "delay",
    "corrupt": "corrupt",
    "reorder": "reorder",
    "duplicate": "double",
    "rate": "slow down",
}


# ------------------------------------------------------------------------------------------------------ who, with whom


class Partition(NetworkFault):
    """No packet passes between groups of machines: ``Partition(["a"], ["b", "c"])``, ``Partition(halves(lab))``.

    Given are groups (lists of names or machines), or one cut as `pytest_machine.topology` makes them; nothing: halves.
    ``one_way=True``: what the first group sends to the second is lost, and nothing else. `network`: on that network
    alone. `port`: TCP, UDP and SCTP packets of that port alone, on whichever end it is.
    """

    def __init__(
        self, *between: object, one_way: bool = False, network: str | None = None, port: int | None = None
    ) -> None:
        self.pairs = _cut(between, one_way=one_way)
        self.network = network
        self.port = port if port is None else _port(port)

    def __repr__(self) -> str:
        more = "".join(f", {k}={v!r}" for k, v in (("network", self.network), ("port", self.port)) if v is not None)
        return f"Partition({_shown(self.pairs)}{more})"

    def check(self, machines: Sequence[str]) -> None:
        """Raise `BadSpec` for halves of one machine, and `UnknownMachine`."""
        if self.pairs is None:
            topology.halves(machines)
        elif not any(a != b for a, b in self.pairs):
            raise BadSpec(
                "This partition would cut nothing.",
                facts={"machines": names(machines)},
                hint="name machines on both sides: Partition(['a'], ['b'])",
            )
        super().check(machines)

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return halves, or one alone."""
        if lot.random() < 0.5:
            return cls(topology.halves(machines, seed=lot.randrange(1 << 30)))
        return cls(topology.isolate(machines, lot.choice(machines)))

    def effects(self, machines: Sequence[str]) -> list[Effect]:
        """Return a cut for each pair."""
        pairs = self.pairs
        if pairs is None:  # it may be that machines have gone since
            pairs = topology.halves(machines) if len(machines) > 1 else frozenset()
        return [Effect(sender=a, receiver=b, network=self.network, port=self.port, cut=True) for a, b in sorted(pairs)]


def _cut(between: Sequence[object], *, one_way: bool) -> topology.Pairs | None:
    if one_way:
        if len(between) != 2:
            raise BadSpec("A one-way cut has two sides.", hint="Partition(['sender'], ['receiver'], one_way=True)")
        return topology.one_way(*between)
    if not between:
        return None
    if isinstance(between[0], frozenset) and len(between) == 1:
        return between[0]
    if len(between) == 1:
        raise BadSpec(
            "A partition needs two sides at least.",
            facts={"given": ", ".join(topology.names_of(between[0]))},
            hint="Partition(['a'], ['b']), or Partition(isolate(lab, 'a'))",
        )
    return topology.groups(*between)


def _port(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given < 1 << 16:
        raise BadSpec(f"A port cannot be {given!r}.", hint="from 1 to 65535: Partition(['a'], ['b'], port=5432)")
    return given


def _shown(pairs: topology.Pairs | None) -> str:
    if pairs is None:
        return "halves"
    both = sorted({tuple(sorted(pair)) for pair in pairs if pair[::-1] in pairs})
    one = sorted(pair for pair in pairs if pair[::-1] not in pairs)
    return ", ".join([*(f"{a} | {b}" for a, b in both), *(f"{a} -> {b}" for a, b in one)])


class DnsFailure(NetworkFault):
    """Machines, and the containers on them, get no answer from any name server: questions are lost on the way.

    ``DnsFailure("a")``. What a machine knows by itself (``/etc/hosts``, Docker's names of containers) it goes on to
    know.
    """

    def __init__(self, *machines: object) -> None:
        self.machines = _named(machines)

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return one machine's."""
        return cls(lot.choice(machines))

    def effects(self, machines: Sequence[str]) -> list[Effect]:
        """Return cuts of the port of DNS."""
        chosen = self.machines or tuple(machines[-1:])
        return [Effect(sender=name, port=53, cut=True) for name in chosen]


# ------------------------------------------------------------------------------------------------------- what happens


class _Impaired(NetworkFault):
    """Something happens to packets: to all that a machine sends and gets, or to those between it and others."""

    def __init__(self, between: Sequence[object], one_way: bool, network: str | None) -> None:  # ours
        self.between = _named(between)
        if twice := sorted({name for name in self.between if self.between.count(name) > 1}):
            raise BadSpec(
                f"Between '{twice[0]}' and itself no packet passes by a network.",
                facts={"given": names(self.between)},
                hint=f"name each machine once: {type(self).__name__} between 'a' and 'b'",
            )
        self.one_way = one_way
        self.network = network

    def effects(self, machines: Sequence[str]) -> list[Effect]:
        """Return the effect on either way."""
        between = self.between or tuple(machines[-1:])
        if not between:
            return []
        first, *others = between
        effect = replace(self._effect(), network=self.network)
        found = []
        for other in others or [""]:
            found.append(replace(effect, sender=first, receiver=other))
            if not self.one_way:
                found.append(replace(effect, sender=other, receiver=first))
        return found

    def _effect(self) -> Effect:
        raise NotImplementedError


class Loss(_Impaired):
    """Packets get lost: ``Loss(0.3, "a", "b")`` is three of ten between the two, ``Loss(0.3, "a")`` all of one's.

    ``one_way=True``: of what the first sends. `network`: on that network alone. Works on every kernel, by nft. A large
    TCP segment that the network card cuts up is one packet here.
    """

    def __init__(
        self, chance_: float = 0.1, *between: object, one_way: bool = False, network: str | None = None
    ) -> None:
        super().__init__(between, one_way, network)
        self.chance = chance(chance_, "A loss")

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return a loss that is felt."""
        return cls(round(lot.uniform(0.05, 0.5), 2), *_some(lot, machines))

    def _effect(self) -> Effect:
        return Effect(loss=self.chance)


class Duplicate(_Impaired):
    """Packets arrive twice: ``Duplicate(0.5, "a", "b")`` is every second one. By netem, else by nft."""

    def __init__(
        self, chance_: float = 0.1, *between: object, one_way: bool = False, network: str | None = None
    ) -> None:
        super().__init__(between, one_way, network)
        self.chance = chance(chance_, "What arrives twice")

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return some."""
        return cls(round(lot.uniform(0.05, 0.5), 2), *_some(lot, machines))

    def _effect(self) -> Effect:
        return Effect(duplicate=self.chance)


class Delay(_Impaired):
    """Packets arrive late: ``Delay(0.1, "a", "b", jitter=0.02)``, in seconds, on either way.

    By netem; where the kernel has none, by a program in the machine that gets the packets: a millisecond more or less.
    """

    def __init__(
        self,
        delay: float = 0.1,
        *between: object,
        jitter: float = 0.0,
        one_way: bool = False,
        network: str | None = None,
    ) -> None:
        super().__init__(between, one_way, network)
        self.delay = seconds(delay, "A delay")
        self.jitter = seconds(jitter, "A jitter")

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return one of up to half a second."""
        return cls(round(lot.uniform(0.01, 0.5), 2), *_some(lot, machines), jitter=round(lot.uniform(0, 0.01), 3))

    def _effect(self) -> Effect:
        return Effect(delay=self.delay, jitter=self.jitter)


class Corrupt(_Impaired):
    """Packets arrive with a wrong bit: ``Corrupt(0.1, "a", "b")``; most are thrown away for it.

    By netem, else by a program in the machine that gets the packets.
    """

    def __init__(
        self, chance_: float = 0.1, *between: object, one_way: bool = False, network: str | None = None
    ) -> None:
        super().__init__(between, one_way, network)
        self.chance = chance(chance_, "What arrives wrong")

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return some."""
        return cls(round(lot.uniform(0.01, 0.3), 2), *_some(lot, machines))

    def _effect(self) -> Effect:
        return Effect(corrupt=self.chance)


class Reorder(_Impaired):
    """Packets overtake others: ``Reorder(0.25, "a", "b")``, a quarter at once, the others after `delay`.

    By netem, else by a program in the machine that gets the packets.
    """

    def __init__(
        self,
        chance_: float = 0.25,
        *between: object,
        delay: float = 0.01,
        one_way: bool = False,
        network: str | None = None,
    ) -> None:
        super().__init__(between, one_way, network)
        self.chance = chance(chance_, "What overtakes")
        self.delay = seconds(delay, "The delay of what is overtaken")

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return some."""
        return cls(round(lot.uniform(0.05, 0.5), 2), *_some(lot, machines))

    def _effect(self) -> Effect:
        return Effect(reorder=self.chance, delay=self.delay)


class Rate(_Impaired):
    """Packets pass so fast and no faster: ``Rate("1mbit", "a", "b")``, or a number of bits a second. By HTB."""

    def __init__(
        self, rate: str | int = "1mbit", *between: object, one_way: bool = False, network: str | None = None
    ) -> None:
        super().__init__(between, one_way, network)
        self.rate = bits(rate)

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return one between 256 kbit/s and 16 Mbit/s."""
        return cls(256_000 << lot.randrange(7), *_some(lot, machines))

    def _effect(self) -> Effect:
        return Effect(rate=self.rate)


def _some(lot: random.Random, machines: Sequence[str]) -> list[str]:
    return lot.sample(list(machines), k=min(len(machines), lot.choice((1, 2))))


def _named(machines: Iterable[object]) -> tuple[str, ...]:
    return tuple(name for one in machines for name in topology.names_of(one))


def _know(machines: Sequence[str], asked: Iterable[str]) -> None:
    for name in asked:
        if name not in machines:
            raise UnknownMachine(
                f"There is no machine '{name}' in this lab.",
                facts={"machines": names(machines)},
                hint=meant(name, machines) or f"@pytest.mark.machine('{name}')",
            )
