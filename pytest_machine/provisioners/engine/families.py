"""Which packages are Docker, and who installs them, on each family of systems.

What is run follows from the facts alone; `tests/rendered/provision-*.txt` shows it for each family, and
docs/provisioning.md says where it was looked up. Every command is told not to ask, and bounded by its `Step`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_machine.errors import ProvisionFailed
from pytest_machine.guest import Step
from pytest_machine.model import names
from pytest_machine.provisioner import Facts


@dataclass(frozen=True, slots=True)
class Family:
    """Systems that install Docker in the same way."""

    name: str
    ids: tuple[str, ...]
    """Those ``ID`` and ``ID_LIKE`` of os-release that are of this family."""
    install: Callable[[Facts], list[Step]] | None = None
    """What brings Docker; None: it is part of the system."""
    fetcher: str = ""
    """What installs curl."""
    mend: tuple[Step, ...] = ()
    """What puts the packages right after an installation that was broken off."""
    owned: str = ""
    """What prints the engine's packages, "NAME VERSION" a line, that with dockerd first; empty: it has none."""
    upgrade: Callable[[tuple[str, ...]], list[Step]] = lambda _: []
    """What moves packages to their newest release."""


def family(facts: Facts) -> Family:
    """Return the family of a system; raises `ProvisionFailed` for one that nobody knows."""
    for name in (facts.os, *facts.like):
        for each in FAMILIES:
            if name in each.ids:
                return each
    raise ProvisionFailed(
        "The machine could not be made a Docker host: OS type not recognized.",
        facts={
            "it says": facts.pretty or "nothing: there is no os-release",
            "ID": facts.os or "none",
            "ID_LIKE": " ".join(facts.like) or "none",
            "known": names(each.name for each in FAMILIES),
        },
        hint="install Docker yourself on one of these, or add a provisioner 'engine' with the hook "
        "pytest_machine_provisioners",
    )


# ------------------------------------------------------------------------------------------------------ Debian, Ubuntu

# Files of the user's stay as they are, whatever a package brings; another apt is waited for, and so is a slow mirror.
_APT = """\
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
apt() {
    apt-get -q -y -o DPkg::Lock::Timeout=10 -o Acquire::Retries=2 \\
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" </dev/null
}
"""
_APT_LISTS = Step("reading the lists of packages", f"{_APT}apt update\n", tries=3)
# Newer releases have the client in a package of its own. AppArmor's parser must be there where the kernel has AppArmor:
# Docker cannot start a container without it.
_APT_INSTALL = f"""{_APT}
set -- docker.io ca-certificates
if apt-cache show docker-cli >/dev/null 2>&1; then set -- "$@" docker-cli; fi
if grep -q Y /sys/module/apparmor/parameters/enabled 2>/dev/null; then set -- "$@" apparmor; fi
apt install --no-install-recommends "$@"
"""
_DPKG_OWNED = """\
owner=$(dpkg-query -S "$(command -v dockerd)" 2>/dev/null | sed -n '1s/:.*//p')
[ -n "$owner" ] || exit 0
for name in "$owner" docker-cli docker-ce-cli containerd containerd.io runc; do
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n' "$name" 2>/dev/null | sed -n 's/^installed //p'
done
"""


def _apt_install(_: Facts) -> list[Step]:
    return [_APT_LISTS, Step("installing Docker", _APT_INSTALL, tries=2)]


def _apt_upgrade(packages: Sequence[str]) -> list[Step]:
    script = f'{_APT}apt install --only-upgrade --no-install-recommends "$@"\n'
    return [_APT_LISTS, Step("upgrading Docker", script, tuple(packages), tries=2)]


DEBIAN = Family(
    "debian",
    ("debian", "ubuntu", "raspbian", "linuxmint"),
    _apt_install,
    fetcher=f"{_APT}apt update && apt install --no-install-recommends curl ca-certificates\n",
    mend=(
        Step(
            "finishing what was broken off",
            "export DEBIAN_FRONTEND=noninteractive\ndpkg --configure -a --force-confdef --force-confold </dev/null\n",
        ),
    ),
    owned=_DPKG_OWNED,
    upgrade=_apt_upgrade,
)

FAMILIES = (DEBIAN,)
