"""``image``: the machine images in the cache, and the Docker images that are kept for machines (``preload=``)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import click

from pytest_machine.support.text import visible

from .command import Ours
from .layout import HelpfulGroup

if TYPE_CHECKING:
    from pytest_machine.images import Image
    from pytest_machine.preloads import Preload


@click.group(cls=HelpfulGroup)
def image() -> None:
    """Build, list and remove machine images."""


@image.command(cls=Ours)
@click.argument("suites", metavar="[SUITE]...", nargs=-1)
def build(suites: tuple[str, ...]) -> None:
    """Build the image of a Debian release (default: trixie), unless it is there already."""
    from pytest_machine import images

    for suite in suites or (images.DEFAULT,):
        with Shown(suite) as shown:
            found = images.ensure(suite, progress=shown)
        click.echo(f"{found.name}  {found.path}")


@image.command(cls=Ours)
def ls() -> None:
    """List the images in the cache; '*' marks those that would be used today.

    Those that a driver keeps elsewhere, such as in your Docker engine, and Docker images that are kept for machines
    (preload=) are listed below them.
    """
    from pytest_machine import images, preloads

    table = [("IMAGE", "DOCKER", "SIZE", "PATH")]
    for found in images.images():
        mark = "*" if images.current(found) else ""
        if found.broken:
            click.echo(f"The image '{found.name}' is damaged: {found.broken}", err=True)
        size = "damaged" if found.broken else f"{found.size >> 20} MiB"
        table.append((found.name + mark, found.docker, size, str(found.path)))
    for driver, elsewhere in _elsewhere():
        table += [(name, f"({driver.name})", f"{size >> 20} MiB", "") for name, size in elsewhere.items()]
    table += [
        (kept.name, f"({_count(kept)})", f"{kept.size >> 20} MiB", str(kept.path)) for kept in preloads.preloads()
    ]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table:
        line = "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        click.echo(visible(line, lines=False))


def _count(kept: Preload) -> str:
    from pytest_machine import preloads

    users = len(preloads.users(kept))
    return f"{users or 'no'} machine{'' if users == 1 else 's'}"


@image.command(cls=Ours)
@click.argument("names", metavar="IMAGE...", nargs=-1)
@click.option("--old", is_flag=True, help="All that no release would use today, and all kept for no machine.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
def rm(names: tuple[str, ...], *, old: bool, everything: bool) -> None:
    """Remove images: by name (trixie-0f3a…), or a release's (trixie) all; also those kept for machines.

    They go from wherever they are: this computer's cache, your Docker engine.
    """
    from pytest_machine import images, preloads
    from pytest_machine.errors import UsageError

    if not (names or old or everything):
        raise UsageError("No image was named.", hint="pytest-machine image ls")
    known = images.images()
    kept = preloads.preloads()
    elsewhere = _elsewhere()
    there = {image for _, images_ in elsewhere for image in images_}
    for name in names:
        if not any(name in (found.name, found.suite) for found in known) and not (
            name in (one.name for one in kept) or any(_is(image, name) for image in there)
        ):
            raise UsageError(f"There is no image '{name}' in the cache.", hint="pytest-machine image ls")

    def meant(found: Image) -> bool:
        return everything or found.name in names or found.suite in names or (old and not images.current(found))

    for found in filter(meant, known):
        images.remove(found)
        click.echo(found.name)
    _remove_elsewhere(elsewhere, names, old=old, everything=everything)
    for one in kept:
        if everything or one.name in names or (old and not preloads.users(one)):
            preloads.remove(one)
            click.echo(one.name)


def _remove_elsewhere(
    elsewhere: list[tuple[_Keeper, Mapping[str, int]]], names: tuple[str, ...], *, old: bool, everything: bool
) -> None:
    from pytest_machine import images

    today = {images.known_as(suite) for suite in images.SUITES}
    for driver, theirs in elsewhere:
        for name in theirs:
            outdated = old and name.partition("+")[0] not in today
            if everything or outdated or any(_is(name, asked) for asked in names):
                driver.remove_image(name)
                click.echo(f"{name} ({driver.name})")


class _Keeper(Protocol):
    """A driver that keeps images."""

    name: ClassVar[str]

    def remove_image(self, name: str) -> None: ...


def _is(image: str, asked: str) -> bool:
    return asked in (image, image.partition("-")[0])


def _elsewhere() -> list[tuple[_Keeper, Mapping[str, int]]]:
    """Return the drivers that keep machine images themselves, each with what it has; who cannot be asked has none."""
    from pytest_machine import answers
    from pytest_machine.driver import SupportsImages
    from pytest_machine.plugins import Registry

    found: list[tuple[_Keeper, Mapping[str, int]]] = []
    registry = Registry()
    for name in registry.names():
        # A stranger's driver may raise anything, and one without options may not be made.
        with contextlib.suppress(Exception):
            driver = registry.driver(name)()
            if isinstance(driver, SupportsImages):
                driver.check()
                found.append((driver, answers.images(driver)))
    return found


class Shown:
    """Shows a build's progress on stderr: one line that is written over on a terminal, a line a step elsewhere."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._terminal = sys.stderr.isatty()
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __call__(self, what: str, done: float, seconds: float) -> None:
        """Show a step: what, how far (0 to 1), seconds since the start."""
        text = f"image {self._suite}: {done:4.0%} {seconds:3.0f} s  {what}"
        if self._terminal:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
        elif what != self._said:
            click.echo(text, err=True)
        self._said = what

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._said:
            click.echo(err=True)
