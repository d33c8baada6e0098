"""The answers of drivers, checked: each call of a driver whose answer the core reads goes through here.

A driver may be of any author. One that returns None, or a value of another type than its contract says, fails here by a
`DriverError` that names the driver, the method and the answer, and not somewhere else by a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, TypeVar

from .driver import (
    Damaged,
    Driver,
    SupportsAdoption,
    SupportsConsole,
    SupportsDamagedTags,
    SupportsDisk,
    SupportsEngineVersion,
    SupportsFingerprint,
    SupportsFootprint,
    SupportsImages,
    SupportsIncidents,
    SupportsNetworks,
    SupportsPreload,
    SupportsReserve,
    SupportsReset,
    SupportsSnapshotNames,
)
from .errors import DriverError
from .model import Access, Address, DiskTrouble, Id, Incident, Isolation, Network, Record, Seen, State, Trouble

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def isolation(driver: Driver) -> Isolation:
    """Return `Driver.isolation`."""
    return _one(driver, "isolation", driver.isolation, Isolation)


def look(driver: Driver, records: Sequence[Record]) -> Mapping[Id, Seen]:
    """Return what `Driver.look` says of each of these machines, and of no other.

    A machine of which it says nothing, or something that is no `Seen`, is `State.ERROR`, with the sentence as its
    detail.
    """
    answer = _mapping(driver, "look()", driver.look(records), "Seen")
    found: dict[Id, Seen] = {}
    for record in records:
        try:
            found[record.id] = _seen(driver, record, answer)
        except DriverError as error:
            found[record.id] = Seen(state=State.ERROR, detail=error.message)
    return found


def seen(driver: Driver, record: Record) -> Seen:
    """Return what `Driver.look` says of one machine."""
    return _seen(driver, record, _mapping(driver, "look()", driver.look([record]), "Seen"))


def find(driver: Driver) -> tuple[Record, ...]:
    """Return what `Driver.find` finds."""
    return _several(driver, "find()", driver.find(), Record)


def find_damaged(driver: SupportsDamagedTags) -> tuple[Damaged, ...]:
    """Return what `SupportsDamagedTags.find_damaged` finds."""
    return _several(driver, "find_damaged()", driver.find_damaged(), Damaged)


def find_networks(driver: SupportsNetworks) -> tuple[Network, ...]:
    """Return what `SupportsNetworks.find_networks` finds."""
    return _several(driver, "find_networks()", driver.find_networks(), Network)


def connect(driver: SupportsNetworks, record: Record, network: Network) -> str:
    """Call `SupportsNetworks.connect`; return the address."""
    return _one(driver, "connect()", driver.connect(record, network), str)


def reserve(driver: SupportsReserve, record: Record) -> Address:
    """Call `SupportsReserve.reserve`; return the address."""
    return _one(driver, "reserve()", driver.reserve(record), Address)


def access(driver: SupportsAdoption, record: Record) -> Access:
    """Return what `SupportsAdoption.access` says."""
    return _one(driver, "access()", driver.access(record), Access)


def console(driver: SupportsConsole, record: Record) -> str:
    """Return what `SupportsConsole.console` says."""
    return _one(driver, "console()", driver.console(record), str)


def snapshots(driver: SupportsSnapshotNames, record: Record) -> tuple[str, ...]:
    """Return what `SupportsSnapshotNames.snapshots` says."""
    return _several(driver, "snapshots()", driver.snapshots(record), str)


def changes(driver: SupportsReset, record: Record) -> tuple[str, ...]:
    """Return what `SupportsReset.changes` says."""
    return _several(driver, "changes()", driver.changes(record), str)


def is_touched(driver: SupportsReset, record: Record) -> bool:
    """Return what `SupportsReset.is_touched` says."""
    return _one(driver, "is_touched()", driver.is_touched(record), bool)


def has_preload(driver: SupportsPreload, key: str) -> bool:
    """Return what `SupportsPreload.has_preload` says."""
    return _one(driver, "has_preload()", driver.has_preload(key), bool)


def keep_preload(driver: SupportsPreload, record: Record, key: str) -> bool:
    """Call `SupportsPreload.keep_preload`; return whether the images are kept."""
    return _one(driver, "keep_preload()", driver.keep_preload(record, key), bool)


def footprint(driver: SupportsFootprint) -> int:
    """Return what `SupportsFootprint.footprint` says."""
    return _one(driver, "footprint()", driver.footprint(), int)


def fingerprint(driver: SupportsFingerprint) -> str:
    """Return what `SupportsFingerprint.fingerprint` says."""
    return _one(driver, "fingerprint()", driver.fingerprint(), str)


def engine_version(driver: SupportsEngineVersion) -> str:
    """Return what `SupportsEngineVersion.engine_version` says."""
    return _one(driver, "engine_version()", driver.engine_version(), str)


def images(driver: SupportsImages) -> Mapping[str, int]:
    """Return what `SupportsImages.images` says."""
    return _table(driver, "images()", driver.images(), str, int)


def trouble_disk(driver: SupportsDisk, record: Record, trouble: DiskTrouble) -> bool:
    """Call `SupportsDisk.trouble_disk`; return whether the file system can be relied on."""
    return _one(driver, "trouble_disk()", driver.trouble_disk(record, trouble), bool)


def incidents(driver: SupportsIncidents, record: Record) -> tuple[Incident, ...]:
    """Return what `SupportsIncidents.incidents` says."""
    return _several(driver, "incidents()", driver.incidents(record), Incident)


def unseen(driver: SupportsIncidents, record: Record) -> Mapping[Trouble, str]:
    """Return what `SupportsIncidents.unseen` says."""
    answer = _mapping(driver, "unseen()", driver.unseen(record), "str")
    # A word is as good as the constant that has it: `Trouble` is a text.
    known = {Trouble(key) if isinstance(key, str) and key in frozenset(Trouble) else key: answer[key] for key in answer}
    return _table(driver, "unseen()", known, Trouble, str)


def _seen(driver: object, record: Record, answer: Mapping[object, object]) -> Seen:
    if record.id not in answer:
        _fail(driver, "look()", f"nothing for the machine '{record.name}'", "a Seen for each record")
    one = _one(driver, "look()", answer[record.id], Seen, part=f"for the machine '{record.name}' ")
    _one(driver, "look()", one.state, State, part="as state ")
    if one.address is not None:
        _one(driver, "look()", one.address, Address, part="as address ")
    for networks in (one.networks, one.networks6):
        _table(driver, "look()", networks, str, str, part="as networks ")
    return one


def _one(driver: object, method: str, answer: object, kind: type[T], *, part: str = "") -> T:
    if not isinstance(answer, kind):
        _fail(driver, method, f"{part}{_shown(answer)}", _article(kind))
    return answer


def _several(driver: object, method: str, answer: object, kind: type[T]) -> tuple[T, ...]:
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
        _fail(driver, method, _shown(answer), f"several {kind.__name__}")
    found = tuple(answer)  # what a generator raises is the driver's own error
    for each in found:
        _one(driver, method, each, kind, part="among others ")
    return found


def _table(
    driver: object, method: str, answer: object, keys: type[K], values: type[V], *, part: str = ""
) -> Mapping[K, V]:
    found: dict[K, V] = {}
    for key, value in _mapping(driver, method, answer, values.__name__, part=part).items():
        checked = _one(driver, method, key, keys, part=f"{part}as key ")
        found[checked] = _one(driver, method, value, values, part=f"{part}for '{key}' ")
    return found


def _mapping(driver: object, method: str, answer: object, to: str, *, part: str = "") -> Mapping[object, object]:
    if not isinstance(answer, Mapping):
        _fail(driver, method, f"{part}{_shown(answer)}", f"a mapping to {to}")
    return answer


def _article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOUaeiou' else 'a'} {kind.__name__}"


def _shown(answer: object) -> str:
    return "None" if answer is None else f"{_article(type(answer))}"


def _fail(driver: object, method: str, answer: str, wanted: str) -> NoReturn:
    name = str(getattr(driver, "name", type(driver).__name__))
    raise DriverError(
        f"The driver '{name}' returned {answer} from {method}, and not {wanted}.",
        facts={"class": f"{type(driver).__module__}.{type(driver).__qualname__}"},
        hint="tell the author of the driver: pytest_machine.testing.DriverSuite tests what a driver must return",
        transient=False,
    )
