"""``ssh``, ``scp``, ``mount`` and ``context`` of the command line, on two machines that have nothing in common.

One lets root in on port 22, the other lets 'jo' in on port 2222; each has its own login key and host key. They are
noted in a store of the command line by a driver of this test's, which says of a machine what its record says, as the
drivers of hosts do that were there before.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import pytest_machine
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Record
from pytest_machine.ssh import new_key, pin
from pytest_machine.store import Store
from tests.real.asked import specs

DRIVER = """
import dataclasses
from typing import ClassVar
from pytest_machine.hookspecs import hookimpl

@hookimpl
def pytest_machine_drivers():
    from pytest_machine.driver import Isolation
    from pytest_machine.model import Seen, State
    from pytest_machine.options import option

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Noted:
        name: ClassVar[str] = "noted"
        ip: str = option("", help="where it is now")

        @property
        def isolation(self):
            return Isolation.OWN_KERNEL

        def check(self): pass
        def create(self, record, seed): pass
        def destroy(self, record): pass
        def find(self): return []

        def look(self, records):
            def place(address):
                return dataclasses.replace(address, ip=self.ip) if self.ip else address

            return {each.id: Seen(state=State.RUNNING, address=place(each.address)) for each in records}

    return [Noted]
"""
HOMES = {"Web.1": "/root", "db": "/home/jo"}
# A second way in, for another user, on another port.
SSHD = "useradd -ms /bin/bash jo && cp -r /root/.ssh /home/jo && chown -R jo: /home/jo/.ssh && /usr/sbin/sshd -p2222"
INSTALL = "hint: install it there, on Debian: docker-machine ssh"


@dataclass
class Said:
    code: int
    out: str
    err: str


@dataclass
class Pair:
    """Two machines by hand: 'Web.1' (root, port 22) and 'db' (jo, port 2222)."""

    store: Store
    environ: dict[str, str]
    machines: dict[str, Machine]

    def argv(self, *argv: str) -> list[str]:
        return [sys.executable, "-m", "pytest_machine", *argv]

    def __call__(self, *argv: str, input: str = "", **environ: str) -> Said:
        done = subprocess.run(
            self.argv(*argv),
            input=input,
            capture_output=True,
            text=True,
            env={**self.environ, **environ},
            check=False,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def record(self, name: str) -> Record:
        return self.store.load(name)

    def pin(self, name: str, host_key: str = "") -> None:
        """Note a host key for the machine, its own unless another is given, where its record says that it is."""
        record = self.record(name)
        own = (self.machines[name].record.directory / "ssh_host_ed25519_key.pub").read_text()
        assert record.address is not None
        pin(record.directory / "known_hosts", record.address, host_key or own)

    def told(self, name: str, *argv: str) -> str:
        """Return what a command says in a machine, asked another way."""
        return self.machines[name].run(*argv).stdout


@pytest.fixture(scope="module")
def pair(module_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    web, db = module_lab.create(*specs("Web.1 db"))
    db.run("sh", "-c", SSHD)
    # A blank and a percent sign, because both mean something to OpenSSH.
    store = Store(tmp_path_factory.mktemp("100% by hand") / "a store")
    for machine, address in ((web, web.address), (db, replace(db.address, user="jo", ssh_port=2222))):
        theirs = machine.record.directory
        record = machine.record.with_(store=store.path, driver="noted", options={}, run="", lab="", address=address)
        store.add(record)
        for name in ("id_ed25519", "ssh_host_ed25519_key", "ca.pem", "cert.pem", "key.pem"):
            shutil.copy(theirs / name, record.directory / name)
    site = tmp_path_factory.mktemp("site")
    (site / "noted-1.0.dist-info").mkdir()
    (site / "noted_driver.py").write_text(DRIVER)
    (site / "noted-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: noted\nVersion: 1.0\n")
    (site / "noted-1.0.dist-info" / "entry_points.txt").write_text("[pytest_machine]\nnoted = noted_driver\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MACHINE_", "DOCKER_"))}
    environ |= {
        "PYTHONPATH": os.pathsep.join([str(Path(pytest_machine.__file__).parents[1]), str(site)]),
        "MACHINE_STORAGE_PATH": str(store.path),
        "DOCKER_CONFIG": str(site / "docker"),
    }
    pair = Pair(store, environ, {"Web.1": web, "db": db})
    for name in pair.machines:
        pair.pin(name)
    return pair


class TestSsh:
    def test_a_command(self, pair: Pair) -> None:
        said = pair("ssh", "Web.1", "echo out; echo err >&2; cat; exit 7", input="in\n")
        assert (said.code, said.out, said.err) == (7, "out\nin\n", "err\n")
        assert pair("ssh", "db", "whoami; set -- $SSH_CONNECTION; echo $4").out == "jo\n2222\n"
        assert pair("ssh", "db", "exit 255").code == 255
        assert pair("ssh", "db", "-T", "-o", "SetEnv=LC_X=1", "env").out.count("LC_X=1\n") == 1

    def test_a_terminal_is_handed_over(self, pair: Pair) -> None:
        process, terminal = pty.fork()
        if process == 0:
            argv = pair.argv("ssh", "db")
            os.execvpe(argv[0], argv, pair.environ)
        try:
            read_until(terminal, b"$ ")
            os.write(terminal, b"tty; echo and $((6*7)); exit 5\n")
            assert b"/dev/pts/" in read_until(terminal, b"and 42")
            read_until(terminal, b"")
        finally:
            os.close(terminal)
            _, status = os.waitpid(process, 0)
        assert os.waitstatus_to_exitcode(status) == 5

    def test_another_host_key_is_refused(self, pair: Pair) -> None:
        pair.pin("db", new_key("another")[1])
        try:
            for argv in (["ssh", "db", "true"], ["scp", "db:/etc/hostname", os.devnull]):
                said = pair(*argv)
                assert said.code == 255
                assert "Host key verification failed" in said.err
        finally:
            pair.pin("db")
        assert pair("ssh", "db", "true").code == 0

    def test_one_that_moved(self, pair: Pair, tmp_path: Path) -> None:
        """Where it is now is its driver's word; its host key is the one that was noted where it was."""
        record = pair.record("db")
        assert record.address is not None
        was = replace(record.address, ip="192.0.2.1")
        pair.store.save(record.with_(address=was, options={"ip": record.address.ip}))
        pair.pin("db")
        try:
            assert pair("ssh", "db", "whoami").out == "jo\n"
            assert pair("scp", "db:/etc/hostname", str(tmp_path)).code == 0
            pair.pin("db", new_key("another")[1])
            assert pair("ssh", "db", "true").code == 255
        finally:
            pair.store.save(record)
            pair.pin("db")

    def test_what_a_command_shares_ends_with_it(self, pair: Pair) -> None:
        """A master would live on for half a minute."""
        code = (
            "import sys, click\n"
            "from pytest_machine.cli import main, noted\n"
            "from pytest_machine.cli.command import Session\n"
            "@main.command('probe')\n"
            "@click.pass_context\n"
            "def probe(ctx):\n"
            "    connection = noted.load(ctx.ensure_object(Session), 'db').machine().connection\n"
            "    print(connection.run('whoami').stdout.strip())\n"
            "    print(connection.argv)\n"
            "main.get_command = lambda ctx, name: probe\n"
            "main.resolve_command = lambda ctx, args: ('probe', probe, [])\n"
            "main()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "probe"], capture_output=True, text=True, env=pair.environ, check=True
        )
        user, argv = done.stdout.splitlines()
        assert user == "jo"
        socket = argv.partition('ControlPath="')[2].partition('"')[0]
        assert len(socket) < 100
        assert socket.startswith("/")
        assert not Path(socket).exists()


