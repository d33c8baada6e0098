"""The pytest plugin: the mark ``machine``, the fixtures, sharing, and what is said of it all.

Loaded in every run of everybody who has the package installed, so it must cost next to nothing: until a test wants a
machine, only this module, `fixtures`, `settings` and `tracking` are imported. A test in tests/plugin holds that.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_machine import hookspecs

from . import fixtures, settings, tracking

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
    config.stash[tracking.TRACKING] = follows = tracking.Tracking()
    config.pluginmanager.register(follows, "machine-tracking")


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
    if _imply(found for found in report.result or () if isinstance(found, pytest.Item)):
        return _rooms(collector.config).collection.checked(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Check the marks that other hooks have added."""
    yield
    fixtures.refuse_misspelt(config, items)
    if _imply(items):
        _rooms(config).collection.check(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Give a test with a mark its machine, whenever the mark was added."""
    fixtures.imply(item)
    yield
    fixtures.require(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that adds the mark to itself: it has run without a machine by then."""
    before = fixtures.concern(item)
    result = yield
    if not before and fixtures.marked(item):
        hint = "add the mark in a fixture, or call request.getfixturevalue('machine')"
        fixtures.refuse(item, "The mark was added while the test ran.", hint)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Leave our own frames out of a report, and add a hint where pytest cannot know it."""
    if call.excinfo is None:
        return (yield)
    from . import frames, hints

    hints.add_to(call.excinfo.value)
    with frames.hidden(item, call.excinfo.value):
        return (yield)


def _imply(items: Iterable[pytest.Item]) -> bool:
    """Give items with marks the fixture; return whether an item has anything to do with machines."""
    concerned = [item for item in items if fixtures.concern(item)]
    for item in concerned:
        fixtures.imply(item)
    return bool(concerned)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell a worker of pytest-xdist which run it belongs to."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]  # xdist's WorkerController
    _rooms(config).keeper.tell(node)


def _rooms(config: pytest.Config) -> Rooms:
    from . import rooms

    return rooms.of(config)
