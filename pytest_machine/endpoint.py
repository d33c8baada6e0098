"""Where the user's own Docker engine is, as the `docker` command would find it, and a client for it.

`DOCKER_HOST` goes before `DOCKER_CONTEXT`, that before the context which `docker context use` has chosen, that before
the system's default socket. One difference, where it is asked for: what `docker-machine env` has set names a machine,
and no machine is made in another. Images may well come from it: for many it is the only engine that they have.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .support import files, given, parsing, pems
from .support.text import visible

if TYPE_CHECKING:
    import docker
    from docker.tls import TLSConfig

SOCKET = "npipe:////./pipe/docker_engine" if sys.platform == "win32" else "unix:///var/run/docker.sock"
"""Where an engine is that nobody has named."""

# Seconds within which somebody at the other end of an engine's address must take the call.
_KNOCK = 2.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address."""

    url: str
    """As ``DOCKER_HOST`` has it: ``unix://``, ``npipe://``, ``tcp://`` or ``ssh://``."""
    certs: str = ""
    """A directory with ca.pem, cert.pem and key.pem; empty: no TLS."""
    verify: bool = True
    """Whether the other end must be whom the authority says."""

    @property
    def host(self) -> str:
        """The computer that is named in it; empty for a socket or pipe of this one."""
        return (urlsplit(self.url).hostname or "") if self.url.startswith(("tcp://", "ssh://", "http")) else ""

    @property
    def is_near(self) -> bool:
        """Whether it is a socket, a pipe or a port of this computer; what is behind them may still be elsewhere."""
        if self.url.startswith("ssh://"):
            return False
        try:
            return not self.host or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def knock(self) -> None:
        """Raise `OSError` when nobody listens: docker-py would too, but costs half a second to import."""
        address = urlsplit(self.url)
        if address.scheme == "unix" and hasattr(socket, "AF_UNIX"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_KNOCK)
                probe.connect(self.url.removeprefix("unix://"))
        elif address.scheme in ("tcp", "http", "https"):
            default = 2376 if self.certs else 2375
            socket.create_connection((self.host, address.port or default), timeout=_KNOCK).close()

    def client(self, timeout: float) -> docker.APIClient:
        """Return docker-py's client, at the newest version of the API that both speak. Close it when done.

        `timeout` is how long an answer may take, in seconds. Raises `OSError` or docker-py's own errors.
        """
        import docker

        class Client(docker.APIClient):
            # `requests` sets it to True in its constructor, and docker-py asks for the version in its own: then
            # REQUESTS_CA_BUNDLE would replace the engine's authority already.
            trust_env = property(lambda _: False, lambda *_: None)

        self.knock()
        return Client(
            base_url=self.url,
            version="auto",
            timeout=timeout,  # type: ignore[arg-type]  # requests takes fractions too
            tls=self._tls() if self.certs else False,
            use_ssh_client=self.url.startswith("ssh://"),  # the user's own ssh, with their configuration and agent
        )

    def _tls(self) -> TLSConfig:
        from docker.tls import TLSConfig

        folder = Path(self.certs)
        for path in (folder / name for name in pems.CLIENT):
            # docker-py and OpenSSL read whatever is there, without a bound.
            with contextlib.suppress(FileNotFoundError):
                try:
                    pems.read(path)
                except parsing.Malformed as error:
                    raise ValueError(f"{path}: {error}") from error
        pair = (str(folder / "cert.pem"), str(folder / "key.pem"))
        return TLSConfig(
            client_cert=pair if all(map(os.path.exists, pair)) else None,
            ca_cert=str(folder / "ca.pem") if self.verify else None,
            verify=self.verify,
        )


def at(url: str, environ: Mapping[str, str]) -> Endpoint:
    """Return the engine at an address, spoken to as the environment says: with TLS, or without."""
    if not any(environ.get(name) for name in ("DOCKER_TLS_VERIFY", "DOCKER_TLS")) or not url.startswith("tcp://"):
        return Endpoint(url)
    certs = environ.get("DOCKER_CERT_PATH") or str(_config(environ))
    return Endpoint(url, certs, verify=bool(environ.get("DOCKER_TLS_VERIFY")))


def named(environ: Mapping[str, str], *, machine: bool = False) -> Endpoint:
    """Return the engine that `docker` would speak to with these variables, a `machine` that they name or not.

    Raises `OSError` or `ValueError` when a context was chosen that cannot be read.
    """
    if environ.get("DOCKER_HOST") and (machine or not environ.get("DOCKER_MACHINE_NAME")):
        return at(environ["DOCKER_HOST"], environ)
    config = _config(environ)
    chosen = environ.get("DOCKER_CONTEXT") or _current(config)
    if chosen in ("", "default"):
        return Endpoint(SOCKET)
    digest = hashlib.sha256(os.fsencode(chosen)).hexdigest()
    # The user's own file, which may be a link.
    path = config / "contexts" / "meta" / digest / "meta.json"
    meta = parsing.json_table(given.read(path), f"the context '{visible(chosen, lines=False)}'")
    found = parsing.table(parsing.table(meta.get("Endpoints"), "'Endpoints'").get("docker"), "'docker'")
    certs = config / "contexts" / "tls" / digest / "docker"
    skip = parsing.boolean(found.get("SkipTLSVerify", False), "'SkipTLSVerify'")
    return Endpoint(
        parsing.text(found.get("Host"), "'Host'", empty=False), str(certs) if certs.is_dir() else "", verify=not skip
    )


def _config(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _current(config: Path) -> str:
    try:
        found = parsing.json_table(given.read(config / "config.json"), "it")
        return parsing.text(found.get("currentContext", ""), "it")
    except files.UNREADABLE:
        return ""
