"""Pictures of labs: in the report of a test that failed, among its files, and on the page of the run.

What was cut when it failed is drawn cut, though it is healed by the time at which anybody looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from .artifacts import Artifacts
from .journal import Journal
from .used import Use

if TYPE_CHECKING:
    from pytest_machine.drawing import Scene
    from pytest_machine.lab import Lab


class Pictures:
    """Draws the labs of tests."""

    def __init__(self, journal: Journal, artifacts: Artifacts, *, for_page: bool) -> None:
        self._journal = journal
        self._artifacts = artifacts
        self._for_page = for_page
        self._drawn: set[str] = set()  # labs that passing tests had

    def passed(self, item: pytest.Item, uses: Iterable[Use]) -> None:
        """Note what a test's labs look like, for the page; each lab once."""
        for lab in _labs(uses) if self._for_page else ():
            if len(lab) > 1 and lab[0].record.lab not in self._drawn:
                from pytest_machine import sketch

                self._drawn.add(lab[0].record.lab)
                self._note(item, sketch.scene(lab), "passed")

    def failed(self, item: pytest.Item, uses: Iterable[Use], error: BaseException | None) -> list[tuple[str, str]]:
        """Return sections of the report on labs in which a fault was in force; draw each lab of several machines.

        One machine without a fault is not drawn.
        """
        from pytest_machine import drawing, sketch

        found = []
        for number, lab in enumerate(_labs(uses), 1):
            scene = sketch.scene(lab, lab.faults_at(error), title=item.nodeid)
            if len(scene.machines) < 2 and not scene.faults:
                continue
            if self._for_page:
                self._note(item, replace(scene, title=""), "failed")
            said = drawing.told(scene)
            if self._artifacts.asked:
                name = "lab.svg" if number == 1 else f"lab-{number}.svg"
                with self._artifacts.attempt():
                    file = self._artifacts.test(item.nodeid) / name
                    file.write_text(drawing.svg(scene), "utf-8")
                    said += f"\n\ndrawing: {file}"
            if not scene.faults:
                continue
            found.append(("lab when the test failed" if number == 1 else f"lab {number} when the test failed", said))
        return found

    def _note(self, item: pytest.Item, scene: Scene, outcome: str) -> None:
        from pytest_machine import drawing

        shape = drawing.svg(_without_addresses(scene))
        shape_id = hashlib.sha256(shape.encode()).hexdigest()[:12]
        # Of two pictures in one page no two elements may have the same id.
        ident = f"d{hashlib.sha256(f'{item.nodeid} {shape_id} {id(scene)}'.encode()).hexdigest()[:12]}"
        picture = drawing.svg(scene, ident=ident, style=False)
        self._journal.drawn(picture, test=item.nodeid, outcome=outcome, shape=shape_id)


def _labs(uses: Iterable[Use]) -> list[Lab]:
    return list({use.machine.record.lab: use.lab for use in uses if use.lab is not None}.values())


def _without_addresses(scene: Scene) -> Scene:
    """Return the scene without what differs between two labs that are alike."""
    boxes = (replace(box, address="", places=dict.fromkeys(box.places, ())) for box in scene.machines)
    return replace(
        scene, title="", machines=tuple(boxes), networks=tuple(replace(b, subnets=()) for b in scene.networks)
    )
