"""``topology=`` on a mark: from Python and from TOML, merged with other marks, and refused with the test's id."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Run

LAB = """
import pytest
from pytest_machine import Link, Net, Role, Topology
from pytest_machine.errors import BadSpec

LAB = Topology(
    networks={"front": Net(subnet="10.1.0.0/24", ipv6=True), "back": Net(isolated=True)},
    roles={"web": Role(count=2, networks=["front"], memory="64m"), "db": Role(networks=["front", "back"])},
)
"""

TOML = """
[networks.front]
subnet = "10.1.0.0/24"
[networks.back]
mtu = 1400
[roles.web]
networks = ["front"]
[roles.db]
networks = ["front", "back"]
"""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake machine has no SSH, so nobody can be told who the others are."""
    monkeypatch.setattr("pytest_machine.lab.Lab._tell", lambda self, mine=(), *, again="": set())


@pytest.mark.usefixtures("told")
def test_in_python(run: Run) -> None:
    run(
        LAB
        + """
@pytest.mark.machine(topology=LAB)
def test_it(lab, machines):
    assert [machine.name for machine in machines] == ["web-1", "web-2", "db"]
    assert lab.topology == LAB
    assert lab["web-2"].networks["front"].ip.startswith("10.1.0.")
    assert lab["web-1"].networks["front"].ip6.startswith("fd")
    assert lab["db"].networks["back"].ip6 == ""
    assert lab.networks["back"].isolated and not lab.networks["front"].isolated
    assert lab["web-1"].docker.info()["MemTotal"] == 64 << 20
    with pytest.raises(BadSpec, match="'web-1' is to sit on the network 'side', and there is none"):
        lab.attach("web-1", "side")
    assert "side" not in lab.networks

@pytest.mark.machine(topology=LAB, memory="32m")
@pytest.mark.machine("late", networks=["back"])
def test_more(lab):
    assert [machine.name for machine in lab] == ["web-1", "web-2", "db", "late"]
    assert [m.docker.info()["MemTotal"] >> 20 for m in lab] == [64, 64, 32, 512]
    assert set(lab["late"].networks) == {"back"}

class TestOne:
    pytestmark = pytest.mark.machine(topology=LAB)

    @pytest.mark.machine("db", memory="48m")
    def test_one_of_them(self, lab):
        assert [m.docker.info()["MemTotal"] >> 20 for m in lab] == [64, 64, 48]
        assert set(lab["db"].networks) == {"front", "back"}
""",
        passed=3,
    )


@pytest.mark.usefixtures("told")
def test_from_a_file(run: Run, inner: pytest.Pytester) -> None:
    (inner.path / "lab.toml").write_text(TOML)
    (inner.path / "sub").mkdir()
    (inner.path / "sub" / "near.toml").write_text(TOML.replace("1400", "1300"))
    (inner.path / "sub" / "test_sub.py").write_text(
        "import pytest\n"
        "@pytest.mark.machine(topology='near.toml')\n"
        "def test_near(lab):\n    assert lab.networks['back'].mtu == 1300\n"
        "@pytest.mark.machine(topology='lab.toml')\n"
        "def test_far(lab):\n    assert lab.networks['back'].mtu == 1400\n"
    )
    run(
        "import pytest\n@pytest.mark.machine(topology='lab.toml')\ndef test_it(lab):\n"
        "    assert set(lab['db'].networks) == {'front', 'back'}\n",
        passed=3,
    )


@pytest.mark.usefixtures("told")
def test_shared_machines_are_where_they_were_declared(run: Run) -> None:
    """Each test of a module finds the networks as they were declared, whatever the one before has done."""
    run(
        LAB
        + """
pytestmark = pytest.mark.machine(topology=LAB, reuse="module")

@pytest.mark.parametrize("turn", range(2))
def test_it(lab, turn):
    assert {m.name: set(m.networks) for m in lab} == {"web-1": {"front"}, "web-2": {"front"}, "db": {"front", "back"}}
    lab.attach("web-1", "back")
    lab.detach("db", "front")
    assert set(lab["web-1"].networks) == {"front", "back"}
    assert set(lab["db"].networks) == {"back"}
""",
        passed=2,
    )


@pytest.mark.usefixtures("told")
def test_a_network_that_the_lab_does_not_have(run: Run) -> None:
    """Not reached over it is what a test of a partition wants to see: a wrong name must not look like that."""
    run(
        LAB
        + """
from pytest_machine.errors import BadSpec

@pytest.mark.machine(topology=LAB)
def test_it(lab):
    for wrong in (lambda: lab.reachable("web-1", "db", network="frnt"), lambda: lab.detach("db", "frnt")):
        with pytest.raises(BadSpec, match="no network 'frnt'"):
            wrong()
""",
        passed=1,
    )


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("topology=3", "cannot have topology=3"),
        ("topology='none.toml'", "There is no topology 'none.toml'."),
        ("'web', topology=LAB", "A mark with a topology names no machines"),
        ("topology=LAB, count=2", "cannot have count=2"),
        (
            "topology=Topology(networks=['n'], roles={'a': Role(networks=['m'])})",
            "sit on the network 'm', and there is none",
        ),
        ("topology=Topology(roles={3: Role()})", "cannot be called '3'"),
        ("topology=Topology(networks={3: Net()}, roles={'a': Role()})", "cannot be called '3'"),
        ("topology=Topology(roles={'a': Role(memroy='1g')})", "takes no argument 'memroy'"),
        ("topology=Topology(roles={'a': Role(memory='much')})", "cannot have memory='much'"),
        ("topology=Topology(networks={'n': Net(mtu=1)}, roles={'a': Role()})", "cannot have an MTU of 1"),
        ("'a', networks=['front'], router=True", "'a' is to route, and sits on fewer than two networks"),
        (
            "topology=Topology(networks=['n'], roles={'a': Role(networks=['n'])}), driver='none'",
            "The driver 'none' does not have 'networks'.",
        ),
    ],
)
def test_wrong_ones_end_the_collection(inner: pytest.Pytester, mark: str, says: str) -> None:
    inner.makepyfile(test_it=f"{LAB}\n@pytest.mark.machine({mark})\ndef test_it(lab): ...")
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*test_it.py::test_it: *{says.replace('[', '[[]')}*", "*hint: *"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_who_has_networks_is_said(inner: pytest.Pytester) -> None:
    mark = "topology=Topology(networks=['n'], roles={'a': Role(networks=['n'])}), driver='none'"
    inner.makepyfile(test_it=f"{LAB}\n@pytest.mark.machine({mark})\ndef test_it(lab): ...")
    inner.runpytest_inprocess().stdout.fnmatch_lines(["*drivers that have it*'runc'*"])


def test_a_file_that_is_wrong_is_named(inner: pytest.Pytester) -> None:
    (inner.path / "lab.toml").write_text(TOML + '[[links]]\nbetween = ["web", "dbb"]\nloss = 0.1\n')
    inner.makepyfile(test_it="import pytest\n@pytest.mark.machine(topology='lab.toml')\ndef test_it(lab): ...")
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        ["test_it.py::test_it: *no machine and no role: 'dbb'.", "*file *lab.toml", "hint: name one of those"]
    )


def test_what_another_mark_gets_wrong(inner: pytest.Pytester) -> None:
    marks = "@pytest.mark.machine(topology=LAB)\n@pytest.mark.machine('x', networks=['side'])\ndef test_it(lab): ..."
    inner.makepyfile(test_it=f"{LAB}\n{marks}")
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*::test_it: The machine 'x' is to sit on the network 'side', and there is none."])
