"""The daemon: its settings written where it reads them, restarted if that changed anything, and there at every boot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pytest_machine.connection import Connection
from pytest_machine.errors import ProvisionFailed, WaitTimeout
from pytest_machine.facts import directory
from pytest_machine.guest import Guest, applied, tail
from pytest_machine.model import SeedFile
from pytest_machine.provisioner import CONFIGURING, Facts, Tell, Wanted
from pytest_machine.waiting import NotYet, wait

from . import firewall, services
from .plan import BORN, Plan, note, paths, plan

__all__ = ["DaemonProvisioner"]

# Seconds until a restarted daemon must answer: one with many containers takes its time.
_PATIENCE = 120.0


class DaemonProvisioner:
    """Sees to the settings of the daemon, and that it runs with them."""

    name: ClassVar[str] = "daemon"

    def provision(self, connection: Connection, facts: Facts, wanted: Wanted, *, tell: Tell) -> Sequence[str]:
        """Write what differs; restart the daemon if anything did, or if it does not run with what is there."""
        guest, port = Guest(connection, facts), wanted.engine_port
        mark = applied(facts)
        there = guest.read([*paths(facts), mark])
        seen, unit = _seen(guest.do(services.look(facts, port)))
        planned = plan(facts, wanted, there, unit)
        if file := planned.files.get(f"{directory(facts)}/daemon.json"):
            self._ask(guest, file.content.decode())
        tell(CONFIGURING)
        changed = self._write(guest, facts, planned, there)
        if "missing" in seen or changed or not _is_applied(there.get(mark, ""), facts, seen):
            changed.append("restarted Docker" if "version" in seen else "started Docker")
            guest.do(services.restart(facts), tell=tell)
            seen = {**seen, **self._wait(guest, facts, port)}
        # From here on a second run finds nothing to do.
        files = {note(facts): planned.note, mark: _as_it_runs(facts, seen)}
        guest.write({path: SeedFile(text.encode(), 0o600) for path, text in files.items()})
        if "enabled" not in seen:
            guest.do(services.enable(facts))
            changed.append("Docker is started at every boot")
        return [*changed, *self._let_through(guest, facts, port, tell)]

    def _ask(self, guest: Guest, config: str) -> None:
        """Ask about options before they are there: a daemon that somebody uses must not go down for a typing error."""
        step = services.validate(config)
        result = guest.try_(step.script, input=step.input, seconds=step.seconds)
        if result.returncode:
            raise ProvisionFailed(
                "The machine could not be made a Docker host: Docker would not take its settings.",
                facts={"it said": tail(result.stdout)},
                hint="correct the options that were asked for; nothing of them was written",
            )

    def _write(self, guest: Guest, facts: Facts, planned: Plan, there: dict[str, str]) -> list[str]:
        # First what is ours, then what we do: broken off in between, nothing of ours is taken for somebody else's.
        if there.get(note(facts)) != planned.note:
            guest.write({note(facts): SeedFile(planned.begun.encode(), 0o600)})
        stale = [applied(facts)]
        written = guest.write(planned.files, stale=stale, keep=planned.kept)
        removed = guest.remove(planned.removed, stale=stale)
        return [*(f"wrote {path}" for path in written), *(f"removed {path}" for path in removed)]

    def _wait(self, guest: Guest, facts: Facts, port: int) -> dict[str, str]:
        """Wait until the daemon answers and listens; return what was seen of it."""

        def look() -> dict[str, str]:
            seen, _ = _seen(guest.do(services.answers(port)))
            if "missing" in seen:
                raise NotYet(seen["missing"])
            return seen

        try:
            return wait(look, "An answer of the machine's Docker", timeout=_PATIENCE, every=0.1)
        except WaitTimeout as error:
            raise ProvisionFailed(
                "The machine could not be made a Docker host: its Docker does not answer with its settings.",
                facts={**error.facts, "its log": tail(guest.do(services.log(facts))) or "empty"},
                hint="see how it is started: docker-machine ssh NAME systemctl cat docker"
                if facts.manager == "systemd"
                else "",
            ) from error

    def _let_through(self, guest: Guest, facts: Facts, port: int, tell: Tell) -> list[str]:
        found = guest.do(firewall.which(port)).strip()
        if not found:
            return []
        if step := firewall.let_through(facts, found, port):
            guest.do(step, tell=tell)
            return [f"opened port {port} in {found}"]
        tell(firewall.warning(found, port))
        return []


def _is_applied(mark: str, facts: Facts, seen: Mapping[str, str]) -> bool:
    """Whether the daemon that is installed runs, with the files that are there; nobody asked one as it was born."""
    born = mark == BORN and facts.engine == seen.get("version")
    return born or mark == _as_it_runs(facts, seen)


def _as_it_runs(facts: Facts, seen: Mapping[str, str]) -> str:
    """Return what the mark says: which daemon was installed, and which ran. Some call themselves by two versions."""
    return f"{facts.engine} {seen.get('version', '')}\n"


def _seen(said: str) -> tuple[dict[str, str], str]:
    head, _, unit = said.partition("unit=\n")
    return dict(line.split("=", 1) for line in head.splitlines() if "=" in line), unit
