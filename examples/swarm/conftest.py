"""What the Swarm of the examples serves, and how it tells what it does.

Your own suite would name an image of a registry; these have one that is made in memory.
"""

from __future__ import annotations

from examples.demo.conftest import busybox, tell

__all__ = ["busybox", "tell"]
