"""Looking at real machines: wrecked ones, the way in that is printed, a shell on a terminal, what the kernel says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_machine import images
from pytest_machine.cli import main
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.drivers.runc.incidents import core_pattern
from pytest_machine.errors import DriverUnavailable
from pytest_machine.model import Record
from tests.conftest import SLOWNESS

from .conftest import Run
from .terminal import PYTEST, drive, screen


@pytest.fixture(autouse=True)
def _runc(inner: pytest.Pytester, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    try:
        RuncDriver().check()
    except DriverUnavailable as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PYTEST_MACHINE_DRIVER", "runc")
    yield
    for record in ours(home):
        RuncDriver().destroy(record)


def ours(home: Path) -> list[Record]:
    return [record for record in RuncDriver().find() if home in record.store.parents]


WRECKED = """
import time, pytest

def busybox(machine, *command, **how):
    import sys
    from examples.demo.conftest import busybox_archive
    machine.docker.api.import_image_from_data(busybox_archive(), repository="busybox", tag="latest")
    return machine.docker.containers.run("busybox", list(command), detach=True, **how)

@pytest.mark.machine("whole")
def test_whole(machine):
    box = busybox(machine, "sh", "-c", "echo out of the box; exit 3", name="box",
                  environment={"DB_PASSWORD": "hunter22"})
    box.wait()
    machine.put(b"-----BEGIN RSA PRIVATE KEY-----\\nabc\\n-----END RSA PRIVATE KEY-----", "/etc/changed")
    assert 0

@pytest.mark.machine("dockerless")
def test_docker_is_dead(machine):
    busybox(machine, "echo", "before the end").wait()
    machine.run("service", "docker", "stop")
    assert 0

@pytest.mark.machine("sshless")
def test_ssh_is_dead(machine):
    machine.run("service", "ssh", "stop", check=False)
    assert 0

@pytest.mark.machine("frozen")
def test_frozen(machine):
    machine.pause()
    assert 0

@pytest.mark.machine("dead")
def test_dead(machine):
    machine.kill()
    assert 0

@pytest.mark.machine("gone")
def test_gone(machine):
    machine.destroy()
    assert 0
