"""The engine of a fake machine: a process of its own that answers a little of Docker's API over mutual TLS.

It is run as a file (``python -I -S fake_engine.py HOME PORT``), so it imports the standard library alone and starts in
some 50 ms. It is a real process on purpose: whoever forgets to destroy a fake machine leaks something that `ps` shows.

How it comes to life: it binds its port, says so on stdout, and waits for ``go`` on stdin. If whoever started it is
killed before that, stdin ends and so does this: there is never an engine that nobody can reach. From then on it is
reached by its port alone: a connection that begins with a zero byte (TLS begins with 0x16) is an order from its
driver, which proves itself by the token in HOME/engine.json. So no process id is ever trusted, and none is ever killed
by mistake.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import threading
from pathlib import Path

ORDER = b"\0"
"""The first byte of an order."""
API_VERSION = "1.41"
# An engine whose home is gone is of no use to anyone. It is long enough for every test of leaks to see it before.
_HOMELESS_SECONDS = 30.0


class Engine:
    """Answers on one listening socket until it is told to quit."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.facts: dict[str, object] = json.loads((home / "engine.json").read_text("utf-8"))
        self.token = str(self.facts["token"]).encode()
        self.awake = threading.Event()
        self.awake.set()
        self.tls = _context(home / "disk" / "etc" / "docker")

    def serve(self, server: socket.socket) -> None:
        """Answer everyone, each in a thread, until the home is gone."""
        server.settimeout(_HOMELESS_SECONDS)
        while True:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if not self.home.exists():
                    return
                continue
            connection.settimeout(None)
            threading.Thread(target=self._meet, args=(connection,), daemon=True).start()

    def _meet(self, connection: socket.socket) -> None:
        with connection:
            try:
                if connection.recv(1, socket.MSG_PEEK) == ORDER:
                    self._obey(connection)
                else:
                    self._answer(connection)
            except (OSError, ValueError) as error:
                print(f"connection lost: {error}", file=sys.stderr, flush=True)

    def _obey(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            token, _, order = stream.readline()[len(ORDER) :].strip().partition(b" ")
        if token != self.token:
            return
        if order in (b"stop", b"kill"):
            if order == b"stop":
                print("shutting down", file=sys.stderr, flush=True)
            # The end of this connection tells the driver that the process is gone.
            os._exit(0)
        if order == b"pause":
            self.awake.clear()
        elif order == b"resume":
            self.awake.set()
        connection.sendall(b"running\n" if self.awake.is_set() else b"paused\n")

    def _answer(self, connection: socket.socket) -> None:
        if self.tls is None:
            return
        self.awake.wait()
        with self.tls.wrap_socket(connection, server_side=True) as secure, secure.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _ = line.decode("latin-1").split()
                length = 0
                while header := stream.readline().strip():
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                stream.read(length)
                self.awake.wait()
                secure.sendall(self._reply(method, path))

    def _reply(self, method: str, path: str) -> bytes:
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[0].startswith("v1."):
            parts = parts[1:]
        known = self._known().get("/".join(parts)) if method in ("GET", "HEAD") else None
        status = "404 Not Found" if known is None else "200 OK"
        found = {"message": f"a fake machine knows no {method} {path}"} if known is None else known
        kind, body = ("text/plain", b"OK") if found == "OK" else ("application/json", json.dumps(found).encode())
        head = f"HTTP/1.1 {status}\r\nApi-Version: {API_VERSION}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
        return f"{head}\r\n\r\n".encode() + (b"" if method == "HEAD" else body)

    def _known(self) -> dict[str, object]:
        name = self.facts["name"]
        return {
            "_ping": "OK",
            "version": {
                "ApiVersion": API_VERSION,
                "MinAPIVersion": "1.12",
                "Version": self.facts["engine"] or "fake",
                "Os": sys.platform,
            },
            "info": {
                "ID": self.facts["id"],
                "Name": name,
                "MemTotal": self.facts["memory"],
                "OperatingSystem": self.facts["image"],
                "ServerVersion": self.facts["engine"] or "fake",
                "Driver": "fake",
                "NCPU": 1,
                "Containers": 0,
                "Images": 0,
            },
            "containers/json": [],
            "images/json": [],
        }


def _context(certificates: Path) -> ssl.SSLContext | None:
    """Return what mutual TLS needs, or None when the machine was born without certificates: then it is silent."""
    if not (certificates / "server.pem").exists():
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def main(home: Path, port: int) -> None:
    """Be the engine of the machine whose home this is."""
    engine = Engine(home)
    with socket.create_server(("127.0.0.1", port), backlog=128) as server:
        print("listening", flush=True)
        if sys.stdin.readline() != "go\n":
            return
        # A child of the driver's process would become its zombie; a grandchild is init's to bury. Windows has neither.
        if sys.platform != "win32" and os.fork():
            os._exit(0)
        print(f"engine of '{engine.facts['name']}' listens on port {port}", file=sys.stderr, flush=True)
        engine.serve(server)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
