"""The way into a machine: OpenSSH's client, one connection a machine, however many commands go through it.

OpenSSH rather than a library: it is on every developer's machine, knows every key and cipher, and people can type what
we typed. The user's own configuration, agent and known hosts play no part; the one host key that is accepted is the one
that the machine was born with.

A command is run by a shell of four words in the machine, which marks the end of what it printed and adds what it
returned: 255 is also what `ssh` returns when it fails, and the two must not be mixed up.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shlex
import socket
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from .connection import AnyBytes, AnyPath, content, path_here, path_there, words
from .errors import CommandFailed, ConnectFailed, LimitExceeded, MachineError, UsageError, WaitTimeout
from .incoming import OVERHEAD, SCRIPT, SECONDS, SILENCE, SIZE, Incoming
from .login import CONNECT_TIMEOUT, Login, host, quotable, quote
from .model import Address, Result
from .store import write
from .support import clock, files
from .support.processes import Conversation, TooLong, TooMuch
from .support.text import decoded

# What `ssh` returns when it fails.
LOST = 255
# Seconds that a master outlives its last command, and so also its owner, should that be killed.
_PERSIST = 30
# A socket's path may have 104 bytes at most (macOS), and OpenSSH adds 17 of its own while it makes it.
_SOCKET_LENGTH = 100 - 17

# What OpenSSH says before it connects for itself because the machine allows no more commands on one connection.
_NOISE = re.compile(r"^mux_client_request_session: .*\n", re.MULTILINE)

# The end is marked on both streams: a process that the command left behind may hold them open for as long as it likes.
_RUN = '"$@"; r=$?; {printed}echo {mark} "$r" >&2; exit "$r"'
_PRINTED = 'echo {mark} "$r"; '
# The name is made beside the target, because a rename is atomic only within a file system.
_PUT_FILE = """\
[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
t="$1.$2"; umask 077
if cat >"$t" && chmod "$3" "$t" && mv -f "$t" "$1"; then exit 0; fi
rm -f "$t"; exit 1"""
_PUT_DIRECTORY = 'mkdir -p "$1" && exec tar -xf - -C "$1"'
# One letter says which, so that one round trip is enough.
OUTPUT = 256 << 20
"""Bytes that a command may print, on both streams together; they are held in memory."""


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


def repin(known_hosts: Path, before: Address, after: Address) -> None:
    """Note the keys of the host that was at `before` for `after`; keys that are noted by a digest stay as they are."""
    try:
        lines = files.read(known_hosts, "the known hosts").splitlines(keepends=True)
    except files.UNREADABLE:
        return
    old, new = host(before).encode(), host(after).encode()
    moved = [new + line[len(old) :] if line.startswith(old + b" ") else line for line in lines]
    if moved != lines:
        write(known_hosts, b"".join(moved), durable=False)


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

    def get(self, source: AnyPath, target: AnyPath, *, size: int = SIZE, timeout: float = SECONDS) -> tuple[str, ...]:
        """Bring a file home, whole or not at all (into `target` where that is a directory), or a directory's content.

        Return what was left out of a directory and why, a line each. What a machine packs is not trusted: of a
        directory come regular files, directories, and links that lead down from their own directory; a link that is in
        the way here is replaced or refused, never followed. A directory that changes while it is packed comes as it was
        found. Raises `UsageError` for what is no path, and for a file that has no directory to go to; `TransferFailed`
        when the machine sends something else, `LimitExceeded` when it is more than `size` bytes, more than a million
        files, takes longer than `timeout` seconds, or nothing comes for a minute. Of a directory stays what had come
        until then.
        """
        path = path_there(source)
        incoming = Incoming(path, path_here(target), size)
        try:
            result = self._call(
                ("sh", "-c", SCRIPT, "sh", _path(path)),
                shown=("get", path),
                timeout=timeout,
                size=size + OVERHEAD,
                silence=SILENCE,
                take=incoming.take,
                check=False,
            )
            if not incoming.settle(result):
                self._check(result, lost=result.returncode == LOST)
        finally:
            incoming.drop()
        return incoming.left

    def forward(self, port: int, *, host: str = "127.0.0.1", timeout: float = 30.0) -> int:
        """Return a port of this computer's 127.0.0.1 that is that TCP port of the machine, until `close`.

        `host` is whose port it is, as the machine sees it. The same again: the same port. Raises `ConnectFailed` when
        it does not come about within `timeout` seconds. Whether somebody listens in the machine is not asked.
        """
        with self._starting:
            process, here = self._forwards.get((host, port), (None, 0))
            if process is None or process.poll() is not None:
                process, here = self._forward(f"{_bracketed(host)}:{port}", clock.monotonic() + timeout)
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
                while process.poll() is None and clock.monotonic() < deadline:
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", here), timeout=1):
                        return process, here
                    clock.sleep(0.02)
                _hang_up(process)
                errors.seek(0)
                reason = decoded(errors.read())
            # Somebody else may have taken the port in between; another one will do.
            if "Address already in use" not in reason or clock.monotonic() >= deadline:
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
        timeout: float | None = None,
        check: bool = True,
        size: int = 0,
        silence: float | None = None,
        take: Callable[[Conversation], None] | None = None,
    ) -> Result:
        """Run a command; what it prints is the result's, or goes to `take`."""
        mark = f"ptm-{secrets.token_hex(8)}"
        printed = _PRINTED.format(mark=mark) if take is None else ""
        command = shlex.join(["sh", "-c", _RUN.format(mark=mark, printed=printed), "sh", *argv])
        begun = clock.monotonic()
        lost = True
        result = Result(shown, LOST, "", self._connect(timeout if take is None else None))
        if not result.stderr:
            left = None if timeout is None else max(0.0, begun + timeout - clock.monotonic())
            try:
                with Conversation(
                    [*self.argv, command],
                    input=stdin,
                    size=size or OUTPUT,
                    timeout=left,
                    silence=silence,
                    mark=mark.encode(),
                    marks_output=take is None,
                ) as talk:
                    code = self._told(talk, shown, take, timeout)
            except FileNotFoundError as error:
                raise _no_ssh() from error
            except OSError as error:
                if error.errno == errno.E2BIG:
                    raise _too_long(shown) from error
                raise
            result = Result(shown, code, decoded(talk.printed), decoded(talk.errors))
            lost = code == LOST and not talk.has_code
        result = replace(result, stderr=_NOISE.sub("", result.stderr))
        if check:
            self._check(result, lost=lost)
        return result

    def _told(
        self,
        talk: Conversation,
        shown: tuple[str, ...],
        take: Callable[[Conversation], None] | None,
        timeout: float | None,
    ) -> int:
        """Take what a command prints and return its code."""
        facts = {"command": _short(shlex.join(shown))}
        try:
            if take is not None:
                take(talk)
            return talk.end(keep=take is None)
        except TooMuch as error:
            raise LimitExceeded(
                f"The command '{shown[0]}' on '{self._target}' printed more than {error.size:,} bytes.",
                facts={
                    **facts,
                    "it began with": _short(decoded(talk.printed[:300])),
                    "it came to": _short(decoded((talk.printed or talk.errors)[-300:])),
                },
                hint="let it write to a file in the machine, and get what you need of that",
            ) from None
        except TooLong as error:
            if error.silent or take is not None:
                what = f"sent nothing for {error.seconds:g} s" if error.silent else f"was not done after {timeout:g} s"
                raise LimitExceeded(
                    f"The machine at '{self._target}' {what}.",
                    facts={**facts, "it said": _short(decoded(talk.errors)) or "nothing"},
                    hint="look at what is there: machine.run('ls', '-l', PATH)",
                ) from None
            seen = _short(decoded(talk.errors)) or _short(decoded(talk.printed[-2000:])) or "nothing"
            late = WaitTimeout(
                f"The command '{shown[0]}' on '{self._target}' did not end within {timeout:g} s.",
                facts={**facts, "last seen": seen},
                hint="allow a longer timeout, look at what it waits for, or let it go on: machine.start_process(...)",
            )
            late.stdout, late.stderr = decoded(talk.printed), decoded(talk.errors)
            raise late from None

    def _check(self, result: Result, *, lost: bool) -> None:
        """Raise what a command's return code means."""
        if lost:
            raise ConnectFailed(
                f"SSH to '{self._target}' failed.",
                facts={"port": self.address.ssh_port, "reason": _short(result.stderr) or "the connection was lost"},
                hint=shlex.join(self.argv),
            )
        if result.returncode:
            raise CommandFailed(
                f"The command '{result.argv[0]}' on '{self._target}' returned {result.returncode}.",
                result=result,
                facts={"command": _short(shlex.join(result.argv)), "stderr": _short(result.stderr) or "(empty)"},
            )

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
                return "" if code == 0 else decoded(errors.read()) or f"ssh returned {code}"


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
        if len(os.fsencode(path)) <= _SOCKET_LENGTH and quotable(str(path)) and _private(parent):
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


def _path(remote: str) -> str:
    # So that none passes for an option.
    return remote if remote.startswith("/") else f"./{remote}"


def _short(text: str) -> str:
    """Return the end of a text in one line: what matters of an error is said last."""
    line = " | ".join(filter(None, (part.strip() for part in text.splitlines()[-3:])))
    return line if len(line) <= 300 else f"…{line[-300:]}"
