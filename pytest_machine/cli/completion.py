"""``completion``: what bash, zsh and fish show when somebody presses the tabulator.

The scripts are short: they hand the words of the line to this program and show its answer. So what is completed is what
this program knows at that moment, machines and drivers' flags included, and a new flag needs no new script.

By hand and not by click's own machinery, because flags are read here as Go reads them: ``-driver`` is one, and a line
that ends with a flag that lacks its value is the usual case and no error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from .command import Ours, Session
from .layout import Switch

SHELLS = ("bash", "zsh", "fish")
_FILES = "files"
"""The first line of an answer that leaves it to the shell, which knows about files; of any other it is `_WORDS`."""
_WORDS = "words"
# What a metavar says of a value.
_PATHS = ("FILE", "DIR", "PATH", "ARCHIVE")

_SCRIPTS = {
    "bash": r"""_docker_machine_completion() {
    local IFS=$'\n' answer
    # In one piece, because what the program shows may hold what a pattern is to the shell.
    answer=$("$1" completion --at "$COMP_CWORD" -- "${COMP_WORDS[@]}" 2>/dev/null) || return
    if [[ ${answer%%$'\n'*} == files ]]; then
        compopt -o default -o filenames 2>/dev/null
        return
    fi
    COMPREPLY=()
    local word
    while read -r word; do COMPREPLY+=("$word"); done < <(tail -n +2 <<<"$answer")
}
complete -F _docker_machine_completion docker-machine pytest-machine
""",
    "zsh": r"""#compdef docker-machine pytest-machine
