"""The pytest plugin: the mark ``machine``, the fixtures, sharing, and what is said of it all.

Loaded in every run of everybody who has the package installed, so it must cost next to nothing: until a test wants a
machine, only this module, `fixtures` and `settings` are imported. A test in tests/plugin holds that.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_machine import hookspecs

from . import fixtures, settings

if TYPE_CHECKING:
    from .rooms import Rooms

_MARK = (
    "machine(*names, driver=, count=, reuse=, share=, reset=, teardown=, image=, engine=, memory=, cpus=, disk=, "
    "networks=, router=, topology=, swarm=, role=, needs=, preload=, registry_mirror=, insecure_registries=, "
    "engine_options=, engine_env=, labels=, options=, timeout=, logs=, fail_on=): the throwaway Docker hosts that the "
    "test's fixtures give."
)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Let a conftest add drivers."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags and ini options."""
    settings.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Make mark and fixtures known."""
    config.addinivalue_line("markers", _MARK)
    config.pluginmanager.register(fixtures, "machine-fixtures")


@pytest.hookimpl(trylast=True)  # behind the test's own parameters, in its id too
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once on each engine that its marks list."""
    if any(isinstance(mark.kwargs.get("engine"), list | tuple) for mark in metafunc.definition.iter_markers("machine")):
        from . import collection

        collection.parametrize(metafunc)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Check the marks, once there are some."""
    report = yield
    if any(isinstance(found, pytest.Item) and fixtures.concern(found) for found in report.result or ()):
        return _rooms(collector.config).collection.checked(report)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell a worker of pytest-xdist which run it belongs to."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]  # xdist's WorkerController
    _rooms(config).keeper.tell(node)


def _rooms(config: pytest.Config) -> Rooms:
    from . import rooms

    return rooms.of(config)
