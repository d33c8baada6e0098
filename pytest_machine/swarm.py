"""Swarm: the orchestrator that Docker has built in, on machines that live together.

Who is a member is known by the engines alone, so that a Swarm is found again by whoever has its machines next, in
another process too. What a `Swarm` holds is who is meant to be what.
"""

from __future__ import annotations

import contextlib
import functools
import json
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from .driver import SupportsAdoption
from .engine import TROUBLE, Api
from .errand import Errand
from .errors import CleanupFailed, DriverError, MachineError, UnknownMachine, Unsupported
from .machine import Machine
from .model import Id, names
from .roles import meeting
from .support import clock
from .waiting import NotYet, wait

T = TypeVar("T")

# Seconds for one answer. Docker itself gives a request to another manager 20, and a node that joins as many.
_ANSWER = 30.0
# Seconds in which a machine has left, whatever its engine has to wait for.
_LEAVING = 60.0
# Seconds for an answer that any of several may give.
_WORD = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A member of a Swarm, as one of its managers sees it."""

    name: str
    """The machine's."""
    id: str
    """Docker's own."""
    role: str
    """``manager`` or ``worker``."""
    state: str
    """``ready``, ``down``, ``disconnected`` or ``unknown``, in Docker's words."""
    availability: str
    """``active``, ``pause`` or ``drain``."""
    leader: bool
    reachable: bool
    """Whether a manager is heard by the others; of a worker, whether it is ready."""

    @property
    def well(self) -> bool:
        """Whether it is ready, and heard."""
        return self.state == "ready" and self.reachable

    def __str__(self) -> str:
        heard = "" if self.reachable or self.state != "ready" else ", and not heard by the others"
        return f"'{self.name}' ({self.role}) is {self.state}{heard}"


