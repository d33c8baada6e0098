"""``pytest-machine doctor``: every driver, whether it can be used here, why not, and what mends that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from click.testing import CliRunner, Result

from pytest_machine import plugins
from pytest_machine.cli import main
from pytest_machine.driver import Driver
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import DriverUnavailable
from pytest_machine.options import option
from pytest_machine.testing.fake import FakeDriver

Doctor = Callable[..., Result]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Run it where these are the drivers."""

    def run(*drivers: type[Driver]) -> Result:
        monkeypatch.setattr(plugins.Registry, "names", lambda self: [driver.name for driver in drivers])
        monkeypatch.setattr(
            plugins.Registry, "driver", lambda self, name: next(each for each in drivers if each.name == name)
        )
        return CliRunner().invoke(main, ["doctor"])

    return run


def refuse(self: object) -> None:
    raise DriverUnavailable("It needs a moon.", facts={"found": "no moon"}, hint="sudo moon --install")


class Moon(FakeDriver):
    name = "moon"
    check = refuse


def test_one_that_works_is_enough(doctor: Doctor) -> None:
    shown = doctor(Moon, FakeDriver)
    assert shown.exit_code == 0
    assert shown.output.splitlines() == [
        "moon  no   It needs a moon.",
        "           found: no moon",
        "           hint: sudo moon --install",
        "fake  yes  privileged",
    ]


@dataclass(frozen=True, kw_only=True)
class Pool(FakeDriver):
    name = "pool"
    folder: str = option("", help="where it is")

    def check(self) -> None:
        if not self.folder:
            raise DriverUnavailable("It needs a folder.", hint="POOL_FOLDER=/path")


def test_a_driver_has_the_options_of_its_variables(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor(Pool).output.startswith("pool  no   It needs a folder.")
    monkeypatch.setenv("POOL_FOLDER", "/pool")
    assert doctor(Pool).output == "pool  yes  privileged\n"
    monkeypatch.setenv("POOL_DELAY", "soon")
    assert "POOL_DELAY" in doctor(Pool).output or "delay" in doctor(Pool).output


def test_none_works(doctor: Doctor) -> None:
    shown = doctor(Moon)
    assert shown.exit_code == 1
    assert "hint: sudo moon --install" in shown.output


def test_a_driver_that_breaks_hides_no_other(doctor: Doctor) -> None:
    class Broken(FakeDriver):
        name = "broken"

        def check(self) -> None:
            raise RuntimeError("oh no")

    shown = doctor(Broken, FakeDriver)
    assert shown.exit_code == 0
    assert "broken  no   Its check failed: RuntimeError: oh no" in shown.output
    assert "fake    yes" in shown.output


def test_runc_says_what_is_missing(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_machine.drivers.runc.installed", lambda program: program != "nft")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    shown = doctor(RuncDriver)
    assert shown.exit_code == 1
    assert "nft" in shown.output
    assert "hint: sudo apt-get install nftables" in shown.output


def test_every_driver_is_named() -> None:
    shown = CliRunner().invoke(main, ["doctor"])
    for name in plugins.Registry().names():
        assert any(line.startswith(f"{name} ") for line in shown.output.splitlines())
