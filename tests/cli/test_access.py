"""``export`` and ``import``: a machine's access under a passphrase, used elsewhere, and forgotten there alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine.sealed import seal
from pytest_machine.store import Store

from .conftest import Program
from .terminal import at_terminal

PASSPHRASE = "correct horse"


@pytest.fixture
def passphrase(quick: Program) -> str:
    quick.environ["PYTEST_MACHINE_PASSPHRASE"] = PASSPHRASE
    return PASSPHRASE


@pytest.fixture
def elsewhere(quick: Program, tmp_path: Path) -> dict[str, str]:
    """The variables of another computer's command line."""
    return {"MACHINE_STORAGE_PATH": str(tmp_path / "elsewhere")}


@pytest.mark.usefixtures("passphrase")
class TestThereAndBack:
    def test_it_is_used_and_forgotten(self, quick: Program, elsewhere: dict[str, str], tmp_path: Path) -> None:
        quick.make("web")
        file = tmp_path / "web.access"
        said = quick("export", "web", "-o", str(file))
        assert (said.code, said.err) == (0, "")
        assert said.out == f"The access to \"web\" is in '{file}': docker-machine import '{file}'\n"
        said = quick("import", str(file), **elsewhere)
        assert (said.code, said.err) == (0, "")
        assert said.out == '"web" can be used now: python -m pytest_machine env web\n'
        for command in ("ip", "url"):
            assert quick(command, "web", **elsewhere).out == quick(command, "web").out
        assert quick("status", "web", **elsewhere).out == "Running\n"
        place = f"{elsewhere['MACHINE_STORAGE_PATH']}/machines/web"
        assert f'DOCKER_CERT_PATH="{place}"' in quick("env", "--shell", "bash", "web", **elsewhere).out
        # It has asked the machine over TLS, with what came along.
        assert f'--tlscert="{place}/cert.pem"' in quick("config", "web", **elsewhere).out
        assert quick("ls", **elsewhere).out.splitlines()[1].split()[:4] == ["web", "-", "imported", "Running"]
        assert json.loads(quick("inspect", "web", **elsewhere).out)["DriverName"] == "imported"
        assert quick("version", "web", **elsewhere).out == "fake\n"
        assert "does not support stop" in quick("stop", "web", **elsewhere).err

        said = quick("rm", "web", input="y\n", **elsewhere)
        assert said.code == 0
        assert "remote instance" not in said.out
        assert 'The machine "web" is somebody else\'s: only its local reference was removed\n' in said.out
        assert Store(Path(elsewhere["MACHINE_STORAGE_PATH"])).names() == []
        assert quick("status", "web").out == "Running\n"

    def test_what_goes_along(self, quick: Program, elsewhere: dict[str, str], tmp_path: Path) -> None:
        assert quick("create", "-d", "cloud", "web", CLOUD_API_KEY="opensesame").code == 0
        file = tmp_path / "web.access"
        assert quick("export", "web", "-o", str(file)).code == 0
        assert file.stat().st_mode & 0o777 == 0o600
        text = file.read_bytes()
        for name in ("id_ed25519", "key.pem", "ca.pem"):
            kept = (quick.store.path / "machines" / "web" / name).read_bytes().splitlines()
            assert not [line for line in kept if len(line) > 8 and line in text]
        assert [path.name for path in tmp_path.glob("*web*")] == ["web.access"]
        assert quick("import", str(file), **elsewhere).code == 0
        place = Path(elsewhere["MACHINE_STORAGE_PATH"])
        files = {path.name: path.stat().st_mode & 0o777 for path in (place / "machines" / "web").iterdir()}
        assert files == {
            "pytest-machine.json": 0o600,
            "id_ed25519": 0o600,
            "id_ed25519.pub": 0o644,
            "known_hosts": 0o600,
            "ca.pem": 0o644,
            "cert.pem": 0o644,
            "key.pem": 0o600,
        }
        # The authority's key stays where it is, and so does what the driver was told in confidence.
        everything = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
        assert (quick.store.certificates / "ca-key.pem").read_bytes().splitlines()[1] not in everything
        assert b"opensesame" not in everything
        record = Store(place).load("web")
        assert record.options == {"origin": "cloud"}
        assert record.id != quick.store.load("web").id

    def test_under_another_name_beside_it_and_on(self, quick: Program, tmp_path: Path) -> None:
        quick.make("web")
        file = tmp_path / "web.access"
        quick("export", "web", "-o", str(file))
        said = quick("import", str(file))
        assert said.code == 2
        assert said.err.startswith('Docker machine "web" already exists\nhint: docker-machine import --name NEW')
        assert quick("import", str(file), "--name", "twin").code == 0
        # Exported once more it still says who has made it.
        assert quick("export", "twin", "-o", str(tmp_path / "twin.access")).code == 0
        assert quick("import", str(tmp_path / "twin.access"), "--name=triplet").code == 0
        assert quick.store.load("triplet").options == {"origin": "fake"}
        assert quick("url", "triplet").out == quick("url", "web").out
        said = quick("rm", "-f", "twin", "triplet")
        assert said.code == 0
        assert quick("status", "web").out == "Running\n"
        assert quick("rm", "-y", "web").code == 0
        assert quick.left == set()

    def test_one_that_does_not_answer(self, quick: Program, elsewhere: dict[str, str], tmp_path: Path) -> None:
        quick.make("web")
        file = tmp_path / "web.access"
        quick("export", "web", "-o", str(file))
        quick("import", str(file), **elsewhere)
        quick("rm", "-y", "web")
        assert quick("status", "web", **elsewhere).out == "Stopped\n"
        assert quick("ip", "web", **elsewhere).err == "Error getting IP address: Host is not running\n"
        assert quick("rm", "-y", "web", **elsewhere).code == 0

    def test_through_a_pipe(self, quick: Program, elsewhere: dict[str, str]) -> None:
        quick.make("web")
        sealed = quick("export", "web", "-o", "-").out
        assert quick("import", "-", input=sealed, **elsewhere).code == 0
        assert quick("status", "web", **elsewhere).out == "Running\n"

    def test_a_file_that_is_there(self, quick: Program, tmp_path: Path) -> None:
        quick.make("web")
        file = tmp_path / "thesis.doc"
        file.write_text("years of work")
        said = quick("export", "web", "-o", str(file))
        assert said.code == 2
        assert said.err.startswith(f"There is already a file '{file}'.\nhint: ")
        assert file.read_text() == "years of work"
        assert quick("export", "web", "-f", "-o", str(file)).code == 0

    @pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
    def test_an_import_that_was_killed(
        self, quick: Program, elsewhere: dict[str, str], tmp_path: Path, rounds: Callable[[int, int], int]
    ) -> None:
        quick.make("web")
        file = tmp_path / "web.access"
        quick("export", "web", "-o", str(file))
        quick("import", str(file), **elsewhere)
        store = Store(Path(elsewhere["MACHINE_STORAGE_PATH"]))
        store.save(store.load("web").with_(ready=None))  # as it is until the last of its files is there
        (store.load("web").directory / "key.pem").unlink()
        assert quick("import", str(file), **elsewhere).code == 0
        assert quick("version", "web", **elsewhere).out == "fake\n"
        environ = {**quick.environ, **elsewhere}
        for _ in range(rounds(30, 1)):
            with subprocess.Popen(quick.argv("import", str(file), "--name=x"), env=environ) as process:
                time.sleep(random.uniform(0.1, 1.5))
                process.send_signal(signal.SIGKILL)
            if "x" in store.names() and store.load("x").ready is not None:
                assert quick("rm", "-y", "x", **elsewhere).code == 0
        assert quick("import", str(file), "--name=x", **elsewhere).code == 0
        assert quick("version", "x", **elsewhere).out == "fake\n"


