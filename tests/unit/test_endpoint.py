"""Where the user's own engine is: as the `docker` command finds it, but for machines that the environment names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_machine import client_environment
from pytest_machine.endpoint import SOCKET, Endpoint, at, named


def context(config: Path, name: str, host: str, *, tls: bool = False, skip: bool = False) -> None:
    """Write a context as ``docker context create`` does."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / digest / "meta.json"
    meta.parent.mkdir(parents=True)
    found = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip}}}
    meta.write_text(json.dumps(found))
    if tls:
        (config / "contexts" / "tls" / digest / "docker").mkdir(parents=True)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    context(tmp_path, "far", "tcp://192.0.2.7:2376", tls=True)
    context(tmp_path, "lax", "tcp://192.0.2.8:2376", tls=True, skip=True)
    context(tmp_path, "near", "unix:///run/user/1000/docker.sock")
    return tmp_path


def test_who_goes_before_whom(config: Path) -> None:
    def found(**environ: str) -> str:
        return named({"DOCKER_CONFIG": str(config), **environ}).url

    assert found() == SOCKET
    (config / "config.json").write_text('{"currentContext": "near"}')
    assert found() == "unix:///run/user/1000/docker.sock"
    assert found(DOCKER_CONTEXT="default") == SOCKET
    assert found(DOCKER_CONTEXT="far") == "tcp://192.0.2.7:2376"
    assert found(DOCKER_CONTEXT="far", DOCKER_HOST="tcp://192.0.2.9:2375") == "tcp://192.0.2.9:2375"
    # What `docker-machine env` has set is a machine.
    machine = {"DOCKER_HOST": "tcp://10.214.0.2:2376", "DOCKER_MACHINE_NAME": "default"}
    assert found(**machine) == "unix:///run/user/1000/docker.sock"
    assert named({"DOCKER_CONFIG": str(config), **machine}, machine=True).url == machine["DOCKER_HOST"]


def test_tls(config: Path) -> None:
    base = {"DOCKER_CONFIG": str(config)}
    digest = hashlib.sha256(b"far").hexdigest()
    certs = str(config / "contexts" / "tls" / digest / "docker")
    assert named({**base, "DOCKER_CONTEXT": "far"}) == Endpoint("tcp://192.0.2.7:2376", certs)
    assert not named({**base, "DOCKER_CONTEXT": "lax"}).verify
    url = "tcp://192.0.2.9:2376"
    for environ, wanted in (
        ({}, Endpoint(url)),
        ({"DOCKER_CERT_PATH": "/certs"}, Endpoint(url)),
        ({"DOCKER_CERT_PATH": "/certs", "DOCKER_TLS_VERIFY": "1"}, Endpoint(url, "/certs")),
        ({"DOCKER_CERT_PATH": "/certs", "DOCKER_TLS": "1"}, Endpoint(url, "/certs", verify=False)),
        ({"DOCKER_TLS_VERIFY": "1"}, Endpoint(url, str(config))),
    ):
        given: Mapping[str, str] = environ
        assert at(url, {**base, **given}) == wanted
    assert at("unix:///x.sock", {"DOCKER_TLS_VERIFY": "1"}) == Endpoint("unix:///x.sock")


@pytest.mark.parametrize("spoil", ["", "{", "[]", "{}", '{"Endpoints": {}}'])
def test_a_context_that_is_none(config: Path, spoil: str) -> None:
    if spoil:
        (config / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest() / "meta.json").write_text(spoil)
    with pytest.raises((OSError, ValueError, KeyError, TypeError)):
        named({"DOCKER_CONFIG": str(config), "DOCKER_CONTEXT": "far" if spoil else "never"})


@pytest.mark.parametrize(
    ("url", "host", "near"),
    [
        ("unix:///var/run/docker.sock", "", True),
        ("npipe:////./pipe/docker_engine", "", True),
        ("tcp://127.0.0.1:2375", "127.0.0.1", True),
        ("tcp://localhost:2375", "localhost", True),
        ("tcp://192.0.2.7:2376", "192.0.2.7", False),
        ("tcp://[2001:db8::7]:2376", "2001:db8::7", False),
        ("ssh://me@far", "far", False),
        ("ssh://localhost", "localhost", False),
    ],
)
def test_near_and_far(url: str, host: str, *, near: bool) -> None:
    assert (Endpoint(url).host, Endpoint(url).is_near) == (host, near)


def test_the_environment_without_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///theirs")
    monkeypatch.delenv("DOCKER_MACHINE_NAME", raising=False)
    with (
        client_environment.covering({"DOCKER_HOST": "tcp://1", "DOCKER_MACHINE_NAME": "a"}),
        client_environment.covering({"DOCKER_HOST": "2"}),
    ):
        found = client_environment.uncovered()
    assert found["DOCKER_HOST"] == "unix:///theirs"
    assert "DOCKER_MACHINE_NAME" not in found
