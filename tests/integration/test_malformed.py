# SPDX-License-Identifier: LGPL-2.1-or-later
"""Input that no client should send: it gets an error or a closed connection, costs no file descriptor, and the next
client is served. That no file descriptor is lost is checked when the daemon stops, after each test."""

import contextlib
import json
import os
import socket
import threading
import time

import pytest

from broker import wait_until
from contract import INTERFACE
from memory import MIB
from wire import FDS_MAX, Closed


@pytest.fixture(autouse=True)
def served_afterwards(daemon):
    yield
    daemon.connect().call("GetHost")


def send_raw(daemon, data, fds=()):
    """Everything that comes back until privmemd closes the connection, or until it answers."""
    client = daemon.connect()
    try:
        client.send_bytes(data, fds)
        return client.receive()[0]
    except (Closed, BrokenPipeError, ConnectionResetError):
        return None


def call_bytes(method, **parameters):
    return json.dumps({"method": f"{INTERFACE}.{method}", "parameters": parameters}).encode() + b"\0"


@pytest.mark.parametrize("data", [
    b"\0", b"\0\0\0", b"x\0", b"{\0", b"null\0", b"[]\0", b"1\0", b'"x"\0', b"{}\0", b'{"method":1}\0',
    b'{"method":null}\0', b'{"method":""}\0', b'{"parameters":{}}\0', b'{"method":"GetHost"}\0', b"\xff\xfe\0",
    b'{"method":"io.privmemd.Memory.GetHost","parameters":[]}\0',
    b'{"method":"io.privmemd.Memory.GetHost","more":1}\0',
    b'{"method":"io.privmemd.Memory.GetHost","unknown":1}\0',
    b'{"method":"io.privmemd.Memory.GetHost","method":"io.privmemd.Memory.GetHost"}\0',
    b'{"method":"io.privmemd.Memory.GetHost","oneway":true,"more":true}\0',
    b"GET / HTTP/1.1\r\n\r\n\0",
], ids=lambda data: data[:48].decode("latin1").encode("unicode_escape").decode())
def test_no_call(daemon, data):
    answer = send_raw(daemon, data)
    assert answer is None or "error" in answer


@pytest.mark.parametrize("data", [b"x\0", b"[]\0", b'{"method":1}\0'])
def test_no_call_after_a_call(client, data):
    client.call("GetHost")
    time.sleep(0.05)
    client.send_bytes(data)
    with pytest.raises(Closed):
        client.receive()


@pytest.mark.parametrize("method, error", [
    ("io.privmemd.Memory.NoSuchMethod", "org.varlink.service.MethodNotFound"),
    ("io.privmemd.Memory.", "org.varlink.service.MethodNotFound"),
    ("io.privmemd.Other.GetHost", "org.varlink.service.MethodNotFound"),
    ("org.varlink.service.GetInterfaceDescription", "org.varlink.service.InvalidParameter"),
])
def test_unknown_method(client, method, error):
    client.fails(error, method)


