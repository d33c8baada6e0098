"""What ``create --dry-run`` shows: the machine as it would be made. Pure but for a look at what files there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_machine.driver import Driver
    from pytest_machine.model import Spec
    from pytest_machine.options import Option
    from pytest_machine.store import Store

_SECRET = "(secret)"  # noqa: S105  # what stands in its place


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A machine that is not made."""

    spec: Spec
    driver: Driver
    why: str
    """Why this driver."""
    sources: Mapping[str, str]
    """Name of an option that was given → where."""
    store: Store
    replaces: bool
    """Whether something is there of that name that was broken off."""

    def lines(self) -> Iterator[str]:
        """Yield what is shown."""
        from pytest_machine import answers, daemon
        from pytest_machine.options import options

        known = options(type(self.driver))
        yield f'"{self.spec.name}" would be made; nothing was done.'
        if self.replaces:
            yield "What is left of a creation of that name that was broken off would be removed first."
        yield from _aligned(
            [
                ("driver", f"{self.spec.driver}, {self.why}"),
                ("isolation", str(answers.isolation(self.driver))),
                ("address", self._address()),
            ]
        )
        yield "Its driver's options:"
        yield from _aligned([(name, *self._option(each)) for name, each in known.items()])
        public = daemon.public(self.spec.engine)
        set_ = [*_table(public.get("options")), *((name, "(a variable)") for name in _list(public.get("env")))]
        if set_:
            yield "Its Docker's settings:"
            yield from _aligned(set_)
        yield "Files:"
        yield from (f"  {path}" for path in self._files(known))

    def _address(self) -> str:
        from pytest_machine.driver import SupportsAdoption, SupportsReserve

        if isinstance(self.driver, SupportsAdoption):
            return "the one that it has"
        if isinstance(self.driver, SupportsReserve):
            return "reserved before it is made, and not earlier"
        return "known when it runs"

    def _option(self, option: Option) -> tuple[str, str]:
        value = getattr(self.driver, option.name)
        shown = "" if value in (None, "", ()) else str(value)
        if isinstance(value, tuple):
            shown = ", ".join(map(str, value))
        return _SECRET if option.secret and shown else shown or "-", self.sources.get(option.name, "default")

    def _files(self, known: Mapping[str, Option]) -> Iterator[str]:
        from pytest_machine import birth, daemon, store
        from pytest_machine.driver import SupportsAdoption

        for name in ("ca.pem", "ca-key.pem", "cert.pem", "key.pem"):
            if not (self.store.certificates / name).exists():
                yield str(self.store.certificates / name)
        directory = self.store.path / "machines" / self.spec.name
        names = [store.RECORD]
        if any(known[name].secret for name in self.spec.options):
            names.append(store.SECRETS)
        if not isinstance(self.driver, SupportsAdoption):
            names += [birth.KEY, f"{birth.KEY}.pub", birth.HOST_KEY, f"{birth.HOST_KEY}.pub", birth.HOSTS]
            names += ["server.pem", "server-key.pem"]
        names += [birth.KNOWN_HOSTS, "ca.pem", "cert.pem", "key.pem"]
        names += [path.rpartition("/")[2] for path in daemon.files(self.spec.engine)]
        yield from (str(directory / name) for name in names)


def _table(found: object) -> list[tuple[str, str]]:
    if not isinstance(found, Mapping):
        return []
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)) for name, value in found.items()
    ]


def _list(found: object) -> list[str]:
    return [str(one) for one in found] if isinstance(found, list) else []


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
