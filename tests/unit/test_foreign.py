"""What Docker Machine noted: whatever is in its file, it is a machine or a sentence."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_machine.errors import StoreError, UnknownMachine
from pytest_machine.foreign import Foreign, is_foreign, load, names

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("ConfigVersion", "Driver", "DriverName", "HostOptions", "IPAddress", "SSHPort", "AuthOptions", "SwarmOptions")


def put(store: Path, name: str, content: object) -> Path:
    directory = store / "machines" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return directory


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON)).map(json.dumps)
    | st.text(max_size=20)
    | JSON.map(json.dumps)
)
def test_whatever_the_file_says(tmp_path: Path, content: str) -> None:
    put(tmp_path, "old", content)
    with contextlib.suppress(StoreError):
        _shown(load(tmp_path, "old"))


def test_what_cannot_be_read_is_told_with_a_remedy(tmp_path: Path) -> None:
    put(tmp_path, "old", "{")
    with pytest.raises(StoreError, match="which Docker Machine made, cannot be read") as caught:
        load(tmp_path, "old")
    assert "docker-machine rm -f old" in caught.value.hint


def _shown(found: Foreign) -> None:
    assert (found.record.name, found.shown["ConfigVersion"]) == ("old", 3)
    json.dumps(found.shown)


@pytest.mark.parametrize(
    ("driver", "shown"),
    [
        ({"AccessToken": "x", "Region": "r"}, {"AccessToken": "", "Region": "r"}),
        (
            {"SecretKey": "x", "AccessKey": "y", "SSHPassword": "z"},
            {"SecretKey": "", "AccessKey": "", "SSHPassword": ""},
        ),
        ({"PrivateKeyPath": "/certs/ca-key.pem", "SSHKeyPath": "/m/id_rsa"}, None),
        (
            {"BaseDriver": {"ApiKey": "x", "IPAddress": "10.0.0.1"}},
            {"BaseDriver": {"ApiKey": "", "IPAddress": "10.0.0.1"}},
        ),
    ],
)
def test_secrets_are_left_out(tmp_path: Path, driver: dict[str, object], shown: dict[str, object] | None) -> None:
    found = Foreign("a", tmp_path, {"DriverName": "x", "Driver": driver})
    assert found.shown["Driver"] == (driver if shown is None else shown)


def test_whose_a_directory_is(tmp_path: Path) -> None:
    put(tmp_path, "old", {})
    put(tmp_path, "ours", {}).joinpath("pytest-machine.json").write_text("{}")
    crashed = tmp_path / "machines" / "crashed"
    crashed.mkdir()
    (crashed / ".pytest-machine.json.1.tmp").touch()
    (tmp_path / "machines" / "a_b").mkdir()
    (tmp_path / "machines" / "file").touch()
    assert names(tmp_path) == ["old"]
    assert not is_foreign(crashed)
    assert names(tmp_path / "nowhere") == []
    for name in ("ours", "crashed", "nix", "../machines/old"):
        with pytest.raises(UnknownMachine):
            load(tmp_path, name)


@pytest.mark.parametrize(
    ("kind", "driver", "user", "port"),
    [
        ("generic", {"IPAddress": "10.0.0.1", "SSHPort": 2222, "SSHUser": "jo"}, "jo", 2222),
        ("generic", {"IPAddress": "10.0.0.1"}, "root", 22),
        ("virtualbox", {"IPAddress": "10.0.0.1", "SSHPort": 64477}, "docker", 22),
        ("amazonec2", {"IPAddress": "10.0.0.1", "SSHPort": 99999}, "ubuntu", 22),
    ],
)
def test_how_it_is_entered(tmp_path: Path, kind: str, driver: dict[str, object], user: str, port: int) -> None:
    address = Foreign("a", tmp_path, {"DriverName": kind, "Driver": driver}).address
    assert address is not None
    assert (address.user, address.ssh_port, address.url) == (user, port, "tcp://10.0.0.1:2376")
