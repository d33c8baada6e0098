"""The parts of the plugin that a run with machines has, put together when the first test wants one.

A run without machines never comes here; that is what makes the plugin cost it next to nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from pytest_machine.offline import VARIABLE

from . import tracking
from .births import Births
from .choice import Choice
from .collection import Collection
from .environment import Environment
from .healing import Healing
from .journal import Journal
from .keeper import Keeper
from .looking import Looking
from .masking import Masking
from .pool import Pool
from .progress import Progress
from .report import Report
from .settings import Settings
from .shell import Shell
from .upkeep import Upkeep

_ROOMS = pytest.StashKey["Rooms"]()


@dataclass(frozen=True, slots=True)
class Rooms:
    """One of each for a pytest run; all are plugins of their own."""

    collection: Collection
    environment: Environment
    healing: Healing
    looking: Looking
    report: Report
    keeper: Keeper
    upkeep: Upkeep


def of(config: pytest.Config) -> Rooms:
    """Return the run's rooms, made the first time; raises `pytest.UsageError` for wrong settings."""
    if _ROOMS not in config.stash:
        settings = Settings.of(config)
        choice = Choice(config, settings)
        journal = Journal(config)
        looking = Looking(config, settings, journal)
        births = Births(journal, Progress(config), looking.could_not_be_made, retries=settings.retries)
        keeper = Keeper(config, choice, births, journal, keep_all=settings.keep == "always")
        follows = tracking.of(config)
        report = Report(config, keeper, looking, journal, settings.timeline)
        rooms = Rooms(Collection(choice), Environment(follows), Healing(journal), looking, report, keeper, Upkeep())

        def got(node: tracking.Node) -> None:
            looking.got(node)
            if (pool := Pool.found(node)) and pool.first:
                rooms.environment.show(pool.first)

        follows.used = got
        if settings.shell == "failed":
            config.pluginmanager.register(Shell(config), "machine-shell")
        _go_offline(config, settings.offline)
        config.stash[_ROOMS] = rooms
        # Of two that come last, the one registered later comes first: the report looks when the keeper has finished.
        for name in ("environment", "healing", "looking", "report", "keeper", "upkeep"):
            config.pluginmanager.register(getattr(rooms, name), f"machine-{name}")
        config.pluginmanager.register(Masking(), "machine-masking")
        config.pluginmanager.register(keeper.spares, "machine-spares")
        config.pluginmanager.register(keeper.notices, "machine-notices")
        config.pluginmanager.register(births.progress, "machine-progress")
    return config.stash[_ROOMS]


def _go_offline(config: pytest.Config, offline: bool) -> None:
    """Set the variable that forbids downloads as the setting says, for as long as this run lasts."""
    before = os.environ.get(VARIABLE)
    if not offline and not before:
        return
    os.environ[VARIABLE] = "1" if offline else "0"

    def restore() -> None:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before

    config.add_cleanup(restore)
