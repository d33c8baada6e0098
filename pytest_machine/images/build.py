"""Builds a machine's image with mmdebstrap: a Debian tree with Docker Engine, sshd and our init.

What goes in is a `Recipe`, whose digest names the result; `build` runs it. Everything that differs between two hosts
but not between two results (which mirror, which proxy) is asked of the host at the time of building and is no part of
the recipe.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pytest_machine.errors import DriverError, DriverUnavailable
from pytest_machine.support import clock
from pytest_machine.support.folders import PUBLIC, make_folder

Progress = Callable[[str, float, float], None]
"""Called with what is being done, how far it is (0 to 1) and the seconds since the start."""

SUITES = ("bookworm", "trixie", "sid")

# Raise it when the steps below change what comes out.
VERSION = 2

# What a Docker host needs, and what scripts that are run on one expect to find.
PACKAGES = (
    *("docker.io", "openssh-server", "iptables", "iproute2", "ca-certificates", "sudo", "openssl", "curl"),
    *("procps", "kmod", "mount", "iputils-ping"),
    "nftables",  # by which faults cut networks (`pytest_machine.faults.network`)
    "tcpdump",  # by which packets are captured (`pytest_machine.capture`)
)

# Nobody reads manuals in a machine that lives for minutes. dpkg keeps to it when a test installs more.
EXCLUDED = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/lintian/*")
INCLUDED = ("/usr/share/locale/locale.alias", "/usr/share/doc/*/copyright")

# File of this package → where it goes and its mode.
FILES = {
    "init": ("usr/sbin/machine-init", 0o755),
    "sshd.conf": ("etc/ssh/sshd_config.d/machine.conf", 0o644),
    "containerd.toml": ("etc/containerd/config.toml", 0o644),
}
# The same for releases after bookworm, whose sshd does not know the option.
NEWER_FILES = {"penalties.conf": ("etc/ssh/sshd_config.d/penalties.conf", 0o644)}
# Bookworm's docker.io contains the client; later it is a package of its own.
NEWER_PACKAGES = ("docker-cli",)
# `service docker restart`, `systemctl restart docker` and the scripts of packages all reach our init.
LINKS = {
    "etc/init.d/docker": "/usr/sbin/machine-init",
    "etc/init.d/ssh": "/usr/sbin/machine-init",
    "usr/local/bin/systemctl": "/usr/sbin/machine-init",
    "var/lib/boot2docker": "/etc/docker",  # where Docker Machine's scripts look for certificates
}

SPACE = 1 << 30  # bytes: the packages, the tree made of them, and something to spare
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that goes into an image; two equal recipes give the same machine but for the age of its packages."""

    suite: str
    arch: str
    packages: tuple[str, ...]
    excluded: tuple[str, ...]
    included: tuple[str, ...]
    links: Mapping[str, str]
    files: Mapping[str, tuple[str, int, str]] = field(repr=False)  # name → (target, mode, text)
    components: tuple[str, ...] = ("main",)
    version: int = VERSION

    @property
    def digest(self) -> str:
        """Twelve hex digits over every field."""
        import hashlib

        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """What the image's directory is called."""
        return f"{self.suite}-{self.digest}"


def recipe(suite: str) -> Recipe:
    """Return today's recipe for a Debian release, for this machine's architecture."""
    import platform

    newer = suite != "bookworm"
    files = FILES | (NEWER_FILES if newer else {})
    return Recipe(
        suite=suite,
        arch=platform.machine(),
        packages=(*PACKAGES, *NEWER_PACKAGES) if newer else PACKAGES,
        excluded=EXCLUDED,
        included=INCLUDED,
        links=LINKS,
        files={name: (target, mode, _text(name)) for name, (target, mode) in files.items()},
    )


def _text(name: str) -> str:
    from importlib import resources

    return resources.files(__package__).joinpath(name).read_text("utf-8")


def check(directory: Path) -> None:
    """Raise the reason and its remedy where an image cannot be built here."""
    if getattr(os, "geteuid", lambda: 1)() != 0:
        raise DriverUnavailable(
            "A machine image can be built by 'root' only.",
            hint=f"sudo {sys.executable} -m pytest_machine image build, then run the tests as root",
        )
    if shutil.which("mmdebstrap") is None:
        raise DriverUnavailable(
            "The program 'mmdebstrap', which builds the machine image, is not installed.",
            hint="sudo apt-get install mmdebstrap",
        )
    there = next(parent for parent in (directory, *directory.parents) if parent.exists())
    if (free := shutil.disk_usage(there).free) < SPACE:
        raise DriverError(
            f"There is no room to build a machine image in '{directory}'.",
            facts={"free": f"{free >> 20} MiB", "needed": f"{SPACE >> 20} MiB"},
            hint="make room, or set PYTEST_MACHINE_CACHE to a directory on a larger file system",
        )


