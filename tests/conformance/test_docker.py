"""The driver 'docker' does what every driver must do, in a user's own engine; the oracle asks that engine itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import docker
import pytest

from pytest_machine.drivers.docker import DockerDriver, outer, tags
from pytest_machine.model import Value
from pytest_machine.reaper import stand_in
from pytest_machine.testing import DriverSuite, Specimen
from pytest_machine.testing.bench import Make
from tests.conftest import FULL, SLOWNESS
from tests.dockerd import Dockerd

# What others of the suite show too, less plainly; a machine takes a second or two.
LONG = {
    "test_a_network_is_as_asked_for",
    "test_connect_again_is_the_same",
    "test_create_killed_midway",
    "test_destroy_again",
    "test_destroy_killed_midway",
    "test_destroy_leaves_nothing",
    "test_destroy_spares_others",
    "test_disconnect",
    "test_equal_names_do_not_meet",
    "test_find_rebuilds_the_record",
    "test_fresh_process_finds",
    "test_fresh_process_looks",
    "test_kill_cuts_the_power",
    "test_look_of_many",
    "test_networks_with_equal_subnets",
    "test_remove_network_again",
    "test_reserve_again_is_the_same",
    "test_start_again",
    "test_stop_again",
    "test_stopped_is_found_and_destroyed",
    "test_two_at_once",
}


class TestDocker(DriverSuite):
    driver_class = DockerDriver
    engine: ClassVar[Dockerd]
    equal_subnets = False
    if not FULL:
        many = 3
        kill_at = (0.1, 0.55, 0.9)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _at_home(cls, users_engine: Dockerd) -> Iterator[None]:
        """Be on the engine's computer, so that containers' addresses are reached."""
        cls.engine = users_engine
        with users_engine.at_home(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(outer, "_GREETING", outer._GREETING * SLOWNESS)  # it may be busy
            yield

    @pytest.fixture(autouse=True)
    def _sampled(self, request: pytest.FixtureRequest) -> None:
        if not FULL and request.node.name in LONG:
            pytest.skip("a long proof: PYTEST_MACHINE_PROOF=full")

    @property
    def options(self) -> Mapping[str, Value]:  # type: ignore[override]  # the engine's socket is known late
        return {"host": self.engine.url, "memory": "512m"}

    def leftovers(self) -> set[str]:
        return self.engine.things()

    def reaches_outside(self, machine: Specimen) -> bool:
        """Ask the other computer, beyond the engine's, for a port that nobody has there: it says so."""
        with self.ssh(machine) as connection:
            argv = ("timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/9")
            return "refused" in connection.run("env", "LC_ALL=C", *argv, check=False).stderr

    def test_damaged_labels_are_found(self, specimen: Make) -> None:
        """Labels of an existing thing cannot be changed: a volume with damaged ones is made as a machine's."""
        driver = self.driver()
        assert isinstance(driver, DockerDriver)
        machine = specimen(reserve=False)
        labels = {tags.ID: machine.id, tags.RECORD: '{"id": ', f"{tags.PREFIX}.name": "web"}
        api = docker.APIClient(base_url=self.engine.url)
        try:
            api.create_volume(f"pytest-machine-{machine.id}", labels=labels)
        finally:
            api.close()
        assert machine.id not in {record.id for record in driver.find()}
        (damaged,) = (each for each in driver.find_damaged() if each.id == machine.id)
        assert (damaged.name, damaged.kind) == ("web", "machine")
        assert damaged.reason
        driver.destroy(stand_in(damaged, driver))
        assert not [each for each in driver.find_damaged() if each.id == machine.id]
