"""The variables that make Docker's clients talk to a machine, whatever the environment says of other engines."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import requests

from pytest_machine import bundles
from pytest_machine.certs import Authority
from pytest_machine.client_environment import INTERFERING, applied, changes
from pytest_machine.model import Address


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine's directory."""
    authority = Authority.ensure(tmp_path / "ours")
    directory = tmp_path / "machine"
    directory.mkdir()
    authority.copy_client(directory)
    return directory


def of(machine: Path, environ: dict[str, str], ip: str = "10.9.8.7") -> dict[str, str | None]:
    return changes(Address(ip=ip), name="web", certs=machine, environ=environ)


def test_where_nothing_comes_between(machine: Path) -> None:
    assert of(machine, {"PATH": "/bin", "NO_PROXY": "a", "HTTP_PROXY": "", "DOCKER_CONTEXT": ""}) == {
        "DOCKER_HOST": "tcp://10.9.8.7:2376",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(machine),
        "DOCKER_MACHINE_NAME": "web",
        "TESTCONTAINERS_RYUK_DISABLED": "true",
    }


def test_what_speaks_of_another_engine_goes(machine: Path) -> None:
    environ = {**dict.fromkeys(INTERFERING, "theirs"), "DOCKER_HOST": "ssh://theirs", "DOCKER_CONFIG": "/theirs"}
    assert {"DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS", "TESTCONTAINERS_HOST_OVERRIDE"} <= set(INTERFERING)
    shown = applied(environ, of(machine, environ))
    assert not set(INTERFERING) & shown.keys()
    # Credentials for registries are in it; the context that is chosen there loses to DOCKER_HOST.
    assert shown["DOCKER_CONFIG"] == "/theirs"


PROXY = "http://127.0.0.1:9"


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"])
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "10.9.8.7"),
        ({"NO_PROXY": "a,.b"}, "a,.b,10.9.8.7"),
        ({"no_proxy": "a"}, "a,10.9.8.7"),
        ({"NO_PROXY": "a,b", "no_proxy": "b,c"}, "a,b,c,10.9.8.7"),
        ({"NO_PROXY": " a , b:8080 c,, "}, "a,b:8080,c,10.9.8.7"),
        ({"NO_PROXY": "*"}, "*"),
        ({"no_proxy": " * ", "NO_PROXY": "a"}, "*"),
        ({"NO_PROXY": "10.9.8.7"}, "10.9.8.7"),
        ({"NO_PROXY": "10.9.8.70,10.9.8.7:1"}, "10.9.8.70,10.9.8.7:1,10.9.8.7"),
    ],
)
def test_proxies(machine: Path, proxy: str, environ: dict[str, str], expected: str) -> None:
    found = of(machine, {proxy: PROXY, **environ})
    assert (found["NO_PROXY"], found["no_proxy"]) == (expected, expected)


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("ip", ["10.9.8.7", "fd00::7", "engine.example"])
def test_clients_keep_the_users_exceptions(machine: Path, monkeypatch: pytest.MonkeyPatch, name: str, ip: str) -> None:
    """As `requests` reads it."""
    for variable in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv(name, "theirs.example, 192.0.2.0/24")
    for variable, value in of(machine, dict(os.environ), ip).items():
        monkeypatch.setenv(variable, value or "")
    host = f"[{ip}]" if ":" in ip else ip
    for url in (f"https://{host}:2376/", "https://theirs.example/", "https://192.0.2.9/"):
        assert requests.utils.should_bypass_proxies(url, no_proxy=None), url
    assert not requests.utils.should_bypass_proxies("https://other.example/", no_proxy=None)


