"""A store that Docker Machine made: its machines are listed, used and removed, and its files stay as they are.

The files in `stores/` are what Docker Machine 0.16.2 writes, and its forebears wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine.ssh import new_key

from .conftest import Program

STORES = Path(__file__).with_name("stores")
SECRET = "do-very-secret-token"
NO_DRIVER = (
    'Driver "digitalocean" not found. Do you have the plugin binary "docker-machine-driver-digitalocean" accessible in '
    "your PATH?"
)
Put = Callable[..., Path]


@pytest.fixture
def put(program: Program) -> Put:
    """Return what puts a machine into the store as Docker Machine would have; it answers for a fake one."""

    def put(form: str, name: str = "", *, port: int = 9, ssh_port: int = 9) -> Path:
        name = name or form
        directory = program.store.path / "machines" / name
        directory.mkdir(parents=True)
        text = (STORES / f"{form}.json").read_text("utf-8")
        marks = {"STORE": program.store.path.as_posix(), "NAME": name, "PORT": port, "SSHPORT": ssh_port}
        for mark, value in marks.items():
            text = text.replace(f"@{mark}@", str(value))
        (directory / "config.json").write_text(text, "utf-8")
        (directory / "id_rsa").write_text(new_key("old")[0])
        return directory

    return put


@pytest.fixture
def served(program: Program, put: Put) -> Path:
    """A `generic` machine of Docker Machine's whose Docker answers: a fake machine's does, by another name."""
    program.make("fake")
    record = program.store.load("fake")
    assert record.address is not None
    port = record.address.engine_port
    directory = put("generic", "old", port=port, ssh_port=port)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(record.directory / name, directory / name)
    return directory


def rows(program: Program, *args: str) -> dict[str, str]:
    said = program.here("ls", *args)
    assert (said.code, said.err) == (0, "")
    return {line.split()[0]: " ".join(line.split()[1:]) for line in said.out.splitlines()[1:]}


class TestListed:
    @pytest.mark.skipif(shutil.which("VBoxManage") is not None, reason="VirtualBox is here, and has no such machines")
    def test_every_kind(self, program: Program, put: Put, served: Path) -> None:
        for form in ("none", "virtualbox", "digitalocean", "v0", "v1", "v2"):
            put(form)
        shown = rows(program, "-t", "5")
        url = program.here("url", "old").out.strip()
        assert list(shown) == ["digitalocean", "fake", "none", "old", "v0", "v1", "v2", "virtualbox"]
        assert shown["old"] == f"- generic Running {url} vfake"
        assert shown["none"].startswith("- none Running tcp://127.0.0.1:9 Unknown Unable to query docker version: ")
        assert shown["digitalocean"] == f"- digitalocean Error Unknown {NO_DRIVER}"
        assert shown["v2"] == "- generic Stopped Unknown"
        for name, swarm in (("virtualbox", ""), ("v0", "v0 (master) "), ("v1", "")):
            assert shown[name].startswith(f"- virtualbox Error {swarm}Unknown VBoxManage not found.")
        assert rows(program, "--filter", "driver=generic", "--filter", "label=zone=A", "--filter", "name=^o") == {
            "old": shown["old"]
        }
        assert program.here("ls", "-q").out.split() == list(shown)

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("", "Expecting value"),
            ('{"ConfigVersion": 3, "Driver": {"IPAddr', "Unterminated string"),
            ("[]", "is not a table"),
            ("{}", "it names no driver"),
            ('{"ConfigVersion": 4, "DriverName": "none"}', "config version is from the future -- you should upgrade"),
            (
                '{"ConfigVersion": 3, "DriverName": "none", "HostOptions": 7}',
                "'HostOptions' is 7, which is not a table",
            ),
            (None, "the creation of the machine was broken off"),
        ],
    )
    def test_one_that_cannot_be_read_hides_no_other(
        self, program: Program, put: Put, content: str | None, why: str
    ) -> None:
        put("none")
        config = put("none", "bad") / "config.json"
        config.unlink()
        if content is not None:
            config.write_text(content)
        shown = rows(program, "--filter", "name=none")
        assert shown["bad"].startswith("not found Error The configuration of the machine 'bad'")
        assert why in shown["bad"]
        assert shown["none"].startswith("- none Running")
        said = program.here("url", "bad")
        assert said.code == 1
        assert "hint: bring the file back, or forget the machine: docker-machine rm -f bad" in said.err
        assert program.here("url", "none").out == "tcp://127.0.0.1:9\n"
        assert program.here("rm", "-f", "bad").code == 0
        assert not config.parent.exists()


class TestUsed:
    def test_env_config_ip_url_status_version(self, program: Program, served: Path) -> None:
        url = program.here("url", "old").out.strip()
        assert url == program.here("url", "fake").out.strip()
        assert program.here("ip", "old").out == "127.0.0.1\n"
        assert program.here("status", "old").out == "Running\n"
        assert program.here("version", "old").out == "fake\n"
        assert program.here("config", "old").out.splitlines() == [
            "--tlsverify",
            f'--tlscacert="{served}/ca.pem"',
            f'--tlscert="{served}/cert.pem"',
            f'--tlskey="{served}/key.pem"',
            f"-H={url}",
        ]
        said = program.here("env", "--shell", "bash", "old")
        assert f'export DOCKER_HOST="{url}"\nexport DOCKER_CERT_PATH="{served}"\n' in said.out
        assert program.here("active", DOCKER_HOST=url).out in ("old\n", "fake\n")

    def test_the_stores_own_certificates_where_it_has_none(self, program: Program, served: Path) -> None:
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (served / name).unlink()
        assert f'--tlscacert="{program.store.certificates}/ca.pem"' in program.here("config", "old").out

    def test_one_named_default(self, program: Program, put: Put) -> None:
        put("none", "default")
        assert program.here("url").out == "tcp://127.0.0.1:9\n"
        assert program.here("ip").out == "127.0.0.1:9\n"

    def test_inspect_shows_the_file_but_no_secret(self, program: Program, put: Put) -> None:
        directory = put("digitalocean")
        shown = json.loads(program.here("inspect", "digitalocean").out)
        noted = json.loads((directory / "config.json").read_text())
        assert SECRET in json.dumps(noted)
        assert shown == {**noted, "Driver": {**noted["Driver"], "AccessToken": ""}}
        assert program.here("inspect", "-f", "{{.Driver.DropletID}} {{.DriverName}}", "digitalocean").out == (
            "123456 digitalocean\n"
        )
        assert SECRET not in program.here("-D", "ls", "-f", "json").out

    @pytest.mark.parametrize("form", ["v0", "v1", "v2"])
    def test_older_forms_are_shown_as_the_last(self, program: Program, put: Put, form: str) -> None:
        put(form)
        shown = json.loads(program.here("inspect", form).out)
        assert (shown["ConfigVersion"], shown["Name"]) == (3, form)
        assert shown["Driver"]["StorePath"] == str(program.store.path)
        authentication = shown["HostOptions"]["AuthOptions"]
        assert authentication["CaPrivateKeyPath"] == str(program.store.certificates / "ca-key.pem")
        assert "PrivateKeyPath" not in authentication
        assert shown["HostOptions"]["SwarmOptions"]["Master"] == (form == "v0")

    @pytest.mark.skipif(
        os.name == "nt", reason="a program is put in the place of ssh's, and Windows wants another kind"
    )
    def test_ssh(self, program: Program, served: Path, tmp_path: Path) -> None:
        """The words that OpenSSH gets."""
        place = tmp_path / "bin"
        place.mkdir()
        (place / "ssh").write_text(f'#!{sys.executable}\nimport sys\nprint(*sys.argv[1:], sep="\\n")\nsys.exit(7)\n')
        (place / "ssh").chmod(0o755)
        key = served / "id_rsa"
        key.chmod(0o644)
        said = program.here("ssh", "old", "uptime")
        assert said.err.startswith(f"Error: Cannot run SSH command: permissions 0644 for '{key}' are too open\n")
        key.chmod(0o600)
        said = program("ssh", "old", "uptime", PATH=f"{place}{os.pathsep}{os.environ['PATH']}")
        assert said.code == 7, said.err
        words = said.out.splitlines()
        assert words[-2:] == ["jo@127.0.0.1", "uptime"]
        assert words[words.index("-p") + 1] == program.here("url", "old").out.strip().rpartition(":")[2]
        assert any(word.startswith("-oIdentityFile=") and str(served / "id_rsa") in word for word in words)
        # Nobody knew its host key: the first that is seen is the one from then on.
        assert "-oStrictHostKeyChecking=accept-new" in words
        assert any(word.startswith("-oUserKnownHostsFile=") and str(served / "known_hosts") in word for word in words)

    @pytest.mark.skipif(os.name == "nt", reason="a program is put in the place of ssh")
    def test_its_access_is_exported(self, program: Program, served: Path, tmp_path: Path) -> None:
        """With its own key and certificates; nothing that it has elsewhere in its directory, and no secret."""
        secret = {"PYTEST_MACHINE_PASSPHRASE": "correct horse"}
        elsewhere = {**secret, "MACHINE_STORAGE_PATH": str(tmp_path / "elsewhere")}
        file = str(tmp_path / "old.access")
        before = sorted(served.rglob("*"))
        said = program.here("export", "old", "-o", file, **secret)
        assert (said.code, said.err) == (0, "")
        assert sorted(served.rglob("*")) == before
        assert program.here("import", file, **elsewhere).code == 0
        place = tmp_path / "elsewhere" / "machines" / "old"
        assert (place / "id_ed25519").read_text() == (served / "id_rsa").read_text()
        assert not (place / "config.json").exists()
        shown = json.loads(program.here("inspect", "old", **elsewhere).out)["Driver"]
        assert (shown["SSHUser"], shown["Options"]) == ("jo", {"origin": "generic"})
        # Its Docker was asked over TLS, with what came along.
        assert f'--tlskey="{place}/key.pem"' in program.here("config", "old", **elsewhere).out
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "ssh").write_text('#!/bin/sh\necho "$@"\n')
        (tmp_path / "bin" / "ssh").chmod(0o755)
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        words = program("ssh", "old", "uptime", PATH=path, **elsewhere).out
        assert f'-oIdentityFile="{place}/id_ed25519"' in words
        # Whose host key nobody has seen: the first one is the one from then on, here as there.
        assert "-oStrictHostKeyChecking=accept-new" in words

    def test_one_without_keys_is_not(self, program: Program, put: Put, tmp_path: Path) -> None:
        (put("none") / "id_rsa").unlink()
        said = program.here("export", "none", "-o", str(tmp_path / "it"), PYTEST_MACHINE_PASSPHRASE="correct horse")
        assert said.code == 1
        assert said.err.startswith('There is no key of "none" that could be exported.\n')

    @pytest.mark.skipif(os.name == "nt", reason="a program is put in the place of VBoxManage")
    @pytest.mark.parametrize(
        ("said", "state"),
        [("running", "Running"), ("saved", "Saved"), ("poweroff", "Stopped"), ("gurumeditation", "Error")],
    )
    def test_virtualbox_is_asked(self, program: Program, put: Put, tmp_path: Path, said: str, state: str) -> None:
        put("virtualbox")
        place = tmp_path / "bin"
        place.mkdir()
        line = f'[ "$1 $2 $3" = "showvminfo virtualbox --machinereadable" ] && echo \'VMState="{said}"\''
        (place / "VBoxManage").write_text(f"#!/bin/sh\n{line}\n")
        (place / "VBoxManage").chmod(0o755)
        path = f"{place}{os.pathsep}{os.environ['PATH']}"
        assert program.here("status", "virtualbox", PATH=path).out == f"{state}\n"
        url = program.here("url", "virtualbox", PATH=path)
        assert (url.out or url.err) == ("tcp://127.0.0.99:2376\n" if state == "Running" else "Host is not running\n")

    def test_power_is_not_ours(self, program: Program, put: Put, served: Path) -> None:
        put("none")
        assert program.here("kill", "none").err == "hosts without a driver cannot be killed\n"
        assert program.here("stop", "old").err == "generic driver does not support stop\n"
        assert program.here("start", "none").err == 'Machine "none" is already running.\n'

    @pytest.mark.parametrize(
        ("command", "done", "hint"),
        [
            ("start", "started", "startvm virtualbox --type headless"),
            ("stop", "stopped", "controlvm virtualbox acpipowerbutton"),
            ("kill", "killed", "controlvm virtualbox poweroff"),
        ],
    )
    def test_virtualbox_has_no_driver_yet(self, program: Program, put: Put, command: str, done: str, hint: str) -> None:
        put("virtualbox")
        put("digitalocean")
        said = program.here(command, "virtualbox")
        assert said.code == 1
        assert said.err == (
            f"The machine 'virtualbox' cannot be {done} from here: there is no driver 'virtualbox' yet, and Docker "
            f"Machine's machines in VirtualBox are used as they run.\nhint: VBoxManage {hint}\n"
        )
        said = program.here(command, "digitalocean")
        assert said.err == f"The machine 'digitalocean' cannot be {done} from here: {NO_DRIVER}\n"

    @pytest.mark.parametrize("command", ["url", "ip", "env", "config", "ssh", "version", "provision", "upgrade"])
    def test_why_nobody_knows_whether_it_runs(self, program: Program, put: Put, command: str) -> None:
        put("digitalocean")
        said = program.here(command, "digitalocean", SHELL="/bin/sh")
        assert (said.code, said.out) == (1, "")
        assert said.err.endswith(f"{NO_DRIVER}\n")

    def test_its_name_is_taken(self, program: Program, put: Put) -> None:
        put("digitalocean")
        assert program.here("create", "-d", "fake", "digitalocean").err == (
            'Docker machine "digitalocean" already exists\n'
        )


class TestRemoved:
    def test_what_is_nowhere_else(self, program: Program, put: Put, served: Path) -> None:
        put("none")
        assert program.here("rm", "-y", "none", "old").out.splitlines()[2:] == [
            "Successfully removed none",
            "Successfully removed old",
        ]
        assert sorted(path.name for path in (program.store.path / "machines").iterdir()) == ["fake"]
        assert program.here("status", "fake").out == "Running\n"

    def test_what_is_somewhere_else_is_refused_unless_forced(self, program: Program, put: Put) -> None:
        directory = put("digitalocean")
        said = program.here("rm", "-y", "digitalocean")
        assert said.code == 1
        assert said.err == (
            "Error removing host \"digitalocean\": The machine 'digitalocean' cannot be destroyed from here: "
            f"{NO_DRIVER}\nhint: remove it where it is, then forget it: docker-machine rm -f digitalocean\n"
        )
        assert directory.is_dir()
        said = program.here("rm", "-f", "digitalocean")
        assert (said.code, said.err) == (0, "")
        assert 'WARNING: What there is of "digitalocean" elsewhere stays: ' in said.out
        assert said.out.endswith("Successfully removed digitalocean\n")
        assert not directory.exists()


def test_nothing_is_ever_written_to_its_file(program: Program, put: Put, served: Path) -> None:
    files = [served / "config.json"]
    files += [put(form) / "config.json" for form in ("none", "virtualbox", "digitalocean", "v0", "v1", "v2")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in files]
    names = [path.parent.name for path in files]
    for command in ("ls", "active", "ip", "url", "status", "inspect", "config"):
        for name in names if command not in ("ls", "active") else ("",):
            program.here(command, *filter(None, [name]))
    for command in ("stop", "kill", "restart", "regenerate-certs"):
        program.here(command, *(["-f"] if command == "regenerate-certs" else []), "none", "virtualbox", "digitalocean")
    assert [(path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in files] == before
    assert not [path for path in program.store.path.rglob("pytest-machine.json") if path.parent.name != "fake"]
