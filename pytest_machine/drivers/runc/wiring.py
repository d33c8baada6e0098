"""How a machine's network is set up, for `traces`: what its firewall does, and what `ip` and `tc` tell of it.

Read in the machine's network namespace by the host's own programs. All that `ip` and `tc` are asked is asked by one
shell, because each program that is started inside costs milliseconds, and a reset has fifty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from . import kernel
from .command import run

# What is asked, by the name of what comes back. Neighbours that were learnt come and go; those that somebody set stay.
_QUESTIONS = {
    "links": "ip -json -details address",
    "routes -4": "ip -json -4 route show table all",
    "routes -6": "ip -json -6 route show table all",
    "rules -4": "ip -json -4 rule",
    "rules -6": "ip -json -6 rule",
    "neighbours": "ip -json neigh show nud permanent",
    "queues": "tc -json qdisc show",
    "policies": "ip xfrm policy",
    "transforms": "ip xfrm state",
}
_MARK = "@@ptm "
_SCRIPT = "".join(f"echo '{_MARK}{name}'; {question} 2>/dev/null; echo; " for name, question in _QUESTIONS.items())

# Of a link. Timers and counters are among its other values.
_LINK = ("address", "mtu", "master", "qdisc", "txqlen", "ifalias", "altnames", "xdp")
# A bridge goes up and down with what is plugged into it.
_OWN_FLAGS = frozenset({"LOWER_UP", "NO-CARRIER"})


def rules(pid: int) -> Iterator[tuple[str, str]]:
    """Every firewall rule and policy, by both of iptables' ways; counters are not rules."""
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net")
    ruleset = json.loads(run(*inside, "nft", "--json", "--stateless", "list", "ruleset", check=False) or "{}")
    for number, item in enumerate(ruleset.get("nftables", ())):
        if "metainfo" not in item:
            yield f"rule {number}", json.dumps(_without_handles(item), sort_keys=True)
    for family in ("ip", "ip6"):
        if "".join(kernel.open_lines(f"/proc/{pid}/net/{family}_tables_names")):
            saved = run(*inside, f"{family}tables-legacy-save", check=False).splitlines()
            for number, line in enumerate(saved):
                if not line.startswith("#"):
                    # A chain with its policy: ``:INPUT DROP [packets:bytes]``.
                    yield f"rule legacy {family} {number}", line.partition(" [")[0] if line.startswith(":") else line


def _without_handles(value: object) -> object:
    """Return a part of nft's JSON without the numbers that differ each time it is made."""
    if isinstance(value, dict):
        return {k: _without_handles(v) for k, v in value.items() if k not in ("handle", "packets", "bytes")}
    if isinstance(value, list):
        return [_without_handles(each) for each in value]
    return value


def links(pid: int) -> Iterator[tuple[str, str]]:
    """Every interface, address, route, routing rule, neighbour, queue and IPsec policy of the machine."""
    said = run("nsenter", f"--net=/proc/{pid}/ns/net", "sh", input=_SCRIPT)
    answers = dict(part.split("\n", 1) for part in said.split(_MARK)[1:])
    return parsed(answers)


def parsed(answers: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Return the facts in what was answered to each question."""
    found = {name: json.loads(answers[name].strip() or "[]") for name in answers if "json" in _QUESTIONS[name]}
    for link in found["links"]:
        yield f"link {link['ifname']}", _link(link)
    for family in ("-4", "-6"):
        yield from _routes(family, found[f"routes {family}"])
        for rule in found[f"rules {family}"]:
            yield f"routing rule {family} {json.dumps(rule, sort_keys=True)}", ""
    for neighbour in found["neighbours"]:
        yield f"neighbour {neighbour.get('dst')} {neighbour.get('dev')}", str(neighbour.get("lladdr"))
    for queue in found["queues"]:
        yield f"queue {queue.get('dev')} {queue.get('parent', 'root')} {queue['kind']}", _queue(queue)
    for kind in ("policies", "transforms"):
        for number, line in enumerate(answers[kind].split("\n")):
            if line.strip():
                yield f"IPsec {kind} {number}", line


def _queue(queue: dict[str, object]) -> str:
    """Return what was set of a queue: no counters, nor the number that the kernel gives to one below another."""
    counted = {"refcnt", "handle"} if "parent" in queue else {"refcnt"}
    settings = {key: value for key, value in queue.items() if key not in counted}
    if isinstance(options := queue.get("options"), dict):
        settings["options"] = {key: value for key, value in options.items() if not key.endswith("_stat")}
    return json.dumps(settings, sort_keys=True)


def _routes(family: str, routes: list[dict[str, object]]) -> Iterator[tuple[str, str]]:
    for route in routes:
        # Those of IPv6 that the kernel makes come with link-local addresses, whenever a link comes up.
        if route.get("dev") == "docker0" or (family == "-6" and route.get("protocol") == "kernel"):
            continue
        yield (
            f"route {family} {route.get('dst')} {route.get('dev')} {route.get('table', '')}",
            json.dumps({k: route.get(k) for k in ("gateway", "prefsrc", "type", "metric")}),
        )


def _link(link: dict[str, object]) -> str:
    flags = frozenset(map(str, link["flags"])) - _OWN_FLAGS  # type: ignore[call-overload]  # ip's JSON
    keys: tuple[str, ...] = _LINK
    if link["ifname"] == "docker0":  # it goes down with its last container
        flags, keys = flags - {"UP"}, tuple(key for key in keys if key not in ("master", "qdisc"))
    addresses = sorted(f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link")  # type: ignore[attr-defined]
    return f"{[link.get(key) for key in keys]} {sorted(flags)} {addresses}"
