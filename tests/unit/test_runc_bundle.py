"""What a machine is, for runc: `Bundle` and the rules of its bridge, against golden files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_machine.drivers.runc import bundle, firewall
from pytest_machine.drivers.runc.frames import Port, honest

GOLDEN = Path(__file__).parents[1] / "rendered"
ALL = tuple(bundle.capabilities((1 << 41) - 1))


def check(name: str, text: str) -> None:
    """Compare with the golden file; PYTEST_MACHINE_GOLDEN=write makes it anew, to be read before it is committed."""
    path = GOLDEN / name
    if os.environ.get("PYTEST_MACHINE_GOLDEN") == "write":
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def make(
    *,
    uid: int | None = 0x70000000,
    cgroups: int = 1,
    memory: int | None = None,
    cpus: float | None = None,
    pids: int = 8192,
    capabilities: tuple[str, ...] = ALL,
    layers: Path | None = None,
) -> bundle.Bundle:
    return bundle.Bundle(
        hostname="web",
        root=Path("/run/pytest-machine/runc/machines/0123456789/root"),
        docker=Path("/var/lib/pytest-machine/runc/machines/0123456789/docker"),
        holder=4711,
        uid=uid,
        capabilities=capabilities,
        group="/pytest-machine/0123456789",
        cgroups=cgroups,
        architecture="x86_64",
        environment=("MACHINE_ADDRESS=10.213.0.2", "container=pytest-machine"),
        layers=layers,
        memory=memory,
        cpus=cpus,
        pids=pids,
    )


BUNDLES = {
    "v1": make(memory=1 << 30),
    "v2": make(cgroups=2, memory=1 << 30),
    "limits": make(cgroups=2, memory=512 << 20, cpus=1.5, pids=100),
    "preload": make(memory=1 << 30, layers=Path("/run/pytest-machine/runc/machines/0123456789/layers.fstab")),
    "no-userns": make(uid=None, memory=1 << 30),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_golden(name: str) -> None:
    check(f"runc-{name}.json", json.dumps(BUNDLES[name].config(), indent=2) + "\n")


def test_rules_golden() -> None:
    ports = [
        Port("ptm01234567890", "02:74:0a:d5:00:02", "10.213.0.2"),
        Port("ptmabcdef01230", "02:74:0a:d5:00:03", "10.213.0.3"),
        Port("ptm99999999990", "02:74:0a:d5:00:04", "10.213.0.4", apart=True),
    ]
    check("runc-rules.nft", firewall.outside("ptm0", "10.213.0.0/20") + honest("ptm0", ports))


def test_rules_of_a_lab_golden() -> None:
    ports = [
        Port("ptm01234567891", "02:74:0a:dd:00:02", "10.221.0.2", given6="fd00::2", home="10.213.0.2"),
        Port("ptmabcdef01231", "02:74:0a:dd:00:03", "10.221.0.3", given6="fd00::3", home="10.213.0.3"),
    ]
    check("runc-rules-lab.nft", honest("ptm1", ports, lab=True, closed=["10.213.0.0/20"]))


def test_seal_golden() -> None:
    sealed = Port("ptm01234567890", "02:74:0a:d5:00:02", "10.213.0.2", apart=True, sealed=True)
    other = Port("ptmabcdef01230", "02:74:0a:d5:00:03", "10.213.0.3", apart=True)
    check("runc-seal.nft", firewall.seal("ptm0", [sealed, other]))
    # Replaced by nothing, in one transaction, where nobody is.
    assert firewall.seal("ptm0", [other]) == "table inet ptm0\ndelete table inet ptm0\n"


def test_capabilities_are_those_that_we_have() -> None:
    assert bundle.capabilities(0b1) == ["CAP_CHOWN"]
    # What a container runtime gives by default, by the kernel's numbers: 0xa80425fb is Docker's own mask.
    docker = {
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
        "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP",
    }  # fmt: skip
    assert set(bundle.capabilities(0xA80425FB)) == {f"CAP_{name}" for name in docker}
    assert len(ALL) == len(set(ALL)) == 41
    assert ALL[-1] == "CAP_CHECKPOINT_RESTORE"


def test_a_bit_that_is_newer_than_we_are_is_passed_over() -> None:
    assert bundle.capabilities(1 << 63) == []


def _given(made: bundle.Bundle) -> set[str]:
    process = made.config()["process"]
    assert isinstance(process, dict)
    return set(process["capabilities"]["bounding"])


def test_only_what_the_host_has_is_handed_on() -> None:
    assert _given(make(capabilities=("CAP_CHOWN", "CAP_SYS_MODULE"))) == {"CAP_CHOWN", "CAP_SYS_MODULE"}
    assert _given(make(uid=None, capabilities=("CAP_CHOWN", "CAP_SYS_MODULE"))) == {"CAP_CHOWN"}


def test_without_a_user_namespace_docker_still_gets_what_it_gives_to_containers() -> None:
    given = _given(make(uid=None))
    assert set(bundle.capabilities(0xA80425FB)) <= given
    assert not given & {
        "CAP_SYS_MODULE", "CAP_SYS_TIME", "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_SYSLOG", "CAP_DAC_READ_SEARCH"
    }  # fmt: skip


@pytest.mark.parametrize("name", BUNDLES)
def test_no_disk_may_be_opened(name: str) -> None:
    linux = BUNDLES[name].config()["linux"]
    assert isinstance(linux, dict)
    rules = linux["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert [rule["access"] for rule in rules if rule.get("type") == "b"] == ["m"]
