"""How a machine comes into the world: noted first, made second, ready when its Docker answers over TLS.

The order is what makes leaks impossible. The record is on disk before anything exists outside, so whoever comes after a
crash knows what to destroy; where the driver can say the address in advance, certificates for it are born with the
machine and no SSH round trip is needed; if anything goes wrong, all of it is taken back before the error leaves here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import answers, certs, daemon, engine, preloads, ssh
from .driver import Driver, SupportsAdoption, SupportsConsole, SupportsPower, SupportsPreload, SupportsReserve
from .errand import Errand, wait_all
from .errors import CleanupFailed, DriverError, EngineFailed, StoreError, WaitTimeout, damaged
from .model import Access, Address, Engine, Record, Seed, SeedFile, Spec, State, new_id
from .options import options
from .owner import host_id
from .plugins import Registry
from .presence import is_forgotten
from .provisioner import CONFIGURING, COPYING_HERE, COPYING_THERE, ENGINE_PORT, Wanted
from .provisioners.daemon.plan import born_with
from .store import Store, write
from .support import clock, files, front, given, parsing, pems
from .waiting import NotYet, wait

KEY = "id_ed25519"
"""The login key's file in the machine's directory; beside it `HOST_KEY` and the one line that ssh accepts."""
HOST_KEY = "ssh_host_ed25519_key"
KNOWN_HOSTS = "known_hosts"
_LOADED = "loaded.json"
# The lines of it that every machine has.
_LOCAL = ("127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback")
HOSTS = "hosts"
"""The machine's ``/etc/hosts``, as it should be."""
CLIENT_FILES = ("ca.pem", "cert.pem", "key.pem")
"""What a client of the machine's engine needs, as ``DOCKER_CERT_PATH`` wants it."""
ENGINE_FILES = {"ca.pem": 0o644, "server-key.pem": 0o600, "server.pem": 0o644}
"""What the daemon reads from ``/etc/docker``, with modes; the image's init starts dockerd when it sees the last one."""

# A machine that is dead will never answer: look at it this often, in seconds, while Docker does not.
_LOOK = 1.0

# How often Docker may end while a machine boots: the image's init starts it again, and a busy host may need that once.
_ENDS = 4
_ENDED = "'dockerd' ended with status"

# Seconds after which a machine in which images are being loaded may be destroyed by a stranger.
_MAKING = 3600.0

# Seconds beyond the deadline that a creation gets to say by itself what it was waiting for, before it is given up.
_LATE = 1.0

# Seconds within which the SSH of a machine that was there before us must answer.
_ADOPTED = 20.0

# Seconds that machines on their way get, at Ctrl-C, to come and be destroyed; a local driver needs one or two.
_PATIENCE = 4.0


Names = Sequence[tuple[str, str]]
"""(name, address) of the machines that one is to know, in the order in which its programs are to try them."""


class Witness:
    """Hears how machines come about; this one does not care. Called from several threads at once."""

    def phase(self, record: Record, what: str, begun: float, ended: float) -> None:
        """Hear that a part of the birth is over: ``creating`` or ``waiting`` (for Docker); Unix times."""

    def step(self, record: Record, text: str) -> None:
        """Hear what is done to a machine over SSH, before it begins; in a sentence."""

    def failed(self, record: Record, driver: Driver, error: BaseException) -> None:
        """Look at what there is of a machine that could not be made: when this returns, it is destroyed."""


@dataclass(frozen=True, slots=True)
class Unborn:
    """A machine that is noted, and may have an address, but does not exist yet."""

    record: Record
    driver: Driver
    registry: Registry
    deadline: float
    """When it must be ready, by `support.clock.monotonic`."""
    engine: Engine = field(default_factory=Engine)
    loaded: Sequence[preloads.Source] = ()
    """The images that its driver does not give it, and that are loaded when it is ready."""


