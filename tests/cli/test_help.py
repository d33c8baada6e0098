"""``--help`` of the program, of every command and of every driver: complete, and laid out as Docker Machine's is."""

from __future__ import annotations

import dataclasses

import click
import pytest

from pytest_machine.cli import COMMANDS, main
from pytest_machine.options import options
from pytest_machine.plugins import Registry

from .conftest import Program

# docker-machine.md, 1.1 and 1.3: flag → its variable.
GLOBAL = {
    "--debug, -D": "MACHINE_DEBUG",
    "--storage-path, -s": "MACHINE_STORAGE_PATH",
    "--tls-ca-cert": "MACHINE_TLS_CA_CERT",
    "--tls-ca-key": "MACHINE_TLS_CA_KEY",
    "--tls-client-cert": "MACHINE_TLS_CLIENT_CERT",
    "--tls-client-key": "MACHINE_TLS_CLIENT_KEY",
    "--github-api-token": "MACHINE_GITHUB_API_TOKEN",
    "--native-ssh": "MACHINE_NATIVE_SSH",
    "--bugsnag-api-token": "MACHINE_BUGSNAG_API_TOKEN",
    "--help, -h": "",
    "--version, -v": "",
}
SHARED = {
    "--driver, -d": "MACHINE_DRIVER",
    "--engine-install-url": "MACHINE_DOCKER_INSTALL_URL",
    "--engine-opt []": "",
    "--engine-insecure-registry []": "",
    "--engine-registry-mirror []": "ENGINE_REGISTRY_MIRROR",
    "--engine-label []": "",
    "--engine-storage-driver": "",
    "--engine-env []": "",
    "--swarm": "",
    '--swarm-image "swarm:latest"': "MACHINE_SWARM_IMAGE",
    "--swarm-master": "",
    "--swarm-discovery": "",
    '--swarm-strategy "spread"': "",
    "--swarm-opt []": "",
    "--swarm-join-opt []": "",
    '--swarm-host "tcp://0.0.0.0:3376"': "",
    "--swarm-addr": "",
    "--swarm-experimental": "",
    "--tls-san []": "",
}


def rows(shown: str, title: str = "Options:") -> dict[str, str]:
    """Return what help shows below a title: first cell → second."""
    lines = shown.splitlines()
    found = {}
    for line in lines[lines.index(title) + 1 :]:
        cells = [cell for cell in line.strip(" ").split("\t") if cell]
        if len(cells) == 2:
            found[cells[0].rstrip()] = cells[1]
        elif found:
            break
    return found


@pytest.fixture
def typed(program: Program) -> Program:
    return dataclasses.replace(program, name="docker-machine")


def test_of_the_program(typed: Program) -> None:
    shown = typed.here("--help").out
    lines = shown.splitlines()
    assert lines[0] == "Usage: docker-machine [OPTIONS] COMMAND [arg...]"
    assert lines[2] == "Create and manage machines running Docker."
    assert lines[-1] == "Run 'docker-machine COMMAND --help' for more information on a command."
    found = rows(shown)
    assert [name.partition(' "')[0] for name in found] == list(GLOBAL)
    for name, text in found.items():
        variable = GLOBAL[name.partition(' "')[0]]
        assert (f"[${variable}]" in text) == bool(variable)
    assert set(rows(shown, "Commands:")) == set(COMMANDS)
    assert list(rows(shown, "Commands:"))[-1] == "help"
    assert shown == typed.here().out == typed.here("help").out == typed.here("h").out == typed.here("-h").out


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_of_a_command(typed: Program, command: str) -> None:
    shown = typed.here(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"Usage: docker-machine {command} ")
    assert shown.out == typed.here("help", command).out == typed.here(command, "-h").out
    found = main.get_command(click.Context(main), command)
    assert found is not None
    assert shown.out.splitlines()[2].strip(), "it says what it does"
    for param in found.params:
        if isinstance(param, click.Option) and not param.hidden:
            assert max(param.opts, key=len) in shown.out, "every flag of it is there"
            assert param.help


def test_of_create(typed: Program) -> None:
    found = rows(typed.here("create", "-d", "none", "--help").out)
    assert list(found) == sorted(found), "in the order of their names"
    names = {}
    for shared, variable in SHARED.items():
        flag = shared.removesuffix(" []")
        names[f"{flag} [{flag} option {flag} option]" if shared.endswith(" []") else shared] = variable
    assert set(found) == {*names, "--context", "--dry-run", "--url"}, "two more than the reference's, and the driver's"
    for name, variable in names.items():
        assert (f"[${variable}]" in found[name]) == bool(variable)


@pytest.mark.parametrize("name", Registry().names())
def test_of_every_driver(typed: Program, name: str) -> None:
    found = rows(typed.here("create", "--driver", name, "--help").out)
    kind = Registry().driver(name)
    for option in options(kind).values():
        if option.flag:
            text = next(text for flag, text in found.items() if flag.split(" ")[0] == option.flag)
            assert text == f"{option.help} [${option.env}]"


def test_without_a_driver_that_can(typed: Program) -> None:
    """Help is shown where no machine can be made, too."""
    assert set(SHARED) - set(rows(typed.here("create", "--help").out)) <= {name for name in SHARED if "[]" in name}


# docker-machine.md, 1.2: on whose exit codes scripts of its users rely.
THEIRS = {
    *(
        "active",
        "config",
        "create",
        "env",
        "help",
        "inspect",
        "ip",
        "kill",
        "ls",
        "mount",
        "provision",
        "restart",
        "rm",
    ),
    *("regenerate-certs", "scp", "ssh", "start", "status", "stop", "upgrade", "url", "version"),
}


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"ssh"}))
def test_a_flag_that_there_is_not(quick: Program, command: str) -> None:
    """Of Docker Machine's commands, its own exit codes; of all others, 2."""
    code = 2 if command not in THEIRS else 1 if command == "create" else 0
    assert quick(command, "--nix").code == code


@pytest.mark.parametrize("command", ["context", "export", "snapshot", "restore", "status", "env", "rm"])
def test_a_machine_that_there_is_not(quick: Program, command: str) -> None:
    said = quick(command, "nix", input="y\n")
    assert said.code == (1 if command in THEIRS else 2)
    assert 'Docker machine "nix" does not exist.' in said.err


def test_debug_says_which_program_it_is(quick: Program) -> None:
    for words in (["-D", "ls"], ["ls", "--debug"]):
        assert quick(*words).err.startswith("Docker Machine Version: ")
    assert quick("ls").err == ""
