"""Errors of pytest's own that are about our fixtures say what to write instead."""

from __future__ import annotations

import pytest

ASKED = ("machine", "machines", "lab", "swarm", "docker_client", "machine_factory")
INSTEAD = {
    "class": ("class_machine", "class_lab", "class_lab", "class_swarm", "class_machine", "class_machine_factory"),
    "module": (
        "module_machine",
        "module_lab",
        "module_lab",
        "module_swarm",
        "module_machine",
        "module_machine_factory",
    ),
    "package": (
        "session_machine",
        "session_lab",
        "session_lab",
        "session_lab",
        "session_machine",
        "session_machine_f*",
    ),
    "session": (
        "session_machine",
        "session_lab",
        "session_lab",
        "session_lab",
        "session_machine",
        "session_machine_f*",
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("scope", INSTEAD)
def test_a_fixture_of_a_wider_scope(inner: pytest.Pytester, scope: str, dynamic: bool) -> None:
    source = "import pytest\n"
    for name in ASKED:
        source += f"@pytest.fixture(scope='{scope}')\n"
        if dynamic:
            source += f"def of_{name}(request): return request.getfixturevalue('{name}')\n"
        else:
            source += f"def of_{name}({name}): return {name}\n"
        source += f"def test_{name}(of_{name}): ...\n"
    inner.makepyfile(source)
    result = inner.runpytest_inprocess()
    result.assert_outcomes(errors=len(ASKED))
    lines = []
    for name, instead in zip(ASKED, INSTEAD[scope], strict=True):
        lines += [
            f"*fixture {name} with a {scope} scoped request*",
            f"*hint: a fixture with scope='{scope}' uses {instead}*",
        ]
    result.stdout.fnmatch_lines(lines)


def test_a_scope_between_ours(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        "import pytest\n@pytest.fixture(scope='session')\ndef box(module_machine): ...\ndef test_it(box): ..."
    )
    result = inner.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*hint: a fixture with scope='session' uses session_machine"])


def test_a_fixture_that_is_not_ours(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        "import pytest\n@pytest.fixture\ndef mine(): ...\n"
        "@pytest.fixture(scope='module')\ndef box(mine): ...\ndef test_it(box, machine): ..."
    )
    result = inner.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ScopeMismatch*fixture mine*"])
    result.stdout.no_fnmatch_line("*hint:*")
