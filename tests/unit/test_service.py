"""What is asked of a service: which questions there are, and what counts as an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pytest_machine import service
from pytest_machine.errors import UsageError
from pytest_machine.service import HostPort
from pytest_machine.waiting import NotYet


@pytest.mark.parametrize(
    ("http", "found"),
    [
        (":80", (80, "/")),
        (":8080/health?deep=1", (8080, "/health?deep=1")),
        (":8080?deep=1", (8080, "/?deep=1")),
        ("http://10.0.0.1/health", (None, "http://10.0.0.1/health")),
        ("https://[fd00::1]:8443", (None, "https://[fd00::1]:8443")),
    ],
)
def test_pages(http: str, found: tuple[int | None, str]) -> None:
    assert service.page(http) == found


@pytest.mark.parametrize(
    "http",
    [
        "",
        "/health",
        "8080",
        ":http/",
        ":0/",
        ":65536/",
        "localhost:8080/health",
        "file:///etc/passwd",
        "ftp://10.0.0.1/",
        "http:///health",
        "http://10.0.0.1:http/",
        "http://10.0.0.1:65536/",
        "http://[fd00::1/",
        "http://jo:secret@10.0.0.1/",
        ":8080/two words",
        ":8080/straße",
        8080,
        b":8080/",
        ["/"],
    ],
)
def test_what_is_no_page(http: Any) -> None:
    with pytest.raises(UsageError) as refused:
        service.page(http)
    assert "hint: machine.wait_for(" in str(refused.value)
    assert refused.value.facts["reason"]


@pytest.mark.parametrize("port", ["80", 0, -1, 65536, 80.0, True])
def test_what_is_no_port(port: Any) -> None:
    with pytest.raises(UsageError, match="is no port") as refused:
        service.number(port)
    assert refused.value.hint == "machine.wait_for(port=80)"


def test_a_log_is_searched_for_a_text() -> None:
    anything: Any
    for anything in (3, b"ready", ["ready"]):
        with pytest.raises(UsageError, match="a regular expression, as text"):
            service.pattern(anything, "web")


@contextlib.contextmanager
def served(answer: bytes) -> Iterator[HostPort]:
    """Whoever connects is told this at once, and hung up on when they hang up or have said a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with caller:
                        caller.sendall(answer)
                        caller.shutdown(socket.SHUT_WR)
                        caller.recv(4096)

        threading.Thread(target=serve, daemon=True).start()
        yield HostPort("127.0.0.1", server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "its answer is no HTTP: BadStatusLine SSH-2.0-OpenSSH_9.2"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200, "HTTPException got more than 100 headers"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://other:port/\r\n\r\n", "InvalidURL nonnumeric port: 'port'"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "HTTP 302"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "HTTP 503 Busy"),
    ],
)
def test_no_answer_yet(answer: bytes, says: str) -> None:
    with served(answer) as place, pytest.raises(NotYet) as seen:
        service.answers(f"http://{place}/")
    assert says in str(seen.value)


def test_an_answer() -> None:
    with served(b"HTTP/1.1 200 OK\r\n\r\n") as place:
        service.answers(f"http://{place}/")


def test_whoever_hangs_up_at_once_is_nobody_behind_a_port_that_is_forwarded() -> None:
    with served(b"") as place:
        with pytest.raises(NotYet, match="nobody listens there"):
            service.listens(replace(place, forwarded=True))
        service.listens(place)
    with served(b"220 ready\r\n") as place:
        service.listens(replace(place, forwarded=True))


def _bound(*places: str) -> Sequence[Mapping[str, str]]:
    return [{"HostIp": at, "HostPort": str(port)} for port, at in enumerate(places, 1)]


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        (_bound("0.0.0.0", "::"), ("", 1)),
        (_bound(""), ("", 1)),
        (_bound("127.0.0.1"), ("127.0.0.1", 1)),
        (_bound("::1"), ("::1", 1)),
        (_bound("127.0.0.1", "10.0.0.1"), ("10.0.0.1", 2)),
        (_bound("127.0.0.1", "10.0.0.1", "0.0.0.0"), ("", 3)),
    ],
)
def test_where_a_port_is_best_reached(bound: Sequence[Mapping[str, str]], found: tuple[str, int]) -> None:
    assert service.published(bound) == found


def test_an_address_as_a_url_wants_it() -> None:
    assert str(HostPort("10.0.0.1", 80)) == "10.0.0.1:80"
    assert str(HostPort("fd00::1", 80)) == "[fd00::1]:80"


def test_a_server_that_sends_single_bytes_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends its status line a byte at a time, so that no time-out of a single read ever ends."""
    monkeypatch.setattr(service, "_ANSWER", 0.5)
    left = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 ")
            while not left.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server,))
        dripping.start()
        try:
            with pytest.raises(NotYet, match="did not answer in full"):
                service.answers(f"http://127.0.0.1:{server.getsockname()[1]}/")
            assert dripping.is_alive()
        finally:
            left.set()
            dripping.join()
