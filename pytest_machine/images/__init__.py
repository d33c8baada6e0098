"""The machine image: a Debian tree that is built once, cached by the digest of what went in, and shared read-only.

::

    cache/images/bookworm-0f3a…/tree          the file system
                               /image.json    what it is; written before the directory gets its name
    cache/images/bookworm-0f3a…+81c2…         the same with a Docker of one's own, from a static build
    cache/images/*.partial                    being built, or left by a builder that died

A directory without ``.partial`` is whole: it is renamed into place when it is ready, so that finding an image takes no
lock and one look at the disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_machine.errors import BadSpec, DriverError, StoreError, UsageError
from pytest_machine.model import SeedFile, names
from pytest_machine.offline import refuse
from pytest_machine.store import write
from pytest_machine.support import clock
from pytest_machine.support.folders import PUBLIC, make_folder
from pytest_machine.support.text import shell_word, visible

from . import build as _build
from . import engines
from .build import SUITES, Progress, Recipe, recipe
from .engines import is_build

__all__ = [
    "BORN",
    "INIT",
    "SUITES",
    "Image",
    "Progress",
    "Recipe",
    "check",
    "choose",
    "current",
    "ensure",
    "heard",
    "images",
    "is_build",
    "known_as",
    "recipe",
    "remove",
    "version",
]

INIT = "/usr/sbin/machine-init"
"""The program that a machine runs as its PID 1."""
BORN = {"/var/log/lastlog": SeedFile(b"", 0o664)}
"""What every machine of the image is born with besides its seed: without this one, sshd complains at each terminal."""


@dataclass(frozen=True, slots=True)
class Image:
    """A tree that machines can be made on; `size` in bytes, `docker` the engine's version."""

    suite: str
    digest: str
    path: Path
    size: int = 0
    docker: str = ""
    source: str = ""
    """The static build that its Docker is from; empty: Debian's own."""
    broken: str = ""
    """Why it cannot be used: what describes it is damaged. Empty: it can."""

    @property
    def name(self) -> str:
        """What people call it: ``bookworm-0f3a…``, or the path of a tree that is not ours."""
        return f"{self.suite}-{self.digest}" if self.suite else str(self.path)


DEFAULT = "trixie"
"""The release of a machine without `image=` and `engine=`: the oldest whose Docker today's docker clients accept."""


def choose(image: str | None, engine: str | None) -> str:
    """Return the image that was asked for by its name, by the Docker that it must have, by both or by neither.

    Raises `UsageError` for a name that no image has, `BadSpec` for a version that no image has, or that is not in the
    image that was named.
    """
    if image:
        _suite(image)
    if engine is None:
        return image or DEFAULT
    if engines.is_build(engine):
        engines.address(engine) if "://" in engine else engines.existing(engine)
        if image and image not in SUITES:
            raise BadSpec(
                "A static build of Docker is put into a Debian release, and not into a tree of yours.",
                facts={"image": image, "releases": names(SUITES)},
                hint="leave out image=, or unpack the build into your tree's /usr/local/bin",
            )
        return image or DEFAULT
    if not image:
        return engines.release(engine, _versions())
    in_it = _versions().get(image) or _build.installed(Path(image), "docker.io")
    engines.expect(engine, image, in_it)
    return image


def known_as(name: str, engine: str | None = None) -> str:
    """Return the `Image.name` that `ensure` would give now, without building it; empty for a tree of the user's own.

    A static build at an address that was never read is read for it.
    """
    if not _suite(name):
        return ""
    made = _build.recipe(name).name
    if engine is None or not engines.is_build(engine):
        return made
    if "://" in engine:
        known = _text(_memo(engine))
        return f"{made}+{known}" if known else ensure(name, engine=engine).name
    return f"{made}+{engines.digest(engines.existing(engine))}"


