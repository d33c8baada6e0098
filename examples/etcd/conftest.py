"""The image that the containers run: etcd and Redis, of Debian's packages, built once and kept in the user's cache.

In a project of your own you need none of this: ``preload=["quay.io/coreos/etcd:v3.5.21"]`` takes an image from your own
Docker. These examples must run where no registry can be reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from filelock import FileLock

from pytest_machine.images import build
from pytest_machine.offline import offline

ARCHIVE = Path("~/.cache/pytest-machine-examples/databases.tar").expanduser()  # the tests preload it by this path
NAME = "databases:1"
SUITE = "bookworm"
PACKAGES = ("etcd-server", "etcd-client", "redis-server")
EXCLUDED = ("/usr/share/*", "/usr/lib/*/perl*", "/usr/lib/systemd/*", "/lib/systemd/*")  # what nobody reads here


@pytest.fixture(scope="session", autouse=True)
def databases() -> None:
    """Build the image if it is not there yet: half a minute. Skip where Debian's packages cannot be had."""
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(ARCHIVE.with_suffix(".lock")):
        if ARCHIVE.exists():
            return
        if offline():
            pytest.skip(f"{ARCHIVE} is not there, and nothing may be downloaded (--machine-offline)")
        if shutil.which("mmdebstrap") is None:
            pytest.skip("an image of Debian's packages takes mmdebstrap: apt-get install mmdebstrap")
        layer = ARCHIVE.with_suffix(".layer")
        try:
            unpack(layer)
            write_archive(layer)
        finally:
            layer.unlink(missing_ok=True)


def unpack(layer: Path) -> None:
    """Write a tar archive of the packages and all that they depend on."""
    host = build.Host.ask()  # the mirror and the proxy that this computer's own apt uses
    argv = ["mmdebstrap", "--variant=extract", "--format=tar", "--skip=output/dev", f"--include={','.join(PACKAGES)}"]
    argv += [f"--dpkgopt=path-exclude={path}" for path in EXCLUDED]
    argv += build.origin(SUITE, layer, host)
    done = subprocess.run(argv, env=os.environ | host.environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err"))]
        pytest.skip(f"Debian's packages of etcd and Redis cannot be had here: {' '.join(said[:2])}")


def write_archive(layer: Path) -> None:
    """Write an image of one layer, as ``docker save`` would."""
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = {"os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    partial = ARCHIVE.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        archive.add(layer, "layer.tar")
        for name, content in {"config.json": config, "manifest.json": manifest}.items():
            text = json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, BytesIO(text))
    partial.replace(ARCHIVE)  # whole, or not at all