"""


def test_wrecked_machines(run: Run, inner: pytest.Pytester) -> None:
    inner.syspathinsert(Path(__file__).parents[2])
    begun = time.monotonic()
    run(WRECKED, "--machine-artifacts=art", "-vv", failed=6)
    # Six machines, each made, looked at for 15 s at most and destroyed, on a host that may be busy.
    assert time.monotonic() - begun < 240 * SLOWNESS
    top = inner.path / "art/test_it.py"

    def said(test: str, name: str, title: str) -> str:
        path = top / test / name / f"{title}.txt"
        return path.read_text() if path.exists() else ""

    whole = "test_whole", "whole"
    assert re.search(r"busybox .*Exited \(3\).*box$", said(*whole, "docker-ps--a"), re.MULTILINE)
    assert "out of the box" in said(*whole, "log-of-box")
    assert '"DB_PASSWORD=***"' in said(*whole, "inspect-of-box")
    assert "hunter22" not in "".join(path.read_text() for path in top.rglob("*.txt"))
    assert "API listen on" in said(*whole, "daemon-log")
    assert "machine-init: started" in said(*whole, "console")
    assert "Mem:" in said(*whole, "disk-and-memory")
    assert "/etc/changed" in said(*whole, "files-changed-since-it-was-ready")
    assert said(*whole, "what-could-not-be-asked") == ""

    dockerless = "test_docker_is_dead", "dockerless"
    assert "its Docker: " in said(*dockerless, "what-could-not-be-asked")
    assert "before the end" in said(*dockerless, "logs-of-containers-on-its-disk")
    assert "API listen on" in said(*dockerless, "daemon-log")

    sshless = "test_ssh_is_dead", "sshless"
    assert "SSH: " in said(*sshless, "what-could-not-be-asked")
    assert "CONTAINER ID" in said(*sshless, "docker-ps--a")
    assert "'sshd' ended" in said(*sshless, "console")

    for test, name, state in (
        ("test_frozen", "frozen", "paused"),
        ("test_dead", "dead", "stopped"),
        ("test_gone", "gone", "absent"),
    ):
        assert said(test, name, "state") == state
    assert "machine-init: started" in said("test_frozen", "frozen", "console")


def test_logs_come_home(run: Run, inner: pytest.Pytester) -> None:
    run(
        """
        import pytest

        @pytest.fixture
        def app(machine):
            yield machine
            machine.put(b"written at the end", "/srv/app.log")

        @pytest.mark.machine(logs=["/srv/app.log", "/etc/apt", "/nowhere"])
        def test_it(app): assert 0

        @pytest.mark.machine(logs=["/etc/hostname"], reuse="module")
        def test_passes(machine): ...
        """,
        "--machine-artifacts=art",
        failed=1,
        passed=1,
    )
    folder = inner.path / "art/test_it.py/test_it/machine"
    assert (folder / "srv-app.log").read_text() == "written at the end"
    assert list((folder / "etc-apt").rglob("*"))
    assert "/nowhere" in (folder / "nowhere.missing.txt").read_text()
    assert (inner.path / "art/test_it.py/test_passes/machine/etc-hostname").read_text() == "machine\n"


def test_logs_without_a_directory_go_where_tmp_path_is(run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    result = run("import pytest\n@pytest.mark.machine(logs=['/etc/hostname'])\ndef test_it(machine): ...")
    (line,) = [line for line in result.stdout.lines if line.startswith("files of machines: ")]
    assert Path(line.partition(": ")[2], "test_it.py/test_it/machine/etc-hostname").read_text() == "machine\n"


def test_what_the_kernel_says(run: Run) -> None:
    if core_pattern().startswith("|"):
        pytest.skip("this host's kernel gives core dumps to a program")
    result = run(
        """
        import pytest

        @pytest.mark.machine("small", memory="300m", fail_on=["oom"])
        def test_oom(machine): machine.run("tail", "/dev/zero", check=False)

        @pytest.mark.machine("crashed", fail_on=["core"])
        def test_core(machine):
            machine.run("sh", "-c", "cd /srv; ulimit -c unlimited; sleep 10 & kill -SEGV $!; wait $!", check=False)

        @pytest.mark.machine("calm", fail_on=["oom", "core", "kernel"])
        def test_calm(machine): machine.run("true")
        """,
        failed=2,
        passed=1,
    )
    result.stdout.fnmatch_lines(
        ["*'small': oom: *Killed process * (tail)*", "  'crashed': core: core dump /srv/core*", "*= machines =*"]
    )


def test_the_printed_way_in_works(inner: pytest.Pytester, home: Path) -> None:
    """Each command as it is printed, pasted into a shell."""
    inner.makepyfile("import pytest\n@pytest.mark.machine('web')\ndef test_it(machine): assert 0")
    result = inner.runpytest_subprocess("--machine-keep=failed")
    at = next(i for i, line in enumerate(result.stdout.lines) if line.startswith("kept: 'web'"))
    ssh, docker, remove = (line.strip() for line in result.stdout.lines[at + 1 : at + 4])
    shown = subprocess.run(
        f"{ssh} hostname", shell=True, capture_output=True, text=True, check=True, timeout=30 * SLOWNESS
    )
    assert shown.stdout == "web\n"
    client = shutil.which("docker") or str(images.ensure().path / "usr/bin/docker")
    command = re.sub(r" docker ps", f" {client} ps", docker)
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, timeout=30 * SLOWNESS)
    assert shown.stdout.startswith("CONTAINER ID")
    assert CliRunner().invoke(main, remove.split()[1:]).output == "web\n"
    assert ours(home) == []


class TestShell:
    SOURCE = (
        "import pytest\n@pytest.mark.machine('web')\n@pytest.mark.machine('db')\n"
        "def test_breaks(lab):\n    lab['web'].put(b'x', '/srv/by-the-test')\n    assert 0\n"
        "def test_after(machine): print('captured again')\n"
    )

    def test_it_opens_where_the_test_failed(self, inner: pytest.Pytester, home: Path) -> None:
        inner.makepyfile(self.SOURCE)
        script = [(r"a shell in 'web'(?s:.)*web:~# ", "ls /srv; tty\r"), (r"/dev/pts/\d+(?s:.)*web:~# ", "exit\r")]
        code, shown = drive([*PYTEST, "--machine-shell=failed", "--color=no"], script)
        assert code == 1, shown
        assert not script, shown
        assert "assert 0" in shown.partition("a shell in 'web'")[0]
        assert re.search(r"'db', from another terminal: ssh ", shown)
        assert "/dev/pts/" in shown
        assert "back to the run" in shown
        assert "1 failed, 1 passed" in shown
        assert "captured again" not in shown
        assert ours(home) == []

    def test_not_without_a_terminal(self, inner: pytest.Pytester) -> None:
        inner.makepyfile(self.SOURCE)
        done = subprocess.run(
            [*PYTEST, "--machine-shell=failed"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == pytest.ExitCode.USAGE_ERROR or done.returncode == pytest.ExitCode.INTERRUPTED
        assert "--machine-shell=failed needs a terminal" in done.stdout + done.stderr
        assert "--machine-keep=failed" in done.stdout + done.stderr

    def test_not_under_xdist(self, inner: pytest.Pytester) -> None:
        inner.makepyfile(self.SOURCE)
        code, shown = drive([*PYTEST, "--machine-shell=failed", "-n2"], [])
        assert code != 0
        assert "workers of pytest-xdist do not have" in shown
        assert "pytest -n0 --machine-shell=failed" in shown


class TestProgress:
    SOURCE = "import pytest\n@pytest.mark.machine(count=3)\ndef test_it(machines): ...\n"

    @pytest.fixture(autouse=True)
    def _terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever these tests run on, theirs is one that can go back."""
        monkeypatch.setenv("TERM", "xterm")

    def test_a_live_line(self, inner: pytest.Pytester) -> None:
        inner.makepyfile(self.SOURCE)
        code, shown = drive([*PYTEST, "--color=no"], [])
        assert code == 0, shown
        assert re.search(r"\r\x1b\[K[0-3] of 3 machines ready, \d\.\d s", shown)
        assert screen(shown).count("ready, ") == 0
        assert re.search(r"^test_a_live_line.py \.", screen(shown), re.MULTILINE)

    def test_none(self, inner: pytest.Pytester) -> None:
        inner.makepyfile(self.SOURCE)
        code, shown = drive([*PYTEST, "-q"], [])
        assert code == 0, shown
        assert "machines ready" not in shown


