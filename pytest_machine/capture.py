"""Packets of one interface of a machine, captured for as long as a block lasts, in a file that Wireshark opens.

`tcpdump` runs in the machine, and what it captures comes home by SSH as it is captured: nothing is written there, so
that a capture is no change of a machine, and what came before it was cut off is here. It reads its orders from its
standard input and ends with it: also when this process is killed, for then the kernel closes that.

Who controls the machine (our SSH, our Docker) is left out: otherwise a capture would capture itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

from .errors import BadSpec, DriverError, MachineError, Unsupported
from .ssh import SshConnection
from .support import clock

LIMIT = 64 << 20
"""Bytes of a file, at most, unless another limit is given; the last packets are kept."""

OWN = "own-network"
"""What the file of packets on a driver's own network is called, where each network has a file."""

# Seconds: until tcpdump listens, and until what it has seen is here.
_STARTED = 20.0
_DRAINED = 3.0
_ASKED = 0.02
_GLOBAL, _RECORD = 24, 16  # bytes of a file's header and of a packet's
_MAGIC = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">"}
# No packet is longer; a length that is means that what comes is no such file.
_LONGEST = 1 << 20

# $1: an address of the interface, or its name; empty: the one by which we come. $2: Docker's port. $3: which packets.
# A shell lets what it starts in the background ignore SIGINT, so it is SIGTERM that ends tcpdump in order.
# What is handed over at once lies in slots of one size: 512 of them, of 16 KiB, are 8 MiB. A kernel hands segments of
# 64 KiB to itself, but slots for those would be so few that a busy host loses small packets for them.
_SCRIPT = r"""
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
command -v tcpdump >/dev/null || { echo 'no tcpdump' >&2; exit 9; }
where=$1 port=$2 only=$3
set -- ${SSH_CONNECTION:-}
client=$1 server=$3 ssh=$4
: "${where:=$server}"
device=$where
[ -e "/sys/class/net/$device" ] || device=$(ip -o address show to "$where" | sed -n 's/^[0-9]*: *\([^ @]*\).*/\1/p;q')
[ -n "$device" ] || { echo "no interface has $where" >&2; exit 8; }
ours=
[ -z "$client" ] || ours="not (tcp and host $client and (port $ssh or port $port))"
[ -z "$only" ] || ours="($only)${ours:+ and $ours}"
exec 3<&0
tcpdump -i "$device" -p -n -U --immediate-mode -B 8192 -s 16384 -Z root -w - "$ours" </dev/null 3<&- &
pid=$!
{ while read -r order; do kill -"$order" "$pid"; done; kill -TERM "$pid"; } <&3 >/dev/null 2>&1 &
orders=$!
exec 3<&-
wait "$pid"
kill "$orders" 2>/dev/null
wait "$orders"
"""
_AS_ROOT = 'exec sudo -n env "SSH_CONNECTION=$SSH_CONNECTION" sh -c "$0" sh "$@"'
_COUNTS = re.compile(r"(\d+) packets? (captured|received by filter|dropped by kernel)")
_SYNTAX = re.compile(
    r"syntax error|filter expression|unknown (?:host|port|network|protocol)|parse error", re.IGNORECASE
)


