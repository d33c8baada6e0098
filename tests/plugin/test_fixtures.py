"""Every fixture and every argument of the mark, on fake machines."""

from __future__ import annotations

import pytest

from .conftest import Run

ECHO = """
import os, pytest

VARIABLES = ["DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME"]
VARIABLES += ["TESTCONTAINERS_RYUK_DISABLED"]

def shown():
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}
"""


def test_machine(run: Run) -> None:
    run(
        """
        def test_it(machine):
            assert machine.name == "machine"
            assert machine.state == "running"
            assert machine.docker.ping()
        """
    )


def test_machine_is_a_new_one_for_each_test(run: Run) -> None:
    run(
        """
        import pytest
        seen = []

        @pytest.mark.parametrize("x", [1, 2])
        def test_it(machine, x):
            assert not any(other.state == "running" for other in seen)
            seen.append(machine)
        """,
        passed=2,
    )


def test_machines_by_index_name_and_in_a_loop(run: Run) -> None:
    run(
        """
        import pytest

        @pytest.mark.machine("web")
        @pytest.mark.machine("db", "cache")
        def test_it(machines, machine):
            assert [m.name for m in machines] == ["web", "db", "cache"]
            assert len(machines) == 3
            assert machines[0] is machine is machines["web"]
            assert machines[-1] is machines["cache"]
            assert list(machines[1:]) == [machines["db"], machines["cache"]]
        """
    )


def test_lab(run: Run) -> None:
    run(
        """
        import pytest
        from pytest_machine import Lab

        @pytest.mark.machine("web")
        @pytest.mark.machine("db")
        def test_it(lab, machine):
            assert isinstance(lab, Lab)
            assert lab["web"] is lab[0] is machine
            assert [m.name for m in lab] == ["web", "db"]
        """
    )


def test_docker_client(run: Run) -> None:
    run(
        """
        def test_it(docker_client, machine):
            assert docker_client is machine.docker
            assert docker_client.ping()
        """
    )


def test_fixtures_of_one_test_speak_of_the_same_machine(run: Run) -> None:
    run(
        """
        import pytest

        @pytest.fixture
        def prepared(lab):
            return lab[0].id

        def test_it(prepared, machine, machines, docker_client):
            assert prepared == machine.id == machines[0].id
        """
    )


def test_a_factory_makes_one_machine_and_so_no_swarm(run: Run) -> None:
    result = run("def test_it(machine_factory): machine_factory(role='worker')", failed=1)
    result.stdout.fnmatch_lines(["*A machine factory takes no 'role': a Swarm is of several *", "*hint: *lab.swarm(*"])


class TestFactory:
    def test_takes_the_marks_arguments(self, run: Run) -> None:
        run(
            """
            import pytest

            pytestmark = pytest.mark.machine(memory="1g")

            def test_it(machine_factory):
                machine = machine_factory("web", image="mine", timeout=60)
                assert machine.name == "web"
                assert machine.driver.image == "mine"
                assert machine.driver.memory == 1 << 30
                assert machine.docker.ping()
            """
        )

    def test_machine_may_go_earlier(self, run: Run) -> None:
        run(
            """
            def test_it(machine_factory):
                with machine_factory() as machine:
                    assert machine.name == "machine"
                assert machine.state == "absent"
            """
        )

    @pytest.mark.parametrize("argument", ["count=2", "reuse='module'"])
    def test_makes_one_that_lives_as_long_as_itself(self, run: Run, argument: str) -> None:
        result = run(f"def test_it(machine_factory): machine_factory({argument})", failed=1)
        result.stdout.fnmatch_lines([f"*A machine factory takes no '{argument.partition('=')[0]}'*", "*hint: *"])

    def test_wrong_argument_is_told_without_a_traceback(self, run: Run) -> None:
        result = run("def test_it(machine_factory): machine_factory(memroy='1g')", failed=1)
        result.stdout.fnmatch_lines(["*takes no argument 'memroy'*", "*did you mean 'memory='?*"])
        result.stdout.no_fnmatch_line("*leasing.py*")


