"""Who starts the daemon: how it is restarted, and started at every boot, by each of them."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_machine.errors import ProvisionFailed
from pytest_machine.guest import LONG, Step
from pytest_machine.provisioner import Facts


@dataclass(frozen=True, slots=True)
class Service:
    """How one service manager is spoken to, in words of a shell."""

    restart: str
    enabled: str = "true"
    """Whether it is started at every boot."""
    enable: str = ":"
    unit: str = ":"
    """What prints the distribution's own unit, where there are such."""
    log: str = ":"
    """What prints the daemon's last words."""


_SERVICES = {
    "systemd": Service(
        # Docker that ended too often is not started again unless it is forgiven.
        restart="systemctl daemon-reload && "
        "{ systemctl reset-failed docker.service docker.socket 2>/dev/null || :; } && systemctl restart docker.service",
        enabled="systemctl is-enabled docker.service >/dev/null 2>&1",
        enable="systemctl enable docker.service",
        unit='cat "$(systemctl show -p FragmentPath docker.service | cut -d= -f2-)" 2>/dev/null',
        log="journalctl -u docker.service -n 8 -o cat --no-pager",
    ),
    "openrc": Service(
        restart="rc-service docker restart",
        enabled="rc-update show default | grep -q '^ *docker '",
        enable="rc-update add docker default",
        log="tail -n 8 /var/log/docker.log",
    ),
    "machine-init": Service(
        # Its engine may have been tried in vain for a while: then the next try is seconds away, unless it is asked for.
        restart="/usr/sbin/machine-init start containerd && /usr/sbin/machine-init restart docker",
        log="tail -n 8 /var/log/dockerd.log",
    ),
    "boot2docker": Service(
        restart="/etc/init.d/docker restart",
        log="tail -n 8 /var/lib/boot2docker/log/docker.log",
    ),
}

# Port and daemon in one question. The kernel's own table, because small systems have neither ss nor netstat.
_ANSWERS = """\
answers() {
    version=$(docker -H unix:///var/run/docker.sock version --format '{{.Server.Version}}' 2>&1) || {
        echo "missing=Docker does not answer: $(echo "$version" | tail -n 1)"
        return
    }
    echo "version=$version"
    grep -Eqi "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F:]+ 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null ||
        echo "missing=nobody listens on port $1"
}
"""
_VALIDATE = """\
dockerd --help 2>/dev/null | grep -q -e --validate || exit 0
file=$(mktemp)
trap 'rm -f "$file"' EXIT
cat >"$file" && dockerd --validate --config-file "$file" 2>&1
"""


def service(facts: Facts) -> Service:
    """Return how the machine's daemon is started; raises `ProvisionFailed` where nobody known starts services."""
    if facts.manager in _SERVICES:
        return _SERVICES[facts.manager]
    raise ProvisionFailed(
        "The machine could not be made a Docker host: who starts its services is not known.",
        facts={"known": "systemd, OpenRC, boot2docker's, and the init of our own images"},
        hint="see what does: docker-machine ssh NAME ps -p 1 -o args=",
    )


def look(facts: Facts, port: int) -> Step:
    """Return the question how the daemon is doing."""
    its = service(facts)
    script = f"""{_ANSWERS}answers "$1"
if {its.enabled}; then echo enabled=yes; fi
echo unit=
{its.unit}
:
"""
    return Step("looking at the daemon", script, (str(port),), seconds=120)


def answers(port: int) -> Step:
    """Return the question whether the daemon answers, and listens."""
    return Step("asking the daemon", f'{_ANSWERS}answers "$1"\n', (str(port),), seconds=60)


def validate(config: str) -> Step:
    """Return the question whether the daemon takes these options; those before Docker 23 cannot be asked."""
    return Step("asking the daemon about its settings", _VALIDATE, input=config, seconds=60)


def restart(facts: Facts) -> Step:
    """Return what makes the daemon read its settings."""
    return Step("restarting Docker", f"{service(facts).restart}\n", seconds=LONG)


def enable(facts: Facts) -> Step:
    """Return what has it started at every boot."""
    return Step("having Docker started at every boot", f"{service(facts).enable}\n", seconds=120)


def log(facts: Facts) -> Step:
    """Return the question for the daemon's last words."""
    return Step("asking for the daemon's log", f"{service(facts).log} 2>&1 || :\n", seconds=60)
