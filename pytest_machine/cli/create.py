"""``create``: makes a machine, with the flags of the driver that is asked for."""

from __future__ import annotations

import contextlib
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .command import Command, Failed, Session, argv0, told_help
from .config import SWARM
from .layout import Commas, Flag, Switch

if TYPE_CHECKING:
    from pytest_machine.birth import Witness
    from pytest_machine.driver import Driver
    from pytest_machine.errors import MachineError, UsageError
    from pytest_machine.model import Engine, Record, Spec, Value
    from pytest_machine.store import Store

    from .progress import Progress

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-.]*")
_TIMEOUT = 1800.0
"""Seconds: a slow mirror may need a quarter of an hour to bring Docker to a machine that came without."""
_NO_SWARM = (
    "WARNING: Classic Swarm is noted, but not set up: its image and its discovery service are gone for good. "
    "Docker has a Swarm of its own: docker swarm init."
)
_PRE_CHECK = 3
"""The exit code where a driver cannot make machines here."""
# Argument of the marker's, of which errors speak → flag.
_ARGUMENTS = {
    "engine_env": "--engine-env",
    "engine_options": "--engine-opt",
    "insecure_registries": "--engine-insecure-registry",
    "labels": "--engine-label",
    "registry_mirror": "--engine-registry-mirror",
}
_ARGUMENT = re.compile(
    rf"\b({'|'.join(_ARGUMENTS)})=(?:\[?'(?P<value>[^']*)'\]?|{{'(?P<name>[^']*)': '(?P<is>[^']*)'}}|(?P<any>…))?"
)
_DRIVER, _FIELD = "pytest_machine.driver", "option_"


class Create(Command):
    """Its flags are known once the driver is."""

    wrong_usage = 1
    sorted_flags = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the driver first, then read its flags too."""
        from pytest_machine.errors import UnknownDriver

        try:
            choose_driver(ctx, args)
        except UnknownDriver as error:
            from pytest_machine.foreign import no_driver

            _, _, rest = str(error).partition("\n")
            click.echo(f"{no_driver(_asked(args) or os.environ.get('MACHINE_DRIVER', ''))}\n{rest}", err=True)
            ctx.exit(1)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the flags of every machine and the driver's own."""
        driver = ctx.meta.get(_DRIVER)
        return [*super().get_params(ctx), *(_flags(driver) if isinstance(driver, type) else ())]


def choose_driver(ctx: click.Context, args: list[str], *, check: bool = True) -> None:
    """Find the driver whose flags `create` has with these arguments; raises `MachineError` for one that is unknown.

    Without a `check`, the default is the first of its order, whether it can make machines here or not.
    """
    from pytest_machine.errors import DriverUnavailable

    asked = _asked(args) or os.environ.get("MACHINE_DRIVER", "")
    registry = ctx.ensure_object(Session).registry
    try:
        ctx.meta[_DRIVER] = registry.driver(asked or registry.names()[0]) if asked or not check else registry.choose()
    except DriverUnavailable as error:
        ctx.meta[_DRIVER] = error  # told when it is needed: for --help it is not


def _asked(args: list[str]) -> str:
    """Return the driver that is named among arguments of which the other flags are not known yet."""
    for place, arg in enumerate(args):
        name, given, value = arg.partition("=")
        if arg == "--":
            break
        if name in ("-d", "--d", "-driver", "--driver"):
            return value if given else args[place + 1] if place + 1 < len(args) else ""
    return ""


def _flags(driver: type) -> Iterator[click.Option]:
    from pytest_machine.options import options

    for each in (option for option in options(driver).values() if option.flag):
        default = "" if each.secret or each.default in (None, ()) else str(each.default)
        yield (Switch if each.type is bool else Flag)(
            [each.flag, f"{_FIELD}{each.name}"],
            help=each.help,
            type=int if each.type is int and each.kind is None else None,
            multiple=typing.get_origin(each.type) is tuple,
            shown=default,
            variable=each.env,
        )


def _some(flag: str, help: str, *, envvar: str | None = None) -> Callable[[Any], Any]:
    """Return a flag that may be given again and again."""
    return click.option(flag, cls=Flag, type=Commas(), multiple=True, help=help, envvar=envvar)


