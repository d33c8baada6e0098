from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from pytest_machine.certs import Authority
from pytest_machine.client_environment import covering
from pytest_machine.engine import TROUBLE, Api, client, ping, refused, told
from pytest_machine.errors import CertificateInvalid
from pytest_machine.model import Address
from pytest_machine.support import clock
from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS


class Daemon(http.server.ThreadingHTTPServer):
    """As much of a Docker daemon as answers pings, over mutual TLS."""

    daemon_threads = True
    api = "1.41"
    swarm: dict[str, object] | None = None
    status = HTTPStatus.OK
    hostile: Callable[[], Iterable[bytes]] | None = None
    """The parts of every answer, in place of what a daemon says."""

    def __init__(self, authority: Authority, directory: Path, host: str) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.paths: list[str] = []
        pair = authority.issue_server(name="web", hosts=[host])
        (directory / "server.pem").write_bytes(pair.cert + pair.key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(directory / "server.pem")
        self.context.load_verify_locations(authority.directory / "ca.pem")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            with self.context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)
        except OSError:  # a stranger
            return

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Answers(http.server.BaseHTTPRequestHandler):
    server: Daemon

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        body = (
            json.dumps({"ApiVersion": self.server.api, "Version": "28"}).encode() if "version" in self.path else b"OK"
        )
        if self.server.hostile is not None:
            self.send_response(HTTPStatus.OK)
            self.end_headers()
            with contextlib.suppress(OSError):
                for part in self.server.hostile():
                    self.wfile.write(part)
                    self.wfile.flush()
            return
        if "info" in self.path:
            body = json.dumps({"Swarm": self.server.swarm}).encode()
        self.send_response(self.server.status)
        self.send_header("Api-Version", self.server.api)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.ensure(tmp_path / "certs")


