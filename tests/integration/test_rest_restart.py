# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmem-rest while privmemd is not there, comes back, hangs, or talks nonsense."""

import json
import os
import signal
import socket
import threading
import time

import pytest

from broker import Daemon, wait_until
from rest import problem


class Paper:
    """A privmemd of paper: answers each call with what the test gives, or not at all."""

    def __init__(self, path, answer):
        self.path = path
        self.answer = answer
        self.calls = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link):
        buffer = b""
        with link:
            while more := link.recv(1 << 16):
                buffer += more
                while b"\0" in buffer:
                    call, buffer = buffer.split(b"\0", 1)
                    if b".Subscribe" in call:
                        continue  # nothing happens here
                    self.calls.append(json.loads(call))
                    answer = self.answer(self, link)
                    if answer is None:
                        return
                    link.sendall(answer)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def paper(directory, start_rest):
    made = []

    def make(answer, **options):
        made.append(Paper(directory / "paper", answer))
        return made[-1], start_rest(made[-1], **options)

    yield make
    for one in made:
        one.close()


GOOD = b'{"parameters":{"vms":[]}}\0'


def test_no_privmemd(directory, start_rest):
    class Nowhere:
        path = directory / "nowhere"

    rest = start_rest(Nowhere, arguments=["--wait=1"])
    for verb, path in [("GET", "/v1/host"), ("PUT", "/v1/vms/web1")]:
        started = time.monotonic()
        answer = rest.request(verb, path)
        problem(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
        assert 0.5 < time.monotonic() - started < 5
    problem(rest.get("/readyz"), 503)
    assert rest.get("/healthz").status == 200


def test_requests_wait_for_privmemd(directory, contract, start_rest):
    class Later:
        path = directory / "socket"

    rest = start_rest(Later)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(rest.get("/v1/vms").status)) for _ in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert answers == []
    daemon = Daemon(directory, contract)
    for thread in threads:
        thread.join(20)
    assert answers == [200] * 20
    daemon.stop()


def test_privmemd_killed_under_load(directory, contract, start_rest):
    """No answer is wrong: each is the right one, or says to come again."""
    daemon = Daemon(directory, contract)
    rest = start_rest(daemon)
    assert rest.put("/v1/vms/web1").status == 201
    stop, wrong, good = threading.Event(), [], []

    def load(number):
        connection = rest.connect()
        while not stop.is_set():
            for verb, path, fine in [("GET", "/v1/host", {200}), ("PUT", f"/v1/vms/own{number}", {200, 201}),
                                     ("GET", "/v1/vms", {200})]:
                answer = rest.request(verb, path, connection=connection)
                if answer.status in fine:
                    good.append(path)
                elif answer.status != 503 or verb == "GET" or "Retry-After" not in answer.headers:
                    wrong.append(answer)

    threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.3)
        daemon.stop(signal.SIGKILL)
        daemon = Daemon(directory, contract)
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join(20)
    daemon.stop()
    assert wrong == []
    assert len(good) > 50


def test_get_is_asked_again_and_nothing_else(paper):
    """Nobody knows whether privmemd did what it was asked for before it went."""
    def answer(server, link):
        return GOOD if len(server.calls) > 1 else None

    server, rest = paper(answer)
    assert rest.get("/v1/vms").json == {"vms": []}
    assert [call["method"] for call in server.calls] == ["io.privmemd.Memory.ListVMs"] * 2
    server.calls.clear()
    problem(rest.delete("/v1/vms/web1"), 503)
    assert len(server.calls) == 1


def test_get_is_not_asked_for_ever(paper):
    server, rest = paper(lambda server, link: None)
    problem(rest.get("/v1/vms"), 503)
    assert len(server.calls) == 5


def test_privmemd_that_hangs(paper):
    def answer(server, link):
        if len(server.calls) == 1:
            time.sleep(3)
            return None
        return GOOD

    server, rest = paper(answer, arguments=["--timeout=1"])
    late = rest.get("/v1/vms")
    problem(late, 504)
    assert "Retry-After" in late.headers
    assert rest.get("/v1/vms").json == {"vms": []}


@pytest.mark.parametrize("nonsense", [
    b"\0", b"{}x\0", b"[]\0", b'{"parameters":[]}\0', b'{"error":1}\0', GOOD + GOOD, b'{"parameters":{"vms":1}}\0',
    b'{"parameters":{}}\0', b'{"parameters":{"vms":[}}\0', b'{"error":"io.systemd.System","parameters":{"errno":5}}\0',
    b'{"error":"org.varlink.service.MethodNotFound"}\0',
])
def test_privmemd_that_talks_nonsense(paper, nonsense):
    """The last of these could have been a message of privmemd to a client that is too new."""
    _, rest = paper(lambda server, link: nonsense)
    for path in ["/v1/vms/web1", "/v1/vms?limit=1"]:
        answer = rest.get(path)
        assert answer.status == 502 or (answer.status == 200 and path.endswith("limit=1")) or answer.status == 404, answer
    assert rest.get("/healthz").status == 200


def test_list_that_breaks_off(paper):
    """The client notices: what it has got is not the whole list."""
    part = b'{"parameters":{"vms":[{"name":"a"}]},"continues":true}\0'

    def answer(server, link):
        link.sendall(part)
        return None

    _, rest = paper(answer)
    for accept in ["application/json", "application/x-ndjson"]:
        with pytest.raises((ConnectionError, Exception)) as caught:
            rest.get("/v1/vms", {"Accept": accept})
        assert "IncompleteRead" in repr(caught.value) or "Connection" in repr(caught.value), caught.value
    assert rest.get("/healthz").status == 200


def test_no_file_descriptor_comes_in(paper):
    """Whatever privmemd sends, the process has no more of them than before."""
    def answer(server, link):
        with open("/dev/null", "rb") as file:
            socket.send_fds(link, [GOOD], [file.fileno()] * 4)
        return b""

    _, rest = paper(answer)
    rest.get("/v1/vms?limit=1")
    connection = rest.connect()
    assert rest.get("/healthz", connection=connection).status == 200
    before = len(os.listdir(f"/proc/{rest.pid}/fd"))
    for _ in range(50):
        assert rest.get("/v1/vms?limit=1").status == 200
    wait_until(lambda: len(os.listdir(f"/proc/{rest.pid}/fd")) <= before, what="no file descriptor more than before")
    assert "/dev/null" not in [os.readlink(f"/proc/{rest.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{rest.pid}/fd")
                               if int(fd) > 2]
