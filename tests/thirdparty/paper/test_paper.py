"""The driver 'paper' does what every driver must do."""

import tempfile
from pathlib import Path

from pytest_machine_paper import PaperDriver  # type: ignore[import-not-found]  # installed where this runs

from pytest_machine.testing import DriverSuite, Specimen

FOLDER = tempfile.mkdtemp()


class TestPaper(DriverSuite):
    driver_class = PaperDriver
    has_engine = False
    options = {"folder": FOLDER}  # noqa: RUF012  # ten lines read better without ClassVar

    def leftovers(self) -> set[str]:
        return {path.name for path in Path(FOLDER).iterdir()}

    def answers(self, machine: Specimen) -> bool:
        return Path(FOLDER, f"{machine.id}.json").exists()

    def write(self, machine: Specimen, text: str) -> None:
        Path(FOLDER, f"{machine.id}.txt").write_text(text, "utf-8")

    def read(self, machine: Specimen) -> str:
        return Path(FOLDER, f"{machine.id}.txt").read_text("utf-8")