def test_packets_and_a_picture_of_a_failed_test(run: Run, inner: pytest.Pytester) -> None:
    """The files are complete, only those of failed tests stay, and a shared machine is as new without them."""
    result = run(
        """
        import pytest
        from pytest_machine import Partition
        pytestmark = [pytest.mark.machine(name, networks=["front"], reuse="module") for name in ("a", "b")]

        def booted(lab):
            return [machine.run("cut", "-d", " ", "-f", "22", "/proc/1/stat").stdout for machine in lab]

        def test_cut(lab, pytestconfig):
            pytestconfig.booted = booted(lab)
            lab["a"].run("ping", "-c", "10", "-i", "0.02", "-W", "10", lab["b"].networks["front"].ip)
            with lab.inject(Partition(["a"], ["b"])):
                assert lab.reachable("a", "b")

        def test_after(lab, pytestconfig):
            assert booted(lab) == pytestconfig.booted, "none was laid again"
            for machine in lab:
                assert machine.run("pgrep", "-x", "tcpdump").stdout.split(), "it is captured"
            assert lab.reachable("a", "b")
        """,
        "--machine-artifacts=art",
        "--machine-pcap=failed",
        "--machine-timeline=page.html",
        failed=1,
        passed=1,
    )
    top = inner.path / "art/test_it.py"
    result.stdout.fnmatch_lines(
        [
            "a | b: cut",
            "network 'front': a *.*.*.*, b *.*.*.*",
            f"drawing: {top}/test_cut/lab.svg",
            "*- machine 'a': packets -*",
            f"{top}/test_cut/a/packets-front.pcap: * packets",
            "*- machine 'b': packets -*",
        ]
    )
    for name in "ab":
        assert len(echoes(top / f"test_cut/{name}/packets-front.pcap")) >= 20
    assert not list(top.glob("test_after/**/*.pcap"))
    assert "tcpdump" not in (top / "test_cut/a/processes.txt").read_text()
    page = (inner.path / "page.html").read_text("utf-8")
    assert "Partition(a | b)" in page
    assert "as it was then" in page


def echoes(file: Path) -> list[int]:
    """Return the types of ICMP packets in a file: 8 asks, 0 answers."""
    data, at, found = file.read_bytes(), 24, []
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], sys.byteorder)
        packet = data[at + 16 : at + 16 + size]
        if packet[12:14] == b"\x08\x00" and packet[23] == 1:
            found.append(packet[34])
        at += 16 + size
    assert at == len(data)
    return found
