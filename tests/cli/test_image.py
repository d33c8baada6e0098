"""``pytest-machine image`` and the program around it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_machine import images
from pytest_machine.cli import main
from pytest_machine.images import Progress
from pytest_machine.images.build import Recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_MACHINE_CACHE", str(tmp_path))
    # Nor the images in somebody's own engine.
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")


def make(recipe: Recipe, tree: Path, progress: Progress) -> None:
    tree.mkdir()


def test_ls_and_rm() -> None:
    old = images.ensure("sid", builder=make)
    meta = old.path.parent / "image.json"
    meta.write_text(meta.read_text().replace(old.digest, "000000000000"))
    new = images.ensure("trixie", builder=make)
    shown = CliRunner().invoke(main, ["image", "ls"])
    assert shown.exit_code == 0
    assert f"{new.name}* " in shown.output
    assert "sid-000000000000 " in shown.output
    assert CliRunner().invoke(main, ["image", "rm", "--old"]).output == "sid-000000000000\n"
    assert CliRunner().invoke(main, ["image", "rm", "trixie"]).output == f"{new.name}\n"
    assert images.images() == []


def test_errors_are_a_sentence_and_an_exit_code() -> None:
    for argv, words in (
        (["image", "rm", "nix"], "There is no image 'nix' in the cache.\nhint: pytest-machine image ls\n"),
        (["image", "rm"], "No image was named."),
        (["image", "build", "potato"], "There is no machine image 'potato'.\n  images  'bookworm'"),
    ):
        program = [sys.executable, "-m", "pytest_machine", *argv]
        shown = subprocess.run(program, capture_output=True, text=True, check=False)
        assert shown.returncode == 2
        assert words in shown.stderr
        assert shown.stdout == ""


def test_help_imports_nothing_heavy_and_has_the_name_that_was_typed() -> None:
    code = (
        "import sys; sys.argv = ['/usr/bin/docker-machine', '--help']\n"
        "from pytest_machine.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'docker', 'cryptography', 'pytest', 'requests'} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Usage: docker-machine [OPTIONS] COMMAND")
    assert "  image\t" in shown
    assert shown.endswith("[]\n")


def test_python_m() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pytest_machine", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("python -m pytest_machine version ")
