"""This project's own, not to be copied: which of the examples are long proofs, run by `tox -e proof` alone."""

from __future__ import annotations

import pytest

from tests.conftest import full_only

# A Swarm takes its time for an election. The other test of that file has one, too.
LONG = {"test_the_leader_dies_and_the_others_go_on"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(item, "originalname", "") in LONG:
            item.add_marker("proof")
            item.add_marker(full_only)
