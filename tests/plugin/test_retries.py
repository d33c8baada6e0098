"""Which failures are tried again: those that a second try can help."""

from __future__ import annotations

import pytest

from pytest_machine import errors
from pytest_machine.errors import DriverUnavailable, MachineError
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry

from .conftest import Run


def test_every_error_says_whether_a_retry_helps() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MachineError)}
    assert {kind.__name__ for kind in kinds if kind.transient} == {
        "DriverError",
        "ConnectFailed",
        "CommandFailed",
        "WaitTimeout",
    }


FAILS = """
from pathlib import Path
from pytest_machine.errors import *
from pytest_machine.testing.fake import FakeDriver

ERRORS = {{
    "driver": DriverError("x"),
    "final": DriverError("x", transient=False),
    "engine": EngineFailed("x"),
    "provision": ProvisionFailed("x"),
    "busy": ProvisionFailed("x", transient=True),
    "usage": BadSpec("x"),
}}

class Failing(FakeDriver):
    name = "failing"

    def create(self, record, seed):
        with Path("tries").open("a") as file:
            file.write("x")
        raise ERRORS[{kind!r}]

def pytest_machine_drivers():
    return [FakeDriver, Failing]
"""


@pytest.mark.parametrize(
    ("kind", "tries"),
    [("driver", 3), ("final", 1), ("engine", 1), ("provision", 1), ("busy", 3), ("usage", 1)],
)
def test_only_what_a_retry_can_help(run: Run, inner: pytest.Pytester, kind: str, tries: int) -> None:
    inner.makeconftest(FAILS.format(kind=kind))
    run(
        "def test_it(machine): ...",
        "--machine-driver=failing",
        "--machine-retries=2",
        errors=1,
    )
    assert (inner.path / "tries").read_text() == "x" * tries


@pytest.fixture
def runc() -> None:
    try:
        Registry().configure(Spec(driver="runc")).check()
    except DriverUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("runc")
@pytest.mark.parametrize(
    "wrong", ['engine_options={"no-such-key": 1}', 'engine_options={"storage-driver": "none"}', 'preload="bad.tar"']
)
def test_a_wrong_setting_is_tried_once(run: Run, inner: pytest.Pytester, wrong: str) -> None:
    (inner.path / "bad.tar").write_text("no archive")
    result = run(
        f"""
        import pytest

        @pytest.mark.machine(driver="runc", {wrong})
        def test_it(machine): ...
        """,
        errors=1,
    )
    assert sum(line.startswith("failed try: ") for line in result.outlines) <= 1


@pytest.mark.usefixtures("runc")
def test_a_provisioner_of_a_conftest(run: Run, inner: pytest.Pytester) -> None:
    inner.makeconftest(
        """
        class Mark:
            name = "mark"

            def provision(self, connection, facts, wanted, *, tell):
                tell("leaving a mark")
                connection.run("touch", "/srv/mark")
                return ["left a mark"]

            def upgrade(self, connection, facts, wanted, *, tell):
                return []

        def pytest_machine_provisioners():
            return [Mark]
        """
    )
    run(
        """
        import pytest

        @pytest.mark.machine("theirs", driver="runc")
        def test_it(machine, machine_factory):
            key = str(machine.record.directory / "id_ed25519")
            taken = machine_factory("mine", driver="generic", options={"ip_address": machine.ip, "ssh_key": key})
            assert taken.run("ls", "/srv").stdout == "mark\\n"
        """
    )
