"""A host is wrecked on purpose. Its neighbour does not notice, and neither does the computer that you sit at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine import Lab


@pytest.mark.machine("victim", teardown="kill")
@pytest.mark.machine("bystander")
def test_one_host_is_wrecked_and_the_other_goes_on(
    lab: Lab, busybox: Callable[..., str], tell: Callable[[str], None]
) -> None:
    programs_of_this_computer = sorted(Path("/usr/bin").iterdir())
    victim, bystander = lab["victim"], lab["bystander"]
    image = busybox(victim, bystander)
    assert victim.run("cat", "/etc/hostname").stdout == "victim\n"

    tell("victim# rm -rf --no-preserve-root /")
    victim.run("rm", "-rf", "--no-preserve-root", "/", check=False, timeout=60)
    wrecked = victim.run("cat", "/etc/hostname", check=False)
    tell(f"'victim' answers {wrecked.returncode}: {wrecked.stderr.strip()!r}")
    assert wrecked.returncode != 0

    said = bystander.docker.containers.run(image, ["echo", "all is well"], remove=True)
    tell(f"a container on 'bystander' says {said.decode().strip()!r}")
    assert said == b"all is well\n"
    assert Path("/etc/hostname").read_text(encoding="utf-8") != "victim\n"
    assert sorted(Path("/usr/bin").iterdir()) == programs_of_this_computer
