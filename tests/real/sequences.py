"""Plays random sequences of what may happen to a lab, on real machines of the driver 'runc'.

Run on a host of its own (see `private`): ``python -m tests.real.sequences SEED EXAMPLES STEPS DIRECTORY``. The same
seed draws the same sequences. What happens behind the lab's back is done as its users do it: by the program in a shell
on the same store, and by a signal to a machine's PID 1. After each sequence the host's own tools look what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from pytest_machine import engine
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import MachineError
from pytest_machine.fault import Fault
from pytest_machine.faults import network
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Seen, Spec, State, new_id
from pytest_machine.plugins import Registry
from pytest_machine.store import Store
from pytest_machine.testing import host_leftovers
from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS
from tests.lab_rules import POWER, LabRules

from .chaos import ALLOWED, RUN, STATE

ANSWER = 20.0 * SLOWNESS
"""Seconds in which a machine that runs answers: what was started behind the lab's back may still boot."""
REGISTRY = Registry()
_SHELL = ("start", "stop", "kill", "restart", "rm")
_RUNC = {"running": State.RUNNING, "paused": State.PAUSED}


class Sequences(LabRules):
    """A lab of machines of the driver 'runc', which nothing else on this host uses."""

    top: ClassVar[Path]
    before: ClassVar[frozenset[str]] = frozenset()
    """What is on this host when no lab is there."""
    played: ClassVar[list[int]] = []
    """How many machines each sequence made."""
    behind = (*(f"docker-machine {each}" for each in _SHELL), "SIGKILL", "destroy", "pause", "resume")
    faults = (*POWER, network.Partition)

    def __init__(self) -> None:
        super().__init__()
        self.home = self.top / "home"
        self.driver = RuncDriver()
        self.lab = Lab(store=Store(self.home / "store"), registry=REGISTRY, id=new_id())

    def spec(self, name: str, networks: tuple[str, ...]) -> Spec:
        """Return the spec of a machine."""
        return Spec(name=name, driver="runc", networks=networks)

    def act_behind(self, machine: Machine, what: str) -> None:
        """Do it in a shell, by a signal, or by the driver."""
        if what == "SIGKILL":
            if (pid := _pid(machine)) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                wait(lambda: _ended(pid), f"The end of {pid}", timeout=ANSWER, every=0.02)
        elif what.startswith("docker-machine "):
            command = what.partition(" ")[2]
            argv = ["rm", "-y"] if command == "rm" else [command]
            done = subprocess.run(
                [sys.executable, "-m", "pytest_machine", "-s", str(self.lab.store.path), *argv, machine.name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=ANSWER * 3,
            )
            # A machine may be in a state, such as paused, for which a command is refused.
            assert done.returncode in range(5), done.stderr
            assert "Traceback" not in done.stderr, done.stderr
            assert not done.returncode or done.stderr.strip()
        else:
            super().act_behind(machine, what)

    def fault(self, what: type[Any], machine: Machine) -> Fault:
        """Return a fault at a machine; a partition is between it and all others."""
        if what is network.Partition:
            others = [each.name for each in self.lab.machines if each is not machine]
            return network.Partition([machine.name], others)
        return super().fault(what, machine)

    def check_machine(self, machine: Machine, at: Seen) -> None:
        """Check the state by runc itself; what runs answers by Docker and SSH."""
        assert at.state is _state(machine), f"{machine.name}: the driver says {at}"
        if at.state is State.RUNNING:
            wait(lambda: _answers(machine), f"Docker on '{machine.name}'", timeout=ANSWER, every=0.1)
            assert machine.env["DOCKER_HOST"] == machine.url
            assert machine.run("hostname").stdout.strip() == machine.name

    def check_lab(self, seen: dict[Machine, Seen]) -> None:
        """Machines that run on one network know each other's names, and know no name of a machine that is gone."""
        running = {machine: at for machine, at in seen.items() if at.state is State.RUNNING}
        there = {machine.name for machine in seen}
        for machine, at in running.items():
            lines = machine.run("cat", "/etc/hosts").stdout.splitlines()
            known = {line.split()[1]: line.split()[0] for line in lines if not line.startswith(("127.", "::1"))}
            # On a network, a machine also has a name with that of the network: "db.back".
            assert {name.partition(".")[0] for name in known} <= there, (
                f"{machine.name} knows {known}, and there are {there}"
            )
            for other, place in running.items():
                shared = sorted(set(at.networks) & set(place.networks))
                if other is not machine and shared:
                    found = machine.run("getent", "ahostsv4", other.name).stdout.split()
                    assert found, f"{machine.name} knows {known} and not {other.name}, with which it shares {shared}"
                    assert found[0] in {place.networks[name] for name in shared}, (machine.name, other.name, found)

    def teardown(self) -> None:
        """Destroy the lab, and look at the host."""
        super().teardown()
        self.played.append(len(self.old))
        ids: set[str] = {machine.id for machine in self.old}

        def nothing() -> None:
            if left := self.left(ids):
                raise NotYet(str(sorted(left)))

        wait(nothing, "The host as it was", timeout=ALLOWED, every=0.1)

    def left(self, ids: set[str]) -> set[str]:
        """Return what there is more than before; control groups and loop devices are the whole computer's."""
        found = host_leftovers(STATE, RUN) - self.before
        return {
            thing
            for thing in found
            if not thing.endswith((".lock", "ledger.json"))
            and not thing.startswith(f"file: {RUN}/ptm-")  # the sockets of this process's SSH
            and (not thing.startswith(("cgroup: ", "loop device: ")) or any(id_ in thing for id_ in ids))
        }


def _pid(machine: Machine) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((RUN / "runc/machines" / machine.id / "pid").read_text())
    return None


def _ended(pid: int) -> None:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return
    if state != "Z":
        raise NotYet(state)


def _state(machine: Machine) -> State:
    """Return what runc says of a machine that is there."""
    argv = ["runc", "--root", str(RUN / "runc/state"), "state", machine.id]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return _RUNC.get(json.loads(done.stdout)["status"], State.STOPPED) if done.returncode == 0 else State.STOPPED


def _answers(machine: Machine) -> None:
    try:
        alive = engine.ping(machine.address, certs=machine.record.directory)
    except (MachineError, OSError) as error:
        raise NotYet(str(error)) from error
    if not alive:
        raise NotYet("it does not answer")


def main() -> None:
    """Play the sequences; the last line is JSON: how many machines each of them made, and the seconds."""
    number, examples, steps, directory = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    os.environ.update(PYTEST_MACHINE_HOME=str(directory / "state"), XDG_RUNTIME_DIR=str(RUN))
    Sequences.top = directory
    (directory / "home").mkdir(parents=True)
    # The first lab leaves what stays for good: locks, the ledger, the firewall's own chains.
    with Lab(store=Store(directory / "first"), registry=REGISTRY) as lab:
        lab.create(Spec(name="first", driver="runc"))
    Sequences.before = frozenset(host_leftovers(STATE, RUN))
    begun = time.monotonic()
    run_state_machine_as_test(
        seed(number)(Sequences),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=False,
            phases=[Phase.generate],
            verbosity=Verbosity.verbose,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(json.dumps({"machines": Sequences.played, "seconds": round(time.monotonic() - begun, 1)}), flush=True)


if __name__ == "__main__":
    main()
