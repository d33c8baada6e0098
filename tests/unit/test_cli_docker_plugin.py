from __future__ import annotations

import os

import pytest

from pytest_machine.cli.docker_plugin import inner


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("machine", ""),
        ("machine ls -q", "ls -q"),
        ("machine ssh web -D 1", "ssh web -D 1"),
        ("-D machine ls", "--debug ls"),
        ("--debug --context x -H tcp://1:2 --tls machine ls", "--debug ls"),
        ("--context=machine machine rm machine", "rm machine"),
        ("-c machine machine ls", "ls"),
        ("help machine ssh", "help ssh"),
        ("ls", None),
        ("help", None),
        ("", None),
        ("--context machine", None),
        ("__complete machine ls", None),
    ],
)
def test_what_is_ours(words: str, ours: str | None) -> None:
    assert inner(words.split()) == (None if ours is None else ours.split())


def test_dockers_directory_goes_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/old")
    assert inner(["--config", "/a b", "machine", "ls"]) == ["ls"]
    assert os.environ["DOCKER_CONFIG"] == "/a b"
