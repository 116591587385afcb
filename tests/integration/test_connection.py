# SPDX-License-Identifier: LGPL-2.1-or-later
"""How many may connect, and what happens when privmemd runs out of file descriptors."""

import contextlib
import json
import memory
import os
import pytest
import resource
import signal
import socket
import threading
import time
import types
import user

import pytest

import memory
import user
from broker import wait_until
from contract import INTERFACE
from memory import PAGE
from wire import Client, Closed

LIMIT = 1024
ANSWER_SECONDS = 2  # at most, while others flood


@pytest.fixture(autouse=True)
def enough_fds():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_served(client):
    try:
        client.call("GetHost")
    except (Closed, BrokenPipeError):
        return False
    return True


@pytest.mark.root
def test_limit_of_connections_is_each_users(daemon):
    connected = [daemon.connect(user.ALICE) for _ in range(LIMIT)]
    assert is_served(connected[-1])
    for _ in range(3):
        assert not is_served(daemon.connect(user.ALICE))
    assert is_served(daemon.connect(user.BOB))
    assert is_served(daemon.connect())
    for client in connected:
        client.close()
    wait_until(lambda: is_served(daemon.connect(user.ALICE)), what="a place for the user")


@pytest.mark.root
def test_connections_that_come_and_go(daemon):
    for _ in range(3 * LIMIT):
        daemon.connect(user.ALICE).close()
    wait_until(lambda: is_served(daemon.connect(user.ALICE)), what="a place for the user")


def limited(fds):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (fds, fds))


def test_no_file_descriptor_left_for_a_backing(start):
    """Those who are connected are told, and lose nothing."""
    daemon = start(preexec_fn=limited(64))
    client = daemon.connect()
    client.register()
    for i in range(64):
        try:
            os.close(client.allocate(f"ram{i}", PAGE).fd)
        except Exception:
            break
        client._owned.pop()
    error = client.fails("HostFailure", "AllocateBacking", vm="web1", name="one-too-many", size=PAGE)
    assert error["errnoName"] == "EMFILE"
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    client.call("ReleaseBacking", vm="web1", backing="ram1")
    client.allocate("again", PAGE)
    client.call("UnregisterVM", vm="web1")


def test_no_file_descriptor_left_for_a_connection(start):
    """Whoever takes them all does not shut out the others for longer than he stays."""
    daemon = start(preexec_fn=limited(64))
    client = daemon.connect()
    client.call("GetHost")
    crowd = [Client(daemon.path, daemon.contract) for _ in range(100)]
    time.sleep(0.2)
    client.call("ListVMs")
    for one in crowd:
        one.close()
    wait_until(lambda: is_served(daemon.connect()), what="a place for the next client")


def test_no_file_descriptor_left_to_receive_one(start):
    daemon = start(preexec_fn=limited(64))
    client = daemon.connect()
    client.register()
    crowd = [daemon.connect() for _ in range(40)]
    fd = memory.memfd(PAGE)
    client.send("AdoptBacking", {"vm": "web1", "name": "ram0", "fileDescriptor": 0}, [fd] * 200)
    os.close(fd)
    crowd[0].call("ListVMs")
    for one in [*crowd, client]:
        one.close()
    wait_until(lambda: is_served(daemon.connect()), what="a place for the next client")


@contextlib.contextmanager
def calls_without_end(daemon):
    """A client that has always sent more calls than were answered; received: bytes of answers."""
    link, flood = daemon.connect().socket, types.SimpleNamespace(received=0)
    calls = (json.dumps({"method": f"{INTERFACE}.GetHost", "parameters": {}}).encode() + b"\0") * 100

    def send():
        with contextlib.suppress(OSError):
            while True:
                link.sendall(calls)

    def receive():
        with contextlib.suppress(OSError):
            while size := len(link.recv(1 << 18)):
                flood.received += size

    threads = [threading.Thread(target=one) for one in (send, receive)]
    for thread in threads:
        thread.start()
    yield flood
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()


def test_ends_while_a_client_calls_without_end(start):
    daemon = start()
    with calls_without_end(daemon):
        time.sleep(0.5)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0


def test_others_are_heard_while_clients_call_without_end(daemon):
    """A call waits for a few of theirs, not for all. Those who flood have their turns too."""
    with calls_without_end(daemon) as flood, calls_without_end(daemon) as other_flood:
        wait_until(lambda: flood.received and other_flood.received, what="answers to both")
        for number in range(20):
            client, before = daemon.connect(), (flood.received, other_flood.received)
            start = time.monotonic()
            client.call("GetHost")
            assert time.monotonic() - start < ANSWER_SECONDS, f"call {number}"
            client.close()
        wait_until(lambda: flood.received > before[0] and other_flood.received > before[1], what="more answers to both")
    wait_until(lambda: daemon.count_fds() <= daemon.baseline, 40, "the end of what was sent already")
