"""``up`` and ``down``: a file of machines, made and removed, and mended after a crash."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Program, Said

FILE = """
[machines.web]
driver = "fake"
memory = "1g"

[machines.node]
driver = "fake"
count = 2
labels = { zone = "a" }
"""
NAMES = ["node-1", "node-2", "web"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "machines.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def do(quick: Program, file: Path) -> Callable[..., Said]:
    """Return a function that calls the program with that file."""

    def call(command: str, *args: str, **more: str) -> Said:
        return quick(command, "-f", str(file), *args, **more)

    return call


Do = Callable[..., Said]


def test_engines_that_are_there_already(quick: Program, tmp_path: Path) -> None:
    """The driver 'none' only gives them names: whether they answer is asked later."""
    assert quick("create", "-d", "fake", "base").code == 0
    url = quick("url", "base").out.strip()
    path = tmp_path / "there.toml"
    path.write_text(
        f"[machines.other]\ndriver = 'none'\noptions = {{ url = '{url}' }}\n"
        "[machines.socket]\ndriver = 'none'\noptions = { url = 'unix:///nowhere/docker.sock' }\n"
    )
    said = quick("up", "-f", str(path))
    assert (said.code, said.err) == (0, "")
    assert '"other" is up, in 0.' in said.out
    assert "(none, unix:///nowhere/docker.sock)" in said.out
    assert quick("url", "other").out.strip() == url
    assert quick("up", "-f", str(path)).out.splitlines() == ['"other" is there', '"socket" is there']
    assert quick("down", "-y", "-f", str(path)).code == 0
    assert quick("ls", "-q").out.split() == ["base"]


class TestUp:
    def test_all_of_it_and_again(self, quick: Program, do: Do) -> None:
        said = do("up")
        assert (said.code, said.err) == (0, "")
        assert said.out.splitlines()[0] == "Creating web, node-1, node-2..."
        assert quick.store.names() == NAMES
        web = quick.store.load("web")
        assert web.options["memory"] == "1g"
        assert quick.store.load("node-2").engine == {"options": {"labels": ["zone=a"]}, "env": []}
        assert len({quick.store.load(name).lab for name in NAMES}) == 1
        assert quick("ls", "-q").out.split() == NAMES
        again = do("up")
        assert (again.code, again.err) == (0, "")
        assert again.out.splitlines() == ['"web" is there', '"node-1" is there', '"node-2" is there']
        assert quick.store.load("web") == web

    def test_what_is_missing_gone_or_off(self, quick: Program, do: Do) -> None:
        do("up")
        ids = {name: quick.store.load(name).id for name in NAMES}
        quick("rm", "-y", "web")
        quick.driver.destroy(quick.store.load("node-1"))
        quick("stop", "node-2")
        foretold = do("up", "--dry-run")
        assert foretold.code == 0
        assert foretold.out.splitlines() == [
            '"web" is not there: it would be made (fake)',
            '"node-1" is gone: only its local reference is left: it would be made (fake)',
            '"node-2" is there, and does not run: it would be started',
        ]
        assert quick.store.names() == ["node-1", "node-2"]
        said = do("up")
        assert (said.code, said.err) == (0, "")
        assert '"node-2" was started' in said.out
        assert {name: quick.store.load(name).id == ids[name] for name in NAMES} == {
            "node-1": False,
            "node-2": True,
            "web": False,
        }
        assert quick("ip", *NAMES).code == 0

    def test_some_by_name(self, quick: Program, do: Do) -> None:
        assert do("up", "node-2").code == 0
        assert quick.store.names() == ["node-2"]
        said = do("up", "node-3")
        assert said.code == 2
        assert "machines  'web', 'node-1', 'node-2'" in said.err

    def test_what_differs_stays_until_it_is_to_be_made_anew(self, quick: Program, do: Do, file: Path) -> None:
        do("up")
        web = quick.store.load("web").id
        file.write_text(FILE.replace('"1g"', '"2g"').replace('zone = "a"', 'zone = "b"'))
        for flags in ([], ["--dry-run"]):
            said = do("up", *flags)
            assert said.code == 1
            assert said.err.startswith(f"Not as '{file}' has them, and left as they are: web, node-1, node-2.\n")
            assert "  web.memory     is 1073741824, and in the file 2147483648\n" in said.err
            assert '  node-1.labels  is { zone = "a" }, and in the file { zone = "b" }\n' in said.err
            assert f"hint: docker-machine up -f '{file}' --recreate web node-1 node-2: " in said.err
        assert quick.store.load("web").id == web
        shown = do("up", "--dry-run", "--recreate", "web")
        assert (shown.code, shown.out) == (0, '"web" is there, and differs: it would be made anew (memory)\n')
        assert do("up", "--recreate", "web").code == 0
        assert quick.store.load("web").id != web
        assert quick.store.load("web").options["memory"] == "2g"
        assert do("up").err.startswith(f"Not as '{file}' has them, and left as they are: node-1, node-2.\n")

    def test_variables_are_options_and_secrets_make_no_difference(self, quick: Program, file: Path, do: Do) -> None:
        file.write_text('[machines.a]\ndriver = "cloud"\nengine_env = { HTTPS_PROXY = "http://jo:pw@p.example" }\n')
        assert do("up", CLOUD_API_KEY="opensesame", CLOUD_MEMORY="1g").code == 0
        assert do("up", CLOUD_API_KEY="rotated", CLOUD_MEMORY="1g").code == 0
        said = do("up", CLOUD_API_KEY="opensesame")
        assert said.code == 1
        assert "  a.memory  is 1073741824, and in the file 536870912\n" in said.err
        file.write_text('[machines.a]\ndriver = "cloud"\nengine_env = { HTTPS_PROXY = "http://jo:new@p.example" }\n')
        said = do("up", CLOUD_API_KEY="opensesame", CLOUD_MEMORY="1g")
        assert "engine_env" in said.err
        assert "jo" not in said.err
        assert do("down", "-y").code == 0

    def test_one_that_something_else_made_is_in_the_way(self, quick: Program, do: Do) -> None:
        quick.make("node-2")
        said = do("up")
        assert said.code == 2
        assert said.err.startswith("There is already a machine 'node-2', which 'up' has not made from ")
        assert quick.store.names() == ["node-2"]

    def test_all_or_none(self, quick: Program, do: Do, file: Path) -> None:
        file.write_text(FILE + 'options = { fail_create = "engine" }\n')
        said = do("up")
        assert said.code == 1
        assert "was told to fail" in said.err
        assert quick.store.names() == []
        assert quick.left == set()
        file.write_text(FILE + 'options = { unavailable = "no moon" }\n')
        said = do("up", "--dry-run")
        assert said.code == 1
        assert "no moon" in said.err

    @pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
    def test_killed_midway(
        self, program: Program, quick: Program, do: Do, file: Path, rounds: Callable[[int, int], int]
    ) -> None:
        dice = random.Random(4)
        argv = program.argv("up", "-f", str(file))
        for _ in range(rounds(30, 1)):
            environ = {**program.environ, "FAKE_DELAY": "0.2"}
            with subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL) as process:
                time.sleep(dice.uniform(0.3, 2.0))
                process.send_signal(signal.SIGKILL)
            # The delay is an option as any other, in which machines may differ.
            said = do("up", FAKE_DELAY="0.2")
            assert (said.code, said.err) == (0, "")
            assert len(list(quick.driver.find())) == 3
            assert quick("ip", *NAMES).code == 0
            assert do("down", "-y").code == 0
            assert quick.left == set()
            assert quick.store.names() == []

    @pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
    def test_one_at_a_time(self, program: Program, quick: Program, do: Do, file: Path) -> None:
        environ = {**program.environ, "FAKE_DELAY": "60"}
        with subprocess.Popen(program.argv("up", "-f", str(file)), env=environ, stdout=subprocess.DEVNULL) as process:
            while quick.store.names() != NAMES:
                assert process.poll() is None
                time.sleep(0.05)
            said = [do("up"), do("down", "-y"), quick("create", "-d", "fake", "web")]
            process.kill()
        assert [each.code for each in said] == [1, 1, 1]
        assert said[0].err == said[1].err == f"Another process is at work on the machines of '{file}'.\n"
        assert said[2].err == 'Docker machine "web" is being created by another process\n'
        assert do("down", "-y").code == 0
        assert quick.left == set()


class TestDown:
    def test_asked_and_only_its_own(self, quick: Program, do: Do, file: Path, tmp_path: Path) -> None:
        quick.make("other")
        do("up")
        second = tmp_path / "second.toml"
        second.write_text('[machines.extra]\ndriver = "fake"\n')
        assert quick("up", "-f", str(second)).code == 0
        said = do("down", input="n\n")
        assert said.out.startswith("About to remove node-1, node-2, web\nWARNING: ")
        assert len(quick.store.names()) == 5
        # One that was taken out of the file was made from it all the same.
        file.write_text('[machines.web]\ndriver = "fake"\n')
        said = do("down", input="y\n")
        assert (said.code, said.err) == (0, "")
        assert quick.store.names() == ["extra", "other"]
        assert quick.left == {"extra", "other"}
        assert do("down").out == f"Nothing is there that 'up' has made from '{file}'.\n"

    def test_by_name(self, quick: Program, do: Do) -> None:
        quick.make("other")
        do("up")
        said = do("down", "-y", "other")
        assert said.code == 2
        assert said.err.endswith("hint: docker-machine rm other\n")
        assert do("down", "-y", "node-1").code == 0
        assert quick.store.names() == ["node-2", "other", "web"]

    def test_a_broken_file_is_no_hindrance(self, quick: Program, do: Do, file: Path) -> None:
        do("up")
        file.write_text("[machines")
        assert do("down", "-y").code == 0
        assert quick.left == set()
        file.unlink()
        assert do("down", "-y").err.startswith(f"There is no file '{file}'.\n")

    def test_what_cannot_be_removed_stays(self, quick: Program, do: Do, file: Path) -> None:
        file.write_text(FILE + "options = { fail_destroy = true }\n")
        do("up")
        said = do("down", "-y")
        assert said.code == 1
        assert said.err.count("was told not to go") == 2
        assert quick.store.names() == ["node-1", "node-2"]


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("[machines", "cannot be read", "hint: it is TOML"),
        ("", "'machines' in", "write [machines.web]"),
        ("machines = 3", "'machines' in", "write [machines.web]"),
        ("[web]\n", "'web' in", "write [machines.web]"),
        ("[machines]\nweb = 1", "'machines.web' in", "write [machines.web]"),
        ("[machines.web]\nmemroy = 1", "'machines.web.memroy' in", "did you mean 'memory'?"),
        ("[machines.web]\nsubnet = 1", "'machines.web.subnet' in", "options = { subnet = … }"),
        ('[machines.web]\nmemory = "lots"', "'machines.web.memory' in", 'write memory = "512m"'),
        ("[machines.web]\ncount = 0", "'machines.web.count' in", "write count = 3"),
        ("[machines.web]\nengine = 20.10", "'machines.web.engine' in", 'write engine = "20.1"'),
        ('[machines.web]\nengine = ["20.10", "26.1"]', "'machines.web.engine' in", 'write engine = "26.1"'),
        ('[machines.web]\nneeds = "snapshot"', "'machines.web.needs' in", "did you mean 'snapshots'?"),
        ("[machines.web]\nlabels = { a = 1 }", "'machines.web.labels' in", 'write labels = { name = "value" }'),
        ('[machines.web]\nreuse = "module"', "'machines.web.reuse' in", "only a test's machine can have it"),
        ("[machines.'a b']\n", "'machines.a b' in", "no machine can be called 'a b'"),
        ("[machines.a]\ncount = 2\n[machines.a-1]\n", "'machines.a-1' in", "two machines are called 'a-1'"),
        ('[machines.a]\ndriver = "fakr"', "There is no driver 'fakr'.", "where    machines.a in "),
        ("[machines.a]\noptions = { nix = 1 }", "no option 'nix'", "machines.a in "),
        ('[machines.a]\nimage = "a"\noptions = { image = "a" }', "'machines.a.image' in", "say image once"),
        ('[machines.a]\nengine_options = { hosts = "x" }', "The engine cannot have 'hosts'", "machines.a in "),
    ],
)
def test_what_is_wrong_with_a_file(quick: Program, file: Path, text: str, where: str, says: str) -> None:
    file.write_text(text)
    said = quick("up", "-f", str(file), MACHINE_DRIVER="fake")
    assert (said.code, said.out) == (2, "")
    assert where in said.err.splitlines()[0]
    assert says in said.err
    assert "\nhint: " in said.err
    assert not quick.store.path.exists()


def test_no_file(quick: Program, tmp_path: Path) -> None:
    said = quick("up", "-f", str(tmp_path / "nix.toml"))
    assert said.code == 2
    assert said.err.startswith(f"There is no file '{tmp_path}/nix.toml'.\nhint: ")
