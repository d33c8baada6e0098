"""Which image has which Docker: without building any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_machine import images
from pytest_machine.driver import SupportsEngineVersion
from pytest_machine.errors import BadSpec
from pytest_machine.images import engines
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry

KNOWN = {"bookworm": "20.10.24+dfsg1-1+deb12u1+b2", "trixie": "26.1.5+dfsg1-9+b9", "sid": "28.5.2+dfsg3-1"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_MACHINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("wanted", "suite"),
    [("20", "bookworm"), ("20.10", "bookworm"), ("20.10.24", "bookworm"), ("26.1", "trixie"), ("28", "sid")],
)
def test_a_version_or_its_beginning(wanted: str, suite: str) -> None:
    assert engines.release(wanted, KNOWN) == suite
    assert images.choose(None, wanted) == suite


@pytest.mark.parametrize("wanted", ["2", "20.1", "26.1.50", "6.1", "", "latest"])
def test_no_version(wanted: str) -> None:
    with pytest.raises(BadSpec) as caught:
        engines.release(wanted, KNOWN)
    assert caught.value.facts == {"bookworm has": "20.10.24", "trixie has": "26.1.5", "sid has": "28.5.2"}


def test_the_newest_of_several() -> None:
    assert engines.release("26", {"a": "26.1.5", "b": "26.1.10", "c": "25.9"}) == "b"


def test_image_and_engine_must_agree(tmp_path: Path) -> None:
    assert images.choose("trixie", "26.1") == "trixie"
    with pytest.raises(BadSpec, match="The image 'bookworm' has no Docker"):
        images.choose("bookworm", "26.1")
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text("Package: docker.io\nVersion: 20.10.5+dfsg1-1\n\n")
    assert images.choose(str(tmp_path), "20.10") == str(tmp_path)
    with pytest.raises(BadSpec, match="has no Docker '26'") as caught:
        images.choose(str(tmp_path), "26")
    assert caught.value.facts == {"it has": "20.10.5"}


def test_static_builds(tmp_path: Path) -> None:
    build = tmp_path / "docker-27.tgz"
    with pytest.raises(BadSpec, match="no static build of Docker at"):
        images.choose(None, str(build))
    build.touch()
    assert images.choose(None, str(build)) == "trixie"
    assert images.choose("bookworm", str(build)) == "bookworm"
    assert images.choose(None, "https://example.com/docker-27.tgz") == "trixie"
    with pytest.raises(BadSpec, match="cannot be read"):
        images.choose(None, "ftp://example.com/docker-27.tgz")
    with pytest.raises(BadSpec, match="not into a tree of yours"):
        images.choose(str(tmp_path), str(build))


@pytest.mark.parametrize("name", ["runc", "docker"])
def test_the_driver_has_the_engines_image(name: str) -> None:
    driver = Registry().configure(Spec(driver=name, options={"engine": "20.10"}))
    assert getattr(driver, "image", "") == "bookworm"
    assert getattr(Registry().configure(Spec(driver=name)), "image", "") == "trixie"


def built(cache: Path, name: str, docker: str) -> None:
    """Write an image as a builder does."""
    suite, _, digest = name.partition("-")
    (cache / "images" / name / "tree").mkdir(parents=True)
    facts = {"suite": suite, "digest": digest, "size": 1, "docker": docker}
    (cache / "images" / name / "image.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("name", ["runc", "docker"])
def test_the_version_of_docker_is_known_before_a_machine_is_made(name: str, cache: Path, tmp_path: Path) -> None:
    def version(**options: str) -> str:
        driver = Registry().configure(Spec(driver=name, options=options))
        assert isinstance(driver, SupportsEngineVersion)
        return driver.engine_version()

    assert version() == "26.1"  # a stable release keeps its version
    assert version(engine="20.10") == version(image="bookworm") == "20.10"
    assert version(image="sid") == ""
    assert version(image="sid", engine="28") == "28"
    built(cache, images.recipe("sid").name, "1:29.3.4+dfsg1-1")
    assert version(image="sid") == version(engine="29") == "29.3"
    built(cache, images.recipe("trixie").name, "26.2.1~rc1+dfsg1-9+b9")
    assert version() == "26.2"  # as found, where the image is built

    static = tmp_path / "docker-27.tgz"
    static.write_bytes(b"x")
    assert version(engine=str(static)) == str(static)
    built(cache, images.known_as("trixie", str(static)), "27.5.1")
    assert version(engine=str(static)) == "27.5"
    assert version(engine="https://example.com/docker-27.tgz") == "https://example.com/docker-27.tgz"

    tree = tmp_path / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    assert version(image=str(tree)) == ""
    (tree / "var/lib/dpkg/status").write_text("Package: docker.io\nVersion: 20.10.5+dfsg1-1\n\n")
    assert version(image=str(tree)) == "20.10"
