"""Archives that a machine may send: whatever is in them, files appear in the target alone, and errors are ours."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_machine.errors import LimitExceeded, MachineError, TransferFailed
from pytest_machine.support import archives
from pytest_machine.support.archives import Limits, Unpacked, unpack


def header(
    name: bytes, kind: bytes = b"0", *, size: int = 0, link: bytes = b"", mode: int = 0o644, prefix: bytes = b"",
    raw_size: bytes | None = None,
) -> bytes:  # fmt: skip
    """Return one header as the machine may write it, right or wrong, with its checksum."""
    sized = raw_size if raw_size is not None else b"%011o\0" % size
    block = bytearray(name[:100].ljust(100, b"\0") + b"%07o\0" % mode + b"0000000\0" * 2 + sized + b"00000000000\0")
    block += b" " * 8 + kind + link[:100].ljust(100, b"\0") + b"ustar\x0000" + bytes(80) + prefix.ljust(155, b"\0")
    block = block.ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def entry(name: bytes, content: bytes = b"", kind: bytes = b"0", **more: object) -> bytes:
    padding = bytes(-len(content) % 512)
    return header(name, kind, size=len(content), **more) + content + padding  # type: ignore[arg-type]


def long(name: bytes, content: bytes = b"", kind: bytes = b"0", link: bytes = b"") -> bytes:
    """Return an entry with GNU's headers for a name, or a link's goal, of any length and content."""
    found = entry(b"././@LongLink", name + b"\0", b"L")
    if link:
        found += entry(b"././@LongLink", link + b"\0", b"K")
    return found + entry(name, content, kind, link=link)


def pax(facts: dict[bytes, bytes], kind: bytes = b"x") -> bytes:
    lines = b""
    for key, value in facts.items():
        length = len(key) + len(value) + 3
        length += len(str(length + len(str(length))))
        lines += b"%d %s=%s\n" % (length, key, value)
    return entry(b"pax", lines, kind)


END = bytes(1024)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory to unpack into, beside others that nothing may be written to."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    found = tmp_path / "target"
    found.mkdir()
    return found


def unpacked(target: Path, content: bytes, **limits: int) -> Unpacked:
    """Unpack; afterwards nothing outside of the target is other than it was."""
    try:
        return unpack(io.BytesIO(content).read, target, limits=Limits(**limits))
    finally:
        outside = target.parent / "outside"
        assert sorted(path.name for path in target.parent.iterdir()) == ["outside", "target"]
        assert [path.name for path in outside.iterdir()] == ["precious"]
        assert (outside / "precious").read_text() == "precious"
        assert stat.S_IMODE(outside.stat().st_mode) == 0o755


def files(target: Path) -> list[str]:
    return sorted(str(path.relative_to(target)) for path in target.rglob("*"))


@pytest.mark.real
@pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar here")
def test_what_tar_makes(tmp_path: Path, target: Path) -> None:
    """Of GNU's tar in each of its formats: content, modes, times, long names, hard links."""
    source = tmp_path / "source"
    deep = source / ("a" * 90) / ("b" * 90) / ("ü" * 60)
    deep.mkdir(parents=True)
    (deep / ("c" * 120)).write_bytes(b"deep")
    (source / "empty").touch()
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o755)
    (source / "big").write_bytes(os.urandom(1_000_003))
    os.utime(source / "big", (1_000_000_000, 1_000_000_000))
    (source / "twin").hardlink_to(source / "big")
    (source / "here").symlink_to("big")
    packer = shutil.which("tar")
    assert packer
    for kind in ("gnu", "pax", "ustar"):
        packed = subprocess.run(
            [packer, f"--format={kind}", "-cf", "-", "-C", source, "."], capture_output=True, check=False
        ).stdout
        done = unpack(io.BytesIO(packed).read, target)
        if kind != "ustar":  # which has no room for such a name
            assert done.report() == []
            assert (target / deep.relative_to(source) / ("c" * 120)).read_bytes() == b"deep"
        for name in ("empty", "script", "big", "twin"):
            assert (target / name).read_bytes() == (source / name).read_bytes()
        assert os.access(target / "script", os.X_OK)
        assert (target / "big").stat().st_mtime == 1_000_000_000
        assert (target / "big").stat().st_nlink == 1, "a copy"
        assert (target / "here").readlink() == Path("big")
        shutil.rmtree(target)
        target.mkdir()


def beyond_realpath(goal: bytes) -> bytes:
    """CVE-2025-4517: a path that is too long once its links are followed, behind which 'escape' leads up to `goal`."""
    content, real, links = b"", b"", b""
    for number in range(16):
        folder, letter = b"d" * 247, b"%c" % (97 + number)
        content += long(real + folder + b"/", kind=b"5") + long(real + letter, kind=b"2", link=folder)
        real, links = real + folder + b"/", links + letter + b"/"
    content += long(links + b"l" * 254, kind=b"2", link=b"../" * 16)
    return content + long(b"escape", kind=b"2", link=links + b"l" * 254 + b"/" + goal)


