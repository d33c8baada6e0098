"""Plain Debian machines, without Docker, and a repository of packages from which they may install one.

The trees are our own images less Docker and all that came with it; the packages are what apt would load for such a
tree. Both are made once and kept in the cache; what is served to the machines never leaves this host.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from filelock import FileLock

from pytest_machine import images
from pytest_machine.images import build
from pytest_machine.owner import cache_dir

# Docker, and what our image has because of it; our init asks Docker by curl.
WITHOUT = ("docker.io", "docker-cli", "iptables", "openssl", "ca-certificates")
WANTED = ("docker.io", "ca-certificates")
# Packages of more bytes than this are packed anew without compression: each of the tests' machines unpacks them.
_LARGE = 5 << 20
# Chrooted, in a process namespace of its own: whatever a package's script starts ends with it.
_PURGE = """
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y purge $(dpkg-query -W -f '${Package}\\n' "$@" 2>/dev/null) && apt-get -q -y autoremove --purge
"""


def tree(suite: str) -> Path:
    """Return a Debian tree with our init, sshd and sudo, and no Docker: our own image, from which it was purged."""
    made = build.recipe(suite)
    image = images.ensure(suite)

    def fill(partial: Path) -> None:
        copy = partial / "tree"
        subprocess.run(["cp", "-a", "--reflink=auto", image.path, copy], check=True)
        # dpkg follows the links of what it removes, and this one leads to our init.
        (copy / "etc/init.d/docker").unlink()
        chroot: list[str | Path] = ["unshare", "--pid", "--fork", "--kill-child", "chroot", copy]
        done = subprocess.run(
            [*chroot, "sh", "-c", _PURGE, "sh", *WITHOUT], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for path in ("etc/docker", "etc/containerd", "var/lib/boot2docker", "etc/apt/sources.list.d"):
            shutil.rmtree(copy / path, ignore_errors=True)
            (copy / path).unlink(missing_ok=True)
        # Where the machines' packages come from is said by the tests; what this host's apt reads they cannot reach.
        (copy / "etc/apt/sources.list").write_text("")
        for link in ("etc/init.d/docker", "usr/local/bin/systemctl"):
            (copy / link).unlink(missing_ok=True)
            (copy / link).symlink_to(made.links[link])
        for program in ("dockerd", "docker", "containerd", "runc", "iptables"):
            assert shutil.which(program, path=f"{copy}/usr/bin:{copy}/usr/sbin") is None, program

    return _cached(f"plain-{image.name}", fill) / "tree"


def packages(suite: str) -> Path:
    """Return a directory with the packages that a plain tree of a release needs for Docker."""
    plain = tree(suite)
    names = WANTED if suite == "bookworm" else (*WANTED, "docker-cli")
    key = hashlib.sha256(repr((plain.parent.name, names, _LARGE)).encode()).hexdigest()[:12]

    def fill(partial: Path) -> None:
        options = _apt(suite, plain, partial / "apt")
        environment = {**os.environ, **build.Host.ask().environ}
        for words in (["update"], ["install", "--download-only", "--no-install-recommends", "-y", *names]):
            done = subprocess.run(
                ["apt-get", "-q", *options, *words], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        for file in (partial / "apt/archives").glob("*.deb"):
            target = partial / file.name.replace("%3a", ":").replace(":", "_")
            if file.stat().st_size > _LARGE:
                with tempfile.TemporaryDirectory(dir=partial) as work:
                    subprocess.run(["dpkg-deb", "-R", file, f"{work}/unpacked"], check=True)
                    _pack(Path(work, "unpacked"), target)
            else:
                file.rename(target)
        shutil.rmtree(partial / "apt")
        (partial / "Packages").write_text("\n".join(entry(file) for file in sorted(partial.glob("*.deb"))))

    return _cached(f"packages-{suite}-{key}", fill)


def _pack(unpacked: Path, target: Path) -> None:
    subprocess.run(["dpkg-deb", "-Znone", "-b", unpacked, target], check=True, capture_output=True)


def entry(file: Path) -> str:
    """Return what a repository's index says of a package."""
    control = subprocess.run(["dpkg-deb", "-f", file], capture_output=True, text=True, check=True).stdout.strip()
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return f"{control}\nFilename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n"


