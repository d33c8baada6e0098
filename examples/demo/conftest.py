"""What the demo's containers are made of, and how it tells what it does.

The image is made here, from one static program, so that the demo needs no registry and no network but its own.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine import Machine

PROGRAM = Path("/bin/busybox")  # Debian's package `busybox-static`
APPLETS = ("cat", "echo", "hostname", "httpd", "ls", "nc", "ping", "rm", "sh", "sleep", "timeout", "wget")


def busybox_archive() -> bytes:
    """Return a root file system as a tar archive: busybox, a name for each of its tools, and a web page."""
    program = PROGRAM.read_bytes() if PROGRAM.exists() else b""
    # A dynamically linked program names its loader in its first bytes, and that is not in the image.
    if not program or b"/ld-" in program[:4096]:
        pytest.skip(f"the demo's image is made of a static {PROGRAM}: apt-get install busybox-static")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in ("bin", "tmp", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for path, content, mode in (
            ("bin/busybox", program, 0o755),
            ("www/index.html", b"hello from the other host\n", 0o644),
        ):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def busybox() -> Callable[..., str]:
    """Return a function that puts the image on machines and returns its name."""
    archive = busybox_archive()

    def load(*machines: Machine) -> str:
        for machine in machines:
            machine.docker.api.import_image_from_data(archive, repository="busybox", tag="latest")
        return "busybox:latest"

    return load


@pytest.fixture
def tell() -> Callable[[str], None]:
    """Return a function that prints a line with the seconds since the test began."""
    began = time.monotonic()
    print()

    def say(what: str) -> None:
        print(f"  {time.monotonic() - began:5.1f} s  {what}", flush=True)

    return say