_docker_machine_completion() {
    local -a answer
    answer=("${(@f)$("${words[1]}" completion --at $((CURRENT - 1)) -- "${words[@]}" 2>/dev/null)}")
    if [[ $answer[1] == files ]]; then
        compset -P '-*='
        _files
    else
        shift answer
        compadd -- "${answer[@]}"
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _docker_machine_completion "$@"
else
    compdef _docker_machine_completion docker-machine pytest-machine
fi
""",
    "fish": r"""function __docker_machine_completion
    set -l before (commandline -opc)
    set -l now (commandline -ct)
    set -l answer ($before[1] completion --at (count $before) -- $before "$now" 2>/dev/null)
    if test "$answer[1]" = files
        __fish_complete_path "$now"
    else
        printf '%s\n' $answer[2..-1]
    end
end
complete -c docker-machine -f -a '(__docker_machine_completion)'
complete -c pytest-machine -f -a '(__docker_machine_completion)'
""",
}

_HOWTO = {
    "bash": 'eval "$(docker-machine completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(docker-machine completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "docker-machine completion fish > ~/.config/fish/completions/docker-machine.fish",
}


@click.command(cls=Ours)
@click.argument("words", metavar="bash|zsh|fish", nargs=-1)
@click.option("--at", type=click.IntRange(min=0), hidden=True)
@click.pass_context
def completion(ctx: click.Context, words: tuple[str, ...], *, at: int | None) -> None:
    r"""Show the script that makes a shell complete commands, flags, machines and drivers.

    \b
    eval "$(docker-machine completion bash)"    in ~/.bashrc
    eval "$(docker-machine completion zsh)"     in ~/.zshrc, after compinit
    docker-machine completion fish > ~/.config/fish/completions/docker-machine.fish
    """
    if at is not None:
        try:
            found = list(_answer(ctx.find_root(), list(words), at))
        except Exception:  # noqa: BLE001  # in the middle of somebody's line is no place for any error
            found = [_WORDS]
        click.echo("\n".join(found))
        return
    if len(words) != 1 or words[0] not in SHELLS:
        from pytest_machine.errors import UsageError

        raise UsageError(
            f"There is no completion for '{' '.join(words)}'." if words else "A completion is for one shell.",
            facts={"shells": ", ".join(SHELLS)},
            hint=_HOWTO["bash"],
        )
    click.echo(_SCRIPTS[words[0]], nl=False)


@dataclass
class _Line:
    """What stands on a line before the cursor, read as far as it goes."""

    flag: click.Option | None
    """The flag whose value is being typed."""
    words: list[str]
    """What is no flag and no flag's value."""
    values: dict[str, str]
    """Values of flags, by the flag's longest name."""


def _answer(root: click.Context, words: list[str], at: int) -> Iterator[str]:
    """Yield the lines of the answer to a line whose word number `at` is being typed."""
    words, now, prefix = _joined(words[: at + 1])
    assert isinstance(root.command, click.Group)
    command: click.Command = root.command
    params = command.get_params(root)
    session = Session()
    # With its settings: click keeps what it makes of them, such as the names of the flag that asks for help.
    context = click.Context(command, info_name=root.info_name, obj=session, **command.context_settings)
    given = words[1:]
    while True:
        group = isinstance(command, click.Group)
        line = _read(given, params, stop=group)
        session.storage = line.values.get("--storage-path", session.storage)
        if not (group and line.words and line.flag is None):
            break
        assert isinstance(command, click.Group)
        below = command.get_command(context, line.words[0])
        if below is None:
            yield _WORDS
            return
        given = line.words[1:]
        context = click.Context(below, info_name=line.words[0], parent=context, obj=session)
        command = below
        params = _params(command, context, given)
    found = _candidates(context, line, now, params)
    if found is None:
        yield _FILES
        return
    yield _WORDS
    yield from (f"{prefix}{word}" for word in sorted(set(found)) if word.startswith(now))


def _joined(words: Sequence[str]) -> tuple[list[str], str, str]:
    """Return the words before the cursor, the one that is typed, and what stands before it in the same word.

    ``--driver=ru`` is one word to zsh and fish, and three to bash, which wants its answer for the last of them.
    """
    found: list[str] = []
    for word in words:
        if word == "=" and found and found[-1].startswith("-"):
            found[-1] += "="
        elif found and found[-1].startswith("-") and found[-1].endswith("="):
            found[-1] += word
        else:
            found.append(word)
    *before, now = found or [""]
    flag, given, value = now.partition("=")
    if not (given and flag.startswith("-")):
        return before, now, ""
    return [*before, flag], value, "" if len(found) < len(words) else f"{flag}="


def _params(command: click.Command, context: click.Context, given: list[str]) -> list[click.Parameter]:
    from .create import Create, choose_driver

    if isinstance(command, Create):
        choose_driver(context, given, check=False)  # a check takes a tenth of a second
    return command.get_params(context)


def _read(given: Sequence[str], params: Sequence[click.Parameter], *, stop: bool) -> _Line:
    known = {name.lstrip("-"): each for each in params if isinstance(each, click.Option) for name in each.opts}
    line = _Line(None, [], {})
    rest = iter(given)
    for word in rest:
        if word == "--":
            line.words += rest
        elif not word.startswith("-") or word == "-":
            line.words.append(word)
            if stop:
                line.words += rest
        else:
            name, there, value = word.lstrip("-").partition("=")
            option = known.get(name)
            if option is None or option.is_flag or isinstance(option, Switch):
                continue
            taken = value if there else next(rest, None)
            if taken is None:
                line.flag = option
            else:
                line.values[max(option.opts, key=len)] = taken
    return line


def _candidates(
    context: click.Context, line: _Line, now: str, params: Sequence[click.Parameter]
) -> Sequence[str] | None:
    """Return what could stand where the cursor is; None: a file."""
    command = context.command
    if line.flag is not None:
        return _values(context, line.flag)
    if now.startswith("-"):
        dashes = "-" if now[:2] != "--" and len(now) > 1 else "--"
        options = [each for each in params if isinstance(each, click.Option) and not each.hidden]
        return [f"{dashes}{max(each.opts, key=len).lstrip('-')}" for each in options]
    if isinstance(command, click.Group):
        return command.list_commands(context)
    return _words(context, line.words)


def _values(context: click.Context, option: click.Option) -> Sequence[str] | None:
    name = max(option.opts, key=len)
    session = context.ensure_object(Session)
    if isinstance(option.type, click.Choice):
        return [str(choice) for choice in option.type.choices]
    if name == "--driver":
        return session.registry.names()
    if name == "--shell":
        from . import shells

        return shells.NAMES
    described = f"{option.metavar} {name}".upper()
    return None if any(word in described for word in _PATHS) else ()


def _words(context: click.Context, before: Sequence[str]) -> Sequence[str] | None:
    """Return what may be the next of a command's words."""
    command, session = context.command, context.ensure_object(Session)
    slots = [each for each in command.params if isinstance(each, click.Argument)]
    if command.name == "completion":
        return () if before else SHELLS
    if command.name == "help":
        root = context.find_root().command
        assert isinstance(root, click.Group)
        return () if before else root.list_commands(context)
    if not slots or command.name == "create":
        return ()
    many = slots[-1].nargs == -1
    slot = slots[min(len(before), len(slots) - 1)] if many or len(before) < len(slots) else None
    if slot is None:
        return ()
    meant = slot.make_metavar(context)
    if command.name == "ssh" and before:
        return None
    if slot.nargs == -1 and "..." not in meant and len(before) > slots.index(slot):
        return ()
    if "NAME" in meant:
        from . import noted

        return [name for name in noted.names(session) if name not in before]
    return None if any(word in meant for word in _PATHS) else ()
