"""How a machine's network is set up, for `traces`: what its firewall does, and what `ip` and `tc` tell of it.

Read in the machine's network namespace by the host's own programs: few of them, because each that is started costs
milliseconds, and a reset has fifty.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from . import kernel
from .command import run

# Who is asked, and what, by the name of what comes back. Neighbours that were learnt come and go; those that somebody
# set stay.
_QUESTIONS = {
    "ip -json -details": {"links": "address", "neighbours": "neigh show nud permanent"},
    "ip -json -4": {"routes -4": "route show table all", "rules -4": "rule"},
    "ip -json -6": {"routes -6": "route show table all", "rules -6": "rule"},
    "tc -json": {"queues": "qdisc show"},
    "ip": {"IPsec": "xfrm policy\nxfrm state"},
}


# Two shells at a time: together they take as long as all else that is looked at.
_HALVES = (list(_QUESTIONS)[:2], list(_QUESTIONS)[2:])
_MARK = "\n@@ptm "


def _script(programs: Iterable[str]) -> str:
    """Return what asks; what a kernel has not, it does not answer, and that is no failure."""
    return (
        "".join(
            f"echo '{_MARK}{program}'\n{program} -force -batch - 2>/dev/null <<END\n{lines}\nEND\n"
            for program in programs
            for lines in ["\n".join(_QUESTIONS[program].values())]
        )
        + "true\n"
    )


# Of a link. Timers and counters are among its other values.
_LINK = ("address", "mtu", "master", "qdisc", "txqlen", "ifalias", "altnames", "xdp")
# A bridge goes up and down with what is plugged into it.
_OWN_FLAGS = frozenset({"LOWER_UP", "NO-CARRIER"})


def rules(pid: int) -> Iterator[tuple[str, str]]:
    """Every firewall rule and policy, by both of iptables' ways; counters are not rules."""
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net")
    ruleset = json.loads(run(*inside, "nft", "--json", "--stateless", "list", "ruleset", check=False) or "{}")
    yield from listed(ruleset.get("nftables", ()))
    for family in ("ip", "ip6"):
        if "".join(kernel.open_lines(f"/proc/{pid}/net/{family}_tables_names")):
            saved = run(*inside, f"{family}tables-legacy-save", check=False).splitlines()
            for number, line in enumerate(saved):
                if not line.startswith("#"):
                    # A chain with its policy: ``:INPUT DROP [packets:bytes]``.
                    yield f"rule legacy {family} {number}", line.partition(" [")[0] if line.startswith(":") else line


def listed(items: Iterable[Mapping[str, dict[str, object]]]) -> Iterator[tuple[str, str]]:
    """Return the facts in what nft lists: each by its place in its chain, because chains are made in no order."""
    numbers: Counter[str] = Counter()
    for item in items:
        for kind, value in item.items():
            if kind != "metainfo":
                place = " ".join(str(value[key]) for key in ("family", "table", "chain", "name") if key in value)
                kind_ = "" if kind == "rule" else f"{kind} "
                yield (
                    f"rule {kind_}{place} {numbers[kind_ + place]}",
                    json.dumps(_without_handles(item), sort_keys=True),
                )
                numbers[kind_ + place] += 1


def _without_handles(value: object) -> object:
    """Return a part of nft's JSON without the numbers that differ each time it is made."""
    if isinstance(value, dict):
        return {k: _without_handles(v) for k, v in value.items() if k not in ("handle", "packets", "bytes")}
    if isinstance(value, list):
        return [_without_handles(each) for each in value]
    return value


def cards(pid: int) -> Iterator[tuple[str, str]]:
    """Every interface, with the address of its card."""
    for line in kernel.open_lines(f"/proc/{pid}/net/dev")[2:]:
        name = line.partition(":")[0].strip()
        yield f"card {name}", "".join(kernel.open_lines(f"/proc/{pid}/root/sys/class/net/{name}/address"))


def links(pid: int) -> Iterator[tuple[str, str]]:
    """Every interface, address, route, routing rule, neighbour, queue and IPsec policy of the machine."""
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net")

    def ask(programs: Iterable[str]) -> str:
        return run(*inside, "sh", input=_script(programs))

    with ThreadPoolExecutor(len(_HALVES)) as pool:
        answers = split("".join(pool.map(ask, _HALVES)))
    for program, questions in _QUESTIONS.items():
        for name, question in questions.items():
            if name not in answers:
                answers[name] = run(*inside, *program.split(), *question.split(), check=False)
    return parsed(answers)


def split(said: str) -> dict[str, str]:
    """Return what was answered to each question, but for those of which that cannot be told.

    An answer is a line, and a question that a kernel cannot be asked has none.
    """
    found = {}
    for program, _, text in (part.partition("\n") for part in said.split(_MARK)[1:]):
        names = list(_QUESTIONS[program])
        lines = [line for line in text.splitlines() if line] if "-json" in program else [text]
        if len(lines) == len(names) or not lines:
            found.update(dict(zip(names, lines or [""] * len(names), strict=True)))
    return found


def parsed(answers: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Return the facts in what was answered to each question."""
    found = {name: json.loads(text.strip() or "[]") for name, text in answers.items() if name != "IPsec"}
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
    for number, line in enumerate(answers["IPsec"].splitlines()):
        if line.strip():
            yield f"IPsec {number}", line


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
    if link["ifname"] == "docker0":  # it goes down with its last container; and its card is another at each boot
        flags, keys = flags - {"UP"}, tuple(key for key in keys if key not in ("address", "master", "qdisc"))
    addresses = sorted(f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link")  # type: ignore[attr-defined]
    return f"{[link.get(key) for key in keys]} {sorted(flags)} {addresses}"
