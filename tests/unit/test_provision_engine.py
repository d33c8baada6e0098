"""What installs Docker, for every family: against golden files, and as a shell would run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_machine.errors import ProvisionFailed
from pytest_machine.guest import Step
from pytest_machine.provisioner import Facts, Wanted
from pytest_machine.provisioners.engine import steps
from pytest_machine.provisioners.engine.families import FAMILIES, family

from .systems import OS_RELEASE, facts

GOLDEN = Path(__file__).parents[1] / "rendered"
BRING_IT = ("flatcar", "boot2docker")
INSTALLED = [system for system in OS_RELEASE if system not in BRING_IT]
# What the systems' programs would be; each notes how it was called, and succeeds.
PROGRAMS = (
    "apt-get",
    "apt-cache",
    "dpkg",
    "dnf",
    "yum",
    "zypper",
    "SUSEConnect",
    "amazon-linux-extras",
    "pacman",
    "apk",
)


def shown(found: list[Step]) -> str:
    parts = []
    for step in found:
        words = f"  # {' '.join(step.arguments)}" if step.arguments else ""
        parts.append(f"### {step.says}, tried {step.tries} times{words}\n{step.script}")
    return "\n".join(parts)


@pytest.mark.parametrize("system", INSTALLED)
def test_golden(system: str) -> None:
    its = family(facts(system))
    text = (
        f"# {facts(system).pretty}: family '{its.name}'\n\n"
        f"{shown(steps(facts(system), Wanted()))}\n"
        f"## which packages are its engine\n{its.owned}\n"
        f"## upgrade\n\n{shown(its.upgrade(('ENGINE', 'CLIENT')))}"
    )
    golden = GOLDEN / f"provision-{system}.txt"
    if os.environ.get("PYTEST_MACHINE_GOLDEN") == "write":
        golden.write_text(text, newline="\n")
    assert text == golden.read_text()


def test_with_a_script() -> None:
    """Whatever the system's packages are, they are not asked for Docker."""
    found = steps(facts("rocky-9"), Wanted(install_url="https://user:secret@example.com/install.sh"))
    text = shown(found)
    golden = GOLDEN / "provision-by-script.txt"
    if os.environ.get("PYTEST_MACHINE_GOLDEN") == "write":
        golden.write_text(text, newline="\n")
    assert text == golden.read_text()
    assert "docker-ce" not in text
    assert "secret" not in text, "the address is read, and no word of a command"
    assert found[-2].input == "https://user:secret@example.com/install.sh\n"


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("ubuntu-24.04", "debian"), ("mint-22", "debian"), ("raspbian-11", "debian"), ("alma-9", "redhat"),
        ("oracle-9", "redhat"), ("amazon-2", "amazon"), ("fedora-41", "fedora"), ("sles-15.6", "suse"),
        ("manjaro", "arch"), ("flatcar", "flatcar"), ("boot2docker", "boot2docker"),
    ],
)  # fmt: skip
def test_the_family(system: str, name: str) -> None:
    assert family(facts(system)).name == name


def test_no_system_is_of_two_families() -> None:
    ids = [name for each in FAMILIES for name in each.ids]
    assert len(ids) == len(set(ids))


def test_an_unknown_system() -> None:
    with pytest.raises(ProvisionFailed, match="OS type not recognized") as caught:
        family(Facts(os="plan9", like=("inferno",), pretty="Plan 9 from Bell Labs"))
    assert "Plan 9 from Bell Labs" in str(caught.value)
    assert "'debian'" in str(caught.value)
    assert "pytest_machine_provisioners" in caught.value.hint
    with pytest.raises(ProvisionFailed, match="OS type not recognized"):
        family(Facts(os=""))


@pytest.mark.parametrize("system", BRING_IT)
def test_a_system_that_should_bring_it(system: str) -> None:
    with pytest.raises(ProvisionFailed, match="Docker is a part of"):
        steps(facts(system, engine=""), Wanted())


def shell(system: str) -> tuple[str, ...]:
    """Return whose shell it is: Alpine's is busybox's, which takes its own programs first."""
    return ("busybox", "sh") if system.startswith("alpine") and shutil.which("busybox") else ("sh",)


