"""Every kind of file that we read, damaged in every way, under every command: a sentence, an exit code, no victim else.

The world has a machine `web` to which the damaged file belongs, and its `neighbour`, which has to answer after each
command. A command never ends in a traceback, never waits for ever, and its exit code is one of those that
docs/reference promises. What is damaged is restored after each case.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytest_machine import owner
from pytest_machine.model import new_id
from pytest_machine.sealed import seal, unseal
from pytest_machine.store import Store
from tests.conftest import FULL

from .conftest import Program, Said

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="alarms, FIFOs and links are POSIX's")

PASSPHRASE = "opensesame"
CODES = {0, 1, 2, 3, 4}
"""The exit codes that docs/reference promises; 128 and more would be a signal."""
LIMIT = 40.0
"""Seconds that one command has, on a busy host."""

LOOKING: dict[str, tuple[str, ...]] = {
    "ls": ("ls",),
    "ls -q": ("ls", "-q"),
    "ls json": ("ls", "-f", "json"),
    "ls format": ("ls", "-f", "{{.Name}} {{.URL}} {{.EngineOptions.Labels}} {{.SwarmOptions.Host}}"),
    "ls filter": ("ls", "--filter", "label=a=b", "--filter", "state=Running"),
    "active": ("active",),
    "status": ("status", "web"),
    "ip": ("ip", "web"),
    "url": ("url", "web"),
    "env": ("env", "--shell", "bash", "web"),
    "config": ("config", "web"),
    "inspect": ("inspect", "web"),
    "inspect format": ("inspect", "-f", "{{.Driver.SSHUser}} {{json .HostOptions}}", "web"),
    "old status": ("status", "old"),
    "old url": ("url", "old"),
    "old env": ("env", "--shell", "bash", "old"),
    "old config": ("config", "old"),
    "old inspect": ("inspect", "old"),
    "old ssh": ("ssh", "old", "true"),
    "old rm": ("rm", "--dry-run", "old"),
    "old context": ("context", "old"),
    "mine url": ("url", "mine"),
    "mine inspect": ("inspect", "mine"),
    "mine export": ("export", "-f", "-o", "again.access", "mine"),
    "version": ("version", "web"),
    "ssh": ("ssh", "web", "true"),
    "scp": ("scp", "here", "web:there"),
    "doctor": ("doctor",),
    "prune": ("prune", "--dry-run"),
    "prune --all": ("prune", "--dry-run", "--all"),
    "rm": ("rm", "--dry-run", "web"),
    "rm -f": ("rm", "-f", "--dry-run", "web", "kept", "nix"),
    "context": ("context", "web"),
    "context --rm": ("context", "--rm", "web"),
    "completion": ("completion", "bash"),
    "image ls": ("image", "ls"),
    "up": ("up", "--dry-run"),
    "down": ("down", "--dry-run"),
    "export": ("export", "-f", "-o", "again.access", "web"),
    "import": ("import", "--name", "given", "given.access"),
}
DOING: dict[str, tuple[str, ...]] = {
    "start": ("start", "web"),
    "stop": ("stop", "web"),
    "kill": ("kill", "web"),
    "restart": ("restart", "web"),
    "regenerate-certs": ("regenerate-certs", "-f", "web"),
    "upgrade": ("upgrade", "web"),
    "rm -y": ("rm", "-y", "web"),
    "rm -f -y": ("rm", "-f", "web"),
    "rm old": ("rm", "-f", "old"),
    "rm mine": ("rm", "-f", "mine"),
    "rm kept": ("rm", "-f", "kept"),
    "prune now": ("prune",),
    "prune all now": ("prune", "--all"),
    "create": ("create", "-d", "fake", "new"),
    "create again": ("create", "-d", "fake", "web"),
    "up now": ("up",),
    "down now": ("down",),
    "image rm": ("image", "rm", "--old"),
    "image rm all": ("image", "rm", "--all"),
}
COMMANDS = LOOKING | DOING


class Hung(BaseException):
    """A command took too long."""


@dataclass
class World:
    """The machines and the files around them."""

    program: Program
    top: Path
    files: dict[str, Path] = field(default_factory=dict)
    """Kind → the file that is damaged."""

    def call(self, *args: str) -> Said:
        """Call the program; raises `Hung` where it never ends."""

        def hung(*_: object) -> None:
            raise Hung(args)

        before = signal.signal(signal.SIGALRM, hung)
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        try:
            with contextlib.chdir(self.top / "project"):
                return self.program.here(*args, PYTEST_MACHINE_PASSPHRASE=PASSPHRASE)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def save(self) -> None:
        """Keep a copy of all files but those of the driver."""
        for name in ("machines", "docker", "home", "cache", "project"):
            shutil.rmtree(self.top / "pristine" / name, ignore_errors=True)
            shutil.copytree(self.top / name, self.top / "pristine" / name, symlinks=True)

    def restore(self) -> None:
        """Bring them back; a machine that was removed is made again."""
        for name in ("machines", "docker", "home", "cache", "project"):
            shutil.rmtree(self.top / name)
            shutil.copytree(self.top / "pristine" / name, self.top / name, symlinks=True)
        store = self.program.store
        known = {record.id: record for record in store.records()}
        for record in self.program.driver.find():
            if record.id not in known:
                self.program.driver.destroy(record)
        web = store.load("web")
        seen = self.program.driver.look([web])[web.id]
        if seen.state != "running" or seen.address != web.address:
            self.program.driver.destroy(web)
            store.remove("web")
            self.make_web()
            self.save()

    def make_web(self) -> None:
        """Make the machine whose files are damaged."""
        said = self.call("create", "-d", "cloud", "--cloud-key", PASSPHRASE, "--engine-label", "a=b", "web")
        assert said.code == 0, said.err
        assert self.call("context", "web").code == 0
        assert self.call("export", "-f", "-o", "given.access", "web").code == 0
        web = self.program.store.load("web").id
        for kind, name in (("fake tags", f"{web}.json"), ("fake engine", f"{web}/engine.json")):
            self.files[kind] = self.top / "fake" / "machines" / name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    top = tmp_path_factory.mktemp("world")
    from .conftest import made

    with made(top) as program:
        program.store = Store(top / "machines")
        program.environ |= {
            "MACHINE_STORAGE_PATH": str(top / "machines"),
            "DOCKER_CONFIG": str(top / "docker"),
            "PYTEST_MACHINE_CACHE": str(top / "cache"),
            "HOME": str(top / "home"),
            "DOCKER_HOST": f"unix://{top}/none",
        }
        (top / "bin").mkdir()
        for name in ("ssh", "scp", "ssh-keygen"):
            (top / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
            (top / "bin" / name).chmod(0o755)
        program.environ["PATH"] = f"{top / 'bin'}{os.pathsep}{os.environ['PATH']}"
        found = World(program, top)
        for name in ("machines", "docker", "home", "cache", "project"):
            (top / name).mkdir()
        _furnish(found)
        yield found


def _furnish(world: World) -> None:
    top, store = world.top, world.program.store
    (top / "docker" / "config.json").write_text('{"currentContext": "default", "auths": {}}')
    (top / "project" / "machines.toml").write_text(
        '[machines.web]\ndriver = "fake"\nmemory = "64m"\nengine_options = { debug = true }\nlabels = { a = "b" }\n'
        'registry_mirror = ["https://mirror.example"]\ntimeout = 20\n'
    )
    (top / "project" / "here").write_text("here")
    world.program.make("neighbour")
    world.make_web()
    web = store.load("web")
    theirs = top / "machines" / "machines" / "old"
    theirs.mkdir()
    text = (Path(__file__).parent / "stores" / "generic.json").read_text()
    for name, value in {"NAME": "old", "STORE": str(store.path), "PORT": "9", "SSHPORT": "9"}.items():
        text = text.replace(f"@{name}@", value)
    config = json.loads(re.sub("@[A-Z_]+@", "9", text))
    config["Driver"] |= {"IPAddress": "127.0.0.1", "SSHPort": 9, "SSHKeyPath": str(theirs / "id_rsa")}
    (theirs / "config.json").write_text(json.dumps(config))
    for name in ("ca.pem", "cert.pem", "key.pem", "server.pem"):
        shutil.copy(web.directory / name, theirs)
    shutil.copy(web.directory / "id_ed25519", theirs / "id_rsa")
    assert world.call("import", "--name", "mine", "given.access").code == 0
    # A run that is dead, one of whose machines was kept.
    run = owner.Run.begin(root=top / "home")
    kept = web.with_(id=new_id(), name="kept", run=run.id, store=run.store.path)
    run.store.add(kept)
    (kept.directory / "kept.json").write_text('{"because": "a test", "since": 1.0}')
    directory = run.directory
    run.end()
    (directory / "drivers.json").write_text("[]")
    image = top / "cache" / "images" / "bookworm-0123456789ab"
    (image / "tree").mkdir(parents=True)
    facts = {"suite": "bookworm", "digest": "0123456789ab", "size": 1, "docker": "20.10.24"}
    (image / "image.json").write_text(json.dumps(facts))
    (top / "home" / "memory").mkdir(exist_ok=True)
    (top / "home" / "memory" / "0123.json").write_text(
        json.dumps({"machines": {"web": 1 << 20}, "store": str(store.path)})
    )
    of = web.directory
    meta = next(path for path in (top / "docker").rglob("meta.json"))
    tls = next(path for path in (top / "docker").rglob("ca.pem"))
    world.files |= {
        "record": of / "pytest-machine.json",
        "secrets": of / "secrets.json",
        "daemon": of / "daemon.json",
        "variables": of / "machine.env",
        "ca": of / "ca.pem",
        "cert": of / "cert.pem",
        "key": of / "key.pem",
        "server": of / "server.pem",
        "login": of / "id_ed25519",
        "login public": of / "id_ed25519.pub",
        "known hosts": of / "known_hosts",
        "endpoint": of / "docker-engine.json",
        "directory": of,
        "authority": top / "machines" / "certs" / "ca.pem",
        "authority key": top / "machines" / "certs" / "ca-key.pem",
        "client": top / "machines" / "certs" / "cert.pem",
        "lock": top / "machines" / "locks" / "web.lock",
        "config": theirs / "config.json",
        "their key": theirs / "id_rsa",
        "their cert": theirs / "cert.pem",
        "imported": top / "machines" / "machines" / "mine" / "pytest-machine.json",
        "context": meta,
        "context tls": tls,
        "docker config": top / "docker" / "config.json",
        "access": top / "project" / "given.access",
        "access content": top / "project" / "given.access",
        "toml": top / "project" / "machines.toml",
        "kept": directory / "store" / "machines" / "kept" / "kept.json",
        "kept record": directory / "store" / "machines" / "kept" / "pytest-machine.json",
        "drivers": directory / "drivers.json",
        "run": directory,
        "owners": next(path for path in (directory / "over", directory / "owners") if path.exists()),
        "ledger": top / "home" / "memory" / "0123.json",
        "image": image / "image.json",
        "image home": image,
    }
    # A machine that waits for later runs, and a host that a run used.
    place = top / "home" / "shelf" / "0123456789abcdef-0"
    place.mkdir(parents=True)
    shelved = web.with_(id=new_id(), name="shelved", run="", store=place, expires=4e9)
    Store(place).add(shelved)
    (place / "claim.json").write_text(json.dumps({"run": str(directory), "by": ""}))
    (top / "home" / "shelf" / "salt").write_bytes(bytes(range(32)))
    hosts = top / "home" / "hosts" / "0123456789abcdef"
    hosts.mkdir(parents=True)
    (hosts / "0123456789--1-00000000.use").touch()
    world.files |= {
        "shelf": place,
        "shelf claim": place / "claim.json",
        "shelf record": shelved.directory / "pytest-machine.json",
        "shelf salt": top / "home" / "shelf" / "salt",
        "hosts": hosts / "0123456789--1-00000000.use",
    }
    world.save()


# Damage.

NASTY: list[object] = [
    None, True, -1, 0, 2**63, 10**400, 1e308, "", " ", "x", "\ud800", "\x00", "\x1b[2J", "a\nProxyCommand x", "-oX=y",
    "%h", "${HOME}", '"', "../../..", "/", "nix", "fe80::1%eth0", "300.1.1.1", "[::1]", "tcp://[", "tcp://x:99999",
    "x" * 5000, [], {}, [None], [[]], ["\ud800"], {"a": {}}, {"\ud800": 1}, {"": None}, 99999, 1.5, "1.5",
]  # fmt: skip
DOCUMENTS: list[bytes] = [
    b"", b"\n", b"\x00" * 100, b"\xff\xfe\x00", b"null", b"[]", b"{}", b'"x"', b"1", b"NaN", b"1e999", b"9" * 5000,
    b"[" * 100_000, b'{"a":' * 50_000, b'{"a":1}' * 2, b"\xef\xbb\xbf{}", b'{"\\ud800": "\\ud800"}', b"\xed\xa0\x80",
    b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"a=b\nc", b"= = =", b"[machines]\n",
    b'[machines."\\u0000"]\n', b"[machines.web]\ndriver = 1\n", b"[machines.web]\ncount = 999999999\n", b"x = [" * 5000,
    b"x" * 100_000, b"'", b'"unclosed', b"pytest-machine sealed 1\n", b"pytest-machine sealed 99999999999999999999\n",
]  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """One way to damage a file; its name is what hypothesis shows."""

    name: str
    detail: Any = None

    def __call__(self, path: Path, content: bytes | None) -> None:  # noqa: C901  # one line a kind
        """Put it in the place of the file, which is away."""
        if self.name == "directory":
            (path / "in it").mkdir(parents=True)
        elif self.name == "FIFO":
            os.mkfifo(path)
        elif self.name == "socket":
            with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(path.parent):
                bound.bind(path.name)
        elif self.name == "loop":
            path.symlink_to(path.name)
        elif self.name == "dangling":
            path.symlink_to("/nowhere/at all")
        elif self.name == "link to a directory":
            path.symlink_to("/")
        elif self.name == "unreadable":
            path.write_bytes(content or b"")
            path.chmod(0)
        elif self.name == "names":
            path.mkdir()
            for name in (b"\xff\xfe", b"\x1b[2J", b"-rf", b"a\nb", b"x" * 255):
                Path(os.fsdecode(os.fsencode(path) + b"/" + name)).touch()
        elif self.name != "missing":
            path.parent.mkdir(parents=True, exist_ok=True)  # a command may have removed it, as `context --rm` does
            path.write_bytes(self.bytes(content or b""))

    def bytes(self, content: bytes) -> bytes:
        """Return the damaged content."""
        if self.name == "flipped":
            found = bytearray(content)
            for position, bit in self.detail:
                if found:
                    found[position % len(found)] ^= 1 << bit
            return bytes(found)
        if self.name == "cut":
            return content[: self.detail % (len(content) + 1)]
        if self.name == "value":
            return _mutated(content, *self.detail)
        assert isinstance(self.detail, bytes)
        return self.detail


def _mutated(content: bytes, where: int, how: str, value: object) -> bytes:
    """Return JSON or TOML of which one value is another; what is neither gets the value's text in place of a line."""
    try:
        data = json.loads(content)
    except ValueError:
        with contextlib.suppress(ValueError):
            if found := tomllib.loads(content.decode()):
                return _toml(_changed(found, where, how, value)).encode("utf-8", "surrogatepass")
        lines = content.split(b"\n")
        lines[where % len(lines)] = str(value).encode("utf-8", "surrogatepass")
        return b"\n".join(lines)
    return json.dumps(_changed(data, where, how, value)).encode()


