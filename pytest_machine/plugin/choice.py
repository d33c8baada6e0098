"""From what a test asks for to a `Spec`: which driver, and what becomes of a test whose driver cannot run here.

A driver that was asked for (mark, flag, variable, ini option, table) and cannot run is an error: somebody relies on it.
One that was chosen for the user is a skip by name, unless ``CI`` is set: there, a suite that skips itself is worse.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_machine.errors import BadSpec, DriverUnavailable, MachineError, UnknownDriver, Unsupported
from pytest_machine.model import Engine, Spec
from pytest_machine.options import from_environment, options
from pytest_machine.preloads import absolute

from .marker import Asked
from .settings import Settings

if TYPE_CHECKING:
    from pytest_machine.driver import Driver
    from pytest_machine.plugins import Registry

_Hook = Callable[[], "Iterable[type[object]] | None"]
_HOOKS = ("pytest_machine_drivers", "pytest_machine_provisioners")

_DEFAULT = Asked(
    reuse="never", share="run", reset=True, teardown="rm", networks=(), needs=frozenset(), timeout=300.0, logs=(),
    fail_on=frozenset(),
)  # fmt: skip


class Choice:
    """The drivers of one pytest run, and which of them makes which machine."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._registry: Registry | None = None
        self._hooks: list[tuple[str, _Hook]] = []  # the conftests' that `_registry` was made with
        self._checked: dict[Spec, MachineError | None] = {}
        self._chosen: dict[frozenset[str], type[Driver] | DriverUnavailable] = {}

    @property
    def settings(self) -> Settings:
        """What holds where no mark says."""
        return self._settings

    @property
    def registry(self) -> Registry:
        """Every driver and provisioner: built in, installed, and of the conftests that are loaded by now."""
        known = self._config.pluginmanager.hook
        hooks = [
            (name, cast("_Hook", found.function)) for name in _HOOKS for found in getattr(known, name).get_hookimpls()
        ]
        if self._registry is None or hooks != self._hooks:
            from pytest_machine.plugins import Registry

            self._hooks = hooks
            self._registry = Registry(extra=[_Conftest(*hook) for hook in hooks])
            self._chosen.clear()
        return self._registry

    def completed(self, asked: Asked) -> Asked:
        """Return what was asked with the settings and defaults where it says nothing; no driver is chosen yet."""
        full = asked.over(replace(self._settings.asked, options={})).over(_DEFAULT)
        full = replace(full, named=asked.driver is not None if asked.named is None else asked.named)
        # Whoever wants a test to fail for something needs a driver that can see it.
        return replace(full, needs=(full.needs or frozenset()) | {"incidents"}) if full.fail_on else full

    def spec(self, asked: Asked) -> Spec:
        """Return the spec of one machine, checked against its driver.

        Raises `BadSpec`, `Unsupported` or `UnknownDriver` for what the user can mend, `DriverUnavailable` when no
        driver was asked for and none works here.
        """
        full = self.completed(asked)
        driver = self.registry.driver(full.driver) if full.driver else self._choose(full)
        spec = self._spec(full, driver)
        try:
            self.registry.configure(spec)
        except BadSpec as error:
            if error.option and error.option not in full.options and (place := self._place(driver, error.option)):
                raise BadSpec(
                    error.message, facts={**error.facts, "set by": place}, hint="change it there, or remove it"
                ) from error
            raise
        return spec

    def _place(self, driver: type[Driver], option: str) -> str:
        """Return the setting or variable that sets an option which no mark sets."""
        variable = options(driver)[option].env
        if os.environ.get(variable) and option not in self._settings.nearer:
            return f"the variable '{variable}'"
        return self._settings.places.get(option, "")

    def expect(self, asked: Asked) -> None:
        """Raise what is wrong with what a mark asks for; whether this host can give it is asked when the test runs.

        Of a mark that names no driver, what the one lacks that a flag names or that is chosen here is no fault of the
        mark's, as long as some driver has it: the test may well be skipped here.
        """
        try:
            self._check(self.spec(asked))
        except DriverUnavailable:
            pass
        except (UnknownDriver, Unsupported):
            if asked.driver:
                raise
        except BadSpec:
            if asked.driver or not self._elsewhere(asked):
                raise

    def _elsewhere(self, asked: Asked) -> bool:
        """Whether the options that this driver does not know are another's."""
        registry = self.registry
        full = self.completed(asked)
        mine = options(registry.driver(full.driver) if full.driver else self._choose(full))
        foreign = asked.options.keys() - mine.keys()
        return bool(foreign) and any(foreign <= options(registry.driver(name)).keys() for name in registry.names())

    def _choose(self, full: Asked) -> type[Driver]:
        # Networks are a capability too: whoever sits on one needs a driver that has them.
        needs = (full.needs or frozenset()) | ({"networks"} if full.networks else frozenset())
        registry = self.registry
        if needs not in self._chosen:
            try:
                self._chosen[needs] = registry.choose(needs)
            except DriverUnavailable as error:
                self._chosen[needs] = error
        chosen = self._chosen[needs]
        if isinstance(chosen, DriverUnavailable):
            raise chosen
        return chosen

    def _spec(self, full: Asked, driver: type[Driver]) -> Spec:
        known = options(driver)
        # A setting is for every driver, so one that lacks the option is not at fault; a mark that names it is.
        settings = {key: value for key, value in self._settings.asked.options.items() if key in known}
        nearer = {key: value for key, value in settings.items() if key in self._settings.nearer}
        return Spec(
            name=full.name,
            driver=driver.name,
            options={**settings, **from_environment(driver, os.environ), **nearer, **full.options},
            networks=full.networks or (),
            router=bool(full.router),
            topology=full.topology,
            needs=full.needs or frozenset(),
            engine=Engine(
                registry_mirror=full.registry_mirror or (),
                insecure_registries=full.insecure_registries or (),
                options=full.engine_options or {},
                env=full.engine_env or {},
                labels=full.labels or {},
            ),
            preload=tuple(absolute(one, self._config.rootpath) for one in full.preload or ()),
            timeout=full.timeout or 300.0,
        )

    def specs(self, asked: Iterable[Asked]) -> list[Spec]:
        """Return the specs of a test that is about to run; skip it where no driver works and none was asked for.

        Raises what `spec` raises, and `DriverUnavailable` for a driver that was asked for.
        """
        found = []
        for one in asked:
            try:
                spec = self.spec(one)
                self._check(spec)
            except Unsupported as error:
                if self._settings.unsupported == "skip" and not self.completed(one).named:
                    raise pytest.skip.Exception(str(error)) from None
                raise
            except DriverUnavailable as error:
                if self._settings.unavailable == "skip" and not self.completed(one).driver:
                    raise pytest.skip.Exception(str(error)) from None
                raise
            found.append(spec)
        return found

    def _check(self, spec: Spec) -> None:
        """Raise `DriverUnavailable` or `BadSpec` when the driver cannot run with these options; asked once a spec."""
        if spec not in self._checked:
            self._checked[spec] = None
            try:
                self.registry.configure(spec).check()
            except MachineError as error:
                self._checked[spec] = error
        refused = self._checked[spec]
        if refused is not None:
            raise refused


class _Conftest:
    """A conftest's hook as a plugin of its own: pytest has found it by its rules, our registry need not know them."""

    def __init__(self, name: str, function: _Hook) -> None:
        setattr(self, name, lambda: function() or ())