@click.command(cls=Create)
@click.argument("names", metavar="NAME", nargs=-1)
@click.option("--context", "as_context", is_flag=True, help="Make it a Docker context too: docker --context NAME ps")
@click.option(
    "-d", "--driver", cls=Flag, variable="MACHINE_DRIVER", help="Driver to create machine with; default: what can here"
)
@click.option(
    "--engine-install-url",
    envvar="MACHINE_DOCKER_INSTALL_URL",
    help="Whose script installs Docker where there is none; default: its distribution's packages",
)
@_some("--engine-opt", "Specify arbitrary flags to include with the created engine in the form flag=value")
@_some("--engine-insecure-registry", "Specify insecure registries to allow with the created engine")
@_some("--engine-registry-mirror", "Specify registry mirrors to use", envvar="ENGINE_REGISTRY_MIRROR")
@_some("--engine-label", "Specify labels for the created engine")
@click.option("--engine-storage-driver", help="Specify a storage driver to use with the engine")
@_some("--engine-env", "Specify environment variables to set in the engine")
@click.option("--swarm", is_flag=True, help="Note that the machine is for a classic Swarm")
@click.option(
    "--swarm-image",
    default=str(SWARM["Image"]),
    envvar="MACHINE_SWARM_IMAGE",
    help="Specify Docker image to use for classic Swarm",
)
@click.option("--swarm-master", is_flag=True, help="Note that the machine is for a classic Swarm's master")
@click.option("--swarm-discovery", default="", help="Discovery service to use with classic Swarm")
@click.option(
    "--swarm-strategy", default=str(SWARM["Strategy"]), help="Define a default scheduling strategy for classic Swarm"
)
@_some("--swarm-opt", "Define arbitrary flags for classic Swarm's master")
@_some("--swarm-join-opt", "Define arbitrary flags for classic Swarm's join")
@click.option("--swarm-host", default=str(SWARM["Host"]), help="ip/socket to listen on for classic Swarm's master")
@click.option(
    "--swarm-addr", default="", help="addr to advertise for classic Swarm (default: detect and use the machine IP)"
)
@click.option("--swarm-experimental", is_flag=True, help="Enable classic Swarm's experimental features")
@_some("--tls-san", "Support extra SANs for TLS certs")
@click.option("--dry-run", is_flag=True, help="Check, and say what would be made; make nothing")
@click.pass_context
def create(ctx: click.Context, /, names: tuple[str, ...], *, as_context: bool, **given: Any) -> None:
    """Create a machine.

    Run 'docker-machine create --driver name --help' to include the create flags for that driver in the help text.

    A machine of that name whose creation was broken off is replaced. Exit code 3: the driver cannot make machines here.
    """
    name = _checked(ctx, names, given)
    session = ctx.ensure_object(Session)
    if given.pop("dry_run"):
        _preview(ctx, session, name, given)
        return
    with alone(session.store, name):
        check_free(session.store, name)
        driver = ctx.meta[_DRIVER]
        if isinstance(driver, Exception):
            _refused(ctx, driver)
        spec = _spec(session, name, driver, given)
        if as_context:
            _check_context(session, name)
        _replace(session, spec)
        if spec.swarm:
            click.echo(_NO_SWARM)
        record = _make(ctx, session, spec)
    click.echo(
        "To see how to connect your Docker Client to the Docker Engine running on this virtual machine, "
        f"run: {' '.join(argv0())} env {record.name}"
    )
    if as_context:
        from . import context, noted

        context.add(noted.load(session, name))


def _preview(ctx: click.Context, session: Session, name: str, given: dict[str, Any]) -> None:
    """Say what would be made; what would be refused ends the program as the real thing does."""
    from pytest_machine.errors import UsageError
    from pytest_machine.model import check_name
    from pytest_machine.options import from_environment, options

    from .preview import Preview

    check_name(name)
    # A lock of which there is no file is nobody's, and is not made for a look.
    making = session.store.path / "locks" / f".{name}.create"
    with alone(session.store, name) if making.exists() else contextlib.nullcontext():
        check_free(session.store, name)
    kind = ctx.meta[_DRIVER]
    if isinstance(kind, Exception):
        _refused(ctx, kind)
    spec = _spec(session, name, kind, given)
    try:
        driver = session.registry.configure(spec)
        refused = _refusal(driver)
    except UsageError as error:
        raise _wrong(error, kind) from error
    if refused is not None:
        _refused(ctx, refused)
    known, variables = options(kind), from_environment(kind)
    sources = {
        each: f"${known[each].env}" if variables.get(each) == value else str(known[each].flag or "given")
        for each, value in spec.options.items()
    }
    if given["driver"]:
        why = "which was asked for"
    else:
        why = "by $MACHINE_DRIVER" if os.environ.get("MACHINE_DRIVER") else "the first that can make machines here"
    replaces = name in session.store.names()
    shown = Preview(spec=spec, driver=driver, why=why, sources=sources, store=session.store, replaces=replaces)
    click.echo("\n".join(shown.lines()))


