"""Brings a machine's container to life: made, filled with what the machine is born with, started."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources

from pytest_machine.errors import DriverError
from pytest_machine.model import Record, SeedFile
from pytest_machine.owner import cache_dir
from pytest_machine.store import write
from pytest_machine.support import clock, files, parsing

from . import tags
from .outer import Json, Outer, said
from .shape import BOOT, NEW, Shape, lacking

# Seconds for which what a killed process has asked for may still come about.
_IN_FLIGHT = 2.0
_LOOK = 0.05


def container_of(outer: Outer, record: Record) -> Json | None:
    """Return a machine's container as the engine lists it; None when there is none."""
    found = outer.containers(f"{tags.ID}={record.id}", tags.SLOT)
    return found[0] if found else None


def running(outer: Outer, record: Record) -> Json:
    """Return a machine's container; raises `DriverError` when it is not on."""
    found = container_of(outer, record)
    if found is None or found["State"] not in ("running", "paused"):
        raise DriverError(f"The machine '{record.name}' does not run.", hint="docker-machine ls")
    return found


def give_birth(outer: Outer, record: Record, shape: Shape, files: Mapping[str, SeedFile]) -> None:
    """Make a machine's container and start it. None is there."""
    known = _known(outer)
    if known is None:
        id_ = _make(outer, record, shape, files)
        if _start(outer, record, id_):
            return
        outer.remove_container(id_)
        known = _ask(outer, record, shape.image)
    id_ = _make(outer, record, replace(shape, lacking=known), files)
    if not _start(outer, record, id_):
        raise DriverError(
            "The engine's computer cannot give a machine the capabilities that it needs.",
            facts={"it lacks": ", ".join(known)},
            hint="docker run --rm --privileged busybox true",
        )


def _make(outer: Outer, record: Record, shape: Shape, files: Mapping[str, SeedFile]) -> str:
    made = outer.create_container(shape.config(), f"{tags.PREFIX}-{record.name}-{record.id}")
    # Whoever looks up its own name, as dockerd does, must not have to ask a name server that may be out of reach.
    hosts = f"127.0.0.1 localhost\n{shape.address.among} {record.name}\n"
    born_with = {"/etc/hosts": SeedFile(hosts.encode()), **files, BOOT: boot()}
    outer.api.put_archive(made["Id"], "/", archive(born_with))
    return str(made["Id"])


def boot() -> SeedFile:
    """Return the program that a container begins with."""
    return SeedFile(resources.files(__package__).joinpath("boot").read_bytes(), 0o755)


def archive(files: Mapping[str, SeedFile]) -> bytes:
    """Return files as a tar archive, all owned by root."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        # The one directory that may be new and whose mode matters: sshd refuses keys below one that others may write.
        folder = tarfile.TarInfo("root/.ssh")
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o700, int(clock.now())
        tar.addfile(folder)
        for name, file in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(file.content), file.mode, int(clock.now())
            tar.addfile(entry, io.BytesIO(file.content))
    return packed.getvalue()


_NETWORK = "/etc/machine-network"
# What Docker gives a machine of ways out and should not: one by IPv6 on a lab's network, and any to who is sealed.
_SEAL = """\
ip -6 route del default 2>/dev/null
nft delete table inet machine_seal 2>/dev/null
ip={ip}
[ -n "$ip" ] || exit 0
set -- $(ip -o address show to $ip)
exec nft -f - <<END
table inet machine_seal {{
  chain begins {{ type filter hook postrouting priority 0; oifname "$2" ct state new drop; }}
}}
END
"""


def seal(outer: Outer, id_: str, ip: str) -> None:
    """Let a machine begin nothing by the interface that has an address, and only answer there; without one: all.

    From within, because an engine has no words for it: it holds what runs there, and not who is root and means to.
    """
    script = f"cat >{_NETWORK} <<'SCRIPT'\n{_SEAL.format(ip=ip)}SCRIPT\nexec sh {_NETWORK}"
    made = outer.api.exec_create(id_, ["sh", "-c", script])
    printed = outer.api.exec_start(made["Id"])
    if outer.api.exec_inspect(made["Id"])["ExitCode"]:
        raise DriverError(
            "The machine cannot be kept from the outside.",
            facts={"it said": printed.decode(errors="replace").strip()},
            hint="leave isolated=True out, or take another image: nft and ip are needed in it",
        )


def start(outer: Outer, record: Record, id_: str) -> None:
    """Start a machine's container; one that runs already: nothing happens."""
    if not _start(outer, record, id_):
        raise DriverError(f"The engine cannot start the machine '{record.name}' any more.", hint="create it again")


