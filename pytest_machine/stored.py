"""Strict reading of stored values: records, networks and addresses, from files, tags and other people.

Every function returns the fields of the value or raises `Malformed`, which names the field. `Newer` is raised for what
a newer pytest-machine has written: to read it as ours and to write it again would lose what is new in it. `Damaged` is
what stores and drivers return in place of what cannot be read, so that a loop carries on.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import BadSpec
from .model import Id, Value, check_name
from .support import parsing
from .support.parsing import Malformed

VERSION = 1
"""Of the form of records and networks, not of the package: raised when an older one could not read what we write."""

_ID = re.compile(r"[0-9a-f]{10}")
_SCHEMES = ("tcp", "unix", "npipe", "ssh", "http", "https", "fd")
# Docker Machine's words of a classic Swarm → what each has to be.
_SWARM: Mapping[str, type | tuple[type, ...]] = {
    "IsSwarm": bool, "Agent": bool, "Master": bool, "IsExperimental": bool, "Heartbeat": int, "Overcommit": int,
    "Address": str, "Discovery": str, "Host": str, "Image": str, "Strategy": str,
    "ArbitraryFlags": (list, tuple, type(None)), "ArbitraryJoinFlags": (list, tuple, type(None)),
    "Env": (list, tuple, type(None)),
}  # fmt: skip
_LISTS = ("insecure-registries", "labels", "registry-mirrors")


class Newer(Malformed):
    """A newer pytest-machine has written it. It is left as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A machine or network whose record or tag cannot be read: what is left to know of it."""

    kind: str = "machine"
    """``machine`` or ``network``."""
    id: str
    """The `Id` in its tag's place, such as the name of its folder; empty: not known."""
    name: str = ""
    """Empty: not known."""
    driver: str = ""
    """Empty: not known."""
    host: str = ""
    """The computer that made it; empty: not known."""
    run: str = ""
    """Its run; empty: none, or not known."""
    place: str
    """Where the record or tag is: a path, or the provider's name of the thing."""
    reason: str
    """Why it cannot be read, in one line."""
    newer: bool = False
    """Whether it is not damaged, but written by a newer pytest-machine."""

    @property
    def known(self) -> str:
        """What people call it."""
        return self.name or self.id or self.place


def damaged(data: object, reason: Exception | str, *, id: str, place: str, kind: str = "machine") -> Damaged:
    """Return what is left to know of a record or tag; `data` is its content, as far as it could be read."""
    given = data if isinstance(data, Mapping) else {}

    def word(key: str) -> str:
        try:
            return check_name(parsing.text(given.get(key), key))
        except (Malformed, BadSpec):
            return ""

    return Damaged(
        kind=kind,
        id=id,
        name=word("name"),
        driver=word("driver"),
        host=word("host"),
        run=word("run"),
        place=place,
        reason=str(reason),
        newer=isinstance(reason, Newer),
    )


def id_(value: object, what: str = "'id'") -> Id:
    """Return an `Id`."""
    found = parsing.text(value, what, longest=64)
    if not _ID.fullmatch(found):
        raise Malformed(f"{what} is '{found}', which is not ten hexadecimal digits")
    return Id(found)


def name(value: object, what: str = "'name'") -> str:
    """Return a name that `check_name` takes."""
    found = parsing.text(value, what, longest=256)
    try:
        return check_name(found)
    except BadSpec:
        raise Malformed(f"{what} is '{found}', which is not a name ({_ALLOWED})") from None


_ALLOWED = "letters, digits, dots and dashes, at most 63"


def record(data: object) -> dict[str, object]:
    """Return the fields of a `Record`."""
    given = _ours(data, "the record")
    options = parsing.table(given.get("options", {}), "'options'")
    address_ = given.get("address")
    return {
        "id": id_(given.get("id")),
        "name": name(given.get("name")),
        "driver": parsing.text(given.get("driver"), "'driver'", longest=100, empty=False),
        "options": {key: option(value, f"the option '{key}'") for key, value in options.items()},
        "store": parsing.path(given.get("store"), "'store'"),
        "host": parsing.text(given.get("host"), "'host'", longest=255, empty=False),
        "run": _name_or_empty(given, "run"),
        "lab": _name_or_empty(given, "lab"),
        "networks": tuple(name(each, "an entry of 'networks'") for each in _texts(given, "networks")),
        "router": parsing.boolean(given.get("router", False), "'router'"),
        "preload": _text(given, "preload"),
        "engine": _engine(given.get("engine", {})),
        "install_url": _text(given, "install_url"),
        "tls_sans": _texts(given, "tls_sans"),
        "authority": {
            key: str(parsing.path(value, f"'{key}' of 'authority'"))
            for key, value in parsing.table(given.get("authority", {}), "'authority'").items()
        },
        "swarm": _swarm(given.get("swarm", {})),
        "created": parsing.time(given.get("created"), "'created'"),
        "expires": _time_or_none(given, "expires"),
        "ready": _time_or_none(given, "ready"),
        "address": None if address_ is None else address_,
    }


