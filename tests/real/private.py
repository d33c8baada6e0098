"""A host of one's own inside this one: what is done there, or goes wrong there, harms nobody, and all in it is ours.

Network, mounts and processes are new namespaces; where the driver 'runc' keeps things are small empty file systems. So
an oracle may count everything, a disk may be full, and `prune --all` meets no stranger's machine. Only control groups
are shared with the rest of this computer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TOP = Path(__file__).parents[2]

# The new network namespace shows only in a /sys of its own, which must get back the groups that are mounted below it.
# The shell is the first process of its namespace, and buries whoever is orphaned there.
# What others' machines have mounted is let go of: it would hide here and be in use, and a disk that its machine mounts
# anew meanwhile would be mounted twice.
_SETUP = """
set -e
grep -o ' /\\(var/lib\\|run\\)/pytest-machine/[^ ]*' /proc/self/mounts | sort -r | while read -r each; do
    umount -l "$each" || true
done
mkdir -p /var/lib/pytest-machine /run/pytest-machine /run/ptm-groups
mount --rbind /sys/fs/cgroup /run/ptm-groups
mount -t sysfs sysfs /sys
mount --rbind /run/ptm-groups /sys/fs/cgroup
umount -R -l /run/ptm-groups
mount -t tmpfs -o mode=711,size=$SIZE private /var/lib/pytest-machine
mount -t tmpfs -o mode=711,size=64m private /run/pytest-machine
ip link set lo up
status=0
"$@" || status=$?
exit $status
"""


def run(module: str, *arguments: str, timeout: float, size: str = "1g") -> subprocess.CompletedProcess[str]:
    """Run a module of these tests on a host of its own, whose disk has `size`; its output is text, errors included."""
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    argv: Sequence[str] = [*namespaces, "--propagation", "private", "sh", "-c", _SETUP, "sh"]
    path = os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*argv, sys.executable, "-m", module, *arguments],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": path, "SIZE": size},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
