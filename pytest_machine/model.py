"""The values that everything else passes around: asked (`Spec`), noted (`Record`), seen (`Seen`).

They are frozen and know nothing of disks, networks or drivers, so that any of them can be written to a file, sent to
another process or compared in a test. Only the standard library is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NewType, Self

from .errors import BadSpec

if TYPE_CHECKING:
    from .plan import Topology

Id = NewType("Id", str)
"""A machine's or network's identity: 10 lower-case hex digits, unique on earth for our purposes (40 random bits).

Ten, because an interface name has at most 15 characters: ``ptm``, the id, and two to tell one interface from the next.
"""

Value = str | int | float | bool | tuple[str, ...] | None
"""What a driver's option may be: everything that survives a trip through JSON."""

# The reference's own rule, so that a name that was good there is good here.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-.]*")
_WORD = re.compile(r"(?!-)[^\s\x00-\x1f\x7f\"']*")
# A host name label can be no longer (RFC 1035), and the name becomes one.
_NAME_LENGTH = 63


def new_id() -> Id:
    """Return an `Id` that nobody has."""
    # Late, as elsewhere: who only reads records is in a hurry.
    import secrets

    return Id(secrets.token_hex(5))


def check_name(name: str) -> str:
    """Return `name` if a machine may be called so; raise `BadSpec` otherwise."""
    # Names come from files and from users' code: not all that is said to be a name is text.
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH:
        raise BadSpec(
            f"A machine cannot be called '{name}'.",
            facts={"allowed": f"0-9 a-z A-Z . -, at most {_NAME_LENGTH}, the first a letter or digit"},
            hint=_valid(name) or "choose a name such as 'web' or 'db-1'",
        )
    return name


def _valid(name: object) -> str:
    """Return a hint that names the nearest valid name, where there is one."""
    if not isinstance(name, str) or not name.isascii():
        return ""
    near = re.sub(r"[\s_]+", "-", name.strip()).strip("-")
    return f"write '{near}'" if _NAME.fullmatch(near) and len(near) <= _NAME_LENGTH else ""


def meant(word: str, known: Iterable[str]) -> str:
    """Return the hint ``did you mean 'web'?`` for a word that is nearly one of those that are known; or nothing."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else ""


class State(StrEnum):
    """What a machine is doing; each driver maps its provider's words to these."""

    ABSENT = "absent"
    PREPARING = "preparing"
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    SAVED = "saved"
    ERROR = "error"