class TestScp:
    def test_here_and_there(self, pair: Pair, tmp_path: Path) -> None:
        source = tmp_path / "a dir"
        (source / "sub").mkdir(parents=True)
        (source / "sub" / "it's 100%").write_text("one")
        assert pair("scp", "-q", "-r", str(source), "db:").code == 0
        assert pair.told("db", "cat", "/home/jo/a dir/sub/it's 100%") == "one"
        assert pair.told("db", "stat", "-c", "%U", "/home/jo/a dir/sub") == "jo\n"
        assert pair("scp", "-r", "db:a dir", f"localhost:{tmp_path}/back").code == 0
        assert (tmp_path / "back" / "sub" / "it's 100%").read_text() == "one"
        assert pair("scp", str(source / "sub" / "it's 100%"), "root@db:/root/roots").code == 0
        assert pair.told("db", "cat", "/root/roots") == "one"
        said = pair("scp", "db:nix", str(tmp_path))
        assert said.code == 1
        assert "No such file or directory" in said.err
        said = pair("scp", "root@Web.1:/etc/hostname", str(tmp_path / "no" / "such"))
        assert said.code == 1

    @pytest.mark.parametrize(("one", "other"), [("Web.1", "db"), ("db", "Web.1")])
    def test_from_one_to_the_other(self, pair: Pair, one: str, other: str) -> None:
        """Docker Machine knew one port for both: there the file came to lie where it had come from."""
        name, here, there = f"from {one}", HOMES[one], HOMES[other]
        pair.machines[one].put(f"of {one}".encode(), f"{here}/{name}")
        assert pair("scp", f"{one}:{name}", f"{other}:to {other}").code == 0
        assert pair.told(other, "cat", f"{there}/to {other}") == f"of {one}"
        assert pair.machines[one].run("test", "-e", f"{here}/to {other}", check=False).returncode == 1

    def test_one_that_serves_no_files(self, pair: Pair, tmp_path: Path) -> None:
        record = pair.record("db")
        assert record.address is not None
        # Without a configuration there is no subsystem.
        pair.machines["db"].run("/usr/sbin/sshd", "-p2223", "-f", "/dev/null", "-oUsePAM=yes")
        pair.store.save(record.with_(address=replace(record.address, ssh_port=2223)))
        pair.pin("db")
        try:
            assert pair("ssh", "db", "whoami").out == "jo\n"
            for argv in (["scp", "db:/etc/hostname", str(tmp_path)], ["mount", "db:/etc", str(tmp_path)]):
                if shutil.which("sshfs") or argv[0] == "scp":
                    said = pair(*argv)
                    assert said.code in (1, 255), "that is their own"
                    assert said.err.endswith(
                        "There is no SFTP server in the machine 'db'.\n"
                        f"{INSTALL} db sudo apt-get install -y openssh-sftp-server\n"
                    )
        finally:
            pair.store.save(record)
            pair.pin("db")

    def test_delta(self, pair: Pair, tmp_path: Path) -> None:
        (tmp_path / "sent").mkdir()
        (tmp_path / "sent" / "a file").write_text("1" * 100_000)
        sent = str(tmp_path / "sent") + "/"
        said = pair("scp", "-d", "-r", sent, "db:there/")
        assert said.code in (12, 127), "that is rsync's"
        assert said.err.endswith(
            f"There is no 'rsync' in the machine 'db'.\n{INSTALL} db sudo apt-get install -y rsync\n"
        )
        lend_rsync(pair.machines["db"], tmp_path)
        said = pair("scp", "-d", "-r", sent, "db:there/")
        assert (said.code, said.err) == (0, "")
        assert "100%" in said.out
        assert pair.told("db", "wc", "-c", "/home/jo/there/a file").startswith("100000 ")
        (tmp_path / "sent" / "a file").write_text("1" * 100_001)
        assert pair("scp", "-q", "-d", "-r", sent, "db:there/").out == ""
        assert pair.told("db", "wc", "-c", "/home/jo/there/a file").startswith("100001 ")
        assert pair("scp", "--delta", "db:there/a file", str(tmp_path / "back")).code == 0
        assert (tmp_path / "back").read_text() == "1" * 100_001

    def test_delta_from_one_machine_to_another(self, pair: Pair, tmp_path: Path) -> None:
        """What has not changed does not come through here a second time; names and errors are the machines' own."""
        web, db = pair.machines["Web.1"], pair.machines["db"]
        web.run("sh", "-c", "mkdir /srv/x; head -c 3000000 /dev/urandom >'/srv/x/it'\\''s a: \"$file\"'")
        for machine in (web, db):
            machine.run("rm", "-f", "/usr/local/bin/rsync")
        said = pair("scp", "-d", "-r", "Web.1:/srv/x/", "db:twin/")
        assert said.code in (12, 127)
        assert (
            f"There is no 'rsync' in the machine 'Web.1'.\n{INSTALL} Web.1 sudo apt-get install -y rsync\n" in said.err
        )
        lend_rsync(web, tmp_path / "one")
        said = pair("scp", "-d", "-r", "Web.1:/srv/x/", "db:twin/")
        assert said.code in (12, 127)
        assert said.err.endswith(
            f"There is no 'rsync' in the machine 'db'.\n{INSTALL} db sudo apt-get install -y rsync\n"
        )
        lend_rsync(db, tmp_path / "two")
        said = pair("scp", "-d", "-r", "Web.1:/srv/x/", "db:twin/")
        assert said.code == 0, said.err
        assert "100%" in said.err
        web.run("sh", "-c", "echo more >>/srv/x/it*")
        said = pair("scp", "-q", "-d", "-r", "Web.1:/srv/x/", "nobody@db:/home/jo/twin/")
        assert (said.code, "Permission denied" in said.err) == (255, True), said.err
        before = sent(web)
        said = pair("scp", "-q", "-d", "-r", "Web.1:/srv/x/", "db:twin/")
        assert (said.code, said.out, said.err) == (0, "", "")
        assert sent(web) - before < 1_000_000, "all of it was sent again"
        sums = ["sh", "-c", "cd $0 && sha256sum *"]
        assert db.run(*sums, "/home/jo/twin").stdout == web.run(*sums, "/srv/x").stdout
        said = pair("scp", "-q", "-d", "Web.1:/srv/nix", "db:twin/")
        assert said.code == 23, "that is rsync's"
        assert "No such file or directory" in said.err


