# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmem-rest, and clients of it that may do what no library would: they send bytes and read answers."""

import os
import pathlib
import signal
import socket
import ssl
import subprocess
import time

from broker import binary, wait_until

TIMEOUT = 10


class Ended(Exception):
    """The connection ended where an answer, or more of it, should have come."""


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:200]!r}>"


class Peer:
    def __init__(self, connected):
        self.socket = connected
        self.socket.settimeout(TIMEOUT)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Ended(error) from None

    def get(self, path="/v1/host", *headers, method="GET"):
        return self.request(request(method, path, *headers))

    def put(self, path, body, *headers):
        return self.request(request("PUT", path, "Content-Type: application/json", *headers, body=body))

    def request(self, data):
        self.send(data)
        return self.response(is_head=data.startswith(b"HEAD "))

    def _receive(self):
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Ended(error) from None
        except ssl.SSLError as error:
            raise Ended(error.reason or error) from None
        if not data:
            raise Ended
        self.buffer += data

    def _until(self, mark):
        while mark not in self.buffer:
            self._receive()
        head, _, self.buffer = self.buffer.partition(mark)
        return head

    def _exactly(self, size):
        while len(self.buffer) < size:
            self._receive()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def response(self, is_head=False):
        first, *lines = self._until(b"\r\n\r\n").decode().split("\r\n")
        version, status = first.split(" ")[:2]
        assert version == "HTTP/1.1"
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if status.startswith("1"):
            return self.response(is_head)
        if is_head or status == "204":
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self._exactly(int(headers["content-length"]))
        return Response(int(status), headers, body)

    def _chunk(self):
        data = self._exactly(int(self._until(b"\r\n"), 16))
        assert self._exactly(2) == b"\r\n"
        return data

    def expect_end(self, seconds=TIMEOUT):
        """The connection ends, and nothing more comes."""
        self.socket.settimeout(seconds)
        try:
            self._receive()
        except Ended:
            return
        raise AssertionError(f"more came: {self.buffer!r}")


def request(method, path, *headers, body=None):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Manager:
    """The service manager's end of sd_notify(3)."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(TIMEOUT)
        self.socket.bind(str(path))

    def receive(self):
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())


class Gateway:
    """A privmem-rest in front of a privmemd. It listens on a unix socket, and on a TCP socket if it is for TLS; both are
    passed as the service manager would."""

    def __init__(self, daemon, directory, settings="", *, tls=False, arguments=()):
        self.directory = pathlib.Path(directory)
        self.path = self.directory / "rest"
        self.settings = self.directory / "privmem-rest.conf"
        self.settings.write_text(settings)
        self.log = self.directory / "rest.stderr"
        self.manager = Manager(self.directory / "rest.notify")
        self.listening = [socket.socket(socket.AF_UNIX)]
        self.listening[0].bind(str(self.path))
        names = ["rest"]
        if tls:
            self.listening.append(socket.socket(socket.AF_INET))
            self.listening[1].bind(("127.0.0.1", 0))
            self.port = self.listening[1].getsockname()[1]
            names.append("tls")
        for one in self.listening:
            one.listen(512)
        fds = [one.fileno() for one in self.listening]
        passed = " ".join(f"{3 + n}<&{100 + n}" for n in range(len(fds)))
        for n, fd in enumerate(fds):
            os.dup2(fd, 100 + n)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f'export LISTEN_PID=$$; exec "$0" "$@" {passed}', binary("daemon/rest/privmem-rest"),
                 f"--socket={daemon.path}", f"--config={self.settings}", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=range(100, 100 + len(fds)),
                env={**os.environ, "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(names),
                     "NOTIFY_SOCKET": str(self.manager.path)})
        for n in range(len(fds)):
            os.close(100 + n)
        self.is_quiet = True

    def wait_ready(self):
        try:
            assert self.manager.receive() == {"READY": "1"}
        except TimeoutError:
            raise AssertionError(f"privmem-rest did not start:\n{self.stderr()}") from None
        return self

    def stderr(self):
        return self.log.read_text(errors="replace")

    def reload(self):
        """Returns the status line, if there is one."""
        self.process.send_signal(signal.SIGHUP)
        assert self.manager.receive().get("RELOADING") == "1"
        done = self.manager.receive()
        assert done.pop("READY") == "1"
        return done.get("STATUS")

    def rss(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def count_fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        for one in self.listening:
            one.close()
        self.manager.socket.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"privmem-rest did not end on SIGTERM:\n{self.stderr()}") from None

    # ---- clients ----

    def connect(self):
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(TIMEOUT)
        connected.connect(str(self.path))
        return Peer(connected)

    def connect_tcp(self):
        connected = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def connect_tls(self, context):
        connected = self.connect_tcp()
        try:
            return Peer(context.wrap_socket(connected, server_hostname="localhost"))
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Ended(error) from None
        except ssl.SSLError as error:
            raise Ended(error.reason or error) from None

    def settle(self, seconds=5):
        """Waits until the connections that were closed are closed at the other end too."""
        before = -1
        deadline = time.monotonic() + seconds
        while before != (before := self.count_fds()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return before


def start_failure(gateway):
    """What a privmem-rest says that does not start."""
    wait_until(lambda: gateway.process.poll() is not None, TIMEOUT, "privmem-rest's end")
    assert gateway.process.returncode == 1
    gateway.is_quiet = False
    return gateway.stderr()
