"""Files and documents are read with bounds: which modules read without, and why they may."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pytest_machine"

# Module → why it may read a whole file, or a document of any depth.
WHOLE = {
    "daemon.py": "what this process has written itself",
    "drivers/docker/life.py": "a file of the package",
    "drivers/docker/network.py": "/proc",
    "drivers/runc/firewall.py": "/proc",
    "drivers/runc/guest.py": "the host's own resolv.conf",
    "drivers/runc/kernel.py": "/proc and /sys",
    "drivers/runc/life.py": "runc's log and /proc",
    "drivers/runc/network.py": "/proc, /sys, and the answer of the host's ip",
    "drivers/runc/traces.py": "/proc",
    "drivers/runc/wiring.py": "the answers of the host's nft and ip",
    "faults/network/script.py": "a file of the package",
    "images/__init__.py": "/proc",
    "images/build.py": "files of the package and of the host, and of a tree that was built just now",
    "cli/docker_plugin.py": "a program of this installation",
    "memory.py": "/proc and /sys",
    "owner.py": "/etc/machine-id",
    "plugin/findings.py": "bounded by what collects it, and a document that is too deep is passed over",
    "plugin/setting_values.py": "pyproject.toml, which pytest has read already",
    "plugin/timeline.py": "files of the package",
    "plugins.py": "metadata of installed packages",
    "provisioners/daemon/merge.py": "bounded by what fetches it, and a document that is too deep is an error",
    "provisioners/daemon/plan.py": "written by this process; a note of the machine that is too deep is passed over",
    "swarm.py": "the text of an error that docker-py has read",
}  # fmt: skip


def reads(path: Path) -> bool:
    """Return whether a module reads a file or a JSON document with nothing that bounds it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            if (name in ("read_text", "read_bytes") and owner not in ("files", "given")) or (
                name in ("load", "loads") and owner in ("json", "tomllib", "pickle", "marshal")
            ):
                if (
                    name == "loads"
                    and owner == "tomllib"
                    and any("read_text(file" in ast.unparse(a) for a in node.args)
                ):
                    continue
                return True
    return False


def test_only_these_modules_read_without_a_bound() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ("support", "testing") and reads(path)
    }
    assert found - {"plan.py", "cli/declared.py"} == WHOLE.keys()
