"""Breaking: the faults in force in one lab, and that all of them end.

Whatever a fault does in a machine, what undoes it lies there first, in a directory that a boot empties. So healing is
total without knowing what there is to heal, it can be done by another process, and a machine that comes back from a
boot or from being frozen is healed of all and then told what is in force now.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from . import answers, engine, presence
from .disturbance import Disturbance
from .driver import SupportsDisk
from .errors import BadSpec, CleanupFailed, ConnectFailed, MachineError, UnknownMachine, Unsupported, WaitTimeout
from .fault import Fault, Field, Host, OfMachines, SupportsRenewal, is_fault
from .faults.network import KEY, NetworkFault, enforce
from .faults.network.script import Effect
from .model import DiskTrouble, Id, Isolation, Result, Seen, State, Value, meant, names
from .schedule import Choice, steps
from .support import clock
from .waiting import wait

if TYPE_CHECKING:
    from .lab import Lab
    from .machine import Machine
    from .plan import Topology

T = TypeVar("T")
H = TypeVar("H", bound=Host)

# A login without a shell of its own does not find ``nft`` in Debian.
_PATH = "export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH\n"
_UNDOS = "/run/pytest-machine-faults"

_UPSET = """\
umask 077 && mkdir -p {undos} && cat >{undos}/{key}.new <<'END-OF-UNDO' || exit
{undo}
END-OF-UNDO
if cmp -s {undos}/{key}.new {undos}/{key}; then rm {undos}/{key}.new
else mv {undos}/{key}.new {undos}/{key}; fi || exit
umask 022
{script}"""
_SETTLE = """\
for each in {undos}/{pattern}; do
  [ ! -e "$each" ] || [ "$each" = {undos}/{keep} ] || {{ sh "$each" && rm -f "$each"; }} || bad=1