def test_links_longer_than_realpath_follows(target: Path) -> None:
    content = beyond_realpath(b"../outside")
    content += entry(b"flag", kind=b"1", link=b"escape/precious") + entry(b"flag", b"pwned")
    content += entry(b"escape/new", b"pwned") + entry(b"escape/precious", b"pwned") + END
    done = unpacked(target, content)
    assert done.left_count >= 3
    assert not (target / "escape").is_symlink()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(entry(b"../evil", b"x"), id="up"),
        pytest.param(entry(b"a/../../evil", b"x"), id="up later"),
        pytest.param(entry(b"..", kind=b"5"), id="up itself"),
        pytest.param(entry(b"/tmp/evil", b"x"), id="absolute"),
        pytest.param(entry(b"evil", b"x", prefix=b"../outside"), id="up in the prefix"),
        pytest.param(long(b"../outside/evil", b"x"), id="up in a long name"),
        pytest.param(pax({b"path": b"../outside/evil"}) + entry(b"ok", b"x"), id="up in an extended header"),
        pytest.param(pax({b"path": b"/tmp/evil"}) + entry(b"ok", b"x"), id="absolute in an extended header"),
        pytest.param(pax({b"path": b"a\0b"}) + entry(b"ok", b"x"), id="NUL"),
        pytest.param(entry(b"a\nb", b"x"), id="line break"),
        pytest.param(entry(b"\x1b]0;x\x07", b"x"), id="escape sequence"),
        pytest.param(entry("a\u202eb".encode(), b"x"), id="reordered"),
        pytest.param(entry(b"\xff\xfe", b"x"), id="not UTF-8"),
        pytest.param(entry(b"\xed\xa0\x80", b"x"), id="surrogate"),
        pytest.param(long(b"n" * 256, b"x"), id="name too long"),
        pytest.param(long(b"n/" * 1100 + b"x", b"x"), id="path too long"),
        pytest.param(long(b"n/" * 150 + b"x", b"x"), id="too deep"),
        pytest.param(entry(b"link", kind=b"2", link=b"/etc/passwd"), id="link elsewhere"),
        pytest.param(entry(b"link", kind=b"2", link=b".."), id="link up"),
        pytest.param(entry(b"link", kind=b"2", link=b"."), id="link to its directory"),
        pytest.param(entry(b"link", kind=b"2", link=b""), id="link to nothing"),
        pytest.param(entry(b"link", kind=b"2", link=b"a/../.."), id="link down and up"),
        pytest.param(entry(b"link", kind=b"2", link=b"a//b"), id="link with an empty name"),
        pytest.param(entry(b"link", kind=b"2", link=b"\x1b[2J"), id="link with an escape sequence"),
        pytest.param(pax({b"linkpath": b"../outside"}) + entry(b"link", kind=b"2", link=b"ok"), id="link in a header"),
        pytest.param(entry(b"twin", kind=b"1", link=b"../outside/precious"), id="hard link up"),
        pytest.param(entry(b"twin", kind=b"1", link=b"/etc/passwd"), id="hard link elsewhere"),
        pytest.param(entry(b"twin", kind=b"1", link=b"nothing"), id="hard link to nothing"),
        pytest.param(entry(b"twin", kind=b"1", link=b""), id="hard link to the directory"),
        pytest.param(entry(b"disk", kind=b"4"), id="block device"),
        pytest.param(entry(b"null", kind=b"3"), id="character device"),
        pytest.param(entry(b"pipe", kind=b"6"), id="pipe"),
        pytest.param(entry(b"odd", b"content", kind=b"Z"), id="unknown"),
        pytest.param(pax({b"GNU.sparse.realsize": b"9" * 15}) + entry(b"holes", b"x"), id="holes in a header"),
        pytest.param(entry(b"holes", b"x", kind=b"S"), id="holes"),
    ],
)  # fmt: skip
def test_what_is_left_out(target: Path, content: bytes) -> None:
    """The rest comes out, and what did not is named in one printable line."""
    done = unpacked(target, entry(b"first", b"1") + content + entry(b"last", b"2") + END)
    assert files(target) == ["first", "last"]
    assert (done.left_count, done.files) == (1, 2)
    (line,) = done.report()
    assert line.isprintable()
    assert "was left out" in line


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o6777, 0o7777])
def test_no_bits_that_run_as_somebody_else(target: Path, mode: int) -> None:
    packed = entry(b"file", b"x", mode=mode) + entry(b"d", kind=b"5", mode=mode)
    unpacked(target, packed + entry(b"twin", kind=b"1", link=b"file", mode=mode) + END)
    for name in ("file", "d", "twin"):
        assert stat.S_IMODE((target / name).stat().st_mode) == 0o755


