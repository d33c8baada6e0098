"""Versions of Docker: by release, by static build, by list; and the daemon's settings, as the daemon tells them."""

from __future__ import annotations

import http.server
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine import images
from pytest_machine.errors import BadSpec, DriverError, EngineFailed
from pytest_machine.images import engines
from pytest_machine.lab import Lab
from pytest_machine.model import Engine, Spec, Value
from tests.conftest import full_only

from .asked import pid_of

pytestmark = pytest.mark.real
PROGRAMS = ("dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-proxy", "docker", "ctr")


def build(path: Path, files: dict[str, bytes]) -> Path:
    """Write an archive in the layout of Docker's static builds."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture(scope="module", autouse=True)
def tidy(usable: None) -> Iterator[None]:
    """Remove the images that are made here."""
    before = {image.name for image in images.images()}
    yield
    for image in images.images():
        if image.name not in before and "+" in image.digest:
            images.remove(image)


@pytest.fixture(scope="module")
def static(usable: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trixie's Docker, which runs on bookworm too, as if it were a static build."""
    tree = images.ensure("trixie").path
    found = {name: next((p for p in (tree / "usr/bin" / name, tree / "usr/sbin" / name) if p.exists()), None)
             for name in PROGRAMS}  # fmt: skip
    return build(
        tmp_path_factory.mktemp("static") / "docker-26.1.5.tgz",
        {f"docker/{name}": path.read_bytes() for name, path in found.items() if path},
    )


def spec(engine: str | Path, *, setting: Engine | None = None, **options: Value) -> Spec:
    return Spec(driver="runc", options={"engine": str(engine), **options}, engine=setting or Engine(), timeout=60)


@pytest.mark.parametrize(
    ("engine", "found"),
    [("20.10", "20.10."), ("26", "26.1."), pytest.param("28.5", "28.5.", marks=full_only)],
)
def test_a_version_is_a_release(engine: str, found: str, lab: Lab) -> None:
    images.ensure(images.choose(None, engine))  # building it takes longer than a machine may
    (machine,) = lab.create(spec(engine))
    assert machine.docker.version()["Version"].startswith(found)
    # Each release has its own way of being untouched: what its services are called, what they write.
    machine.note()
    machine.docker.volumes.create("mine")
    machine.run("true")
    booted = pid_of(machine)
    machine.reset()
    assert machine.changes() == []
    assert pid_of(machine) == booted


def test_a_static_build_from_a_path(static: Path, lab: Lab) -> None:
    (machine,) = lab.create(spec(static, image="bookworm"))
    assert machine.docker.version()["Version"].startswith("26.1.5")
    assert "VERSION_CODENAME=bookworm" in machine.run("cat", "/etc/os-release").stdout
    image = images.ensure("bookworm", engine=str(static))
    assert (image.docker, image.source) == ("26.1.5+dfsg1", str(static))
    base = images.ensure("bookworm")
    assert not (base.path / "usr/local/bin/dockerd").exists(), "what it was made of is as it was"
    assert (base.path / "etc/passwd").samefile(image.path / "etc/passwd"), "and takes no more room"


def test_from_an_address_once(static: Path, lab: Lab) -> None:
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def translate_path(self, path: str) -> str:
            return str(static.parent / Path(path).name)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/{static.name}"
            with pytest.raises(DriverError, match="could not be read") as caught:
                images.ensure("trixie", engine=url.replace("docker-", "absent-"))
            assert "404" in str(caught.value)
            (machine,) = lab.create(spec(url))
        finally:
            server.shutdown()
            thread.join()
    assert machine.docker.version()["Version"].startswith("26.1.5")
    assert "VERSION_CODENAME=trixie" in machine.run("cat", "/etc/os-release").stdout
    daemon = machine.run("sh", "-c", "readlink /proc/$(pidof dockerd)/exe").stdout
    assert daemon == "/usr/local/bin/dockerd\n", "the build's, and not the release's of the same version"
    lab.create(spec(url))  # the server is gone
    assert asked == [f"/absent-{static.name.removeprefix('docker-')}", f"/{static.name}"]


def test_what_is_no_build(tmp_path: Path) -> None:
    for wrong in (build(tmp_path / "a.tgz", {"docker/dockerd": b"x"}), tmp_path / "b.tgz"):
        wrong.touch()
        with pytest.raises(BadSpec, match="no static build") as caught:
            images.ensure("trixie", engine=str(wrong))
        assert "docker-VERSION.tgz" in caught.value.hint
    outside = {f"docker/{name}": b"#!/bin/sh\necho Docker version 1.2.3, build x\n" for name in PROGRAMS}
    sly = build(tmp_path / "c.tgz", {**outside, "../../../../etc/evil": b"", "/etc/evil": b""})
    image = images.ensure("trixie", engine=str(sly))
    assert image.docker == "1.2.3"
    assert not (image.path / "etc/evil").exists()
    assert not Path("/etc/evil").exists()