done
[ ! -e {undos} ] || rmdir --ignore-fail-on-non-empty {undos} 2>/dev/null
[ -z "$bad" ]"""

# Seconds that Docker gets to answer again once nothing keeps it from it.
_BACK = 60.0
# Seconds in which what undoes faults has run in a machine: of the first try, and of another one by a new connection.
_UNDOING = (20.0, 40.0)
# Seconds that a script gets in a machine that it is not mainly for.
_OTHERS = 5.0
# Seconds for which another thread may inject or heal.
_TURN = 180.0

_log = logging.getLogger(__name__)


class Injection:
    """One fault in force. A context manager: healed at the end of the block; so does `heal`, once and for all."""

    def __init__(self, breaking: Breaking, fault: Fault) -> None:
        self.fault = fault
        self.token = secrets.token_hex(4)
        """Its own name, in the machines."""
        self.begun = clock.now()
        """Unix time, seconds."""
        self.ended: float | None = None
        """Unix time, once it is healed."""
        self.touched: set[str] = set()
        """Names of the machines that something was done to."""
        self.said: list[str] = []
        """How it is done, where that is not the best way."""
        self.scheduled = False
        """Whether it is part of a `Disturbance`, which heals it in time."""
        self._breaking = breaking

    def __repr__(self) -> str:
        return f"<Injection of {self}{'' if self.active else ', healed'}>"

    def __str__(self) -> str:
        return ", ".join([repr(self.fault), *self.said])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if error is not None:
            self._breaking.failing(error)
        self.heal()

    @property
    def active(self) -> bool:
        """Whether it is in force."""
        return self in self._breaking.injections

    def heal(self) -> None:
        """End it, and nothing but it; again: nothing happens."""
        self._breaking.heal_one(self)


class Links(NetworkFault):
    """What the links of a topology do at all times: no fault, but in force in the same way, and together with them."""

    def __init__(self, declared: Topology) -> None:
        self.topology = declared

    def ends(self, machines: Sequence[str]) -> set[str]:
        """Return those of the machines that are at the end of a link."""
        return {end for each in self.topology.impairments(machines) for end in (each.sender, each.receiver)}

    def check_networks(self, field: Field) -> None:
        """Take every network: one that all machines have been taken off may be used again."""

    def effects(self, machines: Sequence[str]) -> list[Effect]:
        """Return what they do between these machines."""
        return [
            Effect(
                sender=each.sender,
                receiver=each.receiver,
                network=each.network,
                delay=each.delay,
                jitter=each.jitter,
                loss=each.loss,
                rate=each.rate,
            )
            for each in self.topology.impairments(machines)
        ]


class Breaking:
    """The faults of one lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._injections: list[Injection] = []
        self._facts: dict[Id, dict[str, object]] = {}
        self._swept = False
        self._links: Links | None = None
        self.upset: set[Id] = set()
        """Machines that something was done to from within."""
        self.troubled: set[Id] = set()
        """Machines whose disk has, or had, trouble."""
        self.witness: Callable[[Injection], None] | None = None
        """Called with each that is over."""
        self._disturbances: list[Disturbance] = []
        self._failed: tuple[BaseException, list[Injection]] | None = None
        self._lock = threading.RLock()
        # Threads that work for the one that holds the lock: it waits for them, so they must not wait for it.
        self.helping = threading.local()

    @property
    def injections(self) -> list[Injection]:
        """What is in force, in the order in which it was injected."""
        return list(self._injections)

    def failing(self, error: BaseException) -> None:
        """Note what is in force when something fails, before it is healed for that, blocks from within first."""
        before = self._known_of(error)
        self._failed = (error, [*before, *(one for one in self._injections if one not in before)])

    def at_failure(self, error: BaseException | None) -> list[Injection]:
        """Return what was in force when that was raised, or what led to it; nothing was noted: what is in force now.

        Asked once: then it is forgotten, and with it the error and all that its traceback holds.
        """
        found = self._known_of(error)
        self._failed = None
        return found or self.injections

    def _known_of(self, error: BaseException | None) -> list[Injection]:
        noted, injections = self._failed or (None, [])
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            if error is noted:
                return injections
            seen.add(id(error))
            error = error.__cause__ or error.__context__
        return []

    def inject(self, fault: Fault | type[Fault], *, scheduled: bool = False) -> Injection:
        """Let something go wrong; in force when this returns."""
        one = fault() if isinstance(fault, type) else fault
        if not is_fault(one):
            raise BadSpec(
                f"{one!r} is no fault.",
                hint="from pytest_machine import Partition; lab.inject(Partition(['a'], ['b']))",
            )
        injection = Injection(self, one)
        injection.scheduled = scheduled
        with self._turn(f"The fault {one!r} was not injected"):
            if not self._swept:
                self._inherit()
                self._swept = True
            self._injections.append(injection)
            try:
                field = _Field(self, injection)
                if isinstance(injection.fault, OfMachines):
                    field.chosen(injection.fault.machines)
                injection.fault.inject(field)
            except BaseException as error:
                try:
                    self.heal_one(injection)
                except (MachineError, OSError) as other:
                    error.add_note(f"Besides: {other}")
                raise
        return injection

    def heal_one(self, injection: Injection) -> None:
        """End one of them."""
        with self._turn(f"The fault {injection.fault!r} was not healed"):
            if injection not in self._injections:
                return
            self._injections.remove(injection)
            try:
                injection.fault.heal(_Field(self, injection))
            finally:
                injection.ended = clock.now()
                if self.witness is not None:
                    self.witness(injection)
                if not self._injections:
                    self._sweep()

    def heal(self) -> None:
        """End all of them, the last one first, and whatever else is left in the machines; again: nothing happens.

        Everything is tried; what could not be undone is in one `CleanupFailed`.
        """
        errors: list[Exception] = []
        for disturbance in self.disturbances:  # before the lock is held, for which its thread may be waiting
            errors += _tried(disturbance.stop)
        with self._turn("The faults of the lab were not healed"):
            for injection in self.injections[::-1]:
                errors += _tried(self.heal_one, injection)
            errors += _tried(self._sweep if self._swept else self._inherit)
        if errors:
            raise CleanupFailed("Not every fault could be healed.", errors, hint="lab.destroy()")

    def _inherit(self) -> None:
        """Heal what another process left, who had these machines before and was killed."""
        field = _Field(self, None)

        def clear(host: _Host) -> None:
            try:
                # What its links do is put in force below, in place of whatever was, and is not taken away before.
                host.clear(keep=self._kept(host.name))
            except ConnectFailed:
                pass  # who cannot be entered cannot have been broken from within
            except (MachineError, OSError) as error:
                _log.warning("What an earlier owner did to the machine '%s' was not undone: %s", host.name, error)

        hosts = field.hosts.values()
        field.each([host for host in hosts if host.disk and host.state is not State.ABSENT], lambda host: host.mend())
        field.each([host for host in hosts if host.state is State.RUNNING and host.logs_in], clear)
        self.establish()

    def _sweep(self) -> None:
        """Undo what is left in the machines, but for what their links do at all times."""
        field = _Field(self, None)
        left = [host for host in field.hosts.values() if host.id in self.troubled]
        field.each(left, lambda host: host.mend())
        field.each(list(field.hosts.values()), lambda host: host.settle("*", keep=self._kept(host.name)))

    def _kept(self, machine: str) -> str:
        there = [each.name for each in self._lab.machines]
        return KEY if self._links is not None and machine in self._links.ends(there) else ""

    # What is so without anybody's injecting it.

    def link(self, topology: Topology) -> None:
        """Note what links do; `establish` puts it in force."""
        self._links = Links(topology)

    @property
    def standing(self) -> list[Fault]:
        """What the links of the lab do, as a fault that nothing heals."""
        there = [machine.name for machine in self._lab.machines]
        return [self._links] if self._links is not None and self._links.ends(there) else []

    def establish(self, mine: Collection[str] | None = None) -> None:
        """Put in force what links do. Idempotent. Raises `Unsupported` where a kernel cannot.

        With `mine`, names of machines, an error of any other machine is logged and not raised.
        """
        with self._turn("What the links of the lab do was not put in force"):
            for fault in self.standing:
                fault.inject(_Field(self, None, mine=mine))

    def readdress(self, mine: Collection[str] | None = None) -> None:
        """Put what is in force in force again, because machines have other addresses; `mine` as in `establish`."""
        with self._turn("The faults of the lab did not follow the machines' addresses"):
            field = _Field(self, None, mine=mine)
            if any(isinstance(fault, NetworkFault) for fault in field.active):
                enforce(field, list(field.hosts.values()))

    def equip(self, machine: Machine) -> None:
        """Heal a machine that has booted, and put in force at it what its links do at all times."""
        with self._alone():
            self._facts.pop(machine.id, None)
            if machine in self._lab.machines:
                self._equip(machine)

    def booted(self, machine: Machine) -> None:
        """Put in force at a machine that has booted what is in force."""
        with self._alone():
            if machine in self._lab.machines:
                self._renew(machine)

    def renew(self, machine: Machine) -> None:
        """Heal a machine that was away, and put in force at it what is in force now."""
        with self._alone():
            if machine in self._lab.machines:
                self._equip(machine)
                self._renew(machine)

    def _alone(self) -> contextlib.AbstractContextManager[object]:
        helping = getattr(self.helping, "now", False)
        return (
            contextlib.nullcontext() if helping else self._turn("The faults of a machine that has booted did not come")
        )

    @contextlib.contextmanager
    def _turn(self, otherwise: str) -> Iterator[None]:
        """Hold the faults of the lab; raise `WaitTimeout`, which says `otherwise`, when another thread keeps them."""
        if not self._lock.acquire(timeout=_TURN):
            raise WaitTimeout(
                f"{otherwise} within {_TURN:g} s.",
                facts={"last seen": "another thread still injects or heals faults of this lab"},
                hint="lab.faults says what is in force; lab.destroy() ends it all",
            )
        try:
            yield
        finally:
            self._lock.release()

    def _equip(self, machine: Machine) -> None:
        field = _Field(self, None, standing=True, mine={machine.name})
        host = field.hosts.get(machine.name)
        if host is None:
            return  # it has just gone
        host.settle("*")
        if self._kept(machine.name) and self._links is not None:
            # Here alone: the others have theirs, and may have more, which this would lift.
            enforce(field, [host])

    def _renew(self, machine: Machine) -> None:
        for injection in self.injections:
            field = _Field(self, injection, mine={machine.name})
            host = field.hosts.get(machine.name)
            # One that a fault has frozen again answers nothing: this goes on when it is resumed.
            if isinstance(injection.fault, SupportsRenewal) and host is not None and host.state is State.RUNNING:
                injection.fault.renew(field, host)

    def disturb(self, seed: int | None, faults: Sequence[Choice], *, every: float, stacked: int) -> Disturbance:
        """Return a random schedule of faults, to be carried out."""
        chosen = secrets.randbelow(1 << 32) if seed is None else seed
        machines = [machine.name for machine in self._lab.machines]

        def tell(line: str) -> None:
            print(f"machine: faults: {line}", flush=True)  # pytest shows it with a test that fails

        found = steps(chosen, machines, faults, every=every, stacked=stacked)
        for choice in faults:
            self._check_names(choice, machines)
        tell(f"lab.disturb(seed={chosen}, every={every:g}, stacked={stacked}) does it again")
        disturbance = Disturbance(self, chosen, found, tell=tell)
        self._disturbances.append(disturbance)
        return disturbance

    def _check_names(self, choice: Choice, machines: Sequence[str]) -> None:
        """Raise `UnknownMachine` or `BadSpec` for a fault that makes no sense among these machines."""
        given: object = choice  # of a kind, what is drawn names nobody who is not there
        if isinstance(given, OfMachines):
            _Field(self, None).chosen(given.machines)
        elif isinstance(given, NetworkFault):
            given.check(machines)

    @property
    def disturbances(self) -> list[Disturbance]:
        """The schedules that are being carried out."""
        self._disturbances = [each for each in self._disturbances if not each.over]
        return [each for each in self._disturbances if each.running]

    def facts_of(self, machine: Machine) -> dict[str, object]:
        """Return what is known of it since it booted."""
        return self._facts.setdefault(machine.id, {})

    @property
    def lab(self) -> Lab:
        """The lab."""
        return self._lab