def _changed(data: Any, where: int, how: str, value: object) -> Any:
    places = list(_places(data))
    if not places:
        return value
    holder, key = places[where % len(places)]
    if how == "removed":
        del holder[key]
    elif how == "renamed" and isinstance(holder, dict):
        holder[str(value)] = holder.pop(key)
    else:
        holder[key] = value
    return data


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield data, key
        yield from _places(data[key])


def _toml(data: Any) -> str:
    text = (
        "".join(
            f"[machines.{name}]\n"
            + "".join(f"{json.dumps(key)} = {_toml_value(value)}\n" for key, value in given.items())
            if isinstance(given, dict)
            else f"machines.{json.dumps(name)} = {_toml_value(given)}\n"
            for name, given in data.get("machines", {}).items()
        )
        if isinstance(data.get("machines"), dict)
        else ""
    )
    return text + "".join(f"{json.dumps(k)} = {_toml_value(v)}\n" for k, v in data.items() if k != "machines")


def _toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value) if value is not None else "nan"


DAMAGES: st.SearchStrategy[Damage] = st.one_of(
    st.builds(
        Damage,
        st.just("flipped"),
        st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 7)), min_size=1, max_size=3),
    ),
    st.builds(Damage, st.just("cut"), st.integers(0, 5000)),
    st.builds(
        Damage,
        st.just("value"),
        st.tuples(st.integers(0, 80), st.sampled_from(["set", "set", "removed", "renamed"]), st.sampled_from(NASTY)),
    ),
    st.builds(Damage, st.just("document"), st.sampled_from(DOCUMENTS)),
    st.builds(
        Damage,
        st.sampled_from(
            ["directory", "FIFO", "socket", "loop", "dangling", "link to a directory", "unreadable", "names", "missing"]
        ),
    ),
)  # fmt: skip