@pytest.fixture
def daemon(authority: Authority, tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(authority, tmp_path, "10.1.2.3")
    yield found
    found.stop()


def address(daemon: Daemon, ip: str = "127.0.0.1") -> Address:
    return Address(ip=ip, engine_port=daemon.server_address[1])


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment as companies have it: a proxy for all, and authorities that are not ours."""
    other = Authority.ensure(tmp_path / "company").directory / "ca.pem"
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.usefixtures("hostile")
def test_ping_says_the_version_whatever_surrounds_us(daemon: Daemon, authority: Authority) -> None:
    assert ping(address(daemon), certs=authority.directory) == "1.41"


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize(("api", "spoken"), [("1.41", "1.41"), ("9.99", None)])
def test_the_client_speaks_what_both_can(daemon: Daemon, authority: Authority, api: str, spoken: str | None) -> None:
    from docker.constants import DEFAULT_DOCKER_API_VERSION

    daemon.api = api
    docker = client(address(daemon), certs=authority.directory, timeout=7.5)
    try:
        assert docker.ping() is True
        assert docker.version()["ApiVersion"] == api
    finally:
        docker.close()
    expected = spoken or DEFAULT_DOCKER_API_VERSION
    # One question to agree on a version, and then only what was asked for.
    assert daemon.paths == ["/_ping", f"/v{expected}/_ping", f"/v{expected}/version"]
    assert docker.api.timeout == 7.5


def test_a_daemon_of_another_authority_is_not_ours(daemon: Daemon, tmp_path: Path, authority: Authority) -> None:
    other = Authority.ensure(tmp_path / "other")
    for call in (ping, client):
        with pytest.raises(ssl.SSLError, match="certificate verify failed"):
            call(address(daemon), certs=other.directory)
    mixed = tmp_path / "mixed"
    shutil.copytree(other.directory, mixed)
    shutil.copy(authority.directory / "ca.pem", mixed)
    with pytest.raises(OSError):  # noqa: PT011  # an alert or a reset, as it comes
        ping(address(daemon), certs=mixed)
    assert daemon.paths == []


def test_the_address_is_checked(authority: Authority, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two addresses that lead here: one is in the certificate, one is not.
    create = socket.create_connection
    monkeypatch.setattr(
        "socket.create_connection", lambda where, *more, **options: create(("127.0.0.1", where[1]), *more, **options)
    )
    assert ping(address(daemon, "10.1.2.3"), certs=authority.directory) == "1.41"
    with pytest.raises(ssl.SSLCertVerificationError, match=r"10\.1\.2\.4"):
        ping(address(daemon, "10.1.2.4"), certs=authority.directory)


def test_not_yet(daemon: Daemon, authority: Authority) -> None:
    daemon.status = HTTPStatus.SERVICE_UNAVAILABLE
    with pytest.raises(NotYet, match="HTTP 503"):
        ping(address(daemon), certs=authority.directory)


def test_nobody_there(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError):
            ping(Address(ip="127.0.0.1", engine_port=port), certs=authority.directory, timeout=0.2)
    with pytest.raises(ConnectionRefusedError):
        ping(Address(ip="127.0.0.1", engine_port=port), certs=authority.directory)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=lambda order: "".join(map(str, order)))
def test_variables_that_overlap_end_in_any_order(order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "theirs")
    monkeypatch.delenv("DOCKER_CERT_PATH", raising=False)
    layers = [
        {"DOCKER_HOST": "one", "DOCKER_CERT_PATH": "one"},
        {"DOCKER_HOST": "two"},
        {"DOCKER_HOST": "three", "DOCKER_CERT_PATH": "three"},
    ]
    open_now = [contextlib.ExitStack() for _ in layers]
    for stack, layer in zip(open_now, layers, strict=True):
        stack.enter_context(covering(layer))
    alive = [0, 1, 2]
    for ended in order:
        open_now[ended].close()
        alive.remove(ended)
        shown: dict[str, str] = {"DOCKER_HOST": "theirs"}
        for one in alive:
            shown |= layers[one]
        assert {name: os.environ[name] for name in shown} == shown
        assert ("DOCKER_CERT_PATH" in os.environ) == ("DOCKER_CERT_PATH" in shown)


@pytest.mark.parametrize(
    ("swarm", "role"),
    [
        (None, ""),
        ({"LocalNodeState": "inactive"}, ""),
        ({"LocalNodeState": "active", "ControlAvailable": True}, "manager"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, "worker"),
        ({"LocalNodeState": "pending"}, "pending"),
    ],
)
def test_what_a_daemon_is_in_a_swarm(
    daemon: Daemon, authority: Authority, swarm: dict[str, object] | None, role: str
) -> None:
    daemon.swarm = swarm
    assert told(Address(ip="127.0.0.1", engine_port=daemon.server_port), certs=authority.directory) == ("28", role)
    daemon.stop()
    assert told(Address(ip="127.0.0.1", engine_port=daemon.server_port), certs=authority.directory) == ("", "")


def _slowly() -> Iterator[bytes]:
    for _ in range(600):
        yield b" "
        time.sleep(0.1)


NO_ANSWERS: dict[str, Callable[[], Iterable[bytes]]] = {
    "without an end": lambda: itertools.repeat(b"[" + b" " * 65535),
    "byte by byte": _slowly,
    "a list": lambda: [b"[1, 2]"],
    "a list of lists": lambda: [b"[[[]]]"],
    "a text": lambda: [b'"text"'],
    "deep": lambda: [b"[" * 100_000],
    "deep in a table": lambda: [b'{"Version":' * 100_000],
    "another kind": lambda: [b'{"Version": {"a": 1}, "Swarm": [1]}'],
    "a number of thousands of digits": lambda: [b'{"Version": 1' + b"0" * 100_000 + b"}"],
    "not UTF-8": lambda: [b'{"Version": "\xff\xfe"}'],
    "escape sequences": lambda: [b'{"Version": "\\u001b[2J"}'],
    "a surrogate": lambda: [b'{"Version": "\\ud800"}'],
    "nothing": list,
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_answers_that_are_none(
    daemon: Daemon, authority: Authority, answer: Callable[[], Iterable[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine is a machine's: its answers are bounded in size and time, and of another shape they are no answer."""
    monkeypatch.setattr("pytest_machine.engine.LARGEST", 1 << 20)
    daemon.hostile = answer
    begun = time.monotonic()
    assert told(address(daemon), certs=authority.directory, timeout=1) == ("", "")
    with contextlib.suppress(*TROUBLE), Api(address(daemon), certs=authority.directory, timeout=1) as api:
        [each["Id"] for each in api.get("/containers/json")]
    assert time.monotonic() - begun < 8 * SLOWNESS


def test_a_large_answer_is_left(daemon: Daemon, authority: Authority) -> None:
    """By its size alone: the time for it is not over."""
    daemon.hostile = lambda: itertools.repeat(b"[" + b" " * 65535, 1024)
    with (
        Api(address(daemon), certs=authority.directory, timeout=60) as api,
        pytest.raises(ValueError, match="has more than 33,554,432 bytes"),
    ):
        api.get("/containers/json")


@pytest.mark.parametrize("api", ["1.x", "\x1b[2J", "1." + "9" * 1000, "²", "../1.41"])
def test_versions_that_are_none(daemon: Daemon, authority: Authority, api: str) -> None:
    daemon.api = api
    with pytest.raises(NotYet) as caught:
        ping(address(daemon), certs=authority.directory)
    assert str(caught.value).isprintable()


def test_a_log_is_cut(daemon: Daemon, authority: Authority) -> None:
    daemon.hostile = lambda: itertools.repeat(b"x" * 1000)
    with Api(address(daemon), certs=authority.directory, timeout=5) as api:
        assert api.read("/logs", size=5000) == b"x" * 5000


@pytest.fixture(params=["expired", "not yet"])
def untimely(
    request: pytest.FixtureRequest, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Daemon, str]]:
    """A daemon whose certificate was made by a clock that is years away."""
    years = {"expired": -30, "not yet": 30}[request.param] * 365 * 86400
    with monkeypatch.context() as patched:
        patched.setattr(clock, "now", lambda: time.time() + years)
        (tmp_path / "daemon").mkdir()
        found = Daemon(authority, tmp_path / "daemon", "127.0.0.1")
    yield found, "not valid any more" if request.param == "expired" else "not valid yet"
    found.stop()


def test_a_wait_ends_where_no_clock_makes_a_certificate_valid(
    untimely: tuple[Daemon, str], authority: Authority
) -> None:
    daemon, words = untimely
    begun = time.monotonic()
    with pytest.raises(CertificateInvalid, match=f"{words}; the clock of this computer says 2"):
        wait(lambda: ping(address(daemon), certs=authority.directory), "Docker on 'web'", timeout=300)
    assert time.monotonic() - begun < 5 * SLOWNESS
    assert words in refused(address(daemon), certs=authority.directory)


def test_which_certificate_is_the_reason(daemon: Daemon, authority: Authority, tmp_path: Path) -> None:
    where = address(daemon)
    assert refused(where, certs=authority.directory) == ""
    other = Authority.ensure(tmp_path / "other")
    assert "not signed by the machine's authority" in refused(where, certs=other.directory)
    assert "cannot be read" in refused(where, certs=tmp_path / "nowhere")
    (tmp_path / "torn").mkdir()
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / "torn" / name).write_bytes((authority.directory / name).read_bytes())
    (tmp_path / "torn" / "key.pem").write_text("x")
    assert f"'{tmp_path / 'torn' / 'key.pem'}' is damaged" in refused(where, certs=tmp_path / "torn")
    daemon.stop()
    assert refused(where, certs=authority.directory) == ""