class Isolation(StrEnum):
    """What stands between a machine and its host, weakest first."""

    PRIVILEGED = "privileged"
    """A shared kernel, and root inside has rights outside: for trusted tests only."""
    USER_NAMESPACE = "user-namespace"
    """A shared kernel, but root inside is nobody outside."""
    OWN_KERNEL = "own-kernel"
    """A kernel of its own: a virtual machine or another computer."""

    def includes(self, other: Isolation) -> bool:
        """Whether a machine isolated like this is at least as isolated as `other`."""
        order = list(Isolation)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What is asked of a machine's Docker daemon besides its version; `pytest_machine.daemon` makes files of it."""

    registry_mirror: tuple[str, ...] = ()
    """Addresses that are asked before Docker Hub."""
    insecure_registries: tuple[str, ...] = ()
    """Registries that may be spoken to without TLS, or with a certificate that nobody knows."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Options as ``daemon.json`` has them: ``{"log-driver": "json-file"}``."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables of the daemon, such as a proxy's address: they may be secret."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(
            (self.registry_mirror, self.insecure_registries, *map(tuple, map(sorted, (self.options, self.env))))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A machine as it is asked for. Two equal specs may share a machine."""

    name: str = ""
    """Empty: the core chooses one."""
    driver: str
    options: Mapping[str, Value] = field(default_factory=dict)
    """The driver's own fields (see `pytest_machine.options`), secrets included."""
    networks: tuple[str, ...] = ()
    """Names of the lab's networks that it sits on, besides its driver's own."""
    router: bool = False
    """Whether it passes packets on between those networks, so that others reach by it what they are not on."""
    topology: Topology | None = None
    """What is declared of its whole lab: the networks' subnets and their like, and the links; None: nothing."""
    needs: frozenset[str] = frozenset()
    """Names of capabilities and isolation (`pytest_machine.driver.NEEDS`)."""
    engine: Engine = field(default_factory=Engine)
    """Settings of its Docker daemon."""
    install_url: str = ""
    """Whose script installs Docker, where the machine comes without; empty: its own distribution's packages."""
    tls_sans: tuple[str, ...] = ()
    """Further names and addresses that its server's certificate is valid for."""
    authority: Mapping[str, str] = field(default_factory=dict)
    """Where the authority and the client's pair are, of those that are not the store's: ``ca.pem`` → path."""
    swarm: Mapping[str, object] = field(default_factory=dict)
    """What is to be noted of a classic Swarm that it was meant for, in Docker Machine's words; nothing is done."""
    preload: tuple[str, ...] = ()
    """Docker images that it is born with: names in the user's own engine, or paths of archives."""
    timeout: float = 300.0
    """Seconds until it must be ready. A cloud takes minutes; a local machine about one second."""

    def __hash__(self) -> int:
        return hash((self.name, self.driver, tuple(sorted(self.options)), self.networks, self.needs, self.preload))


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How to reach a machine from here."""

    ip: str
    """Where both are; a name will do where nothing else is known."""
    user: str = "root"
    """Whom SSH logs in as."""
    ssh_port: int = 22
    """0: it has no SSH, or none that we know of."""
    engine_port: int = 2376
    engine: str = ""
    """The engine's address in full, where it is none that `ip` and `engine_port` could say."""
    inner: str = ""
    """The IP at which other machines of its driver reach it, where that is not `ip`: ports are published there."""

    def __post_init__(self) -> None:
        """Raise `BadSpec` for what OpenSSH would take for an option, or for several words: it may come from others."""
        for what, text in (("address", self.ip), ("user", self.user)):
            if not _WORD.fullmatch(text):
                raise BadSpec(
                    f"The {what} of a machine cannot be {text!r}.",
                    facts={"not allowed": "blanks, quotes, control characters, a dash at its beginning"},
                    hint="an address such as 192.0.2.1 or host.example, a user such as root",
                )

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Rebuild an address; raises `Malformed` (a `ValueError`) for everything that is not one."""
        from . import stored
        from .support.parsing import Malformed

        try:
            return cls(**stored.address(data))  # type: ignore[arg-type]  # parsed
        except BadSpec as error:
            raise Malformed(error.message) from None

    @property
    def among(self) -> str:
        """The IP at which other machines reach it."""
        return self.inner or self.ip

    @property
    def url(self) -> str:
        """The engine's address as ``DOCKER_HOST`` wants it."""
        if self.engine:
            return self.engine
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"tcp://{host}:{self.engine_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a machine is entered that was there before us (`pytest_machine.driver.SupportsAdoption`)."""

    key: Path | None = None
    """The private key that logs in, of which the machine's directory gets a copy; None: what the user's own ssh has."""
    certs: Path | None = None
    """A directory with the client's ``ca.pem``, ``cert.pem`` and ``key.pem``; None: those of the store."""
    provision: bool = True
    """Whether it is to be made a Docker host, over SSH. Otherwise its engine is taken as it is, and not waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is noted of a machine, on disk and in its driver's tags. Holds no secret."""

    id: Id
    name: str
    driver: str
    options: Mapping[str, Value] = field(default_factory=dict)
    """Those of the driver's fields that are not secret and not their default."""
    store: Path
    """The store that keeps this record: the directory, for whoever finds the machine by its tags alone."""
    host: str
    """Which computer's locks and paths this speaks of."""
    run: str = ""
    """The run that owns it; empty for a machine of the command line."""
    lab: str = ""
    """The lab that it lives and dies with; empty for one on its own."""
    networks: tuple[str, ...] = ()
    """Names of the lab's networks that it was asked for with. With any, it reaches other machines over such alone."""
    router: bool = False
    """Whether it passes packets on between its networks."""
    preload: str = ""
    """The key of the images that its driver keeps for it (`SupportsPreload`); empty: none are."""
    engine: Mapping[str, object] = field(default_factory=dict)
    """What `pytest_machine.daemon.public` tells of its daemon's settings."""
    install_url: str = ""
    tls_sans: tuple[str, ...] = ()
    authority: Mapping[str, str] = field(default_factory=dict)
    swarm: Mapping[str, object] = field(default_factory=dict)
    created: float
    """Unix time, seconds."""
    expires: float | None = None
    """Unix time after which a stranger may destroy it; None: never."""
    ready: float | None = None
    """Unix time at which Docker first answered; None: it is being prepared, or was and failed."""
    address: Address | None = None

    @property
    def directory(self) -> Path:
        """The machine's own directory: keys, certificates, and what its driver keeps."""
        return self.store / "machines" / self.name

    def with_(self, **changes: object) -> Record:
        """Return a copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]  # the names are checked by `replace`

    def to_json(self) -> dict[str, object]:
        """Return this as values that `json` can write; `from_json` reads them back."""
        from .stored import VERSION

        found: dict[str, object] = {"version": VERSION, **{f.name: getattr(self, f.name) for f in fields(self)}}
        found["store"] = str(self.store)
        found["networks"] = list(self.networks)
        found["tls_sans"] = list(self.tls_sans)
        for name in ("engine", "authority", "swarm"):
            found[name] = dict(getattr(self, name))
        found["options"] = {k: list(v) if isinstance(v, tuple) else v for k, v in self.options.items()}
        if self.address is not None:
            found["address"] = {f.name: getattr(self.address, f.name) for f in fields(Address)}
        return found

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Rebuild a record; raises `Malformed` (a `ValueError`) for everything that is not one.

        Unknown keys are passed over; a record of a newer version is refused as `pytest_machine.stored.Newer`.
        """
        from . import stored

        found = stored.record(data)
        address = found["address"]
        found["address"] = None if address is None else Address.from_json(address)
        return cls(**found)  # type: ignore[arg-type]  # parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network between machines of one lab."""

    id: Id
    name: str
    store: Path
    host: str
    run: str = ""
    lab: str = ""
    created: float
    subnet: str = ""
    """IPv4 in CIDR form; empty: the driver takes a free one."""
    subnet6: str = ""
    """IPv6 in CIDR form; empty: its machines have no IPv6 addresses on it."""
    mtu: int | None = None
    """Bytes of the largest packet; None: the driver's own."""
    isolated: bool = False
    """Whether who sits on such networks alone is to reach nobody but those who share one, and the host's clients."""

    def to_json(self) -> dict[str, object]:
        """Return this as values that `json` can write; `from_json` reads them back."""
        from .stored import VERSION

        return {"version": VERSION, **{f.name: getattr(self, f.name) for f in fields(self)}, "store": str(self.store)}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Rebuild a network; raises `Malformed` (a `ValueError`) for everything that is not one.

        Unknown keys are passed over, and what is absent has its default.
        """
        from . import stored

        return cls(**stored.network(data))  # type: ignore[arg-type]  # parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a driver saw when it looked at one machine."""

    state: State
    address: Address | None = None
    networks: Mapping[str, str] = field(default_factory=dict)
    """Name of a network that the machine sits on → its address there."""
    networks6: Mapping[str, str] = field(default_factory=dict)
    """The same for IPv6, of those networks that have it."""
    detail: str = ""
    """Why, in the provider's words, when the state alone would puzzle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskTrouble:
    """What is wrong with a machine's disk; made without a word: nothing."""

    rate: int = 0
    """Bytes a second that it reads at most, and as many that it writes; 0: as many as it can."""
    operations: int = 0
    """How many reads a second, and how many writes; 0: as many as it can."""
    fails: bool = False
    """Whether nothing can be written to it."""


