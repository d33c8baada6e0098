"""Makes an engine as it was when its machine was new, through its own API: what it holds is noted, and compared.

This is the cheap half of a reset. It is tried first, and believed only when the inventory afterwards is the one that
was noted; whatever cannot be cleaned so is for the driver, which has the machine's disk.
"""

from __future__ import annotations

import math
from pathlib import Path
from urllib.parse import quote

from .engine import TROUBLE, Api
from .model import Address
from .support import clock

Inventory = dict[str, object]
"""What an engine holds: values that `json` can write, equal when nothing that a test could see is different."""

# Seconds for one answer. Removing a volume of a gigabyte takes one; an engine that takes longer is laid again sooner.
_TIMEOUT = 20.0
# Seconds for the first question. Whatever keeps an engine from telling about itself, it is not worth the wait.
_GLANCE = 3.0
# Seconds that an engine gets to let go of what it said was removed: the gateway network of a Swarm is in use for a
# moment after it was left. Longer than that, and laying the machine again is the faster way.
_SETTLE = 1.5
_LOOK = 0.1
# The networks that every engine has and nobody can remove.
_BUILT_IN = frozenset({"bridge", "host", "none"})


def inventory(address: Address, *, certs: Path) -> Inventory:
    """Return what the engine holds now; raises what `Api` raises."""
    with Api(address, certs=certs, timeout=_TIMEOUT) as api:
        return _inventory(api)


def clean(address: Address, *, certs: Path, pristine: Inventory) -> bool:
    """Remove all that is not in `pristine`; return whether the engine holds just that, afterwards."""
    try:
        with Api(address, certs=certs, timeout=_GLANCE) as api:
            if _swarm(api) != pristine["swarm"] and _has_fellows(api):
                return False
            api.allow(_TIMEOUT)
            until = math.inf
            while (found := _inventory(api)) != pristine:
                try:
                    _remove(api, found, pristine)
                except ValueError:  # something is in use: still, or for good
                    until = min(until, clock.monotonic() + _SETTLE)  # since the first: leaving a Swarm may take as long
                    if clock.monotonic() > until:
                        return False
                    clock.sleep(_LOOK)
                else:
                    return _inventory(api) == pristine
            return True
    except TROUBLE:
        return False


def _inventory(api: Api) -> Inventory:
    return {
        "swarm": _swarm(api),
        "containers": sorted(c["Id"] for c in api.get("/containers/json?all=1")),
        "images": {i["Id"]: sorted(i["RepoTags"] or ()) for i in api.get("/images/json?all=1")},
        "networks": sorted(n["Id"] for n in api.get("/networks")),
        "volumes": sorted(v["Name"] for v in api.get("/volumes")["Volumes"] or ()),
        "plugins": sorted(p["Id"] for p in api.get("/plugins")),
        "build cache": sorted(e["ID"] for e in api.get("/system/df").get("BuildCache") or ()),
    }


def _swarm(api: Api) -> str:
    """Return what it is in a Swarm, in Docker's words; ``/info`` says so, too, but has it run three programs first."""
    try:
        api.get("/swarm")
    except ValueError as error:
        return str(error)
    return "a manager"


def _has_fellows(api: Api) -> bool:
    """Whether it is in a Swarm with others.

    Then there is nothing to clean. Docker takes 5 s to leave each of the others, and a manager without a majority takes
    20 for whatever it is asked, and a machine is laid again in one or two.
    """
    swarm = api.get("/info")["Swarm"]
    if swarm["LocalNodeState"] == "inactive":
        return False
    return not swarm["ControlAvailable"] or not swarm.get("Managers") == swarm.get("Nodes") == 1


def _remove(api: Api, found: Inventory, pristine: Inventory) -> None:
    """Remove in the order in which one thing holds another."""
    for container in _added("containers", found, pristine):
        api.delete(f"/containers/{container}?force=1&v=1")
    if found["swarm"] != pristine["swarm"]:
        # Its services' containers and overlay networks go with it.
        api.post("/swarm/leave?force=1")
        found = _inventory(api)
    for network in api.get("/networks"):
        if network["Name"] not in _BUILT_IN and network["Id"] in _added("networks", found, pristine):
            api.delete(f"/networks/{network['Id']}")
    for volume in _added("volumes", found, pristine):
        api.delete(f"/volumes/{quote(volume)}?force=1")
    if found["build cache"] != pristine["build cache"]:
        api.post("/build/prune?all=1")
    _remove_images(api, pristine["images"])
    for plugin in _added("plugins", found, pristine):
        api.delete(f"/plugins/{plugin}?force=1")


def _remove_images(api: Api, kept: object) -> None:
    assert isinstance(kept, dict)
    # Children are listed before their parents; a tag that was added to a kept image goes by its name.
    for image in api.get("/images/json?all=1"):
        if image["Id"] not in kept:
            api.delete(f"/images/{image['Id']}?force=1")
        else:
            for tag in set(image["RepoTags"] or ()) - set(kept[image["Id"]]):
                api.delete(f"/images/{quote(tag)}?noprune=1")


def _added(kind: str, found: Inventory, pristine: Inventory) -> list[str]:
    now, before = found[kind], pristine[kind]
    assert isinstance(now, list)
    assert isinstance(before, list)
    return [each for each in now if each not in before]