class TestPassphrase:
    def test_by_file(self, quick: Program, elsewhere: dict[str, str], tmp_path: Path) -> None:
        quick.make("web")
        secret = tmp_path / "secret"
        secret.write_text(f"{PASSPHRASE}\nand what else is there\n")
        assert quick("export", "web", "-o", str(tmp_path / "f"), "--passphrase-file", str(secret)).code == 0
        said = quick("import", str(tmp_path / "f"), **elsewhere, PYTEST_MACHINE_PASSPHRASE="another")
        assert said.code == 2
        assert said.err.startswith("The passphrase does not open 'f'.\n")
        assert quick("import", str(tmp_path / "f"), **elsewhere, PYTEST_MACHINE_PASSPHRASE=PASSPHRASE).code == 0

    def test_none(self, quick: Program, tmp_path: Path) -> None:
        quick.make("web")
        said = quick("export", "web", "-o", str(tmp_path / "f"))
        assert said.code == 2
        assert "hint: --passphrase-file FILE, or the variable PYTEST_MACHINE_PASSPHRASE" in said.err
        said = quick("export", "web", "-o", str(tmp_path / "f"), PYTEST_MACHINE_PASSPHRASE="")
        assert said.err.startswith("The variable 'PYTEST_MACHINE_PASSPHRASE' is empty, which is no passphrase.\n")
        said = quick("export", "web", "-o", str(tmp_path / "f"), "--passphrase-file", str(tmp_path / "nix"))
        assert said.code == 1
        assert "No such file" in said.err
        assert not (tmp_path / "f").exists()

    @pytest.mark.skipif(os.name == "nt", reason="there is no pty")
    def test_at_a_terminal_twice(self, quick: Program, elsewhere: dict[str, str], tmp_path: Path) -> None:
        quick.make("web")
        file = str(tmp_path / "f")
        shown, code = at_terminal(
            quick.argv("export", "web", "-o", file),
            [
                "Passphrase: ",
                PASSPHRASE,
                "confirmation: ",
                "mistyped",
                "Passphrase: ",
                PASSPHRASE,
                "confirmation: ",
                PASSPHRASE,
            ],
            environ=quick.environ,
        )
        assert code == 0, shown
        assert PASSPHRASE not in shown
        assert shown.count("Passphrase:") == 2
        assert shown.count("Repeat for confirmation:") == 2
        shown, code = at_terminal(
            quick.argv("import", file, "--name", "twin"), ["Passphrase: ", PASSPHRASE], environ=quick.environ
        )
        assert code == 0, shown
        assert "Repeat" not in shown