class Trouble(StrEnum):
    """What can befall a machine below what its own programs see; the words of ``fail_on=``."""

    OOM = "oom"
    """The kernel killed a process because memory ran out."""
    OOPS = "oops"
    """The kernel itself went wrong: an oops, a BUG, a lockup."""
    CORE = "core"
    """A process crashed and left a core dump."""
    KERNEL = "kernel"
    """The kernel said something else that names the machine."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that befell a machine. Two that are equal are the same one: whoever tells twice of it tells once."""

    kind: Trouble
    text: str
    """What is known of it, in the kernel's own words where there are some; may have several lines."""


@dataclass(frozen=True, slots=True)
class SeedFile:
    """One file that a machine is born with."""

    content: bytes = field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What a machine is born with. A driver that can plant all of it at birth needs no SSH round trip."""

    hostname: str
    authorized_key: str
    """The public half of the login key, one line in OpenSSH's form."""
    host_key: str = field(repr=False)
    """The private SSH host key, in OpenSSH's form: known before the birth, so that it can be pinned."""
    host_key_public: str
    files: Mapping[str, SeedFile] = field(default_factory=dict)
    """Absolute path in the machine → file, owned by root. Certificates are among them where the address is known."""

    def all_files(self, *, user_home: str = "/root") -> dict[str, SeedFile]:
        """Return every file to plant: `files`, the login key and the host key, at Debian's places."""
        return {
            **self.files,
            "/etc/hostname": SeedFile(f"{self.hostname}\n".encode()),
            "/etc/ssh/ssh_host_ed25519_key": SeedFile(self.host_key.encode(), 0o600),
            "/etc/ssh/ssh_host_ed25519_key.pub": SeedFile(f"{self.host_key_public}\n".encode()),
            f"{user_home}/.ssh/authorized_keys": SeedFile(f"{self.authorized_key}\n".encode(), 0o600),
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What a command in a machine did. ``stdout`` and ``stderr`` are text; undecodable bytes become �."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def names(items: Iterable[str]) -> str:
    """Return names as our messages write them: ``'a', 'b'``, or ``none``."""
    return ", ".join(f"'{item}'" for item in items) or "none"