@pytest.mark.parametrize("scope", ["class", "module", "session"])
class TestWiderScope:
    def test_machine_and_lab_are_shared(self, run: Run, scope: str) -> None:
        result = run(
            f"""
            import pytest

            @pytest.fixture(scope="{scope}")
            def seeded({scope}_machine):
                return {scope}_machine.id

            class TestIt:
                def test_one(self, seeded, {scope}_lab):
                    assert {scope}_lab[0].id == seeded

                def test_two(self, seeded, {scope}_machine):
                    assert {scope}_machine.id == seeded
                    assert {scope}_machine.state == "running"

            def test_over(request):
                machines = request.config.stash
            """,
            passed=3,
        )
        result.stdout.fnmatch_lines(["1 machine made: *"])

    def test_factory(self, run: Run, scope: str) -> None:
        result = run(
            f"""
            import pytest

            @pytest.fixture(scope="{scope}")
            def web({scope}_machine_factory):
                return {scope}_machine_factory("web", memory="256m")

            class TestIt:
                def test_one(self, web):
                    assert (web.name, web.driver.memory) == ("web", 256 << 20)

                def test_two(self, web):
                    assert web.state == "running"
            """,
            passed=2,
        )
        result.stdout.fnmatch_lines(["1 machine made: *"])

    def test_goes_with_its_scope(self, run: Run, inner: pytest.Pytester, scope: str) -> None:
        """A later test of a wider node sees it gone, or still there."""
        inner.makepyfile(
            test_after=f"""
            from pytest_machine.testing.fake import FakeDriver
            import test_it

            def test_after():
                seen = FakeDriver().look([test_it.kept])[test_it.kept.id].state
                assert (seen == "running") == ("{scope}" == "session")
            """
        )
        run(
            f"""
            kept = None

            class TestIt:
                def test_one(self, {scope}_machine):
                    global kept
                    kept = {scope}_machine.record

            def test_behind_the_class():
                from pytest_machine.testing.fake import FakeDriver
                seen = FakeDriver().look([kept])[kept.id].state
                assert (seen == "running") == ("{scope}" != "class")
            """,
            "test_it.py",
            "test_after.py",
            passed=3,
        )

    def test_env_is_there_for_those_who_use_it_alone(self, run: Run, scope: str) -> None:
        run(
            ECHO
            + f"""
class TestIt:
    def test_first(self, {scope}_machine):
        assert shown() == {{name: {scope}_machine.env[name] for name in VARIABLES}}

    def test_other(self):
        assert shown() == {{}}

    def test_later(self, {scope}_lab):
        assert shown()["DOCKER_HOST"] == {scope}_lab[0].url
        # Of two, the test's own.

    def test_own(self, {scope}_lab, machine):
        assert shown()["DOCKER_HOST"] == machine.url != {scope}_lab[0].url
""",
            passed=4,
        )


def test_wider_marks_alone_hold_for_wider_scopes(run: Run) -> None:
    run(
        """
        import pytest

        pytestmark = pytest.mark.machine("wide", memory="256m")

        @pytest.mark.machine("class")
        class TestIt:
            @pytest.mark.machine("own", memory="1g")
            def test_it(self, module_lab, class_lab, lab, session_machine):
                assert [m.name for m in module_lab] == ["wide"]
                assert [m.name for m in class_lab] == ["wide", "class"]
                assert [m.name for m in lab] == ["wide", "class", "own"]
                assert session_machine.name == "machine"
                assert module_lab[0].driver.memory == 256 << 20
        """
    )