def version(image: str, engine: str | None = None) -> str:
    """Return the short version of Docker in an image, such as ``26.1``; empty where it is not known.

    Starts and builds nothing. A stable release keeps its version, so it is known before its image is built; sid's is
    not. For a static build that is in no image yet: its path or address.
    """
    if not _suite(image):
        return engines.short(_build.installed(Path(image), "docker.io"))
    if engine is None or not engines.is_build(engine):
        found = _read(_home() / known_as(image))
        return engines.short(found.docker if found else engines.SEEN[image] if image != "sid" else engine or "")
    if "://" in engine and not _memo(engine).exists():
        return engine
    found = _read(_home() / known_as(image, engine))
    return engines.short(found.docker) if found else engine


def _versions() -> dict[str, str]:
    """Return release → version of Docker: what was found in today's image of it, else what was seen in earlier ones."""
    sound = [image for image in images() if current(image) and "+" not in image.digest and not image.broken]
    found = {image.suite: image.docker for image in sound}
    return {suite: found.get(suite) or engines.SEEN.get(suite, "") for suite in SUITES}


def ensure(
    name: str = DEFAULT,
    *,
    engine: str | None = None,
    progress: Progress | None = None,
    builder: Callable[[Recipe, Path, Progress], None] = _build.build,
) -> Image:
    """Return the image of a Debian release, built now if it is not in the cache; or the tree at a path.

    Ten processes that ask at once build once. `progress` hears what is being done; it is not called when the image is
    there already (milliseconds).

    Raises:
        UsageError: there is no such release, or no tree at the path.
        DriverUnavailable: it would have to be built, and this host cannot or must not (`pytest_machine.offline`).
        DriverError: building it failed.
    """
    if not _suite(name):
        return _own(Path(name))
    tell = progress or _listener
    if engine is not None and engines.is_build(engine):
        return _derived(ensure(name, progress=progress, builder=builder), engine, tell)
    found = _built(name, tell, builder)
    if engine is not None and not engines.fits(engine, found.docker):
        raise DriverError(
            f"The Debian release '{name}' does not carry Docker '{engine}' any more.",
            facts={"it carries": engines.upstream(found.docker)},
            hint=f"engine='{engines.upstream(found.docker)}'",
            transient=False,
        )
    return found


