"""Whether one machine reaches another, proven by a packet that went there and an answer that came back."""

from __future__ import annotations

import math

from .errors import Unsupported
from .machine import Machine

# Connected, or refused by the other end itself: either way packets went both ways.
_CONNECT = """\
export LC_ALL=C
try() {{
  said=$(timeout {limit} bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" {port} 2>&1) && return 0
  case $said in *refused*) return 0 ;; esac
  return 1
}}"""
# ping's own exit code 1 is "no answer"; whatever else it has to say is no news of the network.
_PING = """\
command -v ping >/dev/null || exit 9
try() {{ ping -n -c 1 -W {limit} "$1" >/dev/null 2>&1; }}"""
# All at once: what is cut off takes the whole time at each address.
_ANY = """
waiting=
for each; do try "$each" & waiting="$waiting $!"; done
for each in $waiting; do wait $each && exit 0; done
exit 1"""


def addresses_for(here: Machine, there: Machine, network: str | None, *, ipv6: bool = False) -> list[str]:
    """Return under which addresses one may reach the other.

    That is the one on that network, or on the first that both share; else all that the other has, which a router or
    its driver's own network may lead to.
    """
    mine, theirs = here.networks, there.networks
    if network is not None:
        found = [theirs[network]] if network in theirs else []
    else:
        found = [theirs[name] for name in mine if name in theirs][:1] or list(theirs.values())
    addresses = [link.ip6 if ipv6 else link.ip for link in found]
    if network is None and not ipv6 and not set(mine) & set(theirs):
        addresses.append(there.address.among)
    return [address for address in addresses if address]


def reachable(
    here: Machine,
    there: Machine,
    *,
    port: int | None = None,
    network: str | None = None,
    ipv6: bool = False,
    timeout: float = 1.0,
) -> bool:
    """Return whether a packet from one machine reaches the other and is answered, within `timeout` seconds."""
    addresses = addresses_for(here, there, network, ipv6=ipv6)
    if not addresses:
        return False
    limit = max(1, math.ceil(timeout)) if port is None else timeout
    script = (_PING if port is None else _CONNECT).format(limit=limit, port=port) + _ANY
    result = here.run("sh", "-c", script, "sh", *addresses, check=False, timeout=timeout + 15)
    if result.returncode == 9:
        raise Unsupported(
            f"The machine '{here.name}' lacks the program 'ping'.",
            hint=f"ask for a port: lab.reachable('{here.name}', '{there.name}', port=22)",
        )
    return result.returncode == 0
