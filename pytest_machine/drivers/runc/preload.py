"""Docker images that lie once on this host and are in many machines: read-only layers, seen through idmapped mounts.

What Docker's overlay2 keeps of an image is layers, which are large and which it never writes to, and notes, which are
small and which it does write to. So each machine gets its own copy of the notes, and of each layer a read-only mount at
the place where its Docker looks for it. Kept are the layers as one machine's Docker unpacked them, with that machine's
owners; the mount shifts them to the next one's (docs/decisions/0005).

Where no user namespace stands between a machine and this host, root in it could make the mount writable: such a machine
gets a copy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pytest_machine import preloads
from pytest_machine.errors import damaged
from pytest_machine.images import Image
from pytest_machine.support import files, parsing
from pytest_machine.support.folders import PUBLIC, make_folder
from pytest_machine.support.parsing import Malformed
from pytest_machine.support.text import shell_word

from . import kernel, leases, storage
from .command import run
from .kernel import mount_idmapped
from .places import Place

_LARGEST = 256 << 20  # bytes of notes.json, which has the metadata of each image
_NOTE = "preload"  # the file beside a machine's tag that names what it stands on
_DATA = Path("/var/lib/docker")

_Note = tuple[str, int, str | None, str | None]
"""Path below Docker's directory, mode, a link's target, a file's content (as Latin-1); a directory has neither."""


def keep(place: Place, name: str, *, owner: int) -> bool:
    """Keep the images of a stopped machine under `name`; False where its Docker stores them in a way unknown to us."""
    docker = storage.attach(place) / "docker"
    if not (docker / "image" / "overlay2" / "repositories.json").is_file():
        return False

    def fill(home: Path) -> Mapping[str, object]:
        make_folder(home / "layers", PUBLIC)  # its mount in a machine has the same mode
        found = _layers(docker / "overlay2")
        # An engine's id, networks and the rest are a machine's own: only what belongs to images goes along.
        notes = [*_noted(docker, docker / "image"), *_noted(docker, docker / "overlay2", skip=found)]
        for layer in found:
            notes += _noted(docker, layer, skip=[layer / "diff", layer / "work"])
            diff = f"overlay2/{layer.name}/diff"
            # What Docker itself notes once a layer has a child: from then on it mounts the layer read-only.
            notes += [(diff, 0o700, None, None), (f"overlay2/{layer.name}/committed", 0o600, None, "")]
            _move(layer / "diff", home / "layers" / layer.name)
        (home / "notes.json").write_text(json.dumps(notes), "utf-8")
        return {"owner": owner}

    preloads.keep(name, fill)
    return True


def _noted(docker: Path, path: Path, *, skip: Sequence[Path] = ()) -> list[_Note]:
    """Return a note for each file below `path`, but for what is to be skipped."""
    name = str(path.relative_to(docker))
    if path in skip or path.name == "committed":
        return []
    if path.is_symlink():
        return [(name, 0, str(path.readlink()), None)]
    mode = path.stat().st_mode & 0o7777
    if path.is_dir():
        below = [note for each in sorted(path.iterdir()) for note in _noted(docker, each, skip=skip)]
        return [(name, mode, None, None), *below]
    return [(name, mode, None, files.read(path, str(path)).decode("latin-1"))]


def _layers(overlay2: Path) -> list[Path]:
    return [path for path in sorted(overlay2.iterdir()) if (path / "diff").is_dir() and not path.is_symlink()]


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:  # the cache is on another file system
        run("cp", "-a", source, target, timeout=600)


def plant(place: Place, name: str, *, owner: int, userns: bool) -> None:
    """Give a machine that was never started the images that are kept under `name`."""
    with preloads.gated(name) as kept:
        preloads.use(kept, place.state)
    docker = storage.attach(place) / "docker"
    notes = kept.path / "notes.json"
    try:
        found = parsed(files.read_json(notes, "it", largest=_LARGEST))
    except files.UNREADABLE as error:
        hint = f"rm -r -- {shell_word(kept.path)}; the next machine loads its images again"
        raise damaged(notes, files.reason(error), hint=hint) from error
    _write(found, docker, owner)
    if userns:
        (place.state / _NOTE).write_text(name)
    else:
        for layer in (kept.path / "layers").iterdir():
            target = docker / "overlay2" / layer.name / "diff"
            target.rmdir()
            run("cp", "-a", "--reflink=auto", layer, target, timeout=600)


