"""The command line: a module per family of commands, imported when its command is used.

Nothing here imports docker or cryptography, so that ``--help`` answers at once; commands import what they need inside.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import click

from pytest_machine.errors import MachineError
from pytest_machine.support.reasons import hint, reason_of

from .command import BadFlag, Session, parse_bool, read, tell, tell_unexpected, told_wrong
from .layout import Flag, program_help

# Command → module of this package, which has the command under the same name unless another is given.
COMMANDS = {
    "active": "ls",
    "completion": "completion",
    "config": "shown",
    "context": "context",
    "create": "create",
    "doctor": "doctor",
    "down": "together",
    "env": "shown",
    "export": "access",
    "help": "about",
    "image": "image",
    "import": "access:import_",
    "inspect": "asking",
    "install-cli-plugin": "docker_plugin",
    "ip": "asking",
    "kill": "power",
    "ls": "ls",
    "mount": "mount",
    "provision": "provision",
    "prune": "prune",
    "regenerate-certs": "provision",
    "restart": "power",
    "restore": "snapshots",
    "rm": "rm",
    "scp": "scp",
    "snapshot": "snapshots",
    "ssh": "ssh",
    "start": "power",
    "status": "asking",
    "stop": "power",
    "up": "together",
    "upgrade": "provision",
    "url": "asking",
    "version": "about",
}

# What the authority's directory calls it → `--tls-` flag, variable's end.
_FILES = {"ca.pem": "ca_cert", "ca-key.pem": "ca_key", "cert.pem": "client_cert", "key.pem": "client_key"}

# As Docker Machine's help has them; what it does not have follows in the order of the alphabet, and `help` is the last.
_ORDER = (
    *("active", "config", "create", "env", "inspect", "ip", "kill", "ls", "provision", "regenerate-certs", "restart"),
    *("rm", "ssh", "scp", "mount", "start", "status", "stop", "upgrade", "url", "version"),
)

_CALLED_BY_DOCKER = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"


class Program(click.Group):
    """A group that finds its commands in `COMMANDS` and shows our errors as they are: a sentence, facts, a hint."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the program; streams that its caller has closed are there, and empty."""
        _fill_streams()
        code: Any
        try:
            return super().main(*args, **extra)
        except OSError as error:  # of what no command is asked for: help that goes to a full disk
            code = _unwritten(error)
        except SystemExit as ended:
            code = ended.code
        except Exception as error:  # noqa: BLE001  # the last resort: no user is shown a traceback
            code = 1
            tell_unexpected(error, debug=_debugging())
        sys.exit(_written(code))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Begin a call of the program; where `docker` calls it as its plugin, with what is ours of the words."""
        if args[:1] in (["machine"], ["docker-cli-plugin-metadata"]) or _CALLED_BY_DOCKER in os.environ:
            from . import docker_plugin

            if args == [docker_plugin.METADATA]:
                click.echo(docker_plugin.metadata())
                raise click.exceptions.Exit
            if (found := docker_plugin.inner(args)) is not None:
                sys.argv[1:] = args = found  # whoever shows what was typed shows this
                info_name = docker_plugin.PROGRAM
        return super().make_context(info_name, args, parent, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands' names, in the order in which help shows them."""
        known = [name for name in _ORDER if name in COMMANDS]
        return [*known, *sorted(COMMANDS.keys() - {*known, "help"}), "help"]

    def get_help(self, ctx: click.Context) -> str:
        """Return the program's help."""
        from .about import number

        return program_help(ctx, self, number())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command's module and return the command."""
        if cmd_name not in COMMANDS:
            return None
        place, _, attribute = COMMANDS[cmd_name].partition(":")
        module = importlib.import_module(f"{__name__}.{place}")
        found = getattr(module, attribute or cmd_name.replace("-", "_"))
        assert isinstance(found, click.Command), cmd_name
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the flags before the command in Go's way; without any command, show what there is."""
        _read_debug(ctx)
        try:
            flags, words = read(args, self.get_params(ctx), stop=True)
        except BadFlag as error:
            told_wrong(ctx, error, 0)
        return super().parse_args(ctx, [*flags, *words] or ["--help"])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; one that there is not ends the program."""
        name = {"h": "help"}.get(args[0], args[0])
        if name not in COMMANDS and not ctx.resilient_parsing:
            program = ctx.find_root().info_name
            click.echo(f"{program}: '{name}' is not a {program} command. See '{program} --help'.", err=True)
            ctx.exit(1)
        return super().resolve_command(ctx, [name, *args[1:]])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error of ours ends the program with its exit code and no traceback."""
        try:
            return super().invoke(ctx)
        except MachineError as error:
            tell(ctx, error)
            ctx.exit(error.exit_code)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            tell(ctx, error)
            ctx.exit(1)