def trusted(path: str) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return len(context.get_ca_certs())


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
class TestBundles:
    def test_a_file(self, machine: Path, tmp_path: Path, variable: str) -> None:
        theirs = Authority.ensure(tmp_path / "theirs").directory / "ca.pem"
        found = of(machine, {variable: str(theirs)})[variable]
        assert found
        assert trusted(found) == 2
        # What it is now is what it stays: a second machine's adds to it, and the same machine's does not.
        assert variable not in of(machine, {variable: found})

    def test_a_directory(self, machine: Path, tmp_path: Path, variable: str) -> None:
        """With all that stands in one: names twice, several in a file, other line ends, and what is none."""
        directory = tmp_path / "certs"
        (directory / "below").mkdir(parents=True)
        one, two, three = (Authority.ensure(tmp_path / name).ca for name in ("one", "two", "three"))
        (directory / "one.pem").write_bytes(b"a comment\n" + one)
        (directory / "0123abcd.0").symlink_to("one.pem")
        (directory / "bundle.crt").write_bytes(two.rstrip() + b"\n" + one)
        (directory / "dos.pem").write_bytes(three.replace(b"\n", b"\r\n"))
        (directory / "README").write_bytes(b"\xff\xfe no certificate")
        (directory / "key.pem").write_bytes((tmp_path / "one" / "ca-key.pem").read_bytes())
        (directory / "gone.pem").symlink_to("nowhere")
        os.mkfifo(directory / "pipe")
        found = of(machine, {variable: str(directory)})[variable]
        assert found
        assert trusted(found) == 4
        assert "PRIVATE" not in Path(found).read_text()

    def test_one_that_is_not_there(self, machine: Path, tmp_path: Path, variable: str) -> None:
        found = of(machine, {variable: str(tmp_path / "nowhere")})[variable]
        assert found
        assert trusted(found) == 1

    def test_one_that_is_empty(self, machine: Path, tmp_path: Path, variable: str) -> None:
        (tmp_path / "empty").mkdir()
        found = of(machine, {variable: str(tmp_path / "empty")})[variable]
        assert found
        assert trusted(found) == 1


SUBJECTS = ["/CN=Plain", "/C=CH/O=Some  Company, \u00c9tat/CN= Its  ROOT ca ", "/DC=corp/DC=Example/CN=x"]


@pytest.mark.real  # openssl is asked
@pytest.mark.parametrize("subject", SUBJECTS)
def test_hashes_are_openssls(tmp_path: Path, subject: str) -> None:
    def openssl(*argv: str) -> str:
        done = subprocess.run(["openssl", *argv], capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.strip()

    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8"),
        *("-keyout", "key.pem", "-out", "ca.pem", "-subj", subject),
    )
    pem = (tmp_path / "ca.pem").read_bytes()
    assert bundles.subject_hash(pem) == openssl("x509", "-hash", "-noout", "-in", "ca.pem")


def test_a_directory_of_hashes(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL finds the machine's authority and theirs in it, by name."""
    directories = [tmp_path / "first", tmp_path / "second"]
    theirs = [Authority.ensure(tmp_path / name) for name in ("one", "two")]
    for directory, authority in zip(directories, theirs, strict=True):
        directory.mkdir()
        (directory / f"{bundles.subject_hash(authority.ca)}.0").write_bytes(authority.ca)
        (directory / "README").write_text("no certificate")
    value = os.pathsep.join(map(str, [*directories, tmp_path / "nowhere"]))
    found = of(machine, {"SSL_CERT_DIR": value})["SSL_CERT_DIR"]
    assert found
    ours = Authority.ensure(tmp_path / "ours")
    hashes = [f"{bundles.subject_hash(authority.ca)}.0" for authority in (*theirs, ours)]
    assert sorted(path.name for path in Path(found).iterdir()) == sorted([*hashes, "README", "README.1"])
    for authority in (*theirs, ours):
        pair = authority.issue_server(name="x", hosts=["127.0.0.1"])
        assert verifies(pair.cert, pair.key, found, tmp_path)
    shutil.rmtree(directories[0])
    of(machine, {"SSL_CERT_DIR": value})
    assert sorted(path.name for path in Path(found).iterdir()) == sorted([*hashes[1:], "README"])


def verifies(cert: bytes, key: bytes, directory: str, tmp_path: Path) -> bool:
    """Whether a client that trusts that directory shakes hands with a server of that certificate."""
    (tmp_path / "server.pem").write_bytes(cert + b"\n" + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(capath=directory)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version() is not None
