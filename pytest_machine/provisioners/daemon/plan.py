"""What the daemon's files are to be: a pure function of what the machine is, what is wanted, and what is there.

::

    daemon.json                                           its options, merged with somebody else's
    machine.env                                           its variables, in a block of ours
    /etc/systemd/system/docker.service.d/10-machine.conf  systemd: how it is started; Docker Machine's own name for it
    /etc/conf.d/docker                                    OpenRC: the same, in a block of ours
    /var/lib/boot2docker/profile                          boot2docker: the same
    .pytest-machine.json                                  which of the options are ours

Where it listens is said by flags, after those that the distribution's own service gives it, which stay. Docker refuses
an option that is both a flag and in its file: so where somebody has written ``hosts`` or TLS into ``daemon.json``, ours
go there, too, and the flags go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_machine import daemon
from pytest_machine.errors import ProvisionFailed
from pytest_machine.facts import directory
from pytest_machine.guest import applied
from pytest_machine.model import SeedFile
from pytest_machine.provisioner import Facts, Wanted

from .merge import LISTS, Note, Options, both, conflict, merge, parse

DROP_IN = "/etc/systemd/system/docker.service.d/10-machine.conf"
CONF_D = "/etc/conf.d/docker"
PROFILE = "/var/lib/boot2docker/profile"
BORN = "as it was born\n"
"""What the mark that a daemon runs with its files (`pytest_machine.guest.applied`) says where it was born with them."""
_SOCKET = "unix:///var/run/docker.sock"
_BEGIN = "# --- pytest-machine: this block is replaced whenever the machine is provisioned ---"
_END = "# --- pytest-machine: end ---"
_BLOCK = re.compile(rf"^{re.escape(_BEGIN)}\n(?:.*\n)*?{re.escape(_END)}\n", re.MULTILINE)
_LISTENING = ("hosts", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey")


@dataclass(frozen=True, slots=True)
class Plan:
    """Files to be written, with root as their owner, and files to be removed."""

    files: Mapping[str, SeedFile] = field(default_factory=dict)
    removed: Sequence[str] = ()
    kept: Sequence[str] = ()
    """Which of the files keep their mode: they are somebody else's, too."""
    note: str = ""
    """What the note says when all is done."""
    begun: str = ""
    """What it says before anything is: ours is what was ours and what is to be, whichever of them is in the file."""


def note(facts: Facts) -> str:
    """Return the path of the note of what is ours."""
    return f"{directory(facts)}/.pytest-machine.json"


def paths(facts: Facts) -> list[str]:
    """Return the paths of the files that the plan depends on."""
    home = directory(facts)
    of_manager = {"systemd": DROP_IN, "openrc": CONF_D, "boot2docker": PROFILE}.get(facts.manager)
    return [f"{home}/daemon.json", f"{home}/machine.env", note(facts), *filter(None, [of_manager])]


def plan(facts: Facts, wanted: Wanted, there: Mapping[str, str], unit: str = "") -> Plan:
    """Return what to write; `there` are the texts of `paths`, `unit` the distribution's ``docker.service``.

    Raises `ProvisionFailed` where what is there stands in the way, `BadSpec` for settings that Docker would refuse.
    """
    home = directory(facts)
    config, variables, noted = f"{home}/daemon.json", f"{home}/machine.env", note(facts)
    theirs = parse(there.get(config, ""), config)
    ours = _noted(there.get(noted, ""))
    options = _options(wanted)
    in_file = [key for key in _LISTENING if _foreign(key, theirs, ours)]
    if in_file and facts.manager in ("machine-init", "boot2docker"):
        raise conflict(config, in_file[0], theirs[in_file[0]], "a flag, which this system gives its daemon by itself")
    if in_file:
        options |= _listening(facts, wanted)
    merged, owned = merge(theirs, ours, options, path=config)
    texts = {variables: block(there.get(variables, ""), _variables(facts, wanted))}
    if merged != theirs:
        texts[config] = json.dumps(merged, indent=2) + "\n" if merged else ""
    if facts.manager == "systemd":
        texts[DROP_IN] = _drop_in(facts, wanted, unit, in_file=bool(in_file))
    elif facts.manager == "openrc":
        texts[CONF_D] = block(there.get(CONF_D, ""), _conf_d(facts, wanted, in_file=bool(in_file)))
    elif facts.manager == "boot2docker":
        texts[PROFILE] = block(there.get(PROFILE, ""), _profile(facts, wanted))
    return Plan(
        files={
            path: SeedFile(text.encode(), 0o600 if path in (variables, PROFILE) else 0o644)
            for path, text in texts.items()
            if text
        },
        removed=[path for path, text in texts.items() if not text and path in there],
        kept=[config, CONF_D, PROFILE],
        note=_note(owned),
        begun=_note(both(ours, owned)),
    )


def born_with(settings: Mapping[str, SeedFile]) -> dict[str, SeedFile]:
    """Return what a machine is born with beside its settings, which are ours alone: the note of them, and the mark."""
    known = Facts(os="debian", manager="machine-init")  # as our own images are
    options = json.loads(settings[f"{directory(known)}/daemon.json"].content)
    _, owned = merge({}, {}, options, path="")
    return {note(known): SeedFile(_note(owned).encode(), 0o600), applied(known): SeedFile(BORN.encode(), 0o600)}


def block(text: str, ours: str) -> str:
    """Return a text in which our block says this; nothing: it is taken out. All else stays as it is.

    A text that says just this is as the machine was born with it, and stays, too.
    """
    if text == ours:
        return text
    rest = _BLOCK.sub("", text)
    if not ours:
        return rest
    if rest and not rest.endswith("\n"):
        rest += "\n"
    return f"{rest}{_BEGIN}\n{ours}{_END}\n"