class Swarm:
    """A Swarm of machines. `Lab.swarm` and the fixture ``swarm`` give one that is formed and ready."""

    def __init__(self, managers: Sequence[Machine], workers: Sequence[Machine] = ()) -> None:
        self.managers = list(managers)
        """Those that were meant to be managers; the first founded it."""
        self.workers = list(workers)
        self._names: dict[str, str] = {}  # of nodes, by Docker's ids

    def __repr__(self) -> str:
        workers = f", workers {names(each.name for each in self.workers)}" if self.workers else ""
        return f"<Swarm: managers {names(each.name for each in self.managers)}{workers}>"

    @property
    def machines(self) -> list[Machine]:
        """Its members, managers first."""
        return [*self.managers, *self.workers]

    @property
    def manager(self) -> Machine:
        """The manager that founded it: ``swarm.manager.docker.services.create(...)``. Who leads now says `leader`."""
        return self.managers[0]

    # Coming together, and apart.

    @classmethod
    def found(cls, machines: Sequence[Machine]) -> Self | None:
        """Return the Swarm that machines are in, as their engines say; None where none is in any."""
        told = _told(machines)
        members = [machine for machine in machines if told[machine.id]["LocalNodeState"] == "active"]
        managers = [machine for machine in members if told[machine.id].get("ControlAvailable")]
        return cls(managers, [each for each in members if each not in managers]) if managers else None

    def form(self, *, timeout: float = 60.0) -> Self:
        """See to it that its machines are a Swarm, with nobody else and all of them ready; return this.

        One that is there already stays as it is. Machines that are in another one, or in one that lacks a member, leave
        it; those that were there before us do not, which is `Unsupported`. Raises `BadSpec` when they share no network,
        `WaitTimeout` or `DriverError` with what Docker says.
        """
        deadline = clock.monotonic() + timeout
        seen = _told(self.machines)
        if self._is_whole(seen):
            self._learn(seen)
        else:
            addresses = self._addresses()
            elsewhere = [machine for machine in self.machines if seen[machine.id]["LocalNodeState"] != "inactive"]
            for machine in elsewhere:
                _not_ours(machine)
            self._leave(elsewhere)
            tokens = self._found(addresses)
            # All at once: the leader admits managers one after another by itself, as Raft demands. Five managers took
            # 0.7 s so, and 2.5 s when each waited for the one before.
            join = functools.partial(self._join, addresses=addresses, tokens=tokens, deadline=deadline)
            _each([*self.managers[1:], *self.workers], join)
            self._names = {}
        self._wait_well(max(1.0, deadline - clock.monotonic()))
        return self

    def _learn(self, seen: Mapping[Id, Mapping[str, Any]]) -> None:
        """Note which node is which machine; one that is still on its way in has no id."""
        ids = {machine.name: str(seen[machine.id].get("NodeID") or "") for machine in self.machines}
        self._names = {id_: name for name, id_ in ids.items() if id_}

    def _is_whole(self, seen: Mapping[Id, Mapping[str, Any]]) -> bool:
        for machine in self.machines:
            told = seen[machine.id]
            if told["LocalNodeState"] != "active" or bool(told["ControlAvailable"]) != (machine in self.managers):
                return False
        try:
            known = _get(self.manager, "/nodes", timeout=_ANSWER)
        except TROUBLE:
            return False  # too few of them are left
        return {str(node["ID"]) for node in known} == {str(each["NodeID"]) for each in seen.values()}

    def _addresses(self) -> dict[Id, str]:
        """Return under which address each is reached by the others."""
        links = {machine.name: machine.networks if machine.record.networks else {} for machine in self.machines}
        network = meeting({name: list(each) for name, each in links.items()})
        return {
            machine.id: links[machine.name][network].ip if network else machine.address.among
            for machine in self.machines
        }

    def _found(self, addresses: Mapping[Id, str]) -> Mapping[str, str]:
        """Have the first manager found the Swarm; return the tokens of those that join, by role."""
        try:
            _post(self.manager, "/swarm/init", _place(addresses[self.manager.id]))
            tokens: Mapping[str, str] = _get(self.manager, "/swarm", timeout=_ANSWER)["JoinTokens"]
        except TROUBLE as error:
            raise _refused(self.manager, "found a Swarm", error) from error
        return tokens

    def _join(
        self, machine: Machine, *, addresses: Mapping[Id, str], tokens: Mapping[str, str], deadline: float
    ) -> None:
        token = tokens["Manager" if machine in self.managers else "Worker"]
        asked = {
            **_place(addresses[machine.id]), "RemoteAddrs": [addresses[self.manager.id]], "JoinToken": token
        }  # fmt: skip

        def joined() -> None:
            # The second manager's arrival can leave the first without a majority for a moment: whoever comes just
            # then is refused, and comes again.
            try:
                _post(machine, "/swarm/join", asked)
            except ValueError as error:
                state = _get(machine, "/info", timeout=_ANSWER)["Swarm"]["LocalNodeState"]
                if state in ("active", "pending"):
                    return  # it goes on by itself; `wait_ready` waits for it
                if state != "inactive":
                    _post(machine, "/swarm/leave?force=1")
                raise NotYet(_reason(error)) from error

        wait(
            joined,
            f"That '{machine.name}' joins the Swarm of '{self.manager.name}'",
            timeout=max(1.0, deadline - clock.monotonic()),
            every=0.1,
        )

    def leave(self) -> None:
        """Have every member leave, with all that ran on it; again: nothing happens.

        Docker takes 5 s for a manager that has others. Raises `CleanupFailed` for those that could not.
        """
        self._leave(self.machines)

    def _leave(self, machines: Sequence[Machine]) -> None:
        def gone(machine: Machine) -> None:
            # Not asked before: a manager who loses its majority meanwhile tells nothing for 20 s.
            try:
                _post(machine, "/swarm/leave?force=1")
            except ValueError as error:
                if _get(machine, "/info", timeout=_ANSWER)["Swarm"]["LocalNodeState"] != "inactive":
                    raise NotYet(_reason(error)) from error  # Docker gives its own end 15 s, and can be asked again

        def leave(machine: Machine) -> Exception | None:
            try:
                wait(lambda: gone(machine), f"That '{machine.name}' leaves the Swarm", timeout=_LEAVING, every=0.2)
            except MachineError as error:
                return error
            return None

        # All at once: one after the other, each manager that is left waits its 5 s for those that went before.
        if errors := [error for error in _each(machines, leave) if error is not None]:
            raise CleanupFailed("Not every machine has left the Swarm.", errors, hint="lab.destroy()")

    # What it is like.

    def nodes(self, seen_by: Machine | str | None = None) -> list[Node]:
        """Return its members as its leader sees them, or as the manager `seen_by` does, who may be cut off.

        Raises `DriverError` when no majority of the managers answers and agrees on a leader.
        """
        if seen_by is None:
            try:
                return self._agreed()
            except NotYet as error:
                raise DriverError(
                    "The Swarm takes no orders now.", facts={"reason": error}, hint="swarm.wait_ready(timeout=120)"
                ) from error
        machine = self._member(seen_by)
        try:
            return self._nodes(machine, timeout=_ANSWER)
        except TROUBLE as error:
            raise _refused(machine, "tell who is in the Swarm", error) from error

    def leader(self, *, timeout: float = 60.0) -> Machine:
        """Return the manager that leads, by the word of a majority of them; wait for one where there is none now.

        An election takes 10 to 20 s. Raises `WaitTimeout`.
        """

        def leads() -> Machine:
            return self._member(next(node.name for node in self._agreed() if node.leader))

        return wait(leads, "A leader of the Swarm", timeout=timeout, every=0.1)

    def wait_ready(self, *, timeout: float = 60.0) -> None:
        """Wait until every member is ready and every manager is heard; raises `WaitTimeout` with who is not."""

        def active(machine: Machine) -> str:
            # The others take up to 15 s to miss somebody: one that has just been started knows better itself.
            state = str(_get(machine, "/info", timeout=_ANSWER)["Swarm"]["LocalNodeState"])
            return "" if state == "active" else f"'{machine.name}' says that it is {state}"

        deadline = clock.monotonic() + timeout
        self._wait_well(timeout)

        def ready() -> None:
            if said := "; ".join(filter(None, _each(self.machines, active))):
                raise NotYet(said)

        wait(ready, self._what, timeout=max(1.0, deadline - clock.monotonic()), every=0.05, longest=0.5)

    @property
    def _what(self) -> str:
        return f"The Swarm of {names(each.name for each in self.machines)}"

    def _wait_well(self, timeout: float) -> None:
        """Wait until a majority of the managers says that all are well."""

        def well() -> None:
            found = self._agreed()
            # A node is called what its host is: that is the machine's name, unless it was there before us.
            if not self._names and {node.name for node in found} != {machine.name for machine in self.machines}:
                self._learn(_told(self.machines))
                found = self._agreed()
            missing = {machine.name for machine in self.machines} - {node.name for node in found if node.well}
            if missing:
                unwell = [str(node) for node in found if not node.well]
                raise NotYet("; ".join(unwell) or f"{names(sorted(missing))} is not in it")

        wait(well, self._what, timeout=timeout, every=0.02, longest=0.5)

    def wait_running(self, *services: str, timeout: float = 60.0) -> None:
        """Wait until services, or all there are, have as many tasks running as they want, and no update goes on.

        Raises `WaitTimeout` with what the tasks' last words were. Jobs are not waited for.
        """

        def running() -> None:
            found = _get(self.leader(timeout=timeout), "/services?status=true", timeout=_ANSWER)
            known = {str(each["Spec"]["Name"]): each for each in found}
            if unknown := sorted(set(services) - set(known)):
                raise NotYet(f"there is no service {names(unknown)}, but {names(sorted(known))}")
            unwell = [_progress(known[name]) for name in services or sorted(known)]
            if any(unwell):
                raise NotYet("; ".join(filter(None, unwell)) + self._complaint())

        what = f"The service {names(services)}" if services else "Every service"
        wait(running, what, timeout=timeout, every=0.1)

    def _complaint(self) -> str:
        """Return what the last task that failed said of it."""
        try:
            tasks = _get(self.manager, "/tasks", timeout=_WORD)
        except TROUBLE:
            return ""
        said = [task["Status"] for task in tasks if task["Status"].get("Err")]
        return f" ({max(said, key=lambda each: str(each['Timestamp']))['Err']})" if said else ""

    def _member(self, which: Machine | str) -> Machine:
        for machine in self.machines:
            if which in (machine, machine.name):
                return machine
        raise UnknownMachine(
            f"There is no machine '{getattr(which, 'name', which)}' in this Swarm.",
            facts={"machines": names(each.name for each in self.machines)},
            hint=f"swarm.nodes(seen_by='{self.manager.name}')",
        )

    def _nodes(self, machine: Machine, *, timeout: float) -> list[Node]:
        order = [machine.name for machine in self.machines]
        found = [_node(each, self._names) for each in _get(machine, "/nodes", timeout=timeout)]
        return sorted(found, key=lambda node: order.index(node.name) if node.name in order else len(order))

    def _agreed(self) -> list[Node]:
        """Return the members as the leader sees them whom a majority of all managers follows.

        One that leads no more does not know so for some seconds; and who is away may take its time to say nothing.
        """
        answers: queue.SimpleQueue[tuple[Machine, list[Node] | Exception]] = queue.SimpleQueue()

        def ask(machine: Machine) -> None:
            try:
                answers.put((machine, self._nodes(machine, timeout=_WORD)))
            except Exception as error:  # noqa: BLE001  # whatever it is: somebody waits for an answer
                answers.put((machine, error))

        for machine in self.managers:
            Errand(functools.partial(ask, machine))
        followers: dict[str, list[list[Node]]] = {}
        silent: list[str] = []
        for _ in self.managers:
            machine, answer = answers.get()
            if isinstance(answer, Exception):
                silent.append(f"'{machine.name}': {_reason(answer)}")
                continue
            for node in answer:
                if node.leader:
                    agreeing = followers.setdefault(node.name, [])
                    agreeing.append(answer)
                    if len(agreeing) > len(self.managers) // 2:
                        return agreeing[-1]
        raise NotYet("; ".join(silent) or f"they follow {names(sorted(followers))}")