def newer(file: Path, directory: Path, *, mark: str) -> tuple[Path, str]:
    """Rebuild a package with a higher version and a file `mark` in it; return it and its version."""
    with tempfile.TemporaryDirectory(dir=directory) as work:
        unpacked = Path(work, "unpacked")
        subprocess.run(["dpkg-deb", "-R", file, unpacked], check=True)
        control = unpacked / "DEBIAN/control"
        text = control.read_text()
        version = re.search(r"^Version: (.*)$", text, re.MULTILINE)
        assert version
        control.write_text(text.replace(version[0], f"{version[0]}+newer1"))
        (unpacked / mark.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / mark.lstrip("/")).write_text("newer\n")
        target = directory / f"{file.stem}-newer.deb"
        _pack(unpacked, target)
    return target, f"{version[1]}+newer1"


class Repository:
    """Packages on an address of this host; `asked` is what was read of it."""

    def __init__(self, *directories: Path) -> None:
        self.directories = list(directories)
        self.asked: list[str] = []
        self.broken = 0
        """How many of the next questions are answered with an error."""
        self.url = ""

    def index(self) -> str:
        """Return what apt reads of it: all that is in its directories now."""
        return "\n".join(path.read_text() for each in self.directories if (path := each / "Packages").exists())

    @contextmanager
    def served(self, address: str) -> Iterator[Repository]:
        """Serve them there, to whoever reaches that address."""
        repository = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                name = unquote(self.path).rpartition("/")[2]
                repository.asked.append(name)
                if repository.broken:
                    repository.broken -= 1
                    self.send_error(503)
                    return
                if name == "Packages":
                    content = repository.index().encode()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    return
                super().do_GET()

            def translate_path(self, path: str) -> str:
                name = unquote(path).rpartition("/")[2]
                found = [each / name for each in repository.directories if (each / name).exists()]
                return str(found[-1] if found else repository.directories[0] / "absent")

            def log_message(self, *_: object) -> None: ...

        with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            self.url = f"http://{address}:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


def _apt(suite: str, plain: Path, directory: Path) -> list[str]:
    """Return options by which this host's apt works for another tree, with lists of its own."""
    host = build.Host.ask()
    for name in ("lists/partial", "archives/partial", "parts"):
        (directory / name).mkdir(parents=True)
    if not (mirror := host.mirror):
        pytest.skip("this host's apt names no mirror to take packages from")
    lines = [f"deb {mirror} {suite} main"]
    if suite != "sid":
        lines += [f"deb {mirror} {suite}-updates main"]
        lines += [f"deb {host.security} {suite}-security main"] if host.security else []
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (directory / "sources.list").write_text(
        "".join(f"{line.replace('deb ', f'deb [signed-by={keyring}] ', 1)}\n" for line in lines)
    )
    settings = {
        "Dir::State::status": plain / "var/lib/dpkg/status",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory,
        "Dir::Cache::archives": directory / "archives",
        "Dir::Etc::sourcelist": directory / "sources.list",
        "Dir::Etc::sourceparts": directory / "parts",
        "Dir::Etc::preferencesparts": directory / "parts",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    if host.unchecked or suite == "sid":
        settings["Acquire::Check-Valid-Until"] = "false"
    return [f"-o{name}={value}" for name, value in settings.items()]


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a directory of the tests' own in the cache, filled now if it is not there."""
    home = cache_dir() / "tests" / name
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.parent / ".lock"):
        for left in home.parent.glob("*.partial"):
            shutil.rmtree(left)
        if not home.exists():
            partial = home.with_name(f"{home.name}.partial")
            partial.mkdir()
            fill(partial)
            partial.rename(home)
    return home
