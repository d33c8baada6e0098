"""The client is OpenSSH's, so the server is too: an `sshd` of this test's own, on a free port of this computer."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from pytest_machine import ssh
from pytest_machine.drivers.generic import GenericDriver
from pytest_machine.errors import CommandFailed, ConnectFailed, MachineError, UsageError, WaitTimeout
from pytest_machine.login import check_key
from pytest_machine.model import Address
from pytest_machine.ssh import SshConnection, new_key, pin, pin_known
from pytest_machine.store import write
from pytest_machine.waiting import wait
from tests.conftest import SLOWNESS

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(os.name == "nt", reason="these tests start a Unix sshd"),
]

# A command that goes on for half a minute, or until its file is gone: nobody else ends it, and whoever counts the
# processes of this host afterwards would meet it.
LASTS = 'n=0; while [ -e "$0" ] && [ $n -lt 300 ]; do n=$((n+1)); sleep 0.1; done'

needs_sshd = pytest.mark.skipif(SSHD is None, reason="there is no sshd here: apt-get install openssh-server")


class Sshd:
    """A real SSH server that lets this user in with one key."""

    def __init__(self, server: Path, directory: Path) -> None:
        self.directory = directory
        host_key, self.host_key_public = new_key("host")
        key, public = new_key("jo@laptop")
        for path, content in (
            (server / "host", host_key),
            (server / "authorized", f"{public}\n"),
            (directory / "key", key),
        ):
            write(path, content.encode())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = Address(ip="127.0.0.1", user=getpass.getuser(), ssh_port=port)
        self.config = server / "config"
        self.config.write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {server}/host\nAuthorizedKeysFile {server}/authorized\n"
            # Bash reads its rc files for a first shell only: what is in this user's is not what is tested.
            "SetEnv SHLVL=2\n"
            "StrictModes no\nUsePAM no\nPidFile none\nLogLevel VERBOSE\nPermitRootLogin yes\n"
        )
        self.log = server / "log"
        self.process: subprocess.Popen[bytes] | None = None
        pin(directory / "known_hosts", self.address, self.host_key_public)

    def start(self) -> None:
        assert SSHD is not None
        if os.geteuid() == 0:
            # Debian's sshd wants it, and only its service makes it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", self.config], stderr=log)

        def listens() -> None:
            socket.create_connection((self.address.ip, self.address.ssh_port), timeout=1).close()

        wait(listens, "sshd", timeout=20)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def logins(self) -> int:
        return self.log.read_text().count("Accepted publickey")

    def connection(self, *, known_hosts: str = "known_hosts", control: bool = True) -> SshConnection:
        directory = self.directory
        return SshConnection(self.address, key=directory / "key", known_hosts=directory / known_hosts, control=control)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    # What means something to OpenSSH, and a byte that is not UTF-8.
    odd = tmp_path_factory.mktemp("odd") / "100% \"sure\" 'a' b\\c #$x \udcff"
    odd.mkdir()
    server = Sshd(tmp_path_factory.mktemp("server"), odd)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=[True, False], ids=["one master", "no master"])
def connection(request: pytest.FixtureRequest, sshd: Sshd) -> Iterator[SshConnection]:
    found = sshd.connection(control=request.param)
    yield found
    found.close()


@pytest.fixture
def master(sshd: Sshd) -> Iterator[SshConnection]:
    found = sshd.connection()
    yield found
    found.close()


def master_pid(connection: SshConnection) -> int:
    done = subprocess.run(
        [connection.argv[0], "-Ocheck", *connection.argv[1:]], capture_output=True, text=True, check=True
    )
    return int(done.stderr.partition("pid=")[2].partition(")")[0])


@needs_sshd
def test_what_a_command_did(connection: SshConnection) -> None:
    result = connection.run("sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert result.argv == ("sh", "-c", "echo out; echo err >&2; exit 3")
    with pytest.raises(CommandFailed, match="returned 3") as caught:
        connection.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert caught.value.result == result
    assert caught.value.facts["stderr"] == "err"


@needs_sshd
@pytest.mark.parametrize("error", ["", "no newline", "one\n", "ptm-\n"])
def test_255_can_be_the_commands_own(connection: SshConnection, error: str) -> None:
    script = 'printf %s "$1" >&2; exit 255'
    with pytest.raises(CommandFailed, match="returned 255") as caught:
        connection.run("sh", "-c", script, "sh", error)
    assert caught.value.result.stderr == error


@needs_sshd
def test_words_arrive_as_they_are(connection: SshConnection) -> None:
    words = [
        "",
        " ",
        "a  b",
        "$HOME",
        "`id`",
        "$(id)",
        "'",
        '"',
        "\\",
        "*",
        ";",
        "&",
        "|",
        "\n",
        "-n",
        "~",
        "!",
        "é→",
        "#",
    ]
    assert connection.run("printf", "%s\\0", *words).stdout == "\0".join(words) + "\0"


@needs_sshd
def test_input_goes_in_whole(connection: SshConnection) -> None:
    content = bytes(range(256)) * 5000
    assert connection.run("wc", "-c", input=content).stdout.strip() == str(len(content))
    assert connection.run("cat", input="é→\r\n").stdout == "é→\r\n"
    assert connection.run("cat").stdout == ""
    assert connection.run("printf", "\\377").stdout == "�"
    for given in (bytearray(b"given"), memoryview(b"given")):
        assert connection.run("cat", input=given).stdout == "given"
    # A command that does not read what it is given.
    assert connection.run("true", input=content).returncode == 0


@needs_sshd
def test_paths_are_words(connection: SshConnection, tmp_path: Path) -> None:
    result = connection.run("echo", PurePosixPath("/srv"), PureWindowsPath("/srv/sub"))
    assert result.stdout == "/srv /srv/sub\n"
    assert result.argv == ("echo", "/srv", "/srv/sub")
    connection.put(bytearray(b"given"), tmp_path / "there")
    connection.get(tmp_path / "there", str(tmp_path / "home"))
    connection.put(str(tmp_path / "home"), PurePosixPath(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == b"given"


@needs_sshd
def test_more_words_than_a_command_can_have(connection: SshConnection) -> None:
    """An OSError would be waited for."""
    with pytest.raises(UsageError, match="has more words than can be given") as refused:
        connection.run("true", *["word"] * 50_000)
    assert refused.value.facts["bytes"] == 250_004
    assert "input=" in refused.value.hint
    assert len(str(refused.value)) < 500


@pytest.fixture
def unused(tmp_path: Path) -> SshConnection:
    """A connection that nobody gets as far as making."""
    return SshConnection(Address(ip="127.0.0.1"), key=tmp_path / "key", known_hosts=tmp_path / "known", control=False)


@pytest.mark.parametrize(
    ("argv", "options", "says"),
    [
        ((), {}, "A command has a word at least"),
        (("echo", 3), {}, 'hint: machine.run("echo", str(3))'),
        (("echo", None), {}, "type  NoneType"),
        (("echo", b"bytes"), {}, "type  bytes"),
        ((["echo", "hello"],), {}, "hint: machine.run(*words)"),
        (("echo", "a\0b"), {}, "No word of a command can hold a NUL."),
        # An int is a file descriptor for `subprocess`: it hung.
        (("cat",), {"input": 3}, 'type   int\nhint: machine.run("cat", input=str(3))'),
        (("cat",), {"input": Path("file")}, "What a command reads is text or bytes."),
        (("cat",), {"input": ["a", "b"]}, "type   list"),
    ],
)
def test_what_cannot_be_run_is_refused(
    unused: SshConnection, argv: tuple[Any, ...], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError) as refused:
        unused.run(*argv, **options)
    assert says in str(refused.value)
    assert refused.value.hint


def test_what_is_no_path_is_refused(unused: SshConnection, tmp_path: Path) -> None:
    anything: Any
    for anything in (3, None, b"/srv", "", "/srv\0"):
        with pytest.raises(UsageError, match="A path in the machine"):
            unused.put(b"", anything)
        with pytest.raises(UsageError, match="A path in the machine"):
            unused.get(anything, tmp_path)
    for anything in (3, None, "\0"):
        with pytest.raises(UsageError, match="A path on this computer"):
            unused.put(anything, "/srv")
    with pytest.raises(UsageError, match="A path on this computer"):
        unused.get("/srv", b"/srv")  # type: ignore[arg-type]  # as the test says
    # Whoever meant the content of a file.
    for text in ("listen 80;\n", "x" * 5000):
        with pytest.raises(UsageError, match="There is nothing to put at") as refused:
            unused.put(text, "/etc/app.conf")
        assert refused.value.hint.startswith("text is given as bytes:")


@needs_sshd
def test_a_file_needs_a_directory_to_come_home_to(connection: SshConnection, tmp_path: Path) -> None:
    connection.put(b"", tmp_path / "there")
    missing = tmp_path / "missing"
    with pytest.raises(UsageError) as refused:
        connection.get(tmp_path / "there", missing / "home")
    assert str(refused.value) == (
        f"'{tmp_path}/there' cannot be brought home: there is no directory '{missing}'.\nhint: mkdir -p {missing}"
    )
    assert not missing.exists()


@needs_sshd
def test_a_command_that_does_not_end_is_abandoned(connection: SshConnection, tmp_path: Path) -> None:
    connection.run("true")
    lasts = tmp_path / "lasts"
    lasts.touch()
    begun = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"did not end within 0\.5 s") as caught:
        connection.run("sh", "-c", f"echo so far >&2; {LASTS}", str(lasts), timeout=0.5)
    assert time.monotonic() - begun < 25
    lasts.unlink()
    assert caught.value.facts["last seen"] in ("so far", "nothing")
    assert connection.run("echo", "on").stdout == "on\n"


@needs_sshd
def test_files(connection: SshConnection, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    there = tmp_path / "a file's name"
    connection.put(content, str(there), mode=0o640)
    assert there.read_bytes() == content
    assert stat.S_IMODE(there.stat().st_mode) == 0o640
    connection.get(str(there), tmp_path / "home")
    assert (tmp_path / "home").read_bytes() == content

    connection.put(tmp_path / "home", str(tmp_path / "-again"))
    assert (tmp_path / "-again").read_bytes() == content
    assert stat.S_IMODE((tmp_path / "-again").stat().st_mode) == 0o644
    (tmp_path / "directory").mkdir()
    connection.get(str(tmp_path / "-again"), tmp_path / "directory")
    assert (tmp_path / "directory" / "-again").read_bytes() == content
    connection.put(b"", str(there))
    connection.get(str(there), tmp_path / "home")
    assert (tmp_path / "home").read_bytes() == b""


@needs_sshd
def test_a_file_is_replaced_whole_or_not_at_all(connection: SshConnection, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for target in (tmp_path / "missing" / "file", tmp_path / "directory"):
        with pytest.raises(CommandFailed, match="'put'"):
            connection.put(b"x", str(target))
    target = tmp_path / "home"
    target.write_text("old")
    with pytest.raises(CommandFailed, match="'get'"):
        connection.get(str(tmp_path / "missing"), target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["directory", "home"]


@needs_sshd
def test_directories(connection: SshConnection, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "script").write_text("#!/bin/sh\n")
    (source / "sub" / "script").chmod(0o755)
    (source / "link").symlink_to("sub/script")
    (source / "out").symlink_to("/etc/passwd")
    there = tmp_path / "there"
    there.mkdir(mode=0o711)
    connection.put(source, str(there))
    assert stat.S_IMODE(there.stat().st_mode) == 0o711
    assert (there / "out").readlink() == Path("/etc/passwd")
    (there / "evil").symlink_to("../../outside")

    left = connection.get(str(there), tmp_path / "home")
    assert sorted(line.partition(" ")[0] for line in left) == ["'./evil'", "'./out'"]
    found = {str(path.relative_to(tmp_path / "home")) for path in (tmp_path / "home").rglob("*")}
    assert found == {"sub", "sub/empty", "sub/script", "link"}
    assert (tmp_path / "home" / "link").read_text() == "#!/bin/sh\n"
    assert os.access(tmp_path / "home" / "sub" / "script", os.X_OK)


@needs_sshd
def test_twenty_commands_are_one_connection(master: SshConnection, sshd: Sshd) -> None:
    before = sshd.logins()
    results: list[str] = []

    def work(name: str) -> None:
        results.extend(master.run("echo", name).stdout for _ in range(5))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"{name}\n" for name in "abcd" for _ in range(5))
    assert sshd.logins() == before + 1


@needs_sshd
def test_more_at_once_than_one_connection_takes(master: SshConnection) -> None:
    """sshd allows ten sessions on a connection; the eleventh gets one of its own, and nobody notices."""
    results: list[tuple[str, str]] = []

    def work(number: int) -> None:
        done = master.run("sh", "-c", f"sleep 1; echo {number}")
        results.append((done.stdout, done.stderr))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted((f"{number}\n", "") for number in range(13))


@needs_sshd
def test_a_killed_master_is_replaced(master: SshConnection, sshd: Sshd) -> None:
    master.run("true")
    first = master_pid(master)
    os.kill(first, signal.SIGKILL)
    # Whoever asks while it dies gets a connection of their own, and the next one a new master.
    wait(lambda: gone(first), "The end of the master", timeout=10)
    before = sshd.logins()
    assert [master.run("echo", "on").stdout for _ in range(3)] == ["on\n"] * 3
    assert sshd.logins() == before + 1
    assert master_pid(master) != first


@needs_sshd
def test_a_connection_that_is_lost_in_the_middle(master: SshConnection, tmp_path: Path) -> None:
    master.run("true")
    pid = master_pid(master)
    there = tmp_path / "there"

    def lose_it() -> None:
        wait(there.stat, "The command", timeout=10 * SLOWNESS)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=lose_it)
    killer.start()
    with pytest.raises(ConnectFailed, match="failed"):
        master.run("sh", "-c", f'touch "$0"; {LASTS}', str(there))
    killer.join()
    there.unlink()  # nobody else ends it
    socket_path = Path(next(w for w in master.argv if "ControlPath" in w).partition("=")[2].strip('"'))
    assert socket_path.exists(), "or the next line shows nothing"
    master.close()
    assert not socket_path.exists()


@needs_sshd
def test_close_ends_the_master(sshd: Sshd) -> None:
    connection = sshd.connection()
    connection.close()
    connection.run("true")
    pid = master_pid(connection)
    connection.close()
    connection.close()
    wait(lambda: gone(pid), "The end of the master", timeout=10)
    assert connection.run("echo", "again").stdout == "again\n"
    connection.close()


def gone(pid: int) -> None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return
    # It is nobody's child any more; where nobody collects it, it stays as a zombie.
    if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
        return
    raise OSError("it still runs")


@needs_sshd
def test_an_idle_master_ends_by_itself(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test run that was killed leaves none behind."""
    monkeypatch.setattr(ssh, "_PERSIST", 3)  # long enough to be asked for its pid
    connection = sshd.connection()
    connection.run("true")
    pid = master_pid(connection)
    wait(lambda: gone(pid), "The end of the master", timeout=20)