def note(
    spec: Spec, *, store: Store, registry: Registry, run: str = "", lab: str = "", expires: float | None = None
) -> Unborn:
    """Note the machine in the store and reserve its address where the driver can.

    Raises what `Registry.configure` and the driver's ``check`` raise, and `MachineExists`; then nothing was noted.
    """
    driver = registry.configure(spec)
    driver.check()
    wanted = preloads.sources(spec.preload)
    key = _kept(wanted, spec, driver, store=store, registry=registry, run=run) if wanted else ""
    id_ = new_id()
    known = options(registry.driver(spec.driver))
    record = Record(
        id=id_,
        name=spec.name or f"machine-{id_[:4]}",
        driver=spec.driver,
        options={name: value for name, value in spec.options.items() if not known[name].secret},
        store=store.path,
        host=host_id(),
        run=run,
        lab=lab,
        networks=spec.networks,
        router=spec.router,
        preload=key,
        engine=daemon.public(spec.engine),
        install_url=spec.install_url,
        tls_sans=spec.tls_sans,
        authority=spec.authority,
        swarm=spec.swarm,
        created=clock.now(),
        expires=expires,
    )
    deadline = clock.monotonic() + spec.timeout
    _add(record, store)
    try:
        if secret := {name: value for name, value in spec.options.items() if known[name].secret}:
            store.save_secrets(record.name, secret)
        if isinstance(driver, SupportsReserve):
            record = record.with_(address=answers.reserve(driver, record))
    except BaseException as error:
        undo(record, driver, store=store, because=error)
        raise
    return Unborn(record, driver, registry, deadline, spec.engine, () if key else wanted)


_unkept: set[str] = set()
"""Keys of images that an engine turned out to store in a way that its driver cannot keep."""


def _kept(
    wanted: Sequence[preloads.Source], spec: Spec, driver: Driver, *, store: Store, registry: Registry, run: str
) -> str:
    """Return the key of images that the driver keeps, kept now if they were not; empty where it cannot.

    They are loaded once, into a machine that is made for it and destroyed again. Of ten that ask at once, one does it.
    """
    key = preloads.key(wanted, {"driver": spec.driver, **daemon.storage(spec.engine)})
    if not isinstance(driver, SupportsPreload) or key in _unkept:
        return ""
    if not answers.has_preload(driver, key):
        with preloads.making(key):
            if not answers.has_preload(driver, key) and not _keep(
                wanted, key, spec, store=store, registry=registry, run=run
            ):
                _unkept.add(key)
                return ""
    return key


def _keep(
    wanted: Sequence[preloads.Source], key: str, spec: Spec, *, store: Store, registry: Registry, run: str
) -> bool:
    # A lab's names are the user's; this one is nobody's. Should we die, its run's reaper destroys it, or `prune` later.
    spec = replace(
        spec, name=f"preload-{new_id()}", preload=(), networks=(), router=False, topology=None, needs=frozenset()
    )
    unborn = note(spec, store=store, registry=registry, run=run, expires=clock.now() + _MAKING)
    driver = unborn.driver
    record = bear(replace(unborn, loaded=wanted), store=store)
    try:
        if not (isinstance(driver, SupportsPower) and isinstance(driver, SupportsPreload)):
            return False
        driver.stop(record)
        return answers.keep_preload(driver, record, key)
    finally:
        end(record, driver, store=store)


def _add(record: Record, store: Store) -> None:
    try:
        store.add(record)
    except OSError as error:
        raise StoreError(
            f"The machine '{record.name}' cannot be noted, so it is not made.",
            facts={"directory": record.directory, "reason": error.strerror or error},
            hint="free space there, or keep "
            + (
                "runs elsewhere: PYTEST_MACHINE_HOME=/path"
                if record.run
                else "machines elsewhere: docker-machine -s /path"
            ),
        ) from error


def bear(unborn: Unborn, *, store: Store, names: Names = (), witness: Witness | None = None) -> Record:
    """Make the machine and wait until its Docker answers; return its record, ready.

    `names` are other machines' names and addresses, for ``/etc/hosts``. On any error everything is taken back first,
    but for a driver that is still at work at the deadline: see `born`.
    """
    made = bearing(unborn, store=store, names=names, witness=witness)
    try:
        return born(unborn, made)
    except Exception:
        raise
    except BaseException as error:
        abandon([(unborn, made)], store=store, because=error)
        raise


def bearing(
    unborn: Unborn,
    *,
    store: Store,
    names: Names = (),
    turn: threading.Semaphore | None = None,
    witness: Witness | None = None,
) -> Errand[Record]:
    """Begin to make the machine; `born` waits for it. Left alone, it is destroyed as soon as it has been made."""

    def unwanted(record: Record) -> None:
        end(record, unborn.driver, store=store)

    heard = witness or Witness()
    return Errand(lambda: _bear(unborn, store=store, names=names, witness=heard), late=unwanted, turn=turn)