@pytest.mark.parametrize("command", ["export", "import"])
@pytest.mark.usefixtures("passphrase")
def test_nothing_of_that_name(quick: Program, command: str) -> None:
    said = quick(command, "nix")
    assert said.code == 2
    assert "nix" in said.err


@pytest.mark.usefixtures("passphrase")
def test_what_is_no_access(quick: Program, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"\0\xff something")
    said = quick("import", str(file))
    assert (said.code, said.err.splitlines()[0]) == (1, "The file 'f' is none that 'export' makes.")
    for content in ("", "[]", "{}", '{"version": 2}', '{"version": 1, "machine": {"name": "../a"}, "files": {}}'):
        file.write_bytes(seal(content.encode(), PASSPHRASE, cost=16))
        said = quick("import", str(file))
        assert (said.code, said.err.splitlines()[0]) == (1, "The file 'f' opens, but holds no access.")


@pytest.mark.usefixtures("passphrase")
@pytest.mark.parametrize("address", [{"user": "-oProxyCommand=touch it"}, {"ip": "192.0.2.1\n  ProxyCommand touch it"}])
def test_an_access_that_would_run_a_command_here(quick: Program, tmp_path: Path, address: dict[str, str]) -> None:
    """What OpenSSH is given comes from whoever made the file."""
    file = tmp_path / "f"
    machine = {
        "name": "web", "driver": "imported", "options": {}, "engine": {}, "created": 1.0, "ready": 1.0,
        "address": {"ip": "192.0.2.1", **address},
    }  # fmt: skip
    content = json.dumps({"version": 1, "machine": machine, "files": {}})
    file.write_bytes(seal(content.encode(), PASSPHRASE, cost=16))
    said = quick("import", str(file))
    assert (said.code, said.err.splitlines()[0]) == (1, "The file 'f' opens, but holds no access.")
    assert "which " in said.err
    assert quick.store.names() == []


def test_the_imported_are_not_made(quick: Program) -> None:
    said = quick("create", "-d", "imported", "a")
    assert said.code == 3
    assert "hint: docker-machine import FILE" in said.err


def test_a_file_that_there_is_not(program: Program) -> None:
    said = program.here("import", "absent.access")
    assert said.code == 2
    assert said.err.startswith("The file 'absent.access' cannot be read.\n  reason  No such file or directory\nhint: ")


