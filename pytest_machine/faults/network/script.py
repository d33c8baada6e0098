"""What faults do to packets, as pure values, and as the script that a machine's shell runs.

All faults in force at a machine are rendered into one script, which replaces what was there in one transaction: so they
stack, and end in any order. It touches a table `pytest_machine` of nft in two families and, for what delays, one qdisc
on each interface, by its handle, or one process of ours; nothing else, and what undoes it is one fixed script.

Packets are met at the edge of the machine: what leaves, at the interface's egress, behind every translation of Docker's
and VXLAN; what arrives, before connection tracking. So containers' packets are met like the machine's own, and no
connection that is established gets by. Who controls the machine (SSH, Docker) is never met.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

TABLE = "pytest_machine"
HANDLE = "7074"  # "pt": hexadecimal, as tc's handles are
# Behind the kernel's putting fragments together (-400), before its tracking of connections (-200).
_BEFORE_TRACKING = -350
# What is lost there need not be held back.
_HOLDING = _BEFORE_TRACKING + 1
# What a class of HTB gets that is there for what hangs below it, not for its rate.
_FREELY = "100gbit"
_PORTED = "{ tcp, udp, sctp }"
# Of netem's queue: what a delay holds back must fit, or it is a loss.
_QUEUE = 100_000
# Marks a packet that was sent twice, so that its copy is not.
_TWICE = "0x70740000"
# Marks what the program sends itself.
_AGAIN = "0x70740001"
_ECHO = {"ip": "icmp type echo-reply", "ip6": "icmpv6 type echo-reply"}
_HELD = "/run/pytest-machine-hold"
"""Where the pid of the program is that holds packets back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What happens to packets of one sender for one receiver."""

    sender: str = ""
    """A machine; empty: everybody."""
    receiver: str = ""
    """A machine; empty: everybody."""
    network: str | None = None
    """On one network alone."""
    port: int | None = None
    """Those of a TCP, UDP or SCTP port alone, on whichever end it is."""
    cut: bool = False
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    """Seconds."""
    jitter: float = 0.0
    """Seconds more or less."""
    rate: int = 0
    """Bits a second; 0: as fast as it goes."""

    @property
    def queues(self) -> bool:
        """Whether it takes a queue, of tc."""
        return self.holds or bool(self.rate)

    @property
    def holds(self) -> bool:
        """Whether packets come late, out of order or wrong: by netem, or held back by a program of ours."""
        return bool(self.corrupt or self.reorder or self.delay or self.jitter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a machine knows of itself, of its kernel, and of who controls it."""

    name: str
    devices: Mapping[str, str] = field(default_factory=dict)
    """Network → interface."""
    controller: str = ""
    """From where we reach it."""
    control_ports: tuple[int, ...] = (22, 2376)
    netem: bool = True
    htb: bool = True
    egress: bool = True
    """Whether nft can look at what leaves (Linux 5.16)."""
    duplicates: bool = True
    """Whether nft can send a packet twice."""
    silent: bool = True
    """Whether nft can send a packet elsewhere, so that its sender believes it gone."""
    holds: bool = False
    """Whether a program of ours can hold packets back; asked for where there is no netem."""
    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Network → all addresses of its interface."""

    @property
    def lose(self) -> str:
        """How a packet that leaves gets lost. Not by ``drop``, if it can be: the sender's own kernel would hear of it.

        On the loopback it is somebody else's by its MAC address, and thrown away there.
        """
        return 'fwd to "lo"' if self.egress and self.silent else "drop"


Addresses = Mapping[str, Mapping[str, Sequence[str]]]
"""Machine → network → its addresses there."""

_LET_GO = f"""\
if [ -e {_HELD} ]; then
  pid=$(cat {_HELD}) i=0
  while grep -qs pytest-machine-hold "/proc/$pid/cmdline"; do
    if [ $i -lt 100 ]; then kill -TERM "$pid"; else kill -KILL "$pid"; fi 2>/dev/null || true
    i=$((i + 1)); sleep 0.01
  done
  rm -f {_HELD}
fi
"""

UNDO = f"""\
nft delete table inet {TABLE} 2>/dev/null
nft delete table netdev {TABLE} 2>/dev/null
for path in /sys/class/net/*; do
  case $(tc qdisc show dev "${{path##*/}}" root 2>/dev/null) in
  "qdisc htb {HANDLE}: "*) tc qdisc delete dev "${{path##*/}}" root ;;
  esac
