"""Docker by dnf, yum and zypper: Fedora, Red Hat's, Amazon's and SUSE's systems, and who is like them.

Red Hat and those who rebuild it have had no Docker of their own since release 8: there it comes from the repository of
Docker's makers, to which their documentation leads. Oracle Linux 7 and Amazon Linux have packages of their own.
"""

from __future__ import annotations

from pytest_machine.guest import Step
from pytest_machine.provisioner import Facts

from .kind import Family

# Both wait for a lock by themselves.
_DNF = """\
packages() {
    if command -v dnf >/dev/null 2>&1; then dnf -y "$@" </dev/null
    else yum -y "$@" </dev/null
    fi
}
"""
# A file, and no `config-manager`: that is a plugin, and its words differ between dnf 4 and 5.
_REPOSITORY = """\
file=/etc/yum.repos.d/docker-ce.repo
[ -s "$file" ] || {{ curl -fsSL --retry 2 {url} >"$file.new" && mv -f "$file.new" "$file"; }}
"""
_MAKERS = "https://download.docker.com/linux/{}/docker-ce.repo"
_OWNED = """\
owner=$(rpm -qf --qf '%{NAME}\\n' "$(readlink -f "$(command -v dockerd)")" 2>/dev/null) || exit 0
for name in "$owner" docker-cli docker-ce-cli docker-client containerd containerd.io runc; do
    rpm -q --qf '%{NAME} %{VERSION}-%{RELEASE}\\n' "$name" 2>/dev/null | grep -v 'not installed'
done
:
"""


def _upgrade(packages: tuple[str, ...]) -> list[Step]:
    lists = Step("reading the lists of packages", f"{_DNF}packages clean expire-cache && packages makecache\n", tries=3)
    return [lists, Step("upgrading Docker", f'{_DNF}packages upgrade "$@"\n', packages, tries=2)]


def _fedora(_: Facts) -> list[Step]:
    # From Fedora 41 on the client is a package of its own.
    client = "{ command -v docker >/dev/null 2>&1 || packages install docker-cli; }"
    script = f"{_DNF}packages install moby-engine && {client}\n"
    return [Step("installing Docker", script, tries=3)]


def _redhat(facts: Facts) -> list[Step]:
    if facts.os == "ol" and facts.version.startswith("7"):
        script = f"{_DNF}packages install --enablerepo=ol7_addons docker-engine\n"
        return [Step("installing Docker", script, tries=3)]
    url = _MAKERS.format("rhel" if facts.os == "rhel" else "centos")
    return [
        Step("adding the repository of Docker's makers", _REPOSITORY.format(url=url), tries=3),
        Step("installing Docker", f"{_DNF}packages install docker-ce docker-ce-cli containerd.io\n", tries=3),
    ]


def _amazon(facts: Facts) -> list[Step]:
    script = (
        "amazon-linux-extras install -y docker </dev/null\n" if facts.version == "2" else "packages install docker\n"
    )
    return [Step("installing Docker", f"{_DNF}{script}", tries=3)]


FEDORA = Family(
    "fedora", ("fedora",), _fedora, fetcher=f"{_DNF}packages install curl\n", owned=_OWNED, upgrade=_upgrade
)  # fmt: skip
REDHAT = Family(
    "redhat",
    ("rhel", "centos", "rocky", "almalinux", "ol"),
    _redhat,
    fetcher=f"{_DNF}packages install curl\n",
    owned=_OWNED,
    upgrade=_upgrade,
)
AMAZON = Family("amazon", ("amzn",), _amazon, fetcher=f"{_DNF}packages install curl\n", owned=_OWNED, upgrade=_upgrade)

# It waits for a lock as long as that says, in seconds.
_ZYPPER = """\
export ZYPP_LOCK_TIMEOUT=30
zypper() { command zypper --non-interactive "$@" </dev/null; }
"""
# Enterprise systems have Docker in a module that need not be enabled; only a registered system can enable it.
_MODULE = """\
if ! zypper search --match-exact --type package docker >/dev/null 2>&1 && command -v SUSEConnect >/dev/null 2>&1; then
    SUSEConnect -p "sle-module-containers/$1/$(uname -m)" -r ''
fi
"""


def _suse(facts: Facts) -> list[Step]:
    module = [Step("seeing to the module that has Docker", f"{_ZYPPER}{_MODULE}", (facts.version,), tries=2)]
    enterprise = facts.os.startswith("sle") and not facts.os.startswith("slem")
    script = f"{_ZYPPER}zypper refresh && zypper install --no-recommends docker\n"
    return [*(module if enterprise else []), Step("installing Docker", script, tries=3)]


def _suse_upgrade(packages: tuple[str, ...]) -> list[Step]:
    script = f'{_ZYPPER}zypper update "$@"\n'
    return [
        Step("reading the lists of packages", f"{_ZYPPER}zypper refresh\n", tries=3),
        Step("upgrading Docker", script, packages, tries=2),
    ]


SUSE = Family(
    "suse",
    ("suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles", "sled"),
    _suse,
    fetcher=f"{_ZYPPER}zypper install curl\n",
    owned=_OWNED,
    upgrade=_suse_upgrade,
)