def parsed(data: object) -> list[_Note]:
    """Return the notes; raises `Malformed` for a note that leads out of Docker's directory."""
    found: list[_Note] = []
    folders = {""}
    if not isinstance(data, list):
        raise Malformed("it is not a list")
    for each in data:
        if not isinstance(each, list) or len(each) != 4:
            raise Malformed("an entry is not a list of four values")
        name, mode, target, content = each
        parent, _, last = parsing.text(name, "a path", empty=False).rpartition("/")
        # The entry of a directory precedes the entries below it, so that no link and no ".." leads elsewhere.
        if parent not in folders or last in ("", ".", ".."):
            raise Malformed(f"the path '{name}' is in no directory of the list")
        parsing.integer(mode, "a mode", least=0, most=0o7777)
        if target is not None:
            parsing.text(target, "the target of a link", empty=False)
        elif content is None:
            folders.add(name)
        elif not isinstance(content, str) or any(character > "\xff" for character in content):
            raise Malformed(f"the content of '{name}' is not bytes as text")
        found.append((name, mode, target, content))
    return found


def _write(notes: Iterable[_Note], home: Path, owner: int) -> None:
    """Write the notes, all owned by one, with as few calls as there can be: every machine waits for it."""
    for name, mode, target, content in notes:
        path = f"{home}/{name}"
        if target is not None:
            os.symlink(target, path)  # noqa: PTH211  # a Path costs more than the call
            os.lchown(path, owner, owner)
        elif content is None:
            os.mkdir(path)  # noqa: PTH102
            os.chown(path, owner, owner)
            os.chmod(path, mode)  # noqa: PTH101
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode("latin-1"))
                os.fchown(descriptor, owner, owner)
                os.fchmod(descriptor, mode)


def lay(place: Place, root: Path, *, owner: int) -> Path | None:
    """Mount the kept layers for a machine that is about to boot on `root`.

    Return the table of where in the machine each is to be mounted, or None when it was born without images. Our own
    mount may be taken away again (`lifted`) once something runs in the machine.
    """
    try:
        name = files.read_text(place.state / _NOTE, "it", largest=1000)
    except FileNotFoundError:
        return None
    except files.UNREADABLE as error:
        hint = f"docker-machine rm {place.id}"
        raise damaged(place.state / _NOTE, files.reason(error), hint=hint) from error
    with preloads.gated(name) as kept:
        base = int(str(kept.facts["owner"]))
        point = _point(place)
        point.mkdir(exist_ok=True)
        with kernel.user_namespace(base, owner, leases.UID_COUNT) as descriptor:
            mount_idmapped(kept.path / "layers", point, descriptor)
        layers = sorted(path.name for path in (kept.path / "layers").iterdir())
    there = storage.attach(place) / "docker" / "overlay2"
    table = place.run / "layers.fstab"
    table.write_text(
        "".join(
            f"{point}/{layer} {root}{_DATA}/overlay2/{layer}/diff none bind 0 0\n"
            for layer in layers
            if _still_there(there, layer)
        )
    )
    table.chmod(0o644)  # the machine's root reads it
    return table


def _still_there(overlay2: Path, layer: str) -> bool:
    """Whether the machine still has the layer, which `docker rmi` removes. It may have put anything in its place."""
    paths = (overlay2, overlay2 / layer, overlay2 / layer / "diff")
    return all(path.is_dir() and not path.is_symlink() for path in paths)


def lifted(place: Place) -> None:
    """Take the host's own mount of the layers away."""
    kernel.unmount(_point(place))


def _point(place: Place) -> Path:
    return place.run / "layers"


def name_of(key: str, image: Image, *, userns: bool) -> str:
    """Return what images are kept as for machines on this machine image: another Docker stores them its own way."""
    known = image.digest or hashlib.sha256(os.fsencode(image.path)).hexdigest()[:12]
    return f"{key}-runc-{known}{'' if userns else '-shared'}"
