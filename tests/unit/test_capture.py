"""The file of a capture: whole packets only, however they come, and the last ones where they are many."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_machine.capture import _Writer

PACKETS = st.lists(st.binary(max_size=200), max_size=30)


def header(order: str = "<", link: int = 1) -> bytes:
    return struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)


def packed(packets: list[bytes], order: str = "<") -> bytes:
    return b"".join(struct.pack(f"{order}IIII", n, 0, len(p), len(p)) + p for n, p in enumerate(packets))


def unpacked(file: bytes, order: str = "<") -> list[bytes]:
    """Return the packets of a file; each must be there as a whole."""
    assert file[:24] == header(order)
    at, found = 24, []
    while at < len(file):
        (size,) = struct.unpack_from(f"{order}I", file, at + 8)
        found.append(file[at + 16 : at + 16 + size])
        assert len(found[-1]) == size
        at += 16 + size
    return found


@settings(deadline=None)
@given(PACKETS, st.sampled_from("<>"), st.integers(1, 500), st.integers(0, 40))
def test_pieces_of_any_size_and_an_end_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory, packets: list[bytes], order: str, size: int, torn: int
) -> None:
    path = tmp_path_factory.mktemp("capture") / "sub" / "a.pcap"
    writer = _Writer(path, 1 << 20)
    feed = writer.feed()
    stream = header(order) + packed(packets, order)
    stream = stream[: max(24, len(stream) - torn)]
    for at in range(0, len(stream), size):
        feed(stream[at : at + size])
        if path.exists():
            unpacked(path.read_bytes(), order)  # at every moment
    writer.close()
    found = unpacked(path.read_bytes(), order)
    assert found == packets[: len(found)]
    assert writer.packets == len(found)
    assert writer.left_out == 0
    if not torn:
        assert found == packets


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    limit = 1 << 17
    writer = _Writer(path, limit)
    feed = writer.feed()
    feed(header())
    packets = [f"{number:06}".encode() * 100 for number in range(1000)]
    for each in packets:
        feed(packed([each]))
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= limit + 2 * 616
    writer.close()
    writer.close()
    found = unpacked(path.read_bytes())
    assert found == packets[-len(found) :]
    assert limit // 2 - 1000 <= path.stat().st_size <= limit
    assert writer.left_out == 1000 - len(found)
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_stream_goes_on_in_the_same_file(tmp_path: Path) -> None:
    writer = _Writer(tmp_path / "a.pcap", 1 << 20)
    first = writer.feed()
    first(header() + packed([b"before"]) + packed([b"torn"])[:-2])
    writer.feed()(header() + packed([b"after"]))
    writer.close()
    assert unpacked((tmp_path / "a.pcap").read_bytes()) == [b"before", b"after"]


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    writer = _Writer(tmp_path / "a.pcap", 1 << 20)
    with pytest.raises(ValueError, match="no capture"):
        writer.feed()(b"Welcome to the machine! Today is a day.")
    feed = writer.feed()
    with pytest.raises(ValueError, match="no capture"):
        feed(header() + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30))
    with pytest.raises(ValueError, match="another kind"):
        writer.feed()(header(link=113))
    writer.close()
