"""Docker images that machines are born with: what was asked for, and what is kept of it in the cache.

::

    cache/preloads/6f1c…-runc-03ab…/preload.json    what it is; written before the directory gets its name
                                   /users/ID        a link to each machine that stands on it
                                   /…               the driver's own: the images, unpacked
    cache/preloads/digests/…                        digests of archives, so that half a gigabyte is read once

An archive is known by its content, an image of the user's engine by its id: whatever is new under an old name is new.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

from pytest_machine.support import files, parsing
from pytest_machine.support.folders import make_folder
from pytest_machine.support.text import shell_word

from . import engine
from .errors import BadSpec, MachineError, StoreError, UsageError
from .owner import cache_dir
from .store import write

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
"""What makes a word in ``preload=`` a file and not an image's name."""
_CHUNK = 1 << 20


# ------------------------------------------------------------------------------------------------------- what was asked


def is_path(asked: str) -> bool:
    """Return whether ``preload=`` means a file: by its ending, or because it begins as only paths do."""
    return asked.endswith(ENDINGS) or asked.startswith(("/", "./", "../", "~"))


def absolute(asked: str, below: Path) -> str:
    """Return a file's path, relative ones below `below`; an image's name as it is."""
    return str(below / Path(asked).expanduser()) if is_path(asked) else asked


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to load: an archive of ``docker save``, or an image of the user's own engine."""

    asked: str
    digest: str
    """Of the archive's content, or the image's id."""

    @contextlib.contextmanager
    def stream(self) -> Iterator[Iterator[bytes]]:
        """Yield the archive's bytes, piece by piece; nothing of it is ever whole in memory or a second time on disk."""
        if is_path(self.asked):
            with Path(self.asked).open("rb") as file:
                yield iter(lambda: file.read(_CHUNK), b"")
        else:
            with engine.local() as client:
                yield client.get_image(self.asked, chunk_size=_CHUNK)


def sources(asked: Sequence[str]) -> list[Source]:
    """Return what `asked` names, each with its digest; raises `BadSpec` for a file or an image that is not there.

    Raises `MachineError` where an image is asked for by name and the user has no engine.
    """
    return [Source(one, _archive(Path(one)) if is_path(one) else _image(one)) for one in asked]


def _archive(path: Path) -> str:
    try:
        status = path.stat()
        if not path.is_file():
            raise IsADirectoryError("it is no file")
        # Whoever writes to it changes these; the same memo as make's and git's.
        known = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        memo = _home() / "digests" / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
        with contextlib.suppress(*files.UNREADABLE):
            found = files.read_table(memo)
            if found.get("stat") == known:
                return parsing.text(found.get("sha256"), "'sha256'", empty=False)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadSpec(
            f"The archive '{path}' cannot be preloaded.",
            facts={"reason": error.strerror or error},
            hint=f"docker save -o {shell_word(path)} IMAGE",
        ) from error
    _make_home()
    memo.parent.mkdir(exist_ok=True)
    write(memo, json.dumps({"path": str(path), "stat": known, "sha256": digest}).encode(), durable=False)
    return digest


@cache
def _image(name: str) -> str:
    """Return the id of an image in the user's engine; asked once a process, so that all its machines are alike."""
    import docker.errors
    import requests

    try:
        with engine.local() as client:
            return str(client.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]  # docker-py's stubs lack it
    except docker.errors.ImageNotFound as error:
        raise BadSpec(
            f"The image '{name}', which is to be preloaded, is not in your local Docker.", hint=f"docker pull {name}"
        ) from error
    except (docker.errors.DockerException, requests.RequestException, OSError, ValueError, KeyError) as error:
        raise MachineError(
            f"The image '{name}' is to be preloaded from your local Docker, which does not answer.",
            facts={"reason": error},
            hint="start it, or give the path of an archive (docker save -o image.tar …): preload=['./image.tar']",
        ) from error