def test_a_mode_of_nothing_can_still_be_read_here(target: Path) -> None:
    unpacked(target, entry(b"d", kind=b"5", mode=0) + entry(b"d/file", b"x", mode=0) + END)
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "d" / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize("link", ["../outside", "../outside/precious", "/etc", ".", "nowhere"])
@pytest.mark.parametrize("name", ["sub", "sub/inner"])
def test_a_link_that_was_there_before(target: Path, name: str, link: str) -> None:
    """Of an earlier archive, or made by somebody else: it is no way to anywhere, and a file takes its place."""
    place = target / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(link)
    raw = name.encode()
    done = unpacked(target, entry(raw, kind=b"5", mode=0o777) + entry(raw + b"/file", b"x") + END)
    assert done.left_count == 2
    assert place.is_symlink()
    done = unpacked(target, entry(raw, b"content") + END)
    assert done.left_count == 0
    assert not place.is_symlink()
    assert place.read_bytes() == b"content"


def test_a_link_in_the_archive_is_no_way(target: Path) -> None:
    """Neither a file nor a directory is written through one."""
    packed = entry(b"d", kind=b"5") + entry(b"link", kind=b"2", link=b"d") + entry(b"link/file", b"x")
    packed += entry(b"link", kind=b"5", mode=0o777)
    done = unpacked(target, packed + END)
    assert files(target) == ["d", "link"]
    assert done.left_count == 2


def test_a_hard_link_copies_what_came_with_it_alone(target: Path) -> None:
    """Not a file that was there before, nor by a link."""
    (target / "mine").write_text("mine")
    packed = entry(b"file", b"theirs") + entry(b"a", kind=b"1", link=b"file") + entry(b"b", kind=b"1", link=b"mine")
    packed += entry(b"soft", kind=b"2", link=b"file") + entry(b"c", kind=b"1", link=b"soft")
    done = unpacked(target, packed + END)
    assert files(target) == ["a", "file", "mine", "soft"]
    assert (target / "a").read_text() == "theirs"
    (target / "a").write_text("changed")
    assert (target / "file").read_text() == "theirs"
    assert done.left_count == 2


def test_a_directory_is_not_replaced(target: Path) -> None:
    (target / "d").mkdir()
    (target / "d" / "mine").touch()
    done = unpacked(target, entry(b"d", b"x") + entry(b"d", kind=b"2", link=b"x") + END)
    assert files(target) == ["d", "d/mine"]
    assert done.left_count == 2


GARBAGE: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("text", b"sh: tar: not found\n"),
    ("random", os.urandom(4096)),
    ("ends in a header", header(b"file")[:300]),
    ("ends in the content", header(b"file", size=1000) + bytes(600)),
    ("ends in what fills a block", header(b"file", size=10) + bytes(100)),
    ("no end", entry(b"file", b"x")),
    ("wrong checksum", header(b"file").replace(b"ustar", b"usta\1") + END),
    ("negative size", header(b"file", raw_size=b"\xff" * 12) + END),
    ("negative octal size", header(b"file", raw_size=b"-0000000001\0") + END),
    ("size that is none", header(b"file", raw_size=b"99999999999\0") + END),
    ("size of a long name", header(b"x", b"L", raw_size=b"\x80" + b"\0" * 6 + b"\x40" + bytes(4)) + END),
    ("size of an extended header", header(b"x", b"x", size=1 << 32) + END),
    ("extended size that is none", pax({b"size": b"-5"}) + entry(b"file", b"x") + END),
    ("damaged extended header", entry(b"x", b"9999999 path=x\n", b"x") + entry(b"f") + END),
    ("extended header without end", entry(b"x", b"12 path=abcdefgh", b"x") + entry(b"f") + END),
    ("extended header of length 0", entry(b"x", b"0 path=a\n", b"x") + entry(b"f") + END),
    ("one name for all", pax({b"path": b"evil"}, b"g") + entry(b"f") + END),
    ("headers without an end", long(b"a")[:1024] * 2000 + END),
    ("extended headers without an end", pax({b"comment": b"x"}) * 2000 + END),
]


