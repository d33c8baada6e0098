"""Why the operating system refused something, in words for people: what it was, and what to do about it."""

from __future__ import annotations

import errno
import os

from .text import visible

# What went wrong → what to do. `{path}` is the file or directory, `{place}` what it lies in.
_HINTS: dict[str, str] = {
    "ENOSPC": "free space there: df -h {place}; another disk: TMPDIR, PYTEST_MACHINE_HOME, MACHINE_STORAGE_PATH",
    "EDQUOT": "your quota is used up: quota -s; another disk: TMPDIR, PYTEST_MACHINE_HOME, MACHINE_STORAGE_PATH",
    "EROFS": "the file system is read-only; another one: TMPDIR, PYTEST_MACHINE_HOME, MACHINE_STORAGE_PATH",
    "EMFILE": "this process has too many files open: raise its limit with 'ulimit -n 4096', or use fewer machines",
    "ENFILE": "this computer has too many files open: sysctl fs.file-nr fs.file-max",
    "ENOLCK": "the file system has no locks, as NFS without lockd: another one: PYTEST_MACHINE_HOME, "
    "MACHINE_STORAGE_PATH, PYTEST_MACHINE_CACHE",
    "EACCES": "see who may use it: ls -ld {path}",
    "EPERM": "see who may use it: ls -ld {path}; lsattr -d {path}",
    "ENOENT": "see what is there: ls -ld {place}",
    "ENOTDIR": "a file is where a directory has to be: ls -ld {place}",
    "EISDIR": "a directory is where a file has to be: ls -ld {path}",
    "EEXIST": "see what is there: ls -ld {path}",
    "ELOOP": "symbolic links lead in a circle: ls -ld {path}",
    "ENAMETOOLONG": "the path is too long: keep machines in a shorter one: TMPDIR, PYTEST_MACHINE_HOME, "
    "MACHINE_STORAGE_PATH",
    "ENOTEMPTY": "see what is in it: ls -la {path}",
    "EBUSY": "see who uses it: fuser -vm {path}",
    "ETXTBSY": "see who uses it: fuser -v {path}",
    "EIO": "the disk does not work as it should: dmesg",
    "ESTALE": "the network file system has lost it: mount it again",
    "EFBIG": "the file is larger than this process may write: ulimit -f",
    "ENOMEM": "this computer has no memory left: free -m",
    "EAGAIN": "this user has too many processes: ulimit -u",
    "EADDRINUSE": "another process has the port: ss -ltnp",
    "ECONNREFUSED": "nothing listens at the other end: see whether the machine runs",
    "EHOSTUNREACH": "there is no way to the other end: ip route",
    "ENETUNREACH": "there is no way to the other end: ip route",
}
_BY_NUMBER = {getattr(errno, name): hint for name, hint in _HINTS.items() if hasattr(errno, name)}


def path_of(error: OSError) -> str:
    """Return the file or directory that an error is about, safe to print; empty where it names none."""
    found = error.filename if error.filename is not None else error.filename2
    return visible(os.fsdecode(found), lines=False) if isinstance(found, str | bytes | os.PathLike) else ""


def reason_of(error: OSError) -> str:
    """Return the system's own words."""
    return visible(error.strerror or str(error) or type(error).__name__, lines=False)


def sentence(error: OSError) -> str:
    """Return what could not be done."""
    path = path_of(error)
    return f"The system refuses to use '{path}'." if path else "The system refuses what a command needs."


def hint(error: OSError, path: str = "") -> str:
    """Return what to do about it; `path` is what it is about, where the error does not say."""
    found = path_of(error) or path
    advice = _BY_NUMBER.get(error.errno or 0, "see what is there: ls -ld {path}" if found else "try it again")
    if not found:
        # Of what the advice says of a path, nothing can be said.
        return advice.replace(" {path}", "").replace(" {place}", "")
    return advice.format(path=_quoted(found), place=_quoted(os.path.dirname(found) or "."))  # noqa: PTH120  # of text


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
