"""Every name that a test, a helper or a driver needs can be imported from the top, with its type."""

from __future__ import annotations

from pytest_machine import (
    Access,
    Address,
    Attachment,
    BadSpec,
    Capture,
    CleanupFailed,
    CommandFailed,
    Compose,
    ConnectFailed,
    Delay,
    DriverError,
    DriverUnavailable,
    HostPort,
    Id,
    Isolation,
    Lab,
    Link,
    Machine,
    MachineError,
    MachineFactory,
    Machines,
    Node,
    NotRunning,
    Partition,
    Result,
    State,
    Swarm,
    Topology,
    UnknownMachine,
    Unsupported,
    UsageError,
    WaitTimeout,
    size,
)


def attached(machine: Machine) -> Attachment:
    return machine.networks["front"]


def reached(machine: Machine) -> tuple[str, int]:
    found: HostPort = machine.port("web", 80)
    return found.host, found.port


def said(machine: Machine) -> str:
    try:
        result: Result = machine.run("uname", "-a")
    except CommandFailed as error:
        return error.result.stderr
    except (ConnectFailed, NotRunning, WaitTimeout) as error:
        return error.hint
    return result.stdout


def shell(machine: Machine) -> str:
    return machine.sh("uname -a | wc -l", check=False, timeout=5.0, input=b"").stdout


def address(machine: Machine) -> Address:
    return machine.address


def split(lab: Lab) -> None:
    with lab.inject(Partition(["web"], ["db"])), lab.inject(Delay(0.1, "web")):
        machine = lab["web"]
        assert machine.state is State.RUNNING
        assert isinstance(lab.wait_until(lambda: 3), int)


def test_it(machine: Machine, machines: Machines, lab: Lab, swarm: Swarm, machine_factory: MachineFactory) -> None:
    other: Machine = machine_factory("other", memory="512m")
    assert [machines[0], machines["web"], other]
    managers: list[Node] = list(swarm.nodes())
    assert managers


def memory() -> int:
    return size("512m")


ERRORS: tuple[type[MachineError], ...] = (
    BadSpec,
    CleanupFailed,
    DriverError,
    DriverUnavailable,
    UnknownMachine,
    Unsupported,
    UsageError,
)
TYPES: tuple[type, ...] = (Access, Capture, Compose, Isolation, Link, Topology)
IDENTITY = Id("0123456789ab")