def ran(found: list[Step], tmp_path: Path, system: str, *, without: str = "") -> list[str]:
    """Run the steps by a shell that finds stand-ins for the systems' programs; return how these were called."""
    tmp_path = tmp_path / "bin"
    tmp_path.mkdir(exist_ok=True)
    for name in PROGRAMS:
        if name != without:
            # Nothing is read: who would ask a question gets none answered.
            quiet = "! read -r _ || exit 9\n" if name != "apt-cache" else ""
            (tmp_path / name).write_text(f'#!/bin/sh\n{quiet}echo {name} "$@" >>{tmp_path}/../calls\n')
            (tmp_path / name).chmod(0o755)
    for name in ("grep", "sed", "head", "uname", "cat", "mv"):
        if not (tmp_path / name).exists() and (where := shutil.which(name)):
            (tmp_path / name).symlink_to(where)
    (tmp_path / "../calls").write_text("")
    for step in found:
        script = step.script.replace("/etc/yum.repos.d", str(tmp_path)).replace("curl ", "echo curl ")
        first, *rest = shell(system)
        subprocess.run(
            [shutil.which(first) or first, *rest, "-c", script, "sh", *step.arguments],
            input=f"an answer\n{step.input}", text=True, env={"PATH": str(tmp_path)}, check=True,
        )  # fmt: skip
    return (tmp_path / "../calls").read_text().splitlines()


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="what is run in machines is run by Linux")
@pytest.mark.parametrize(
    ("system", "without", "calls"),
    [
        ("debian-12", "apt-cache", "dpkg --configure|update|install --no-install-recommends docker.io ca-certificates"),
        ("debian-sid", "", "dpkg --configure|update|apt-cache show docker-cli|docker.io ca-certificates docker-cli"),
        ("fedora-41", "", "dnf -y install moby-engine|dnf -y install docker-cli"),
        ("rocky-9", "", "dnf -y install docker-ce docker-ce-cli containerd.io"),
        ("centos-7", "dnf", "yum -y install docker-ce docker-ce-cli containerd.io"),
        ("oracle-7", "dnf", "yum -y install --enablerepo=ol7_addons docker-engine"),
        ("oracle-9", "", "dnf -y install docker-ce docker-ce-cli containerd.io"),
        ("amazon-2", "dnf", "amazon-linux-extras install -y docker"),
        ("amazon-2023", "", "dnf -y install docker"),
        (
            "opensuse-15.6",
            "",
            "zypper --non-interactive refresh|zypper --non-interactive install --no-recommends docker",
        ),
        ("sles-15.6", "", "zypper --non-interactive search --match-exact|refresh|install --no-recommends docker"),
        ("arch", "", "pacman --noconfirm --noprogressbar -S --needed docker"),
        ("alpine-3.20", "", "apk --no-progress --wait 30 update|apk --no-progress --wait 30 add docker"),
    ],
)
def test_what_is_called(system: str, without: str, calls: str, tmp_path: Path) -> None:
    found = [step for step in steps(facts(system), Wanted()) if "noting" not in step.says]
    seen = ran(found, tmp_path, system, without=without)
    assert len(seen) == len(calls.split("|")), seen
    for call, part in zip(seen, calls.split("|"), strict=True):
        assert part in call


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="what is run in machines is run by Linux")
@pytest.mark.parametrize("system", INSTALLED)
def test_an_upgrade_names_the_engines_packages_alone(system: str, tmp_path: Path) -> None:
    seen = ran(
        family(facts(system)).upgrade(("docker-x", "client-x")), tmp_path, system, without="dnf" * ("7" in system)
    )
    assert seen[-1].endswith("docker-x client-x")
    assert not any("docker-x" in call for call in seen[:-1])


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="what is run in machines is run by Linux")
def test_alpines_community_is_found_beside_main(tmp_path: Path) -> None:
    """It need not be enabled, and stays as it is."""
    repositories = tmp_path / "repositories"
    for text, expected in {
        "#/media/cdrom/apks\nhttps://mirror.example/alpine/v3.20/main\n#https://mirror.example/alpine/v3.20/community\n":
        "--repository https://mirror.example/alpine/v3.20/community docker",
        "https://mirror.example/alpine/v3.20/main\nhttps://mirror.example/alpine/v3.20/community\n": "add docker",
    }.items():  # fmt: skip
        repositories.write_text(text)
        (step,) = (step for step in steps(facts("alpine-3.20"), Wanted()) if step.says == "installing Docker")
        changed = Step(step.says, step.script.replace("/etc/apk/repositories", str(repositories)))
        (call,) = ran([changed], tmp_path, "alpine")
        assert call.endswith(expected)
        assert repositories.read_text() == text