def command(unit: str) -> str:
    """Return the command of a ``docker.service``: its last ``ExecStart=``; empty where there is none."""
    joined = re.sub(r"\\\n\s*", " ", unit)
    found = [line.partition("=")[2].strip() for line in joined.splitlines() if re.match(r"\s*ExecStart\s*=", line)]
    return found[-1] if found else ""


def _options(wanted: Wanted) -> dict[str, object]:
    """Return what is wanted of daemon.json, the label of the driver included."""
    file = daemon.files(wanted.engine).get("/etc/docker/daemon.json")
    found: dict[str, object] = json.loads(file.content) if file else {}
    return daemon.labelled(found, wanted.provider) if wanted.provider else found


def _listening(facts: Facts, wanted: Wanted) -> dict[str, object]:
    home = directory(facts)
    return {
        "hosts": [_SOCKET, f"tcp://0.0.0.0:{wanted.engine_port}"],
        "tlsverify": True,
        "tlscacert": f"{home}/ca.pem",
        "tlscert": f"{home}/server.pem",
        "tlskey": f"{home}/server-key.pem",
    }


def _foreign(key: str, theirs: Options, ours: Note) -> bool:
    """Return whether somebody else has set an option, or an entry of it."""
    if key in LISTS and key in ours:
        return bool(set(_list(theirs.get(key))) - set(_list(ours[key])))
    return key in theirs and key not in ours


def _tls(facts: Facts) -> list[str]:
    home = directory(facts)
    files = [f"--tlscacert={home}/ca.pem", f"--tlscert={home}/server.pem", f"--tlskey={home}/server-key.pem"]
    return ["--tlsverify", *files]


def _drop_in(facts: Facts, wanted: Wanted, unit: str, *, in_file: bool) -> str:
    own = command(unit)
    if not own:
        raise ProvisionFailed(
            "The machine could not be made a Docker host: systemd knows no service 'docker'.",
            facts={"engine": facts.engine or "none"},
            hint="see what runs Docker there: docker-machine ssh NAME systemctl list-units '*docker*'",
        )
    words, hosts = _without_listening(own.split())
    if not in_file:
        port = f":{wanted.engine_port}"
        hosts = [host for host in hosts if not (host.startswith("tcp://") and host.endswith(port))]
        if not any(host.startswith(("fd://", "unix://")) for host in hosts):
            hosts.append(_SOCKET)
        words += [word for host in (*hosts, f"tcp://0.0.0.0{port}") for word in ("-H", host)]
        words += _tls(facts)
    return (
        "# Written by docker-machine, and replaced whenever the machine is provisioned.\n"
        "[Service]\n"
        f"EnvironmentFile=-{directory(facts)}/machine.env\n"
        "ExecStart=\n"
        f"ExecStart={' '.join(words)}\n"
    )


def _without_listening(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a daemon's command without its TLS and without the addresses that it listens on, and those."""
    kept: list[str] = []
    hosts: list[str] = []
    left = iter(words)
    for word in left:
        name, given, value = word.partition("=")
        if name in ("-H", "--host"):
            hosts.append(value if given else next(left, ""))
        elif name in ("--tlscacert", "--tlscert", "--tlskey"):
            if not given:
                next(left, "")
        elif name not in ("--tls", "--tlsverify"):
            kept.append(word)
    return kept, hosts


def _conf_d(facts: Facts, wanted: Wanted, *, in_file: bool) -> str:
    variables = f"{directory(facts)}/machine.env"
    lines = ["set -a", f"if [ -r {variables} ]; then . {variables}; fi", "set +a"]
    if not in_file:
        flags = ["-H", _SOCKET, "-H", f"tcp://0.0.0.0:{wanted.engine_port}", *_tls(facts)]
        lines.append(f'DOCKER_OPTS="${{DOCKER_OPTS:-}} {" ".join(flags)}"')
    return "".join(f"{line}\n" for line in lines)


def _variables(facts: Facts, wanted: Wanted) -> str:
    file = daemon.files(wanted.engine).get("/etc/docker/machine.env")
    found = file.content.decode() if file else ""
    if facts.manager == "machine-init" and wanted.engine_port != 2376:  # which the init itself gives it
        found += f"DOCKERD_ARGS='-H tcp://0.0.0.0:{wanted.engine_port}'\n"
    return found


def _profile(facts: Facts, wanted: Wanted) -> str:
    """Return what boot2docker's own init script reads; it adds the flags for TLS by itself."""
    home = directory(facts)
    lines = [
        "set -a",
        f"if [ -r {home}/machine.env ]; then . {home}/machine.env; fi",
        "set +a",
        f"DOCKER_HOST='-H tcp://0.0.0.0:{wanted.engine_port}'",
        "DOCKER_TLS=auto",
        f"CACERT={home}/ca.pem",
        f"SERVERCERT={home}/server.pem",
        f"SERVERKEY={home}/server-key.pem",
    ]
    return "".join(f"{line}\n" for line in lines)


def _noted(text: str) -> dict[str, list[object]]:
    """Return the note; a broken one says nothing, so that nothing is taken for ours that may not be."""
    try:
        found = json.loads(text)["options"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {key: values for key, values in found.items() if isinstance(values, list)} if isinstance(found, dict) else {}


def _note(owned: Note) -> str:
    return json.dumps({"options": owned}, indent=2, sort_keys=True) + "\n"


def _list(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else []