def _not_ours(machine: Machine) -> None:
    """Raise when a machine that is in some Swarm was so before us, maybe."""
    if isinstance(machine.driver, SupportsAdoption):
        raise Unsupported(
            f"The machine '{machine.name}' was there before us and is in a Swarm, which is not ours to end.",
            facts={"driver": machine.record.driver},
            hint=f"with machine.environment(): docker swarm leave --force, if nobody needs it on '{machine.name}'",
        )


def _told(machines: Sequence[Machine]) -> dict[Id, Mapping[str, Any]]:
    """Return what each engine says of its own membership, by the machine's id."""

    def told(machine: Machine) -> Mapping[str, Any]:
        try:
            with Api(machine.address, certs=machine.record.directory, timeout=_ANSWER) as api:
                if not _may_be_in(api):
                    return {"LocalNodeState": "inactive"}
                found: Mapping[str, Any] = api.get("/info")["Swarm"]
        except TROUBLE as error:
            raise _refused(machine, "tell whether it is in a Swarm", error) from error
        return found

    return {machine.id: each for machine, each in zip(machines, _each(machines, told), strict=True)}


def _may_be_in(api: Api) -> bool:
    """Whether an engine may be in a Swarm: not, by its own advice what to do about it.

    Asked first, because ``/info`` has it run three programs before it answers.
    """
    try:
        api.get("/swarm")
    except ValueError as error:
        return "docker swarm init" not in str(error)
    return True


