"""A driver of a third party, its plugin and its tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_machine import hookimpl, option, size
from pytest_machine.driver import Driver, Id, Isolation, Record, Seed, Seen, SupportsPower
from pytest_machine.testing import DriverSuite, FakeDriver


@dataclass(frozen=True, kw_only=True)
class ShedDriver:
    """Machines in the shed."""

    name: ClassVar[str] = "shed"

    memory: int | None = option(None, kind=size, help="memory limit, such as 512m")

    @property
    def isolation(self) -> Isolation:
        return Isolation.OWN_KERNEL

    def check(self) -> None: ...

    def create(self, record: Record, seed: Seed) -> None: ...

    def destroy(self, record: Record) -> None: ...

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        return {}

    def find(self) -> Iterable[Record]:
        return ()


@hookimpl
def pytest_machine_drivers() -> Iterable[type[Driver]]:
    return [ShedDriver, FakeDriver]


class TestShed(DriverSuite):
    driver_class = ShedDriver
    options: ClassVar = {"memory": "512m"}

    def leftovers(self) -> set[str]:
        return set()


class TestPlain(DriverSuite):
    driver_class = ShedDriver
    options = {"memory": "512m"}


def powers(driver: Driver) -> bool:
    return isinstance(driver, SupportsPower)
