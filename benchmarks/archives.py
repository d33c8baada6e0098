"""Docker images made without Docker: archives as ``docker save`` writes them, of whatever layers one gives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def layer(files: Mapping[str, bytes], *, owner: int = 0, mode: int = 0o644) -> bytes:
    """Return a layer with these files; a name such as ``.wh.old`` takes away what is below."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, owner, owner
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def write(path: Path, name: str, layers: Sequence[bytes], *, packed: bool = False) -> Path:
    """Write the archive of an image called `name`; return `path`."""
    digests = [hashlib.sha256(content).hexdigest() for content in layers]
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    text = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    places = [f"{digest}/layer.tar" for digest in digests]
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": places}]
    files = {
        config_name: text,
        "manifest.json": json.dumps(manifest).encode(),
        **dict(zip(places, layers, strict=True)),
    }
    with tarfile.open(path, "w:gz" if packed else "w") as archive:
        for place, content in files.items():
            entry = tarfile.TarInfo(place)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def random(path: Path, name: str, *, megabytes: int, layers: int = 5, files: int = 20) -> Path:
    """Write an image of random data, which nothing can make smaller; return `path`."""
    size = megabytes * 1_000_000 // layers // files
    return write(path, name, [layer({f"data/{i}-{j}": os.urandom(size) for j in range(files)}) for i in range(layers)])
