"""The daemon's files for every family against golden ones; and that what is somebody else's stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_machine.errors import ProvisionFailed
from pytest_machine.model import Engine
from pytest_machine.provisioner import Facts, Wanted
from pytest_machine.provisioners.daemon import firewall, services
from pytest_machine.provisioners.daemon.merge import LISTS, merge, parse
from pytest_machine.provisioners.daemon.plan import CONF_D, DROP_IN, PROFILE, Plan, block, command, note, paths, plan

from .systems import OS_RELEASE, facts, unit

GOLDEN = Path(__file__).parents[1] / "rendered"
JSON, ENV = "/etc/docker/daemon.json", "/etc/docker/machine.env"
FULL = Wanted(
    engine=Engine(
        registry_mirror=("https://mirror.example",),
        insecure_registries=("registry.example:5000",),
        options={"storage-driver": "overlay2", "log-opts": {"max-size": "1m"}},
        env={"HTTPS_PROXY": "http://user:it's@proxy:3128"},
        labels={"zone": "a"},
    ),
    provider="generic",
)
DEBIAN = facts("debian-12", engine="20.10.24")


def texts(found: Plan) -> dict[str, str]:
    return {path: file.content.decode() for path, file in found.files.items()}


def applied(there: dict[str, str], found: Plan, known: Facts = DEBIAN) -> dict[str, str]:
    """Return what is there after a plan was followed."""
    left = {path: text for path, text in {**there, **texts(found)}.items() if path not in found.removed}
    return {**left, note(known): found.note}


def file_of(there: dict[str, str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(there.get(JSON, "{}"))
    return found


@pytest.mark.parametrize("system", OS_RELEASE)
def test_golden(system: str) -> None:
    known = facts(system)
    found = plan(known, FULL, {}, unit(system))
    shown = [f"# {known.pretty}, {known.manager}\n"]
    for path, file in found.files.items():
        shown.append(f"### {path} {file.mode:o}\n{file.content.decode()}")
    shown.append(f"### restart\n{services.restart(known).script}")
    shown.append(f"### at every boot\n{services.enable(known).script}")
    text = "\n".join(shown)
    golden = GOLDEN / f"daemon-{system}.txt"
    if os.environ.get("PYTEST_MACHINE_GOLDEN") == "write":
        golden.write_text(text, newline="\n")
    assert text == golden.read_text()
    # The second time nothing differs.
    there = applied({}, found, known)
    again = plan(known, FULL, there, unit(system))
    assert {path: there.get(path) for path in again.files} == texts(again)
    assert not again.removed
    assert again.note == found.note
    assert set(found.files) | {note(known)} <= set(paths(known)), "all that is written is read the next time"


def test_what_is_wanted_no_more_goes_and_nothing_else() -> None:
    theirs = {"debug": True, "labels": ["rack=7"], "log-driver": "local"}
    before = {JSON: json.dumps(theirs), CONF_D: "mine\n"}
    there = applied(before, plan(DEBIAN, FULL, before, unit("debian-12")))
    assert file_of(there)["labels"] == ["rack=7", "zone=a", "provider=generic"]
    assert file_of(there)["debug"] is True
    there = applied(there, plan(DEBIAN, Wanted(), there, unit("debian-12")))
    assert file_of(there) == theirs
    assert ENV not in there
    assert there[CONF_D] == "mine\n"


def test_a_file_that_was_ours_alone_goes() -> None:
    there = applied({}, plan(DEBIAN, FULL, {}, unit("debian-12")))
    found = plan(DEBIAN, Wanted(), there, unit("debian-12"))
    assert sorted(found.removed) == [JSON, ENV]


def test_what_somebody_else_has_set_is_not_overwritten() -> None:
    for theirs, wanted, word in (
        ({"storage-driver": "vfs"}, FULL, "'storage-driver'"),
        ({"labels": ["zone=b"]}, FULL, "'labels'"),
        ({"registry-mirrors": "https://one.example"}, FULL, "'registry-mirrors'"),
        ({"tlscacert": "/root/ca.pem"}, Wanted(), "'tlscacert'"),
    ):
        with pytest.raises(ProvisionFailed, match="somebody else has set") as caught:
            plan(DEBIAN, wanted, {JSON: json.dumps(theirs)}, unit("debian-12"))
        assert word in caught.value.message
        assert JSON in caught.value.hint
    equal = {JSON: json.dumps({"storage-driver": "overlay2"})}
    there = applied(equal, plan(DEBIAN, FULL, equal, unit("debian-12")))
    there = applied(there, plan(DEBIAN, Wanted(), there, unit("debian-12")))
    assert file_of(there) == {"storage-driver": "overlay2"}, "it was theirs, and stays so"


def test_somebody_elses_hosts_are_kept_and_ours_go_beside_them() -> None:
    """Docker refuses what is both a flag and in the file: then the flags go, the distribution's own, too."""
    there = {JSON: json.dumps({"hosts": ["unix:///run/mine.sock"]})}
    for _ in range(2):
        there = applied(there, plan(DEBIAN, Wanted(), there, unit("debian-12")))
        assert file_of(there)["hosts"] == ["unix:///run/mine.sock", "unix:///var/run/docker.sock", "tcp://0.0.0.0:2376"]
        assert file_of(there)["tlsverify"] is True
        (line,) = (line for line in there[DROP_IN].splitlines() if line.startswith("ExecStart=/"))
        assert line == "ExecStart=/usr/sbin/dockerd --containerd=/run/containerd/containerd.sock $DOCKER_OPTS"
    there[JSON] = json.dumps({"hosts": ["unix:///var/run/docker.sock", "tcp://0.0.0.0:2376"]})  # theirs was taken out
    there = applied(there, plan(DEBIAN, Wanted(), there, unit("debian-12")))
    assert file_of(there) == {}
    assert "-H tcp://0.0.0.0:2376" in there[DROP_IN]