def key(found: Sequence[Source], settings: Mapping[str, object]) -> str:
    """Return 16 hex digits for what is loaded, in whatever order, into engines that store it as `settings` say."""
    text = json.dumps([sorted({source.digest for source in found}), settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -------------------------------------------------------------------------------------------------------- what is kept


@dataclass(frozen=True, slots=True)
class Preload:
    """Images that are kept for machines; `size` in bytes, `facts` the driver's own."""

    name: str
    path: Path
    size: int
    images: tuple[str, ...]
    facts: Mapping[str, object]


def find(name: str) -> Preload | None:
    """Return what is kept under a name; None when nothing is."""
    home = _home() / name
    try:
        found = files.read_table(home / "preload.json")
        size = parsing.integer(found.get("size"), "'size'", least=0, most=1 << 62)
        facts = {
            key: parsing.plain(value, "'facts'") for key, value in parsing.table(found.get("facts"), "'facts'").items()
        }
        return Preload(name, home, size, parsing.texts(found.get("images"), "'images'"), facts)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except files.UNREADABLE as error:
        raise StoreError(
            f"The preloaded images '{name}' are damaged.",
            facts={"reason": files.reason(error)},
            hint=f"rm -r {shell_word(home)}",
        ) from error


def keep(name: str, fill: Callable[[Path], Mapping[str, object]], *, images: Sequence[str] = ()) -> Preload:
    """Keep what `fill` puts into the directory that it is given, under `name`, whole or not at all.

    `fill` returns the driver's facts. Call it with the lock of `making` held.
    """
    from .images.build import measure

    home = _home()
    partial = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".partial", dir=home))
    try:
        facts = fill(partial)
        (partial / "users").mkdir()
        found = {"size": measure(partial), "images": list(images), "facts": facts}
        (partial / "preload.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        partial.replace(home / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    kept = find(name)
    assert kept is not None, name  # it was renamed into place a moment ago
    return kept


@contextlib.contextmanager
def making(name: str) -> Iterator[None]:
    """Hold the right to make what is kept under this name: of ten that want it at once, one makes it."""
    home = _make_home()
    with FileLock(home / f".{name}.lock"):
        for left in home.glob(f"{name}*.partial"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def preloads() -> list[Preload]:
    """Return all that is kept, by name; what is damaged counts as kept for no machine that is known."""
    found = (_any(path) for path in sorted(_home().glob("*-*")) if path.suffix != ".partial")
    return [one for one in found if one is not None]


def _any(home: Path) -> Preload | None:
    try:
        return find(home.name)
    except StoreError:
        return Preload(home.name, home, 0, (), {})


def use(kept: Preload, machine: Path) -> None:
    """Note that a machine, whose own directory is `machine`, stands on it until that directory is gone."""
    link = kept.path / "users" / machine.name
    with contextlib.suppress(FileExistsError):
        link.symlink_to(machine)
    for other in link.parent.iterdir():
        if not other.exists():  # the link dangles: its machine is gone
            other.unlink(missing_ok=True)


def users(kept: Preload) -> list[Path]:
    """Return the directories of the machines that stand on it."""
    try:
        return sorted(link.readlink() for link in (kept.path / "users").iterdir() if link.exists())
    except (FileNotFoundError, NotADirectoryError):  # it is being removed, or damaged
        return []


def remove(kept: Preload) -> None:
    """Remove it from the cache; again is nothing.

    Raises:
        UsageError: a machine stands on it.
    """
    if not kept.path.exists():
        return
    with _gate(kept.name):
        if found := users(kept):
            raise UsageError(
                f"The preloaded images '{kept.name}' are in use by machines.",
                facts={"machines": ", ".join(path.name for path in found[:5])},
                hint="pytest-machine prune, then try again",
            )
        with contextlib.suppress(FileNotFoundError):
            # Renamed first: it is gone at once for everybody, never half there.
            kept.path.replace(Path(tempfile.mkdtemp(prefix=f"{kept.name}.", suffix=".partial", dir=_home())))
    for left in _home().glob(f"{kept.name}*.partial"):
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def gated(name: str) -> Iterator[Preload]:
    """Yield what is kept while nobody can remove it: until the machine that is being made is one of its users."""
    with _gate(name):
        kept = find(name)
        if kept is None:
            raise StoreError(
                f"The preloaded images '{name}' are not in the cache any more.",
                hint="make the machine again: they are loaded anew",
            )
        yield kept


def _gate(name: str) -> FileLock:
    return FileLock(_home() / f".{name}.gate")


def _make_home() -> Path:
    # Nobody but their owner looks in: machines see their layers by mounts alone.
    make_folder(_home())
    return _home()


def _home() -> Path:
    return cache_dir() / "preloads"
