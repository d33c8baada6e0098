"""Which family of systems a machine is of.

What is run follows from the facts alone; `tests/rendered/provision-*.txt` shows it for each family, and
docs/provisioning.md says where it was looked up.
"""

from __future__ import annotations

from pytest_machine.errors import ProvisionFailed
from pytest_machine.model import names
from pytest_machine.provisioner import Facts

from .apt import DEBIAN
from .kind import Family
from .others import ALPINE, ARCH, BOOT2DOCKER, FLATCAR
from .rpm import AMAZON, FEDORA, REDHAT, SUSE

FAMILIES = (DEBIAN, REDHAT, FEDORA, AMAZON, SUSE, ARCH, ALPINE, FLATCAR, BOOT2DOCKER)


def family(facts: Facts) -> Family:
    """Return the family of a system; raises `ProvisionFailed` for one that nobody knows."""
    for name in (facts.os, *facts.like):
        for each in FAMILIES:
            if name in each.ids:
                return each
    raise ProvisionFailed(
        "The machine could not be made a Docker host: OS type not recognized.",
        facts={
            "it says": facts.pretty or "nothing: there is no os-release",
            "ID": facts.os or "none",
            "ID_LIKE": " ".join(facts.like) or "none",
            "known": names(each.name for each in FAMILIES),
        },
        hint="install Docker yourself on one of these, or add a provisioner 'engine' with the hook "
        "pytest_machine_provisioners",
    )
