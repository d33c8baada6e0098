"""Finds drivers and provisioners: the built-in ones, those of installed packages, those of a test suite's conftest.

A plugin manager of our own, and not pytest's, so that the command line needs no pytest. What is built in is imported
when it is asked for: most runs want one driver, and provision nothing. So is pluggy: where nobody adds anything, which
is nearly everywhere, a command that asks for an address spends half of its time otherwise.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .driver import NEEDS, Driver, missing
from .errors import (
    BadSpec,
    CommandFailed,
    DriverUnavailable,
    ProvisionFailed,
    UnknownDriver,
    Unsupported,
    WaitTimeout,
)
from .model import Spec, names
from .options import configure

if TYPE_CHECKING:
    from .connection import Connection
    from .provisioner import Facts, Provisioner, Tell, Wanted

PROJECT = "pytest_machine"
"""The entry points' group; `hookspecs.PROJECT`."""

_BUILT_IN: Mapping[str, str] = {
    "docker": "pytest_machine.drivers.docker:DockerDriver",
    "generic": "pytest_machine.drivers.generic:GenericDriver",
    "imported": "pytest_machine.drivers.imported:ImportedDriver",
    "none": "pytest_machine.drivers.none:NoneDriver",
    "runc": "pytest_machine.drivers.runc:RuncDriver",
}

# In this order: certificates before the engine that reads them, the engine before its settings.
_PROVISIONERS: Mapping[str, str] = {
    "hostname": "pytest_machine.provisioners.hostname:HostnameProvisioner",
    "certificates": "pytest_machine.provisioners.certificates:CertificatesProvisioner",
    "engine": "pytest_machine.provisioners.engine:EngineProvisioner",
    "daemon": "pytest_machine.provisioners.daemon:DaemonProvisioner",
}

PLANNED = (
    "amazonec2",
    "azure",
    "digitalocean",
    "exoscale",
    "google",
    "hyperv",
    "openstack",
    "qemu",
    "rackspace",
    "rootless",
    "softlayer",
    "virtualbox",
    "vmwarefusion",
    "vmwarevcloudair",
    "vmwarevsphere",
)
"""Drivers of Docker Machine's, and of ours, that do not exist yet."""
DEFAULT_ORDER = ("runc", "docker", "rootless", "qemu", "virtualbox")
"""Which drivers a newcomer gets, safest first among those that ask for no rights (docs/design.md)."""

_REMEDY = "do without what is lacking, or name a driver that has it: --machine-driver=NAME (see pytest-machine doctor)"