BREAK = "22\n  ProxyCommand touch it"
BAD_ADDRESSES = [
    {"ssh_port": BREAK}, {"ssh_port": "22"}, {"ssh_port": 0.5}, {"ssh_port": 65536}, {"ssh_port": -1},
    {"ssh_port": True}, {"ssh_port": None}, {"engine_port": BREAK}, {"engine_port": [22]}, {"engine_port": 10**30},
    {"engine": "tcp://192.0.2.1:22\nexport X=1"}, {"engine": "ssh://-oProxyCommand=touch it/x"},
    {"engine": "unix:///var/run/docker.sock"}, {"engine": "tcp://["}, {"engine": "tcp://a:99999"}, {"engine": 1},
    {"engine": "tcp://a:1/$(touch it)"}, {"engine": "tcp://u:p@a:1"}, {"engine": "tcp://-a:1"},
    {"inner": "192.0.2.1\n"}, {"inner": 7}, {"inner": "-x"}, {"inner": "fe80::1%eth0;x"},
    {"ip": ""}, {"ip": "-v"}, {"ip": "a b"}, {"ip": 'a"b'}, {"ip": "300.1.1.1"}, {"ip": "fe80::1%a b"},
    {"ip": "\ud800"}, {"ip": None}, {"ip": ["192.0.2.1"]},
    {"ip": "a" * 300}, {"ip": "${HOME}"}, {"ip": "%h"}, {"ip": "a;b"},
    {"user": "a b"}, {"user": "a\tb"}, {"user": "%r"}, {"user": "${USER}"}, {"user": ""}, {"user": 0}, {"user": "a;b"},
    {"user": "`id`"}, {"user": "\x1b[2J"}, {"user": "-l"}, {"user": "a\u202eb"}, {"user": "a" * 65},
]  # fmt: skip
BAD_MACHINES = [
    {"name": "../a"}, {"name": "-rf"}, {"name": "a\nb"}, {"name": 1}, {"name": ""}, {"name": "a" * 64},
    {"driver": "none"}, {"options": {"origin": "a\nb"}}, {"options": {"origin": ["x"]}}, {"options": []}, {"engine": 1},
    {"engine": {"options": "\ud800"}}, {"created": "1"}, {"created": -1}, {"created": 1e300}, {"ready": "now"},
    {"address": None}, {"address": []}, {"address": "192.0.2.1"},
]  # fmt: skip
BAD_FILES = [
    {"ca.pem": ""}, {"ca.pem": 1}, {"ca.pem": "x"}, {"cert.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END"},
    {"key.pem": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, {"key.pem": "\ud800"},
    {"id_ed25519": "a key"},
    {"id_ed25519": "-----BEGIN OPENSSH PRIVATE KEY-----\n!\n-----END OPENSSH PRIVATE KEY-----"},
    {"id_ed25519.pub": "ssh-ed25519 AAAA\nssh-ed25519 AAAA"}, {"id_ed25519.pub": 'command="x" ssh-ed25519 AAAA'},
    {"known_hosts": "@cert-authority * ssh-ed25519 AAAA"}, {"known_hosts": "@revoked a ssh-ed25519 AAAA"},
    {"known_hosts": "a b c"}, {"known_hosts": "192.0.2.1 ssh-ed25519 A\x00"}, {"known_hosts": ["a"]},
    {"ca.pem": "x" * 100_000},
]  # fmt: skip


def bad(part: str, changes: dict[str, object]) -> bytes:
    machine: dict[str, object] = {
        "name": "web", "driver": "imported", "options": {}, "engine": {}, "created": 1.0, "ready": 1.0,
        "address": {"ip": "192.0.2.1", "user": "root", "ssh_port": 22, "engine_port": 2376},
    }  # fmt: skip
    files: dict[str, object] = {}
    if part == "address":
        machine["address"] = {**machine["address"], **changes}  # type: ignore[dict-item]
    elif part == "files":
        files = changes
    else:
        machine |= changes
    return json.dumps({"version": 1, "machine": machine, "files": files}).encode()


@pytest.mark.usefixtures("passphrase")
@pytest.mark.parametrize(
    ("part", "changes"),
    [
        *[("address", each) for each in BAD_ADDRESSES],
        *[("machine", each) for each in BAD_MACHINES],
        *[("files", each) for each in BAD_FILES],
    ],
    ids=lambda value: value if isinstance(value, str) else ascii(value)[:40],
)
def test_every_value_is_parsed_at_its_entry(
    quick: Program, tmp_path: Path, part: str, changes: dict[str, object]
) -> None:
    file = tmp_path / "f"
    file.write_bytes(seal(bad(part, changes), PASSPHRASE, cost=16))
    said = quick("import", str(file))
    assert (said.code, said.err.splitlines()[0]) == (1, "The file 'f' opens, but holds no access."), said
    assert len(said.err.splitlines()) == 3, said.err
    assert said.err.isprintable() or set(said.err) - {"\n"} == {c for c in said.err if c.isprintable()}
    assert quick.store.names() == []


@pytest.mark.usefixtures("passphrase")
@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 100_000, b"\xff\xfe", b"NaN", b"null", b'{"version": 1e999}', b'{"version": %s}' % (b"9" * 5000)],
    ids=lambda content: repr(content[:12]),
)
def test_content_that_cannot_be_read(quick: Program, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "f"
    file.write_bytes(seal(content, PASSPHRASE, cost=16))
    said = quick("import", str(file))
    assert (said.code, said.err.splitlines()[0]) == (1, "The file 'f' opens, but holds no access.")


@pytest.mark.skipif(os.name == "nt", reason="FIFOs are POSIX's")
@pytest.mark.usefixtures("passphrase")
def test_what_is_not_a_file(quick: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "folder", "loop"):
        said = quick("import", str(tmp_path / name))
        assert said.code in (1, 2), said
        assert said.err.startswith(f"The file '{tmp_path / name}' cannot be read.") or name == "fifo", said
    (tmp_path / "secret").write_bytes(b"\xff\xfe\n")
    said = quick("import", str(tmp_path / "f"), "--passphrase-file", str(tmp_path / "secret"))
    assert said.code in (1, 2), said