def network(data: object) -> dict[str, object]:
    """Return the fields of a `Network`."""
    given = _ours(data, "the network")
    mtu = given.get("mtu")
    return {
        "id": id_(given.get("id")),
        "name": name(given.get("name")),
        "store": parsing.path(given.get("store"), "'store'"),
        "host": parsing.text(given.get("host"), "'host'", longest=255, empty=False),
        "run": _name_or_empty(given, "run"),
        "lab": _name_or_empty(given, "lab"),
        "created": parsing.time(given.get("created"), "'created'"),
        "subnet": _subnet(given.get("subnet", ""), "'subnet'", ipaddress.IPv4Network),
        "subnet6": _subnet(given.get("subnet6", ""), "'subnet6'", ipaddress.IPv6Network),
        "mtu": None if mtu is None else parsing.integer(mtu, "'mtu'", least=68, most=65535),
        "isolated": parsing.boolean(given.get("isolated", False), "'isolated'"),
    }


def address(data: object) -> dict[str, object]:
    """Return the fields of an `Address`."""
    given = parsing.table(data, "'address'")
    found = {
        # Of an engine at a socket there is no host.
        "ip": "" if given.get("ip") == "" and given.get("engine") else parsing.host(given.get("ip"), "'ip'"),
        "user": _text(given, "user", "root"),
        "ssh_port": parsing.port(given.get("ssh_port", 22), "'ssh_port'", zero=True),
        "engine_port": parsing.port(given.get("engine_port", 2376), "'engine_port'", zero=True),
        "engine": url(given.get("engine", ""), "'engine'"),
        "inner": given.get("inner", ""),
    }
    if found["inner"] != "":
        parsing.host(found["inner"], "'inner'")
    return found


def url(value: object, what: str) -> str:
    """Return the address of an engine as ``DOCKER_HOST`` takes it, or an empty text."""
    found = parsing.text(value, what)
    if not found:
        return ""
    try:
        parts = urlsplit(found)
        port = parts.port
    except ValueError as error:
        raise Malformed(f"{what} is '{found}', which is not an address: {error}") from None
    if re.search(r"[\s\"'\\]", found) or ("://" in found and parts.scheme not in _SCHEMES):
        raise Malformed(f"{what} is '{found}', which is not the address of an engine, such as tcp://192.0.2.1:2376")
    # The driver 'none' takes other texts as they are, and finds no engine there.
    if "://" in found and parts.scheme in ("tcp", "http", "https", "ssh"):
        parsing.host(parts.hostname or "", f"the host of {what}")
        if port == 0:
            raise Malformed(f"{what} is '{found}', whose port is 0")
    return found


def option(value: object, what: str) -> Value:
    """Return the value of a driver's option: a text, a number, true or false, a list of texts, or nothing."""
    if isinstance(value, list | tuple):
        return tuple(_option_text(each, f"an entry of {what}") for each in value)
    if isinstance(value, str):
        return _option_text(value, what)
    if value is None or isinstance(value, bool | int | float):
        parsing.plain(value, what)
        return value
    raise Malformed(f"{what} is a {type(value).__name__}, which no option is")


def _option_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{what} is a {type(value).__name__}, which is not a text")
    # A path may have bytes that are not UTF-8; nothing else has a surrogate.
    if value.startswith("/"):
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise Malformed(f"{what} is not Unicode text") from None
        if "\0" in value:
            raise Malformed(f"{what} has a NUL character")
    else:
        parsing.plain(value, what)
    return value


def _ours(data: object, what: str) -> dict[str, object]:
    given = parsing.table(data, what)
    version = parsing.integer(given.get("version", VERSION), "'version'", least=1, most=1 << 31)
    if version > VERSION:
        raise Newer(f"{what} is of version {version}, and this pytest-machine reads version {VERSION}: upgrade it")
    return given


def _engine(value: object) -> dict[str, object]:
    found = parsing.table(parsing.plain(value, "'engine'"), "'engine'")
    options = parsing.table(found.get("options", {}), "'options' of 'engine'")
    for key in _LISTS:
        parsing.texts(options.get(key, []), f"'{key}' of 'engine'")
    parsing.text(options.get("storage-driver", ""), "'storage-driver' of 'engine'")
    parsing.texts(found.get("env", []), "'env' of 'engine'")
    return found


def _swarm(value: object) -> dict[str, object]:
    found = parsing.table(parsing.plain(value, "'swarm'"), "'swarm'")
    for key, kind in _SWARM.items():
        if key not in found:
            continue
        given = found[key]
        if not isinstance(given, kind) or (kind is int and isinstance(given, bool)):
            raise Malformed(f"'{key}' of 'swarm' is a {type(given).__name__}")
        if isinstance(given, str):
            parsing.text(given, f"'{key}' of 'swarm'")
        if isinstance(given, list | tuple):
            parsing.texts(given, f"'{key}' of 'swarm'")
    return found


def _name_or_empty(given: Mapping[str, object], key: str) -> str:
    value = given.get(key, "")
    return "" if value == "" else name(value, f"'{key}'")


def _text(given: Mapping[str, object], key: str, default: str = "") -> str:
    return parsing.text(given.get(key, default), f"'{key}'")


def _texts(given: Mapping[str, object], key: str) -> tuple[str, ...]:
    return parsing.texts(given.get(key, ()), f"'{key}'")


def _time_or_none(given: Mapping[str, object], key: str) -> float | None:
    value = given.get(key)
    return None if value is None else parsing.time(value, f"'{key}'")


def _subnet(value: object, what: str, kind: type[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    found = parsing.text(value, what, longest=64)
    if found:
        try:
            kind(found)
        except ValueError as error:
            raise Malformed(f"{what} is '{found}', which is not a subnet: {error}") from None
    return found
