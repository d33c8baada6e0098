from __future__ import annotations

import sys

import pytest

from pytest_machine import service
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import CommandFailed, DriverUnavailable, UsageError
from pytest_machine.machine import _telling_shell
from pytest_machine.model import Result
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