done
{_LET_GO}true
"""
"""Undoes whatever was rendered here; where nothing is: nothing happens."""


def render(
    here: Place, effects: Iterable[Effect], addresses: Addresses, *, shapers: Collection[str] | None = None
) -> str:
    """Return the script that puts these effects in force at a machine, and none but these; empty: there are none.

    `shapers` are the machines whose kernel has netem: nobody else holds back what they send. None: all are as here.
    """
    known = list(effects)
    if shapers is None:
        shapers = [here.name, *addresses] if here.netem else []
    rules = _Rules(here, known, addresses, shapers)
    arriving, leaving, tc, held = rules.arriving(), rules.leaving(), rules.queues(), rules.held()
    if not (arriving or leaving or tc or held):
        return ""
    # Queues first: a packet that is told its class before there is one passes all the same.
    begin, tables = f"set -e\n{_qdiscs(here, tc)}", rules.tables(arriving, leaving, held)
    if not held:
        return f"{begin}nft -f - <<'END'\n{tables}END\n{_LET_GO if here.holds else ''}"
    words = " ".join(each.words() for each in held)
    return f"{begin}perl - pytest-machine-hold {_HELD} {words} <<'END'\n{program()}{tables}END\n"


def program() -> str:
    """Return the program that holds packets back, up to where nft's script follows."""
    return resources.files(__package__).joinpath("hold.pl").read_text("utf-8")


def holding(here: Place, effect: Effect, machines: Iterable[str], shapers: Collection[str]) -> bool:
    """Return whether this machine has to hold packets back for an effect."""
    if not effect.holds:
        return False
    if effect.sender in ("", here.name) and effect.receiver != here.name and not here.netem:
        return True  # its answers to pings
    if effect.receiver not in ("", here.name) or effect.sender == here.name:
        return False
    others = [effect.sender] if effect.sender else [name for name in machines if name != here.name]
    return any(name not in shapers for name in others) or not (effect.sender or here.netem)


def _qdiscs(here: Place, lines: Sequence[str]) -> str:
    """Return the lines that replace our qdisc, and leave none where none is wanted."""
    clear = []
    for device in sorted(set(here.devices.values())):
        clear.append(f'case $(tc qdisc show dev {device} root) in "qdisc htb {HANDLE}: "*)')
        clear.append(f"  tc qdisc delete dev {device} root ;;\nesac")
    return "\n".join([*clear, *lines, ""])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A class of packets that are held back: by what, and what is one of them."""

    effects: tuple[Effect, ...]
    sent: bool
    """Whether it is what this machine sends, not what comes to it."""
    others: tuple[str, ...] = ()
    """The other end's addresses; none: those outside of the lab."""
    again: bool = False
    """Answers to pings, which the program sends itself: the kernel has few to spare, for all of its namespaces."""

    def words(self) -> str:
        """Return what the program is told to do to it: seconds, seconds, two chances, and who sends it."""
        delay, jitter = sum(e.delay for e in self.effects), sum(e.jitter for e in self.effects)
        corrupt, reorder = _either(e.corrupt for e in self.effects), _either(e.reorder for e in self.effects)
        return f"{delay:g}:{jitter:g}:{corrupt:g}:{reorder:g}:{self.again:d}"


