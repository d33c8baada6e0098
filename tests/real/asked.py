"""How the tests here ask for machines, and how they look at them from outside."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

from pytest_machine import engine
from pytest_machine.machine import Machine
from pytest_machine.model import Spec, Value


def spec(name: str = "", *, networks: tuple[str, ...] = (), **options: Value) -> Spec:
    """Return the spec of a machine of the driver 'runc' with those options."""
    return Spec(name=name, driver="runc", networks=networks, options=options, timeout=60)


def specs(names: str, **options: Value) -> list[Spec]:
    """Return equal specs for machines of several names, which are separated by blanks."""
    return [Spec(name=name, driver="runc", options=options, timeout=60) for name in names.split()]


def engine_answers(machine: Machine) -> str:
    """Ask the machine's Docker, once and over a connection of its own; for `wait`."""
    return engine.ping(machine.address, certs=machine.record.directory)


def page(url: str) -> bytes:
    """Return a page, by none of the proxies that this environment may name."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        return bytes(answer.read())


def on_host(*argv: str) -> str:
    """Return what a program of this host prints."""
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def pid_of(machine: Machine) -> int:
    """Return the machine's first process, as this host counts, by runc's own word.

    Asked of this machine alone: `runc list` fails when any container ends while it lists.
    """
    return int(json.loads(on_host("runc", "--root", "/run/pytest-machine/runc/state", "state", machine.id))["pid"])


def groups_of(machine: Machine) -> dict[str, Path]:
    """Return the machine's group in each cgroup hierarchy, by controller; on v2 by the empty name."""
    points: dict[str, tuple[str, str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, flags = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            for name in flags.split(",") if kind == "cgroup" else [""]:
                points[name] = (left.split()[3], left.split()[4])
    found = {}
    for line in Path(f"/proc/{pid_of(machine)}/cgroup").read_text().splitlines():
        _, names, group = line.split(":", 2)
        for name in names.split(","):
            if name in points:
                above, point = points[name]
                found[name] = Path(point, Path("/", group).relative_to(above))
    return found