@pytest.mark.parametrize("system", ["debian-sid", "boot2docker"])
def test_where_flags_cannot_be_left_out(system: str) -> None:
    known = facts(system)
    config = paths(known)[0]
    with pytest.raises(ProvisionFailed, match="somebody else has set 'hosts'"):
        plan(known, Wanted(), {config: '{"hosts": ["unix:///x"]}'})


@pytest.mark.parametrize("text", ["{", "[]", "nonsense", '{"a": 1} x'])
def test_a_file_that_docker_could_not_read_either(text: str) -> None:
    with pytest.raises(ProvisionFailed, match="cannot be read") as caught:
        plan(DEBIAN, Wanted(), {JSON: text}, unit("debian-12"))
    assert "reason" in caught.value.facts


def test_an_engine_without_a_service() -> None:
    with pytest.raises(ProvisionFailed, match="knows no service 'docker'"):
        plan(DEBIAN, Wanted(), {}, "")
    with pytest.raises(ProvisionFailed, match="who starts its services is not known"):
        services.service(facts("debian-12", manager=""))


@pytest.mark.parametrize(
    ("own", "ours"),
    [
        ("/usr/bin/dockerd", "/usr/bin/dockerd -H unix:///var/run/docker.sock -H tcp://0.0.0.0:99"),
        ("/usr/bin/dockerd -H fd:// -D", "/usr/bin/dockerd -D -H fd:// -H tcp://0.0.0.0:99"),
        ("/usr/bin/dockerd --host=unix:///a -H tcp://1.2.3.4:99", "/usr/bin/dockerd -H unix:///a -H tcp://0.0.0.0:99"),
        (
            "/usr/bin/dockerd -H tcp://127.0.0.1:2375 --tls --tlscacert /x --tlskey=/y",
            "/usr/bin/dockerd -H tcp://127.0.0.1:2375 -H unix:///var/run/docker.sock -H tcp://0.0.0.0:99",
        ),
    ],
)
def test_the_distributions_own_command_is_kept(own: str, ours: str) -> None:
    found = plan(DEBIAN, Wanted(engine_port=99), {}, f"[Service]\nExecStart={own}\n")
    tls = "--tlsverify" + "".join(
        f" --tls{what}=/etc/docker/{name}.pem"
        for what, name in (("cacert", "ca"), ("cert", "server"), ("key", "server-key"))
    )
    assert f"\nExecStart=\nExecStart={ours} {tls}\n" in texts(found)[DROP_IN]


def test_the_command_of_a_unit() -> None:
    assert command("[Service]\nExecStart=a \\\n  b\nExecStartPre=c\n ExecStart = d e\n") == "d e"
    assert command("[Unit]\n") == ""


def test_our_init_takes_another_port_beside_its_own() -> None:
    found = plan(facts("debian-sid"), Wanted(engine_port=2400), {})
    assert "DOCKERD_ARGS='-H tcp://0.0.0.0:2400'" in texts(found)[ENV]


@given(
    before=st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60),
    ours=st.lists(st.sampled_from(["a=1", "b='x'", "# c"]), max_size=3),
)
def test_a_block_comes_and_goes(before: str, ours: list[str]) -> None:
    text = "".join(f"{line}\n" for line in ours)
    ended = before if not before or before.endswith("\n") else f"{before}\n"
    once = block(before, text)
    assert block(once, text) == once
    assert block(once, "") == (ended if text else before)
    assert not text or once.startswith(ended)


values = st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["x", "y"]))
entries = st.lists(st.sampled_from(["a=1", "b=1", "c=1", "d=1"]), unique=True, min_size=1)
options_of = dict.fromkeys(("debug", "mtu", "log-driver"), values) | dict.fromkeys(LISTS, entries)
tables = st.fixed_dictionaries({}, optional=options_of)


