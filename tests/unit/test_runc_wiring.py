"""What counts as a change of a machine's network, and what comes and goes by itself."""

from __future__ import annotations

import json

import pytest

from pytest_machine.drivers.runc.wiring import listed, parsed, split

ETH0 = {
    "ifname": "eth0",
    "flags": ["BROADCAST", "UP", "LOWER_UP"],
    "mtu": 1500,
    "qdisc": "noqueue",
    "address": "02:74:00:00:00:01",
    "addr_info": [{"local": "10.0.0.2", "prefixlen": 24, "scope": "global"}],
}
DOCKER0 = {"ifname": "docker0", "flags": ["UP"], "mtu": 1500, "qdisc": "noqueue", "address": "02:42", "addr_info": []}
KERNEL = {"dst": "fe80::/64", "dev": "eth0", "protocol": "kernel"}
BLACKHOLE = {"type": "blackhole", "dst": "2001:db8::/32", "dev": "lo", "protocol": "boot"}
QUEUE = {"kind": "noqueue", "dev": "eth0", "root": True, "refcnt": 2, "options": {"direct_packets_stat": 1}}


def facts(**said: object) -> dict[str, str]:
    """Return the facts of a machine that answers this; underscores are blanks in what it was asked."""
    none: list[object] = []
    answers = {"routes -4": none, "routes -6": none, "rules -4": none, "rules -6": none, "neighbours": none}
    answers |= {"links": [ETH0, DOCKER0], "queues": [QUEUE]}
    texts = {name: json.dumps(answer) for name, answer in answers.items()} | {"IPsec": "\n\n"}
    texts |= {n.replace("_", " -"): s if isinstance(s, str) else json.dumps(s) for n, s in said.items()}
    return dict(parsed(texts))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"links": [ETH0, DOCKER0 | {"flags": ["NO-CARRIER"]}]}, id="the bridge goes down"),
        pytest.param({"links": [ETH0 | {"flags": ["BROADCAST", "UP"]}, DOCKER0]}, id="a carrier"),
        pytest.param({"routes_6": [KERNEL]}, id="a route of the kernel's"),
        pytest.param({"queues": [QUEUE | {"refcnt": 9}]}, id="a count"),
        pytest.param({"queues": [QUEUE | {"options": {"direct_packets_stat": 9}}]}, id="a count among options"),
        pytest.param({"routes_4": ""}, id="no answer"),
    ],
)
def test_what_comes_and_goes_by_itself(said: dict[str, object]) -> None:
    assert facts(**said) == facts()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"links": [ETH0 | {"flags": ["BROADCAST", "PROMISC", "UP"]}, DOCKER0]}, id="a flag"),
        pytest.param({"links": [ETH0 | {"txqlen": 7}, DOCKER0]}, id="the length of a queue"),
        pytest.param({"links": [ETH0 | {"ifalias": "mine"}, DOCKER0]}, id="another name"),
        pytest.param({"routes_6": [BLACKHOLE]}, id="a route of IPv6"),
        pytest.param({"neighbours": [{"dst": "10.0.0.9", "dev": "eth0", "lladdr": "02:00"}]}, id="a neighbour"),
        pytest.param({"queues": [QUEUE, {"kind": "ingress", "dev": "eth0", "parent": "ffff:fff1"}]}, id="a queue"),
        pytest.param({"queues": [{"kind": "tbf", "dev": "eth0", "options": {"rate": 9}}]}, id="a limit"),
        pytest.param({"IPsec": "src 10.1.1.1/32 dst 10.1.1.2/32 \n\tdir out action block"}, id="an IPsec policy"),
    ],
)
def test_what_somebody_did(said: dict[str, object]) -> None:
    assert facts(**said) != facts()


def test_answers_of_programs_that_are_asked_much_at_once() -> None:
    said = (
        '\n@@ptm ip -json -details\n[{"ifname":"lo","ifalias":"@@ptm tc -json"}]\n[]\n'
        '\n@@ptm ip -json -4\n[{"priority":0}]\n'
        "\n@@ptm ip -json -6\n\n"
        "\n@@ptm tc -json\n[]\n\n@@ptm ip\nsrc 10.1.1.1/32 dst 10.1.1.2/32\n\tdir out action block\n"
    )
    assert split(said) == {
        "links": '[{"ifname":"lo","ifalias":"@@ptm tc -json"}]',
        "neighbours": "[]",
        # One of two that a kernel has not: nobody knows which, so neither "routes -4" nor "rules -4".
        "routes -6": "",
        "rules -6": "",
        "queues": "[]",
        "IPsec": "src 10.1.1.1/32 dst 10.1.1.2/32\n\tdir out action block\n",
    }


RULES: list[dict[str, dict[str, object]]] = [
    {"metainfo": {"version": "1.0.6"}},
    {"table": {"family": "ip", "name": "nat", "handle": 1}},
    {"chain": {"family": "ip", "table": "nat", "name": "DOCKER", "handle": 2}},
    {"rule": {"family": "ip", "table": "nat", "chain": "DOCKER", "handle": 3, "expr": [{"return": None}]}},
    {"rule": {"family": "ip", "table": "nat", "chain": "DOCKER", "handle": 4, "expr": [{"drop": None}]}},
]


def test_rules_by_their_place_in_their_chain() -> None:
    """Chains are made in no order, and nothing depends on it; that of their rules is what they do."""
    _, table, chain, first, second = RULES
    other: dict[str, dict[str, object]] = {"chain": {"family": "ip", "table": "nat", "name": "MINE", "handle": 5}}
    assert dict(listed([*RULES, other])) == dict(listed([other, table, chain, first, second]))
    assert dict(listed(RULES)) != dict(listed([table, chain, second, first]))
    assert "rule ip nat DOCKER 1" in dict(listed(RULES))
    assert len(dict(listed([*RULES, second]))) == len(dict(listed(RULES))) + 1
