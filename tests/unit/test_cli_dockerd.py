"""Flags of dockerd, as its file has them."""

from __future__ import annotations

import pytest

from pytest_machine.cli.command import Failed
from pytest_machine.cli.dockerd import Flags, flags


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["debug", "icc=false", "mtu=1400", "log-level=warn"],
         {"debug": True, "icc": False, "mtu": 1400, "log-level": "warn"}),
        (["--oom-score-adjust=-500", "group=999"], {"oom-score-adjust": -500, "group": "999"}),
        (["dns=192.0.2.1", "dns=192.0.2.2", "storage-opt=a=b"],
         {"dns": ["192.0.2.1", "192.0.2.2"], "storage-opts": ["a=b"]}),
        (["log-opt=max-size=1m", "log-opt=max-file=2"], {"log-opts": {"max-size": "1m", "max-file": "2"}}),
        (["default-ulimit=nofile=1024:2048", "default-ulimit=core=-1"],
         {"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 2048, "Soft": 1024},
                              "core": {"Name": "core", "Hard": -1, "Soft": -1}}}),
        (["add-runtime=crun=/usr/bin/crun"], {"runtimes": {"crun": {"path": "/usr/bin/crun"}}}),
        (["default-address-pool=base=10.0.0.0/8,size=24", "default-address-pool=size=64,base=fd00::/48"],
         {"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}, {"base": "fd00::/48", "size": 64}]}),
        (["default-network-opt=bridge=k=v", "default-network-opt=bridge=l=w=x"],
         {"default-network-opts": {"bridge": {"k": "v", "l": "w=x"}}}),
        (["node-generic-resource=gpu=a", "node-generic-resource=gpu=b"],
         {"node-generic-resources": ["gpu=a", "gpu=b"]}),
        (["feature=x", "feature=y=true", "feature=z=false"], {"features": {"x": True, "y": True, "z": False}}),
        (["http-proxy=http://p:1", "no-proxy=a,b"], {"proxies": {"http-proxy": "http://p:1", "no-proxy": "a,b"}}),
        (["host=tcp://0.0.0.0:1"], {"hosts": ["tcp://0.0.0.0:1"]}),
        (["default-ulimits=mine", "runtimes=mine"], {"default-ulimits": "mine", "runtimes": "mine"}),
    ],
)  # fmt: skip
def test_flags_become_what_the_file_has(given: list[str], options: dict[str, object]) -> None:
    assert flags(given) == Flags(options)


def test_what_the_engine_has_on_its_own_is_given_apart() -> None:
    given = ["label=zone=a", "registry-mirror=https://m.example", "insecure-registry=r.example", "label=tier="]
    assert flags(given) == Flags(
        labels={"zone": "a", "tier": ""}, registry_mirror=["https://m.example"], insecure_registries=["r.example"]
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("=3", "'=3' is no option: --engine-opt FLAG=VALUE"),
        ("label=zone", "'zone' is no pair: --engine-opt label=NAME=VALUE"),
        ("default-ulimit=nofile", "'nofile' is no limit: --engine-opt default-ulimit=nofile=1024:2048"),
        ("default-ulimit=nofile=many", "'nofile=many' is no limit"),
        ("add-runtime=crun", "'crun' is no runtime: --engine-opt add-runtime=crun=/usr/bin/crun"),
        ("default-address-pool=10.0.0.0/8", "--engine-opt default-address-pool=base=10.0.0.0/8,size=24"),
        ("default-address-pool=base=10.0.0.0/8,size=x", "is no pool of addresses"),
        ("default-network-opt=bridge=k", "'bridge=k' is no network's option"),
        ("feature=x=often", "'x=often' is no feature: --engine-opt feature=containerd-snapshotter=true"),
    ],
)
def test_what_cannot_be_read_is_said_with_an_example(given: str, said: str) -> None:
    with pytest.raises(Failed, match=r"^Error setting machine configuration from flags provided: ") as caught:
        flags([given])
    assert said in caught.value.message


def test_the_files_own_name_does_not_go_with_the_flags() -> None:
    with pytest.raises(Failed, match="'runtimes' is given in two ways"):
        flags(["runtimes=mine", "add-runtime=crun=/usr/bin/crun"])
