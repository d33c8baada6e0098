"""Machines that no SSH leads into work in tests: one, several, on networks, and beside others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def sshless(inner: pytest.Pytester) -> None:
    """The machines of the driver 'fake' have no SSH."""
    inner.makeconftest(Path(__file__).with_name("sshless.py").read_text("utf-8"))


def test_several_of_the_driver_none(run: Run, sshless: None) -> None:
    """Engines that were there: here those of two fake machines."""
    result = run(
        """
        import shutil
        import pytest
        from pytest_machine.errors import NotRunning, Unsupported

        def engine(machine, directory):
            for name in ("ca.pem", "cert.pem", "key.pem"):
                shutil.copy(machine.record.directory / name, directory)
            return {"url": machine.url, "certs": str(directory)}

        def test_it(machine, machine_factory, lab, tmp_path):
            for number, name in enumerate(("one", "two")):
                options = engine(machine, tmp_path)
                there = machine_factory(name, driver="none", options=options)
                assert there.docker.ping()
                assert there.env["DOCKER_HOST"] == machine.url
                with pytest.raises(Unsupported, match="no SSH"):
                    there.run("true")
            assert len(lab) == 3
            lab.mend()
            lab.heal()
            assert not lab.draw(tmp_path / "lab.svg").stat().st_size == 0
            with lab.environment():
                pass
            lab["one"].destroy()
            assert machine.docker.ping(), "it was there before us"
            machine_factory("one", driver="none", options=engine(machine, tmp_path))
        """
    )
    result.stdout.fnmatch_lines(["1 machine made: *", "3 existing hosts used"])


def test_on_networks_and_shared(run: Run, sshless: None) -> None:
    run(
        """
        import pytest
        pytestmark = [
            pytest.mark.machine("a", networks=["front"], reuse="module"),
            pytest.mark.machine("b", networks=["front", "back"], reuse="module"),
        ]

        def test_one(lab, machine_factory):
            c = machine_factory("c", networks=["back"])
            assert set(lab["b"].networks) == {"front", "back"}
            lab.attach("a", "back")
            lab["b"].restart()
            lab.detach("a", "back")
            assert lab["c"] is c

        def test_two(lab):
            assert {m.name: set(m.networks) for m in lab} == {"a": {"front"}, "b": {"front", "back"}}
        """,
        passed=2,
    )
