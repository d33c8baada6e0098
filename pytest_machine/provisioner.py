"""The contract of provisioners: what makes a machine that has an operating system and SSH a Docker host.

A driver that plants a seed at birth needs none of this. The others (a host that was there before, a cloud's stock
image) are worked on over a `Connection`, by provisioners in turn; each does one thing, looks before it acts, and says
what it changed, so that a second time nothing is changed and that is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from .connection import Connection
from .model import Engine, SeedFile

ENGINE_PORT = 2376
"""Where a Docker daemon with TLS listens; IANA's number for it."""
COPYING_HERE = "Copying certs to the local machine directory..."
COPYING_THERE = "Copying certs to the remote machine..."
CONFIGURING = "Setting Docker configuration on the remote daemon..."
"""What is told of three steps, in Docker Machine's words: scripts of its users may wait for them."""
Tell = Callable[[str], None]
"""Hears in one sentence what takes a while and is about to begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a machine is, as it says itself; see `pytest_machine.facts`."""

    os: str
    """``ID`` of its os-release: ``debian``, ``alpine``; empty where there is none."""
    like: tuple[str, ...] = ()
    """``ID_LIKE``: whose ways it shares, nearest first."""
    version: str = ""
    """``VERSION_ID``: ``12``, ``24.04``; rolling releases have none."""
    codename: str = ""
    pretty: str = ""
    """``PRETTY_NAME``, for people."""
    arch: str = ""
    """As ``uname -m`` says: ``x86_64``, ``aarch64``."""
    manager: str = ""
    """Who starts services: ``systemd``, ``openrc``, ``machine-init`` (our own image's), ``boot2docker``; or empty."""
    root: bool = True
    """Whether the login user is root; otherwise everything goes through sudo."""
    refused: str = ""
    """What sudo said when it was asked for nothing, without a password; empty: it obeys, or is not needed."""
    engine: str = ""
    """The version of Docker's daemon that is installed; empty: none is."""
    unfinished: bool = False
    """Whether an installation of ours was broken off: what is there may be half an engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a machine is to be. A pure value: with `Facts` it decides everything that is run."""

    hostname: str = ""
    """Empty: it keeps its own."""
    engine: Engine = field(default_factory=Engine)
    """Settings of its daemon."""
    files: Mapping[str, SeedFile] = field(default_factory=dict)
    """Absolute path in the machine → file, owned by root: the daemon's certificates in ``/etc/docker``."""
    engine_port: int = ENGINE_PORT
    """Where its daemon is to listen, with mutual TLS only."""
    install_url: str = ""
    """Whose script installs Docker where there is none; empty: the packages of its own distribution."""
    provider: str = ""
    """The driver's name, which the daemon carries as its label ``provider``; empty: no such label."""


class Provisioner(Protocol):
    """Does one thing to a machine so that it becomes what is wanted."""

    name: ClassVar[str]

    def provision(self, connection: Connection, facts: Facts, wanted: Wanted, *, tell: Tell) -> Sequence[str]:
        """See to it; return what was changed, in words for people: nothing where it was so already.

        `facts` are those of now: what earlier provisioners changed is in them. Raises `ProvisionFailed` with what the
        machine said; who and on which system is added by the caller. Broken off, and begun again: it goes on.
        """
        ...


@runtime_checkable
class SupportsUpgrade(Protocol):
    """A provisioner that can move what it installed to a newer release."""

    def upgrade(self, connection: Connection, facts: Facts, wanted: Wanted, *, tell: Tell) -> Sequence[str]:
        """Move it to the newest release that the machine's packages offer; return what was changed."""
        ...