class Capture:
    """A capture that is under way. A context manager: at the end of the block the file is complete."""

    def __init__(
        self,
        file: Path,
        connect: Callable[[], SshConnection],
        *,
        machine: str,
        where: str = "",
        network: str = "",
        only: str = "",
        limit: int = LIMIT,
    ) -> None:
        self.file = file
        """Where the packets are."""
        self.machine = machine
        """Whose they are."""
        self.network = network
        """Of which network; empty: its driver's own, or an interface that was named."""
        self.trouble = ""
        """Why it ended before it was to end; empty: it did not."""
        self.lost = 0
        """Packets that the machine's kernel could not hand over in time."""
        self._connect = connect
        self._where = where
        self._only = only
        self._writer = _Writer(file, limit)
        self._stream: _Stream | None = None
        self._lock = threading.RLock()
        self.ended: Callable[[Capture], None] | None = None
        """Called once when it is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Capture of '{self.machine}' in {self.file}>"

    @property
    def packets(self) -> int:
        """How many packets came, of which the file has the last ones."""
        return self._writer.packets

    @property
    def left_out(self) -> int:
        """How many of them, the first, are no longer in the file because it would have become too large."""
        return self._writer.left_out

    def start(self, where: str = "") -> None:
        """Begin, or go on behind a `pause` or after the machine was away; it captures when this returns.

        `where` is the interface's address, if that is another one by now. Raises `Unsupported` where the machine lacks
        what it takes, `BadSpec` for a filter that is none, `ConnectFailed`.
        """
        with self._lock:
            if self._stream is not None and self._stream.alive:
                return
            self.pause()
            self._where = where or self._where
            connection = self._connect()
            stream = _Stream(connection, self._argv(connection), self._writer)
            if (said := stream.started(_STARTED)) is not None:
                raise self._refused(said)
            self.trouble = ""
            self._stream = stream

    def _argv(self, connection: SshConnection) -> list[str]:
        words = [self._where, str(connection.address.engine_port), self._only]
        if connection.address.user == "root":
            return ["sh", "-c", _SCRIPT, "sh", *words]
        return ["sh", "-c", _AS_ROOT, _SCRIPT, *words]

    def _refused(self, said: str) -> MachineError:
        if "no tcpdump" in said:
            return Unsupported(
                f"The machine '{self.machine}' lacks the program 'tcpdump', which captures packets.",
                hint="install it there: machine.run('apt-get', 'install', '-y', 'tcpdump')",
            )
        if self._only and _SYNTAX.search(said):
            return BadSpec(
                f"'{self._only}' does not say which packets are meant.",
                facts={"tcpdump": " ".join(said.split())},
                hint="only='tcp port 80', only='icmp'; man pcap-filter has them all",
            )
        return DriverError(
            f"Packets of the machine '{self.machine}' cannot be captured.",
            facts={"reason": " ".join(said.split()) or "it did not begin in time"},
            hint="docker-machine ssh NAME tcpdump -D shows what could be captured",
        )

    def flush(self) -> bool:
        """See to it that every packet of before the call is in the file; return whether that is known."""
        with self._lock:
            return self._stream is None or self._stream.drain(_DRAINED)

    def pause(self) -> None:
        """Stop for a while, as for a machine that is about to go down; `start` goes on in the same file."""
        with self._lock:
            stream, self._stream = self._stream, None
            if stream is None:
                return
            if not stream.alive:
                self.trouble = stream.said() or "the connection was lost"
            stream.end(_DRAINED)
            self.lost += stream.lost

    def close(self) -> None:
        """End it; the file is complete. Again: nothing happens."""
        with self._lock:
            self.pause()
            self._writer.close()
            ended, self.ended = self.ended, None
        if ended is not None:
            ended(self)

    def told(self) -> str:
        """Return how many packets there are, and what is missing, in a few words."""
        found = [f"{self.packets} packet{'' if self.packets == 1 else 's'}"]
        if self.left_out:
            found.append(f"the first {self.left_out} left out, for the size of the file")
        if self.lost:
            found.append(f"{self.lost} more were lost: too many at once")
        if self.trouble:
            found.append(f"it ended early: {' '.join(self.trouble.split())}")
        return "; ".join(found)


class Captures(list[Capture]):
    """Several captures. A context manager: at the end of the block all files are complete."""

    closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End them all; again: nothing happens."""
        self.closed = True
        for each in self:
            each.close()


