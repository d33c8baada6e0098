from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys

import pytest


def test_a_process_is_refused() -> None:
    with pytest.raises(AssertionError, match="real"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with pytest.raises(AssertionError, match="real"):
        multiprocessing.Process(target=print).start()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_is_refused() -> None:
    with pytest.raises(AssertionError, match="real"):
        os.fork()


def test_a_connection_to_elsewhere_is_refused() -> None:
    # 192.0.2.0/24 is nobody's (RFC 5737).
    with socket.socket() as out, pytest.raises(AssertionError, match="not this computer"):
        out.connect(("192.0.2.1", 9))


@pytest.mark.real
def test_the_marker_lifts_it() -> None:
    assert subprocess.run([sys.executable, "-c", ""], check=True).returncode == 0