def born(unborn: Unborn, bearing: Errand[Record]) -> Record:
    """Wait for a machine that is being made; return its record, ready.

    A driver that is still at it a second after the deadline is not waited for: `WaitTimeout`. No call of a driver can
    be interrupted, and to destroy what another thread is still making would miss what comes after; so the machine is
    destroyed as soon as that call ends, or, should this process end first, by the run's reaper or by `prune`.
    """
    begun = clock.monotonic()
    try:
        in_time = bearing.wait(_left(unborn.deadline) + _LATE)
    except BaseException:
        bearing.leave()
        raise
    if not in_time and bearing.leave():
        raise WaitTimeout(
            f"The machine '{unborn.record.name}' was not made in time.",
            facts={
                "driver": unborn.record.driver,
                "waited": f"{clock.monotonic() - begun:.1f} s",
                "last seen": "the driver was still making it; it is destroyed when that ends",
            },
            hint=front.worded(tests="allow it more: @pytest.mark.machine(timeout=600), or ", program="")
            + "see whether the driver can work here: pytest-machine doctor",
        )
    return bearing.result()


def abandon(pairs: Iterable[tuple[Unborn, Errand[Record] | None]], *, store: Store, because: BaseException) -> None:
    """Ctrl-C: take back what is made or not begun; who is still at it clears up behind itself, if in time.

    Whatever is left after a few seconds is noted in the store, for the run's reaper.
    """
    going: list[Errand[Record] | Errand[None]] = []
    for unborn, made in pairs:
        if made is not None and made.leave():
            going.append(made)
        else:
            # One that failed has taken itself back: again, nothing happens.
            going.append(Errand(functools.partial(undo, unborn.record, unborn.driver, store=store, because=because)))
    wait_all(going, _PATIENCE)


def _bear(unborn: Unborn, *, store: Store, names: Names, witness: Witness) -> Record:
    record, driver = unborn.record, unborn.driver
    try:
        with store.lock(record.name):
            begun = clock.now()
            # One whose address is known is born with all that others are given over SSH.
            given = record.address is not None and not isinstance(driver, SupportsAdoption)
            if given:
                witness.step(record, COPYING_HERE)
            seed = plan(record, driver, store=store, names=names, settings=unborn.engine)
            if given:
                witness.step(record, COPYING_THERE)
                witness.step(record, CONFIGURING)
            driver.create(record, seed)
            created = clock.now()
            witness.phase(record, "creating", begun, created)
            record = settle(
                record, driver, store=store, registry=unborn.registry, deadline=unborn.deadline, witness=witness
            )
            if asked := [source.asked for source in unborn.loaded]:
                write(record.directory / _LOADED, json.dumps(asked).encode(), durable=False)
                load(record)
            witness.phase(record, "waiting", created, clock.now())
            return record
    except BaseException as error:
        if isinstance(error, Exception):  # at Ctrl-C nobody wants to wait
            witness.failed(record, driver, error)
        undo(record, driver, store=store, because=error)
        raise


def load(record: Record) -> None:
    """Load the images that the machine is to have and that its driver does not give it; again, when it is laid anew."""
    assert record.address is not None  # it is ready
    for source in preloads.sources(loaded(record)):
        try:
            with source.stream() as archive:
                engine.load(record.address, certs=record.directory, archive=archive, name=source.asked)
        except OSError as error:
            raise DriverError(
                f"The images of '{source.asked}' could not be loaded into the machine '{record.name}'.",
                facts={"reason": error},
                hint="make the archive with: docker save -o image.tar IMAGE",
                transient=False,
            ) from error


def loaded(record: Record) -> list[str]:
    """Return the images, as they were asked for, that the machine was to have and that its driver does not give it."""
    try:
        return list(parsing.texts(files.read_json(record.directory / _LOADED), "the list of images"))
    except files.UNREADABLE:  # none were asked for, or it is damaged
        return []


