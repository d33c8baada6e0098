"""Machines that Docker Machine made: what their ``config.json`` says, read and never written.

::

    STORE/machines/NAME/config.json     all that Docker Machine knows of it, secrets of its driver in plain sight
    STORE/machines/NAME/id_rsa          the key that logs in
    STORE/machines/NAME/ca.pem ...      what a client of its Docker needs

The file has had four forms. All are read, and shown as the last of them, 3. Paths in it are those of whoever made the
machine, on the computer where they made it: what lies in the machine's own directory goes before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StoreError, UnknownMachine
from .model import Address, Id, Record, Value
from .store import RECORD
from .support import files
from .support.logins import user
from .support.parsing import Malformed, host, plain, port, table, text, texts

CONFIG = "config.json"
_VERSION = 3
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-.]*")
_ENGINE_PORT, _SSH_PORT = 2376, 22
# Driver → whom it logs in as where the file does not say.
_USERS = {"virtualbox": "docker", "vmwarefusion": "docker", "hyperv": "docker", "amazonec2": "ubuntu"}
_SECRET = re.compile(r"secret|password|passwd|token|accesskey|apikey|privatekey$|clientkey$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Foreign:
    """One machine that Docker Machine made."""

    name: str
    directory: Path
    config: Mapping[str, Any]
    """What its file says, in its last form."""

    @property
    def kind(self) -> str:
        """Which of Docker Machine's drivers made it."""
        return str(self.config["DriverName"])

    @property
    def driver(self) -> Mapping[str, Any]:
        """What the driver noted."""
        return _table(self.config, "Driver")

    @property
    def key(self) -> Path | None:
        """The private key that logs in; None: what the user's own ssh has."""
        noted = self.driver.get("SSHKeyPath")
        places = [self.directory / "id_rsa", *([Path(noted)] if noted else [])]
        return next((path for path in places if path.is_file()), None)

    @property
    def certificates(self) -> Path:
        """The directory of what a client of its Docker needs."""
        noted = _table(_table(self.config, "HostOptions"), "AuthOptions").get("CertDir")
        places = [self.directory, self.directory.parents[1] / "certs", *([Path(noted)] if noted else [])]
        return next((path for path in places if (path / "cert.pem").is_file()), self.directory)

    @property
    def address(self) -> Address | None:
        """Where it was when it was last seen; None: nobody knows."""
        ip = self.driver.get("IPAddress")
        if not ip:
            return None
        # VirtualBox's is forwarded from this computer, for a machine without an address; with one, SSH is where it is.
        ssh_port = _SSH_PORT if self.kind == "virtualbox" else _number(self.driver.get("SSHPort")) or _SSH_PORT
        engine_port = _number(self.driver.get("EnginePort") or self.driver.get("DockerPort")) or _ENGINE_PORT
        return Address(ip=ip, user=self.user, ssh_port=ssh_port, engine_port=engine_port)

    @property
    def user(self) -> str:
        """Whom SSH logs in as."""
        return self.driver.get("SSHUser") or _USERS.get(self.kind, "root")

    @property
    def options(self) -> Mapping[str, Value]:
        """What our driver of the same name would have been given; empty where we have none."""
        if self.kind == "none":
            return {"url": self.driver.get("URL") or ""}
        if self.kind == "generic" and (address := self.address):
            return {
                "ip_address": address.ip,
                "ssh_user": address.user,
                "ssh_port": address.ssh_port,
                "engine_port": address.engine_port,
                **({"ssh_key": str(self.key)} if self.key else {}),
            }
        return {}

    @property
    def asked(self) -> bool:
        """Whether there is somebody here who can be asked what it does."""
        return self.kind == "virtualbox" or bool(self.options)

    @property
    def record(self) -> Record:
        """What we would have noted. It is saved nowhere."""
        import hashlib

        store = self.directory.parents[1]
        id_ = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:10]
        return Record(
            id=Id(id_), name=self.name, driver=self.kind, options=self.options, store=store, host="", created=0.0,
            ready=0.0, address=self.address,
        )  # fmt: skip

    @property
    def shown(self) -> dict[str, Any]:
        """What may be shown of the file: no secrets."""
        return {**self.config, "Driver": {name: _public(name, value) for name, value in self.driver.items()}}


def no_driver(kind: str) -> str:
    """Return Docker Machine's words for a driver that is not there."""
    plugin = f"docker-machine-driver-{kind}"
    return f'Driver "{kind}" not found. Do you have the plugin binary "{plugin}" accessible in your PATH?'


def is_foreign(directory: Path) -> bool:
    """Return whether there is a machine of Docker Machine's, or what is left of one, in that directory."""
    if os.path.lexists(directory / RECORD) or not directory.is_dir():
        return False
    # Temporary files are what a crash of ours leaves.
    return any(not child.name.endswith(".tmp") for child in directory.iterdir())