class Registry:
    """The drivers and provisioners that there are here.

    `extra` are objects with our hooks as functions, such as conftest modules.
    """

    def __init__(self, extra: Iterable[object] = ()) -> None:
        self._added: dict[str, type[Driver]] = {}
        self._provisioners: dict[str, type[Provisioner]] = {}
        near, installed = list(extra), dict(_installed())
        if near or installed:
            self._ask(near, installed)

    def _ask(self, near: Sequence[object], installed: Mapping[str, object]) -> None:
        import pluggy

        from . import hookspecs

        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hookspecs)
        for plugin in near:
            # A conftest writes its hooks without our marker: pytest's own rules hold there, and it has none.
            manager.register(_Marked(plugin))
        for name, plugin in installed.items():
            manager.register(plugin, name)
        # The last to be registered answers first; whoever is nearer to the user wins.
        for drivers in manager.hook.pytest_machine_drivers():
            for driver in drivers:
                self._added[driver.name] = driver
        for provisioners in manager.hook.pytest_machine_provisioners():
            for provisioner in provisioners:
                self._provisioners[provisioner.name] = provisioner

    def added(self) -> Mapping[str, type[Driver]]:
        """Return the drivers that are not built in, by name."""
        return dict(self._added)

    def names(self) -> list[str]:
        """Return the name of every driver, those of the default order first."""
        known = {*_BUILT_IN, *self._added}
        return [name for name in DEFAULT_ORDER if name in known] + sorted(known - set(DEFAULT_ORDER))

    def driver(self, name: str) -> type[Driver]:
        """Return the driver class of that name; raises `UnknownDriver`."""
        if name in self._added:
            return self._added[name]
        if name in _BUILT_IN:
            return cast("type[Driver]", _load(_BUILT_IN[name]))
        import difflib

        if name in PLANNED:
            raise UnknownDriver(
                f"There is no driver '{name}' yet.",
                facts={"drivers": names(self.names())},
                hint=f"use another driver, such as '{DEFAULT_ORDER[0]}'",
            )
        close = difflib.get_close_matches(name, self.names(), n=1)
        raise UnknownDriver(
            f"There is no driver '{name}'.",
            facts={"drivers": names(self.names())},
            hint=f"did you mean '{close[0]}'?" if close else "pip install the package that has it",
        )

    def choose(self, needs: Iterable[str] = ()) -> type[Driver]:
        """Return the first driver of the default order that can run here and has what is needed.

        Raises `DriverUnavailable` with every driver's reason and the first one's remedy.
        """
        reasons: dict[str, object] = {}
        remedy = ""
        for name in (name for name in DEFAULT_ORDER if name in self.names()):
            driver = self.driver(name)
            try:
                made = driver()
                if lacking := missing(made, needs):
                    reasons[name] = f"it does not have {names(lacking)}"
                    continue
                made.check()
            except DriverUnavailable as error:
                reasons[name] = error.message
                remedy = remedy or error.hint
                continue
            return driver
        raise DriverUnavailable("No driver can make a machine here.", facts=reasons, hint=remedy or _REMEDY)

    def having(self, need: str) -> list[str]:
        """Return the names of the drivers that have a capability or isolation with their default options."""
        return [name for name in self.names() if not missing(self.driver(name)(), [need])]

    def configure(self, spec: Spec) -> Driver:
        """Return the spec's driver with its options.

        Raises `UnknownDriver`, `BadSpec` for options and needs that nobody knows, `Unsupported` for a capability that
        this driver does not have.
        """
        from . import daemon

        for need in sorted(spec.needs - NEEDS):
            import difflib

            close = difflib.get_close_matches(need, NEEDS, n=1)
            raise BadSpec(
                f"There is nothing called '{need}' that a machine could need.",
                facts={"known": names(sorted(NEEDS))},
                hint=f"did you mean '{close[0]}'?" if close else "take it out of needs=",
            )
        driver: Driver = configure(self.driver(spec.driver), spec.options)
        daemon.files(spec.engine)
        needed = spec.needs | ({"networks"} if spec.networks else set())
        for need in missing(driver, needed):
            having = self.having(need)
            raise Unsupported(
                f"The driver '{spec.driver}' does not have '{need}'.",
                facts={"drivers that have it": names(having)},
                hint=another(having, need),
            )
        return driver

    def provisioners(self) -> list[Provisioner]:
        """Return those that a machine goes through: the built-in ones, or who took their place; then others."""
        others = [name for name in self._provisioners if name not in _PROVISIONERS]
        return [
            (
                self._provisioners[name]
                if name in self._provisioners
                else cast("type[Provisioner]", _load(_PROVISIONERS[name]))
            )()
            for name in (*_PROVISIONERS, *others)
        ]

    def provision(self, connection: Connection, wanted: Wanted, *, tell: Tell) -> list[str]:
        """Make a machine that has an operating system a Docker host; return what was changed, nothing a second time.

        Raises `ProvisionFailed` with which provisioner failed on which system, and what `connection` raises.
        """
        from . import daemon

        daemon.files(wanted.engine)
        return self._provision(connection, _known(connection, tell), wanted, tell=tell)

    def _provision(self, connection: Connection, known: Facts, wanted: Wanted, *, tell: Tell) -> list[str]:
        from .facts import called, probe

        changed: list[str] = []
        tell(f"Provisioning with {called(known)}...")
        for provisioner in self.provisioners():
            found = _on(known, provisioner, provisioner.provision, connection, wanted, tell=tell)
            if found:
                changed += found
                known = probe(connection)
        return changed

    def upgrade(self, connection: Connection, wanted: Wanted, *, tell: Tell) -> list[str]:
        """Move a machine's engine to the newest release that its packages offer; return what was changed.

        Then it is provisioned: a new engine runs with the same settings. Raises what `provision` raises.
        """
        from . import daemon
        from .facts import probe
        from .provisioner import SupportsUpgrade

        daemon.files(wanted.engine)
        changed: list[str] = []
        known = _known(connection, tell)
        if known.engine:
            for provisioner in self.provisioners():
                if isinstance(provisioner, SupportsUpgrade):
                    changed += _on(known, provisioner, provisioner.upgrade, connection, wanted, tell=tell)
        return [*changed, *self._provision(connection, probe(connection), wanted, tell=tell)]