_ERRORS = "pytest-machine"


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write bytes that were no UTF-8 as they were; write surrogates and what an encoding lacks as escapes."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


codecs.register_error(_ERRORS, _escaped)


def _debugging() -> bool:
    """Return whether the user wants all that led to an error."""
    from .command import DEBUG

    words = sys.argv[1:]
    return bool(os.environ.get("MACHINE_DEBUG")) or any(word in DEBUG for word in words)


def _fill_streams() -> None:
    """Open what is closed of the standard streams: else the next file that is opened takes its number.

    A program that is called then would read it, or write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
    # Open for as long as we run.
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    # Paths may have bytes that are not UTF-8, which are shown as they are; what no encoding has is shown as an escape.
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _written(code: Any) -> Any:
    """Write out what is left to be shown; return the exit code, which is 1 where that alone goes wrong."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # The interpreter would try again at its end, and exit with 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = code or _unwritten(error)
    return code


def _unwritten(error: OSError) -> int:
    """Say why nothing more can be shown, where that can be; return the exit code."""
    if not isinstance(error, BrokenPipeError):  # whoever reads no further wants to hear nothing
        with contextlib.suppress(OSError):
            click.echo(
                f"Standard output cannot be written to.\n  reason  {reason_of(error)}\nhint: {hint(error)}", err=True
            )
    return 1


def _read_debug(ctx: click.Context) -> None:
    """Read ``MACHINE_DEBUG``; a value that says nothing ends the program."""
    value = os.environ.get("MACHINE_DEBUG", "")
    if value and not ctx.resilient_parsing:
        try:
            ctx.ensure_object(Session).debug = parse_bool(value)
        except ValueError as error:
            click.echo(f"Error parsing boolean value from MACHINE_DEBUG: {error}", err=True)
            ctx.exit(1)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .about import line

        click.echo(line(ctx))
        ctx.exit()


def _default_path() -> str:
    from pytest_machine.owner import storage_path

    return str(storage_path())


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-D", "--debug", is_flag=True, help="Show errors with all that led to them [$MACHINE_DEBUG]")
@click.option(
    "-s",
    "--storage-path",
    cls=Flag,
    default=_default_path,
    envvar="MACHINE_STORAGE_PATH",
    help="Where machines are kept",
)
@click.option("--tls-ca-cert", envvar="MACHINE_TLS_CA_CERT", help="Certificate of the authority for new machines")
@click.option("--tls-ca-key", envvar="MACHINE_TLS_CA_KEY", help="The authority's key, which signs their certificates")
@click.option("--tls-client-cert", envvar="MACHINE_TLS_CLIENT_CERT", help="Certificate that clients show to them")
@click.option("--tls-client-key", envvar="MACHINE_TLS_CLIENT_KEY", help="The clients' key")
@click.option(
    "--github-api-token",
    envvar="MACHINE_GITHUB_API_TOKEN",
    help="Accepted for Docker Machine's sake: nothing asks GitHub",
)
@click.option(
    "--native-ssh", is_flag=True, help="Accepted for Docker Machine's sake: SSH is OpenSSH's [$MACHINE_NATIVE_SSH]"
)
@click.option(
    "--bugsnag-api-token",
    envvar="MACHINE_BUGSNAG_API_TOKEN",
    help="Accepted for Docker Machine's sake: nothing is ever reported to anybody",
)
@click.help_option("-h", "--help", help="Show help")
@click.option(
    "-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version"
)
@click.pass_context
def main(ctx: click.Context, /, *, debug: bool, storage_path: str, **given: str | bool | None) -> None:
    """Create and manage machines running Docker."""
    session = ctx.ensure_object(Session)
    session.storage = storage_path
    session.debug = session.debug or debug
    places = {name: given[f"tls_{flag}"] for name, flag in _FILES.items()}
    session.certificates = {name: str(place) for name, place in places.items() if place}
    ctx.call_on_close(session.closing.close)