def names(store: Path) -> list[str]:
    """Return the names of all machines of that store that are Docker Machine's, readable or not."""
    try:
        entries = list((store / "machines").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry.name for entry in entries if _NAME.fullmatch(entry.name) and is_foreign(entry)]


def load(store: Path, name: str) -> Foreign:
    """Return the machine; raises `UnknownMachine`, or `StoreError` where its file cannot be read."""
    directory = store / "machines" / name
    if not _NAME.fullmatch(name) or not is_foreign(directory):
        raise UnknownMachine(f"There is no machine '{name}'.", facts={"store": store})
    path = directory / CONFIG
    try:
        return Foreign(name, directory, _checked(_latest(files.read_table(path, "it"), name, store)))
    except FileNotFoundError:
        raise _unreadable(name, path, "it is not there: the creation of the machine was broken off") from None
    except files.UNREADABLE as error:
        raise _unreadable(name, path, files.reason(error)) from error


def _latest(found: Mapping[str, Any], name: str, store: Path) -> dict[str, Any]:
    """Return what a file says in the form that Docker Machine gave it last."""
    version = found.get("ConfigVersion") or 0
    if not isinstance(version, int) or version > _VERSION:
        raise Malformed("config version is from the future -- you should upgrade your Docker Machine client")
    driver = dict(_table(found, "Driver"))
    if not isinstance(found.get("DriverName"), str) or not found["DriverName"]:
        raise Malformed("it names no driver")
    options = dict(_table(found, "HostOptions"))
    if version == 0:
        options.setdefault("SwarmOptions", {
            "Address": "", "Discovery": found.get("SwarmDiscovery", ""), "Host": found.get("SwarmHost", ""),
            "Master": bool(found.get("SwarmMaster")),
        })  # fmt: skip
        options.setdefault("AuthOptions", {
            key: found.get(key, "")
            for key in ("StorePath", "CaCertPath", "PrivateKeyPath", "ServerCertPath", "ServerKeyPath",
                        "ClientKeyPath", "ClientCertPath")
        })  # fmt: skip
    if version < 2:
        authentication = dict(_table(options, "AuthOptions"))
        authentication["CaPrivateKeyPath"] = authentication.pop("PrivateKeyPath", "")
        options["AuthOptions"] = {"CertDir": str(store / "certs"), **authentication, "StorePath": str(store)}
    if version < _VERSION:
        driver.setdefault("StorePath", str(store))
    for each in ("EngineOptions", "SwarmOptions", "AuthOptions"):
        options[each] = dict(_table(options, each))
    return {
        "ConfigVersion": _VERSION,
        "Driver": driver,
        "DriverName": found["DriverName"],
        "HostOptions": options,
        "Name": name,
    }


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration, once all that is used of it is what it has to be: it may come from another computer."""
    try:
        plain(config, "it")
    except Malformed:  # whose text may be a secret
        raise Malformed("it has a text that is not Unicode, or a number that is too large") from None
    kind = text(config["DriverName"], "'DriverName'", longest=63)
    driver, options = config["Driver"], config["HostOptions"]
    # Of the driver `none`, it is the host and port of the URL; the URL counts.
    checks: dict[str, Callable[[object, str], object]] = {
        **({} if kind == "none" else {"IPAddress": host}),
        "SSHUser": user, "SSHPort": port, "EnginePort": port, "DockerPort": port, "SSHKeyPath": text, "URL": text,
    }  # fmt: skip
    for name, check in checks.items():
        if driver.get(name):
            check(driver[name], f"'{name}'")
    for part, name in (("AuthOptions", "CertDir"), ("SwarmOptions", "Host"), ("SwarmOptions", "Discovery")):
        if options[part].get(name):
            text(options[part][name], f"'{name}'")
    for name in ("Labels", "ArbitraryFlags", "Env", "InsecureRegistry", "RegistryMirror"):
        if options["EngineOptions"].get(name):
            texts(options["EngineOptions"][name], f"'{name}'")
    return config


def _table(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return {} if found.get(name) is None else table(found[name], f"'{name}'")


def _number(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 65536 else 0


def _public(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _public(str(key), each) for key, each in value.items()}
    return "" if _SECRET.search(name) and isinstance(value, str) and not value.startswith("/") else value


def _unreadable(name: str, path: Path, reason: object) -> StoreError:
    return StoreError(
        f"The configuration of the machine '{name}', which Docker Machine made, cannot be read.",
        facts={"path": path, "reason": reason},
        hint=f"bring the file back, or forget the machine: docker-machine rm -f {name}",
    )