def build(made: Recipe, tree: Path, progress: Progress) -> None:
    """Make the tree of a recipe; about half a minute and 150 MB from a mirror.

    Raises:
        DriverError: mmdebstrap failed; its last words are among the facts.
    """
    host = Host.ask()
    _mmdebstrap(command(made, tree, host), host.environ, progress)
    finish(made, tree)


# ------------------------------------------------------------------------------------------------------------ the host


@dataclass(frozen=True, slots=True)
class Host:
    """What this machine's own apt uses: an image must be built from the mirror that works here."""

    mirror: str = ""
    security: str = ""
    unchecked: bool = False  # a mirror of a past day: its lists are older than they say they may be
    environ: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def ask(cls, root: Path = Path("/")) -> Host:
        """Read this machine's sources and proxy; PYTEST_MACHINE_MIRROR (and ..._SECURITY_MIRROR) go before them."""
        mirror, security = mirrors(root)
        settings = _apt_config()
        proxies = {
            f"{scheme}_proxy": settings[scheme]
            for scheme in ("http", "https")
            if settings.get(scheme, "DIRECT") != "DIRECT" and f"{scheme}_proxy" not in os.environ
        }
        return cls(
            mirror=os.environ.get("PYTEST_MACHINE_MIRROR", mirror),
            security=os.environ.get("PYTEST_MACHINE_SECURITY_MIRROR", security),
            unchecked=settings.get("valid", "").lower() in ("false", "no", "0"),
            environ=proxies,
        )


def mirrors(root: Path) -> tuple[str, str]:
    """Return the archive's and the security archive's address in the apt sources of a Debian host, or empty texts."""
    release = root / "etc/os-release"
    facts = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release.read_text(), re.MULTILINE)) if release.exists() else {}
    codename = facts.get("VERSION_CODENAME", "")
    if facts.get("ID") != "debian" or not codename:
        return "", ""
    found: dict[str, str] = {}
    for uri, suite in _sources(root / "etc/apt"):
        if suite in (codename, f"{codename}-security"):
            found.setdefault(suite, uri)
    return found.get(codename, ""), found.get(f"{codename}-security", "")


def _sources(apt: Path) -> Iterator[tuple[str, str]]:
    """Yield (address, suite) of every binary source, in both of apt's formats."""
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else ():
            if match := re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s", line):
                yield match[1], match[2]
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        text = re.sub(r"^#.*\n?", "", path.read_text(), flags=re.MULTILINE)
        for stanza in re.split(r"\n\s*\n", text):
            fields = {
                key.lower(): value.split()
                for key, value in re.findall(r"^(\S+):((?:.|\n[ \t])*)", stanza, re.MULTILINE)
            }
            if "deb" in fields.get("types", ()) and fields.get("enabled") != ["no"]:
                yield from ((uri, suite) for uri in fields.get("uris", ()) for suite in fields.get("suites", ()))


def _apt_config() -> dict[str, str]:
    names = {
        "http": "Acquire::http::Proxy",
        "https": "Acquire::https::Proxy",
        "valid": "Acquire::Check-Valid-Until",
    }
    if shutil.which("apt-config") is None:
        return {}
    asked = [word for pair in names.items() for word in pair]
    shown = subprocess.run(
        ["apt-config", "shell", *asked], capture_output=True, text=True, errors="replace", check=False
    ).stdout
    return dict(re.findall(r"^(\w+)='(.*)'$", shown, re.MULTILINE))


# --------------------------------------------------------------------------------------------------------- the command


def command(made: Recipe, tree: Path, host: Host) -> list[str]:
    """Return mmdebstrap's argv."""
    argv = [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
        f"--include={','.join(made.packages)}",
    ]
    argv += [f"--dpkgopt=path-exclude={path}" for path in made.excluded]
    argv += [f"--dpkgopt=path-include={path}" for path in made.included]
    return [*argv, *origin(made.suite, tree, host, components=made.components)]


