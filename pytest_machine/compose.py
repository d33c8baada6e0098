"""Compose: what a ``compose.yaml`` describes, on a machine, by the user's own ``docker compose``.

Compose itself is not imitated: the command that the user has is the one that reads the file. It is given the machine's
Docker, and nothing that the environment says of another one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .client_environment import uncovered
from .errors import CommandFailed, MachineError, NotRunning, UsageError, WaitTimeout
from .model import Result, State, names
from .support.text import shell_word

if TYPE_CHECKING:
    from docker.models.containers import Container

    from .machine import Machine

# Compose erases the terminal's line before each line of a log, whatever --ansi and --no-color say.
_ERASE = re.compile(r"^\x1b\[2K", re.MULTILINE)
# Seconds that containers get to end by themselves: as long as when their machine goes.
_GRACE = "1"
# Lines of each service's log that an error brings.
_LINES = "20"
# Seconds for a command that only looks.
_LOOK = 30.0


class Compose:
    """A Compose project on a machine. A context manager: up for as long as the block lasts, and then gone.

    Made by `Machine.compose`. Without a block, `up` and `down` do the same.
    """

    def __init__(
        self, machine: Machine, files: Sequence[Path], *, project: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        self.machine = machine
        self.files = [path.resolve() for path in files]
        for path in self.files:
            if not path.is_file():
                raise UsageError(
                    f"There is no Compose file '{path}'.", hint="give a path to it: machine.compose('compose.yaml')"
                )
        self.project = project or f"{_plain(self.files[0].parent.name)}-{secrets.token_hex(3)}"
        """Its name, which containers, networks and volumes begin with."""
        self._env = dict(env or {})

    def __repr__(self) -> str:
        return f"<Compose '{self.project}' on '{self.machine.name}'>"

    def __enter__(self) -> Self:
        try:
            return self.up()
        except UsageError:  # nothing was begun
            raise
        except BaseException as error:
            try:
                self.down()
            except MachineError as other:
                error.add_note(f"Besides: {other}")
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.down()
        except MachineError as other:
            if error is None:
                raise
            error.add_note(f"Besides: {other}")

    def up(self, *services: str, timeout: float = 300.0, wait: bool = True) -> Self:
        """Create and start services, or all; with `wait`, they run and are healthy when this returns. Return this.

        Raises `CommandFailed` with what Compose said, and with the services' last lines as a note; after `timeout`
        seconds, `WaitTimeout`. What is up by then stays up, to be looked at, until `down`.
        """
        arguments = ["--wait"] if wait else ["--detach"]
        try:
            self.run("up", *arguments, *services, timeout=timeout)
        except (CommandFailed, WaitTimeout) as error:
            with contextlib.suppress(WaitTimeout):
                logged = self._said("logs", "--no-color", "--tail", _LINES, timeout=_LOOK).stdout
                if logged := _ERASE.sub("", logged).strip():
                    error.add_note(logged)
            raise
        return self

    def down(self) -> None:
        """Remove its containers, networks and volumes; again: nothing happens.

        Nothing happens either when the machine was destroyed: they are gone with it.
        """
        if self.machine.state is State.ABSENT:
            return
        self.run("down", "--volumes", "--remove-orphans", "--timeout", _GRACE, timeout=120)

    def run(self, *argv: str, check: bool = True, timeout: float | None = None) -> Result:
        """Run one of Compose's commands for the project, such as ``run("exec", "-T", "web", "ls")``.

        Raises `CommandFailed` when its return code is not 0 and `check` is, `WaitTimeout` after `timeout` seconds.
        On a machine that does not run, `NotRunning` at once.
        """
        result = self._said(*argv, timeout=timeout)
        if check and result.returncode != 0:
            raise CommandFailed(
                f"'docker compose {argv[0]}' failed on '{self.machine.name}'.",
                result=result,
                facts={
                    "project": self.project,
                    "exit code": result.returncode,
                    "it said": _end(result.stderr or result.stdout),
                },
                hint=f"with machine.environment(): docker compose -f {shell_word(self.files[0])} config",
            )
        return result

    def logs(self, *services: str) -> str:
        """Return what services, or all, have logged so far."""
        return _ERASE.sub("", self.run("logs", "--no-color", *services, timeout=_LOOK).stdout)

    def container(self, service: str) -> Container:
        """Return the container of a service (the first of several) as docker-py's object; raises `NotRunning`.

        For `Machine.port` and `Machine.wait_for`: ``machine.wait_for(http=":80/", container=app.container("web"))``.
        """
        mine = f"com.docker.compose.project={self.project}"
        found = self.machine.docker.containers.list(filters={"label": mine})
        labels = [each.labels for each in found]
        numbered = [
            (int(label.get("com.docker.compose.container-number", 0)), each)
            for label, each in zip(labels, found, strict=True)
            if label.get("com.docker.compose.service") == service
        ]
        if not numbered:
            raise NotRunning(
                f"No container of the service '{service}' runs on '{self.machine.name}'.",
                facts={"running": names(sorted({label["com.docker.compose.service"] for label in labels}))},
                hint=f"compose.up('{service}')",
            )
        container: Any = min(numbered, key=lambda each: each[0])[1]
        return container  # type: ignore[no-any-return]  # docker-py's stubs know no labels

    def _said(self, *argv: str, timeout: float | None = None) -> Result:
        self.machine.check_running()
        env = {**self.machine.env_over(uncovered()), **self._env}
        files = [part for path in self.files for part in ("--file", str(path))]
        command = (*program(env.get("PATH", os.defpath), env.get("DOCKER_CONFIG", "")), "--project-name", self.project)
        full = (*command, "--ansi", "never", *files, *argv)
        try:
            done = subprocess.run(
                full,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=env,
                stdin=subprocess.DEVNULL,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WaitTimeout(
                f"'docker compose {argv[0]}' did not end within {timeout:g} s on '{self.machine.name}'.",
                facts={"project": self.project, "it said": _end(_text(error.stderr) or _text(error.stdout))},
                hint="allow a longer timeout, or look at compose.logs()",
            ) from error
        return Result(full, done.returncode, done.stdout, done.stderr)


@functools.cache
def program(path: str, config: str) -> tuple[str, ...]:
    """Return the words that call the Compose of whoever has that PATH and that ``DOCKER_CONFIG``, asked for once.

    Raises `UsageError` when there is none, or one of before ``docker compose``, which cannot wait.
    """
    env = {**uncovered(), "PATH": path, **({"DOCKER_CONFIG": config} if config else {})}
    facts: dict[str, object] = {}
    for words in (("docker", "compose"), ("docker-compose",)):
        where = shutil.which(words[0], path=path)
        if where is None:
            facts[words[0]] = "not found"
            continue
        argv = (where, *words[1:])
        said = subprocess.run(
            [*argv, "version", "--short"],
            capture_output=True,
            text=True,
            env=env,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        version = said.stdout.strip().removeprefix("v")
        if said.returncode == 0 and re.match(r"[2-9]|\d\d", version):
            return argv
        facts[words[0]] = f"{where} is version {version}" if said.returncode == 0 else f"{where} has no 'compose'"
    raise UsageError(
        "There is no 'docker compose' of version 2 or newer on this computer.",
        facts=facts,
        hint="apt-get install docker-compose-plugin (Docker's), docker-compose-v2 (Ubuntu), docker-compose (Debian 13)",
    )


def _plain(name: str) -> str:
    """Return a name as Compose takes one for a project."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "compose"


def _end(said: str) -> str:
    lines = said.strip().splitlines()
    return " ".join(lines[-1].split()) if lines else "nothing"


def _text(said: str | bytes | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""
