"""``export`` and ``import``: a machine's access as a file under a passphrase, for a colleague or another computer.

What goes along is what it takes to use the machine: its address, its login key and the host key that it must show, the
client's certificate and the authority's. The authority's own key stays, so that whoever imports can make no further
access; nor does the host key's private half, nor any secret of the driver's.

Access is not ownership. What was imported is used, and forgotten by ``rm``; only where the machine was made can it be
stopped, changed or removed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_machine.support import clock, logins
from pytest_machine.support.text import shell_word

from .command import Failed, Ours, Session

if TYPE_CHECKING:
    from pytest_machine.model import Address, Record

    from .noted import Noted

VARIABLE = "PYTEST_MACHINE_PASSPHRASE"
_DRIVER = "imported"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the machine's directory that goes along."""

    mode: int
    """Its mode where it is imported."""
    check: Callable[[bytes, str], bytes]
    """Return the content, or raise `Malformed`."""


_FILES = {
    "id_ed25519": _File(0o600, logins.private_key),
    "id_ed25519.pub": _File(0o644, logins.public_key),
    "known_hosts": _File(0o600, logins.known_hosts),
    "ca.pem": _File(0o644, logins.certificates),
    "cert.pem": _File(0o644, logins.certificates),
    "key.pem": _File(0o600, logins.private_key),
}
_VERSION = 1


@click.command(cls=Ours)
@click.argument("name")
@click.option("-o", "--output", metavar="FILE", help="Where to write it, - for standard output; default: NAME.access.")
@click.option("-f", "--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--passphrase-file", metavar="FILE", help=f"A file whose first line is the passphrase. [${VARIABLE}]")
@click.pass_context
def export(ctx: click.Context, name: str, *, output: str | None, force: bool, passphrase_file: str | None) -> None:
    """Write a machine's access to a file that opens with a passphrase alone.

    Whoever has both can use the machine as you can: give them different ways. The access ends when the machine does.
    """
    from pytest_machine.errors import UsageError
    from pytest_machine.sealed import seal
    from pytest_machine.store import write

    from . import noted

    machine = noted.load(ctx.ensure_object(Session), name)
    packed = _packed(machine)
    target = output or f"{name}.access"
    if target != "-" and not force and os.path.lexists(target):
        raise UsageError(
            f"There is already a file '{target}'.", hint=f"docker-machine export -f -o {shell_word(target)} {name}"
        )
    sealed = seal(packed, _passphrase(passphrase_file, twice=True))
    if target == "-":
        click.echo(sealed, nl=False)
        return
    write(Path(target), sealed)
    click.echo(f"The access to \"{name}\" is in '{target}': docker-machine import '{target}'")


@click.command(cls=Ours, name="import")
@click.argument("file", metavar="FILE")
@click.option("--name", metavar="NAME", help="What to call the machine here; default: its own name.")
@click.option("--passphrase-file", metavar="FILE", help=f"A file whose first line is the passphrase. [${VARIABLE}]")
@click.pass_context
def import_(ctx: click.Context, file: str, *, name: str | None, passphrase_file: str | None) -> None:
    """Take over a machine's access that 'export' has written; FILE is - for standard input.

    The machine is used like any other: env, ip, url, ssh, scp, config, inspect, ls. It stays where it is and whose it
    is: rm forgets it here, and does nothing to it.
    """
    from pytest_machine.sealed import LONGEST, unseal

    session = ctx.ensure_object(Session)
    text = sys.stdin.buffer.read(LONGEST + 1) if file == "-" else _content(file)
    called = "-" if file == "-" else Path(file).name
    content = unseal(text, _passphrase(passphrase_file, twice=False), called=called)
    record, files = _unpacked(content, session, name, called)
    _note(session, record, files)
    click.echo(f'"{record.name}" can be used now: {ctx.find_root().info_name} env {record.name}')


