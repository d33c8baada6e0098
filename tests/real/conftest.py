"""Real machines of the driver 'runc', owned by a run of this session; and what is put into them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from examples.demo.conftest import busybox_archive
from pytest_machine import cleaning, reaper
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import DriverUnavailable
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import new_id
from pytest_machine.owner import Run
from pytest_machine.plugins import Registry
from tests.conftest import SLOWNESS


@pytest.fixture(scope="session")
def usable() -> None:
    """Skip where this host cannot make machines; fail where it should."""
    try:
        RuncDriver().check()
    except DriverUnavailable as error:
        if os.environ.get("CI") and sys.platform == "linux" and os.geteuid() == 0 and shutil.which("runc"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def cleaned_rather_than_laid_again() -> Iterator[None]:
    """Give a busy host's engine its time: whether it can be cleaned is asked here, not whether that is the faster way.

    An engine that answers nothing is waited for twice, and no longer, because some tests here have one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleaning, "_GLANCE", cleaning._GLANCE * min(SLOWNESS, 2))
        patch.setattr(cleaning, "_SETTLE", cleaning._SETTLE * SLOWNESS)
        yield


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry()


@pytest.fixture(scope="session")
def run(usable: None, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The owner of every machine here: should this process be killed, its reaper destroys them."""
    run = Run.begin(root=tmp_path_factory.mktemp("state"))
    reaper.watch(run, registry=registry)
    yield run
    run.end()


def _labs(run: Run, registry: Registry, stack: ExitStack) -> Callable[[], Lab]:
    return lambda: stack.enter_context(Lab(store=run.lab_store(new_id()), registry=registry, run=run.id))


@pytest.fixture
def lab(run: Run, registry: Registry) -> Iterator[Lab]:
    """An empty lab of this test's own."""
    with ExitStack() as stack:
        yield _labs(run, registry, stack)()


@pytest.fixture(scope="module")
def module_lab(run: Run, registry: Registry) -> Iterator[Lab]:
    """An empty lab that the tests of a module share."""
    with ExitStack() as stack:
        yield _labs(run, registry, stack)()


@pytest.fixture(scope="session")
def busybox() -> Callable[..., str]:
    """Return a function that puts an image on machines and returns its name."""
    archive = busybox_archive()

    def load(*machines: Machine) -> str:
        for machine in machines:
            machine.docker.api.import_image_from_data(archive, repository="busybox", tag="latest")
        return "busybox:latest"

    return load


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a test's own, for what looks for runs by itself (`prune`)."""
    monkeypatch.setenv("PYTEST_MACHINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