def origin(suite: str, target: Path, host: Host, *, components: Sequence[str] = ("main",)) -> list[str]:
    """Return the end of mmdebstrap's argv: which release, from where, trusted by which keys, and where it goes."""
    argv = []
    if Path(_KEYRING).exists():
        argv.append(f"--keyring={_KEYRING}")  # hosts that are not Debian do not trust its keys by themselves
    argv.append("--dpkgopt=force-unsafe-io")  # no fsync for each file: a half-made tree is never used
    if host.unchecked or suite == "sid":
        argv.append('--aptopt=Acquire::Check-Valid-Until "false"')
    argv += [suite, str(target)]
    if host.mirror:  # else mmdebstrap's own default
        parts = " ".join(components)
        argv.append(f"deb {host.mirror} {suite} {parts}")
        if suite != "sid":
            argv.append(f"deb {host.mirror} {suite}-updates {parts}")
            argv += [f"deb {host.security} {suite}-security {parts}"] if host.security else []
    return argv


# Its own words → what people read, and how far that is, from the times of a build on a quiet machine.
_STAGES = {
    "running apt-get update": ("reading the mirror's lists", 0.03),
    "downloading packages": ("downloading the base system", 0.12),
    "extracting archives": ("unpacking the base system", 0.25),
    "installing essential": ("installing the base system", 0.30),
    "installing remaining": ("installing Docker Engine and its company", 0.45),
    "cleaning package lists": ("cleaning up", 0.95),
}


def stage(line: str) -> tuple[str, float] | None:
    """Return what a line of mmdebstrap's says has begun, and how far the whole is by then."""
    return next((known for words, known in _STAGES.items() if words in line), None)


def _mmdebstrap(argv: list[str], environ: Mapping[str, str], progress: Progress) -> None:
    began = clock.monotonic()
    last: deque[str] = deque(maxlen=12)
    # In process and mount namespaces of its own it ends with us, even when we are killed, and takes its mounts with it:
    # a later builder, who removes what is left, must find neither. A signal would not do: mmdebstrap finishes its step.
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *argv]
    with subprocess.Popen(
        argv,
        env=os.environ | environ | {"LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        umask=0o022,  # packages' scripts make files, and the caller's umask is not for them
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                last.append(line.rstrip())
                if known := stage(line):
                    progress(*known, clock.monotonic() - began)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise failure(process.returncode, list(last))


def failure(status: int, lines: list[str]) -> DriverError:
    """Return the error for mmdebstrap's last lines: the two causes that people meet have a remedy of their own."""
    text = "\n".join(lines)
    facts = {
        "status": status,
        "last": next((line for line in lines if line.startswith(("E:", "Err", "W:"))), lines[-1] if lines else ""),
    }
    if "No space left" in text:
        return DriverError(
            "The file system of the machine images is full.",
            facts=facts,
            hint="make room, or set PYTEST_MACHINE_CACHE to a directory on a larger file system",
        )
    if re.search(
        r"Could not (resolve|connect)|Temporary failure|Failed to fetch|Unable to connect|apt-get update failed", text
    ):
        return DriverError(
            "The Debian mirror, from which the machine image is built, could not be read.",
            facts=facts,
            hint="check the network and `apt-get update`, or set PYTEST_MACHINE_MIRROR to a mirror's address",
        )
    return DriverError(
        "The program 'mmdebstrap' could not build the machine image.",
        facts=facts,
        hint="run `apt-get update` and try again",
    )


# ------------------------------------------------------------------------------------------------------------ the tree


def finish(made: Recipe, tree: Path) -> None:
    """Put our files in and take out what must differ between machines."""
    for pattern in (
        "etc/ssh/ssh_host_*",
        "etc/resolv.conf",
        "etc/hostname",
        "var/lib/apt/lists/*",
        "var/cache/apt/*",
        "var/log/*",
    ):
        for path in tree.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    tree.chmod(PUBLIC)  # the machine's own `/`, where a driver packs the tree
    (tree / "etc/machine-id").write_text("")  # empty, not absent: what systemd's tools take for "not set yet"
    (tree / "etc/machine-id").chmod(0o644)
    make_folder(tree / "etc/docker", PUBLIC)
    for target, mode, text in made.files.values():
        path = tree / target
        make_folder(path.parent, PUBLIC)
        path.write_text(text, "utf-8", newline="\n")
        path.chmod(mode)
    for link, target in made.links.items():
        path = tree / link
        make_folder(path.parent, PUBLIC)
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def measure(tree: Path) -> int:
    """Return the bytes that a tree takes on its disk, hard links once."""
    seen: dict[int, int] = {}
    for directory, _, files in os.walk(tree):
        for name in (".", *files):
            status = Path(directory, name).lstat()
            seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def installed(tree: Path, package: str) -> str:
    """Return a package's version in a tree, or an empty text."""
    status = tree / "var/lib/dpkg/status"
    match = (
        re.search(rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (\S+)", status.read_text("utf-8"), re.MULTILINE)
        if status.exists()
        else None
    )
    return match[1] if match else ""
