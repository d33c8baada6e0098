"""The daemon's settings as files, against a golden one, and what is refused."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine import daemon
from pytest_machine.errors import BadSpec
from pytest_machine.model import Engine
from pytest_machine.provisioner import Facts
from pytest_machine.provisioners.daemon import _is_applied
from pytest_machine.provisioners.daemon.plan import BORN

GOLDEN = Path(__file__).parents[1] / "rendered"
FULL = Engine(
    registry_mirror=("https://mirror.example", "http://user:secret@10.0.0.1:5000"),
    insecure_registries=("registry.example:5000", "10.0.0.0/8"),
    options={"log-driver": "json-file", "log-opts": {"max-size": "1m"}, "debug": True},
    env={"NO_PROXY": "localhost,10.0.0.0/8", "HTTPS_PROXY": "http://user:it's $HOME@proxy:3128"},
    labels={"zone": "a", "rack": "7"},
)


def test_golden() -> None:
    found = daemon.files(FULL)
    assert {path: file.mode for path, file in found.items()} == daemon.FILES
    for path, file in found.items():
        golden = GOLDEN / Path(path).name
        if os.environ.get("PYTEST_MACHINE_GOLDEN") == "write":
            golden.write_bytes(file.content)
        assert file.content == golden.read_bytes()


def test_nothing_asked_is_no_file() -> None:
    assert daemon.files(Engine()) == {}
    assert daemon.public(Engine()) == {}


def test_what_is_noted_holds_no_secret() -> None:
    noted = daemon.public(FULL)
    assert noted["env"] == ["HTTPS_PROXY", "NO_PROXY"]
    assert "secret" not in str(noted)
    assert "http://10.0.0.1:5000" in str(noted)
    assert "it's" not in repr(FULL), "nor does what a traceback shows"


@pytest.mark.real
@given(value=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40))
def test_the_shell_reads_what_was_meant(value: str) -> None:
    script = daemon.files(Engine(env={"X": value}))["/etc/docker/machine.env"].content
    show = 'set -a; . /dev/stdin; printf %s "$X"'
    done = subprocess.run(["bash", "-c", show], input=script, capture_output=True, check=True)
    assert done.stdout == value.encode()


@pytest.mark.parametrize(
    ("engine", "named"),
    [
        *((Engine(options={name: "x"}), name) for name in ("hosts", "tls", "tlskey", "data-root", "containerd")),
        (Engine(options={"labels": ["a=b"]}), "there is an argument for it: labels="),
        (Engine(options={"registry-mirrors": []}), "registry_mirror="),
        (Engine(options={"log_driver": "x"}), "write 'log-driver'"),
        (Engine(options={"x": object()}), "not JSON serializable"),
        (Engine(registry_mirror=("mirror.example",)), "it takes an address"),
        (Engine(insecure_registries=("http://r:5000",)), "without a scheme"),
        (Engine(labels={"a=b": "c"}), "has no '='"),
        (Engine(env={"A B": "x"}), "no variable can be called so"),
        (Engine(env={"DOCKERD_ARGS": "--tls=false"}), "the machine's own"),
    ],
)
def test_what_is_refused(engine: Engine, named: str) -> None:
    with pytest.raises(BadSpec) as caught:
        daemon.files(engine)
    assert named in str(caught.value)
    assert caught.value.hint


def test_two_settings_by_which_images_are_stored_differ() -> None:
    assert daemon.storage(FULL) == {}
    assert daemon.storage(Engine(options={"storage-driver": "vfs"})) == {"storage-driver": "vfs"}


def test_a_machine_is_born_with_its_drivers_label_which_is_no_setting(tmp_path: Path) -> None:
    for engine in (Engine(), FULL, Engine(labels={"provider": "mine"})):
        for path, file in daemon.files(engine).items():
            (tmp_path / Path(path).name).write_bytes(file.content)
        born = daemon.planted(tmp_path, "runc")
        assert {path: file.mode for path, file in born.items()}.items() <= daemon.FILES.items()
        settings = daemon.read_files(born)
        assert settings.labels == {**engine.labels, "provider": "runc"}
        assert replace(settings, labels=engine.labels) == engine
        assert daemon.read(tmp_path) == engine
        for path in daemon.FILES:
            (tmp_path / Path(path).name).unlink(missing_ok=True)


@pytest.mark.parametrize("engine", [Engine(), FULL, Engine(env={"HTTPS_PROXY": "http://u:p w'$@proxy"})])
def test_settings_are_read_back_from_their_files(engine: Engine, tmp_path: Path) -> None:
    for path, file in daemon.files(engine).items():
        (tmp_path / Path(path).name).write_bytes(file.content)
    assert daemon.read(tmp_path) == engine


def test_as_it_was_born_is_another_engine_not() -> None:
    """One that was installed later does not run before it is started."""
    for seen, holds in ({"version": "26.1.5"}, True), ({"version": "20.10"}, False), ({}, False):
        assert _is_applied(BORN, Facts(os="debian", engine="26.1.5"), seen) is holds
