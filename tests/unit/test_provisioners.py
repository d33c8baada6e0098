"""Which provisioners a machine goes through, what each is told, and who is named when one fails; the small ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine.connection import Connection
from pytest_machine.errors import BadSpec, CommandFailed, ProvisionFailed
from pytest_machine.model import Engine, Result
from pytest_machine.plugins import Registry
from pytest_machine.provisioner import Facts, SupportsUpgrade, Tell, Wanted
from pytest_machine.provisioners.hostname import hosts

from .local import Local

BUILT_IN = ["hostname", "certificates", "engine", "daemon"]


class Debian(Local):
    """Says that it is a Debian, and lets in as root."""

    def run(
        self, *argv: str, check: bool = True, timeout: float | None = None, input: str | bytes | None = None
    ) -> Result:
        self.asked.append(argv)
        return Result(argv, 0, f"{self.says}\nos-release=\nID=debian\n", "")

    says = "root=yes"


class Plugin:
    """What a package or a conftest adds."""

    def __init__(self, *classes: type) -> None:
        self.classes = classes

    def pytest_machine_provisioners(self) -> Sequence[type]:
        return self.classes


def quiet(name: str, *, does: Sequence[str] = (), raises: Exception | None = None) -> type:
    """Return a provisioner class of that name."""

    class Quiet:
        seen: ClassVar[list[Facts]] = []

        def provision(self, connection: Connection, facts: Facts, wanted: Wanted, *, tell: Tell) -> Sequence[str]:
            self.seen.append(facts)
            if raises:
                raise raises
            return does

    Quiet.name = name  # type: ignore[attr-defined]  # a class variable of the contract
    return Quiet


def told(text: str) -> None:
    """Hear nothing."""


def test_the_built_in_ones_in_their_order() -> None:
    found = Registry().provisioners()
    assert [each.name for each in found] == BUILT_IN
    assert [each.name for each in found if isinstance(each, SupportsUpgrade)] == ["engine"]


def test_one_of_a_built_in_name_takes_its_place_and_others_come_after() -> None:
    mine, more = quiet("engine"), quiet("monitoring")
    found = Registry([Plugin(more, mine)]).provisioners()
    assert [each.name for each in found] == [*BUILT_IN, "monitoring"]
    assert isinstance(found[2], mine)


def registry(**others: type) -> Registry:
    return Registry([Plugin(*(others.get(name, quiet(name)) for name in BUILT_IN))])


def test_all_that_was_changed_is_told_and_the_next_one_knows_it() -> None:
    connection = Debian()
    last = quiet("daemon", does=["wrote b"])
    made = registry(engine=quiet("engine", does=["installed x", "wrote a"]), daemon=last)
    assert made.provision(connection, Wanted(), tell=told) == ["installed x", "wrote a", "wrote b"]
    assert len(connection.asked) == 3, "the machine is asked again after a change, and only then"
    connection.asked.clear()
    assert registry().provision(connection, Wanted(), tell=told) == []
    assert len(connection.asked) == 1


@pytest.mark.parametrize(
    "error",
    [
        ProvisionFailed("It failed.", facts={"it said": "no"}, hint="try"),
        CommandFailed("It failed.", result=Result(("x",), 1, "", "no"), facts={"it said": "no"}),
    ],
)
def test_whoever_fails_is_named(error: Exception) -> None:
    with pytest.raises(ProvisionFailed, match="It failed") as caught:
        registry(engine=quiet("engine", raises=error)).provision(Debian(), Wanted(), tell=told)
    assert list(caught.value.facts) == ["provisioner", "os", "it said"]
    assert caught.value.facts["provisioner"] == "engine"


def test_who_may_do_nothing_is_told_before_anything_is_tried() -> None:
    connection = Debian()
    connection.says = "refused=sudo: a password is required"
    for act in (registry().provision, registry().upgrade):
        with pytest.raises(ProvisionFailed, match="has no sudo without a password") as caught:
            act(connection, Wanted(), tell=told)
        assert caught.value.facts["sudo said"] == "sudo: a password is required"


def test_settings_that_docker_would_refuse_are_refused_before_anything_is_done() -> None:
    connection = Debian()
    with pytest.raises(BadSpec):
        Registry().provision(connection, Wanted(engine=Engine(options={"hosts": ["x"]})), tell=told)
    assert connection.asked == []


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", "127.0.1.1 web\n"),
        ("127.0.0.1 localhost\n127.0.1.1 old.example old\n", "127.0.0.1 localhost\n127.0.1.1 web\n"),
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1 web\n"),
        ("10.0.0.1 web\n", "10.0.0.1 web\n"),
        ("10.0.0.1 db # web\n", "10.0.0.1 db # web\n127.0.1.1 web\n"),
        ("10.0.0.1 web.example webmail", "10.0.0.1 web.example webmail\n127.0.1.1 web\n"),
    ],
)
def test_a_machine_knows_itself(text: str, after: str) -> None:
    assert hosts(text, "web") == after


@given(text=st.text(st.sampled_from("127.0.1 web\n#\t"), max_size=60))
def test_a_second_time_nothing_changes(text: str) -> None:
    once = hosts(text, "web")
    assert hosts(once, "web") == once
