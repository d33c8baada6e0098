"""A container breaks out of its engine and wrecks its host. The other hosts do not miss a single page."""

from __future__ import annotations

import contextlib
import http.client
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import requests

from pytest_machine import Lab, Machine

# Root in such a machine is nobody on your own computer: without that, whoever breaks out is on it.
pytestmark = pytest.mark.machine("web-1", "web-2", needs=["user-namespace"])

# What many a build job is given, "only to build images": its engine's socket, and the client to talk to it.
GIVEN = [f"{path}:{path}:ro" for path in ("/var/run/docker.sock", "/usr/bin/docker", "/lib", "/lib64")]


def break_out(victim: Machine, image: str, command: str) -> None:
    """From a container that has no more than that: have its host's root run a shell command."""
    as_root_of_the_host = ["--pid=host", "--volume=/:/host", image, "/bin/busybox", "chroot", "/host", "/bin/sh", "-c"]
    started = ["/usr/bin/docker", "run", *as_root_of_the_host, command]
    victim.docker.containers.run(image, started, volumes=GIVEN, detach=True)


def no_files(victim: Machine) -> bool:
    return victim.run("cat", "/etc/hostname", check=False, timeout=30).returncode != 0


def no_engine(victim: Machine) -> bool:
    try:
        return not victim.docker.ping()
    except requests.ConnectionError:
        return True


def no_space(victim: Machine) -> bool:
    more = "head -c 1M /dev/zero >>/var/lib/docker/more"
    return victim.run("sh", "-c", more, check=False, timeout=30).returncode != 0


def no_process(victim: Machine) -> bool:
    return victim.run("sh", "-c", "ls | wc -l", check=False, timeout=30).returncode != 0


@contextlib.contextmanager
def visited(webs: Lab) -> Iterator[Counter[str]]:
    """Fetch a page from each in turn, all the time; count whose came and what did not."""
    places = {web.name: web.port("web", 80) for web in webs}
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy on the way to a machine
    seen: Counter[str] = Counter()
    over = threading.Event()

    def visit() -> None:
        while not over.wait(0.02):
            for name, place in places.items():
                try:
                    with browser.open(f"http://{place.host}:{place.port}/", timeout=30) as page:
                        seen[name] += page.read() == b"hello from the other host\n"
                except (OSError, http.client.HTTPException) as error:
                    seen[f"failed: {error}"] += 1

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield seen
    finally:
        over.set()
        visitor.join()


@pytest.fixture(scope="module")
def webs(module_lab: Lab, busybox: Callable[..., str]) -> Lab:
    image = busybox(*module_lab)
    for web in module_lab:
        web.docker.containers.run(image, ["httpd", "-f", "-h", "/www"], name="web", ports={"80/tcp": None}, detach=True)
        web.wait_for(http=":80", container="web")
    return module_lab


@pytest.mark.parametrize(
    ("command", "wrecked"),
    [
        pytest.param("rm -rf --no-preserve-root /", no_files, id="its files are gone"),
        pytest.param("rm $(command -v dockerd); kill -KILL $(cat /run/docker.pid)", no_engine, id="its engine is dead"),
        pytest.param("cat /dev/zero >/var/lib/docker/full", no_space, id="its disk is full"),
        pytest.param("perl -e 'fork while 1'", no_process, id="it can start no process"),
    ],
)
def test_the_others_go_on_and_serve(
    command: str,
    wrecked: Callable[[Machine], bool],
    webs: Lab,
    machine_factory: Callable[..., Machine],
    busybox: Callable[..., str],
) -> None:
    # What it must not use up, it is not given.
    bounds = {"disk": "256m", "memory": "512m", "cpus": 0.5, "options": {"pids": 300}}
    victim = machine_factory("victim", **bounds, needs=["user-namespace"], teardown="kill")
    image = busybox(victim)
    with visited(webs) as pages:
        break_out(victim, image, command)
        webs.wait_until(lambda: wrecked(victim), "a wrecked host")
        then = dict(pages)
        webs.wait_until(lambda: all(pages[web.name] >= then.get(web.name, 0) + 10 for web in webs), "more pages")

    assert set(pages) == {"web-1", "web-2"}, "not one page was missing"
    for web in webs:
        assert web.run("cat", "/etc/hostname").stdout == f"{web.name}\n"
        assert web.docker.ping()
