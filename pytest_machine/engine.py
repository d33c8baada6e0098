"""The Docker daemon in a machine, asked from here: is it up, and a client for it.

Nothing may come between a machine and us: the environment's proxies and CA bundles are not heard.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from . import endpoint
from .client_environment import uncovered
from .errors import DriverError, StoreError
from .knock import context
from .knock import ping as ping  # noqa: PLC0414  # others ask for it here
from .model import Address
from .support import clock, parsing
from .support.text import decoded, visible
from .support.validity import refusal
from .waiting import NotYet

if TYPE_CHECKING:
    import docker


def client(address: Address, *, certs: Path, timeout: float = 60) -> docker.DockerClient:
    """Return docker-py's client for the daemon, at the newest API version that both speak. Close it when done.

    `timeout` is how long one answer may take, in seconds.
    """
    import docker
    from docker.constants import DEFAULT_DOCKER_API_VERSION
    from docker.tls import TLSConfig

    # docker-py would ask for the version while it is built, before it can be told to leave the environment alone.
    version = min(ping(address, certs=certs, timeout=timeout), DEFAULT_DOCKER_API_VERSION, key=_version)
    found = docker.DockerClient(
        base_url=address.url,
        version=version,
        timeout=timeout,  # type: ignore[arg-type]  # requests takes fractions too
        tls=TLSConfig(
            client_cert=(str(certs / "cert.pem"), str(certs / "key.pem")), ca_cert=str(certs / "ca.pem"), verify=True
        ),
    )
    # Otherwise REQUESTS_CA_BUNDLE replaces `ca_cert`, and HTTPS_PROXY gets to see machines that only we can reach.
    found.api.trust_env = False
    return found


def load(address: Address, *, certs: Path, archive: Iterable[bytes], name: str, timeout: float = 600) -> list[str]:
    """Load an archive of ``docker save`` into the daemon, packed or not; return what it says it has loaded.

    Raises `DriverError` when it is no such archive, and calls it `name` then. `timeout` is how long one answer may
    take, in seconds.
    """
    connection = _Connection(address, certs=certs, timeout=timeout)
    try:
        # One that sees at the first bytes that it is no archive answers before all is sent: its answer is the reason.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            headers = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
            connection.request("POST", "/images/load?quiet=1", body=iter(archive), headers=headers, encode_chunked=True)
        response = connection.getresponse()
        body = _body(response)
    finally:
        connection.close()
    said = [parsing.json_table(line, "the daemon's answer") for line in body.splitlines() if line.startswith(b"{")]
    wrong = [str(one.get("error") or one.get("message")) for one in said if "error" in one or response.status >= 300]
    if wrong or response.status >= http.HTTPStatus.MULTIPLE_CHOICES:
        raise DriverError(
            f"Docker could not load the images of '{name}'.",
            facts={"reason": wrong[0] if wrong else f"HTTP {response.status}"},
            hint="make the archive with: docker save -o image.tar IMAGE",
            transient=False,
        )
    return [str(one["stream"]).strip().partition(": ")[2] for one in said if "stream" in one]


@contextlib.contextmanager
def local() -> Iterator[docker.APIClient]:
    """Yield a client of the user's own engine, as ``docker`` in their shell would find it; no test's machine's."""
    client = endpoint.named(uncovered(), machine=True).client(timeout=60)
    try:
        yield client
    finally:
        client.close()


class _Connection(http.client.HTTPConnection):
    """HTTP to a daemon over mutual TLS.

    The certificates are read when somebody listens, and not before: machines that boot are asked again and again, and
    twenty that boot at once took half a second of processor time to be refused.
    """

    def __init__(self, address: Address, *, certs: Path, timeout: float) -> None:
        super().__init__(address.ip, address.engine_port, timeout=timeout)
        self._certs = certs
        self._live: socket.socket | None = None

    def connect(self) -> None:
        """Connect, and know who answers before a word is said."""
        super().connect()
        # Not yet, so that `cut` ends a handshake too.
        self.sock = context(self._certs).wrap_socket(
            self.sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        # A response that ends with the connection takes the socket away from here.
        self._live = self.sock
        self.sock.do_handshake()

    def cut(self) -> None:
        """End whatever waits for the daemon, from another thread."""
        if self._live is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._live, socket.SHUT_RDWR)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


