"""The program, with the in-memory driver as an installed package would add it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import unittest.mock
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

import pytest_machine
from pytest_machine.cli import main
from pytest_machine.store import Store
from pytest_machine.testing.fake import FakeDriver

PLUGIN = """
import dataclasses
from typing import ClassVar
from pytest_machine.hookspecs import hookimpl

@hookimpl
def pytest_machine_drivers():
    from pytest_machine.errors import DriverError
    from pytest_machine.options import option
    from pytest_machine.testing.fake import FakeDriver

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Cloud(FakeDriver):
        name: ClassVar[str] = "cloud"
        key: str = option("", help="who may", env="CLOUD_API_KEY", secret=True)
        tags: tuple[str, ...] = option((), help="words on it")
        quick: bool = option(True, help="whether it is quick")
        slow: str = option("", help="the machine of which it is slow to speak")

        def create(self, record, seed):
            if self.key != "opensesame":
                raise DriverError("The cloud does not know you.")
            super().create(record, seed)

        def destroy(self, record):
            if self.key != "opensesame":
                raise DriverError("The cloud does not know you.")
            super().destroy(record)

        def look(self, records):
            if self.slow in [record.name for record in records]:
                import time
                time.sleep(60)
            return super().look(records)

    return [FakeDriver, Cloud]
"""


@dataclass
class Said:
    """What a call of the program did."""

    code: int
    out: str
    err: str


@dataclass
class Program:
    """Calls the program; its machines are in `store`."""

    store: Store
    driver: FakeDriver
    environ: dict[str, str] = field(default_factory=dict)
    name: str = "python -m pytest_machine"
    """What was typed to call it `here`."""

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "pytest_machine", *args]

    def here(self, *args: str, input: str = "", **environ: str) -> Said:
        """Call it in this process, which takes a tenth of the time of one of its own."""

        before = list(sys.path)
        module = str(Path(pytest_machine.__file__).with_name("__main__.py"))
        argv = [module if " " in self.name else self.name, *args]
        with (
            unittest.mock.patch.dict(os.environ, {**self.environ, **environ}, clear=True),
            unittest.mock.patch.object(sys, "argv", argv),
        ):
            sys.path[:0] = self.environ["PYTHONPATH"].split(os.pathsep)
            try:
                done = CliRunner().invoke(main, args, input=input, prog_name=self.name)
            finally:
                sys.path[:] = before
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert "Traceback" not in done.stderr
        return Said(done.exit_code, done.stdout, done.stderr)

    def __call__(self, *args: str, input: str = "", **environ: str) -> Said:
        """Call it as a process of its own."""
        done = subprocess.run(
            self.argv(*args),
            input=input,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**self.environ, **environ},
            check=False,
            timeout=120,
        )
        assert "Traceback" not in done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def make(self, *names: str, driver: str = "fake") -> None:
        for name in names:
            said = self.here("create", "-d", driver, name)
            assert said.code == 0, said.err

    def quickly(self) -> Program:
        """Return the same program without a process a call, for what says nothing of starts and ends of processes."""
        return Quick(self.store, self.driver, self.environ)

    @property
    def left(self) -> set[str]:
        """Names of all machines that there are, noted or not."""
        return {record.name for record in self.driver.find()}


class Quick(Program):
    """Calls it in this process."""

    def __call__(self, *args: str, input: str = "", **environ: str) -> Said:
        return self.here(*args, input=input, **environ)


@pytest.fixture
def quick(program: Program) -> Program:
    """The program in this process: a hundred times as fast."""
    return program.quickly()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with made(tmp_path) as program:
        yield program


@contextlib.contextmanager
def made(tmp_path: Path) -> Iterator[Program]:
    """The program with all that is its own below a directory."""
    site = tmp_path / "site"
    info = site / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "stranger_drivers.py").write_text(PLUGIN, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[pytest_machine]\nstranger = stranger_drivers\n", "utf-8")
    top = Path(pytest_machine.__file__).parents[1]
    ours = ("MACHINE_", "DOCKER_", "FAKE_", "CLOUD_", "ENGINE_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        environ.pop(name, None)
    driver = FakeDriver(directory=tmp_path / "fake")
    environ |= {
        "PYTHONPATH": os.pathsep.join([str(top), str(site)]),
        "MACHINE_STORAGE_PATH": str(tmp_path / "my machines"),
        "PYTEST_MACHINE_HOME": str(tmp_path / "home"),
        "FAKE_DIRECTORY": str(driver.directory),
        "CLOUD_DIRECTORY": str(driver.directory),
    }
    try:
        yield Program(Store(tmp_path / "my machines"), driver, environ)
    finally:
        for record in driver.find():
            driver.destroy(record)
