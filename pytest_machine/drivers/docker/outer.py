"""The engine that machines are made in: the user's own, asked for what the driver needs, with an end to every wait.

It outlives everything that we do and obeys nobody in a hurry: what a process asked for before it was killed may still
come about afterwards. So every object carries its machine's labels from its first moment, names are claimed before they
are used, and what is removed is looked for again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock

from pytest_machine.endpoint import Endpoint
from pytest_machine.errors import DriverError, DriverUnavailable
from pytest_machine.owner import cache_dir
from pytest_machine.support.folders import make_folder

if TYPE_CHECKING:
    import docker

OLDEST = (1, 41)
"""The oldest API that we speak: that of Docker 20.10, which can give a container a control group namespace."""

# Seconds that an answer may take. Removing a container with a full volume is the longest of what is asked with it.
_PATIENCE = 60.0
# The same for "are you there, and who are you?", which every test run asks first.
_GREETING = 2.0

Json = dict[str, Any]
"""An answer of the engine: its own words, of which only what is used is looked at."""


@dataclass(frozen=True, slots=True)
class Outer:
    """A connection to the engine; `connect` and `meet` give one."""

    endpoint: Endpoint
    api: docker.APIClient

    def lock(self) -> FileLock:
        """Return this computer's lock of the engine, not held yet; the kernel lets go of it when its holder dies."""
        folder = cache_dir() / "docker"
        make_folder(folder)
        return FileLock(folder / f".{hashlib.sha256(os.fsencode(self.endpoint.url)).hexdigest()[:16]}.lock")

    def info(self) -> Json:
        """Return what the engine says of itself and its computer."""
        return self.api.info()

    def image(self, reference: str) -> Json | None:
        """Return what the engine knows of an image; None when it has none of that name."""
        found: list[Json] = []
        with absent():
            found.append(self.api.inspect_image(reference))  # type: ignore[no-untyped-call]  # the stubs lack it
        return found[0] if found else None

    def create_container(self, config: Mapping[str, object], name: str | None = None) -> Json:
        """Make a container of a body as the API has it."""
        return cast("Json", self.api.create_container_from_config(config, name))  # type: ignore[no-untyped-call]

    def containers(self, *labels: str) -> list[Json]:
        """Return the containers with all these labels (``name`` or ``name=value``), running or not."""
        return having(labels, self.api.containers(all=True, filters={"label": list(labels)}))

    def volumes(self, *labels: str) -> list[Json]:
        """Return the volumes with all these labels."""
        return having(labels, self.api.volumes(filters={"label": list(labels)})["Volumes"] or [])

    def networks(self, *labels: str) -> list[Json]:
        """Return the networks with all these labels, oldest first."""
        found = having(labels, self.api.networks(filters={"label": list(labels)}))
        return sorted(found, key=lambda each: (str(each["Created"]), str(each["Id"])))

    def remove_container(self, id_: str) -> None:
        """End a container and remove it with its anonymous volumes; one that is gone, or going, is gone."""
        with absent(also=(409,)):
            self.api.remove_container(id_, v=True, force=True)

    def remove_volume(self, name: str) -> bool:
        """Remove a volume; return False when a container still holds it."""
        import docker.errors

        try:
            with absent():
                self.api.remove_volume(name)
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            return False
        return True


def having(labels: Sequence[str], found: list[Json]) -> list[Json]:
    """Return those that have all the labels: to Podman, one of several is enough."""
    pairs = [label.partition("=") for label in labels]
    return [
        each
        for each in found
        if all(
            name in (each["Labels"] or {}) and (not given or each["Labels"][name] == value)
            for name, given, value in pairs
        )
    ]


@contextlib.contextmanager
def absent(also: Sequence[int] = ()) -> Iterator[None]:
    """Take "there is none" for an answer, and other refusals by their HTTP status."""
    import docker.errors

    try:
        yield
    except docker.errors.APIError as error:
        if error.status_code not in (404, *also):
            raise


def said(error: BaseException) -> str:
    """Return an engine's own words of why it refused."""
    return str(getattr(error, "explanation", None) or error).strip()


@contextlib.contextmanager
def connect(endpoint: Endpoint, timeout: float = _PATIENCE) -> Iterator[Outer]:
    """Yield a connection; raises `DriverError` when the engine does not answer, or refuses what it is asked then."""
    import docker.errors
    import requests

    try:
        api = endpoint.client(timeout)
        try:
            yield Outer(endpoint, api)
        finally:
            api.close()
    except docker.errors.APIError as error:
        raise DriverError(
            f"The Docker engine at '{endpoint.url}' refused.",
            facts={"it said": said(error)},
            hint="docker info, and see whether it works by hand",
        ) from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise DriverError(
            f"The Docker engine at '{endpoint.url}' does not answer.",
            facts={"reason": reason(error)},
            hint="docker info, and start it if it does not run",
        ) from error


def meet(endpoint: Endpoint) -> None:
    """Raise `DriverUnavailable`, with the remedy, unless the engine is there, answers soon, and can hold machines."""
    try:
        endpoint.knock()
    except PermissionError as error:
        raise DriverUnavailable(
            f"You may not speak to the Docker engine at '{endpoint.url}'.",
            hint='sudo usermod -aG docker "$USER", then log in again',
        ) from error
    except OSError as error:
        raise _no_engine(endpoint, error) from error
    try:
        with connect(endpoint, _GREETING) as outer:
            version, info = outer.api.version(), outer.info()
    except DriverError as error:
        raise _no_engine(endpoint, error.__cause__ or error) from error
    if refusal := unfit(version, info):
        message, hint = refusal
        raise DriverUnavailable(f"The Docker engine at '{endpoint.url}' {message}.", hint=hint)


def unfit(version: Mapping[str, Any], info: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return why an engine cannot hold machines, and the remedy, by what it says of itself; None when it can."""
    kind = info.get("OSType") or version.get("Os")
    if kind != "linux":
        return (
            f"makes {kind} containers, and machines are Linux ones",
            "switch Docker Desktop to Linux containers: DockerCli.exe -SwitchLinuxEngine",
        )
    spoken = str(version.get("ApiVersion", "0"))
    if tuple(int(part) for part in spoken.split(".")) < OLDEST:
        return (
            f"is too old: it speaks version {spoken} of the API, and {'.'.join(map(str, OLDEST))} is needed",
            "install Docker 20.10 or newer",
        )
    if any("name=userns" in option for option in info.get("SecurityOptions") or ()):
        return (
            "maps users (userns-remap), and then has no privileged containers",
            "run another engine without it, and name that: DOCKER_HOST=unix:///path/docker.sock",
        )
    return None


def _no_engine(endpoint: Endpoint, error: BaseException) -> DriverUnavailable:
    start = "start Docker Desktop" if sys.platform in ("darwin", "win32") else "sudo systemctl start docker"
    return DriverUnavailable(
        f"No Docker engine answers at '{endpoint.url}'.",
        facts={"reason": reason(error)},
        hint=f"{start}, or name another engine, such as Podman's: DOCKER_HOST=unix:///run/podman/podman.sock",
    )


def reason(error: BaseException) -> str:
    """Return in one line what kept us from an engine, without the Python around it."""
    inner = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    return str(getattr(inner, "strerror", None) or said(error)).partition("\n")[0]