def _tried(do: Callable[..., object], *args: object) -> list[Exception]:
    try:
        do(*args)
    except (MachineError, OSError) as error:
        return [error]
    return []


class _Field:
    """What one injection sees of its lab: `pytest_machine.fault.Field`."""

    def __init__(
        self,
        breaking: Breaking,
        injection: Injection | None,
        *,
        standing: bool = False,
        mine: Collection[str] | None = None,
    ) -> None:
        self._breaking = breaking
        self._mine = mine  # names of the machines whose errors count; None: all
        self._standing = standing  # as if nothing were injected
        self.token = injection.token if injection else ""
        self.touched = injection.touched if injection else set()
        self._said = injection.said if injection else []
        # A machine that is gone is none of the field's: nothing can be done to it, and nothing is left of it to heal.
        there = breaking.lab.status()
        self.hosts: Mapping[str, _Host] = {machine.name: _Host(machine, self, breaking) for machine in there}
        self._seen: dict[Id, Seen] = {machine.id: seen for machine, seen in there.items()}

    @property
    def active(self) -> Sequence[Fault]:
        injected = [] if self._standing else self._breaking.injections
        return [*self._breaking.standing, *(injection.fault for injection in injected)]

    def chosen(self, wanted: Sequence[str]) -> list[Host]:
        for name in wanted:
            if name not in self.hosts:
                raise UnknownMachine(
                    f"There is no machine '{name}' in this lab.",
                    facts={"machines": names(self.hosts)},
                    hint=meant(name, self.hosts) or f"@pytest.mark.machine('{name}')",
                )
        return [self.hosts[name] for name in wanted or list(self.hosts)[-1:]]

    def say(self, text: str) -> None:
        if text not in self._said:
            self._said.append(text)

    def having(self, need: str) -> list[str]:
        return self._breaking.lab.registry.having(need)

    def is_aside(self, name: str) -> bool:
        """Whether a machine is one that this is not mainly for: it gets a few seconds, and its errors are logged."""
        return self._mine is not None and name not in self._mine

    def each(self, hosts: Sequence[H], work: Callable[[H], T]) -> list[T]:
        if len(hosts) == 1 and not self.is_aside(hosts[0].name):
            return [work(host) for host in hosts]

        def help_(host: H) -> T:
            self._breaking.helping.now = True
            return work(host)

        with ThreadPoolExecutor(max(1, len(hosts)), thread_name_prefix="fault") as pool:
            found = [(host, pool.submit(help_, host)) for host in hosts]
        errors: list[BaseException] = []
        for host, each in found:
            error = each.exception()
            if error is not None and self.is_aside(host.name) and isinstance(error, (MachineError, OSError)):
                _log.warning("The machine '%s' was passed over by the faults of its lab: %s", host.name, error)
            elif error is not None:
                errors.append(error)
        for other in errors[1:]:
            errors[0].add_note(f"Another machine failed too: {other}")
        if errors:
            raise errors[0]
        return [each.result() for _, each in found if each.exception() is None]

    def look(self, machine: Machine) -> Seen:
        """Return what its driver sees of a machine: all of a driver's are asked for at once, and once."""
        if machine.id not in self._seen:
            self._seen |= presence.look([(machine.driver, machine.record)])
        return self._seen[machine.id]

    def forget(self, machine: Machine) -> None:
        """Look again the next time."""
        self._seen.pop(machine.id, None)


