"""``daemon.json`` with our settings among somebody else's: theirs are kept, ours are known by a note.

The note holds what we put in, option → values: of lists the entries that we added, of others the value, and while it is
being changed both. So what is not wanted any more is taken out again, and nothing else ever is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from pytest_machine.errors import ProvisionFailed
from pytest_machine.guest import tail
from pytest_machine.support.text import shell_word

Options = Mapping[str, object]
Note = Mapping[str, list[object]]

LISTS = ("labels", "registry-mirrors", "insecure-registries", "hosts")
"""Options that several may add to."""


def parse(text: str, path: str) -> dict[str, object]:
    """Return the options of a ``daemon.json``; raises `ProvisionFailed` for one that Docker could not read either."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _broken(path, str(error)) from error
    except RecursionError as error:
        raise _broken(path, "it is nested too deeply") from error
    if not isinstance(found, dict):
        raise _broken(path, "it is no table of options")
    return found


def merge(
    there: Options, ours: Note, wanted: Options, *, path: str
) -> tuple[dict[str, object], dict[str, list[object]]]:
    """Return the options as they are to be, and the note of what of them is ours from now on.

    `there` is what is in the file, `ours` the note of last time. Raises `ProvisionFailed` where somebody else has
    set an option to something else: it is not ours to overwrite.
    """
    result = {key: list(value) if isinstance(value, list) else value for key, value in there.items()}
    note: dict[str, list[object]] = {}
    for key, values in ours.items():
        _take_out(result, key, values, kept=wanted.get(key))
    for key, value in wanted.items():
        if key in LISTS:
            if owned := _add(result, key, cast("list[object]", value), ours.get(key, []), path):
                note[key] = owned
        elif key not in result or result[key] in ours.get(key, []):
            result[key] = value
            note[key] = [value]
        elif result[key] != value:
            raise conflict(path, key, result[key], value)
    return result, note


def both(before: Note, after: Note) -> dict[str, list[object]]:
    """Return the note of what may be ours while one becomes the other."""
    found = {key: list(values) for key, values in before.items()}
    for key, values in after.items():
        found[key] = [*found.get(key, []), *(value for value in values if value not in found.get(key, []))]
    return found


def conflict(path: str, key: str, theirs: object, wanted: object) -> ProvisionFailed:
    """Return the error for an option that somebody else has set."""
    return ProvisionFailed(
        f"The machine could not be made a Docker host: somebody else has set '{key}' in '{path}'.",
        facts={"there": tail(json.dumps(theirs)), "wanted": tail(json.dumps(wanted))},
        hint=f"take '{key}' out of {path} in the machine, or do not ask for it",
    )


def _take_out(result: dict[str, object], key: str, ours: list[object], *, kept: object) -> None:
    value = result.get(key)
    if key in LISTS and isinstance(value, list):
        wanted = kept if isinstance(kept, list) else []
        result[key] = [entry for entry in value if entry not in ours or entry in wanted]
        if not result[key]:
            del result[key]
    elif kept is None and key in result and value in ours:
        del result[key]


def _add(result: dict[str, object], key: str, wanted: list[object], ours: list[object], path: str) -> list[object]:
    """Add entries to a list; return those among the wanted ones that are ours."""
    there = result.get(key, [])
    if not isinstance(there, list):
        raise conflict(path, key, there, wanted)
    if key == "labels":
        # Docker refuses two values of one label.
        theirs = {str(label).partition("=")[0]: label for label in there}
        for label in wanted:
            other = theirs.get(str(label).partition("=")[0], label)
            if other != label:
                raise conflict(path, key, other, label)
    added = [entry for entry in wanted if entry not in there]
    if added:
        result[key] = [*there, *added]
    return [entry for entry in wanted if entry in added or entry in ours]


def _broken(path: str, reason: str) -> ProvisionFailed:
    return ProvisionFailed(
        f"The machine could not be made a Docker host: its '{path}' cannot be read.",
        facts={"reason": reason},
        hint=f"correct it in the machine, or remove it: docker-machine ssh NAME sudo rm {shell_word(path)}",
    )
