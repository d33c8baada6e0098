"""What ``--engine-opt`` gives: flags of dockerd, as its file has them, where each has a type and many another name.

Docker takes any flag's name for a key of its file, and then reads another: what is not translated has no effect, and
nobody is told. Whoever types a name as the file has it knows the file, and gets what he typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from .command import Failed

# Flag that may be given again and again → what the file calls the list of its values.
_LISTS = {
    "allow-nondistributable-artifacts": "allow-nondistributable-artifacts",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "dns": "dns",
    "dns-opt": "dns-opts",
    "dns-search": "dns-search",
    "exec-opt": "exec-opts",
    "host": "hosts",  # of which a machine has its own, so that it is refused
    "node-generic-resource": "node-generic-resources",
    "storage-opt": "storage-opts",
}
_PROXIES = ("http-proxy", "https-proxy", "no-proxy")
# Texts, also where all of it is digits.
_TEXTS = ("default-shm-size", "group", "userns-remap")


@dataclass(frozen=True)
class Flags:
    """What was given: options as ``daemon.json`` has them, and what `Engine` has on its own."""

    options: dict[str, object] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    registry_mirror: list[str] = field(default_factory=list)
    insecure_registries: list[str] = field(default_factory=list)


def flags(texts: Iterable[str]) -> Flags:
    """Return what these flags mean, each ``FLAG=VALUE`` or ``FLAG``; raises `Failed` for one that cannot be read."""
    found = Flags()
    for text in texts:
        flag, given, value = text.lstrip("-").partition("=")
        if not flag:
            raise wrong(text, "no option", "--engine-opt FLAG=VALUE")
        if flag == "label":
            found.labels.update(pairs((value,), "--engine-opt label=NAME=VALUE"))
        elif flag == "registry-mirror":
            found.registry_mirror.append(value)
        elif flag == "insecure-registry":
            found.insecure_registries.append(value)
        elif flag in _LISTS:
            _list(found.options, _LISTS[flag]).append(value)
        elif flag == "default-address-pool":
            _list(found.options, "default-address-pools").append(_pool(value))
        elif flag in _TABLES:
            name, read = _TABLES[flag]
            _add(_table(found.options, name), read(value))
        elif flag in _PROXIES:
            _table(found.options, "proxies")[flag] = value
        else:
            found.options[flag] = _typed(flag, value if given else "true")
    return found


def pairs(texts: Iterable[str], example: str) -> dict[str, str]:
    """Return ``NAME=VALUE`` texts as a table; the `example` is for whoever gave another."""
    found: dict[str, str] = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not name or not given:
            raise wrong(text, "no pair", example)
        found[name] = value
    return found


def wrong(text: str, what: str, example: str) -> Failed:
    """Return the error for a flag's value that cannot be read."""
    return Failed(f"Error setting machine configuration from flags provided: '{text}' is {what}: {example}")


def _typed(flag: str, value: str) -> object:
    if value in ("true", "false"):
        return value == "true"
    return int(value) if flag not in _TEXTS and re.fullmatch(r"-?[0-9]+", value) else value


# Tables, which grow with every flag.


def _list(options: dict[str, object], name: str) -> list[object]:
    found = options.setdefault(name, [])
    if not isinstance(found, list):  # the file's own name was typed, too
        raise wrong(name, "given in two ways", "give each of them by --engine-opt in one")
    return found


def _table(options: dict[str, object], name: str) -> dict[str, object]:
    found = options.setdefault(name, {})
    if not isinstance(found, dict):
        raise wrong(name, "given in two ways", "give each of them by --engine-opt in one")
    return found


def _add(table: dict[str, object], more: Mapping[str, object]) -> None:
    for name, value in more.items():
        before = table.get(name)
        table[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value


def _log(value: str) -> dict[str, object]:
    return {**pairs((value,), "--engine-opt log-opt=NAME=VALUE")}


def _limit(value: str) -> dict[str, object]:
    found = re.fullmatch(r"([a-z]+)=(-1|[0-9]+)(?::(-1|[0-9]+))?", value)
    if found is None:
        raise wrong(value, "no limit", "--engine-opt default-ulimit=nofile=1024:2048")
    name, soft, hard = found.groups()
    return {name: {"Name": name, "Hard": int(hard or soft), "Soft": int(soft)}}


def _runtime(value: str) -> dict[str, object]:
    name, _, path = value.partition("=")
    if not name or not path:
        raise wrong(value, "no runtime", "--engine-opt add-runtime=crun=/usr/bin/crun")
    return {name: {"path": path}}


def _network(value: str) -> dict[str, object]:
    found = re.fullmatch(r"([^=]+)=([^=]+)=(.*)", value)
    if found is None:
        raise wrong(
            value, "no network's option", "--engine-opt default-network-opt=bridge=com.docker.network.driver.mtu=1400"
        )
    network, name, given = found.groups()
    return {network: {name: given}}


def _feature(value: str) -> dict[str, object]:
    name, given, wanted = value.partition("=")
    if not name or (given and wanted not in ("true", "false")):
        raise wrong(value, "no feature", "--engine-opt feature=containerd-snapshotter=true")
    return {name: wanted != "false"}


def _pool(value: str) -> dict[str, object]:
    found = dict(part.partition("=")[::2] for part in value.split(","))
    if found.keys() != {"base", "size"} or not found["size"].isdecimal():
        raise wrong(value, "no pool of addresses", "--engine-opt default-address-pool=base=10.0.0.0/8,size=24")
    return {"base": found["base"], "size": int(found["size"])}


# Flag → what the file calls the table, and what reads the flag's value.
_TABLES: Mapping[str, tuple[str, Callable[[str], dict[str, object]]]] = {
    "add-runtime": ("runtimes", _runtime),
    "default-network-opt": ("default-network-opts", _network),
    "default-ulimit": ("default-ulimits", _limit),
    "feature": ("features", _feature),
    "log-opt": ("log-opts", _log),
}
