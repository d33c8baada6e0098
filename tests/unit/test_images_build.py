"""The image's builder: what it takes from the host, the command that it runs, what it leaves in a tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_machine.errors import DriverError, DriverUnavailable
from pytest_machine.images import build
from pytest_machine.images.build import Host

RENDERED = Path(__file__).parents[1] / "rendered"

DEB822 = """\
Types: deb
# a comment in the middle
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.test/security
Suites: bookworm-security
Components: main
"""
ONE_LINE = """\
# deb http://old.test/debian bookworm main
deb-src http://source.test/debian bookworm main
deb [signed-by=/x.gpg] http://mirror.test/debian bookworm main
deb http://mirror.test/security bookworm-security main
"""


@pytest.mark.parametrize(("name", "text"), [("sources.list.d/debian.sources", DEB822), ("sources.list", ONE_LINE)])
def test_the_mirrors_of_a_debian_host(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "etc/apt" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    release = tmp_path / "etc/os-release"
    release.write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    assert build.mirrors(tmp_path) == ("http://mirror.test/debian", "http://mirror.test/security")
    release.write_text("ID=ubuntu\nVERSION_CODENAME=bookworm\n")
    assert build.mirrors(tmp_path) == ("", "")  # its mirror has no Debian
    release.unlink()
    assert build.mirrors(tmp_path) == ("", "")


def test_a_disabled_source_is_none(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    (tmp_path / "etc/apt/sources.list.d/debian.sources").write_text("Enabled: no\n" + DEB822)
    assert build.mirrors(tmp_path) == ("", "http://mirror.test/security")


@pytest.mark.parametrize(
    ("name", "suite", "host"),
    [
        ("mmdebstrap-bookworm", "bookworm", Host()),
        (
            "mmdebstrap-mirror",
            "trixie",
            Host(mirror="http://mirror.test/debian", security="http://mirror.test/security"),
        ),
        ("mmdebstrap-sid", "sid", Host(mirror="http://mirror.test/debian", unchecked=True)),
    ],
)
def test_the_command(name: str, suite: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: True)  # the keyring, wherever this runs
    argv = build.command(build.recipe(suite), Path("/cache/tree"), host)
    assert "\n".join(argv) + "\n" == (RENDERED / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["E: write error: No space left on device"], "full"),
        (
            [
                "Err:1 http://mirror.test bookworm InRelease",
                "  Could not resolve 'mirror.test'",
                "E: apt-get update failed",
            ],
            "mirror",
        ),
        (["E: chroot failed"], "could not build"),
        ([], "could not build"),
    ],
)
def test_failures_name_their_cause(lines: list[str], words: str) -> None:
    error = build.failure(1, lines)
    assert isinstance(error, DriverError)
    assert words in error.message
    assert error.hint


def test_the_stages_only_go_forward() -> None:
    said = [build.stage(f"I: {words}...") for words in build._STAGES]
    parts = [known[1] for known in said if known]
    assert parts == sorted(parts)
    assert len(parts) == len(build._STAGES)
    assert build.stage("I: success in 26.2 seconds") is None


def test_what_must_differ_between_machines_is_gone(tmp_path: Path) -> None:
    for name in (
        "etc/ssh/ssh_host_rsa_key",
        "etc/resolv.conf",
        "etc/hostname",
        "etc/machine-id",
        "var/lib/apt/lists/x",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the host's")
    (tmp_path / "var/log/apt").mkdir(parents=True)
    (tmp_path / "var/log/apt/history.log").write_text("x")
    (tmp_path / "etc/apt").mkdir()
    (tmp_path / "etc/apt/sources.list").write_text("deb …")
    (tmp_path / "etc/init.d").mkdir()
    (tmp_path / "etc/init.d/docker").write_text("the package's")
    build.finish(build.recipe("bookworm"), tmp_path)

    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()}
    assert left == {"etc/apt/sources.list", "etc/machine-id", *(target for target, _ in build.FILES.values())}
    assert (tmp_path / "etc/machine-id").read_text() == ""
    assert (tmp_path / "usr/sbin/machine-init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "usr/sbin/machine-init").read_bytes().startswith(b"#!/bin/bash\n")
    assert {link: str((tmp_path / link).readlink()) for link in build.LINKS} == build.LINKS
    assert (tmp_path / "etc/docker").is_dir()
    build.finish(build.recipe("bookworm"), tmp_path)  # again is the same


def test_versions_and_sizes(tmp_path: Path) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    assert build.installed(tmp_path, "docker.io") == ""
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: docker.io-doc\nVersion: 1\n\n"
        "Package: docker.io\nStatus: x\nVersion: 20.10.24\n\nPackage: z\nVersion: 3\n"
    )
    assert build.installed(tmp_path, "docker.io") == "20.10.24"
    assert build.installed(tmp_path, "vim") == ""
    before = build.measure(tmp_path)
    (tmp_path / "again").hardlink_to(status)
    assert build.measure(tmp_path) == before


def test_who_cannot_build_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000, raising=False)
    with pytest.raises(DriverUnavailable, match=r"'root' only(.|\n)*hint: sudo"):
        build.check(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverUnavailable, match="sudo apt-get install mmdebstrap"):
        build.check(tmp_path)
    program = tmp_path / "mmdebstrap"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setattr(build, "SPACE", 1 << 60)
    with pytest.raises(DriverError, match=r"no room(.|\n)*PYTEST_MACHINE_CACHE"):
        build.check(tmp_path / "not" / "yet")