def test_a_version_that_is_nowhere(lab: Lab) -> None:
    with pytest.raises(BadSpec, match="no machine image with Docker") as caught:
        lab.create(spec("19.03"))
    assert {"bookworm has": "20.10.24"}.items() <= caught.value.facts.items()
    with pytest.raises(BadSpec, match="The image 'bookworm' has no Docker"):
        lab.create(spec("26.1", image="bookworm"))
    lab.create(spec("26.1", image="trixie"))


def test_the_table_says_what_dpkg_says() -> None:
    """For the images that are here: the table is what was seen, and must be corrected when a release moves."""
    for image in images.images():
        if images.current(image) and not image.source:
            assert engines.upstream(image.docker) == engines.SEEN[image.suite]


def test_settings_as_the_daemon_tells_them(lab: Lab) -> None:
    settings = Engine(
        registry_mirror=("http://192.0.2.1:5000/",),
        insecure_registries=("192.0.2.2:5000",),
        options={"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 64, "Hard": 64}}, "log-driver": "json-file"},
        env={"HTTPS_PROXY": "http://user:it's a pass@192.0.2.3:3128", "NO_PROXY": "192.0.2.2"},
        labels={"zone": "a", "tier": "db"},
    )
    (machine,) = lab.create(Spec(driver="runc", engine=settings))
    info = machine.docker.info()
    assert info["RegistryConfig"]["Mirrors"] == ["http://192.0.2.1:5000/"]
    assert "192.0.2.2:5000" in info["RegistryConfig"]["IndexConfigs"]
    assert sorted(info["Labels"]) == ["provider=runc", "tier=db", "zone=a"]
    assert info["NoProxy"] == "192.0.2.2"
    pid = machine.run("pidof", "dockerd").stdout.split()[0]
    assert "HTTPS_PROXY=http://user:it's a pass@192.0.2.3:3128" in machine.run(
        "tr", "\\0", "\\n", input=machine.run("cat", f"/proc/{pid}/environ").stdout
    ).stdout.split("\n")
    assert machine.run("stat", "-c", "%a", "/etc/docker/machine.env").stdout == "600\n"
    assert "a pass" not in (machine.record.directory / "pytest-machine.json").read_text()
    machine.restart()
    assert sorted(machine.docker.info()["Labels"]) == ["provider=runc", "tier=db", "zone=a"]


def test_an_option_that_docker_does_not_know_ends_the_wait(lab: Lab) -> None:
    """At once, with Docker's own words, and not after the time-out."""
    with pytest.raises(EngineFailed, match="ends whenever it is started") as caught:
        lab.create(Spec(driver="runc", engine=Engine(options={"no-such-option": True}), timeout=60))
    assert "no-such-option" in str(caught.value)
    assert "engine_options" in caught.value.hint


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A build whose daemon ends at once, as one does that misses something in the kernel."""
    script = (
        b"#!/bin/sh\n[ $1 = --version ] && echo Docker version 99.0, build x && exit\necho no such cgroup >&2\nexit 1\n"
    )
    programs = {f"docker/{name}": b'#!/bin/sh\nexec /usr/bin/${0##*/} "$@"\n' for name in ("containerd", "runc")}
    return build(tmp_path / "docker-99.0.tgz", {"docker/dockerd": script, **programs, "docker/mark": os.urandom(8)})


@pytest.fixture
def inner(pytester: pytest.Pytester, run: object) -> Callable[..., pytest.RunResult]:
    def go(source: str) -> pytest.RunResult:
        pytester.makepyfile(f"import pytest\n{source}")
        return pytester.runpytest_subprocess("-v", "-rs", "-p", "no:cacheprovider", "--machine-driver=runc")

    return go


def test_a_listed_version_that_cannot_run_is_a_skip(broken: Path, inner: Callable[..., pytest.RunResult]) -> None:
    result = inner(
        f"@pytest.mark.machine(engine=['20.10', '{broken}'])\ndef test_x(machine): machine.docker.version()\n"
        f"@pytest.mark.machine(engine='{broken}')\ndef test_asked_for(machine): pass\n"
    )
    result.assert_outcomes(passed=1, skipped=1, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "*test_x?docker-20.10? PASSED*",
            "*docker-99.0.tgz' cannot run on this kernel*no such cgroup*",
            "*none is left*",
        ]
    )


def test_settings_that_break_every_version_are_no_skip(inner: Callable[..., pytest.RunResult]) -> None:
    result = inner(
        "@pytest.mark.machine(engine=['20.10'], engine_options={'no-such-option': 1})\ndef test_x(machine): pass\n"
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ends whenever it is started*"])
