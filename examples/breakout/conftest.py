"""The demo's container image."""

from examples.demo.conftest import busybox

__all__ = ["busybox"]