class TestMount:
    def test_life(self, pair: Pair, tmp_path: Path) -> None:
        if shutil.which("sshfs") is None or not usable("/dev/fuse"):
            pytest.skip("there is no sshfs here, or no FUSE")
        pair.machines["db"].run("sh", "-c", "mkdir /home/jo/mine && chown jo /home/jo/mine")
        point = tmp_path / "mount point"
        said = pair("mount", "db:mine", str(point))
        assert said.code == 1
        assert "No such file or directory" in said.err
        point.mkdir()
        said = pair("mount", "db:mine", str(point))
        assert (said.code, said.out, said.err) == (0, "", "")
        try:
            assert point.is_mount()
            (point / "it's").write_text("his")
            assert pair.told("db", "cat", "/home/jo/mine/it's") == "his"
            assert pair.told("db", "stat", "-c", "%U", "/home/jo/mine/it's") == "jo\n"
        finally:
            said = pair("mount", "-u", "db:mine", str(point))
        assert (said.code, said.out, said.err) == (0, "", "")
        assert not point.is_mount()
        said = pair("mount", "-u", "db:mine", str(point))
        assert said.code == 1
        assert said.err


def test_a_context_reaches_the_machines_docker(pair: Pair) -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("there is no docker here")

    def asked(name: str) -> str:
        argv = [docker or "", "--context", name, "info", "--format", "{{.ID}}"]
        return subprocess.run(argv, capture_output=True, text=True, env=pair.environ, check=True, timeout=60).stdout

    engines = {name: f"{machine.docker.info()['ID']}\n" for name, machine in pair.machines.items()}
    for name in pair.machines:
        assert pair("context", name).code == 0
        assert asked(name) == engines[name]
    # By the authority of this store from now on, which the machine did not know.
    before = (pair.record("Web.1").directory / "ca.pem").read_bytes()
    assert pair("regenerate-certs", "-f", "Web.1").code == 0
    assert (pair.record("Web.1").directory / "ca.pem").read_bytes() != before
    assert asked("Web.1") == engines["Web.1"]
    for name in pair.machines:
        assert pair("context", "--rm", name).out.endswith("was removed\n")