def plan(record: Record, driver: Driver, *, store: Store, names: Names, settings: Engine) -> Seed:
    """Return what the machine is born with; its keys and certificates are in its directory from here on."""
    for path, file in daemon.files(settings).items():
        write(record.directory / Path(path).name, file.content, mode=file.mode, durable=False)
    if isinstance(driver, SupportsAdoption):
        _adopt(record, answers.access(driver, record), store=store)
        return seed(record)
    login, login_public = ssh.new_key(f"pytest-machine {record.name}")
    host_key, host_key_public = ssh.new_key(record.name)
    write(record.directory / KEY, login.encode(), durable=False)
    write(record.directory / f"{KEY}.pub", f"{login_public}\n".encode(), mode=0o644, durable=False)
    write(record.directory / HOST_KEY, host_key.encode(), durable=False)
    write(record.directory / f"{HOST_KEY}.pub", f"{host_key_public}\n".encode(), mode=0o644, durable=False)
    write_hosts(record, names)
    if record.address is not None:
        certify(record, record.address, store=store)
        ssh.pin(record.directory / KNOWN_HOSTS, record.address, host_key_public)
    return seed(record)


def _adopt(record: Record, access: Access, *, store: Store) -> None:
    """Note how a machine is entered that was there before us: it has a login and a host key of its own."""
    try:
        if access.key is not None:
            write(record.directory / KEY, _login_key(access.key), durable=False)
            if (public := access.key.with_name(f"{access.key.name}.pub")).exists():
                content = given.read(public, largest=pems.LARGEST)
                write(record.directory / f"{KEY}.pub", content, mode=0o644, durable=False)
        if access.certs is None:
            certs.Authority.ensure(store.certificates, record.authority).copy_client(record.directory)
        else:
            for name in CLIENT_FILES:
                write(record.directory / name, certs.read(access.certs / name), durable=False)
    except FileNotFoundError as error:
        raise DriverError(
            f"The machine '{record.name}' cannot be entered: there is no file '{error.filename}'.",
            hint="look at the paths among its driver's options",
            transient=False,
        ) from error


def _login_key(path: Path) -> bytes:
    """Return the user's own private key; raise `DriverError` for a file that is none."""
    try:
        return pems.read(path)
    except FileNotFoundError:
        raise
    except files.UNREADABLE as error:
        raise DriverError(
            f"The file '{path}' is not a private key.",
            facts={"reason": files.reason(error)},
            hint="give the path of the private key that logs in, such as ~/.ssh/id_ed25519",
            transient=False,
        ) from error


def seed(record: Record) -> Seed:
    """Return what the machine was born with, from its directory: the same keys and certificates, its names of today."""
    directory = record.directory
    files = {"/etc/hosts": SeedFile(_text(directory / HOSTS).encode())} if (directory / HOSTS).exists() else {}
    settings = daemon.planted(directory, record.driver)
    files |= settings
    if (directory / "server.pem").exists():
        # All that its daemon reads is there when it starts: whoever provisions it finds nothing to do.
        files |= {**engine_files(directory), **born_with(settings)}
    return Seed(
        hostname=record.name,
        authorized_key=_text(directory / f"{KEY}.pub").strip(),
        host_key=_text(directory / HOST_KEY),
        host_key_public=_text(directory / f"{HOST_KEY}.pub").strip(),
        files=files,
    )


def _text(path: Path) -> str:
    """Return what a file says; one that was there before us has neither our login nor our host key."""
    try:
        return files.read_text(path, "it")
    except FileNotFoundError:
        return ""
    except files.UNREADABLE as error:
        raise damaged(path, files.reason(error), hint="destroy the machine, and make it again") from error


def write_hosts(record: Record, names: Names) -> bytes:
    """Note the names that the machine is to know; return its ``/etc/hosts``."""
    content = hosts(record, names).encode()
    write(record.directory / HOSTS, content, mode=0o644, durable=False)
    return content


def known(record: Record) -> Names:
    """Return what the machine was told last, its own name among it; none where nothing is noted."""
    lines = _text(record.directory / HOSTS).splitlines()[len(_LOCAL) :]
    return tuple((name, ip) for ip, _, name in (line.partition(" ") for line in lines))


def hosts(record: Record, names: Names) -> str:
    """Return ``/etc/hosts`` for a machine that knows the others by name; a name may have several addresses."""
    lines = list(_LOCAL)
    if record.name not in {name for name, _ in names}:
        lines.append(f"{record.address.among if record.address else '127.0.1.1'} {record.name}")
    lines += [f"{ip} {name}" for name, ip in names]
    return "\n".join(lines) + "\n"