@pytest.mark.parametrize("method, parameters, bad", [
    ("GetHost", {"unknown": 1}, "unknown"),
    ("RegisterVM", {}, "name"),
    ("RegisterVM", {"name": None}, "name"),
    ("RegisterVM", {"name": 1}, "name"),
    ("RegisterVM", {"name": ["web1"]}, "name"),
    ("RegisterVM", {"name": "web1", "nmae": "web1"}, "nmae"),
    ("RegisterVM", {"name": "web1", "ownerUID": -1}, "ownerUID"),
    ("RegisterVM", {"name": "web1", "ownerUID": 1 << 32}, "ownerUID"),
    ("RegisterVM", {"name": "web1", "ownerUID": 0.5}, "ownerUID"),
    ("RegisterVM", {"name": "web1", "exitPolicy": "keep"}, "exitPolicy"),
    ("RegisterVM", {"name": "web1", "aliasPolicy": 0}, "aliasPolicy"),
    ("RegisterVM", {"name": "web1", "type": "private"}, "type"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0"}, "size"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": -4096}, "size"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": 4096.5}, "size"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": 1 << 64}, "size"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": "4k"}, "size"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": True}, "size"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": {}}, "size"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": 4096, "kind": "shmem"}, "kind"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": 4096, "pageSize": -1}, "pageSize"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": 4096, "numaPolicy": "local"}, "numaPolicy"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": 4096, "numaNodes": 0}, "numaNodes"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": 4096, "numaPolicy": "bind", "numaNodes": ["x"]},
     "numaNodes"),
    ("OpenBacking", {"vm": "vm", "backing": 0}, "backing"),
    ("OpenBacking", {"vm": "vm", "backing": "ram0", "access": "write"}, "access"),
    ("PunchBacking", {"vm": "vm", "backing": "ram0", "offset": 0}, "size"),
    ("PunchBacking", {"vm": "vm", "backing": "ram0", "offset": -1, "size": 4096}, "offset"),
    ("AttachVM", {"vm": "vm", "pidFileDescriptor": -1}, "pidFileDescriptor"),
    ("AttachVM", {"vm": "vm", "pidFileDescriptor": 0.5}, "pidFileDescriptor"),
    ("ListVMs", {"vm": 1}, "vm"),
    ("ListVMs", {"backing": "ram0"}, "backing"),
    ("ListBackings", {"slotId": 1}, "slotId"),
    ("ListVMs", {"limit": -1}, "limit"),
    ("ListSlots", {"cursor": 5}, "cursor"),
    ("ListSlots", {"addressSpace": -1}, "addressSpace"),
    ("AllocateBacking", {"vm": "vm", "name": "ram0", "size": 4096, "open": 1}, "open"),
    ("SetSlots", {"vm": "vm", "slots": [], "dryRun": "yes"}, "dryRun"),
    ("ListSlots", {"slots": []}, "slots"),
    ("UnregisterVM", {"vm": "vm", "force": True}, "force"),
])
def test_parameter_of_the_wrong_type(client, method, parameters, bad):
    client.register("vm")
    assert client.fails("InvalidParameter", method, **parameters)["parameter"] == bad


@pytest.mark.parametrize("method", ["AttachVM", "UnregisterVM", "AllocateBacking", "SetSlot", "CheckSlots"])
@pytest.mark.parametrize("parameters", [{}, {"vm": None}, {"vm": 1}, {"vm": ["web1"]}])
def test_vm_of_the_wrong_type(client, method, parameters):
    assert client.fails("InvalidParameter", method, **parameters)["parameter"]


@pytest.mark.parametrize("depth", [100, 10000])
@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_deep_nesting(daemon, depth, opening, closing):
    deep = opening * depth + ("1" if opening != "[" else "") + closing * depth
    answer = send_raw(daemon, b'{"method":"io.privmemd.Memory.ListVMs","parameters":{"vm":' + deep.encode() + b"}}\0")
    assert answer is None or answer["error"] == "org.varlink.service.InvalidParameter"


@pytest.mark.parametrize("size", [1, 17, 60])
@pytest.mark.parametrize("with_fds", [False, True])
def test_half_a_message(daemon, donation, size, with_fds):
    client = daemon.connect()
    client.send_bytes(call_bytes("GetHost")[:size], [donation()] * FDS_MAX if with_fds else ())
    client.close()
    daemon.connect().call("GetHost")


def test_half_a_message_then_the_rest(client):
    data = call_bytes("ListVMs")
    for i in range(len(data)):
        client.send_bytes(data[i:i + 1])
    assert client.receive_reply("ListVMs")[0] == {"vms": []}


def test_half_a_message_and_silence(daemon):
    """It does not keep others waiting."""
    daemon.connect().send_bytes(call_bytes("GetHost")[:20])
    daemon.connect().call("GetHost")


