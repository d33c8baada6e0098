"""Errors of pytest's own that are about our fixtures say what to write instead."""

from __future__ import annotations

import pytest

from .conftest import Run

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


@pytest.mark.parametrize("name", ["machines", "Machine", "machnie", "machin"])
def test_a_misspelt_mark(inner: pytest.Pytester, name: str) -> None:
    inner.makeini("[pytest]")
    inner.makepyfile(f"import pytest\n@pytest.mark.{name}\ndef test_it(): ...")
    result = inner.runpytest_inprocess("-p", "no:cacheprovider", "-W", "default")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*no mark '{name}'*test_it*", "hint: did you mean @pytest.mark.machine?*"])


def test_a_mark_of_the_users_own(inner: pytest.Pytester) -> None:
    inner.makeini("[pytest]\nmarkers =\n    machines: of ours\n    main: another\n")
    inner.makepyfile("import pytest\n@pytest.mark.machines\n@pytest.mark.main\ndef test_it(): ...")
    inner.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("ram='1g'", "did you mean 'memory='?"),
        ("mem='1g'", "did you mean 'memory='?"),
        ("cpu=2", "did you mean 'cpus='?"),
        ("network='front'", "did you mean networks=['front']?"),
        ("network=['front']", "did you mean 'networks='?"),
        ("hostname='web'", "a machine's name has no keyword, and is its host name: @pytest.mark.machine('web', …)"),
        ("name='web'", "a machine's name has no keyword, and is its host name: @pytest.mark.machine('web', …)"),
        ("memory='512'", "write memory='512m'"),
        ("swarm='yes'", "write swarm=True"),
        ("swarm='no'", "write swarm=False or leave it out"),
        ("needs=['freeze']", "did you mean 'pause'?"),
        ("needs=['snapshot']", "did you mean 'snapshots'?"),
        ("driver='virtualbox'", "use another driver, such as 'runc'"),
        ("driver='amazonec2'", "use another driver, such as 'runc'"),
        ("'my_db'", "write 'my-db'"),
        ("'my db'", "write 'my-db'"),
    ],
)
def test_the_hint_of_a_wrong_argument(inner: pytest.Pytester, argument: str, hint: str) -> None:
    inner.makepyfile(f"import pytest\n@pytest.mark.machine({argument})\ndef test_it(): ...")
    result = inner.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    (found,) = [line for line in result.stdout.lines if line.startswith("hint: ")]
    assert found == f"hint: {hint}"


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        ("lab['wbe']", "did you mean 'web'?"),
        ("lab['x']", "@pytest.mark.machine('x')"),
        ("lab.inject(pytest_machine.Partition(['web'], ['dbb'])).__enter__()", "did you mean 'db'?"),
        ("lab.inject(pytest_machine.Pause('wbe')).__enter__()", "did you mean 'web'?"),
        ("lab['web'].port('nope', 80)", "machine.docker.containers.run(..., name='nope', detach=True)"),
        ("lab['web'].sh(['ls'])", 'machine.sh("ls -l | wc -l"), or machine.run("ls", "-l")'),
    ],
)
def test_the_hint_of_a_wrong_name(inner: pytest.Pytester, call: str, hint: str) -> None:
    inner.makepyfile(
        "import pytest, pytest_machine\npytestmark = [pytest.mark.machine('web'), pytest.mark.machine('db')]\n"
        f"def test_it(lab):\n    {call}"
    )
    result = inner.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    assert f"E       hint: {hint}" in result.stdout.lines


def test_a_stopped_machine_has_a_public_error(inner: pytest.Pytester) -> None:
    inner.makepyfile("def test_it(machine):\n    machine.kill()\n    machine.docker")
    result = inner.runpytest_inprocess()
    result.stdout.fnmatch_lines(
        ["E * pytest_machine.errors.MachineOff: The machine 'machine' does not run.", "*hint: *"]
    )


@pytest.mark.parametrize(
    "error",
    [
        "ImageNotFound('no such image: busybox')",
        "APIError('Get https://registry-1.docker.io/v2/: dial tcp: lookup registry-1.docker.io: no such host')",
        "APIError('pull access denied for nope, repository does not exist')",
    ],
)
def test_an_image_that_is_not_there(run: Run, error: str) -> None:
    source = f"from docker.errors import *\ndef test_it(machine): raise {error}"
    run(source, failed=1).stdout.fnmatch_lines(["E *hint: *preload=[[]'IMAGE'[]]*"])


def test_any_other_error_of_docker(run: Run) -> None:
    source = "from docker.errors import *\ndef test_it(machine): raise APIError('conflict')"
    run(source, failed=1).stdout.no_fnmatch_line("*hint:*")
