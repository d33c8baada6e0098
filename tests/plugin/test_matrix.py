"""A list of engines: a run of the test for each, by its id, and what is said where there cannot be one."""

from __future__ import annotations

import pytest

from .conftest import Run

HEAD = "import pytest\n"
SHOW = "    print('version', machine.docker.version()['Version'])\n"


def test_the_test_runs_on_each(run: Run) -> None:
    result = run(
        HEAD + "@pytest.mark.machine(engine=['20.10', '26.1'])\ndef test_x(machine):\n" + SHOW, "-sv", passed=2
    )
    result.stdout.fnmatch_lines(["*test_x?docker-20.10? version 20.10", "*test_x?docker-26.1? version 26.1"])


def test_its_id_can_be_asked_for(run: Run) -> None:
    source = HEAD + "@pytest.mark.machine(engine=['20.10', '26.1'])\ndef test_x(docker_client): pass\n"
    result = run(source, "-v", "test_it.py::test_x[docker-26.1]", passed=1)
    result.stdout.fnmatch_lines(["*test_x?docker-26.1? PASSED*"])


def test_beside_other_parameters_and_on_a_module(run: Run) -> None:
    source = (
        HEAD
        + "pytestmark = pytest.mark.machine(engine=['1', '2'])\n"
        + "@pytest.mark.parametrize('word', ['a', 'b'])\ndef test_x(machine, word): pass\n"
        + "class TestIt:\n    def test_y(self, lab): assert len(lab) == 1\n"
        + "def test_implied(): pass\n"
        + "def test_wider(module_machine_factory): pass\n"
    )
    result = run(source, "-v", passed=9)
    result.stdout.fnmatch_lines_random(
        [
            "*test_x?a-docker-1? *",
            "*test_x?b-docker-2? *",
            "*test_y?docker-1? *",
            "*test_implied?docker-2? *",
            "*test_wider PASSED*",
        ]
    )


def test_two_lists_are_every_combination(run: Run) -> None:
    source = HEAD + (
        "@pytest.mark.machine('a', engine=['1', '2'])\n@pytest.mark.machine('b', engine=['2', '3'])\n"
        "@pytest.mark.machine('c', engine='9')\n"
        "def test_x(machines):\n    print('versions', *[m.docker.version()['Version'] for m in machines])\n"
    )
    result = run(source, "-sv", passed=4)
    result.stdout.fnmatch_lines(["*test_x?docker-1-2? versions 1 2 9", "*versions 1 3 9", "*versions 2 2 9"])


def test_a_static_build_is_called_by_its_version(run: Run) -> None:
    source = HEAD + (
        "@pytest.mark.machine(engine=['https://example.com/x/docker-27.5.1.tgz', './docker-24.0.tar.gz'])\n"
        "def test_x(machine): pass\n"
    )
    run(source, "-v", passed=2).stdout.fnmatch_lines(["*?docker-27.5.1? *", "*?docker-24.0? *"])


def test_shared_machines_are_shared_on_each(run: Run) -> None:
    source = HEAD + (
        "pytestmark = pytest.mark.machine(engine=['1', '2'], reuse='module')\nseen = set()\n"
        "def test_x(machine): seen.add(machine.id)\n"
        "def test_y(machine):\n    seen.add(machine.id)\n    assert len(seen) <= 2\n"
    )
    run(source, passed=4).stdout.fnmatch_lines(["2 machines made*"])


def test_a_factory_makes_what_the_test_runs_on(run: Run) -> None:
    source = HEAD + (
        "@pytest.mark.machine(engine=['1', '2'])\n"
        "def test_x(machine_factory, request):\n"
        "    version = machine_factory().docker.version()['Version']\n"
        "    assert request.node.name == f'test_x[docker-{version}]'\n"
    )
    run(source, passed=2)


def test_a_module_machine_cannot_have_a_list(run: Run) -> None:
    source = HEAD + "pytestmark = pytest.mark.machine(engine=['1', '2'])\ndef test_x(module_machine): pass\n"
    result = run(source, errors=1)
    result.stdout.fnmatch_lines(
        ["*A list of engines is for a test's own machines*", "*hint: use the fixture 'machine'*"]
    )


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("engine=20.10", "*it takes text: a number has lost its last zero*"),
        ("engine=[]", "*it takes one or more, each once*"),
        ("engine=['1', '1']", "*it takes one or more, each once*"),
        ("preload=7", "*it takes a list of images and archives*"),
        ("labels={'a': 1}", "*it takes a table of texts*"),
        ("engine_options={'hosts': []}, driver='fake'", "*The engine cannot have 'hosts' in engine_options=*"),
        ("engine_options=['x']", "*it takes a table, as daemon.json is*"),
        ("engine_env={'DOCKERD_ARGS': 'x'}, driver='fake'", "*are the machine's own*"),
        ("registry_mirror='mirror', driver='fake'", "*it takes an address*"),
    ],
)
def test_wrong_words_end_the_collection(run: Run, argument: str, said: str) -> None:
    result = run(HEAD + f"@pytest.mark.machine({argument})\ndef test_x(machine): pass\n", errors=1)
    result.stdout.fnmatch_lines([said, "*hint: *"])


def test_a_list_in_the_table_is_refused(inner: pytest.Pytester) -> None:
    inner.makepyprojecttoml("[tool.pytest-machine]\nengine = ['1', '2']\n")
    inner.makepyfile("def test_x(machine): pass")
    inner.runpytest_inprocess().stderr.fnmatch_lines(["*a list of versions is for marks*"])


def test_the_daemons_settings_are_in_the_machine(run: Run) -> None:
    """The fake driver writes the seed's files below its disk, and does nothing with these."""
    source = HEAD + (
        "import json\nfrom pathlib import Path\n"
        "@pytest.mark.machine(registry_mirror='https://mirror.example', insecure_registries=['r:5000'],\n"
        "    labels={'zone': 'a'}, engine_options={'debug': True}, engine_env={'HTTPS_PROXY': 'http://u:p@x'})\n"
        "def test_x(machine):\n"
        "    disk = machine.driver.directory / 'machines' / machine.id / 'disk/etc/docker'\n"
        "    assert json.loads((disk / 'daemon.json').read_text()) == {'debug': True,\n"
        "        'labels': ['zone=a', 'provider=fake'],\n"
        "        'insecure-registries': ['r:5000'], 'registry-mirrors': ['https://mirror.example']}\n"
        "    assert (disk / 'machine.env').read_text() == 'HTTPS_PROXY=http://u:p@x\\n'\n"
        "    assert 'u:p' not in (machine.record.directory / 'pytest-machine.json').read_text()\n"
    )
    run(source)