def _content(file: str) -> bytes:
    from pytest_machine.errors import UsageError
    from pytest_machine.sealed import LONGEST
    from pytest_machine.support import given
    from pytest_machine.support.files import UNREADABLE, reason

    try:
        return given.read(Path(file), largest=LONGEST)
    except UNREADABLE as error:
        raise UsageError(
            f"The file '{file}' cannot be read.",
            facts={"reason": reason(error)},
            hint="docker-machine export NAME -o FILE writes one, where the machine was made",
        ) from error


def _address(machine: Noted) -> Address:
    from . import noted

    # A driver may know a newer one; where it cannot be asked now, the noted one has to do.
    try:
        found = noted.look(machine).address or machine.record.address
    except Exception:  # noqa: BLE001  # a stranger's driver may raise anything
        found = machine.record.address
    if found is None:
        raise Failed(
            f'Docker machine "{machine.name}" has no address yet.', hint=f"docker-machine start {machine.name}"
        )
    return found


def _packed(machine: Noted) -> bytes:
    record, address = machine.record, _address(machine)
    places = {name: record.directory / name for name in _FILES}
    if machine.foreign is not None:
        places |= {name: machine.certificates / name for name in ("ca.pem", "cert.pem", "key.pem")}
        if machine.foreign.key is not None:
            places["id_ed25519"] = machine.foreign.key
    files = {name: _kept(path, name) for name, path in places.items() if path.exists()}
    if not {"id_ed25519", "key.pem"} & files.keys():
        raise Failed(
            f'There is no key of "{record.name}" that could be exported.', hint=f"ls {shell_word(record.directory)}"
        )  # fmt: skip
    origin = str(record.options["origin"]) if record.driver == _DRIVER else record.driver
    noted = record.with_(address=address, options={"origin": origin}, driver=_DRIVER).to_json()
    known = {key: noted[key] for key in ("name", "driver", "options", "address", "engine", "created", "ready")}
    return json.dumps({"version": _VERSION, "machine": known, "files": files}).encode()


def _kept(path: Path, name: str) -> str:
    """Return a file that goes along; one that no import would take is refused here."""
    from pytest_machine.errors import StoreError
    from pytest_machine.support.files import UNREADABLE, reason
    from pytest_machine.support.given import read

    try:
        return _FILES[name].check(read(path, f"'{name}'", largest=logins.LONGEST_KEY), f"'{name}'").decode("utf-8")
    except UNREADABLE as error:
        raise StoreError(
            f"The file '{path}' cannot be exported.",
            facts={"reason": reason(error)},
            hint="docker-machine regenerate-certs NAME writes the certificates again",
        ) from error


def _unpacked(content: bytes, session: Session, name: str | None, called: str) -> tuple[Record, dict[str, bytes]]:
    """Return a record of this store and the files of its directory; raises `StoreError` for what is none of ours."""
    from pytest_machine.errors import BadSpec, StoreError
    from pytest_machine.model import check_name, new_id
    from pytest_machine.owner import host_id
    from pytest_machine.sealed import LONGEST
    from pytest_machine.support import parsing
    from pytest_machine.support.text import visible

    # An id of its own: two names here may mean one machine, and each is forgotten by itself.
    own = {"id": new_id(), "store": str(session.store.path), "host": host_id()}
    try:
        record, files = _read(parsing.json_table(content, "its content", largest=LONGEST), own)
    except (ValueError, TypeError, LookupError, BadSpec) as error:
        reason = str(error) if isinstance(error, ValueError | BadSpec) else type(error).__name__
        raise StoreError(
            f"The file '{called}' opens, but holds no access.",
            facts={"reason": visible(reason.partition("\n")[0], lines=False)},
            hint="pip install --upgrade pytest-machine, or export the machine again",
        ) from error
    return record.with_(name=check_name(name) if name else record.name), files


