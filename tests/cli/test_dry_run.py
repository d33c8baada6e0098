"""``create --dry-run`` and ``rm --dry-run``: all is said, and nothing is done."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pytest_machine.store import RECORD

from .conftest import Program


def everything(program: Program) -> dict[Path, bytes]:
    """Return all files below the test's directory."""
    top = program.store.path.parent
    return {path: path.read_bytes() for path in top.rglob("*") if path.is_file() and "site" not in path.parts}


class TestCreate:
    def test_what_would_be_made(self, quick: Program) -> None:
        flags = ["--cloud-tags=a,b", "--engine-label", "zone=a", "--engine-env", "HTTPS_PROXY=http://jo:pw@p.example"]
        before = everything(quick)
        given = {"CLOUD_API_KEY": "opensesame", "CLOUD_MEMORY": "1g"}
        said = quick("create", "-d", "cloud", "--dry-run", *flags, "web", **given)
        assert (said.code, said.err) == (0, "")
        assert everything(quick) == before
        assert not quick.store.path.exists()
        lines = [" ".join(line.split()) for line in said.out.splitlines()]
        directory = quick.store.path / "machines" / "web"
        for line in (
            '"web" would be made; nothing was done.',
            "driver cloud, which was asked for",
            "isolation privileged",
            "address reserved before it is made, and not earlier",
            "memory 1073741824 $CLOUD_MEMORY",
            "key (secret) $CLOUD_API_KEY",
            "tags a,b --cloud-tags",
            "image fake default",
            "labels zone=a",
            "HTTPS_PROXY (a variable)",
            f"{directory}/pytest-machine.json",
            f"{directory}/secrets.json",
            f"{directory}/machine.env",
            f"{quick.store.path}/certs/ca.pem",
        ):
            assert line in lines
        for secret in ("opensesame", "pw"):
            assert secret not in said.out

    def test_it_is_what_is_made_then(self, quick: Program) -> None:
        argv = ["create", "-d", "cloud", "--engine-label=zone=a", "--cloud-key=opensesame", "web"]
        said = quick(*argv, "--dry-run").out
        foretold = {Path(line.strip()) for line in said.partition("Files:\n")[2].splitlines()}
        assert quick(*argv).code == 0
        there = {path for path in quick.store.path.rglob("*") if path.is_file() and path.parent.name != "locks"}
        assert {path for path in there if path.name != ".lock"} == foretold
        second = quick("create", "-d", "fake", "--dry-run", "db").out
        assert f"{quick.store.path}/certs" not in second

    @pytest.mark.parametrize(
        ("environ", "why"),
        [({"MACHINE_DRIVER": "fake"}, "driver     fake, by $MACHINE_DRIVER"), ({}, "the first that can make machines")],
    )
    def test_why_this_driver(self, quick: Program, environ: dict[str, str], why: str) -> None:
        said = quick("create", "--dry-run", "a", **environ)
        if not environ and said.code == 3:
            pytest.skip("no driver can make machines here")
        assert why in said.out

    @pytest.mark.parametrize(
        "argv",
        [
            ["a", "--fake-memory=lots"],
            ["a", "--engine-env", "X"],
            ["a", "--fake-unavailable=no moon"],
            ["a_b"],
            [],
            ["taken"],
            ["a" * 64],
            ["a", "--engine-opt", "hosts=x"],
        ],
    )
    def test_refused_as_the_real_thing(self, quick: Program, argv: list[str]) -> None:
        quick.make("taken")
        before = everything(quick)
        said = quick("create", "-d", "fake", "--dry-run", *argv)
        assert everything(quick) == before
        real = quick("create", "-d", "fake", *argv)
        assert (said.code, said.err) == (real.code, real.err)
        assert said.code != 0

    @pytest.mark.skipif(os.name == "nt", reason="a name in a path")
    def test_one_that_is_being_made_and_one_that_was_broken_off(self, program: Program) -> None:
        quick = program.quickly()
        argv = program.argv("create", "-d", "fake", "--fake-delay", "60", "web")
        noted = program.store.path / "machines" / "web" / "pytest-machine.json"
        with subprocess.Popen(argv, env=program.environ, stdout=subprocess.DEVNULL) as process:
            while not noted.exists():
                time.sleep(0.05)
            said = quick("create", "-d", "fake", "--dry-run", "web")
            process.kill()
        assert (said.code, said.err) == (1, 'Docker machine "web" is being created by another process\n')
        said = quick("create", "-d", "fake", "--dry-run", "web")
        assert "What is left of a creation of that name that was broken off would be removed first." in said.out
        assert quick.store.load("web").ready is None


class TestRemove:
    def test_what_would_go(self, quick: Program, tmp_path: Path) -> None:
        quick.make("web", "gone")
        quick("create", "-d", "none", "--url", "tcp://127.0.0.1:1", "here")
        quick.driver.destroy(quick.store.load("gone"))
        web, gone = quick.store.load("web"), quick.store.load("gone")
        before = everything(quick)
        said = quick("rm", "--dry-run", "web", "gone", "here")
        assert (said.code, said.err) == (0, "")
        assert everything(quick) == before
        assert said.out.splitlines() == [
            "web",
            f"  local   would be removed: {web.directory}",
            f"  remote  would be destroyed (fake, {web.id}, Running)",
            "gone",
            f"  local   would be removed: {gone.directory}",
            f"  remote  is gone already (fake, {gone.id})",
            "here",
            f"  local   would be removed: {quick.store.path}/machines/here",
            f"  remote  stays as it is: it was there before us (none, {quick.store.load('here').id})",
        ]
        assert quick("status", "web").out == "Running\n"

    @pytest.mark.parametrize("flags", [[], ["-f"]])
    def test_unknown_as_the_real_thing(self, quick: Program, flags: list[str]) -> None:
        said = quick("rm", "--dry-run", *flags, "nix")
        real = quick("rm", "-y", *flags, "nix")
        assert (said.code, said.err) == (real.code, real.err)

    def test_one_that_its_driver_cannot_find(self, quick: Program) -> None:
        quick.make("web")
        tags = quick.driver.directory / "machines" / f"{quick.store.load('web').id}.json"
        kept = tags.read_bytes()
        tags.write_text("broken")
        said = quick("rm", "--dry-run", "web").out
        tags.write_bytes(kept)  # or nobody ends its process
        assert "would be destroyed (fake" in said

    @pytest.mark.parametrize("known", [True, False])
    def test_what_the_rescue_by_tags_would_remove(self, quick: Program, known: bool) -> None:
        """The record is damaged, or gone: its driver finds the machine by its tag."""
        quick.make("web", "db")
        web = quick.store.load("web")
        (web.directory / RECORD).write_text("broken")
        if not known:
            shutil.rmtree(web.directory)
        named = "web" if known else str(web.id)
        before = everything(quick)
        plain = quick("rm", "--dry-run", named)
        assert plain.code != 0
        said = quick("rm", "--dry-run", "-f", named)
        assert everything(quick) == before
        assert (said.code, said.err) == (0, "")
        local = f"would be removed: {web.directory}" if known else "none is left"
        assert said.out.splitlines() == [
            named,
            f"  local   {local}",
            f"  remote  would be destroyed (fake, {web.id}), found by its tag",
        ]
        assert quick("status", "db").out == "Running\n"
        quick.driver.destroy(web)