KINDS = (
    *(
        "record",
        "secrets",
        "daemon",
        "variables",
        "ca",
        "cert",
        "key",
        "server",
        "login",
        "login public",
        "known hosts",
    ),
    *("endpoint", "directory", "authority", "authority key", "client", "lock", "config", "their key", "their cert"),
    *("imported", "context", "context tls", "docker config", "access", "access content", "toml", "kept", "kept record"),
    *("drivers", "run", "owners", "ledger", "image", "image home", "fake tags", "fake engine"),
    *("shelf", "shelf claim", "shelf record", "shelf salt", "hosts"),
)
REACHED = {
    "daemon": ["regenerate-certs", "upgrade", "start", "up", "up now"],
    "variables": ["regenerate-certs", "upgrade", "start", "up", "up now"],
    "context": ["context", "context --rm", "prune", "prune now", "rm -y"],
    "context tls": ["context", "context --rm", "prune", "prune now", "rm -y"],
    "docker config": ["context", "context --rm", "prune now", "rm -y"],
    "record": ["ls", "inspect", "create again", "rm -y", "prune all now"],
    "config": [name for name in COMMANDS if "old" in name],
    "their key": [name for name in COMMANDS if "old" in name],
    "their cert": [name for name in COMMANDS if "old" in name],
    "imported": [name for name in COMMANDS if "mine" in name],
    "access": ["import"],
    "access content": ["import"],
    "toml": ["up", "down", "up now", "down now"],
    "image": ["image ls", "image rm", "image rm all", "doctor"],
    "image home": ["image ls", "image rm", "image rm all", "doctor"],
    "kept": ["rm -f", "rm kept", "prune", "prune now", "prune all now"],
    "shelf": ["prune", "prune --all", "prune now", "prune all now"],
    "shelf claim": ["prune", "prune --all", "prune now", "prune all now"],
    "shelf record": ["prune", "prune --all", "prune now", "prune all now"],
    "kept record": ["rm -f", "rm kept", "prune", "prune now", "prune all now"],
}
"""Kind → the commands that read such a file, of which most calls are; any other command is called with it too."""