def _built(name: str, tell: Progress, builder: Callable[[Recipe, Path, Progress], None]) -> Image:
    made = _build.recipe(name)
    home = _home() / made.name
    if found := _read(home):
        return found
    _refuse_offline(name)
    make_folder(home.parent, PUBLIC)
    with _lock(home.parent, tell):
        if found := _read(home):
            return found
        _clear(home.parent)
        if builder is _build.build:
            _build.check(home.parent)
        partial = _partial(made.name, home.parent)
        try:
            began = clock.monotonic()
            builder(made, partial / "tree", tell)
            facts = {
                "suite": made.suite,
                "digest": made.digest,
                "size": _build.measure(partial / "tree"),
                "docker": _build.installed(partial / "tree", "docker.io"),
            }
            (partial / "image.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
            partial.chmod(0o755)
            partial.replace(home)
            tell("the image is ready", 1.0, clock.monotonic() - began)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _whole(home)


def _derived(base: Image, build: str, tell: Progress) -> Image:
    """Return the image of a release with the programs of a static build, made now if it is not in the cache."""
    memo = _memo(build)
    if "://" in build:  # an address is read once
        if (known := _text(memo)) and (found := _read(_beside(base, known))):
            return found
    elif found := _read(_beside(base, engines.digest(engines.existing(build)))):
        return found
    cache = base.path.parent.parent
    with _lock(cache, tell), engines.archive(build, cache, tell) as archive:
        digest = engines.digest(archive)
        if "://" in build:
            memo.parent.mkdir(exist_ok=True)
            write(memo, digest.encode(), durable=False)
        home = _beside(base, digest)
        if found := _read(home):
            return found
        partial = _partial(home.name, cache)
        try:
            began = clock.monotonic()
            tell(f"putting {build} into {base.name}", 0.5, 0.0)
            # Hard links: neither tree is ever written to. What the build brings is new files.
            subprocess.run(["cp", "-al", base.path, partial / "tree"], check=True, timeout=600)
            facts = {
                "suite": base.suite,
                "digest": home.name.removeprefix(f"{base.suite}-"),
                "docker": engines.add(archive, partial / "tree", name=build),
                "size": _build.measure(partial / "tree"),
                "source": build,
            }
            (partial / "image.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
            partial.chmod(0o755)
            partial.replace(home)
            tell("the image is ready", 1.0, clock.monotonic() - began)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _whole(home)


def _memo(address: str) -> Path:
    """Return the file that holds the digest of what was read at an address."""
    import hashlib

    return _home() / ".addresses" / hashlib.sha256(address.encode()).hexdigest()[:16]


def _beside(base: Image, digest: str) -> Path:
    return base.path.parent.parent / f"{base.name}+{digest}"


def check(name: str = DEFAULT) -> None:
    """Raise the reason when `ensure` could not give this image: it is not there, and cannot be built here."""
    if not _suite(name):
        _own(Path(name))
    elif not _read(_home() / _build.recipe(name).name):
        _refuse_offline(name)
        _build.check(_home())


def images() -> list[Image]:
    """Return the images in the cache, those of older recipes and `broken` ones included, by name."""
    found = (_any(path) for path in sorted(_home().glob("*-*")) if path.suffix != ".partial")
    return [image for image in found if image is not None]


def current(image: Image) -> bool:
    """Return whether `ensure` would give this image today; the others are of older recipes."""
    return image.suite in SUITES and _build.recipe(image.suite).digest == image.digest.partition("+")[0]


def remove(image: Image) -> None:
    """Remove an image from the cache; again is nothing.

    Raises:
        UsageError: a machine uses it, or it is a tree of yours.
    """
    home = image.path.parent
    if home.parent != _home():
        raise UsageError(
            f"The tree '{image.path}' is not in the cache of machine images.", hint="pytest-machine image ls"
        )
    if not home.exists():
        return
    with _lock(home.parent, _quiet):
        if users := _users(image.path):
            raise UsageError(
                f"The image '{image.name}' is in use by machines.",
                facts={"mounted at": names(sorted(users)[:5])},
                hint="pytest-machine prune, then try again",
            )
        with suppress(FileNotFoundError):
            # Renamed first: it is gone at once for everybody, never half there.
            home.replace(_partial(home.name, home.parent))
        _clear(home.parent)


def _partial(name: str, folder: Path) -> Path:
    """Return a new directory for something that is not whole yet."""
    import tempfile  # here, as all that whoever only has an image's name does without

    return Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".partial", dir=folder))


def _refuse_offline(name: str) -> None:
    refuse(f"The machine image '{name}'", hint=f"where there is a network: pytest-machine image build {name}")


def _quiet(what: str, done: float, seconds: float) -> None:
    """Hear of the progress and say nothing."""


_listener: Progress = _quiet


@contextmanager
def heard(progress: Progress) -> Iterator[None]:
    """Let `progress` hear of images that somebody builds on the way to something else, in any thread."""
    global _listener  # noqa: PLW0603  # a driver knows nothing of who waits for it
    before, _listener = _listener, progress
    try:
        yield
    finally:
        _listener = before