class _Host:
    """One machine as a fault sees it: `pytest_machine.fault.Host`."""

    def __init__(self, machine: Machine, field: _Field, breaking: Breaking) -> None:
        self._machine = machine
        self._field = field
        self._breaking = breaking

    @property
    def id(self) -> Id:
        return self._machine.id

    @property
    def name(self) -> str:
        return self._machine.name

    @property
    def state(self) -> State:
        return self._field.look(self._machine).state

    @property
    def isolation(self) -> Isolation:
        return answers.isolation(self._machine.driver)

    @property
    def options(self) -> Mapping[str, Value]:
        return self._machine.record.options

    @property
    def addresses(self) -> Mapping[str, str]:
        return {"": self._machine.ip, **self._field.look(self._machine).networks}

    @property
    def addresses6(self) -> Mapping[str, str]:
        return self._field.look(self._machine).networks6

    @property
    def facts(self) -> dict[str, object]:
        return self._breaking.facts_of(self._machine)

    @property
    def logs_in(self) -> bool:
        """Whether it has a shell for us."""
        return self._machine.record.address is not None and self._machine.record.address.ssh_port != 0

    def shell(self, script: str, *, check: bool = True, timeout: float = 30.0) -> Result:
        if not self.logs_in:
            raise Unsupported(
                f"The machine '{self.name}' has no SSH that we know of, so nothing can be broken in it.",
                hint="create --driver generic takes it over, by SSH",
            )
        root = () if self._machine.address.user == "root" else ("sudo", "-n")
        limit = min(timeout, _OTHERS) if self._field.is_aside(self.name) else timeout
        return self._machine.run(*root, "sh", "-c", _PATH + script, check=check, timeout=limit)

    def upset(self, script: str, *, undo: str, key: str = "") -> Result:
        self._field.touched.add(self.name)
        self._breaking.upset.add(self._machine.id)
        return self.shell(_UPSET.format(undos=_UNDOS, key=key or self._field.token, undo=undo, script=script))

    def settle(self, key: str = "", *, keep: str = "") -> None:
        if self._machine.id in self._breaking.upset and self.state is State.RUNNING:
            self.clear(key or self._field.token, keep=keep)

    def clear(self, pattern: str = "*", *, keep: str = "") -> None:
        """Undo what lies in the machine, whoever left it, but for what is called `keep`."""
        script = _SETTLE.format(undos=_UNDOS, pattern=pattern, keep=keep)
        first, second = _UNDOING
        try:
            self.shell(script, timeout=first)
        except (WaitTimeout, ConnectFailed):
            # What went through a fault's network may have stalled for good; a new connection starts afresh.
            self._machine.connection.close()
            try:
                self.shell(script, timeout=second)
            except WaitTimeout as error:
                raise WaitTimeout(
                    f"The faults in the machine '{self.name}' were not undone within {first + second:g} s.",
                    facts=error.facts,
                    hint="machine.restart(): no fault in a machine outlives a boot",
                ) from error

    def engine_answers(self) -> None:
        machine = self._machine
        wait(
            lambda: engine.ping(machine.address, certs=machine.record.directory),
            f"Docker on '{self.name}'",
            timeout=_BACK,
        )

    def kill(self) -> None:
        self._power(self._machine.kill)

    @property
    def disk(self) -> bool:
        return isinstance(self._machine.driver, SupportsDisk) and bool(self.options.get("disk"))

    def trouble(self, trouble: DiskTrouble) -> bool:
        self._field.touched.add(self.name)
        self._breaking.troubled.add(self._machine.id)
        return answers.trouble_disk(self._disk(), self._machine.record, trouble)

    def mend(self) -> None:
        """See to it that nothing is wrong with its disk; one that had failed takes a boot."""
        if self.disk and not answers.trouble_disk(self._disk(), self._machine.record, DiskTrouble()):
            self.kill()
            self.start()
        self._breaking.troubled.discard(self._machine.id)

    def crash(self) -> None:
        if self.disk:
            self._field.touched.add(self.name)
            self._disk().lose_unwritten(self._machine.record)
        self.kill()

    def _disk(self) -> SupportsDisk:
        if not isinstance(self._machine.driver, SupportsDisk):
            raise Unsupported(
                f"Nobody can trouble the disk of the machine '{self.name}' from outside.",
                facts={"driver": self._machine.record.driver},
                hint=f"@pytest.mark.machine('{self.name}', driver='runc', disk='2g')",
            )
        return self._machine.driver

    def start(self) -> None:
        if self.state is not State.RUNNING:
            self._power(self._machine.start)

    def restart(self) -> None:
        self._power(self._machine.restart)

    def pause(self) -> None:
        self._power(self._machine.pause)

    def resume(self) -> None:
        if self.state is State.PAUSED:
            self._power(self._machine.resume)
            self._breaking.renew(self._machine)

    def _power(self, do: Callable[[], object]) -> None:
        self._field.touched.add(self.name)
        try:
            do()
        finally:
            self._field.forget(self._machine)
