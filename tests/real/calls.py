"""System calls of x86_64 that a machine is refused, and how a shell makes each by all ways that the processor has."""

from __future__ import annotations

import errno
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

ABIS = ("x86_64", "x32", "x86")
REFUSALS = (errno.EPERM, errno.ENOSYS)
X32_BIT = 0x40000000

# Where the program below is loaded, and how many bytes its head and its code have.
_PLACE, _HEAD, _CODE = 0x08048000, 84, 56


@dataclass(frozen=True)
class Call:
    """One system call, with arguments that the kernel would answer differently if it looked at them."""

    name: str
    wide: int | None
    """Its number for 64-bit programs."""
    narrow: int | None
    """Its number for 32-bit programs."""
    arguments: tuple[int, ...] = (0, 0, 0, 0)
    behind: tuple[int, ...] = ()
    """For the 32-bit program: words that its second argument points to."""

    def command(self, abi: str) -> str:
        """Return a command that ends with the error's number, 0 for none; empty where there is no such call."""
        if abi == "x86":
            return "" if self.narrow is None else _run(program(self.narrow, self.arguments, self.behind))
        if self.wide is None:
            return ""
        number = self.wide | (X32_BIT if abi == "x32" else 0)
        words = ", ".join(map(str, (number, *self.arguments)))
        return f"perl -e 'exit(syscall({words}) < 0 ? $! + 0 : 0)'"


def _run(content: bytes) -> str:
    return f'perl -e \'print pack("H*", "{content.hex()}")\' >/run/call && chmod 700 /run/call && /run/call'


def program(number: int, arguments: tuple[int, ...], behind: tuple[int, ...] = ()) -> bytes:
    """Return a 32-bit ELF program that makes one call by `int 0x80` and ends with the error's number."""
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    if behind:
        words[1] = _PLACE + _HEAD + _CODE
    code = b"".join(
        bytes([opcode]) + struct.pack("<I", word & 0xFFFFFFFF)
        for opcode, word in zip((0xBB, 0xB9, 0xBA, 0xBE, 0xBF, 0xBD, 0xB8), (*words, number), strict=True)
    )
    # int 0x80; test eax,eax; js +4; xor ebx,ebx; jmp +4; mov ebx,eax; neg ebx; mov eax,1; int 0x80
    code += bytes.fromhex("cd80 85c0 7804 31db eb04 89c3 f7db b801000000 cd80")
    assert len(code) <= _CODE
    body = code.ljust(_CODE, b"\x90") + b"".join(struct.pack("<I", word) for word in behind)
    size = _HEAD + len(body)
    head = (
        b"\x7fELF\1\1\1"
        + bytes(9)
        + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, _PLACE + _HEAD, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    )
    return head + struct.pack("<IIIIIIII", 1, 0, _PLACE, _PLACE, size, size, 5, 0x1000) + body


def works_here(abi: str, folder: Path) -> bool:
    """Whether this kernel runs such programs: one asks for its own process's number."""
    if abi != "x86":
        return True  # where there is no x32, the kernel itself has none of its calls
    path = folder / "probe"
    path.write_bytes(program(20, ()))
    path.chmod(0o700)
    try:
        return subprocess.run([path], check=False).returncode == 0
    except OSError:
        return False


REFUSED = [
    Call("io_uring_setup", 425, 425),
    Call("io_uring_enter", 426, 426, (999, 0, 0, 0)),
    Call("io_uring_register", 427, 427, (999, 0, 0, 0)),
    Call("userfaultfd", 323, 374, (1,)),
    Call("add_key", 248, 286),
    Call("request_key", 249, 287),
    Call("keyctl", 250, 288, (0, -3, 1)),
    Call("keyctl of a new session", 250, 288, (1, 0)),
    Call("perf_event_open", 298, 336),
    Call("bpf", 321, 357, (99, 0, 0)),
    Call("kexec_load", 246, 283),
    Call("kexec_file_load", 320, None),
    Call("open_by_handle_at", 304, 342),
    Call("init_module", 175, 128),
    Call("finit_module", 313, 350, (999, 0, 0)),
    Call("delete_module", 176, 129),
    Call("create_module", 174, 127),
    Call("get_kernel_syms", 177, 130),
    Call("query_module", 178, 167),
    Call("acct", 163, 51),
    Call("quotactl", 179, 131),
    Call("quotactl_fd", 443, 443, (999, 0, 0, 0)),
    Call("swapon", 167, 87),
    Call("swapoff", 168, 115),
    Call("settimeofday", 164, 79),
    Call("clock_settime", 227, 264),
    Call("clock_settime64", None, 404),
    Call("stime", None, 25),
    Call("lookup_dcookie", 212, 253),
    Call("nfsservctl", 180, 169),
    Call("iopl", 172, 110, (3,)),
    Call("ioperm", 173, 101, (0, 1, 1)),
    Call("syslog", 103, 103, (10,)),
    Call("sysfs", 139, 135, (3,)),
    Call("ustat", 136, 62),
    Call("uselib", 134, 86),
    Call("_sysctl", 156, 149),
    Call("vm86", None, 166),
    Call("vm86old", None, 113),
    Call("move_pages", 279, 317),
    Call("migrate_pages", 256, 294),
    Call("personality without random addresses", 135, 136, (0x0040000,)),
    Call("personality that maps the first page", 135, 136, (0x0100000,)),
    Call("socket of the computer's ports", 41, 359, (40, 1, 0)),
    Call("pair of the computer's ports", 53, 360, (40, 1, 0, 0)),
    Call("socket of the kernel's cryptography", 41, 359, (38, 5, 0)),
    Call("socket of the computer's ports, in many bits", 41, None, ((1 << 32) + 40, 1, 0)),
    Call("socket by socketcall", None, 102, (1,), (40, 1, 0)),
    Call("pair by socketcall", None, 102, (8,), (40, 1, 0, 0)),
    Call("a call of a newer kernel", 1000, 1000),
]
