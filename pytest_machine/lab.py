"""Lab: machines that live and die together, and the networks between them.

Its machines are made in parallel, all or none. Each knows the others by name. Machines that sit on networks of the lab
talk to each other over those alone; machines that sit on none share their driver's own. What its networks are like, who
routes between them and what links do by themselves is declared once (`pytest_machine.plan`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from pytest_machine.support.folders import make_folder

from . import answers, birth, plan, presence
from .breaking import Breaking, Injection
from .capture import LIMIT, Captures
from .disturbance import Disturbance
from .driver import Driver, SupportsDisk, SupportsNetworks
from .errand import Errand
from .errors import BadSpec, CleanupFailed, CommandFailed, MachineError, UnknownMachine, WaitTimeout
from .fault import Fault
from .machine import Attachment, Machine
from .model import Id, Network, Record, Seen, Spec, State, meant, names, new_id
from .owner import host_id
from .plan import Net, Topology
from .plugins import Registry
from .reaching import reachable
from .schedule import Choice
from .store import Store, write
from .support import clock, files
from .waiting import NotYet, wait
from .ways import Placed, Ways, telling

if TYPE_CHECKING:
    from .swarm import Swarm

T = TypeVar("T")

# More at once would only make each of them slower, and a cloud's API angry.
_AT_ONCE = 32
# In a machine's directory: the script that it was told its routes by.
_TOLD = "ways"
# Seconds in which a machine has changed its routes, and those that another one's birth waits for it.
_TELLING = 60.0
_OTHERS = 5.0
# Seconds for which another thread may tell machines of each other.
_TURN = 120.0
# Seconds that whoever works on a machine that is gone gets to let go of it.
_LETTING_GO = 1.0

_log = logging.getLogger(__name__)


class Lab:
    """Several machines, by name or in the order in which they were made. A context manager: all go at the end.

    ``lab["web"]``, ``lab[0]``, ``for machine in lab``, ``len(lab)``, ``"web" in lab``.
    """

    def __init__(
        self,
        *,
        store: Store,
        registry: Registry,
        run: str = "",
        name: str = "",
        expires: float | None = None,
        witness: birth.Witness | None = None,
        id: Id | None = None,
    ) -> None:
        self.name = name
        self._witness = witness
        self._expires = expires
        self._id = id or new_id()
        self._store = store
        self._registry = registry
        self._run = run
        self._machines: dict[str, Machine] = {}
        self._networks: dict[str, Network] = {}
        self._connectors: dict[type, SupportsNetworks] = {}
        self._known: dict[str, birth.Names] = {}
        self._ended: set[str] = set()  # names of machines that were destroyed
        self._places: dict[str, Placed] = {}  # what was seen last, for those whose driver cannot be asked
        self._topology: Topology | None = None
        self._lock = threading.RLock()
        self._telling = threading.RLock()
        self._breaking = Breaking(self)

    @classmethod
    def load(
        cls,
        *,
        store: Store,
        registry: Registry,
        run: str = "",
        id: Id | None = None,
        drivers: Iterable[Driver] = (),
        witness: birth.Witness | None = None,
    ) -> Self:
        """Return the lab whose machines are noted in a store, in the order in which they were made.

        With an `id` it is that lab, maybe of no machine yet, among others in the store; without, the store is the lab's
        own. `drivers` are asked for its networks, besides those of its machines. Raises `StoreError` when a record of
        a store of its own cannot be read.
        """
        lab = cls(store=store, registry=registry, run=run, id=id, witness=witness)
        names = store.names() if id is None else [each.name for each in store.records() if each.lab == id]
        machines = [Machine.load(name, store=store, registry=registry) for name in names]
        machines.sort(key=lambda machine: machine.record.created)
        lab._machines = {machine.name: machine for machine in machines}
        lab._known = {machine.name: birth.known(machine.record) for machine in machines}
        if machines:
            lab._id = Id(machines[0].record.lab)
        lab._recall()
        lab._hold(machines)
        for driver in {
            type(driver): driver for driver in (*drivers, *(machine.driver for machine in machines))
        }.values():
            if isinstance(driver, SupportsNetworks):
                lab._connectors[type(driver)] = driver
                lab._networks |= {each.name: each for each in answers.find_networks(driver) if each.lab == lab._id}
        return lab

    @property
    def store(self) -> Store:
        """Where its machines are noted."""
        return self._store

    @property
    def registry(self) -> Registry:
        """The drivers that its machines may be of."""
        return self._registry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def __iter__(self) -> Iterator[Machine]:
        return iter(self.machines)

    def __len__(self) -> int:
        return len(self.machines)

    def __contains__(self, name: object) -> bool:
        return name in self._there

    def __getitem__(self, which: str | int) -> Machine:
        if isinstance(which, int):
            return self.machines[which]
        there = self._there
        if which in there:
            return there[which]
        destroyed = which in self._machines or which in self._ended
        raise UnknownMachine(
            f"There is no machine '{which}' in this lab" + (": it was destroyed." if destroyed else "."),
            facts={"machines": names(there)},
            hint=f"machine_factory('{which}')"
            if destroyed
            else meant(which, there) or f"@pytest.mark.machine('{which}')",
        )

    def __repr__(self) -> str:
        return f"<Lab {names(self._there)}>"

    @property
    def machines(self) -> list[Machine]:
        """The machines, in the order in which they were asked for, without those that were destroyed."""
        return list(self._there.values())

    @property
    def _there(self) -> dict[str, Machine]:
        return {name: machine for name, machine in list(self._machines.items()) if not machine.gone}

    def status(self) -> dict[Machine, Seen]:
        """Ask each driver once what its machines do; drop those that are gone, so that their names are free again.

        A machine whose driver cannot be asked is `State.ERROR`, with the reason.
        """
        for machine in [each for each in list(self._machines.values()) if each.gone]:
            self._drop_gone(machine)
        there = self.machines
        seen = presence.look((machine.driver, machine.record) for machine in there)
        for machine in there:
            if seen[machine.id].state is State.ABSENT:
                self._clear_away(machine)
        return {machine: seen[machine.id] for machine in there if seen[machine.id].state is not State.ABSENT}

    def _clear_away(self, machine: Machine) -> None:
        """Free what a machine that is gone behind our back still holds here: its record, its address, its name."""
        try:
            with self._store.lock(machine.name, timeout=_LETTING_GO):
                # Whoever makes it again has destroyed it for a moment, and holds it.
                if answers.seen(machine.driver, machine.record).state is State.ABSENT:
                    birth.end(machine.record, machine.driver, store=self._store)
                    self._drop_gone(machine)
        except (MachineError, OSError, LookupError) as error:
            _log.warning("What the machine '%s' left behind could not be cleared away: %s", machine.name, error)

    def _drop_gone(self, machine: Machine) -> None:
        with self._lock:
            if self._machines.get(machine.name) is machine:
                del self._machines[machine.name]
                self._known.pop(machine.name, None)
                self._ended.add(machine.name)
        machine.forget()

    def _hold(self, machines: Iterable[Machine]) -> None:
        for machine in machines:
            machine.equip, machine.booted = self._equip, self._booted
            machine.resumed, machine.ended = self._resumed, self._destroyed

    @property
    def networks(self) -> Mapping[str, Network]:
        """The lab's own networks, by name."""
        return dict(self._networks)

    @property
    def topology(self) -> Topology | None:
        """What was declared of it; None: nothing. Machines and networks that came later are not in it."""
        return self._topology

    def create(self, *specs: Spec) -> list[Machine]:
        """Make machines, in parallel, and put them on their networks; return them in the order of `specs`.

        Either all are ready when this returns, or none is left and this raises the error of the first that failed.
        """
        wanted = [spec.name for spec in specs if spec.name]
        seen = self.status()
        taken = {machine.name for machine in seen}
        twice = sorted({name for name in wanted if wanted.count(name) > 1 or name in taken})
        if twice:
            raise BadSpec(f"A lab cannot have two machines called {names(twice)}.", hint="give each a name of its own")
        self._declare(specs)
        begun = clock.now()
        unborn: list[birth.Unborn] = []
        try:
            # `extend` keeps what came before an error, and that must be taken back.
            unborn.extend(
                birth.note(
                    spec, store=self._store, registry=self._registry, run=self._run, lab=self._id, expires=self._expires
                )
                for spec in specs
            )
        except BaseException as error:
            for each in unborn:
                birth.undo(each.record, each.driver, store=self._store, because=error)
            raise
        made = self._bear(specs, unborn, begun, seen)
        with self._lock:
            self._machines |= {machine.name: machine for machine in made}
            # Known before there is anything to remove, and for longer than there are machines.
            self._connectors |= {type(m.driver): m.driver for m in made if isinstance(m.driver, SupportsNetworks)}
            self._ended -= {machine.name for machine in made}
            self._hold(made)
        try:
            self._connect({machine: spec.networks for machine, spec in zip(made, specs, strict=True)})
            mine = {machine.name for machine in made}
            self._tell(mine)
            self._breaking.establish(mine)
            for machine in made:
                if isinstance(machine.driver, SupportsDisk) and machine.record.options.get("disk"):
                    machine.run("sync", "-f", "/")  # what a crash must not take: it was there before the test
        except BaseException as error:
            self._drop(made, error)
            raise
        return made

    def _declare(self, specs: Sequence[Spec]) -> None:
        """Note what is declared of the lab; raises `BadSpec` when the machines to come do not go with it."""
        known = [self._topology, *(spec.topology for spec in specs)]
        declared = list({id(each): each for each in known if each is not None}.values())
        # Whoever has loaded the lab does not know what its machines were made of.
        if any(each.to_json() != declared[0].to_json() for each in declared[1:]):
            raise BadSpec("A lab has one topology.", hint="declare all of its machines in one: Topology(roles={...})")
        members = {m.name: m.record.networks for m in self.machines} | {s.name: s.networks for s in specs if s.name}
        routers = [m.name for m in self.machines if m.record.router] + [spec.name for spec in specs if spec.router]
        if not declared:
            plan.check_routers(members, routers, ())
            return
        declared[0].check(members, routers)
        if self._topology is None:
            self._topology = declared[0]
            make_folder(self._store.path)
            write(self._note, json.dumps(declared[0].to_json()).encode(), durable=False)
            self._breaking.link(declared[0])

    @property
    def _note(self) -> Path:
        return self._store.path / f"topology-{self._id}.json"

    def _recall(self) -> None:
        """Learn what was declared of the lab by whom made it."""
        with contextlib.suppress(OSError, ValueError, BadSpec):
            self._topology = Topology.from_json(files.read_table(self._note))
            self._breaking.link(self._topology)

    def _bear(
        self, specs: Sequence[Spec], unborn: Sequence[birth.Unborn], begun: float, seen: Mapping[Machine, Seen]
    ) -> list[Machine]:
        talking = {
            each.record.name: each.record.address.among
            for each, spec in zip(unborn, specs, strict=True)
            if each.record.address is not None and not spec.networks
        }
        older = {m.name: m.address.among for m, at in seen.items() if m.record.address is not None and not at.networks}
        everyone = tuple({**older, **talking}.items())

        turn = threading.Semaphore(_AT_ONCE)
        bearings: list[Errand[Record]] = []
        made: list[Machine] = []
        errors: list[BaseException] = []
        try:
            for each, spec in zip(unborn, specs, strict=True):
                known = self._known[each.record.name] = () if spec.networks else everyone
                bearings.append(birth.bearing(each, store=self._store, names=known, turn=turn, witness=self._witness))
            for each, bearing in zip(unborn, bearings, strict=True):
                try:
                    record = birth.born(each, bearing)
                except Exception as error:  # noqa: BLE001  # raised below, when all have ended
                    errors.append(error)
                else:
                    made.append(Machine(record, driver=each.driver, store=self._store, registry=self._registry))
                    made[-1].seconds = (record.ready or clock.now()) - begun
        except BaseException as error:
            birth.abandon(itertools.zip_longest(unborn, bearings), store=self._store, because=error)
            raise
        if errors:
            self._drop(made, errors[0])
            for other in errors[1:]:
                errors[0].add_note(f"Another machine failed too: {other}")
            raise errors[0]
        return made

    def _connect(self, wanted: Mapping[Machine, Sequence[str]]) -> None:
        """Put machines on networks, all of those at once, and yet always in the same order.

        On each network one machine after the other, as they have their addresses; each machine on one of its networks
        after the other, as it has its interfaces after a boot.
        """
        known = {name: self.network(name) for own in wanted.values() for name in own}
        # Those first whose subnet is given, so that none of the others takes it.
        for given in (True, False):
            now = {name: network for name, network in known.items() if bool(network.subnet) is given}
            steps = {machine: [name for name in own if name in now] for machine, own in wanted.items()}
            done = {(machine.name, name): threading.Event() for machine, own in steps.items() for name in own}

            def connect(
                network: Network,
                steps: Mapping[Machine, list[str]] = steps,
                done: Mapping[tuple[str, str], threading.Event] = done,
            ) -> None:
                mine = [machine for machine, own in steps.items() if network.name in own]
                try:
                    for machine in mine:
                        place = steps[machine].index(network.name)
                        for before in steps[machine][:place]:
                            done[machine.name, before].wait()
                        machine.connect(network)
                        done[machine.name, network.name].set()
                finally:  # who waits for one that has failed goes on; the error is raised when all have ended
                    for machine in mine:
                        done[machine.name, network.name].set()

            # Each may wait for any other, so all are at work.
            self._each(connect, list(now.values()), at_once=len(now) or 1)

    def _each(self, do: Callable[[T], object], things: Iterable[T], *, at_once: int = _AT_ONCE) -> None:
        """Do something to several things, in parallel; all are tried, then the first error is raised."""
        turn = threading.Semaphore(at_once)
        going = [Errand(functools.partial(do, each), turn=turn) for each in things]
        errors: list[Exception] = []
        for each in going:
            try:
                each.result()
            except Exception as error:  # noqa: BLE001  # raised below, when all have ended
                errors.append(error)
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"Another machine failed too: {other}")
            raise errors[0]

    def mend(self) -> None:
        """Put every machine that runs on the networks that it was asked for with, and tell it the others' names.

        Idempotent: this ends what a killed process has begun. A machine that does not run is told when it has booted.
        """
        self._rejoin([machine for machine, seen in self.status().items() if seen.state is State.RUNNING])
        self._tell()

    def _rejoin(self, machines: Sequence[Machine]) -> None:
        lacking: dict[Machine, list[str]] = {}
        for machine in machines:
            on = machine.networks if machine.record.networks else {}
            lacking[machine] = [name for name in machine.record.networks if name not in on]
        self._connect(lacking)

    @contextlib.contextmanager
    def resetting(self, *which: str) -> Iterator[list[Machine]]:
        """Let machines be reset in a block: they leave networks that they were not asked for with, and rejoin others.

        Yields those whose names are given. What they are when the block is over is what they are noted as.
        """
        going = [self[name] for name in which]
        for machine in going:
            for name in machine.networks if self._networks else ():
                if name not in machine.record.networks:
                    machine.disconnect(self.network(name))
        yield going
        if self._networks:
            before = {machine: set(machine.networks) for machine in going}
            self._rejoin(going)
            told = self._tell({machine.name for machine in going})
            for machine in going:
                if machine.name in told or set(machine.networks) != before[machine]:
                    machine.note()

    def attach(self, machine: str | Machine, network: str | Network) -> Attachment:
        """Put a running machine on a network of the lab, by name or as in `networks`; return its place there.

        It stays there through boots; names, routes and faults follow at once. A name that the lab does not know is a
        new network, unless the lab has a topology: then it raises `BadSpec`. Again: nothing happens.
        """
        one = self._one(machine)
        name = network if isinstance(network, str) else network.name
        if name in self._networks and (there := one.networks.get(name)):
            return there
        if self._topology is not None:
            members = {each.name: tuple(each.networks) for each in self.machines}
            members[one.name] = tuple(dict.fromkeys((*members[one.name], name)))
            self._topology.check(members, [each.name for each in self.machines if each.record.router])
        link = one.connect(self.network(name))
        if isinstance(one.driver, SupportsNetworks):
            self._connectors[type(one.driver)] = one.driver
        self._tell({one.name})
        self._breaking.readdress({one.name})
        return link

    def detach(self, machine: str | Machine, network: str | Network) -> None:
        """Take a machine off a network of the lab; names, routes and faults follow at once. Again: nothing happens.

        Raises `BadSpec` for a network that the lab does not have.
        """
        name = network if isinstance(network, str) else network.name
        self._know_network(name)
        one = self._one(machine)
        one.disconnect(self._networks[name])
        self._tell({one.name})
        self._breaking.readdress({one.name})

    def network(self, name: str) -> Network:
        """Return the lab's network of that name, noted now if it is new, with what is declared of it."""
        with self._lock:
            if name not in self._networks:
                plan.check_network(name)
                declared = self._topology.networks.get(name) if self._topology else None
                net, id_ = declared or Net(), new_id()
                self._networks[name] = Network(
                    id=id_,
                    name=name,
                    subnet=net.subnet,
                    subnet6=net.ipv6 if isinstance(net.ipv6, str) else plan.ula(id_) if net.ipv6 else "",
                    mtu=net.mtu,
                    isolated=net.isolated,
                    store=self._store.path,
                    host=host_id(),
                    run=self._run,
                    lab=self._id,
                    created=clock.now(),
                )
            return self._networks[name]

    def _know_network(self, name: str) -> None:
        if name not in self._networks:
            raise BadSpec(
                f"There is no network '{name}' in this lab.",
                facts={"networks": names(self._networks) or "none but the driver's own"},
                hint=meant(name, self._networks) or f"@pytest.mark.machine('web', networks=['{name}'])",
            )

    def _placed(self, seen: Mapping[Machine, Seen]) -> dict[str, Placed]:
        """Return where each machine is, by what its driver sees now, or saw last if it cannot be asked."""
        placed: dict[str, Placed] = {}
        for machine, at in seen.items():
            by_lab = bool(machine.record.networks) or machine.record.address is None
            if at.state is State.ERROR and machine.name in self._places:
                placed[machine.name] = self._places[machine.name]
                continue
            placed[machine.name] = Placed(
                links=machine.links_of(at) if self._networks else {},
                among="" if by_lab else machine.address.among,
                router=machine.record.router,
            )
        self._places = placed
        return placed

    def _tell(self, mine: Collection[str] = (), *, again: str = "") -> set[str]:
        """Tell each machine that runs and has SSH whom it knows by name and by whom it reaches others.

        Return the names of those that were told: all that do not know it yet, and the one that has booted and forgotten
        it (`again`). An error of a machine that this is for, one of `mine`, is raised. The others are bookkeeping: each
        gets a few seconds, its error is logged, and it is told the next time.
        """
        if not self._telling.acquire(timeout=_TURN):
            raise WaitTimeout(
                f"The machines of the lab were not told of each other within {_TURN:g} s.",
                facts={"last seen": "another thread still tells them"},
                hint="lab.mend()",
            )
        try:
            seen = self.status()
            placed = self._placed(seen)
            ways = Ways(placed, self._subnets(placed))
            told: set[str] = set()

            def tell(machine: Machine) -> None:
                known, script = ways.names(machine.name), ways.script(machine.name)
                note = machine.record.directory / _TOLD
                before = ""
                with contextlib.suppress(*files.UNREADABLE):  # absent, or damaged: the machine is told all again
                    before = files.read_text(note)
                new = _by_name(known) != _by_name(self._known.get(machine.name, ())) or machine.name == again
                if not new and script == before:
                    return
                content = birth.hosts(machine.record, known) if new else None
                root = () if machine.address.user == "root" else ("sudo", "-n")
                limit = _TELLING if machine.name in mine else _OTHERS
                machine.run(*root, "sh", "-c", telling(content, script, before), timeout=limit)
                if new:
                    birth.write_hosts(machine.record, known)
                self._known[machine.name] = known
                write(note, script.encode(), durable=False)
                told.add(machine.name)

            def try_to_tell(machine: Machine) -> None:
                try:
                    tell(machine)
                except (MachineError, OSError) as error:
                    if machine.name in mine:
                        raise
                    _log.warning("The machine '%s' was not told of the others: %s", machine.name, error)

            self._each(try_to_tell, [machine for machine, at in seen.items() if _listens(machine, at)])
            return told
        finally:
            self._telling.release()

    def _subnets(self, placed: Mapping[str, Placed]) -> Mapping[str, Network]:
        """Return the networks with the subnets that their driver has chosen, where routes lead to them."""
        if not any(place.router for place in placed.values()):
            return self._networks
        found = dict(self._networks)
        for driver in self._connectors.values():
            found |= {each.name: each for each in answers.find_networks(driver) if each.lab == self._id}
        return found

    def _equip(self, machine: Machine) -> None:
        """Give a machine that has booted what it has of its lab at all times."""
        if self._machines.get(machine.name) is machine:
            # Names outlive a boot; what it missed while it was away it is told now, too.
            self._tell({machine.name}, again=machine.name if self._networks else "")
            self._breaking.equip(machine)

    def _resumed(self, machine: Machine) -> None:
        """Tell a machine that was frozen what it missed."""
        if self._machines.get(machine.name) is machine:
            self._tell()

    def _destroyed(self, machine: Machine) -> None:
        """Drop a machine that was destroyed, and let the others know it no more."""
        if self._machines.get(machine.name) is machine:
            self._drop_gone(machine)
            try:
                self._tell()
            except (MachineError, OSError) as error:
                _log.warning("The others were not told that the machine '%s' is gone: %s", machine.name, error)

    def _booted(self, machine: Machine) -> None:
        """Put in force at a machine that has booted what is in force."""
        self._breaking.booted(machine)

    def swarm(
        self,
        *,
        managers: Iterable[str | Machine] = (),
        workers: Iterable[str | Machine] | None = None,
        timeout: float = 60.0,
    ) -> Swarm:
        """Return the Swarm of its machines, formed now if there is none, and ready.

        Without names it is the one that there is, or one of all machines with the first as its manager. With names, it
        is of these managers and these workers; with `managers` alone, all other machines are workers. `timeout` is in
        seconds. Raises what `Swarm.form` raises.
        """
        from .roles import assign
        from .swarm import Swarm

        leading = [self._one(each).name for each in managers]
        running = [machine for machine, seen in self.status().items() if seen.state is State.RUNNING]
        following = [self._one(each).name for each in (running if workers is None else workers)]
        if not leading and workers is None and (there := Swarm.found(running)) is not None:
            if len(running) == len(self):
                return there.form(timeout=timeout)
            there.wait_ready(timeout=timeout)  # a member that is away for a while is no reason to leave
            return there
        said = dict.fromkeys(following, "" if workers is None else "worker") | dict.fromkeys(leading, "manager")
        roles = assign(said)
        return Swarm([self[name] for name in roles.managers], [self[name] for name in roles.workers]).form(
            timeout=timeout
        )

    # What goes wrong in it.

    def inject(self, fault: Fault | type[Fault]) -> Injection:
        """Let something go wrong: ``with lab.inject(Partition(["a"], ["b"])): ...``; in force when this returns.

        Healed at the end of the block, or by `Injection.heal`, or by `heal`. Raises `Unsupported` where it cannot be.
        """
        return self._breaking.inject(fault)

    def heal(self) -> None:
        """End every fault in force, and undo what an earlier owner of the machines left; again: nothing happens."""
        self._breaking.heal()

    def disturb(
        self, *, seed: int | None = None, faults: Sequence[Choice] = (), every: float = 2.0, stacked: int = 1
    ) -> Disturbance:
        """Let things go wrong at random for as long as a block lasts: ``with lab.disturb(faults=[Partition, Pause]):``.

        About each `every` seconds one begins, with at most `stacked` in force at once. The seed is printed, and the
        same seed does the same again. `faults` are kinds, of which any may be drawn, or faults as they are to be; none:
        partitions, pauses and kills. What cannot be done here is left out, and said.
        """
        return self._breaking.disturb(seed, faults or _disturbing(), every=every, stacked=stacked)

    def watch_faults(self, witness: Callable[[Injection], None]) -> None:
        """Have a function called with every fault that is over."""
        self._breaking.witness = witness

    @property
    def faults(self) -> list[Injection]:
        """What is in force, in the order in which it was injected."""
        return self._breaking.injections

    @property
    def disturbances(self) -> list[Disturbance]:
        """The random schedules that are being carried out."""
        return self._breaking.disturbances

    def note_failure(self, error: BaseException) -> None:
        """Note what is in force while an error passes by, before it is healed; pytest's report draws it."""
        self._breaking.failing(error)

    def faults_at(self, error: BaseException | None) -> list[Injection]:
        """Return what was in force when that error was raised, if it was noted, and what is in force now otherwise.

        Forgotten when it is asked for.
        """
        return self._breaking.at_failure(error)

    def draw(self, path: str | os.PathLike[str], *, title: str = "") -> Path:
        """Write a drawing (SVG) of the machines, their networks and the faults in force; return its path.

        What is cut is drawn cut. Missing directories are made. Raises `OSError` where it cannot be written.
        """
        from . import drawing, sketch

        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(drawing.svg(sketch.scene(self, title=title or self.name)), "utf-8")
        return target

    # What a test asks of it.

    def reachable(
        self,
        here: str | Machine,
        there: str | Machine,
        *,
        port: int | None = None,
        network: str | None = None,
        ipv6: bool = False,
        timeout: float = 1.0,
    ) -> bool:
        """Return whether a packet from one machine reaches another and an answer comes back, within `timeout` seconds.

        With `port`, by a TCP connection: one that is refused has arrived, too. Without, by a ping. To its address on
        `network`, or on the first that both are on; where there is none, to each that it has: a router may lead there.
        With `ipv6`, to its IPv6 addresses; a machine that has none is not reached. Raises `BadSpec` for a network that
        the lab does not have.
        """
        a, b = self._one(here), self._one(there)
        if network is not None:
            self._know_network(network)
        if a.state is not State.RUNNING or b.state in (State.STOPPED, State.ABSENT):
            return False
        return reachable(a, b, port=port, network=network, ipv6=ipv6, timeout=timeout)

    def capture(
        self,
        directory: str | os.PathLike[str],
        *,
        network: str | None = None,
        only: str = "",
        limit: int = LIMIT,
    ) -> Captures:
        """Capture packets of all machines for as long as a block lasts: ``with lab.capture(tmp_path): ...``.

        Of those that run and sit on `network`, or of all that run, on the first network of each. Writes a file for each
        machine, ``NAME.pcap``. Raises what `Machine.capture` raises; then nothing is captured.
        """
        seen = self.status()
        on = [machine for machine, at in seen.items() if network is None or network in at.networks]
        # Among machines that have SSH, one without can say nothing; where none has it, it says why.
        chosen = [machine for machine in on if _listens(machine, seen[machine])] or on
        if network is not None and not chosen:
            raise BadSpec(
                f"No machine of this lab is on a network '{network}'.",
                facts={"networks": names(self._networks)},
                hint=f"@pytest.mark.machine('web', networks=['{network}'])",
            )
        found = Captures()
        errands = [
            Errand(functools.partial(each.capture, Path(directory) / f"{each.name}.pcap", network=network, only=only,
                                     limit=limit))
            for each in chosen
        ]  # fmt: skip
        errors: list[BaseException] = []
        for errand in errands:
            try:
                found.append(errand.result())
            except BaseException as error:  # noqa: BLE001  # raised below, when all have ended
                errors.append(error)
        if errors:
            found.close()
            raise errors[0]
        return found

    def wait_until(self, check: Callable[[], T], what: str = "", *, timeout: float = 60.0, every: float = 0.1) -> T:
        """Call `check` until it returns something true, and return that; raises `WaitTimeout` with what was last seen.

        An assertion that fails in it, a machine or a service that does not answer yet: it is called again.
        """

        def true() -> T:
            try:
                found = check()
            except (AssertionError, CommandFailed) as error:
                raise NotYet(str(error)) from error
            if not found:
                raise NotYet(repr(found))
            return found

        return wait(true, what or getattr(check, "__name__", "What was waited for"), timeout=timeout, every=every)

    def _one(self, machine: str | Machine) -> Machine:
        return self[machine] if isinstance(machine, str) else machine

    def destroy(self, *, kill: bool = False) -> None:
        """Destroy every machine, in parallel, then the networks. Idempotent.

        Everything is tried; what could not be destroyed is in one `CleanupFailed`.
        """
        with self._lock:
            going, self._machines = list(self._machines.values()), {}
        errors = self._end(going, kill=kill) + self._remove_networks()
        if errors:
            raise CleanupFailed("Not everything of the lab could be destroyed.", errors, hint="pytest-machine prune")
        self._note.unlink(missing_ok=True)

    def _remove_networks(self) -> list[Exception]:
        """Remove every network; one that Ctrl-C left, or whose machines went before, is still known the next time."""
        errors: list[Exception] = []
        for name, network in self.networks.items():
            for driver in self._connectors.values():
                try:
                    driver.remove_network(network)
                except Exception as error:  # noqa: BLE001  # gathered, as above
                    errors.append(error)
            with self._lock:
                self._networks.pop(name, None)
        return errors

    def _end(self, machines: Sequence[Machine], *, kill: bool) -> list[Exception]:
        def end(machine: Machine) -> Exception | None:
            try:
                machine.destroy(kill=kill)
            except Exception as error:  # noqa: BLE001  # gathered: one machine's trouble must not keep the others alive
                return error
            return None

        turn = threading.Semaphore(_AT_ONCE)
        # Should Ctrl-C come now, they go on without us.
        ends = [Errand(functools.partial(end, machine), turn=turn) for machine in machines]
        return [error for error in (each.result() for each in ends) if error is not None]

    def _drop(self, machines: Sequence[Machine], because: BaseException) -> None:
        with self._lock:
            for machine in machines:
                self._machines.pop(machine.name, None)
        errors = self._end(machines, kill=True)
        if not self.machines:
            errors += self._remove_networks()
        for error in errors:
            because.add_note(f"Besides: {error}")

    def release(self) -> None:
        """Let all machines and networks live on by themselves: the lab knows them no more, and will not end them."""
        self.close()
        with self._lock:
            self._machines, self._networks = {}, {}

    def close(self) -> None:
        """Close the connections to its machines; they go on."""
        for machine in self.machines:
            machine.close()

    def remove(self, machine: Machine, *, kill: bool = False) -> None:
        """Destroy one of the machines; the others go on, and know it no more."""
        machine.destroy(kill=kill)

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Set the first machine's variables for a while; a lab without machines sets none."""
        with self.machines[0].environment() if self.machines else contextlib.nullcontext():
            yield


def _listens(machine: Machine, seen: Seen) -> bool:
    """Return whether a machine can be told anything now: it runs, and there is SSH to it."""
    return seen.state is State.RUNNING and machine.record.address is not None and machine.record.address.ssh_port != 0


def _by_name(known: birth.Names) -> dict[str, list[str]]:
    """Return each name's addresses: their order counts, that of names does not."""
    found: dict[str, list[str]] = {}
    for name, address in known:
        found.setdefault(name, []).append(address)
    return found


def _disturbing() -> Sequence[Choice]:
    from .faults.network import Partition
    from .faults.power import Kill, Pause

    return (Partition, Pause, Kill)
