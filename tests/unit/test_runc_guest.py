"""Whom a machine asks for names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_machine.drivers.runc import guest


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("nameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"),
        ("search x.test\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n", "search x.test\nnameserver 192.0.2.1\n"),
        ("nameserver ::1\nnameserver 2001:db8::1\noptions edns0\n", "nameserver 2001:db8::1\noptions edns0\n"),
        ("nameserver fe80::1%eth0\n", "nameserver fe80::1%eth0\n"),
    ],
)
def test_servers_that_only_the_host_reaches_are_left_out(text: str, kept: str, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text(text)
    assert guest.name_servers([tmp_path / "resolv.conf"]) == kept


def test_behind_a_local_stub_its_own_servers_are_used(tmp_path: Path) -> None:
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "real").write_text("# by systemd\nnameserver 192.0.2.7\n")
    assert "192.0.2.7" in guest.name_servers([tmp_path / "stub", tmp_path / "real"])
    said = guest.name_servers([tmp_path / "absent", tmp_path / "stub"])
    assert said.startswith("#")
    assert "nameserver" not in said


def test_it_is_a_file_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    assert guest.files([tmp_path / "resolv.conf"])["/etc/resolv.conf"].content == b"nameserver 192.0.2.1\n"