def test_closing_before_the_reply(daemon):
    for _ in range(20):
        client = daemon.connect()
        client.send_bytes(call_bytes("RegisterVM", name="web1") +
                          call_bytes("AllocateBacking", vm="web1", name="ram0", size=MIB))
        client.close()
    wait_until(lambda: daemon.connect().call("GetHost")["backings"] == 1)


def test_shut_down_for_writing(daemon):
    client = daemon.connect()
    client.send_bytes(call_bytes("GetHost"))
    client.socket.shutdown(socket.SHUT_WR)
    client.receive_reply("GetHost")
    with pytest.raises(Closed):
        client.receive()


@pytest.mark.parametrize("terminated", [False, True])
def test_message_of_20_mib(daemon, terminated):
    """sd-varlink gives up at 16 MiB, or a read later."""
    data = b'{"method":"io.privmemd.Memory.ListVMs","parameters":{"vm":"' + b"x" * (20 * MIB)
    answer = send_raw(daemon, data + (b'"}}\0' if terminated else b""))
    assert answer is None or (terminated and answer["error"] == f"{INTERFACE}.NoSuchVM")


def test_long_string(client):
    client.fails("InvalidName", "RegisterVM", name="x" * (4 * MIB))


def test_two_calls_in_one_write(client):
    client.send_bytes(call_bytes("RegisterVM", name="web1") + call_bytes("ListVMs"))
    assert client.receive_reply("RegisterVM")[0]["created"]
    assert len(client.receive_reply("ListVMs")[0]["vms"]) == 1


def test_oneway(client):
    client.send("RegisterVM", {"name": "web1"}, oneway=True)
    assert len(client.call("ListVMs")["vms"]) == 1


def test_oneway_that_fails(client):
    client.send("UnregisterVM", {"vm": "web1"}, oneway=True)
    client.call("GetHost")


def test_oneway_that_would_answer_with_a_file_descriptor(daemon, client):
    client.register()
    client.send("AllocateBacking", {"vm": "web1", "name": "ram0", "size": MIB}, oneway=True)
    assert client.call("GetHost")["backings"] == 1
    client.call("OpenBacking", vm="web1", backing="ram0")


@pytest.mark.parametrize("method", ["SetSlot", "RegisterVM", "GetHost"])
def test_more_where_it_means_nothing(client, method):
    """One reply, without continues."""
    parameters = {"SetSlot": {"vm": "web1", "slot": {"slotId": 0, "guestPhysAddr": 0, "memorySize": 4096}},
                  "RegisterVM": {"name": "web1"}, "GetHost": {}}[method]
    client.register()
    assert len(list(client.stream(method, **parameters))) == 1


@pytest.mark.parametrize("count", [1, FDS_MAX])
def test_fds_for_the_service_itself(daemon, client, donation, count):
    client.send("org.varlink.service.GetInfo", {}, [donation()] * count)
    client.receive()
    client.close()


def test_fds_without_a_message(daemon, donation):
    client = daemon.connect()
    client.send_bytes(b"\0", [donation()] * FDS_MAX)
    client.close()


def test_fds_in_two_halves_of_a_message(daemon, client, donation):
    """sd-varlink drops such a connection once it is closed."""
    client.register()
    data = call_bytes("AdoptBacking", vm="web1", name="ram0", fileDescriptor=0)
    other = daemon.connect()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        other.send_bytes(data[:20], [donation()])
        other.send_bytes(data[20:], [donation()])
    other.close()
    assert client.call("ListBackings") == {"backings": []}


def test_privmemds_own_socket_as_a_file_descriptor(daemon, client):
    """A cycle of sockets that hold each other."""
    client.register()
    client.fails("NotMemory", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=[client.socket.fileno()])


def test_noise_from_many_clients_at_once(daemon, client):
    def make_noise():
        for i in range(30):
            other = daemon.connect()
            other.send_bytes(os.urandom(4096 * (i % 3)) + call_bytes("ListVMs"))
            other.close()
    threads = [threading.Thread(target=make_noise) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        client.call("GetHost")
    for thread in threads:
        thread.join()