def _node(said: Mapping[str, Any], known: Mapping[str, str]) -> Node:
    manages = said.get("ManagerStatus") or {}
    state = str(said["Status"]["State"])
    return Node(
        name=known.get(str(said["ID"]), str(said["Description"].get("Hostname", ""))),
        id=str(said["ID"]),
        role=str(said["Spec"]["Role"]),
        state=state,
        availability=str(said["Spec"]["Availability"]),
        leader=bool(manages.get("Leader")),
        reachable=manages["Reachability"] == "reachable" if "Reachability" in manages else state == "ready",
    )


def _progress(service: Mapping[str, Any]) -> str:
    """Return what a service lacks; empty: nothing."""
    name, mode = service["Spec"]["Name"], service["Spec"]["Mode"]
    if "ReplicatedJob" in mode or "GlobalJob" in mode:
        return ""
    has, wants = service["ServiceStatus"]["RunningTasks"], service["ServiceStatus"]["DesiredTasks"]
    if "Replicated" in mode:
        wants = mode["Replicated"]["Replicas"]  # of one that was just ordered, none is desired yet
    if has != wants:
        return f"'{name}' runs {has} of {wants}"
    state = (service.get("UpdateStatus") or {}).get("State", "completed")
    return f"'{name}' is {state}" if state in ("updating", "rollback_started") else ""


def _place(address: str) -> dict[str, str]:
    """Return where a member is heard, and where its overlay networks' packets go."""
    return {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": address, "DataPathAddr": address}


def _get(machine: Machine, path: str, *, timeout: float) -> Any:
    with Api(machine.address, certs=machine.record.directory, timeout=timeout) as api:
        return api.get(path)


def _post(machine: Machine, path: str, body: object = None) -> None:
    with Api(machine.address, certs=machine.record.directory, timeout=_ANSWER) as api:
        api.post(path, body)


def _refused(machine: Machine, what: str, error: Exception) -> MachineError:
    return DriverError(
        f"The machine '{machine.name}' could not {what}.",
        facts={"reason": _reason(error)},
        hint=f"lab['{machine.name}'].docker.info()['Swarm']",
    )


def _reason(error: Exception) -> str:
    """Return what Docker said, out of what came by way of JSON."""
    text = str(error)
    _, found, said = text.partition('{"message":')
    with contextlib.suppress(ValueError, RecursionError):
        return str(json.loads(found + said)["message"])
    return text or type(error).__name__


def _each(machines: Iterable[Machine], work: Callable[[Machine], T]) -> list[T]:
    """Do something with machines, all at once; raise the error of the first that failed, when all have ended."""
    found: list[T] = []
    errors: list[Exception] = []
    for errand in [Errand(functools.partial(work, machine)) for machine in machines]:
        try:
            found.append(errand.result())
        except Exception as error:  # noqa: BLE001  # raised below
            errors.append(error)
    for other in errors[1:]:
        errors[0].add_note(f"Another machine failed too: {other}")
    if errors:
        raise errors[0]
    return found
