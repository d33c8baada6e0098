"""Builds the machine image inside the engine, where this computer cannot: no root, no mmdebstrap, another system.

A container of Debian's own image from the engine's registry installs what a recipe names and gets our files; what comes
of it is committed. It needs nothing of this computer, and of the engine what ``docker build`` would need.
"""

from __future__ import annotations

import shlex

from pytest_machine.errors import DriverError
from pytest_machine.images import Recipe, recipe
from pytest_machine.model import SeedFile

from . import tags
from .life import archive
from .outer import Outer, said

# Seconds that the whole may take: 150 MB from a mirror, and half a minute of unpacking.
_BUILD = 1200

# Debian's own image starts no services already, and leaves out what nobody reads. What `pytest_machine.images.build`
# takes out of its tree goes here too: it must differ between machines.
_STEPS = """set -e
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt-get -q update
apt-get -q install --yes --no-install-recommends {packages}
apt-get clean
rm -rf /etc/ssh/ssh_host_* /var/lib/apt/lists/* /var/log/*
: >/etc/machine-id
mkdir -p /etc/docker
cp -a {files}/. /
rm -rf {files}
{links}"""

# Our files wait here: dpkg would ask whom to believe of a file that a package has too.
_FILES = "/machine-files"


def steps(made: Recipe) -> str:
    """Return the script that makes a Debian into a recipe's image."""
    links = "\n".join(
        shlex.join(["mkdir", "-p", f"/{link}".rpartition("/")[0]])
        + "\n"
        + shlex.join(["ln", "-sfn", target, f"/{link}"])
        for link, target in made.links.items()
    )
    return _STEPS.format(packages=" ".join(made.packages), links=links, files=_FILES)


def inside(outer: Outer, suite: str, reference: str, labels: tags.Labels) -> None:
    """Build a Debian release's image in the engine; call it with the engine's lock held."""
    made = recipe(suite)
    base = f"debian:{suite}-slim"
    for left in outer.containers(tags.IMAGE):  # of a builder that was killed
        outer.remove_container(left["Id"])
    _pull(outer, base)
    config = {
        "Image": base,
        "Cmd": [
            "/bin/sh",
            "-c",
            steps(made),
        ],  # Debian's image has no entry point, and one could not be taken out again
        "Labels": labels,
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {}}},
    }
    id_ = str(outer.create_container(config)["Id"])
    try:
        files = {f"{_FILES}/{target}": SeedFile(text.encode(), mode) for target, mode, text in made.files.values()}
        outer.api.put_archive(id_, "/", archive(files))
        outer.api.start(id_)
        status = outer.api.wait(id_, timeout=_BUILD)["StatusCode"]
        if status != 0:
            raise DriverError(
                f"The machine image '{suite}' could not be built in the engine.",
                facts={"exit code": status, "last": _last_words(outer, id_)},
                hint=f"docker run --rm {base} apt-get update, and see whether it works by hand",
            )
        # A half gigabyte is written and digested before the answer.
        outer.api.timeout = _BUILD
        name, _, tag = reference.partition(":")
        changes = ['CMD ["/bin/bash"]', *(f"LABEL {key}={value}" for key, value in labels.items())]
        outer.api.commit(id_, repository=name, tag=tag, changes=changes)
    finally:
        outer.remove_container(id_)


def _pull(outer: Outer, base: str) -> None:
    import docker.errors

    if outer.image(base):
        return
    name, _, tag = base.partition(":")
    try:
        outer.api.timeout = _BUILD
        for step in outer.api.pull(name, tag=tag, stream=True, decode=True):
            if "error" in step:
                raise DriverError(
                    f"The engine cannot get the image '{base}', of which machines are made.",
                    facts={"it said": step["error"]},
                    hint=f"docker pull {base}, or as root, without it: docker-machine image build",
                )
    except docker.errors.APIError as error:
        raise DriverError(
            f"The engine cannot get the image '{base}', of which machines are made.",
            facts={"it said": said(error)},
            hint=f"docker pull {base}, or as root, without it: docker-machine image build",
        ) from error


def _last_words(outer: Outer, id_: str) -> str:
    lines = outer.api.logs(id_, tail=12).decode(errors="replace").splitlines()
    return next((line for line in lines if line.startswith("E:")), lines[-1] if lines else "")