def usable(device: str) -> bool:
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError:
        return False
    return True


def sent(machine: Machine) -> int:
    """Return how many bytes the machine has sent."""
    return int(machine.run("cat", "/sys/class/net/eth0/statistics/tx_bytes").stdout)


def lend_rsync(machine: Machine, tmp_path: Path) -> None:
    """Put this host's rsync into a machine, with all that it is linked to: the image has none."""
    program = shutil.which("rsync")
    if program is None:
        pytest.skip("there is no rsync here")
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split()
    lent = tmp_path / "lent"
    lent.mkdir(parents=True)
    for path in {program, *(word for word in linked if word.startswith("/"))}:
        shutil.copy(path, lent)
    loader = next(path.name for path in lent.glob("ld-*"))
    (lent / "run").write_text(f'#!/bin/sh\nexec /opt/lent/{loader} --library-path /opt/lent /opt/lent/rsync "$@"\n')
    (lent / "run").chmod(0o755)
    machine.run("rm", "-rf", "/opt/lent")
    machine.put(lent, "/opt/lent")
    machine.run("ln", "-sf", "/opt/lent/run", "/usr/local/bin/rsync")


def read_until(terminal: int, mark: bytes) -> bytes:
    """Return what is shown until the mark is; without one, until the other side is gone."""
    shown = b""
    deadline = time.monotonic() + 20
    while not mark or mark not in shown:
        assert select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], shown
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # Linux says so
            assert not mark, shown
            break
    return shown
