"""A machine as its root sees it: scripts and files, whoever it is that logs in.

`Connection.put` writes as the login user, who is not root everywhere. Here everything goes through one shell, under
sudo where that is needed, and a file is replaced only if it differs: what was changed is what is told.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .connection import Connection
from .errors import CommandFailed, ProvisionFailed
from .facts import PRELUDE, directory, spoken
from .model import Result, SeedFile
from .provisioner import Facts, Tell
from .support import clock

_APPLIED = ".pytest-machine.applied"

# Seconds that one step may take: a slow mirror and a small machine.
LONG = 1800.0
# Seconds that the lock of a package manager is waited for: an unattended upgrade of a whole system takes its time.
PATIENCE = 600.0
_SHORT = 120.0
# Seconds between two tries.
_PAUSE = 1.0

# What package managers say when another one is at work.
_BUSY = re.compile(
    r"could not get lock|unable to (acquire|lock)|is another process using it|lock was locked|database is locked"
    r"|system management is locked|currently holding the yum lock|unable to obtain lock",
    re.IGNORECASE,
)

# Stdin: a line for each file, "MODE BASE64 PATH", so that any number of files is one round trip. The temporary lies
# beside its target, because a rename is atomic only within a file system.
_WRITE = """\
umask 077
while read -r mode content path; do
    case $mode in keep:*) mode=${mode#*:} && [ ! -f "$path" ] || mode=$(stat -c %a "$path") ;; esac
    new="$path.ptm-new"
    (umask 022 && mkdir -p "${path%/*}") || exit 1
    { [ "$content" = . ] || printf %s "$content" | base64 -d; } >"$new" && chmod "$mode" "$new" || exit 1
    if [ -f "$path" ] && [ "$(stat -c '%a %u' "$path")" = "$(stat -c '%a %u' "$new")" ] &&
        [ "$(sha256sum <"$path")" = "$(sha256sum <"$new")" ]; then
        rm -f "$new"
    else
        rm -f "$@" && mv -f "$new" "$path" || exit 1
        echo "$path"
    fi
done
"""
_READ = """\
for path; do
    [ ! -f "$path" ] || echo "$(base64 <"$path" | tr -d '\\n') $path"
done
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do in a machine. A pure value: what is run is known before it is."""

    says: str
    """What it does, for people, and for the error: ``reading the lists of packages``."""
    script: str
    arguments: tuple[str, ...] = ()
    tries: int = 1
    """How often it is tried: mirrors fail, and a moment later they do not."""
    input: str = field(default="", repr=False)
    """What it reads; no error shows it."""
    seconds: float = LONG


class Guest:
    """The inside of a machine, as its root."""

    def __init__(self, connection: Connection, facts: Facts) -> None:
        self._connection = connection
        self._sudo = () if facts.root else ("sudo", "-n")

    def try_(self, script: str, *arguments: str, input: str = "", seconds: float = _SHORT) -> Result:
        """Run a script and return what it did, whatever that was; raises `ConnectFailed` and `WaitTimeout`."""
        argv = (*self._sudo, "sh", "-c", PRELUDE + script, "sh", *arguments)
        try:
            result = self._connection.run(*argv, input=input, timeout=seconds)
        except CommandFailed as error:
            result = error.result
        return replace(result, stdout=spoken(result.stdout))

    def do(self, step: Step, *, tell: Tell | None = None) -> str:
        """Do one thing and return what it printed.

        While another program holds the lock of the machine's packages, it is waited for, up to `PATIENCE` seconds.
        Raises `ProvisionFailed` with the end of what the machine said.
        """
        if tell:
            tell(step.says)
        left, waiting, begun = step.tries, False, clock.monotonic()
        while (result := self.try_(step.script, *step.arguments, input=step.input, seconds=step.seconds)).returncode:
            # Not `waiting.wait`: of a connection that is lost, whoever asked must hear at once.
            said = tail(result.stderr) or tail(result.stdout) or "nothing"
            if _BUSY.search(result.stdout + result.stderr):
                if tell and not waiting:
                    tell("waiting for another program, which is at work on the machine's packages")
                waiting = True
                if clock.monotonic() - begun > PATIENCE:
                    raise ProvisionFailed(
                        f"The machine could not be made a Docker host: another program kept it from {step.says}.",
                        facts={"waited": f"{clock.monotonic() - begun:.0f} s", "last seen": said},
                        hint="see who holds the lock of the machine's packages: docker-machine ssh NAME ps ax",
                        transient=True,
                    )
            else:
                left -= 1
                if left <= 0:
                    raise ProvisionFailed(
                        f"The machine could not be made a Docker host: {step.says} failed.",
                        facts={"returned": result.returncode, "it said": said},
                        hint="put it right there (docker-machine ssh NAME), then: docker-machine provision NAME",
                        transient=True,
                    )
            clock.sleep(_PAUSE)
        return result.stdout

    def read(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the text of those of the files that are there."""
        result = self.do(Step("reading its files", _READ, tuple(paths), seconds=_SHORT))
        pairs = (line.split(" ", 1) for line in result.splitlines())
        return {path: base64.b64decode(content).decode("utf-8", "replace") for content, path in pairs}

    def write(
        self, files: Mapping[str, SeedFile], *, stale: Sequence[str] = (), keep: Container[str] = ()
    ) -> list[str]:
        """Write the files that differ in content, mode or owner, each whole or not at all; return their paths.

        They belong to root; those in `keep` keep the mode that they have. Before the first one is replaced, the files
        in `stale` are removed.
        """
        lines = [
            f"{'keep:' if path in keep else ''}{file.mode:o} {base64.b64encode(file.content).decode() or '.'} {path}\n"
            for path, file in files.items()
        ]
        if not lines:
            return []
        step = Step("writing files", _WRITE, tuple(stale), input="".join(lines), seconds=_SHORT)
        return self.do(step).splitlines()

    def remove(self, paths: Iterable[str], *, stale: Sequence[str] = ()) -> list[str]:
        """Remove those of the files that are there; return their paths."""
        gone = " ".join(map(shlex.quote, stale)) or "--"
        script = (
            f'for path; do [ ! -e "$path" ] || {{ rm -f {gone} && rm -f "$path" && echo "$path" || exit 1; }}; done'
        )
        if not (asked := tuple(paths)):
            return []
        return self.do(Step("removing files", script, asked, seconds=_SHORT)).splitlines()


def applied(facts: Facts) -> str:
    """Return the path of the mark that the daemon runs with the files that are there.

    Whoever replaces one of them takes the mark away first: broken off, it is seen that a restart is due.
    """
    return f"{directory(facts)}/{_APPLIED}"


def tail(text: str, lines: int = 4, length: int = 400) -> str:
    """Return the end of what a machine said, in one line and without passwords: what matters is said last."""
    text = re.sub(r"//[^/@\s]*@", "//", text)
    found = " | ".join(filter(None, (line.strip() for line in text.splitlines()[-lines:])))
    return found if len(found) <= length else f"…{found[-length:]}"
