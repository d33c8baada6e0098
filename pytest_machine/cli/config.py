"""What ``inspect`` shows: a machine as Docker Machine notes it, because scripts know the names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pytest_machine.model import Record

# `birth.KEY`, which is too heavy to be imported for one word.
_KEY = "id_ed25519"
# What Docker Machine notes where nobody asked for another; scripts that read it know no empty one.
_INSTALL_URL = "https://get.docker.com"
_VERSION = 3
# Words that Docker Machine's names have in capitals.
_CAPITALS = re.compile(r"^(ip|url|ssh|cpu|iso|id|tls|vm|vpc|ami|dns)$")
SWARM: dict[str, object] = {
    "IsSwarm": False,
    "Address": "",
    "Discovery": "",
    "Agent": False,
    "Master": False,
    "Host": "tcp://0.0.0.0:3376",
    "Image": "swarm:latest",
    "Strategy": "spread",
    "Heartbeat": 0,
    "Overcommit": 0,
    "ArbitraryFlags": [],
    "ArbitraryJoinFlags": [],
    "Env": None,
    "IsExperimental": False,
}
"""What is noted of a machine that is in no classic Swarm."""


ENGINE: dict[str, object] = {
    "ArbitraryFlags": [],
    "Dns": None,
    "GraphDir": "",
    "Env": [],
    "Ipv6": False,
    "InsecureRegistry": [],
    "Labels": [],
    "LogLevel": "",
    "StorageDriver": "",
    "SelinuxEnabled": False,
    "TlsVerify": True,
    "RegistryMirror": [],
    "InstallURL": _INSTALL_URL,
}
"""What is noted of an engine of which nothing was asked."""


def config(record: Record) -> dict[str, Any]:
    """Return what Docker Machine would have noted, in its order. Secrets are not in it."""
    swarm = {**SWARM, **record.swarm}
    return {
        "ConfigVersion": _VERSION,
        "Driver": _driver(record, swarm),
        "DriverName": record.driver,
        "HostOptions": {
            "Driver": "",
            "Memory": 0,
            "Disk": 0,
            "EngineOptions": _engine(record),
            "SwarmOptions": swarm,
            "AuthOptions": _authentication(record),
        },
        "Name": record.name,
    }


def _driver(record: Record, swarm: dict[str, object]) -> dict[str, object]:
    address = record.address
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in record.options.items()}
    key = record.directory / _KEY
    ours = {
        "IPAddress": (urlsplit(address.engine).netloc if address.engine else address.ip) if address else "",
        "MachineName": record.name,
        # None: it has no SSH.
        "SSHUser": address.user if address and address.ssh_port else "",
        "SSHPort": address.ssh_port if address else 0,
        "SSHKeyPath": str(key) if key.exists() else "",
        "StorePath": str(record.store),
        "SwarmMaster": swarm["Master"],
        "SwarmHost": swarm["Host"],
        "SwarmDiscovery": swarm["Discovery"],
    }
    if address and not address.engine:
        ours["EnginePort"] = address.engine_port
    # What is known of it now counts for more than what was asked for, perhaps in a text.
    asked = {_capitalized(name): value for name, value in options.items() if _capitalized(name) not in ours}
    return {**ours, **asked, "Id": record.id, "Options": options}


def _capitalized(name: str) -> str:
    return "".join(word.upper() if _CAPITALS.match(word) else word.capitalize() for word in name.split("_"))


def _engine(record: Record) -> dict[str, object]:
    noted = record.engine.get("options")
    given = dict(noted) if isinstance(noted, dict) else {}
    return {
        **ENGINE,
        "InsecureRegistry": given.pop("insecure-registries", []),
        "Labels": given.pop("labels", []),
        "StorageDriver": given.pop("storage-driver", ""),
        "RegistryMirror": given.pop("registry-mirrors", []),
        "ArbitraryFlags": [f"{name}={_flat(value)}" for name, value in given.items()],
        # Names alone: the values may be secret.
        "Env": record.engine.get("env", []),
        "InstallURL": record.install_url or _INSTALL_URL,
    }


def _authentication(record: Record) -> dict[str, object]:
    directory, certificates = record.directory, record.store / "certs"

    def place(name: str) -> str:
        return record.authority.get(name) or str(certificates / name)

    return {
        "CertDir": str(certificates),
        "CaCertPath": place("ca.pem"),
        "CaPrivateKeyPath": place("ca-key.pem"),
        "CaCertRemotePath": "",
        "ServerCertPath": str(directory / "server.pem"),
        "ServerKeyPath": str(directory / "server-key.pem"),
        "ClientKeyPath": place("key.pem"),
        "ServerCertRemotePath": "",
        "ServerKeyRemotePath": "",
        "ClientCertPath": place("cert.pem"),
        "ServerCertSANs": list(record.tls_sans),
        "StorePath": str(directory),
    }


def _flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