def certify(record: Record, address: Address, *, store: Store) -> None:
    """Write a server's pair for the address, and the client's, into the machine's directory."""
    authority = certs.Authority.ensure(store.certificates, record.authority)
    hosts = dict.fromkeys((address.ip, address.among, record.name, *record.tls_sans))
    pair = authority.issue_server(name=record.name, hosts=list(hosts))
    authority.copy_client(record.directory)
    write(record.directory / "server.pem", pair.cert, mode=0o644, durable=False)
    write(record.directory / "server-key.pem", pair.key, mode=0o600, durable=False)


def engine_files(directory: Path) -> dict[str, SeedFile]:
    """Return the daemon's files, as they lie in the machine, from the machine's directory here."""
    return {f"/etc/docker/{name}": SeedFile(certs.read(directory / name), mode) for name, mode in ENGINE_FILES.items()}


def settle(
    record: Record,
    driver: Driver,
    *,
    store: Store,
    registry: Registry,
    deadline: float,
    witness: Witness | None = None,
) -> Record:
    """Wait until a machine that was powered on is ready; return its record, saved as such.

    An address that nobody knew before, or that has changed, and a certificate that has not long to go get it new ones
    now, over SSH; so does Docker itself where the machine came without.
    """
    heard = witness or Witness()
    adopted = answers.access(driver, record) if isinstance(driver, SupportsAdoption) else None
    if adopted is None or adopted.provision:
        heard.step(record, "Waiting for machine to be running, this may take a few minutes...")
    address = wait(
        lambda: _located(driver, record), f"An address of '{record.name}'", timeout=_left(deadline), longest=5
    )
    before, record = record.address, record.with_(address=address)
    if adopted is not None and not adopted.provision:
        return _ready(record, store=store)
    if before is None or before.ip != address.ip or not certs.lasts(record.directory / "server.pem"):
        _certify_over_ssh(record, driver, store=store, registry=registry, deadline=deadline, witness=heard)
    elif before != address:
        _pin(record)
    heard.step(record, "Checking connection to Docker...")
    wait(
        _watching(lambda: engine.ping(address, certs=record.directory), driver, record),
        f"Docker on '{record.name}'",
        timeout=_left(deadline),
        every=0.015,  # asked more often, a machine of this host boots later: it has the same processors
        longest=0.25,
    )
    return _ready(record, store=store)


def _ready(record: Record, *, store: Store) -> Record:
    record = record.with_(ready=clock.now())
    store.save(record)
    return record


def _certify_over_ssh(
    record: Record, driver: Driver, *, store: Store, registry: Registry, deadline: float, witness: Witness
) -> None:
    """Give a machine that runs certificates for its address, and Docker if it has none."""
    assert record.address is not None  # it was just seen
    adopted = isinstance(driver, SupportsAdoption)
    _pin(record)
    try:
        witness.step(record, "Detecting operating system of created instance...")
        with contextlib.closing(connect(record, trust=adopted)) as connection:
            witness.step(record, "Waiting for SSH to be available...")
            # One that was there before does not boot: it answers soon or never.
            limit = min(_left(deadline), _ADOPTED) if adopted else _left(deadline)
            wait(lambda: connection.run("true"), f"SSH on '{record.name}'", timeout=limit, every=0.2, longest=5)
            witness.step(record, COPYING_HERE)
            certify(record, record.address, store=store)
            registry.provision(connection, wanted(record, driver), tell=lambda text: witness.step(record, text))
    except BaseException:
        # The next one to come must not take it for what the machine has.
        (record.directory / "server.pem").unlink(missing_ok=True)
        raise


def _pin(record: Record) -> None:
    """Pin the host key that the machine was born with; one that was not born with ours: what the user knows of it."""
    assert record.address is not None
    known_hosts = record.directory / KNOWN_HOSTS
    if public := _text(record.directory / f"{HOST_KEY}.pub").strip():
        ssh.pin(known_hosts, record.address, public)
    elif not known_hosts.exists():
        ssh.pin_known(known_hosts, record.address)