@given(theirs=tables, wishes=st.lists(tables, max_size=4))
def test_whatever_was_wanted_theirs_is_as_it_was(theirs: dict[str, object], wishes: list[dict[str, object]]) -> None:
    """A chain of wishes, and then none: what was there at the beginning is there at the end, and always was."""
    there, ours = dict(theirs), dict[str, list[object]]()
    for wanted in wishes:
        try:
            there, ours = merge(there, ours, wanted, path="x")
        except ProvisionFailed:
            continue
        for key, value in theirs.items():
            assert set(value) <= set(there[key]) if isinstance(value, list) else there[key] == value  # type: ignore[call-overload]
        for key, value in wanted.items():
            assert set(value) <= set(there[key]) if isinstance(value, list) else there[key] == value  # type: ignore[call-overload]
        assert merge(there, ours, wanted, path="x") == (there, ours)
    there, ours = merge(there, ours, {}, path="x")
    assert (there, ours) == (theirs, {})


@settings(max_examples=40)
@given(before=tables, after=tables, theirs=tables)
def test_broken_off_between_any_two_files_nothing_of_ours_becomes_theirs(
    before: dict[str, object], after: dict[str, object], theirs: dict[str, object]
) -> None:
    """The note that is written first covers what was ours and what is to be; then comes daemon.json."""
    wishes = [Wanted(engine=_engine(wish)) for wish in (before, after)]
    start = {JSON: json.dumps(_without_listening(theirs))}
    try:
        there = applied(start, plan(DEBIAN, wishes[0], start, unit("debian-12")))
        second = plan(DEBIAN, wishes[1], there, unit("debian-12"))
    except ProvisionFailed:
        return
    for partly in ({}, texts(second)):
        broken = {**there, **partly, note(DEBIAN): second.begun}
        if JSON in second.removed and partly:
            del broken[JSON]
        end = applied(broken, plan(DEBIAN, Wanted(), broken, unit("debian-12")))
        assert file_of(end) == _without_listening(theirs)


def _without_listening(found: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in found.items() if key != "hosts"}


def _engine(found: dict[str, object]) -> Engine:
    labels = found.get("labels", [])
    assert isinstance(labels, list)
    return Engine(
        labels={label.partition("=")[0]: label.partition("=")[2] for label in labels},
        options={key: value for key, value in found.items() if key not in LISTS},
    )


def test_an_empty_file_is_one_without_options() -> None:
    assert parse(" \n", JSON) == {}


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="what is run in machines is run by Linux")
def test_scripts_are_scripts() -> None:
    for system in OS_RELEASE:
        known = facts(system)
        for step in (services.look(known, 2376), services.restart(known), services.enable(known), services.log(known)):
            subprocess.run(["sh", "-n"], input=step.script, text=True, check=True)
    subprocess.run(["sh", "-n"], input=firewall.which(2376).script, text=True, check=True)


def test_a_firewall_is_opened_on_suse_and_named_elsewhere() -> None:
    step = firewall.let_through(facts("opensuse-15.6"), "firewalld", 2376)
    assert step
    assert step.arguments == ("2376",)
    assert firewall.let_through(facts("rocky-9"), "firewalld", 2376) is None
    assert firewall.let_through(facts("opensuse-15.6"), "ufw", 2376) is None
    assert firewall.warning("ufw", 2376).endswith("ufw allow 2376/tcp")


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="what is run in machines is run by Linux")
def test_profile_and_conf_d_are_read_by_a_shell(tmp_path: Path) -> None:
    """With somebody else's own settings before ours."""
    for system, path, mine in (
        ("alpine-3.20", CONF_D, "DOCKER_OPTS=--debug"),
        ("boot2docker", PROFILE, "EXTRA_ARGS=-D"),
    ):
        found = plan(facts(system), FULL, {path: mine}, "")
        home = paths(facts(system))[0].rpartition("/")[0]
        variables = tmp_path / "machine.env"
        variables.write_bytes(found.files[f"{home}/machine.env"].content)
        script = texts(found)[path].replace(f"{home}/machine.env", str(variables))
        show = 'printf "%s\\n" "$DOCKER_OPTS$EXTRA_ARGS" "$DOCKER_HOST" "$CACERT"; env | grep PROXY'
        done = subprocess.run(["sh", "-c", f"{script}\n{show}"], capture_output=True, text=True, check=True, env={})
        lines = done.stdout.splitlines()
        assert lines[-1] == "HTTPS_PROXY=http://user:it's@proxy:3128"
        if system == "boot2docker":
            assert lines[:3] == ["-D", "-H tcp://0.0.0.0:2376", f"{home}/ca.pem"]
        else:
            assert lines[0].startswith("--debug -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376 --tlsverify ")
