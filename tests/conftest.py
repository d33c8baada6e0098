"""What every test may ask for."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from pytest_machine.client_environment import uncovered
from pytest_machine.owner import cache_dir
from tests.dockerd import Dockerd, running

pytest_plugins = ["pytester"]

# Pytester gives its runs a home of their own, and with it an empty cache: each would build the machine image anew.
os.environ.setdefault("PYTEST_MACHINE_CACHE", str(cache_dir()))
# `env` speaks the user's shell, and a CI job may have none.
os.environ["SHELL"] = "/bin/bash"
# A run that was started in the background ignores Ctrl-C, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Our own workers (`scripts/test`) are no concern of the runs inside of tests.
WORKER = os.environ.pop("PYTEST_XDIST_WORKER", "")
for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[name]
# Each has fake machines of its own, and none that an earlier run of these tests has left when it was killed.
os.environ["PYTEST_MACHINE_FAKES"] = tempfile.mkdtemp(prefix=f"fakes-{WORKER or 'one'}-")
atexit.register(shutil.rmtree, os.environ["PYTEST_MACHINE_FAKES"], ignore_errors=True)
# Ports of their own: one that is taken is found free by those of another directory until somebody listens there.
_first = 20000 + 2000 * (int(WORKER.removeprefix("gw") or 0) % 6)
os.environ["PYTEST_MACHINE_FAKE_PORTS"] = f"{_first}-{_first + 2000}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever has two counts is a long proof."""
    for item in items:
        if "rounds" in getattr(item, "fixturenames", ()) or full_only.mark in item.own_markers:
            item.add_marker("proof")


FULL = os.environ.get("PYTEST_MACHINE_PROOF") == "full"


full_only = pytest.mark.skipif(not FULL, reason="a long proof: tox -e proof")
"""For what takes a quiet host, or long, and of which other tests here are the sample."""


SLOWNESS = 1 if FULL else 5
"""How many times slower than promised this host may be, for it may be busy. The proof takes us at our word."""

alone = pytest.mark.alone
"""For what counts everything on this host, prunes it or leaves something for it: nobody else may run meanwhile."""


# A busy host is no fault of what is tested; and what nobody changed does not fail another day. The proof looks further.
hypothesis.settings.register_profile("here", deadline=None, derandomize=not FULL)
hypothesis.settings.load_profile("here")


@pytest.fixture
def rounds() -> Callable[[int, int], int]:
    """How often a long proof repeats itself: `rounds(200, 5)` is 200 under `tox -e proof` and 5 otherwise."""

    def choose(full: int, sampled: int) -> int:
        return full if FULL else sampled

    return choose


@pytest.fixture(autouse=True)
def environment_is_left_alone() -> Iterator[None]:
    """Whatever a run inside of a test shows in the environment is gone with it."""
    before = uncovered()
    yield
    # This test's own machine is shown until all of its fixtures are gone.
    after = uncovered()
    left = {name: value for name, value in after.items() if before.get(name) != value}
    left.pop("PYTEST_CURRENT_TEST", None)
    assert not left
    assert not before.keys() - after.keys() - {"PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="session")
def users_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """A real Docker engine of a user's own; skipped where this host cannot run one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a private dockerd needs Linux and root")
    with running(tmp_path_factory.mktemp("dockerd")) as engine:
        yield engine