def _checked(ctx: click.Context, names: tuple[str, ...], given: Mapping[str, Any]) -> str:
    if len(names) > 1:
        raise Failed(f"Invalid command line. Found extra arguments [{' '.join(names[1:])}]")
    if not names or not names[0]:
        raise told_help(ctx, "Error: No machine name specified")
    if not _NAME.fullmatch(names[0]):
        raise Failed("Error creating machine: Invalid hostname specified. Allowed hostname chars are: 0-9a-zA-Z . -")
    if (discovery := given["swarm_discovery"]) and not re.search(r"[^:]*://.*", discovery):
        raise Failed(f"Error parsing swarm discovery: Swarm Discovery URL was in the wrong format: {discovery}")
    return names[0]


@contextlib.contextmanager
def alone(store: Store, name: str) -> Iterator[None]:
    """Keep others from making a machine of that name.

    The kernel lets go when this process dies, so that whoever gets here knows that a half-made machine is nobody's.
    """
    from filelock import FileLock, Timeout

    from pytest_machine.model import check_name

    check_name(name)
    locks = store.make("locks")
    try:
        # No machine's own lock is called so: its name begins with a letter or digit.
        held = FileLock(locks / f".{name}.create").acquire(blocking=False)
    except Timeout:
        raise Failed(f'Docker machine "{name}" is being created by another process') from None
    with held:
        yield


def check_free(store: Store, name: str) -> None:
    """Raise when there is a machine of that name, whole or Docker Machine's own."""
    from pytest_machine.errors import UnknownMachine

    try:
        taken = store.load(name).ready is not None
    except UnknownMachine:
        taken = _foreign(store, name)
    if taken:
        raise Failed(f'Docker machine "{name}" already exists')


def _check_context(session: Session, name: str) -> None:
    """Raise when the machine's Docker context would be in the way of another: sooner is better than later."""
    from pytest_machine import contexts

    contexts.check_free(name, session.store.load(name).id if name in session.store.names() else "")


def _replace(session: Session, spec: Spec) -> None:
    """Destroy what a creation of that name left that was broken off."""
    from pytest_machine import birth

    from . import noted

    if spec.name in session.store.names():
        click.echo(f'The creation of "{spec.name}" was broken off: what is left of it is removed first...')
        left = noted.load(session, spec.name, given=spec.options)
        birth.end(left.record, left.driver, store=session.store)


def _foreign(store: Store, name: str) -> bool:
    directory = store.path / "machines" / name
    try:
        return any(not child.name.endswith(".tmp") for child in directory.iterdir())
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True


def _spec(session: Session, name: str, driver: type[Driver], given: Mapping[str, Any]) -> Spec:
    from pytest_machine.model import Spec
    from pytest_machine.options import from_environment

    options: dict[str, Value] = from_environment(driver)
    for key, value in given.items():
        if key.startswith(_FIELD) and value not in (None, ()):
            options[key.removeprefix(_FIELD)] = value
    return Spec(
        name=name,
        driver=driver.name,
        options=options,
        engine=_engine(given),
        install_url=given["engine_install_url"] or "",
        tls_sans=given["tls_san"],
        authority={file: str(Path(place).absolute()) for file, place in session.certificates.items()},
        swarm=_swarm(given),
        timeout=_TIMEOUT,
    )


def _swarm(given: Mapping[str, Any]) -> dict[str, object]:
    """Return what is to be noted of a classic Swarm; nothing for a machine that is for none."""
    found = {
        "IsSwarm": given["swarm"] or given["swarm_master"],
        "Address": given["swarm_addr"],
        "Discovery": given["swarm_discovery"],
        "Agent": given["swarm"],
        "Master": given["swarm_master"],
        "Host": given["swarm_host"],
        "Image": given["swarm_image"],
        "Strategy": given["swarm_strategy"],
        "ArbitraryFlags": list(given["swarm_opt"]),
        "ArbitraryJoinFlags": list(given["swarm_join_opt"]),
        "IsExperimental": given["swarm_experimental"],
    }
    return {name: value for name, value in found.items() if value != SWARM[name]}


def _engine(given: Mapping[str, Any]) -> Engine:
    from pytest_machine.model import Engine

    from .dockerd import flags, pairs

    found = flags(given["engine_opt"])
    if given["engine_storage_driver"]:
        found.options["storage-driver"] = given["engine_storage_driver"]
    return Engine(
        registry_mirror=(*given["engine_registry_mirror"], *found.registry_mirror),
        insecure_registries=(*given["engine_insecure_registry"], *found.insecure_registries),
        options=found.options,
        env=pairs(given["engine_env"], "--engine-env NAME=VALUE"),
        labels={**pairs(given["engine_label"], "--engine-label NAME=VALUE"), **found.labels},
    )


