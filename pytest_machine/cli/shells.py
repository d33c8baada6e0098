"""The texts of ``env``, for each kind of shell: what sets or unsets variables, and how to have it done."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath

from pytest_machine.errors import UsageError


@dataclass(frozen=True, slots=True)
class _Shell:
    """How a shell is spoken to: ``{k}`` and ``{v}`` are a variable, ``{c}`` is the command that showed this."""

    set: str
    unset: str
    hint: str
    quote: Callable[[str], str]
    """What makes a value stand for itself inside of the quotes of `set`."""
    comment: str = "#"


def _escaped(characters: str, mark: str) -> Callable[[str], str]:
    pattern = re.compile(f"[{re.escape(characters)}]")
    return lambda value: pattern.sub(lambda found: mark + found[0], value)


def _cmd(value: str) -> str:
    # Nothing quotes there; a caret takes a character's meaning, and `%` has none where no variable is called so.
    return re.sub(r"[&|<>^]", lambda found: f"^{found[0]}", value)


_POSIX = _Shell('export {k}="{v}"', "unset {k}", "eval $({c})", _escaped('\\"$`', "\\"))
_SHELLS = {
    "fish": _Shell('set -gx {k} "{v}";', "set -e {k};", "eval ({c})", _escaped('\\"$', "\\")),
    "powershell": _Shell(
        '$Env:{k} = "{v}"', "Remove-Item Env:\\\\{k}", "& {c} | Invoke-Expression", _escaped('"$`', "`")
    ),
    "cmd": _Shell("SET {k}={v}", "SET {k}=", "\t@FOR /f \"tokens=*\" %i IN ('{c}') DO @%i", _cmd, "REM"),
    "tcsh": _Shell('setenv {k} "{v}";', "unsetenv {k};", "eval `{c}`", _escaped('"$`!', "\\"), ":"),
    "emacs": _Shell(
        '(setenv "{k}" "{v}")',
        '(setenv "{k}" nil)',
        '(with-temp-buffer (shell-command "{c}" (current-buffer)) (eval-buffer))',
        _escaped('\\"', "\\"),
        ";;",
    ),
}
NAMES = ("bash", "zsh", *_SHELLS)
"""The shells that can be named."""


def render_env(variables: Sequence[tuple[str, str]], *, shell: str, command: Sequence[str], unset: bool = False) -> str:
    """Return the lines that a shell is to evaluate, and two comments with the command that has it do so.

    Shells that are not known are spoken to as bash is. `command` is what was typed, word by word.
    """
    kind = _SHELLS.get(shell, _POSIX)
    lines = [
        kind.unset.format(k=name) if unset else kind.set.format(k=name, v=kind.quote(value))
        for name, value in variables
    ]
    first, *rest = command
    if re.search(r"[ \\]", first):
        first = f'"{first}"'
    typed = " ".join([first, *rest])
    lines.append(f"{kind.comment} Run this command to configure your shell: ")
    lines.append(f"{kind.comment} {kind.hint.format(c=typed)}")
    return "\n".join(lines) + "\n"


def detect_shell(environ: Mapping[str, str], *, windows: bool = False) -> str:
    """Return the name of the shell that the user sits at; raises `UsageError` where nothing tells."""
    if name := environ.get("SHELL"):
        return PureWindowsPath(name).stem if windows else PurePath(name).name
    if windows:
        # PowerShell gives its children the places of its modules, below the user's own documents too.
        inside = "documents" in environ.get("PSModulePath", "").lower()
        return "powershell" if inside else "cmd"
    raise UsageError("Error: Unknown shell", hint="docker-machine env --shell bash")


def no_proxy(environ: Mapping[str, str], ip: str) -> tuple[str, str]:
    """Return the variable that names what no proxy is asked for, and its value with `ip` among it."""
    name = "no_proxy" if environ.get("no_proxy") else "NO_PROXY"
    value = environ.get(name, "")
    if ip and ip not in value.split(","):
        value = f"{value},{ip}" if value else ip
    return name, value
