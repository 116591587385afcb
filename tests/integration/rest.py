# SPDX-License-Identifier: LGPL-2.1-or-later
"""A privmem-rest of the test's own, beside a privmemd, and a client that speaks HTTP/1.1 to it over a unix socket."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess

from broker import START_TIMEOUT, STOP_TIMEOUT, binary, wait_until
from wire import effective_uid

TIMEOUT = 20


class Connection(http.client.HTTPConnection):
    def __init__(self, path, uid=None):
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = str(path)
        self.uid = uid

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        with effective_uid(self.uid):
            self.sock.connect(self.path)


class Response:
    def __init__(self, response, data):
        self.status = response.status
        self.headers = response.headers
        self.data = data
        self.type = self.headers.get_content_type() if "Content-Type" in self.headers else None

    @property
    def json(self):
        return json.loads(self.data)

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.data[:2000]!r}"


class Rest:
    """Starts it, and stops it in the end: at once, with status 0 and without a word."""

    def __init__(self, directory, daemon, *, arguments=(), is_quiet=True, command=None, wait=True):
        self.path = directory / f"rest-{id(self)}"
        self.log = directory / f"rest-stderr-{id(self)}"
        self.is_quiet = is_quiet
        self.connections = []
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command or [binary("daemon/rest/privmem-rest"), f"--listen=unix:{self.path}",
                            f"--socket={daemon.path}", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            wait_until(self.is_serving, START_TIMEOUT, "privmem-rest's start")

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        return self.log.read_text(errors="replace")

    def is_serving(self):
        if self.process.poll() is not None:
            raise AssertionError(f"privmem-rest ended with {self.process.returncode}:\n{self.stderr()}")
        try:
            return self.get("/healthz", connection=Connection(self.path)).status == 200
        except (FileNotFoundError, ConnectionRefusedError, PermissionError):
            return False

    def connect(self, uid=None):
        self.connections.append(Connection(self.path, uid))
        return self.connections[-1]

    def request(self, verb, path, body=None, headers=None, *, uid=None, connection=None):
        """body: bytes, or what becomes JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        used = connection or Connection(self.path, uid)
        try:
            used.request(verb, path, body, headers)
            response = used.getresponse()
            return Response(response, response.read())
        finally:
            if connection is None:
                used.close()

    def get(self, path, headers=None, **options):
        return self.request("GET", path, None, headers, **options)

    def put(self, path, body=None, headers=None, **options):
        return self.request("PUT", path, body, headers, **options)

    def post(self, path, body=None, headers=None, **options):
        return self.request("POST", path, body, headers, **options)

    def delete(self, path, headers=None, **options):
        return self.request("DELETE", path, None, headers, **options)

    def rss(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def raw(self, data, *, keep=False):
        """Sends bytes as they are; everything that comes until the other side closes, or is quiet for a while."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1 if keep else TIMEOUT)
            client.connect(str(self.path))
            got = b""
            try:
                with contextlib.suppress(BrokenPipeError):  # there may be an answer all the same
                    client.sendall(data)
                while more := client.recv(1 << 16):
                    got += more
            except TimeoutError:
                if not keep:
                    raise
            except ConnectionResetError:
                pass
            return got

    def finish(self):
        for connection in self.connections:
            connection.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"privmem-rest did not end on SIGTERM:\n{self.stderr()}") from None
        if status != 0 or (self.is_quiet and self.stderr()):
            raise AssertionError(f"privmem-rest ended with {status}; its standard error:\n{self.stderr()}")


def problem(response, status):
    """Checks that it is a problem document of that status, and returns it."""
    assert response.status == status, response
    assert response.type == "application/problem+json", response
    document = response.json
    assert document["status"] == status
    assert isinstance(document["type"], str) and document["title"] and document["detail"].endswith("."), document
    return document
