"""Docker by apt: Debian, Ubuntu, and who is like them."""

from __future__ import annotations

from pytest_machine.guest import Step
from pytest_machine.provisioner import Facts

from .kind import Family

# Files of the user's stay as they are, whatever a package brings; another apt is waited for, and so is a slow mirror.
_APT = """\
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
apt() {
    apt-get -q -y -o DPkg::Lock::Timeout=10 -o Acquire::Retries=2 \\
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" </dev/null
}
"""
_LISTS = Step("reading the lists of packages", f"{_APT}apt update\n", tries=3)
_MEND = """\
export DEBIAN_FRONTEND=noninteractive
dpkg --configure -a --force-confdef --force-confold </dev/null
"""
# Newer releases have the client in a package of its own. AppArmor's parser must be there where the kernel has AppArmor:
# Docker cannot start a container without it.
_INSTALL = f"""\
{_APT}set -- docker.io ca-certificates
if apt-cache show docker-cli >/dev/null 2>&1; then set -- "$@" docker-cli; fi
if grep -q Y /sys/module/apparmor/parameters/enabled 2>/dev/null; then set -- "$@" apparmor; fi
apt install --no-install-recommends "$@"
"""
_OWNED = """\
owner=$(dpkg-query -S "$(command -v dockerd)" 2>/dev/null | sed -n '1s/:.*//p')
[ -n "$owner" ] || exit 0
for name in "$owner" docker-cli docker-ce-cli containerd containerd.io runc; do
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n' "$name" 2>/dev/null | sed -n 's/^installed //p'
done
"""


def _install(_: Facts) -> list[Step]:
    return [_LISTS, Step("installing Docker", _INSTALL, tries=2)]


def _upgrade(packages: tuple[str, ...]) -> list[Step]:
    script = f'{_APT}apt install --only-upgrade --no-install-recommends "$@"\n'
    return [_LISTS, Step("upgrading Docker", script, packages, tries=2)]


DEBIAN = Family(
    "debian",
    ("debian", "ubuntu"),
    _install,
    fetcher=f"{_APT}apt update && apt install --no-install-recommends curl ca-certificates\n",
    mend=(Step("finishing what was broken off", _MEND),),
    owned=_OWNED,
    upgrade=_upgrade,
)