def another(having: Sequence[str], need: str) -> str:
    """Return the hint for a driver that lacks what these others have."""
    if not having:
        return f"no driver has '{need}' yet: do without it, or pip install a driver of another package that has it"
    return f"choose one that has it: @pytest.mark.machine(driver='{having[0]}'), or --machine-driver={having[0]}"


def _known(connection: Connection, tell: Tell) -> Facts:
    from .facts import probe

    tell("Detecting the provisioner...")
    return _may(probe(connection))


def _load(where: str) -> object:
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _may(known: Facts) -> Facts:
    """Return the facts; raises `ProvisionFailed` where the login may not do what has to be done."""
    if not known.root and known.refused:
        raise ProvisionFailed(
            "The machine could not be made a Docker host: its login is not root and has no sudo without a password.",
            facts={"os": known.pretty or "unknown", "sudo said": known.refused},
            hint="log in as root, or write there: echo 'USER ALL=(ALL) NOPASSWD: ALL' | sudo tee /etc/sudoers.d/USER",
        )
    return known


def _on(
    known: Facts,
    provisioner: Provisioner,
    act: Callable[..., Sequence[str]],
    connection: Connection,
    wanted: Wanted,
    *,
    tell: Tell,
) -> Sequence[str]:
    """Let a provisioner act; whatever it fails of says who failed, and on which system."""
    try:
        return act(connection, known, wanted, tell=tell)
    except ProvisionFailed as error:
        who = {"provisioner": provisioner.name, "os": known.pretty or known.os or "unknown"}
        error.facts = {**who, **error.facts}
        raise
    except (CommandFailed, WaitTimeout) as error:
        raise ProvisionFailed(
            f"The machine could not be made a Docker host: {error.message}",
            facts={"provisioner": provisioner.name, "os": known.pretty or known.os or "unknown", **error.facts},
            hint=error.hint,
        ) from error


def _installed() -> Iterator[tuple[str, object]]:
    """Yield what installed packages add, by the names of their entry points.

    By hand, because pluggy reads every entry point of every package that is installed: 50 ms of every command; and to
    import what reads packages takes half of that.
    """
    if not any(_may_add(place) for place in dict.fromkeys(sys.path)):
        return
    import importlib.metadata

    known: set[str] = set()
    for each in importlib.metadata.distributions():
        if f"[{PROJECT}]" in (each.read_text("entry_points.txt") or ""):
            for point in each.entry_points.select(group=PROJECT):
                if point.name not in known:  # the nearer package of two of one name
                    known.add(point.name)
                    yield point.name, point.load()


def _may_add(place: str) -> bool:
    """Return whether a place that modules come from has a package that adds something; an archive may."""
    try:
        entries = list(os.scandir(place or "."))
    except NotADirectoryError:
        return True
    except OSError:
        return False
    for entry in entries:
        if entry.name.endswith((".dist-info", ".egg-info", ".egg")):
            for part in ("entry_points.txt", "EGG-INFO/entry_points.txt"):
                with contextlib.suppress(OSError):
                    if f"[{PROJECT}]".encode() in Path(entry.path, part).read_bytes():
                        return True
    return False


class _Marked:
    """Lets pluggy see a conftest's functions as implementations of our hooks."""

    def __init__(self, plugin: object) -> None:
        from . import hookspecs

        for name in vars(hookspecs):
            if name.startswith("pytest_machine_") and (function := getattr(plugin, name, None)) is not None:

                def call(function: Callable[[], object] = function) -> object:
                    return function()

                setattr(self, name, hookspecs.hookimpl(call))