def _read(data: dict[str, object], own: dict[str, str]) -> tuple[Record, dict[str, bytes]]:
    """Return what a file from another computer holds, value by value; raises `Malformed` or `BadSpec`."""
    from pytest_machine.model import Address, Record
    from pytest_machine.support import parsing
    from pytest_machine.support.parsing import Malformed

    if data.get("version") != _VERSION:
        raise Malformed(f"its content is of version {data.get('version')!r:.40}; this program knows {_VERSION}")
    machine = parsing.table(data.get("machine"), "'machine'")
    given = parsing.table(machine.get("address"), "'address'")
    address = Address(
        ip=parsing.host(given.get("ip"), "'ip'"),
        user=logins.user(given.get("user", "root"), "'user'"),
        ssh_port=parsing.port(given.get("ssh_port", 22), "'ssh_port'", zero=True),
        engine_port=parsing.port(given.get("engine_port", 2376), "'engine_port'", zero=True),
        engine=logins.engine_url(given["engine"], "'engine'") if given.get("engine") else "",
        inner=parsing.host(given["inner"], "'inner'") if given.get("inner") else "",
    )
    if machine.get("driver") != _DRIVER:
        raise Malformed(f"'driver' is not '{_DRIVER}'")
    options = parsing.table(machine.get("options"), "'options'")
    known = {
        "name": parsing.text(machine.get("name"), "'name'", longest=63, empty=False),
        "driver": _DRIVER,
        "options": {"origin": parsing.text(options.get("origin", ""), "'origin'", longest=63)},
        "engine": parsing.plain(parsing.table(machine.get("engine", {}), "'engine'"), "'engine'"),
        "created": parsing.time(machine.get("created"), "'created'"),
        "ready": None if machine.get("ready") is None else parsing.time(machine["ready"], "'ready'"),
    }
    files = {}
    for name, text in parsing.table(data.get("files"), "'files'").items():
        if name in _FILES:
            if not isinstance(text, str):
                raise Malformed(f"the file '{name}' in it is not a text")
            files[name] = _FILES[name].check(text.encode("utf-8", "surrogateescape"), f"the file '{name}' in it")
    return Record.from_json({**known, **own}).with_(address=address), files


def _note(session: Session, record: Record, files: dict[str, bytes]) -> None:
    """Note the machine; one that a killed import has left is replaced, and one that is there is not."""
    from pytest_machine.errors import UsageError
    from pytest_machine.store import write

    from .create import alone, check_free

    store = session.store
    with alone(store, record.name), store.lock(record.name):
        try:
            check_free(store, record.name)
        except Failed as error:
            raise UsageError(error.message, hint="docker-machine import --name NEW FILE") from error
        if record.name in store.names():
            if store.load(record.name).driver != _DRIVER:
                raise Failed(
                    f'Docker machine "{record.name}" is there, half made.', hint=f"docker-machine rm {record.name}"
                )
            store.remove(record.name)
        # It counts as broken off until all of it is there.
        store.add(record.with_(ready=None))
        for name, content in files.items():
            write(record.directory / name, content, mode=_FILES[name].mode, durable=False)
        store.save(record.with_(ready=record.ready or clock.now()))


def _passphrase(file: str | None, *, twice: bool) -> str:
    """Return the passphrase: of the file, the variable, or whoever sits at the terminal."""
    from pytest_machine.errors import BadSpec

    if file is not None:
        found, where = _first_line(file), f"The first line of '{file}'"
    elif VARIABLE in os.environ:
        found, where = os.environ[VARIABLE], f"The variable '{VARIABLE}'"
    elif sys.stdin.isatty():
        found, where = click.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True), "It"
    else:
        raise BadSpec(
            "The access needs a passphrase, and there is no terminal to ask for it.",
            hint=f"--passphrase-file FILE, or the variable {VARIABLE}",
        )
    if not found:
        raise BadSpec(f"{where} is empty, which is no passphrase.", hint="a few random words are a good one")
    return str(found)


def _first_line(file: str) -> str:
    from pytest_machine.errors import MachineError
    from pytest_machine.support.files import UNREADABLE, reason
    from pytest_machine.support.given import read_text

    try:
        return next(iter(read_text(Path(file), largest=1 << 16).splitlines()), "")
    except UNREADABLE as error:
        raise MachineError(
            f"The passphrase's file '{file}' cannot be read.",
            facts={"reason": reason(error)},
            hint="--passphrase-file takes a text file whose first line is the passphrase",
        ) from error
