"""Which machine image has which version of Docker; and images with a Docker of one's own, from a static build.

Debian's releases carry different versions, so a version is a release as a rule. What is not in Debian comes as an
archive in the layout of Docker's own static builds (``docker/dockerd``, ``docker/containerd``, …): a path, or an
address that is read once. Its programs go over those of a release, before them in the machine's PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pytest_machine.errors import BadSpec, DriverError
from pytest_machine.offline import refuse
from pytest_machine.support.folders import PUBLIC, make_folder

from .build import Progress

SEEN: Mapping[str, str] = {"bookworm": "20.10.24", "trixie": "26.1.5", "sid": "28.5.2"}
"""Release → the version that dpkg named in an image built of it, most lately in November 2026. Sid moves on."""

_TARGET = "usr/local/bin"  # before /usr/bin in the init's PATH
_NEEDED = ("dockerd", "containerd", "runc")
_CHUNK = 1 << 20


def upstream(version: str) -> str:
    """Return Docker's own number in a package's version: 20.10.24 for ``20.10.24+dfsg1-1+deb12u1``."""
    match = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return match[1] if match else ""


def short(version: str) -> str:
    """Return the first two parts of Docker's own number: ``26.1`` for ``26.1.5+dfsg1-9+b9``; no number: all of it."""
    return ".".join(upstream(version).split(".")[:2]) or version


def fits(wanted: str, version: str) -> bool:
    """Return whether a version is what was asked for: ``26`` and ``26.1`` are 26.1.5."""
    return f"{upstream(version)}.".startswith(f"{wanted}.")


def is_build(engine: str) -> bool:
    """Return whether an engine is a static build, by its path or address, and not a version."""
    return "://" in engine or os.sep in engine or engine.endswith((".tgz", ".tar.gz"))


def release(engine: str, known: Mapping[str, str]) -> str:
    """Return the release that has a version; `known` is release → version. Raises `BadSpec`, which lists them."""
    found = [suite for suite, version in known.items() if fits(engine, version)]
    if not found:
        raise BadSpec(
            f"There is no machine image with Docker '{engine}'.",
            facts={f"{suite} has": upstream(version) for suite, version in known.items()},
            hint="give one of these, or a static build: engine='./docker-27.5.1.tgz' or its address",
        )
    return max(found, key=lambda suite: [int(part) for part in upstream(known[suite]).split(".")])


def expect(engine: str, image: str, version: str) -> None:
    """Raise `BadSpec` unless an image that was asked for has the version that was asked for, too."""
    if not fits(engine, version):
        raise BadSpec(
            f"The image '{image}' has no Docker '{engine}'.",
            facts={"it has": upstream(version) or "none that dpkg knows"},
            hint="leave out image= or engine=",
        )


# ------------------------------------------------------------------------------------------------------- static builds


@contextmanager
def archive(build: str, directory: Path, tell: Progress) -> Iterator[Path]:
    """Yield a static build as a file: the one at a path, or what is at an address, read now into `directory`.

    Raises `BadSpec` when there is no file, `DriverError` when the address cannot be read or must not be.
    """
    # Late, because it takes 30 ms, of which a shell's completion has none to spare.
    import urllib.error
    import urllib.request

    if "://" not in build:
        yield existing(build)
        return
    refuse(
        f"The static build of Docker at '{build}'", hint="load it yourself where there is a network, and give its path"
    )
    import tempfile

    with tempfile.NamedTemporaryFile(dir=directory, prefix="download-", suffix=".partial") as file:
        tell(f"reading {build}", 0.0, 0.0)
        try:
            with urllib.request.urlopen(address(build), timeout=60) as response:  # noqa: S310  # http(s), see `address`
                shutil.copyfileobj(response, file, _CHUNK)
        except (OSError, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is the answer, too, and holds the connection
            raise DriverError(
                f"The static build of Docker at '{build}' could not be read.",
                facts={"reason": error},
                hint="check the address and the network, or load it yourself and give its path",
            ) from error
        file.flush()
        yield Path(file.name)


def existing(build: str) -> Path:
    """Return the path of a static build; raises `BadSpec` when there is no file."""
    path = Path(build).expanduser().absolute()
    if not path.is_file():
        raise BadSpec(
            f"There is no static build of Docker at '{path}'.", hint="give the path or address of a docker-VERSION.tgz"
        )
    return path


def address(build: str) -> str:
    """Return an address that may be read; raises `BadSpec` for one that is not of the web."""
    if urlsplit(build).scheme not in ("http", "https"):
        raise BadSpec(f"The address '{build}' cannot be read.", hint="give one with https://, or a path")
    return build


def digest(path: Path) -> str:
    """Return twelve hex digits for what is in a file."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@cache  # every machine of a run asks
def _digest(path: Path, _size: int, _changed: int) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def add(build: Path, tree: Path, *, name: str) -> str:
    """Put a static build's programs into a tree; return the version that its daemon names.

    Raises `BadSpec` when it is no such archive, `DriverError` when its daemon does not run here.
    """
    import tarfile

    target = tree / _TARGET
    make_folder(target, PUBLIC)
    programs = []
    try:
        with tarfile.open(build) as opened:
            for entry in opened:
                # The name alone decides where it goes, so that no archive can write anywhere else.
                program = PurePosixPath(entry.name).name
                if (
                    entry.isfile()
                    and re.fullmatch(r"[a-z][a-z0-9.-]*", program)
                    and (read := opened.extractfile(entry))
                ):
                    with (target / program).open("wb") as file:
                        shutil.copyfileobj(read, file, _CHUNK)
                    (target / program).chmod(0o755)
                    programs.append(program)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _no_build(name, str(error)) from error
    if absent := [program for program in _NEEDED if program not in programs]:
        raise _no_build(name, f"it has no {', '.join(absent)}")
    try:
        done = subprocess.run(
            ["chroot", str(tree), f"/{_TARGET}/dockerd", "--version"],
            capture_output=True, text=True, errors="replace", check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise DriverError(
            f"The Docker of '{name}' does not run on this host.",
            facts={"it said": str(said).strip()[-500:]},
            hint="is it a build for this processor?",
            transient=False,
        ) from error
    match = re.search(r"version v?([^\s,]+)", done.stdout)
    return match[1] if match else done.stdout.strip()[:40]


def _no_build(name: str, reason: str) -> BadSpec:
    return BadSpec(
        f"The file '{name}' is no static build of Docker.",
        facts={"reason": reason},
        hint="give a docker-VERSION.tgz, which has docker/dockerd, docker/containerd, …",
    )
