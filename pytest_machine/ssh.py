"""The way into a machine: OpenSSH's client, one connection a machine, however many commands go through it.

OpenSSH rather than a library: it is on every developer's machine, knows every key and cipher, and people can type what
we typed. The user's own configuration, agent and known hosts play no part; the one host key that is accepted is the one
that the machine was born with.

A command is run by a shell of four words in the machine, which adds a mark to the error stream where the command itself
returned 255: that is also what `ssh` returns when it fails, and the two must not be mixed up.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shlex
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

from .connection import AnyBytes, AnyPath, content, path_here, path_there, words
from .errors import CommandFailed, ConnectFailed, MachineError, UsageError, WaitTimeout
from .login import CONNECT_TIMEOUT, Login, host, quote
from .model import Address, Result
from .store import write

# What `ssh` returns when it fails.
LOST = 255
# Seconds that a master outlives its last command, and so also its owner, should that be killed.
_PERSIST = 30
# A socket's path may have 104 bytes at most (macOS), and OpenSSH adds 17 of its own while it makes it.
_SOCKET_LENGTH = 100 - 17

# What OpenSSH says before it connects for itself because the machine allows no more commands on one connection.
_NOISE = re.compile(r"^mux_client_request_session: .*\n", re.MULTILINE)

_RUN = '"$@"; r=$?; [ "$r" -ne 255 ] || echo {mark} >&2; exit "$r"'
# The name is made beside the target, because a rename is atomic only within a file system.
_PUT_FILE = """\
[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
t="$1.$2"; umask 077
if cat >"$t" && chmod "$3" "$t" && mv -f "$t" "$1"; then exit 0; fi
rm -f "$t"; exit 1"""
_PUT_DIRECTORY = 'mkdir -p "$1" && exec tar -xf - -C "$1"'
# One letter says which, so that one round trip is enough.
_GET = 'if [ -d "$1" ]; then printf d && exec tar -cf - -C "$1" .; else [ -r "$1" ] && printf f; exec cat "$1"; fi'


def new_key(comment: str) -> tuple[str, str]:
    """Return a new Ed25519 pair in OpenSSH's form: the private key (PEM) and the public one (a line, no newline)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {' '.join(comment.split())}".strip()


def pin(known_hosts: Path, address: Address, host_key_public: str) -> None:
    """Write the file's one line: whoever answers at that address must have that key."""
    kind, key = host_key_public.split()[:2]
    write(known_hosts, f"{host(address)} {kind} {key}\n".encode(), durable=False)


def pin_known(known_hosts: Path, address: Address) -> bool:
    """Pin the host keys by which the user's own ``ssh`` knows whoever is at that address; return whether it does."""
    theirs = Path.home() / ".ssh" / "known_hosts"
    try:
        argv = ["ssh-keygen", "-F", host(address), "-f", str(theirs)]
        found = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    except FileNotFoundError as error:
        raise _no_ssh() from error
    # Lines that begin with # say where the others were found.
    lines = [line for line in found.splitlines(keepends=True) if line.strip() and not line.startswith(b"#")]
    if lines:
        write(known_hosts, b"".join(lines), durable=False)
    return bool(lines)


class SshConnection:
    """A `pytest_machine.connection.Connection` by SSH. It connects when it is first used, and again when it must.

    It logs in with `key` alone; with `agent`, by what the user's own ``ssh`` has instead (its agent, the keys in their
    usual places), and `key` is but a name. Whoever answers must have a host key that is in `known_hosts`; with `trust`,
    the first one that is seen goes there and is the one from then on.
    """

    def __init__(
        self,
        address: Address,
        *,
        key: Path,
        known_hosts: Path,
        agent: bool = False,
        trust: bool = False,
        control: bool = os.name != "nt",
    ) -> None:
        self.address = address
        self._agent = agent
        self._trust = trust
        self._key = key.absolute()
        self._known_hosts = known_hosts.absolute()
        # Windows' OpenSSH has no multiplexing: there each command connects for itself.
        self._socket = _socket_path(self._key) if control else None
        self._starting = threading.Lock()
        self._forwards: dict[tuple[str, int], tuple[subprocess.Popen[bytes], int]] = {}

    def __repr__(self) -> str:
        return f"SshConnection({self._target})"

    @property
    def _target(self) -> str:
        return f"{self.address.user}@{self.address.ip}"

    @property
    def login(self) -> Login:
        """How OpenSSH's programs log in to it, by its connection if there is one."""
        return Login(
            address=self.address,
            key=self._key,
            known_hosts=self._known_hosts,
            agent=self._agent,
            trust=self._trust,
            control=self._socket,
        )

    @property
    def argv(self) -> list[str]:
        """The command up to ``user@host``: what follows is run there, and nothing gives a shell."""
        return self.login.argv

    def _ssh(self, *first: str) -> list[str]:
        # Of an option that is given twice, OpenSSH takes the first.
        return ["ssh", *first, *self.argv[1:]]

    def run(
        self,
        *argv: AnyPath,
        check: bool = True,
        timeout: float | None = None,
        input: str | AnyBytes | None = None,
    ) -> Result:
        """Run a command; see `pytest_machine.connection.Connection.run`.

        The words of `argv` arrive as they are: no shell sees them. Past `timeout` the command may go on in the machine.
        Raises `UsageError` for what is no word or no input, and for more words than a command can have.
        """
        said = words(argv)
        return self._call(said, shown=said, stdin=content(input), timeout=timeout, check=check)

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command that goes on, and return ssh's process with its three pipes, which the caller ends.

        It should end when its input does: that is what it sees when this process is killed. Ctrl-C in a terminal does
        not reach it. Raises `ConnectFailed`.
        """
        if reason := self._connect(None):
            raise ConnectFailed(
                f"SSH to '{self._target}' failed.",
                facts={"port": self.address.ssh_port, "reason": _short(reason)},
                hint=shlex.join(self.argv),
            )
        pipe = subprocess.PIPE
        try:
            return subprocess.Popen(
                [*self.argv, shlex.join(argv)], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except FileNotFoundError as error:
            raise _no_ssh() from error

    def put(
        self,
        source: AnyPath | AnyBytes,
        target: AnyPath,
        *,
        mode: int = 0o644,
    ) -> None:
        """Write a file, whole or not at all, or the content of a directory into the directory `target`.

        All of it belongs to the user that logs in; a directory's files keep their modes and links. Raises `UsageError`
        for what is no path, and where there is nothing at `source`.
        """
        where, shown = _path(path_there(target)), ("put", path_there(target))
        argv = ("sh", "-c", _PUT_FILE, "sh", where, secrets.token_hex(4), f"{mode:o}")
        if isinstance(source, bytes | bytearray | memoryview):
            self._call(argv, shown=shown, stdin=content(source))
            return
        local = path_here(source)
        if _is_directory(local):
            with tempfile.TemporaryFile() as packed:
                _pack(local, packed)
                packed.seek(0)
                self._call(("sh", "-c", _PUT_DIRECTORY, "sh", where), shown=shown, stdin=packed)
            return
        with local.open("rb") as file:
            self._call(argv, shown=shown, stdin=file)

    def get(self, source: AnyPath, target: AnyPath) -> None:
        """Bring a file home, whole or not at all (into `target` where that is a directory), or a directory's content.

        What a machine packs is not trusted: links that lead out of `target` and devices are left out. Raises
        `UsageError` for what is no path, and for a file that has no directory to go to.
        """
        path, home = path_there(source), path_here(target)
        with tempfile.TemporaryFile() as packed:
            self._call(("sh", "-c", _GET, "sh", _path(path)), shown=("get", path), stdout=packed)
            packed.seek(0)
            if packed.read(1) == b"d":
                home.mkdir(parents=True, exist_ok=True)
                with tarfile.open(fileobj=packed, mode="r|") as archive:
                    _unpack(archive, home)
                return
            file = home / PurePosixPath(path).name if home.is_dir() else home
            if not file.parent.is_dir():
                raise UsageError(
                    f"'{path}' cannot be brought home: there is no directory '{file.parent}'.",
                    hint=f"mkdir -p {shlex.quote(str(file.parent))}",
                )
            temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
            try:
                with temporary.open("xb") as out:
                    shutil.copyfileobj(packed, out)
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)

    def forward(self, port: int, *, host: str = "127.0.0.1", timeout: float = 30.0) -> int:
        """Return a port of this computer's 127.0.0.1 that is that TCP port of the machine, until `close`.

        `host` is whose port it is, as the machine sees it. The same again: the same port. Raises `ConnectFailed` when
        it does not come about within `timeout` seconds. Whether somebody listens in the machine is not asked.
        """
        with self._starting:
            process, here = self._forwards.get((host, port), (None, 0))
            if process is None or process.poll() is not None:
                process, here = self._forward(f"{_bracketed(host)}:{port}", time.monotonic() + timeout)
                self._forwards[host, port] = process, here
            return here

    def _forward(self, where: str, deadline: float) -> tuple[subprocess.Popen[bytes], int]:
        # Not by the master: that one ends when no command has gone through it for a while. It ends when `cat` does,
        # which reads what we hold: so also when we are killed.
        argv = replace(self.login, control=None).argv
        while True:
            with socket.create_server(("127.0.0.1", 0)) as free:
                here = int(free.getsockname()[1])
            with tempfile.TemporaryFile() as errors:
                try:
                    process = subprocess.Popen(
                        ["ssh", f"-L127.0.0.1:{here}:{where}", "-oExitOnForwardFailure=yes", *argv[1:], "exec cat"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                    )
                except FileNotFoundError as error:
                    raise _no_ssh() from error
                while process.poll() is None and time.monotonic() < deadline:
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", here), timeout=1):
                        return process, here
                    time.sleep(0.02)
                _hang_up(process)
                errors.seek(0)
                reason = _text(errors.read())
            # Somebody else may have taken the port in between; another one will do.
            if "Address already in use" not in reason or time.monotonic() >= deadline:
                raise ConnectFailed(
                    f"Port {where} of the machine at '{self._target}' cannot be forwarded to here.",
                    facts={"port": self.address.ssh_port, "reason": _short(reason) or "no login in time"},
                    hint=shlex.join(self.argv),
                )

    def close(self) -> None:
        """End the master and what runs through it; again: nothing happens. A later command connects anew."""
        with self._starting:
            for process, _ in self._forwards.values():
                _hang_up(process)
            self._forwards.clear()
        if self._socket is None:
            return
        if _listens(self._socket):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(self._ssh("-Oexit"), capture_output=True, timeout=5, check=False)
        self._socket.unlink(missing_ok=True)  # a killed master leaves it

    def _call(
        self,
        argv: Sequence[str],
        *,
        shown: tuple[str, ...],
        stdin: bytes | IO[bytes] = b"",
        stdout: IO[bytes] | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> Result:
        mark = f"ptm-{secrets.token_hex(8)}\n"
        command = shlex.join(["sh", "-c", _RUN.format(mark=mark.strip()), "sh", *argv])
        begun = time.monotonic()
        result = Result(shown, LOST, "", self._connect(timeout))
        if not result.stderr:
            try:
                done = subprocess.run(
                    [*self.argv, command],
                    input=stdin if isinstance(stdin, bytes) else None,
                    stdin=None if isinstance(stdin, bytes) else stdin,
                    stdout=stdout or subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    timeout=None if timeout is None else max(0.0, begun + timeout - time.monotonic()),
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise WaitTimeout(
                    f"The command '{shown[0]}' on '{self._target}' did not end within {timeout:g} s.",
                    facts={"command": _short(shlex.join(shown)), "last seen": _short(_text(error.stderr)) or "nothing"},
                    hint="allow a longer timeout, or look at what it waits for",
                ) from None
            except FileNotFoundError as error:
                raise _no_ssh() from error
            except OSError as error:
                if error.errno == errno.E2BIG:
                    raise _too_long(shown) from error
                raise
            result = Result(shown, done.returncode, _text(done.stdout), _text(done.stderr))
        lost = result.returncode == LOST and not result.stderr.endswith(mark)
        result = replace(result, stderr=_NOISE.sub("", result.stderr.removesuffix(mark)))
        if check and lost:
            raise ConnectFailed(
                f"SSH to '{self._target}' failed.",
                facts={"port": self.address.ssh_port, "reason": _short(result.stderr) or "the connection was lost"},
                hint=shlex.join(self.argv),
            )
        if check and result.returncode:
            raise CommandFailed(
                f"The command '{shown[0]}' on '{self._target}' returned {result.returncode}.",
                result=result,
                facts={"command": _short(shlex.join(shown)), "stderr": _short(result.stderr) or "(empty)"},
            )
        return result

    def _connect(self, timeout: float | None) -> str:
        """Start the master if there is none; return why it cannot be, or nothing."""
        if self._socket is None:
            return ""
        with self._starting:
            if _listens(self._socket):
                return ""
            self._socket.unlink(missing_ok=True)  # a killed master's
            # A file for its errors and not a pipe: the master goes on in the background and would hold that open.
            with tempfile.TemporaryFile() as errors:
                # ConnectTimeout does not bound the login itself.
                limit = 3 * CONNECT_TIMEOUT if timeout is None else timeout
                try:
                    code = subprocess.run(
                        self._ssh("-M", "-N", "-f", f"-oControlPersist={_PERSIST}"),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                        timeout=limit,
                        check=False,
                    ).returncode
                except subprocess.TimeoutExpired:
                    return f"no login within {limit:g} s"
                except FileNotFoundError as error:
                    raise _no_ssh() from error
                errors.seek(0)
                return "" if code == 0 else _text(errors.read()) or f"ssh returned {code}"


def _no_ssh() -> MachineError:
    # Not a ConnectFailed: waiting does not help.
    return MachineError("The program 'ssh' is not on the PATH.", hint="apt-get install openssh-client")


def _too_long(shown: Sequence[str]) -> UsageError:
    # For our kernel the whole command is one word, and Linux's have 128 KiB at most (execve(2), MAX_ARG_STRLEN). Not an
    # OSError: waiting does not help.
    return UsageError(
        f"The command '{shown[0]}' has more words than can be given.",
        facts={"command": f"{shlex.join(shown[:5])[:100]} …", "bytes": len(os.fsencode(shlex.join(shown)))},
        hint="give what is long by input=, or as a file: machine.put(content, '/tmp/content')",
    )


def _is_directory(source: Path) -> bool:
    """Whether what is to be put is a directory; raises `UsageError` where there is nothing."""
    try:
        return stat.S_ISDIR(source.stat().st_mode)
    except OSError as error:
        raise UsageError(
            f"There is nothing to put at '{str(source)[:200]}' on this computer.",
            facts={"reason": error.strerror or error},
            hint="text is given as bytes: machine.put('text'.encode(), ...)",
        ) from error


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def hang_up(key: Path) -> None:
    """End every master that logged in with that key, whichever process had started it; again: nothing happens.

    Whoever is killed leaves its masters behind, and they take 15 s to notice that their machine is gone.
    """
    for parent in _parents():
        for path in parent.glob(f"{_digest(key)}-*"):
            if _listens(path):
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    argv = ["ssh", "-F", os.devnull, "-Oexit", f"-oControlPath={quote(path)}", "machine"]
                    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)
            path.unlink(missing_ok=True)


def _socket_path(key: Path) -> Path:
    """Return a path for a new socket, in a directory that only this user may enter, by which `hang_up` finds it."""
    for parent in _parents():
        path = parent / f"{_digest(key)}-{secrets.token_hex(3)}"
        if len(os.fsencode(path)) <= _SOCKET_LENGTH and _private(parent):
            return path
    return Path(tempfile.mkdtemp(prefix="ptm-", dir="/tmp"), "s")


def _parents() -> list[Path]:
    if os.name == "nt":
        return []
    found = filter(None, (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"))  # noqa: S108  # see _private
    return [Path(each, f"ptm-{os.getuid()}") for each in found]


def _digest(key: Path) -> str:
    return hashlib.sha256(os.fsencode(key.absolute())).hexdigest()[:10]


def _private(directory: Path) -> bool:
    """Make the directory if need be; return whether it is ours alone. In ``/tmp`` somebody else may have been first."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _listens(path: Path) -> bool:
    # Cheaper than `ssh -O check`, which is a process.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _pack(source: Path, packed: IO[bytes]) -> None:
    with tarfile.open(fileobj=packed, mode="w") as archive:
        # Its children, not the directory itself: whose mode the target has is the target's own affair.
        for child in sorted(source.iterdir()):
            archive.add(child, child.name, filter=_without_owner)


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _unpack(archive: tarfile.TarFile, target: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        archive.extractall(target, filter=_inside)  # noqa: S202  # see the filter
    else:  # Python before 3.11.4, such as Debian 12's
        archive.extractall(target, members=_all_inside(archive, target))  # noqa: S202  # see there


def _inside(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    try:
        return tarfile.data_filter(member, target)
    except tarfile.FilterError:
        return None


def _all_inside(archive: tarfile.TarFile, target: Path) -> Iterator[tarfile.TarInfo]:
    """Yield what `tarfile.data_filter` would let pass, as it would; each when those before it are there."""
    top = os.path.realpath(target)

    def is_inside(*path: str) -> bool:
        return os.path.commonpath([top, os.path.realpath(os.path.join(top, *path))]) == top  # noqa: PTH118  # of texts

    for member in archive:
        folder = os.path.dirname(member.name)  # noqa: PTH120
        if not is_inside(member.name) or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            continue
        if (member.issym() and not is_inside(folder, member.linkname)) or (
            member.islnk() and not is_inside(member.linkname)
        ):
            continue
        # Ours, nobody else's to write, and nothing that it runs as somebody else.
        member.uid, member.gid = (getattr(os, name, int)() for name in ("getuid", "getgid"))
        member.uname = member.gname = ""
        member.mode = member.mode & 0o755 | (0o700 if member.isdir() else 0o600)
        yield member


def _path(remote: str) -> str:
    # So that none passes for an option.
    return remote if remote.startswith("/") else f"./{remote}"


def _text(found: bytes | str | None) -> str:
    return found if isinstance(found, str) else (found or b"").decode(errors="replace")


def _short(text: str) -> str:
    """Return the end of a text in one line: what matters of an error is said last."""
    line = " | ".join(filter(None, (part.strip() for part in text.splitlines()[-3:])))
    return line if len(line) <= 300 else f"…{line[-300:]}"
