"""The machine image inside the user's engine: imported once from this computer's tree, or built there.

It is known by the digest of what went in, as in the cache: ``pytest-machine:bookworm-0f3a…``. An engine gives an image
its name when it is whole, so that none is ever half there; and of ten processes that want it at once, one brings it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_machine import images
from pytest_machine.errors import DriverError, DriverUnavailable, UsageError
from pytest_machine.offline import refuse

from . import build, tags
from .outer import Outer, absent, said

if TYPE_CHECKING:
    from pytest_machine.images import Image

REPOSITORY = "pytest-machine"
_CHUNK = 1 << 20
# What several systems call one kind of processor.
_SAME = {"amd64": "x86_64", "arm64": "aarch64"}


def name_of(image: str, engine: str | None) -> str:
    """Return what the image is called that a machine would be made of now. Cheap, but for a tree of one's own."""
    return images.known_as(image, engine) or f"tree-{_digest(images.ensure(image).path)}"


def reference(name: str) -> str:
    """Return an image's name as Docker has it."""
    return f"{REPOSITORY}:{name.replace('+', '_')}"


def has(outer: Outer, name: str) -> bool:
    """Return whether the engine has the image."""
    return outer.image(reference(name)) is not None


def check(outer: Outer, image: str, engine: str | None) -> None:
    """Raise the reason when `provide` could not give the engine this image."""
    name = name_of(image, engine)
    if has(outer, name) or _in_cache(name) or image not in images.SUITES:
        return
    refuse(f"The machine image '{image}'", hint=f"where there is a network: docker-machine create -d docker {image}")
    if engine is not None and images.is_build(engine):
        _check_static()


def provide(outer: Outer, image: str, engine: str | None) -> str:
    """Return the image's name in the engine, brought there now if it has none of it. The first time takes minutes."""
    name = name_of(image, engine)
    if has(outer, name):
        return reference(name)
    with outer.lock():
        if not has(outer, name):
            _bring(outer, name, image, engine)
    return reference(name)


def _bring(outer: Outer, name: str, image: str, engine: str | None) -> None:
    if image in images.SUITES and not _here(outer, name):
        refuse(f"The machine image '{image}'", hint="make it where there is a network")
        if engine is not None and images.is_build(engine):
            _check_static()
        build.inside(outer, image, reference(name), _labels(name))
        return
    found: Image = images.ensure(image, engine=engine)
    outer.api.import_image_from_data(
        _packed(found.path),
        repository=reference(name),  # with its tag: Podman does not hear of one beside it
        changes=[f"LABEL {key}={value}" for key, value in _labels(name).items()],
    )
    if not has(outer, name):
        raise DriverError(f"The engine did not take the machine image '{name}'.", hint="docker info: is its disk full?")


def _labels(name: str) -> tags.Labels:
    return {tags.IMAGE: name}


def _here(outer: Outer, name: str) -> bool:
    """Whether this computer has the image, or can build it, for the engine's kind of processor."""
    mine, theirs = (
        _SAME.get(each.lower(), each.lower()) for each in (platform.machine(), str(outer.info().get("Architecture")))
    )
    if sys.platform != "linux" or mine != theirs or getattr(os, "geteuid", lambda: 1)() != 0:
        return False
    if _in_cache(name):
        return True
    try:
        images.check(name.partition("-")[0])
    except DriverUnavailable:
        return False
    return True


def _in_cache(name: str) -> bool:
    return any(found.name == name for found in images.images())


def _check_static() -> None:
    if sys.platform != "linux" or getattr(os, "geteuid", lambda: 1)() != 0:
        raise DriverUnavailable(
            "An image with a static build of Docker can be made by 'root' on Linux only.",
            hint="leave out engine=, or name a version that a Debian release has: engine='26.1'",
        )


def _packed(tree: Path) -> Iterator[bytes]:
    """Yield a tree as an archive, piece by piece; raises `DriverError` in the middle if that cannot be."""
    # Numbers, because the names of this computer's users mean nothing there; capabilities of files are attributes.
    argv = ["tar", "-c", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", str(tree), "."]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            while piece := process.stdout.read(_CHUNK):
                yield piece
        except BaseException:
            process.kill()
            raise
        words = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        # The connection breaks off here, and an engine keeps nothing of an archive that does not end.
        raise DriverError(
            f"The machine image '{tree}' cannot be read.",
            facts={"tar said": words.splitlines()[0] if words else f"exit code {process.returncode}"},
            hint="as root: the tree has files that only root may read",
        )


def _digest(tree: Path) -> str:
    """Return twelve hex digits for a tree of the user's own, as it is now."""
    found = hashlib.sha256()
    for place, folders, files in os.walk(tree):
        folders.sort()
        for name in (*folders, *sorted(files)):
            path = Path(place, name)
            status = path.lstat()
            noted = (str(path.relative_to(tree)), status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)
            found.update(repr(noted).encode())
    return found.hexdigest()[:12]


def kept(outer: Outer) -> dict[str, int]:
    """Return the machine images in the engine, by name, with their bytes there."""
    found = outer.api.images(filters={"label": tags.IMAGE})
    return dict(sorted((str(each["Labels"][tags.IMAGE]), int(each["Size"])) for each in found))


def remove(outer: Outer, name: str) -> None:
    """Remove a machine image from the engine; raises `UsageError` when a container is made of it."""
    import docker.errors

    try:
        with absent():
            outer.api.remove_image(reference(name))
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        raise UsageError(
            f"The image '{name}' is in use by machines.",
            facts={"it said": said(error)},
            hint="docker-machine prune, then try again",
        ) from error