@needs_sshd
def test_another_host_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    _, other = new_key("other")
    for name, key in (("wrong", other), ("empty", "")):
        if key:
            pin(sshd.directory / name, sshd.address, key)
        else:
            (sshd.directory / name).touch()
        connection = sshd.connection(known_hosts=name)
        with pytest.raises(ConnectFailed, match=r"(?i)host key verification failed"):
            connection.run("touch", str(tmp_path / "done"))
        assert (sshd.directory / name).read_text().count("ssh-ed25519") == (1 if key else 0)
    assert not (tmp_path / "done").exists()


@needs_sshd
def test_another_login_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    private, _ = new_key("somebody else")
    write(tmp_path / "key", private.encode())
    connection = SshConnection(sshd.address, key=tmp_path / "key", known_hosts=sshd.directory / "known_hosts")
    with pytest.raises(ConnectFailed, match="Permission denied"):
        connection.run("true")


@needs_sshd
def test_a_host_key_that_nobody_knew_is_the_one_from_then_on(sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known hosts"
    trusting = SshConnection(sshd.address, key=sshd.directory / "key", known_hosts=known, trust=True, control=False)
    trusting.run("true")
    assert sshd.host_key_public.split()[1] in known.read_text()
    SshConnection(sshd.address, key=sshd.directory / "key", known_hosts=known, control=False).run("true")
    # Somebody else answers there.
    pin(known, sshd.address, new_key("other")[1])
    with pytest.raises(ConnectFailed, match="Host key verification failed"):
        trusting.run("true")


@needs_sshd
def test_a_host_key_that_the_user_knows(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    known = tmp_path / "known"
    assert not pin_known(known, sshd.address)
    assert not known.exists()
    (tmp_path / ".ssh").mkdir()
    pin(tmp_path / ".ssh" / "known_hosts", sshd.address, sshd.host_key_public)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", tmp_path / ".ssh" / "known_hosts"], check=True)
    assert pin_known(known, sshd.address)
    SshConnection(sshd.address, key=sshd.directory / "key", known_hosts=known, control=False).run("true")


@needs_sshd
def test_what_the_users_own_ssh_has_logs_in(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agent here; with a key of ours alone, the agent is not asked."""
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    for name, value in re.findall(r"(SSH_\w+)=([^;]+);", agent):
        monkeypatch.setenv(name, value)
    try:
        shutil.copy(sshd.directory / "key", tmp_path / "theirs")
        subprocess.run(["ssh-add", "-q", tmp_path / "theirs"], check=True)
        key, known = tmp_path / "none", sshd.directory / "known_hosts"
        SshConnection(sshd.address, key=key, known_hosts=known, agent=True, control=False).run("true")
        with pytest.raises(ConnectFailed, match="Permission denied"):
            SshConnection(sshd.address, key=key, known_hosts=known, control=False).run("true")
    finally:
        os.kill(int(os.environ["SSH_AGENT_PID"]), signal.SIGTERM)


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = Address(ip="127.0.0.1", ssh_port=port)
    pin(tmp_path / "known_hosts", address, new_key("x")[1])
    write(tmp_path / "key", new_key("x")[0].encode())
    for control in (True, False):
        connection = SshConnection(address, key=tmp_path / "key", known_hosts=tmp_path / "known_hosts", control=control)
        with pytest.raises(ConnectFailed, match="Connection refused") as caught:
            connection.run("true")
        assert caught.value.hint == shlex.join(connection.argv)
        result = connection.run("true", check=False)
        assert result.returncode == 255
        assert "Connection refused" in result.stderr


def test_one_that_accepts_and_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "key", new_key("x")[0].encode())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(ip="127.0.0.1", ssh_port=silent.getsockname()[1])
        connection = SshConnection(address, key=tmp_path / "key", known_hosts=tmp_path / "known_hosts")
        with pytest.raises(ConnectFailed, match=r"no login within 0\.5 s"):
            connection.run("true", timeout=0.5)


def test_no_ssh_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for control in (True, False):
        connection = SshConnection(
            Address(ip="127.0.0.1"), key=tmp_path / "key", known_hosts=tmp_path / "known_hosts", control=control
        )
        with pytest.raises(MachineError, match="'ssh' is not on the PATH") as caught:
            connection.run("true", check=False)
        assert not isinstance(caught.value, ConnectFailed), "waiting for it would be in vain"


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's own agent, which holds nothing yet."""
    path = f"/tmp/agent-{os.getpid()}-{tmp_path.name[-8:]}"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    wait(lambda: os.stat(path), "the agent", timeout=20)  # noqa: PTH116
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    yield
    process.terminate()
    process.wait()


@needs_sshd
@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("control", [True, False])
def test_a_key_with_a_passphrase_is_used_by_the_agent(sshd: Sshd, tmp_path: Path, control: bool) -> None:
    key = tmp_path / "protected"
    shutil.copy(sshd.directory / "key", key)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "opensesame", "-f", key], check=True)
    with pytest.raises(UsageError, match="cannot be used") as caught:
        check_key(key)
    assert caught.value.hint == f"ssh-add {key}"
    connection = SshConnection(sshd.address, key=key, known_hosts=sshd.directory / "known_hosts", control=control)
    begun = time.monotonic()
    with pytest.raises(ConnectFailed, match="Permission denied"):
        connection.run("true")
    assert time.monotonic() - begun < 3 * SLOWNESS
    subprocess.run(["ssh-add", "-q", sshd.directory / "key"], check=True)
    check_key(key)
    assert connection.run("echo", "hi").stdout == "hi\n"
    connection.close()


def test_a_key_with_a_passphrase_and_no_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for kind in (["-t", "ed25519"], ["-t", "rsa", "-m", "PEM"], ["-t", "ecdsa", "-m", "PKCS8"]):
        key = tmp_path / kind[-1]
        subprocess.run(["ssh-keygen", "-q", *kind, "-N", "opensesame", "-f", key], check=True)
        driver = GenericDriver(ip_address="192.0.2.1", ssh_key=str(key))
        with pytest.raises(UsageError, match="cannot be used") as caught:
            driver.check()
        assert "it has a passphrase, and there is no agent" in str(caught.value)
        assert caught.value.hint == f'eval "$(ssh-agent)" && ssh-add {key}'
        plain = tmp_path / f"{kind[-1]}-plain"
        subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-f", plain], check=True)
        GenericDriver(ip_address="192.0.2.1", ssh_key=str(plain)).check()


@needs_sshd
def test_the_argv_is_good_for_a_person(master: SshConnection) -> None:
    assert master.argv[0] == "ssh"
    assert master.argv[-1].endswith("@127.0.0.1")
    done = subprocess.run([*master.argv, "echo", "hi"], capture_output=True, text=True, check=True)
    assert done.stdout == "hi\n"


def test_sockets_are_short_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    connection = SshConnection(Address(ip="127.0.0.1"), key=tmp_path / "k", known_hosts=tmp_path / "h")
    path = next(word for word in connection.argv if word.startswith("-oControlPath=")).split("=")[1].strip('"')
    assert len(path) <= 83
    directory = Path(path).parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    # Somebody else was there first: a directory that others may enter, and a link to one.
    taken = Path("/tmp") / f"ptm-test-{os.getpid()}"
    taken.mkdir()
    try:
        (taken / f"ptm-{os.getuid()}").mkdir(mode=0o755)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(taken))
        other = SshConnection(Address(ip="127.0.0.1"), key=tmp_path / "k", known_hosts=tmp_path / "h")
        assert str(taken) not in " ".join(other.argv)
    finally:
        shutil.rmtree(taken)


def test_keys_are_openssh_s(tmp_path: Path) -> None:
    private, public = new_key("two words\nand lines")
    write(tmp_path / "key", private.encode())
    shown = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "key"], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[:2] == public.split()[:2]
    assert public.startswith("ssh-ed25519 ")
    assert public.endswith(" two words and lines")


@pytest.mark.parametrize(
    ("ip", "port", "expected"),
    [
        ("10.0.0.1", 22, "10.0.0.1"),
        ("10.0.0.1", 2222, "[10.0.0.1]:2222"),
        ("fd00::1", 22, "fd00::1"),
        ("fd00::1", 2222, "[fd00::1]:2222"),
    ],
)
def test_a_pin_is_what_openssh_looks_for(tmp_path: Path, ip: str, port: int, expected: str) -> None:
    key = new_key("host")[1]
    pin(tmp_path / "known_hosts", Address(ip=ip, ssh_port=port), key)
    assert (tmp_path / "known_hosts").read_text() == f"{expected} {' '.join(key.split()[:2])}\n"
    found = subprocess.run(
        ["ssh-keygen", "-F", expected, "-f", tmp_path / "known_hosts"], capture_output=True, check=True
    )
    assert key.split()[1].encode() in found.stdout
