"""The texts of ``env``, for each kind of shell: what sets or unsets variables, and how to have it done."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath

from pytest_machine.errors import UsageError
from pytest_machine.model import names
from pytest_machine.support.text import visible


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
    _refuse_lines(value, "cmd")
    # Nothing quotes there; a caret takes a character's meaning, and `%` has none where no variable is called so.
    return re.sub(r"[&|<>^]", lambda found: f"^{found[0]}", value)


def _refuse_lines(value: str, shell: str) -> None:
    if any(character in value for character in "\r\n\0"):
        raise UsageError(
            f"The shell '{shell}' cannot be given a value with a line break.",
            facts={"value": visible(value, lines=False)},
            hint="keep machines in a directory without line breaks: MACHINE_STORAGE_PATH",
        )


def _tcsh(value: str) -> str:
    _refuse_lines(value, "tcsh")
    return _escaped('"$`!', "\\")(value)


def _fish(value: str) -> str:
    # Out of the quotes, in which a line break cannot be written.
    return _escaped('\\"$', "\\")(value).replace("\n", '"\\n"')


def _powershell(value: str) -> str:
    # Typographic quotes are as good as plain ones there.
    return _escaped('"$`\u201c\u201d\u201e', "`")(value).replace("\n", "`n").replace("\r", "`r")


_POSIX = _Shell('export {k}="{v}"', "unset {k}", "eval $({c})", _escaped('\\"$`', "\\"))
_SHELLS = {
    "fish": _Shell('set -gx {k} "{v}";', "set -e {k};", "eval ({c})", _fish),
    "powershell": _Shell('$Env:{k} = "{v}"', "Remove-Item Env:\\\\{k}", "& {c} | Invoke-Expression", _powershell),
    "cmd": _Shell("SET {k}={v}", "SET {k}=", "\t@FOR /f \"tokens=*\" %i IN ('{c}') DO @%i", _cmd, "REM"),
    "tcsh": _Shell('setenv {k} "{v}";', "unsetenv {k};", "eval `{c}`", _tcsh, ":"),
    "emacs": _Shell(
        '(setenv "{k}" "{v}")',
        '(setenv "{k}" nil)',
        '(with-temp-buffer (shell-command "{c}" (current-buffer)) (eval-buffer))',
        _escaped('\\"', "\\"),
        ";;",
    ),
}
_SAME = {"pwsh": "powershell", "csh": "tcsh", "powershell_ise": "powershell"}
"""Shell → the one that is spoken to as it is."""
_BOURNE = ("bash", "zsh", "sh", "dash", "ksh", "ash", "mksh", "ksh93", "rbash", "busybox", "posix")
NAMES = ("bash", "zsh", *_SHELLS)
"""The shells that can be named."""
# Values of which a shell makes one word, whether they are quoted or not.
_PLAIN = re.compile(r"[\w./:,=+@%~-]*")


def render_env(variables: Sequence[tuple[str, str]], *, shell: str, command: Sequence[str], unset: bool = False) -> str:
    """Return the lines that a shell is to evaluate, and two comments with the command that has it do so.

    `command` is what was typed, word by word. Raises `UsageError` for a shell that is not known.
    """
    kind = _kind(shell)
    lines = [
        kind.unset.format(k=name) if unset else kind.set.format(k=name, v=kind.quote(value))
        for name, value in variables
    ]
    first, *rest = command
    if re.search(r"[ \\]", first):
        first = f'"{first}"'
    typed = " ".join([first, *rest])
    lines.append(f"{kind.comment} Run this command to configure your shell: ")
    hint = kind.hint
    if kind is _POSIX and not all(_PLAIN.fullmatch(value) for _, value in variables):
        hint = 'eval "$({c})"'  # or the shell would split the values at blanks
    lines.append(f"{kind.comment} {hint.format(c=typed)}")
    return "\n".join(lines) + "\n"


def _kind(shell: str) -> _Shell:
    name = PureWindowsPath(shell).name.lower().removesuffix(".exe").removeprefix("-")
    name = _SAME.get(name, name)
    if name in _BOURNE:
        return _POSIX
    if name not in _SHELLS:
        raise UsageError(
            f"The shell '{visible(shell, lines=False)}' is not known.",
            facts={"known": names((*_BOURNE, *_SHELLS, *_SAME))},
            hint="docker-machine env --shell bash",
        )
    return _SHELLS[name]


def detect_shell(environ: Mapping[str, str], *, windows: bool = False) -> str:
    """Return the name of the shell that the user sits at; raises `UsageError` where nothing tells."""
    if name := environ.get("SHELL"):
        return PureWindowsPath(name).stem if windows else PurePath(name).name
    if windows:
        # PowerShell gives its children the places of its modules, below the user's own documents too.
        inside = "documents" in environ.get("PSModulePath", "").lower()
        return "powershell" if inside else "cmd"
    raise UsageError("Error: Unknown shell", hint="docker-machine env --shell bash")