@pytest.mark.parametrize("content", [each for _, each in GARBAGE], ids=[name for name, _ in GARBAGE])
def test_garbage(target: Path, content: bytes) -> None:
    with pytest.raises(TransferFailed) as caught:
        unpacked(target, content)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "limits"),
    [
        (entry(b"a", bytes(600)) + entry(b"b", bytes(600)), {"size": 1000}),
        (entry(b"a", bytes(600)) + entry(b"b", kind=b"1", link=b"a") * 3, {"size": 2000}),
        (header(b"huge", raw_size=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7), {}),
        (pax({b"size": b"9" * 18}) + header(b"huge"), {}),
        (header(b"odd", b"Z", raw_size=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7), {}),
        (b"".join(entry(b"%d" % n) for n in range(20)), {"entries": 10}),
        (entry(b"../x") * 20, {"entries": 10}),
    ],
)
def test_limits(target: Path, content: bytes, limits: dict[str, int]) -> None:
    with pytest.raises(LimitExceeded, match="more than"):
        unpacked(target, content + END, **limits)
    assert sum(path.stat().st_size for path in target.rglob("*")) <= 2000


def test_a_thousand_refusals_are_a_short_report(target: Path) -> None:
    done = unpacked(target, entry(b"../x\x1b") * 1000 + END)
    assert len(done.report()) == 21
    assert done.report()[-1] == "and 980 more"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="nothing here is always full")
def test_a_full_disk_is_said(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def full(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return opened("/dev/full", os.O_WRONLY) if flags & os.O_CREAT else opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(TransferFailed, match="cannot be written") as caught:
        unpack(io.BytesIO(entry(b"file", b"x") + END).read, target)
    assert "No space left" in str(caught.value)


def test_without_descriptors(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: by paths, each part looked at, and no links at all."""
    monkeypatch.setattr(os, "supports_dir_fd", set())
    (target / "old").symlink_to("../outside")
    packed = entry(b"a/b/file", b"x") + entry(b"link", kind=b"2", link=b"a") + entry(b"old/file", b"x")
    packed += entry(b"../up", b"x") + entry(b"twin", kind=b"1", link=b"a/b/file") + entry(b"old", kind=b"5")
    packed += entry(b"a", b"x")
    done = unpacked(target, packed + END)
    assert files(target) == ["a", "a/b", "a/b/file", "old", "twin"]
    assert [line.partition(" ")[0] for line in done.left] == ["'link'", "'old/file'", "'../up'", "'old'", "'a'"]


@pytest.mark.parametrize(
    "name", [b"c:evil", b"a\\..\\..\\evil", b"NUL", b"aux.txt", b"COM1", b"x.", b"x ", b"a:stream"]
)
def test_names_that_windows_takes_for_something_else(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(archives._LeftOut):
        archives._parts(b"d/" + name, Limits())


def test_descriptors_are_closed(target: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    packed = entry(b"a/b/c/file", b"x") + entry(b"t", kind=b"1", link=b"a/b/c/file") + entry(b"a/file", b"x") + END
    unpacked(target, packed)
    with pytest.raises(MachineError):
        unpacked(target, packed[:-1024] + b"garbage")
    assert before == (len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0)


HOSTILE = st.sampled_from([b"a", b"b", b"..", b".", b"", b"a/b", b"a/../..", b"/", b"outside", b"../outside", b"\x1b"])
PATHS = st.lists(HOSTILE, min_size=1, max_size=4).map(b"/".join)
ENTRIES: st.SearchStrategy[bytes] = st.one_of(
    st.builds(entry, PATHS, st.binary(max_size=600)),
    st.builds(lambda n, m: entry(n, kind=b"5", mode=m), PATHS, st.integers(0, 0o7777)),
    st.builds(lambda n, to: entry(n, kind=b"2", link=to), PATHS, PATHS),
    st.builds(lambda n, to: entry(n, kind=b"1", link=to), PATHS, PATHS),
    st.builds(lambda n, k: entry(n, kind=k), PATHS, st.sampled_from([b"3", b"4", b"6", b"7", b"S", b"Z", b"\0"])),
    st.builds(lambda n, to: pax({b"path": n, b"linkpath": to}) + entry(b"x", kind=b"2"), PATHS, PATHS),
    st.builds(lambda n, to: long(n, kind=b"2", link=to), PATHS, PATHS),
    st.builds(lambda n, size: header(n, size=size), PATHS, st.integers(0, 2000)),
    st.binary(min_size=1, max_size=700),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packed=st.lists(ENTRIES, max_size=12), ended=st.booleans())
def test_any_archive(target: Path, packed: list[bytes], *, ended: bool) -> None:
    """Whatever it holds: nothing outside changes, no link leads anywhere, and only our own errors are raised."""
    with suppress(MachineError):
        unpacked(target, b"".join(packed) + (END if ended else b""))
    for folder, names, others in os.walk(target):
        for path in (Path(folder, name) for name in [*names, *others]):
            status = path.lstat()
            assert stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
            if stat.S_ISLNK(status.st_mode):
                goal = str(path.readlink())
                assert not goal.startswith("/")
                assert not {".", "..", ""} & set(goal.split("/"))
            else:
                assert not status.st_mode & 0o7022
    shutil.rmtree(target)
    target.mkdir()