class _Rules:
    def __init__(self, here: Place, effects: Sequence[Effect], addresses: Addresses, shapers: Collection[str]) -> None:
        self._here = here
        self._effects = effects
        self._addresses = addresses
        self._shapers = shapers
        self._classes = self._classify()

    def tables(self, arriving: Sequence[str], leaving: Sequence[str], held: Sequence[_Held]) -> str:
        """Return nft's script: both tables replaced, in one transaction."""
        text = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
        if self._here.egress:
            text += f"table netdev {TABLE}\ndelete table netdev {TABLE}\n"
        chains = []
        if arriving:
            chains.append(_chain("arriving", f"prerouting priority {_BEFORE_TRACKING}", arriving))
        devices = ", ".join(sorted(set(self._here.devices.values())))
        if leaving and self._here.egress:
            leave = _chain("leaving", f"egress devices = {{ {devices} }} priority 0", leaving)
            text += f"table netdev {TABLE} {{\n{leave}}}\n"
        elif leaving:
            # The sender is told of it (EPERM), which a network would not do; better than nothing on an old kernel.
            chains.append(_chain("leaving", "postrouting priority 300", leaving))
        chains += self._holding(held)
        if chains:
            text += f"table inet {TABLE} {{\n{''.join(chains)}}}\n"
        return text

    def arriving(self) -> list[str]:
        """Return the rules for what comes in: cuts, and what is from everybody."""
        found = []
        for effect in self._effects:
            if effect.receiver not in ("", self._here.name) or effect.sender == self._here.name:
                continue
            if effect.cut:
                found += self._match(effect, "saddr", effect.sender, "drop", control="dport")
            elif effect.receiver and not effect.sender and effect.loss:
                # From each of the lab, too: they do not lose it themselves (see `leaving`).
                found += self._match(effect, "saddr", "", f"{_chance(effect.loss)}drop", control="dport")
        return found

    def leaving(self) -> list[str]:
        """Return the rules for what goes out: cuts again, losses, copies, and which queue it goes through."""
        found = []
        for effect in self._effects:
            if effect.sender not in ("", self._here.name) or effect.receiver == self._here.name:
                continue
            if effect.cut:
                found += self._match(effect, "daddr", effect.receiver, self._here.lose, control="sport")
            elif effect.loss and effect.sender:
                verdict = f"{_chance(effect.loss)}{self._here.lose}"
                found += self._match(effect, "daddr", effect.receiver, verdict, control="sport")
        for effect in self._effects if self._here.duplicates and not self._here.netem else ():
            if effect.duplicate and self._concerns(effect):
                found += self._copies(effect)
        found += self._marks()
        return found

    def _concerns(self, effect: Effect) -> bool:
        """Whether this machine is the one that does it: the sender, or of what everybody sends to one, each."""
        return effect.sender in ("", self._here.name) and effect.receiver != self._here.name

    def _copies(self, effect: Effect) -> list[str]:
        found = []
        for network, device in sorted(self._here.devices.items()):
            if effect.network in (None, network):
                verdict = f'meta mark != {_TWICE} {_chance(effect.duplicate)}meta mark set {_TWICE} dup to "{device}"'
                found += [
                    f'oifname "{device}" {rule}'
                    for rule in self._match(effect, "daddr", effect.receiver, verdict, control="sport")
                ]
        return found

    def _match(self, effect: Effect, side: str, other: str, verdict: str, *, control: str) -> list[str]:
        ports = _ports(effect.port)
        if not other:
            spared = self._spared(control) if effect.port is None else []
            return [*(f"{rule} accept" for rule in spared), *(f"{port}{verdict}" for port in ports)]
        found = []
        for family, listed in _families(self._addresses_of(other, effect.network)):
            found += [f"{family} {side} {{ {', '.join(listed)} }} {port}{verdict}" for port in ports]
        return found

    def _spared(self, side: str) -> list[str]:
        """Return what matches the packets of who controls the machine, and its neighbours' discovery."""
        if not self._here.controller:
            return []
        arp = side == "sport" and self._here.egress and ":" not in self._here.controller
        return [*(["ether type arp"] if arp else []), *self._control(side)]

    def _control(self, side: str) -> list[str]:
        """Return the same, where only packets of the internet protocol are looked at."""
        if not self._here.controller:
            return []
        family = "ip6" if ":" in self._here.controller else "ip"
        address = "daddr" if side == "sport" else "saddr"
        ports = ", ".join(map(str, self._here.control_ports))
        control = f"{family} {address} {self._here.controller} tcp {side} {{ {ports} }}"
        return ["icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }", control] if family == "ip6" else [control]

    def _addresses_of(self, machine: str, network: str | None) -> list[str]:
        places = self._addresses.get(machine, {})
        return [each for name, listed in places.items() if network in (None, name) for each in listed]

    # What is queued: which effects meet what goes to which address, and a class for each such set.

    def _classify(self) -> dict[tuple[Effect, ...], list[str]]:
        """Return the sets of effects that meet some address, and the addresses; of the rest of the world, none."""
        mine = [e for e in self._effects if self._queued(e) and e.sender in ("", self._here.name)]
        found: dict[tuple[Effect, ...], list[str]] = {}
        everywhere = tuple(e for e in mine if e.sender and not e.receiver and e.network is None)
        if everywhere:
            found[everywhere] = []
        for machine, places in self._addresses.items():
            if machine == self._here.name:
                continue
            for network, listed in places.items():
                met = tuple(e for e in mine if e.receiver in ("", machine) and e.network in (None, network))
                met = tuple(e for e in met if e.sender or e.receiver == machine)
                if met and met != everywhere:
                    found.setdefault(met, []).extend(listed)
        return found

    def _queued(self, effect: Effect) -> bool:
        if not self._here.netem:
            return effect.rate > 0
        return effect.queues or effect.duplicate > 0

    def _marks(self) -> list[str]:
        """Return the rules that tell each packet its class: for everybody first, then for who is met otherwise."""
        found = []
        spared = self._spared("sport")
        for number, (_, listed) in enumerate(self._classes.items(), 2):
            if not listed:
                found += [f"{rule} accept" for rule in spared]
                found.append(f"meta priority set {HANDLE}:{number:x}")
            for family, some in _families(listed):
                found.append(f"{family} daddr {{ {', '.join(some)} }} meta priority set {HANDLE}:{number:x}")
        return found

    # What is held back by a program: on arrival, and what goes out of the lab, which nobody there would hold.

    def held(self) -> list[_Held]:
        """Return the classes of what is held back."""
        here, mine = self._here, [e for e in self._effects if e.holds]
        come: dict[tuple[Effect, ...], list[str]] = {}
        go: dict[tuple[Effect, ...], list[str]] = {}
        for machine, places in self._addresses.items():
            if machine == here.name:
                continue
            for network, listed in places.items():
                met = [e for e in mine if e.network in (None, network)]
                ways = [(come, machine, here.name, machine in self._shapers), (go, here.name, machine, here.netem)]
                for found, sender, receiver, elsewhere in ways:
                    both = tuple(e for e in met if e.sender in ("", sender) and e.receiver in ("", receiver))
                    if both and not elsewhere:
                        found.setdefault(both, []).extend(listed)
        classes = [_Held(effects=effects, sent=False, others=tuple(listed)) for effects, listed in come.items()]
        classes += [_Held(effects=e, sent=True, others=tuple(listed), again=True) for e, listed in go.items()]
        everywhere = [e for e in mine if e.network is None and not here.netem]
        if inwards := tuple(e for e in everywhere if e.receiver == here.name and not e.sender):
            classes.append(_Held(effects=inwards, sent=False))
        if outwards := tuple(e for e in everywhere if e.sender == here.name and not e.receiver):
            classes += [_Held(effects=outwards, sent=True, again=True), _Held(effects=outwards, sent=True)]
        return classes

    def _holding(self, held: Sequence[_Held]) -> list[str]:
        """Return the chains that tell what is held back its class; the program fills the classes' own."""
        found = [f"  chain held_{number} {{\n  }}\n" for number in range(len(held))]
        came: list[str] = []
        sent = [f"meta mark {_AGAIN} accept"] if any(each.again for each in held) else []
        routed: list[str] = []
        for number, each in enumerate(held):
            goto = f"goto held_{number}"
            for family, listed in _families(each.others):
                there = f"{{ {', '.join(listed)} }}"
                if each.sent:
                    sent.append(f"{family} daddr {there} {_ECHO[family]} {goto}")
                else:
                    came += [f"{family} saddr {there} {_ECHO[family]} accept", f"{family} saddr {there} {goto}"]
            if each.others:
                continue
            if not each.sent:
                came += [*self._within("saddr", "dport"), f"iifname {self._devices} {goto}"]
            elif each.again:
                sent += self._within("daddr", "sport")
                sent += [f"oifname {self._devices} {echo} {goto}" for echo in _ECHO.values()]
            else:
                sent.append(f"oifname {self._devices} {goto}")
                routed += [f"iifname {self._devices} accept", *self._within("daddr", "sport")]
                routed.append(f"fib daddr oifname {self._devices} {goto}")
        for name, hook, rules in (
            ("came", "prerouting", came),
            ("routed", "prerouting", routed),
            ("sent", "output", sent),
        ):
            if rules:
                found.append(_chain(name, f"{hook} priority {_HOLDING}", rules))
        return found

    def _within(self, side: str, port: str) -> list[str]:
        """Return the rules that let pass what is the lab's own, and who controls the machine."""
        among = _families(ip for name in self._addresses for ip in self._addresses_of(name, None))
        found = [f"{family} {side} {{ {', '.join(listed)} }} accept" for family, listed in among]
        return found + [f"{rule} accept" for rule in self._control(port)]

    @property
    def _devices(self) -> str:
        quoted = [f'"{device}"' for device in sorted(set(self._here.devices.values()))]
        return f"{{ {', '.join(quoted)} }}"

    def queues(self) -> list[str]:
        """Return tc's commands: HTB on each interface, below it what all share, below that a class for each set."""
        if not self._classes:
            return []
        found = []
        shared = [e.rate for e in self._effects if e.sender == self._here.name and not e.receiver and e.rate]
        for device in sorted(set(self._here.devices.values())):
            found.append(f"tc qdisc add dev {device} root handle {HANDLE}: htb default 0")
            found.append(_htb(device, HANDLE, 1, min(shared, default=0)))
            for number, effects in enumerate(self._classes, 2):
                rate = min((e.rate for e in effects if e.rate), default=0)
                found.append(_htb(device, f"{HANDLE}:1", number, rate))
                if leaf := _leaf(effects if self._here.netem else (), rate):
                    found.append(f"tc qdisc add dev {device} parent {HANDLE}:{number:x} {leaf}")
        return found


