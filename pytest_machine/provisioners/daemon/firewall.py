"""A firewall in the machine that does not let the daemon's port through: on SUSE it is told to, elsewhere it is named.

Docker Machine opened the port on SUSE, and nowhere else. To open a port of somebody's host is theirs to do; but nobody
should have to guess why a Docker that answers inside cannot be reached.
"""

from __future__ import annotations

from pytest_machine.guest import Step
from pytest_machine.provisioner import Facts

_WHICH = """\
if command -v firewall-cmd >/dev/null 2>&1 && firewall-cmd --state >/dev/null 2>&1; then
    firewall-cmd --query-port="$1/tcp" >/dev/null 2>&1 || echo firewalld
elif command -v ufw >/dev/null 2>&1 && ufw status 2>/dev/null | grep -q '^Status: active'; then
    ufw status | grep -Eq "^$1(/tcp)? +ALLOW" || echo ufw
elif rpm -q yast2-firewall >/dev/null 2>&1 && /sbin/SuSEfirewall2 status >/dev/null 2>&1; then
    grep -Eq "^FW_SERVICES_EXT_TCP=.*[\\" ]$1[\\" ]" /etc/sysconfig/SuSEfirewall2 || echo SuSEfirewall2
fi
"""
_OPEN = {
    "firewalld": 'firewall-cmd --permanent --add-port="$1/tcp" && firewall-cmd --add-port="$1/tcp"',
    "SuSEfirewall2": '/sbin/yast2 firewall services add ipprotocol=tcp tcpport="$1" zone=EXT',
}
_TYPED = {
    "firewalld": "firewall-cmd --permanent --add-port={0}/tcp && firewall-cmd --reload",
    "ufw": "ufw allow {0}/tcp",
}


def which(port: int) -> Step:
    """Return the question which firewall keeps the port closed."""
    return Step("looking for a firewall", _WHICH, (str(port),), seconds=120)


def let_through(facts: Facts, firewall: str, port: int) -> Step | None:
    """Return what opens the port, where that is ours to do."""
    if not {"suse", "opensuse", "sles", "sled"} & {facts.os, *facts.like} or firewall not in _OPEN:
        return None
    return Step("opening the daemon's port in the firewall", f"{_OPEN[firewall]}\n", (str(port),), seconds=300)


def warning(firewall: str, port: int) -> str:
    """Return the sentence for a firewall that is not ours to open."""
    typed = _TYPED.get(firewall, "").format(port)
    return f"the machine's firewall, {firewall}, does not let port {port} through; to open it, type there: {typed}"
