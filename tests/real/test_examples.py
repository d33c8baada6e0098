"""What the example of etcd shows in seconds holds for minutes, under more kinds of faults, two of them at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from examples.etcd.conftest import ARCHIVE, databases
from examples.etcd.test_etcd import Etcd, disturb_and_check
from pytest_machine import EngineHang, EngineKill, Kill, Loss, Partition, Pause, Restart
from pytest_machine.lab import Lab
from tests.conftest import full_only
from tests.real.asked import spec

__all__ = ["databases"]  # a fixture that builds the image


@full_only
@pytest.mark.parametrize("seed", range(1, 7))
def test_etcd_loses_no_acknowledged_write(lab: Lab, seed: int) -> None:
    lab.create(*(replace(spec(name), preload=(str(ARCHIVE),)) for name in "abc"))
    etcd = Etcd(lab)
    etcd.start()
    faults = [Partition, Kill, Pause, Loss, EngineHang, EngineKill, Restart]
    disturb_and_check(etcd, seconds=60, faults=faults, seed=seed, stacked=2)