class Api:
    """The few calls that the core makes itself, on one connection; a context manager.

    Raises one of `TROUBLE` when the daemon does not do as asked. An answer is read up to `LARGEST` bytes, and for no
    longer than its timeout in all, however slowly it comes.
    """

    def __init__(self, address: Address, *, certs: Path, timeout: float) -> None:
        self._connection = _Connection(address, certs=certs, timeout=timeout)
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def allow(self, timeout: float) -> None:
        """Wait so long for each further answer, in seconds."""
        self._timeout = timeout
        self._connection.timeout = timeout
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout)

    def get(self, path: str) -> Any:
        """Return the answer to a question, from JSON."""
        return self._ask("GET", path)

    def post(self, path: str, body: object = None) -> Any:
        """Have something done, as `body` says, which becomes JSON; return what the daemon says to it."""
        return self._ask("POST", path, body)

    def delete(self, path: str) -> None:
        """Have something removed; what is gone already is gone."""
        self._ask("DELETE", path)

    def read(self, path: str, *, size: int) -> bytes:
        """Return the first `size` bytes of an answer that is no JSON, such as a log; nothing further can be asked."""
        with self._bounded():
            self._connection.request("GET", path)
            response = self._connection.getresponse()
            return _body(response, size, cut=True)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        with self._bounded():
            if body is None:
                self._connection.request(method, path)
            else:
                self._connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = _body(response)
        if response.status >= 400 and response.status != http.HTTPStatus.NOT_FOUND:
            raise ValueError(f"{method} {path}: {response.status} {visible(decoded(answer[:500])).strip()}")
        if not answer.startswith((b"{", b"[", b'"')):
            return None
        return parsing.json_value(answer, "the daemon's answer", largest=LARGEST)

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """End the connection when the time for one answer is over; a socket's own timeout begins again at each byte."""
        watch = threading.Timer(self._timeout + 1, self._connection.cut)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()


LARGEST = 32 << 20
"""Bytes of one answer. A daemon with a thousand containers sends about two million."""


def _body(response: http.client.HTTPResponse, size: int = LARGEST, *, cut: bool = False) -> bytes:
    """Return an answer's body; raises `ValueError` when it has more than `size` bytes, unless it may be `cut`."""
    found = bytearray()
    while len(found) <= size and (part := response.read(min(1 << 16, size + 1 - len(found)))):
        found += part
    if len(found) > size:
        response.close()
        if not cut:
            raise ValueError(f"the daemon's answer has more than {size:,} bytes")
    return bytes(found[:size])


TROUBLE = (OSError, StoreError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException)
"""What a call raises when the daemon is gone, or says no, and what looking at an answer of another shape does.

A certificate that is damaged is among it.
"""


def version(address: Address, *, certs: Path, timeout: float = 2) -> str:
    """Return the version of the daemon itself, such as ``26.1.5``; empty when it does not say."""
    with contextlib.suppress(*TROUBLE), Api(address, certs=certs, timeout=timeout) as api:
        return _version_of(api)
    return ""


def _version_of(api: Api) -> str:
    found = parsing.table(api.get("/version") or {}, "the daemon's answer")
    return parsing.text(found.get("Version", ""), "its version", longest=64)


def told(address: Address, *, certs: Path, timeout: float = 2) -> tuple[str, str]:
    """Return the daemon's version, and what it is in a Swarm: ``manager`` or ``worker``, or its state on the way there.

    Empty is what it does not say, or is not.
    """
    with contextlib.suppress(*TROUBLE), Api(address, certs=certs, timeout=timeout) as api:
        found = _version_of(api)
        with contextlib.suppress(*TROUBLE):
            return found, _role((api.get("/info") or {}).get("Swarm") or {})
        return found, ""
    return "", ""


def refused(address: Address, *, certs: Path, timeout: float = 2) -> str:
    """Return which certificate keeps the daemon from being asked, and why; empty where none does."""
    try:
        ping(address, certs=certs, timeout=timeout)
    except OSError as error:
        return refusal(error)
    except StoreError as error:
        return f"{error.message} {error.facts['reason']}"
    except NotYet:
        return ""
    return ""


def _role(swarm: Mapping[str, Any]) -> str:
    state = parsing.text(swarm.get("LocalNodeState") or "inactive", "its state in a Swarm", longest=64)
    if state == "active":
        return "manager" if swarm.get("ControlAvailable") else "worker"
    return "" if state == "inactive" else state


def quiesce(address: Address, *, certs: Path, grace: float) -> None:
    """Ask every running container to end, all at once, and wait `grace` seconds at most.

    Best effort: a daemon that does not answer within a second, or goes away, is left as it is; so is one whose
    certificates are gone, as they are after a first `destroy`.
    """
    deadline = clock.monotonic() + grace
    with contextlib.suppress(*TROUBLE), Api(address, certs=certs, timeout=1) as api:
        asked = False
        while running := api.get("/containers/json"):
            for container in () if asked else running:
                api.post(f"/containers/{container['Id']}/kill?signal=SIGTERM")
            asked = True
            if clock.monotonic() > deadline:
                return
            clock.sleep(0.02)
