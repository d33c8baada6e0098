"""PEM files in whose place something else is, and servers that send byte by byte."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine import certs, contexts, endpoint, engine
from pytest_machine.certs import Authority
from pytest_machine.client_environment import changes
from pytest_machine.errors import StoreError
from pytest_machine.knock import context, ping
from pytest_machine.model import Address, Record
from pytest_machine.support import pems
from pytest_machine.support.parsing import Malformed

NAMES = ["ca.pem", "cert.pem", "key.pem"]


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


ODD: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "directory": os.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "huge": huge,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("garbage"),
    "half": lambda path: path.write_text("-----BEGIN CERTIFICATE-----\nMIIB"),
}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has neither FIFOs nor /dev/zero")


@pytest.fixture(params=list(ODD))
def odd(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return ODD[str(request.param)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Authority.ensure(tmp_path / "it's $HOME").directory


@pytest.fixture
def listening() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address(ip="127.0.0.1", engine_port=server.getsockname()[1])


def refused(ask: Callable[[], object], path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        ask()
    assert time.monotonic() - begun < 5
    # Of a file with the right first line, OpenSSL alone can tell: it names the pair.
    assert str(path.parent) in str(caught.value)
    assert caught.value.hint
    assert caught.value.facts["reason"]


@pytest.mark.parametrize("name", NAMES)
def test_a_client_says_which_file_is_damaged(
    directory: Path, listening: Address, name: str, odd: Callable[[Path], object]
) -> None:
    (directory / name).unlink()
    odd(directory / name)
    refused(lambda: context(directory), directory / name)
    refused(lambda: ping(listening, certs=directory), directory / name)
    refused(lambda: engine.client(listening, certs=directory), directory / name)
    assert engine.version(listening, certs=directory) == ""
    assert "damaged" in engine.refused(listening, certs=directory)
    engine.quiesce(listening, certs=directory, grace=1)


@pytest.mark.parametrize("name", [*NAMES, "ca-key.pem"])
def test_an_authority_says_which_file_is_damaged(directory: Path, name: str, odd: Callable[[Path], object]) -> None:
    (directory / name).unlink()
    odd(directory / name)
    refused(lambda: Authority.ensure(directory), directory / name)
    if name == "cert.pem":
        refused(lambda: certs.lasts(directory / name), directory / name)
        refused(lambda: certs.expires(directory / name), directory / name)


def test_copies_are_made_of_pem_files_alone(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., Record]
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (directory / "ca.pem").unlink()
    os.mkfifo(directory / "ca.pem")
    address = Address(ip="10.0.0.2")
    record = make_record(address=address)
    refused(lambda: contexts.add(record, address, certs=directory), directory / "ca.pem")
    surroundings = {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}
    refused(lambda: changes(address, name="web", certs=directory, environ=surroundings), directory / "ca.pem")
    with pytest.raises(ValueError, match=r"ca\.pem: it is a FIFO"):
        endpoint.Endpoint("tcp://10.0.0.2:2376", str(directory), verify=True)._tls()


def test_a_link_to_a_pem_file_is_followed(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "link.pem").symlink_to(directory / "ca.pem")
    assert pems.read(tmp_path / "link.pem") == (directory / "ca.pem").read_bytes()
    (tmp_path / "loop.pem").symlink_to(tmp_path / "loop.pem")
    with pytest.raises((Malformed, OSError)):
        pems.read(tmp_path / "loop.pem")


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x03\x40\x00\x02"])
def test_a_server_that_sends_byte_by_byte_is_left_in_time(directory: Path, first: bytes) -> None:
    over = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            try:
                connection.sendall(first)
                while not over.wait(0.1):
                    connection.sendall(b"\x00" if first else b"\x16")
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=[server])
        thread.start()
        begun = time.monotonic()
        try:
            with pytest.raises(OSError, match=r".+"):
                ping(Address(ip="127.0.0.1", engine_port=server.getsockname()[1]), certs=directory, timeout=1)
            assert time.monotonic() - begun < 4
        finally:
            over.set()
            thread.join()
