"""Hosts that are there already, reached by SSH: they are taken over, made Docker hosts, and let go again.

Nothing is created and nothing destroyed: whatever is done to such a host stays done. So it is no throwaway machine; it
is what Docker Machine's users have as ``generic``, with its flags.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pytest_machine import ssh
from pytest_machine.errors import BadSpec, DriverError
from pytest_machine.login import check_key
from pytest_machine.model import Access, Address, Id, Isolation, Record, Seed, Seen, State
from pytest_machine.options import option

# Seconds until a host that says nothing is taken for one that is off.
_DIAL = 5.0
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class GenericDriver:
    """Takes hosts over that are there already, by SSH, and makes them Docker hosts; what it does to them stays done."""

    name: ClassVar[str] = "generic"

    ip_address: str = option("", help="address or name of the host")
    ssh_user: str = option("root", help="whom SSH logs in as: root, or somebody who may use sudo without a password")
    ssh_key: str = option("", help="private key's file; default: what your own ssh uses")
    ssh_port: int = option(22, help="port of its SSH")
    engine_port: int = option(2376, help="port on which its Docker is to listen")

    @property
    def isolation(self) -> Isolation:
        """None that we know of: it may be this computer itself."""
        return Isolation.PRIVILEGED

    def check(self) -> None:
        """Raise unless a host is named and there is the key."""
        if not self.ip_address:
            raise BadSpec(
                "generic driver requires the --generic-ip-address option",
                hint="docker-machine create -d generic --generic-ip-address 192.0.2.1 NAME, "
                "or @pytest.mark.machine(driver='generic', options={'ip_address': '192.0.2.1'})",
            )
        for name, port in (("ssh_port", self.ssh_port), ("engine_port", self.engine_port)):
            if not 0 < port < 65536:
                raise BadSpec(f"The option '{name}' of the driver 'generic' cannot be {port}.", hint="1 to 65535")
        Address(ip=self.ip_address, user=self.ssh_user)  # it refuses what is none
        if key := self._key():
            check_key(key)

    def access(self, record: Record) -> Access:  # noqa: ARG002  # all that it takes is among the options
        """Return the key that logs in."""
        return Access(key=self._key())

    def create(self, record: Record, seed: Seed) -> None:
        """Do nothing: it is there."""

    def destroy(self, record: Record) -> None:
        """Do nothing: it is not ours to end."""

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return whether each host's SSH accepts a connection, asked at the same time."""
        if not records:
            return {}
        with ThreadPoolExecutor(min(len(records), _AT_ONCE)) as pool:
            return dict(pool.map(self._look, records))

    def shared_host(self) -> str:
        """Return the host's address and the port of its SSH: whoever logs in, it is the same host."""
        from pytest_machine.hosts import resolved

        return resolved(self.ip_address, self.ssh_port)

    def find(self) -> Iterable[Record]:
        """Return nothing: they carry no tags."""
        return ()

    def reboot(self, record: Record) -> None:
        """Have it shut down and boot, as root or by sudo."""
        # By hand, because a connection of the core's would be cut in the middle of an answer; so is this one.
        directory = record.directory
        address = record.address or self._address()
        key = directory / "id_ed25519"
        connection = ssh.SshConnection(
            address, key=key, known_hosts=directory / "known_hosts", agent=not key.exists(), control=False
        )
        sudo = () if self.ssh_user == "root" else ("sudo", "-n")
        done = connection.run(*sudo, "shutdown", "-r", "now", check=False, timeout=30)
        if done.returncode not in (0, ssh.LOST):
            raise DriverError(
                f"The machine '{record.name}' does not boot again.",
                facts={"'shutdown -r now' said": done.stderr.strip() or f"return code {done.returncode}"},
                hint=f"docker-machine ssh {record.name}",
            )

    def _look(self, record: Record) -> tuple[Id, Seen]:
        address = self._address()
        try:
            with socket.create_connection((address.ip, address.ssh_port), timeout=_DIAL):
                return record.id, Seen(state=State.RUNNING, address=address)
        except OSError as error:
            detail = f"SSH at {address.ip}:{address.ssh_port}: {error}"
            return record.id, Seen(state=State.STOPPED, address=address, detail=detail)

    def _address(self) -> Address:
        return Address(ip=self.ip_address, user=self.ssh_user, ssh_port=self.ssh_port, engine_port=self.engine_port)

    def _key(self) -> Path | None:
        key = Path(self.ssh_key).expanduser() if self.ssh_key else None
        if key is not None and not key.is_file():
            raise DriverError(
                f'SSH key does not exist: "{self.ssh_key}"',
                hint="--generic-ssh-key takes the private key's file",
                transient=False,
            )
        return key