class TestEnvironment:
    def test_of_the_first_machine_and_back_again(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", "tcp://theirs:1")
        for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME", "TESTCONTAINERS_RYUK_DISABLED"):
            monkeypatch.delenv(name, raising=False)
        run(
            ECHO
            + """
@pytest.mark.machine("a", "b")
def test_it(machines):
    assert shown() == {name: machines["a"].env[name] for name in VARIABLES}

def test_after():
    assert shown() == {"DOCKER_HOST": "tcp://theirs:1"}
""",
            passed=2,
        )

    def test_back_again_when_another_fixture_fails(self, run: Run) -> None:
        run(
            ECHO
            + """
@pytest.fixture
def broken(machine):
    raise RuntimeError

def test_it(broken): ...

@pytest.fixture(scope="module")
def broken_wide(module_machine):
    raise RuntimeError

def test_wide(broken_wide): ...

def test_after():
    assert shown() == {}
""",
            passed=1,
            errors=2,
        )

    def test_of_a_factorys_first(self, run: Run) -> None:
        run(
            ECHO
            + """
@pytest.fixture
def made(machine_factory):
    return machine_factory("web")

def test_it(made):
    assert shown()["DOCKER_MACHINE_NAME"] == "web"

def test_after():
    assert shown() == {}
""",
            passed=2,
        )


def test_unittest_classes(run: Run) -> None:
    run(
        """
        import os, unittest, pytest

        @pytest.mark.machine("web")
        @pytest.mark.usefixtures("machine")
        class TestIt(unittest.TestCase):
            def test_it(self):
                assert os.environ["DOCKER_MACHINE_NAME"] == "web"

            @pytest.fixture(autouse=True)
            def _take(self, machine):
                self.machine = machine

            def test_taken(self):
                assert self.machine.name == "web"
        """,
        passed=2,
    )


def test_parameters_carry_marks(run: Run) -> None:
    run(
        """
        import pytest

        sizes = [pytest.param(256, marks=pytest.mark.machine(memory="256m")), pytest.param(512)]

        @pytest.mark.parametrize("size", sizes)
        @pytest.mark.machine("web", memory="512m")
        def test_it(machine, size):
            assert machine.name == "web"
            assert machine.driver.memory == size << 20
        """,
        passed=2,
    )


class TestArguments:
    def test_driver(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTEST_MACHINE_DRIVER", "nothing-of-that-name")
        run(
            """
            import pytest

            @pytest.mark.machine(driver="fake")
            def test_it(machine):
                assert machine.record.driver == "fake"
            """
        )

    def test_count(self, run: Run) -> None:
        run(
            """
            import pytest

            @pytest.mark.machine("node", count=2)
            def test_it(machines):
                assert [m.name for m in machines] == ["node-1", "node-2"]
            """
        )

    def test_teardown(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Seen by what the machine was told: `destroy(kill=...)` of each."""
        run(
            """
            import pytest
            from pytest_machine import Machine

            told = {}
            destroy = Machine.destroy

            @pytest.fixture(autouse=True, scope="module")
            def spy():
                def spied(self, *, kill=False):
                    told.setdefault(self.name, kill)
                    destroy(self, kill=kill)
                Machine.destroy = spied
                yield
                Machine.destroy = destroy

            @pytest.mark.machine("orderly")
            @pytest.mark.machine("quick", teardown="kill")
            def test_both(lab): ...

            @pytest.mark.machine("alone", teardown="kill")
            def test_alone(lab): ...

            def test_after():
                assert told == {"orderly": False, "quick": True, "alone": True}
            """,
            passed=3,
        )

    def test_image_memory_options_and_timeout(self, run: Run) -> None:
        run(
            """
            import pytest

            @pytest.mark.machine(image="mine", memory="64m", options={"delay": 0.01}, timeout=100)
            def test_it(machine):
                assert (machine.driver.image, machine.driver.memory, machine.driver.delay) == ("mine", 64 << 20, 0.01)
            """
        )

    def test_timeout_reaches_the_lab(self, run: Run) -> None:
        run(
            """
            import pytest
            from pytest_machine import Lab

            @pytest.fixture
            def asked(monkeypatch):
                asked = []
                create = Lab.create
                monkeypatch.setattr(Lab, "create", lambda self, *specs: (asked.extend(specs), create(self, *specs))[1])
                return asked

            @pytest.mark.machine("slow", timeout=600)
            @pytest.mark.machine("other")
            def test_it(asked, lab):
                assert [(spec.name, spec.timeout) for spec in asked] == [("slow", 600), ("other", 300)]
            """
        )

    @pytest.mark.parametrize("option", ["cpus=2", "disk='1g'"])
    def test_options_that_the_driver_does_not_have(self, run: Run, option: str) -> None:
        result = run(
            f"""
            import pytest

            @pytest.mark.machine({option})
            def test_it(machine): ...
            """,
            errors=1,
        )
        result.stdout.fnmatch_lines(["*The driver 'fake' has no option*"])

    def test_needs(self, run: Run) -> None:
        run(
            """
            import pytest

            @pytest.mark.machine(needs=["pause", "privileged"])
            def test_it(machine):
                machine.pause()
                assert machine.state == "paused"
                machine.resume()
            """
        )


class TestReuse:
    def test_equal_specs_share_in_each_scope(self, run: Run) -> None:
        run(
            """
            import pytest
            seen = {}

            def same(scope, machine):
                return seen.setdefault(scope, machine.id) == machine.id

            @pytest.mark.machine(reuse="class")
            class TestA:
                def test_one(self, machine):
                    assert same("a", machine)
                def test_two(self, machine):
                    assert same("a", machine)

            @pytest.mark.machine(reuse="class")
            class TestB:
                def test_other_class(self, machine):
                    assert machine.id != seen["a"]

            @pytest.mark.machine(reuse="module")
            class TestC:
                def test_one(self, machine):
                    assert same("module", machine)

                @pytest.mark.machine(memory="1g")
                def test_other_spec(self, machine):
                    assert machine.id != seen["module"]

            @pytest.mark.machine(reuse="module")
            def test_module(machine):
                assert same("module", machine)

            @pytest.mark.machine(reuse="session")
            def test_session(machine):
                assert same("session", machine)

            @pytest.mark.machine(reuse="never")
            def test_never(machine):
                assert machine.id not in seen.values()
            """,
            passed=8,
        ).stdout.fnmatch_lines(["6 machines made: *", "none is left"])

    def test_a_set_of_machines_is_shared_as_a_set(self, run: Run) -> None:
        run(
            """
            import pytest
            pytestmark = pytest.mark.machine(reuse="module")
            seen = set()

            @pytest.mark.machine("web")
            @pytest.mark.machine("db")
            def test_one(lab, machine):
                seen.update(m.id for m in lab)
                assert machine.name == "web"

            @pytest.mark.machine("db")
            @pytest.mark.machine("web")
            def test_two(lab, machine):
                seen.update(m.id for m in lab)
                assert machine.name == "db"

            @pytest.mark.machine("web")
            def test_three(machine):
                assert machine.id not in seen

            def test_all():
                assert len(seen) == 2
            """,
            passed=4,
        )

    def test_package(self, inner: pytest.Pytester, run: Run) -> None:
        for package in ("one", "two"):
            inner.makepyfile(
                **{
                    f"{package}/__init__": "seen = set()",
                    f"{package}/test_a": SHARED.format(package=package, known=0),
                    f"{package}/test_b": SHARED.format(package=package, known=1),
                }
            )
        run("def test_top(): ...", passed=5).stdout.fnmatch_lines(["2 machines made: *", "none is left"])

    def test_what_could_not_be_made_is_not_tried_again(self, run: Run) -> None:
        result = run(
            """
            import pytest
            pytestmark = pytest.mark.machine(reuse="module", options={"fail_create": "port"})

            def test_one(machine): ...
            def test_two(machine): ...
            """,
            errors=2,
        )
        result.stdout.fnmatch_lines(["1 could not be made", "none is left"])


SHARED = """
import pytest
from . import seen

@pytest.mark.machine(reuse="package")
def test_it(machine):
    assert len(seen) == {known}
    seen.add(machine.id)
    assert len(seen) == 1
"""
