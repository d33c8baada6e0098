from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine import service
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import CommandFailed, DriverUnavailable, UsageError
from pytest_machine.kept import Kept
from pytest_machine.machine import _telling_shell
from pytest_machine.model import Address, Record, Result
from pytest_machine.plugin.keeper import Tally
from pytest_machine.plugin.report import summary


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "app.localhost", "127.0.0.1", "127.1.2.3",
        "127.1", "0x7f000001", "2130706433", "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "ip6-localhost",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("rest", "place"), [(":8080/", ":8080/"), ("", ":80/"), (":8080/health?x=1", ":8080/health?x=1")]
)
def test_a_page_of_this_computer_is_refused(host: str, rest: str, place: str) -> None:
    with pytest.raises(UsageError, match="is a page of this computer") as caught:
        service.page(f"http://{host}{rest}")
    assert caught.value.hint == f"machine.wait_for(http='{place}')"
    assert service.page(place)[0] is not None


def test_a_secure_page_of_this_computer_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        service.page("https://localhost/")
    assert caught.value.hint == "machine.wait_for(http=f'https://{machine.ip}:443/')"


@pytest.mark.parametrize(
    "url", ["http://10.0.0.2:80/", "http://web:80/", "http://localhosts.org/", "http://[fd00::1]/"]
)
def test_any_other_page_is_waited_for(url: str) -> None:
    assert service.page(url) == (None, url)


@pytest.mark.parametrize(
    ("argv", "code", "hint"),
    [
        (("echo hi | wc -l",), 127, "machine.sh('echo hi | wc -l')"),
        (("ls -l",), 127, "machine.sh('ls -l'), or machine.run('ls', '-l')"),
        (("ls -l", "/srv"), 127, "machine.sh('ls -l /srv')"),
        (("cd;ls",), 127, "machine.sh('cd;ls')"),
        (("FOO=1", "env"), 127, "machine.sh('FOO=1 env')"),
        (("ls", "|", "wc"), 2, "machine.sh('ls | wc')"),
        (("echo 'x",), 127, 'machine.sh("echo \'x")'),
        (("nothing",), 127, ""),
        (("sh", "-c", "exit 127"), 127, ""),
        (("ls -l",), 1, ""),
    ],
)
def test_words_of_a_shell(argv: tuple[str, ...], code: int, hint: str) -> None:
    result = Result(argv, code, "", "not found")
    with pytest.raises(CommandFailed) as caught, _telling_shell(argv):
        raise CommandFailed("It failed.", result=result)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("tests", "hint"), [(True, f"sudo {sys.executable} -m pytest ..."), (False, "sudo /bin/docker-machine ...")]
)
def test_the_hint_to_be_root_is_the_front_ends(tests: bool, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["/bin/docker-machine", "ls"])
    if not tests:
        monkeypatch.delitem(sys.modules, "pytest")
    with pytest.raises(DriverUnavailable, match="needs root") as caught:
        RuncDriver().check()
    assert caught.value.hint == hint


def test_hosts_that_existed_are_not_counted_as_made() -> None:
    lines = summary(Tally(adopted=1), [])
    assert lines == ["1 existing host used", "none is left"]
    both = Tally(adopted=2, kinds=["runc"], seconds=[0.5])
    assert summary(both, []) == ["1 machine made: runc; ready after 0.5 s", "2 existing hosts used", "none is left"]


_PACKAGE = Path(service.__file__).parent
# The first word of a command for a shell, at the begin of a hint or after a mark.
_COMMAND = re.compile(
    r"(?:^|[:;&|(] *|then )(?:sudo )?(?:rm|ls|cp|mv|mkdir|chmod|chown|cat|df|fuser|ssh|ssh-add|docker|docker-machine) "
)
_PATH = re.compile(r"(path|directory|folder|file|files\[0\]|place|home|parent|target|\bkey)\)?$", re.IGNORECASE)


def _hints() -> Iterator[tuple[str, ast.JoinedStr]]:
    for module in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            is_hint = isinstance(node, ast.keyword) and node.arg == "hint"
            if is_hint or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "hint"):
                for each in ast.walk(node):
                    if isinstance(each, ast.JoinedStr):
                        yield f"{module.relative_to(_PACKAGE)}:{each.lineno}", each


def test_every_path_in_a_printed_command_is_quoted_for_the_shell() -> None:
    found, wrong = 0, []
    for where, text in _hints():
        before = ""
        for part in text.values:
            if isinstance(part, ast.Constant):
                before += str(part.value)
            elif isinstance(part, ast.FormattedValue):
                expression = ast.unparse(part.value)
                if _COMMAND.search(before) and _PATH.search(expression):
                    found += 1
                    # The image of a machine's own name, and what is formatted for Python, are no paths for a shell.
                    if not expression.startswith("shell_word(") and part.conversion != ord("r"):
                        wrong.append(f"{where} {expression}")
                before += "x"
    assert found >= 8, "the hints are where they were"
    assert not wrong, "\n".join(wrong)


@pytest.mark.real
@pytest.mark.skipif(sys.platform == "win32", reason="it has no sh")
@pytest.mark.parametrize("folder", ["plain", "a b", "it's", 'say "hi"', "$HOME `id` $(id)", "back\\slash", "a#b;c&d"])
def test_the_commands_of_a_kept_machine_can_be_typed(
    make_record: Callable[..., Record], tmp_path: Path, folder: str
) -> None:
    record = make_record(store=tmp_path / folder, address=Address(ip="10.0.0.2", ssh_port=2222))
    kept = Kept(record, "test", 0.0)
    words = _read_by_a_shell(kept.ssh)
    assert words[words.index("-i") + 1] == str(record.directory / "id_ed25519")
    known = next(word for word in words if word.startswith("UserKnownHostsFile=")).partition("=")[2]
    if known.startswith('"'):
        known = re.sub(r"\\(.)", r"\1", known[1:-1])
    assert known == str(record.directory / "known_hosts")
    assert f"DOCKER_CERT_PATH={record.directory}" in _read_by_a_shell(f"env {kept.docker}")


def _read_by_a_shell(command: str) -> list[str]:
    said = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True, text=True)
    return said.stdout.split("\0")[:-1]
