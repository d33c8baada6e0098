"""Docker on Arch and Alpine, and where it is a part of the system: Flatcar and boot2docker."""

from __future__ import annotations

from pytest_machine.guest import Step
from pytest_machine.provisioner import Facts

from .kind import Family

# --------------------------------------------------------------------------------------------------------------- Arch

# It does not wait for a lock: `Guest.do` does.
_PACMAN = 'pacman() { command pacman --noconfirm --noprogressbar "$@" </dev/null; }\n'
# Arch supports no system that is upgraded in part, so the lists that the machine has come first; only where they are
# too old, and the mirrors have moved on, are they read anew.
_PACMAN_INSTALL = f"{_PACMAN}pacman -S --needed docker || pacman -Sy --needed docker\n"
_PACMAN_OWNED = """\
owner=$(pacman -Qqo "$(command -v dockerd)" 2>/dev/null) || exit 0
for name in $owner containerd runc; do pacman -Q "$name" 2>/dev/null; done
:
"""


def _arch(_: Facts) -> list[Step]:
    return [Step("installing Docker", _PACMAN_INSTALL, tries=2)]


def _arch_upgrade(packages: tuple[str, ...]) -> list[Step]:
    return [Step("upgrading Docker", f'{_PACMAN}pacman -Sy --needed "$@"\n', packages, tries=3)]


ARCH = Family(
    "arch",
    ("arch", "archarm"),
    _arch,
    fetcher=f"{_PACMAN}pacman -S --needed curl || pacman -Sy --needed curl\n",
    owned=_PACMAN_OWNED,
    upgrade=_arch_upgrade,
)

# ------------------------------------------------------------------------------------------------------------- Alpine

# Docker is in the repository "community", beside "main", which need not be enabled; then it is for this command alone.
_APK = """\
apk() { command apk --no-progress --wait 30 "$@" </dev/null; }
beside=
if ! grep -Eq '^[^#]*/community/?$' /etc/apk/repositories; then
    beside=$(sed -n 's|^\\([^#@].*\\)/main/*$|\\1/community|p' /etc/apk/repositories | head -n 1)
fi
"""
_APK_LISTS = Step("reading the lists of packages", f'{_APK}apk update ${{beside:+--repository "$beside"}}\n', tries=3)
_APK_OWNED = """\
split() { sed 's/-\\([0-9][^-]*-r[0-9]*\\)$/ \\1/'; }
owner=$(apk info -q -W "$(command -v dockerd)" 2>/dev/null | split | cut -d ' ' -f 1)
[ -n "$owner" ] || exit 0
for name in "$owner" docker docker-cli containerd runc; do apk info -e -v "$name" 2>/dev/null | split; done
:
"""


def _alpine(_: Facts) -> list[Step]:
    script = f'{_APK}apk add ${{beside:+--repository "$beside"}} docker\n'
    return [_APK_LISTS, Step("installing Docker", script, tries=2)]


def _alpine_upgrade(packages: tuple[str, ...]) -> list[Step]:
    script = f'{_APK}apk add --upgrade ${{beside:+--repository "$beside"}} "$@"\n'
    return [_APK_LISTS, Step("upgrading Docker", script, packages, tries=2)]


ALPINE = Family(
    "alpine", ("alpine",), _alpine, fetcher=f"{_APK}apk add curl\n", owned=_APK_OWNED, upgrade=_alpine_upgrade
)

# ----------------------------------------------------------------------------------------------- a part of the system

# Their /usr cannot be written to: Docker is upgraded with the whole.
FLATCAR = Family("flatcar", ("flatcar", "coreos"))
BOOT2DOCKER = Family("boot2docker", ("boot2docker",))
