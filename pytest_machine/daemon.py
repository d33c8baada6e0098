"""The settings of a machine's Docker daemon, as the files that it reads: a pure function of what was asked.

They are in the machine from birth, so that they work on every driver and cost nothing::

    /etc/docker/daemon.json      registry mirrors, insecure registries, labels, and any option of Docker's own; there
                                 the label of the machine's driver, too, which is in no settings
    /etc/docker/machine.env      variables, for the image's init
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from .errors import BadSpec, damaged
from .model import Engine, SeedFile, names
from .support.files import read as read_state
from .support.files import reason
from .support.parsing import json_table
from .support.text import shell_word

# The image's init gives these as flags, and dockerd refuses to start with one that is in the file as well. The data is
# where the machine's disk is; elsewhere it would lie on an overlay, on which Docker cannot store.
_OURS = ("containerd", "data-root", "graph", "hosts", "tls", "tlscacert", "tlscert", "tlskey", "tlsverify")
# Option of daemon.json → the argument that sets it.
_ARGUMENTS = {"registry-mirrors": "registry_mirror", "insecure-registries": "insecure_registries", "labels": "labels"}
# What the init itself lives by, or says to dockerd.
_INIT = ("DOCKERD_ARGS", "MACHINE_ADDRESS", "PATH", "BASH_ENV", "ENV", "IFS", "LD_PRELOAD", "LD_LIBRARY_PATH")
_JSON = "/etc/docker/daemon.json"
FILES = {_JSON: 0o644, "/etc/docker/machine.env": 0o600}
"""What is made of the settings, with modes: a proxy's address among the variables may hold a password."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def files(engine: Engine) -> dict[str, SeedFile]:
    """Return the files that a machine's daemon is configured by; none for an engine with nothing of its own.

    Raises `BadSpec` for what Docker would refuse at its start, and for what is the machine's own.
    """
    _check(engine)
    found: dict[str, SeedFile] = {}
    if options := _options(engine):
        found[_JSON] = _config(options)
    if engine.env:
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(engine.env.items())]
        found["/etc/docker/machine.env"] = SeedFile("".join(lines).encode(), 0o600)
    return found


def read(directory: Path) -> Engine:
    """Return the settings whose files lie in a machine's directory; the other way round from `files`."""
    return read_files(_kept(directory))


def planted(directory: Path, provider: str) -> dict[str, SeedFile]:
    """Return the files that a machine is born with: those that lie in its directory, with the label of its driver."""
    found = _kept(directory)
    options = json.loads(found[_JSON].content) if _JSON in found else {}
    return {**found, _JSON: _config(labelled(options, provider))}


def _kept(directory: Path) -> dict[str, SeedFile]:
    """Return the files that lie in a machine's directory; raises `StoreError` for one that is damaged."""
    found: dict[str, SeedFile] = {}
    for path, mode in FILES.items():
        file = directory / Path(path).name
        try:
            content = read_state(file, "it")
            if path == _JSON:
                json_table(content, "it")
            else:
                shlex.split(content.decode("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            # Malformed and UnicodeDecodeError among them. shlex's own error shows nothing of a secret.
            raise damaged(
                file, reason(error), hint=f"docker-machine rm {directory.name}, or: rm {shell_word(file)}"
            ) from error
        found[path] = SeedFile(content, mode)
    return found


def labelled(options: Mapping[str, object], provider: str) -> dict[str, object]:
    """Return the daemon's options with the label that says who made its machine, as Docker Machine writes it."""
    labels = options.get("labels")
    others = [str(label) for label in labels] if isinstance(labels, list) else []
    return {
        **options,
        "labels": [*(each for each in others if not each.startswith("provider=")), f"provider={provider}"],
    }


def _config(options: Mapping[str, object]) -> SeedFile:
    return SeedFile((json.dumps(options, indent=2, sort_keys=True) + "\n").encode())


def read_files(files: Mapping[str, SeedFile]) -> Engine:
    """Return the settings that these files hold."""
    options: dict[str, object] = {}
    env: dict[str, str] = {}
    if file := files.get(_JSON):
        options = json.loads(file.content)
    if file := files.get("/etc/docker/machine.env"):
        for word in shlex.split(file.content.decode()):
            name, _, value = word.partition("=")
            env[name] = value

    def texts(name: str) -> tuple[str, ...]:
        found = options.pop(name, ())
        return tuple(map(str, found)) if isinstance(found, list) else ()

    return Engine(
        registry_mirror=texts("registry-mirrors"),
        insecure_registries=texts("insecure-registries"),
        labels={name: value for name, _, value in (text.partition("=") for text in texts("labels"))},
        options=options,
        env=env,
    )


def storage(engine: Engine) -> dict[str, object]:
    """Return those of the daemon's options by which it stores images: two that differ here cannot share any."""
    return {name: engine.options[name] for name in ("storage-driver", "storage-opts", "features", "userns-remap")
            if name in engine.options}  # fmt: skip


def public(engine: Engine) -> dict[str, object]:
    """Return what may be noted of the settings: no variable's value, no password in an address."""
    found = _options(engine)
    if engine.labels:  # in the order in which they were given, for whoever shows them
        found["labels"] = [f"{name}={value}" for name, value in engine.labels.items()]
    for name in ("registry-mirrors", "insecure-registries"):
        if isinstance(addresses := found.get(name), list):
            found[name] = [re.sub(r"//[^/@]*@", "//", str(address)) for address in addresses]
    return {"options": found, "env": sorted(engine.env)} if found or engine.env else {}


def _options(engine: Engine) -> dict[str, object]:
    found = dict(engine.options)
    if engine.registry_mirror:
        found["registry-mirrors"] = list(engine.registry_mirror)
    if engine.insecure_registries:
        found["insecure-registries"] = list(engine.insecure_registries)
    if engine.labels:
        found["labels"] = [f"{name}={value}" for name, value in sorted(engine.labels.items())]
    return found


def _check(engine: Engine) -> None:
    _check_options(engine.options)
    _check_variables(engine.env)
    for url in engine.registry_mirror:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise _bad("registry_mirror", url, "it takes an address", "write registry_mirror='https://mirror.example'")
    for registry in engine.insecure_registries:
        if not registry or "://" in registry:
            reason = "it takes a host, host:port or subnet, without a scheme"
            raise _bad("insecure_registries", registry, reason, "write insecure_registries=['registry.example:5000']")
    for name in engine.labels:
        if not name or "=" in name:
            raise _bad("labels", name, "a label's name has no '='", "write labels={'zone': 'a'}")


def _check_options(options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if name in _OURS:
            raise _bad("engine_options", name, "it is the machine's own", f"take '{name}' out")
        if name in _ARGUMENTS:
            argument = _ARGUMENTS[name]
            raise _bad("engine_options", name, f"there is an argument for it: {argument}=", f"write {argument}=…")
        if "_" in name or name.startswith("-"):
            proper = name.lstrip("-").replace("_", "-")
            raise _bad("engine_options", name, "Docker writes options as in daemon.json", f"write '{proper}'")
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise _bad("engine_options", name, str(error), "give it a value that daemon.json can hold") from error


def _check_variables(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise _bad("engine_env", name, "no variable can be called so", "write engine_env={'HTTPS_PROXY': '…'}")
        if name in _INIT:
            raise _bad("engine_env", name, f"{names(_INIT)} are the machine's own", f"take '{name}' out")


def _bad(argument: str, what: str, reason: str, hint: str) -> BadSpec:
    return BadSpec(f"The engine cannot have '{what}' in {argument}=.", facts={"reason": reason}, hint=hint)