class _Stream:
    """One run of tcpdump in the machine."""

    def __init__(self, connection: SshConnection, argv: list[str], writer: _Writer) -> None:
        self._process = connection.start(*argv)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._orders: IO[bytes] = self._process.stdin
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._counts: dict[str, int] = {}
        self._answers = 0
        self._listens = False
        self._over = False
        self._writer = writer
        self._before = writer.packets
        self._threads = [
            threading.Thread(target=self._pump, args=(self._process.stdout,), name="capture", daemon=True),
            threading.Thread(target=self._hear, args=(self._process.stderr,), name="capture", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return not self._over

    @property
    def lost(self) -> int:
        return self._counts.get("dropped by kernel", 0)

    def said(self) -> str:
        """Return what it said besides its counts."""
        return "\n".join(line for line in self._lines if not _COUNTS.search(line) and "listening on" not in line)

    def started(self, timeout: float) -> str | None:
        """Wait until it listens; return None, or what it said instead."""
        with self._changed:
            self._changed.wait_for(lambda: self._listens or self._over, timeout)
            if self._listens:
                return None
        self.end(0.0)
        return self.said()

    def drain(self, timeout: float) -> bool:
        """Wait until all that it has seen is written; return whether it is."""
        deadline = clock.monotonic() + timeout
        same, last = 0, -1
        while (left := deadline - clock.monotonic()) > 0 and not self._over:
            asked = self._answers
            if not self._order("USR1"):
                return False
            with self._changed:
                if not self._changed.wait_for(lambda: self._answers > asked or self._over, left):  # noqa: B023  # now
                    return False
                captured = self._counts.get("captured", 0)
                seen = self._counts.get("received by filter", 0) - self.lost
            # What came before the filter was in place is seen and never captured: so one that stands still will do.
            same = same + 1 if captured == last else 0
            last = captured
            if captured >= seen or same >= 3:
                with self._changed:
                    return self._changed.wait_for(lambda: self._written >= captured, left)  # noqa: B023  # now
            clock.sleep(_ASKED)
        return self._over

    @property
    def _written(self) -> int:
        return self._writer.packets - self._before

    def end(self, timeout: float) -> None:
        """End it when what it has seen is here, or within `timeout` seconds."""
        if not timeout or not self.drain(timeout):
            timeout = 0.5  # it has had its time
        with contextlib.suppress(OSError):
            self._orders.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            # A machine that is frozen, or gone: the ssh here is all that is left to end.
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            # Its output may be held open by the connection's master, until that has heard of the end.
            thread.join(1.0)
        with self._changed:
            self._over = True

    def _order(self, word: str) -> bool:
        try:
            self._orders.write(f"{word}\n".encode())
            self._orders.flush()
        except (OSError, ValueError):
            return False
        return True

    def _pump(self, stream: IO[bytes]) -> None:
        descriptor = stream.fileno()
        feed = self._writer.feed()
        with stream:
            try:
                while chunk := os.read(descriptor, 1 << 16):
                    feed(chunk)
                    with self._changed:
                        self._changed.notify_all()
            except (OSError, ValueError) as error:  # a full disk, or something that is no capture
                self._lines.append(str(error))
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _hear(self, stream: IO[bytes]) -> None:
        with stream, contextlib.suppress(OSError, ValueError):
            for raw in stream:
                line = raw.decode(errors="replace").strip()
                with self._changed:
                    self._lines.append(line)
                    self._listens = self._listens or "listening on" in line
                    if found := {what: int(number) for number, what in _COUNTS.findall(line)}:
                        self._counts |= found
                        self._answers += len(found) > 1
                    self._changed.notify_all()


class _Writer:
    """A file of packets, of the last ones where they are many: whole packets only, each there as soon as it came.

    Two halves: the one that is written and the one before it, which is thrown away when both are full. In the end they
    become one.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.older")
        self._half = max(limit // 2, 1 << 16)
        self._file: IO[bytes] | None = None
        self._header = b""
        self._size = 0
        self._in = [0, 0]  # packets in the older half, and in the one that is written
        self.packets = 0
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._older.unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    @property
    def left_out(self) -> int:
        return self.packets - sum(self._in)

    def feed(self) -> Callable[[bytes], None]:
        """Return what takes a stream of the format of pcap, piece by piece; raises `ValueError` for another one."""
        rest = b""
        order = ""

        def take(chunk: bytes) -> None:
            nonlocal rest, order
            rest += chunk
            if not order and len(rest) >= _GLOBAL:
                order = _MAGIC.get(rest[:4], "")
                if not order:
                    raise ValueError("it is no capture")
                self._begin(rest[:_GLOBAL])
                rest = rest[_GLOBAL:]
            at, count = 0, 0
            while order and len(rest) - at >= _RECORD:
                (size,) = struct.unpack_from(f"{order}I", rest, at + 8)
                if size > _LONGEST:
                    raise ValueError("it is no capture")
                if len(rest) - at < _RECORD + size:
                    break
                at, count = at + _RECORD + size, count + 1
            if count:
                self._write(rest[:at], count)
                rest = rest[at:]

        return take

    def _begin(self, header: bytes) -> None:
        with self._lock:
            if self._header and header[:4] + header[20:] != self._header[:4] + self._header[20:]:
                raise ValueError("the interface is of another kind now")
            if not self._header:
                self._header = header
                self._open()

    def _open(self) -> None:
        self._file = self._path.open("wb", buffering=0)
        self._file.write(self._header)
        self._size = _GLOBAL

    def _write(self, packets: bytes, count: int) -> None:
        with self._lock:
            if self._file is None:  # closed meanwhile
                return
            if self._size + len(packets) > self._half and self._in[1]:
                self._file.close()
                self._path.replace(self._older)
                self._in = [self._in[1], 0]
                self._open()
            self._file.write(packets)
            self._size += len(packets)
            self._in[1] += count
            self.packets += count

    def close(self) -> None:
        with self._lock:
            if self._file is None:
                return
            self._file.close()
            self._file = None
            if self._older.exists():
                with self._path.open("rb") as newer, self._older.open("ab") as both:
                    newer.seek(_GLOBAL)
                    shutil.copyfileobj(newer, both)
                self._older.replace(self._path)