def _htb(device: str, parent: str, number: int, rate: int) -> str:
    # A burst of what is sent in a hundredth of a second, but never less than two packets.
    burst = max(3200, rate // 800)
    limit = f"rate {rate}bit ceil {rate}bit burst {burst} cburst {burst}" if rate else f"rate {_FREELY}"
    above = parent if ":" in parent else f"{parent}:"
    return f"tc class add dev {device} parent {above} classid {HANDLE}:{number:x} htb {limit} quantum 60000"


def _leaf(effects: Sequence[Effect], rate: int) -> str:
    """Return the queue at the end of a class: netem, or for a rate one that holds a fifth of a second and no more.

    `effects` are those that this machine's kernel has to do; without netem the receiver's program does them.
    """
    return _netem(effects) or (f"bfifo limit {max(150_000, rate // 40)}" if rate else "")


def _netem(effects: Sequence[Effect]) -> str:
    """Return the arguments of the one netem that does what these effects do together; empty: none is needed."""
    delay, jitter = sum(e.delay for e in effects), sum(e.jitter for e in effects)
    corrupt, reorder = _either(e.corrupt for e in effects), _either(e.reorder for e in effects)
    duplicate = _either(e.duplicate for e in effects)
    words = []
    if delay or jitter:
        words.append(f"delay {delay * 1e3:g}ms" + (f" {jitter * 1e3:g}ms" if jitter else ""))
    for name, chance in (("duplicate", duplicate), ("corrupt", corrupt), ("reorder", reorder)):
        if chance:
            words.append(f"{name} {chance * 100:g}%")
    return " ".join(["netem", f"limit {_QUEUE}", *words]) if words else ""


def _either(chances: Iterable[float]) -> float:
    """Return how likely at least one of several happens."""
    none = 1.0
    for chance in chances:
        none *= 1 - chance
    return round(1 - none, 9)


def _chain(name: str, hook: str, rules: Sequence[str]) -> str:
    lines = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {name} {{\n    type filter hook {hook}; policy accept;\n{lines}  }}\n"


def _chance(chance: float) -> str:
    """Return what matches that part of all packets, with a blank behind it; of all: nothing, which nft insists on."""
    found = max(1, round(chance * 1_000_000))
    return f"numgen random mod 1000000 < {found} " if found < 1_000_000 else ""


def _ports(port: int | None) -> list[str]:
    return [""] if port is None else [f"meta l4proto {_PORTED} th {side} {port} " for side in ("dport", "sport")]


def _families(addresses: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return addresses by nft's word for their family, sorted, each once."""
    found: dict[str, set[str]] = {}
    for each in addresses:
        found.setdefault("ip6" if ":" in each else "ip", set()).add(each)
    return [(family, sorted(found[family], key=ipaddress.ip_address)) for family in sorted(found)]