def _clear(cache: Path) -> None:
    """Remove what dead builders left; only under the lock, when nobody builds."""
    for left in cache.glob("*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def _suite(name: str) -> bool:
    if name in SUITES:
        return True
    if os.sep in name or name.startswith("."):
        return False
    raise UsageError(
        f"There is no machine image '{name}'.",
        facts={"images": names(SUITES)},
        hint="give one of these, or the path of a tree",
    )


def _own(path: Path) -> Image:
    path = path.expanduser().resolve()
    if not (path / INIT.lstrip("/")).is_file():
        raise UsageError(
            f"The directory '{path}' is no machine image.",
            facts={"missing": path / INIT.lstrip("/")},
            hint=f"copy one (pytest-machine image ls shows its PATH): cp -aT --reflink=auto PATH {shell_word(path)}",
        )
    return Image(suite="", digest="", path=path)


def _home() -> Path:
    from pytest_machine.owner import cache_dir  # platformdirs is wanted only where an image is

    return cache_dir() / "images"


def _read(home: Path) -> Image | None:
    """Return the image in a directory, or None where there is none; raises `StoreError` for one that is damaged."""
    from pytest_machine.support import files, parsing

    file = home / "image.json"
    try:
        facts = files.read_table(file, "it")
        texts = {key: parsing.text(facts.get(key), f"'{key}'") for key in ("suite", "digest", "docker")}
        source = parsing.text(facts.get("source", ""), "'source'")
        size = parsing.integer(facts.get("size"), "'size'", least=0, most=1 << 62)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except files.UNREADABLE as error:
        raise StoreError(
            f"The image '{visible(home.name, lines=False)}' is broken.",
            facts={"file": file, "reason": files.reason(error)},
            hint=f"rm -r {shell_word(home)}",
        ) from error
    return Image(texts["suite"], texts["digest"], home / "tree", size, texts["docker"], source)


def _any(home: Path) -> Image | None:
    """Return the image in a directory, a damaged one by the name of that."""
    try:
        return _read(home)
    except StoreError as error:
        suite, _, digest = home.name.partition("-")
        return Image(suite, digest, home / "tree", broken=str(error.facts["reason"]))


def _text(memo: Path) -> str:
    """Return the digest that a memo holds; empty where there is none that can be."""
    from pytest_machine.support import files

    try:
        found = files.read_text(memo, largest=1000)
    except files.UNREADABLE:
        return ""
    return found if re.fullmatch(r"[0-9a-f]{6,64}", found) else ""


def _whole(home: Path) -> Image:
    found = _read(home)
    assert found is not None, home  # it was renamed into place a moment ago, and we have just let go of the lock
    return found


class _lock:  # noqa: N801  # reads as the function that it is
    """The one lock of the cache, whose waiters say that they wait."""

    def __init__(self, directory: Path, tell: Progress) -> None:
        from filelock import FileLock

        self._lock = FileLock(directory / ".lock")
        self._tell = tell

    def __enter__(self) -> None:
        from filelock import Timeout

        began = clock.monotonic()
        while True:
            with suppress(Timeout):
                self._lock.acquire(timeout=1, poll_interval=0.05)
                return
            self._tell("waiting for another process that builds an image", 0.0, clock.monotonic() - began)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _users(tree: Path, proc: Path = Path("/proc")) -> set[str]:
    """Return where a tree is mounted or a layer of an overlay, in any mount namespace (machines have their own)."""
    found: set[str] = set()
    seen: set[int] = set()
    for process in proc.glob("[0-9]*"):
        with suppress(OSError):  # it may end while we look; then another of its namespace answers
            space = (process / "ns/mnt").stat().st_ino
            if space not in seen:
                found |= _mounted(tree, (process / "mountinfo").read_text("utf-8", errors="replace"))
                seen.add(space)
    return found


def _mounted(tree: Path, mountinfo: str) -> set[str]:
    """Return the mount points that show `tree`: by its path in the mount's root, or in an overlay's layers."""
    found = set()
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        root, point = head.split()[3:5]
        layers = tail.rpartition("lowerdir=")[2].partition(",")[0].split(":") if "lowerdir=" in tail else []
        # The root is a path within its file system, which may itself be mounted somewhere: so only the end must fit.
        if str(tree) in layers or (
            root != "/" and str(tree).endswith(root) and root.endswith(f"/{tree.parent.name}/tree")
        ):
            found.add(point)
    return found