def _make(ctx: click.Context, session: Session, spec: Spec) -> Record:
    from pytest_machine.errors import MachineError, UsageError

    try:
        driver = session.registry.configure(spec)
        # What the user can mend is an error of flags, in the reference, and told before anything is made.
        refused = _refusal(driver)
    except UsageError as error:
        raise _wrong(error, ctx.meta[_DRIVER]) from error
    _bootstrap(session.store, spec.authority)
    click.echo("Running pre-create checks...")
    if refused is not None:
        _refused(ctx, refused)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_host(driver))
        except MachineError as error:
            _refused(ctx, error)
        return _make_now(session, spec, driver)


def _host(driver: Driver) -> contextlib.AbstractContextManager[None]:
    """Use a host that existed before for as long as it is made a machine; raise where a test run uses it."""
    from pytest_machine.driver import SupportsSharedHost

    if not isinstance(driver, SupportsSharedHost):
        return contextlib.nullcontext()
    from pytest_machine.hosts import using
    from pytest_machine.model import new_id
    from pytest_machine.owner import state_dir

    return using(state_dir(), driver.shared_host(), run=str(new_id()), timeout=0)


def _make_now(session: Session, spec: Spec, driver: Driver) -> Record:
    from pytest_machine import answers, birth, images
    from pytest_machine.driver import SupportsAdoption
    from pytest_machine.errors import MachineError

    from .progress import Progress

    with Progress() as progress, images.heard(lambda what, done, _: progress.tell(spec.name, f"{what}, {done:.0%}")):
        progress.tell(spec.name, "reserving its address")
        unborn = birth.note(spec, store=session.store, registry=session.registry)
        try:
            progress.say("Creating machine...")
        except BaseException as error:  # nobody listens any more, or Ctrl-C: nothing of it has been made
            birth.undo(unborn.record, unborn.driver, store=session.store, because=error)
            raise
        progress.tell(spec.name, "creating")
        try:
            record = birth.bear(unborn, store=session.store, witness=witness(progress))
        except MachineError as error:
            raise Failed(f"Error creating machine: Error in driver during machine creation: {error}") from error
    if not isinstance(driver, SupportsAdoption) or answers.access(driver, record).provision:
        click.echo("Docker is up and running!")
    return record


def _wrong(error: UsageError, driver: type) -> Failed:
    """Return the error of what was given for a driver or the engine, with the flags that give it."""
    from pytest_machine.options import options

    text = _ARGUMENT.sub(_as_flag, str(error))
    for each in options(driver).values():
        if each.flag:
            text = text.replace(f"hint: give {each.name}= ", f"hint: give {each.flag} ")
    return Failed(f"Error setting machine configuration from flags provided: {text}")


def _as_flag(found: re.Match[str]) -> str:
    value = f"{found['name']}={found['is']}" if found["name"] else found["value"] or found["any"]
    return " ".join(filter(None, (_ARGUMENTS[found[1]], value)))


def _refusal(driver: Driver) -> MachineError | None:
    from pytest_machine.errors import MachineError, UsageError

    try:
        driver.check()
    except UsageError:
        raise
    except MachineError as error:
        return error
    return None


def _refused(ctx: click.Context, error: Exception) -> NoReturn:
    import json

    sentence, _, rest = str(error).partition("\n")
    # As Go quotes it, what is quoted in it too.
    quoted = json.dumps(sentence, ensure_ascii=False)
    click.echo(f"Error with pre-create check: {quoted}" + (f"\n{rest}" if rest else ""), err=True)
    ctx.exit(_PRE_CHECK)


def _bootstrap(store: Store, elsewhere: Mapping[str, str]) -> None:
    from pytest_machine.certs import Authority, Places

    places = Places(store.certificates, elsewhere)
    for name, what in (("ca.pem", "Creating CA"), ("cert.pem", "Creating client certificate")):
        if not places.path(name).exists() and (name == "ca.pem" or places.client):
            click.echo(f"{what}: {places.path(name)}")
    Authority.ensure(store.certificates, elsewhere)


def witness(progress: Progress, *, words: bool = True) -> Witness:
    """Return somebody who sees how machines come about and lets it be known; in Docker Machine's `words`, too."""
    from pytest_machine.birth import Witness

    made: set[str] = set()

    class Told(Witness):
        def phase(self, record: Record, what: str, begun: float, ended: float) -> None:  # noqa: ARG002
            made.add(record.id)
            progress.tell(record.name, "waiting for Docker" if what == "creating" else "")

        def step(self, record: Record, text: str) -> None:
            # What a machine is born with is no wait of its own.
            progress.tell(record.name, text.rstrip(".") if record.id in made else "creating")
            if words:
                progress.say(text)

        def failed(self, record: Record, driver: Driver, error: BaseException) -> None:  # noqa: ARG002
            progress.tell(record.name, "removing what was made of it")

    return Told()
