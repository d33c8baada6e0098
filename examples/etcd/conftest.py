"""The image that the containers run: etcd and Redis, of Debian's packages, built once and kept in the user's cache.

In a project of your own you need none of this: `preload=["quay.io/coreos/etcd:v3.5.21"]` takes an image from your own
Docker. These examples must run where no registry can be reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from filelock import FileLock

from pytest_machine import MachineError
from pytest_machine.images import build
from pytest_machine.offline import refuse

ARCHIVE = Path("~/.cache/pytest-machine-examples/databases.tar").expanduser()  # the tests preload it by this path
NAME = "databases:1"
SUITE = "bookworm"
PACKAGES = ("etcd-server", "etcd-client", "redis-server")
# What they depend on and never read.
EXCLUDED = ("/usr/share/*", "/usr/lib/*/perl*", "/usr/lib/systemd/*", "/lib/systemd/*")


@pytest.fixture(scope="session", autouse=True)
def databases() -> None:
    """Build the image when it is not there yet; skip where Debian's packages cannot be had."""
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(ARCHIVE.with_suffix(".lock")):
        if ARCHIVE.exists():
            return
        try:
            refuse("The image with etcd and Redis", hint="run the examples once without --machine-offline")
            build.check(ARCHIVE.parent)
            make_archive()
        except MachineError as error:
            pytest.skip(str(error))


def make_archive() -> None:
    """Unpack the packages and all that they need into one layer, and write an archive as `docker save` does."""
    layer, partial = ARCHIVE.with_suffix(".layer"), ARCHIVE.with_suffix(".partial")
    host = build.Host.ask()  # the mirror and the proxy that this computer's own apt uses
    argv = ["mmdebstrap", "--mode=root", "--format=tar", "--variant=extract", "--skip=output/dev"]
    argv += [f"--include={','.join(PACKAGES)}", *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED)]
    argv += build.origin(SUITE, layer, host)
    try:
        done = subprocess.run(argv, env=os.environ | host.environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise build.failure(done.returncode, done.stderr.splitlines()[-12:])
        with layer.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        config = {"os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
        manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
        with tarfile.open(partial, "w") as archive:
            archive.add(layer, "layer.tar")
            for name, content in {"config.json": config, "manifest.json": manifest}.items():
                entry = tarfile.TarInfo(name)
                text = json.dumps(content).encode()
                entry.size = len(text)
                archive.addfile(entry, BytesIO(text))
        partial.replace(ARCHIVE)  # whole, or not at all
    finally:
        layer.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
