from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from pytest_machine.certs import Authority, expires
from pytest_machine.errors import BadSpec, StoreError
from pytest_machine.support import clock

FILES = ["ca-key.pem", "ca.pem", "cert.pem", "key.pem"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.ensure(tmp_path / "certs")


def content(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in FILES}


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


class Server:
    """A TLS server that says hello to clients of its authority."""

    def __init__(self, authority: Authority, directory: Path, *hosts: str) -> None:
        pair = authority.issue_server(name="web", hosts=hosts)
        (directory / "server.pem").write_bytes(pair.cert + pair.key)
        self.context = strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.context.load_cert_chain(directory / "server.pem")
        self.context.load_verify_locations(authority.directory / "ca.pem")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            plain, _ = self.socket.accept()
            with plain:
                try:
                    if plain.recv(1, socket.MSG_PEEK) == b"":
                        return
                    with self.context.wrap_socket(plain, server_side=True) as secure:
                        secure.sendall(b"hello")
                except OSError:  # a client that is refused, or refuses us
                    continue

    def hello(self, client: Path, host: str, *, ca: Path | None = None) -> bytes:
        context = strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        context.load_verify_locations(ca or client / "ca.pem")
        context.load_cert_chain(client / "cert.pem", client / "key.pem")
        with (
            socket.create_connection(self.socket.getsockname(), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            return secure.recv(10)

    def close(self) -> None:
        # A client that says nothing.
        socket.create_connection(self.socket.getsockname()).close()
        self.thread.join()
        self.socket.close()


def strict(context: ssl.SSLContext) -> ssl.SSLContext:
    # What Python 3.13 does by default.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize("host", ["10.1.2.3", "fd00::7", "web.lab", "localhost", "127.0.0.1"])
def test_server_and_client_know_each_other(authority: Authority, tmp_path: Path, host: str) -> None:
    server = Server(authority, tmp_path, "10.1.2.3", "fd00::7", "web.lab")
    try:
        assert server.hello(authority.directory, host) == b"hello"
    finally:
        server.close()


def test_strangers_are_refused(authority: Authority, tmp_path: Path) -> None:
    server = Server(authority, tmp_path, "10.1.2.3")
    other = Authority.ensure(tmp_path / "other")
    try:
        for host in ("10.1.2.4", "elsewhere"):
            with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
                server.hello(authority.directory, host)
        with pytest.raises(ssl.SSLCertVerificationError):
            server.hello(other.directory, "10.1.2.3")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.hello(other.directory, "10.1.2.3", ca=authority.directory / "ca.pem")
        assert server.hello(authority.directory, "10.1.2.3") == b"hello"
    finally:
        server.close()


def test_a_servers_pair_is_no_clients(authority: Authority, tmp_path: Path) -> None:
    """Who takes over one machine cannot log in to the next with what lies there."""
    pair = authority.issue_server(name="db", hosts=["10.1.2.4"])
    thief = tmp_path / "thief"
    thief.mkdir()
    (thief / "ca.pem").write_bytes(authority.ca)
    (thief / "cert.pem").write_bytes(pair.cert)
    (thief / "key.pem").write_bytes(pair.key)
    server = Server(authority, tmp_path, "10.1.2.3")
    try:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.hello(thief, "10.1.2.3")
    finally:
        server.close()


def test_it_is_made_once(authority: Authority) -> None:
    before = content(authority.directory)
    again = Authority.ensure(authority.directory)
    assert again == authority
    assert content(authority.directory) == before


@pytest.mark.real
def test_ten_at_once_make_one(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from pytest_machine.certs import Authority
found = Authority.ensure(Path(sys.argv[1]))
sys.stdout.buffer.write(found.ca + (found.directory / "cert.pem").read_bytes())
"""
    directory = tmp_path / "deep" / "certs"
    argv = [sys.executable, "-W", "error", "-c", code, str(directory)]
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(10)]
    outputs = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 10
    assert len(outputs) == 1
    load(directory / "cert.pem").verify_directly_issued_by(load(directory / "ca.pem"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")
def test_keys_are_private(authority: Authority, tmp_path: Path) -> None:
    machine = tmp_path / "machine"
    machine.mkdir()
    authority.copy_client(machine)
    for key in (authority.directory / "ca-key.pem", authority.directory / "key.pem", machine / "key.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in machine.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert not {"ca-key.pem"} & {path.name for path in machine.iterdir()}
    assert "PRIVATE" not in repr(authority) + repr(authority.issue_server(name="a", hosts=[]))


def test_times(authority: Authority) -> None:
    now = datetime.now(UTC)
    assert timedelta(days=824) < expires(authority.directory / "cert.pem") - now <= timedelta(days=825)
    assert expires(authority.directory / "ca.pem") - now > timedelta(days=3 * 825)
    # A machine whose clock is an hour behind.
    assert load(authority.directory / "cert.pem").not_valid_before_utc < now - timedelta(hours=1)


def test_what_is_old_is_renewed_and_what_was_signed_stays_good(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(authority, tmp_path, "10.1.2.3")
    before = content(authority.directory)
    shutil.copytree(authority.directory, tmp_path / "machine")

    today = datetime.now(UTC)

    def changed(days: int) -> list[str]:
        monkeypatch.setattr(clock, "utc", lambda: today + timedelta(days=days))
        Authority.ensure(authority.directory)
        after = content(authority.directory)
        return [name for name in FILES if before[name] != after[name]]

    try:
        assert changed(540) == []
        assert changed(560) == ["cert.pem"]
        assert changed(2500) == ["ca.pem", "cert.pem"]
        # By now the new ones are not valid yet; take them back in time to see that they fit the old ones.
        monkeypatch.undo()
        new, old = load(authority.directory / "ca.pem"), load(tmp_path / "machine" / "ca.pem")
        assert new.subject == old.subject
        load(tmp_path / "server.pem").verify_directly_issued_by(new)
        load(tmp_path / "machine" / "cert.pem").verify_directly_issued_by(new)
        load(authority.directory / "cert.pem").verify_directly_issued_by(old)
    finally:
        server.close()


def test_a_lost_client_is_issued_anew(authority: Authority, tmp_path: Path) -> None:
    before = content(authority.directory)
    (authority.directory / "key.pem").unlink()
    Authority.ensure(authority.directory)
    after = content(authority.directory)
    assert [name for name in FILES if before[name] != after[name]] == ["cert.pem", "key.pem"]
    server = Server(authority, tmp_path, "10.1.2.3")
    try:
        assert server.hello(authority.directory, "10.1.2.3") == b"hello"
    finally:
        server.close()


def test_another_authoritys_client_is_replaced(authority: Authority, tmp_path: Path) -> None:
    other = Authority.ensure(tmp_path / "other")
    shutil.copy(other.directory / "cert.pem", authority.directory)
    Authority.ensure(authority.directory)
    load(authority.directory / "cert.pem").verify_directly_issued_by(load(authority.directory / "ca.pem"))


def test_a_crash_between_key_and_certificate_heals(authority: Authority) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (authority.directory / name).unlink()
    key = (authority.directory / "ca-key.pem").read_bytes()
    Authority.ensure(authority.directory)
    assert (authority.directory / "ca-key.pem").read_bytes() == key
    load(authority.directory / "cert.pem").verify_directly_issued_by(load(authority.directory / "ca.pem"))


def docker_machines(directory: Path) -> None:
    """Make an authority as Docker Machine does: RSA, PKCS#1, an organization and no common name, three years."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "jo.laptop")])
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ["content_commitment", "data_encipherment", "crl_sign", "encipher_only", "decipher_only"], False
    )
    usage |= dict.fromkeys(["digital_signature", "key_encipherment", "key_agreement", "key_cert_sign"], True)
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1080))
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir()
    (directory / "ca.pem").write_bytes(cert.public_bytes(Encoding.PEM))
    (directory / "ca-key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )


def test_docker_machines_authority_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_machines(tmp_path / "theirs")
    before = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    authority = Authority.ensure(tmp_path / "theirs")
    after = content(authority.directory)
    assert {name: after[name] for name in before} == before
    # Theirs has no key identifier, which is what Python's strictness asks for.
    monkeypatch.setitem(globals(), "strict", lambda context: context)
    server = Server(authority, tmp_path, "10.1.2.3")
    try:
        assert server.hello(authority.directory, "10.1.2.3") == b"hello"
    finally:
        server.close()


@pytest.mark.parametrize("file", ["ca.pem", "ca-key.pem", "cert.pem", "key.pem"])
def test_what_cannot_be_read_is_named(authority: Authority, file: str) -> None:
    (authority.directory / file).write_text("garbage")
    with pytest.raises(StoreError, match=f"'{file}' of the certificate authority"):
        Authority.ensure(authority.directory)


def test_an_authority_without_its_key_is_named(authority: Authority, tmp_path: Path) -> None:
    other = Authority.ensure(tmp_path / "other")
    shutil.copy(other.directory / "ca-key.pem", authority.directory)
    with pytest.raises(StoreError, match="does not belong to"):
        Authority.ensure(authority.directory)
    (authority.directory / "ca-key.pem").unlink()
    with pytest.raises(StoreError, match=r"'ca-key\.pem'"):
        Authority.ensure(authority.directory)


def test_a_long_name_and_one_said_twice(authority: Authority) -> None:
    pair = authority.issue_server(name="x" * 100, hosts=["127.0.0.1", "localhost", "a", "a"])
    found = x509.load_pem_x509_certificate(pair.cert).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(name.value) for name in found.value] == ["127.0.0.1", "localhost", "a"]
    assert load_pem_private_key(pair.key, None)


class TestElsewhere:
    """Files that the user keeps in places of their own."""

    @staticmethod
    def places(directory: Path, *names: str) -> dict[str, str]:
        return {name: str(directory / f"my-{name}") for name in names}

    def test_they_are_made_there(self, tmp_path: Path) -> None:
        mine = self.places(tmp_path / "mine", "ca.pem", "ca-key.pem", "cert.pem", "key.pem")
        Authority.ensure(tmp_path / "certs", mine).copy_client(tmp_path)
        assert {name: (tmp_path / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem")} == {
            name: Path(mine[name]).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem")
        }
        assert not list((tmp_path / "certs").glob("*.pem"))

    def test_another_authority_leaves_the_stores_own_pair_alone(self, tmp_path: Path) -> None:
        own = Authority.ensure(tmp_path / "certs")
        before = content(tmp_path / "certs")
        other = Authority.ensure(tmp_path / "certs", self.places(tmp_path / "mine", "ca.pem", "ca-key.pem"))
        assert other.ca != own.ca
        other.copy_client(tmp_path)
        signed = x509.load_pem_x509_certificate((tmp_path / "cert.pem").read_bytes())
        signed.verify_directly_issued_by(x509.load_pem_x509_certificate(other.ca))
        assert content(tmp_path / "certs") == before

    def test_they_are_never_replaced(self, tmp_path: Path) -> None:
        mine = self.places(tmp_path / "mine", "ca.pem", "ca-key.pem", "cert.pem", "key.pem")
        Authority.ensure(tmp_path / "certs", mine)
        before = {path: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
        Authority.ensure(tmp_path / "certs", mine)
        with pytest.raises(StoreError, match=r"'key\.pem' of the certificate authority"):
            Authority.ensure(tmp_path / "certs", {**mine, "key.pem": str(tmp_path / "key.pem")})
        assert {path: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before
        stranger = Authority.ensure(tmp_path / "stranger")
        shutil.copy(stranger.directory / "cert.pem", mine["cert.pem"])
        with pytest.raises(StoreError, match=r"'my-cert\.pem' of the certificate authority cannot be used") as caught:
            Authority.ensure(tmp_path / "certs", mine)
        assert "did not sign it" in str(caught.value)
        assert "--tls-client-cert" in caught.value.hint
        shutil.copy(stranger.directory / "ca.pem", mine["ca.pem"])
        with pytest.raises(StoreError, match=r"'my-ca\.pem'.*") as caught:
            Authority.ensure(tmp_path / "certs", mine)
        assert "it does not belong to 'my-ca-key.pem'" in str(caught.value)


def test_names_that_dns_spells_otherwise(tmp_path: Path) -> None:
    authority = Authority.ensure(tmp_path)
    cert = x509.load_pem_x509_certificate(authority.issue_server(name="web", hosts=["münchen.example"]).cert)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["xn--mnchen-3ya.example", "localhost"]
    with pytest.raises(BadSpec, match="A certificate cannot be for"):
        authority.issue_server(name="web", hosts=["\udcff"])
