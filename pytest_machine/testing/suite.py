"""`DriverSuite`: what every driver must do, as tests that a driver's author inherits.

A driver is trusted with other people's hosts, bills and secrets, and most of what goes wrong with one goes wrong when
something dies in the middle. So the suite kills real processes in the middle of `create`, looks from fresh processes,
deletes the store, and compares what is there afterwards with an oracle that never asks the driver.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from pytest_machine.driver import CAPABILITIES
from pytest_machine.model import Isolation, names
from pytest_machine.support import clock

from .abilities import AbilityTests
from .lab_tests import LabTests
from .life import LifeTests

_FIVE = ("check", "create", "destroy", "look", "find")


class DriverSuite(AbilityTests, LabTests, LifeTests):
    """Tests that hold a driver to `pytest_machine.driver.Driver` and to every capability that it claims.

    Subclass it in a test file, and pytest does the rest::

        from pytest_machine.testing import DriverSuite, host_leftovers

        class TestMyDriver(DriverSuite):
            driver_class = MyDriver
            options = {"memory": "512m"}

            def leftovers(self) -> set[str]:
                return host_leftovers()

    You **must** give:

    ``driver_class``
        The frozen dataclass with the five methods. It must be importable by its module's name: fresh processes load it.
    ``leftovers()``
        What there is of your driver's machines in the world now, one text a thing: virtual machines, disks, mounts,
        addresses, processes, files. **Ask the provider, not your driver**: this is the oracle. It is compared before
        and after every test. On an idle host, two calls must give the same. `host_leftovers` does it for drivers whose
        machines live on a Linux host.

    You **may** change:

    ``options``
        The driver's options, as a marker would give them.
    ``write(machine, text)``, ``read(machine)``, ``answers(machine)``
        How a file gets onto a machine's disk, how it is read back, and whether the machine is awake. The first two go
        over SSH; the third asks Docker over TLS where certificates can be planted at birth, else SSH.
    ``mtu(machine, address)``, ``reaches_outside(machine)``
        For drivers with networks: the largest packet of an interface, by default read over SSH, and whether a packet of
        the machine comes through to somebody beyond its host; without the latter, isolation is not tested.
    ``damage(machine)``
        For drivers with `SupportsDamagedTags`: how a machine's tags are damaged, so that they cannot be read.
    ``many``, ``ready_seconds``, ``settle_seconds``, ``kill_at``, ``shared``, ``equal_subnets``, ``has_engine``,
    ``required``
        See their docstrings.

    Tests of capabilities that your driver does not have are skipped by name. If `check` says that the driver cannot run
    here, all are skipped with its reason, or fail if ``required``.
    """

    def test_is_a_driver(self) -> None:
        """The class is a frozen dataclass with a name, an isolation and the five methods."""
        driver_class = self.driver_class
        assert is_dataclass(driver_class), f"{driver_class.__name__} is no dataclass: its fields are its options"
        params = driver_class.__dataclass_params__  # type: ignore[attr-defined]
        assert params.frozen, f"{driver_class.__name__} is not frozen: a driver remembers nothing"
        driver = self.driver()
        assert isinstance(driver.name, str), "`name` is no text"
        assert driver.name, "`name` is empty"
        absent = [name for name in _FIVE if not callable(getattr(driver, name, None))]
        assert not absent, f"it lacks methods: {names(absent)}"
        assert isinstance(driver.isolation, Isolation), f"`isolation` is {driver.isolation!r}, no Isolation"

    def test_every_option_has_help(self) -> None:
        """Help pages and docs come from the fields."""
        silent = [f.name for f in fields(self.driver_class) if not f.metadata.get("help")]
        assert not silent, f"options without help (make them with pytest_machine.options.option): {names(silent)}"

    def test_capabilities_are_whole(self) -> None:
        """Who can pause can resume: half a capability is one that no one can ask for."""
        driver = self.driver()
        for word, protocol in CAPABILITIES.items():
            methods = [name for name in vars(protocol) if not name.startswith("_")]
            there = [name for name in methods if callable(getattr(driver, name, None))]
            assert there in ([], methods), f"of the capability '{word}' it has {names(there)}, but not all"

    def test_check_is_cheap(self) -> None:
        """It is asked at the start of every run."""
        begun = clock.monotonic()
        self.driver().check()
        took = clock.monotonic() - begun
        assert took < 2, f"check() took {took:.1f} s"
