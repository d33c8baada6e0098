"""The rules that a bridge of ours needs on its host: rendered here, put in force and taken away by name.

Four things, each in a place of its own so that taking it away touches nobody else: an nft table of family ``ip`` (out
by NAT, in only what was asked for), one of family ``bridge`` (see `frames`), one of family ``inet`` (a sealed machine
begins nothing, and only answers), and two rules in iptables' FORWARD where another program drops there, as Docker does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_machine.errors import DriverError

from .command import installed, run, succeeds
from .frames import Port, honest

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def outside(bridge: str, subnet: str) -> str:
    """Return the table that lets a bridge's machines reach the outside, and nobody reach in."""
    return f"""\
table ip {bridge} {{
  chain outside {{
    type nat hook postrouting priority srcnat;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }}
  chain inside {{
    type filter hook forward priority filter;
    iifname != "{bridge}" oifname "{bridge}" ct state new drop
  }}
}}
"""


def seal(bridge: str, ports: Iterable[Port]) -> str:
    """Return the table that keeps those who are sealed from all but answering the host, IPv6 included."""
    text = f"table inet {bridge}\ndelete table inet {bridge}\n"
    cards = ", ".join(port.mac for port in ports if port.sealed)
    if not cards:
        return text
    # By their cards, because whoever sends from another address than its own is a stranger to any list of those.
    return f"""\
{text}table inet {bridge} {{
  set sealed {{ type ether_addr; elements = {{ {cards} }} }}
  chain host {{
    type filter hook input priority filter;
    iifname "{bridge}" ether saddr @sealed ct state new drop
  }}
  chain outside {{
    type filter hook forward priority filter;
    iifname "{bridge}" ether saddr @sealed drop
  }}
}}
"""


def guard(bridge: str, ports: Iterable[Port], *, sealed: bool = True) -> None:
    """Let exactly these send, each from its own addresses; ports that are gone leave nothing behind.

    `sealed` says whether any machine on the bridge may be or may have been sealed.
    """
    given = list(ports)
    if given:
        _filter_frames(honest(bridge, given))
    if sealed:
        run("nft", "-f", "-", input=seal(bridge, given))


def _filter_frames(rules: str) -> None:
    """Put a bridge's table in force, unless the kernel lacks nftables for bridges; raises `DriverError`.

    Without such a kernel the static entries of the bridge's table and the settings of its ports hold alone.
    """
    try:
        run("nft", "-f", "-", input=rules)
    except DriverError:
        try:
            run("nft", "--check", "-f", "-", input=_PROBE)
        except DriverError:
            return
        raise


# A chain that every kernel with nftables for bridges can have.
_PROBE = """\
table bridge ptm-probe {
  chain probe {
    type filter hook prerouting priority -300;
  }
}
"""


def open_up(bridge: str, subnet: str, ports: Iterable[Port], *, ipv6: bool = False, closed: Sequence[str] = ()) -> str:
    """Put the rules in force; return the value that IP forwarding had before, or nothing if it was on.

    Without a `subnet` it is a lab's own bridge, on which machines are among themselves; `closed`: see `honest`.
    Called at every machine, because a firewall's reload may have swept our rules away since the last.
    """
    chains = run("nft", "list", "chains")
    if subnet and f"table ip {bridge} " not in chains:
        run("nft", "-f", "-", input=outside(bridge, subnet))
    if subnet:
        given = list(ports)
        sealed = any(port.sealed for port in given) or f"table inet {bridge} " in chains
        guard(bridge, given, sealed=sealed)
    elif given := list(ports):
        _filter_frames(honest(bridge, given, lab=True, closed=closed))
    for command in ("iptables", "ip6tables") if ipv6 else ("iptables",):
        if _filters_forwarding(chains, command) and not succeeds(command, "-w", "-C", *_accept(bridge)[0]):
            for rule in _accept(bridge):
                run(command, "-w", "-I", *rule)
    before = FORWARD.read_text().strip()
    if not subnet or before == "1":
        return ""
    FORWARD.write_text("1")
    return before


def is_open(bridge: str) -> bool:
    """Whether the rules of a bridge to the outside are in force: a firewall's reload sweeps all away, or a boot."""
    chains = run("nft", "list", "chains")
    return (
        f"table ip {bridge} " in chains
        and (not _filters_forwarding(chains, "iptables") or succeeds("iptables", "-w", "-C", *_accept(bridge)[0]))
        and FORWARD.read_text().strip() == "1"
    )


def close(bridge: str, forwarding: str) -> None:
    """Take the rules away, and IP forwarding back to what it was where that is given."""
    chains = run("nft", "list", "chains")
    for command in ("iptables", "ip6tables"):
        if _filters_forwarding(chains, command):
            for rule in _accept(bridge):
                while succeeds(command, "-w", "-D", *rule):
                    pass
    families = [family for family in ("ip", "bridge", "inet") if f"table {family} {bridge} " in chains]
    if families:
        run("nft", "-f", "-", input="".join(f"delete table {family} {bridge}\n" for family in families))
    if forwarding:
        FORWARD.write_text(forwarding)


def _accept(bridge: str) -> tuple[tuple[str, ...], ...]:
    """Return the rules that let a bridge's traffic pass a FORWARD chain that drops, as Docker's and ufw's do."""
    mark = ("-m", "comment", "--comment", f"pytest-machine {bridge}", "-j", "ACCEPT")
    answers = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
    return (("FORWARD", "-i", bridge, *mark), ("FORWARD", "-o", bridge, *answers, *mark))


def _filters_forwarding(chains: str, command: str) -> bool:
    """Whether somebody uses iptables' FORWARD chain; asking iptables itself would create it."""
    if not installed(command):
        return False
    family = command.removesuffix("tables")
    legacy = Path(f"/proc/net/{family}_tables_names")
    if legacy.exists() and "filter" in legacy.read_text().split():
        return True
    _, _, after = chains.partition(f"table {family} filter {{")
    return "chain FORWARD" in after.partition("\n}")[0]