def moved(record: Record, address: Address, *, store: Store) -> Record:
    """Note a machine's new address, and pin its host key under it; return the record as it is now."""
    with store.lock(record.name):
        now = store.load(record.name)
        if now.address is not None:
            ssh.repin(record.directory / KNOWN_HOSTS, now.address, address)
        now = now.with_(address=address)
        _pin(now)
        store.save(now)
    return now


def connect(record: Record, *, trust: bool = False) -> ssh.SshConnection:
    """Return an SSH connection to a machine that has an address; `trust` a host key that nobody knew in advance."""
    assert record.address is not None
    directory = record.directory
    # One that was there before us may be entered by what the user's own ssh has.
    agent = not ((directory / KEY).exists() or (directory / HOST_KEY).exists())
    known_hosts = directory / KNOWN_HOSTS
    trust = trust and not known_hosts.exists()
    return ssh.SshConnection(record.address, key=directory / KEY, known_hosts=known_hosts, agent=agent, trust=trust)


def wanted(record: Record, driver: Driver) -> Wanted:
    """Return what a machine is to be, from its record and its directory."""
    adopted = isinstance(driver, SupportsAdoption)
    return Wanted(
        hostname=record.name,
        engine=daemon.read(record.directory),
        files=engine_files(record.directory),
        # Elsewhere the port of the address may be one that is forwarded to the machine's own.
        engine_port=record.address.engine_port if adopted and record.address else ENGINE_PORT,
        install_url=record.install_url,
        provider=record.driver,
    )


def _located(driver: Driver, record: Record) -> Address:
    seen = answers.seen(driver, record)
    if seen.state in (State.ABSENT, State.ERROR):
        raise DriverError(f"The machine '{record.name}' is gone.", facts={"state": seen.state, "detail": seen.detail})
    if seen.address is None:
        raise NotYet(f"state {seen.state}, no address")
    return seen.address


def _watching(check: Callable[[], str], driver: Driver, record: Record) -> Callable[[], str]:
    """Return `check`, which ends the wait when it fails because the machine does not run any more."""
    looked = clock.monotonic()

    def checked() -> str:
        nonlocal looked
        try:
            return check()
        except (OSError, NotYet):
            if clock.monotonic() - looked > _LOOK:
                looked = clock.monotonic()
                state = answers.seen(driver, record).state
                if state not in (State.RUNNING, State.PREPARING):
                    raise DriverError(
                        f"The machine '{record.name}' ended while it booted.",
                        facts={"state": state},
                        hint="its console says why: see 'console' in the report, or machine.console()",
                    ) from None
                _expect_engine(driver, record)
            raise

    return checked


def _expect_engine(driver: Driver, record: Record) -> None:
    """Raise `EngineFailed` when the console shows that Docker ended again and again: waiting longer is of no use."""
    console = answers.console(driver, record) if isinstance(driver, SupportsConsole) else ""
    if console.count(_ENDED) >= _ENDS:
        said = console.rpartition(_ENDED)[2].splitlines()
        raise EngineFailed(
            f"Docker on '{record.name}' ends whenever it is started.",
            facts={"it said": " ".join(said[1:3]).strip() or said[0]},
            hint="look at its engine_options= and engine=, if it has any",
        )


def undo(record: Record, driver: Driver, *, store: Store, because: BaseException) -> None:
    """Take back what was made; when even that fails, the record stays, and `because` says so."""
    try:
        driver.destroy(record)
        _forget(record, store)
    except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything; the record stays for others
        because.add_note(f"Besides, what was made of it could not be destroyed: {error}\nhint: pytest-machine prune")


def end(record: Record, driver: Driver, *, store: Store) -> None:
    """Destroy a machine and forget it; raises `CleanupFailed` and keeps the record when it cannot be destroyed."""
    try:
        with store.lock(record.name):
            driver.destroy(record)
            _forget(record, store)
    except Exception as error:  # a stranger's driver may raise anything
        raise CleanupFailed(
            f"The machine '{record.name}' could not be destroyed.", [error], hint="pytest-machine prune"
        ) from error


def _forget(record: Record, store: Store) -> None:
    """Remove the machine's record, unless the name belongs to another machine by now."""
    if not (is_forgotten(record) and record.directory.is_dir()):
        store.remove(record.name)


def _left(deadline: float) -> float:
    return max(0.1, deadline - clock.monotonic())
