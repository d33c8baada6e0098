"""Whether one machine reaches another, proven by a packet that went there and an answer that came back."""

from __future__ import annotations

import math

from .errors import Unsupported
from .machine import Machine

# Connected, or refused by the other end itself: either way packets went both ways.
_CONNECT = """\
export LC_ALL=C
said=$(timeout {limit} bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1) && exit 0
case $said in *refused*) exit 0 ;; esac
exit 1"""
# ping's own exit code 1 is "no answer"; whatever else it has to say is no news of the network.
_PING = 'command -v ping >/dev/null || exit 9; ping -n -c 1 -W {limit} "$1" >/dev/null 2>&1'


def address_for(here: Machine, there: Machine, network: str | None) -> str | None:
    """Return under which address one reaches the other: on that network, or on the first that both share; or None."""
    mine, theirs = here.networks, there.networks
    if network is not None:
        return theirs[network].ip if network in mine and network in theirs else None
    shared = [name for name in mine if name in theirs]
    if shared:
        return theirs[shared[0]].ip
    return None if here.record.networks or there.record.networks else there.ip


def reachable(
    here: Machine, there: Machine, *, port: int | None = None, network: str | None = None, timeout: float = 1.0
) -> bool:
    """Return whether a packet from one machine reaches the other and is answered, within `timeout` seconds."""
    address = address_for(here, there, network)
    if address is None:
        return False
    script, words = (_PING, [address]) if port is None else (_CONNECT, [address, str(port)])
    limit = max(1, math.ceil(timeout)) if port is None else timeout
    result = here.run("sh", "-c", script.format(limit=limit), "sh", *words, check=False, timeout=timeout + 15)
    if result.returncode == 9:
        raise Unsupported(
            f"The machine '{here.name}' lacks the program 'ping'.",
            hint=f"ask for a port: lab.reachable('{here.name}', '{there.name}', port=22)",
        )
    return result.returncode == 0