def damaged(world: World, kind: str, damage: Damage, commands: list[str]) -> None:
    """Damage a file, call commands, and check what they do."""
    path = world.files[kind]
    aside = world.top / "aside"
    content: bytes | None = None
    if path.is_file():
        content = path.read_bytes()
    if kind == "access content":
        assert content is not None
        inner = unseal(content, PASSPHRASE, called="given.access")
        damage = Damage("document", seal(damage.bytes(inner), PASSPHRASE, cost=2))
    there = os.path.lexists(path)
    if there:
        path.rename(aside)
    try:
        damage(path, content)
        for name in commands:
            said = world.call(*COMMANDS[name])
            assert said.code in CODES, (name, said)
            assert "Traceback" not in said.out + said.err, (name, said)
            assert "Unexpected error." not in said.err, (name, said)
            if said.code:
                assert said.err.strip(), (name, said)
            for text in (said.out, said.err):
                assert "\x1b" not in text, (name, said)
            answered = world.call("status", "neighbour")
            assert (answered.code, answered.out) == (0, "Running\n"), (name, answered)
    finally:
        _remove(path)
        if there:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(path)
        if not set(commands) <= LOOKING.keys():
            world.restore()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_a_sentence(world: World, kind: str, rounds: Callable[[int, int], int]) -> None:
    near = REACHED.get(kind)
    names = st.sampled_from(list(COMMANDS))
    chosen = st.one_of(st.sampled_from(near), st.sampled_from(near), names) if near else names

    @settings(
        max_examples=rounds(300, 12),
        deadline=None,
        derandomize=not FULL,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(DAMAGES, st.lists(chosen, min_size=1, max_size=2, unique=True))
    def play(damage: Damage, commands: list[str]) -> None:
        if kind == "access content" and damage.name not in ("flipped", "cut", "value", "document"):
            return
        if damage.name == "unreadable" and os.geteuid() == 0:
            return
        damaged(world, kind, damage, commands)

    play()