def _start(outer: Outer, record: Record, id_: str) -> bool:
    """Start a container; return False when the engine's computer lacks a capability that it asks for."""
    import docker.errors

    try:
        outer.api.start(id_)
    except docker.errors.APIError as error:
        words = said(error)
        if re.search(r"\bcap(abilit|s\b)", words):
            return False
        hint = "docker logs, and see whether it works by hand"
        if re.search(r"port is already allocated|address already in use", words):
            hint = "destroy the machine and create it again: somebody else has taken its port meanwhile"
        elif "assign requested address" in words:
            hint = "the engine's computer has not the address that it is known by: options={'publish': '0.0.0.0'}"
        raise DriverError(
            f"The engine could not start the machine '{record.name}'.", facts={"it said": words}, hint=hint
        ) from error
    return True


# ------------------------------------------------------------------------------------- what the engine's computer lacks


def _known(outer: Outer) -> list[str] | None:
    """Return what the engine's computer lacks, if it was found before that it can have no privileged containers.

    Noted for this engine as it is: of another version, on another kernel, it is tried again.
    """
    try:
        found = files.read_table(cache_dir() / "docker" / f"{_identity(outer)}.json")
        return list(parsing.texts(found.get("lacking"), "'lacking'"))
    except files.UNREADABLE:
        return None


def _ask(outer: Outer, record: Record, image: str) -> list[str]:
    """Ask the first process of the engine's computer what it cannot hand on."""
    config = {
        "Image": image,
        "Entrypoint": ["grep", "CapBnd", "/proc/1/status"],
        "Labels": tags.of_machine(record),
        "HostConfig": {"PidMode": "host", "NetworkMode": "none", "LogConfig": {"Type": "json-file", "Config": {}}},
    }
    id_ = str(outer.create_container(config)["Id"])
    try:
        outer.api.start(id_)
        outer.api.wait(id_)
        words = outer.api.logs(id_).decode().split()
    finally:
        outer.remove_container(id_)
    found = lacking(int(words[1], 16))
    # An engine as old as to ask for what its computer has not got may be too old to know these by name.
    found = [name for name in found if name not in NEW]
    write(
        cache_dir() / "docker" / f"{_identity(outer)}.json",
        json.dumps({"lacking": found}).encode(),
        durable=False,
    )
    return found


def _identity(outer: Outer) -> str:
    info = outer.info()
    text = "\0".join(str(info.get(each, "")) for each in ("ID", "ServerVersion", "KernelVersion"))
    return hashlib.sha256(os.fsencode(f"{outer.endpoint.url}\0{text}")).hexdigest()[:16]


# -------------------------------------------------------------------------------------------------------------- the end


def end(outer: Outer, record: Record, *, settled: bool) -> None:
    """Remove every container of a machine, then its volumes: its address is given back by that.

    Unless all is `settled`, something may still come that a process asked for before it was killed: it is waited for.
    """
    mine = f"{tags.ID}={record.id}"
    until = clock.monotonic() + _IN_FLIGHT
    seen = False
    while True:
        for each in outer.containers(mine):
            outer.remove_container(each["Id"])
            seen = True
        held = [each["Name"] for each in outer.volumes(mine) if not outer.remove_volume(each["Name"])]
        left = held or outer.containers(mine)
        if not left and (seen or settled or clock.monotonic() > until):
            return
        if left and clock.monotonic() > until + 30:
            raise DriverError(
                f"The engine does not let go of the machine '{record.name}'.",
                facts={"left": ", ".join(held) or "its container"},
                hint=f"docker ps -a --filter label={mine}",
            )
        clock.sleep(_LOOK)
