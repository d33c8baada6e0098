"""Docker from a script at an address, as Docker Machine's ``--engine-install-url`` has it."""

from __future__ import annotations

from pytest_machine.guest import Step

# The address comes on stdin: it may hold a password, and the words of a command are seen by everybody.
_RUN = """\
read -r url
script=$(mktemp)
trap 'rm -f "$script"' EXIT
if command -v curl >/dev/null 2>&1; then curl -fsSL --retry 2 "$url" >"$script" || exit 1
else wget -q -O "$script" "$url" || exit 1
fi
[ -s "$script" ] || { echo 'the script is empty' >&2; exit 1; }
DEBIAN_FRONTEND=noninteractive sh "$script" </dev/null
"""
_FETCHER = "command -v curl >/dev/null 2>&1 || command -v wget >/dev/null 2>&1 || {\n%s}\n"


def by_script(url: str, fetcher: str) -> list[Step]:
    """Return the steps: see to a program that fetches (`fetcher` installs one), fetch the script, run it."""
    return [
        Step("seeing to curl or wget", _FETCHER % fetcher, tries=3),
        Step("running the script that installs Docker", _RUN, tries=2, input=f"{url}\n"),
    ]
