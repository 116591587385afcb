# SPDX-License-Identifier: LGPL-2.1-or-later
"""What privmem-rest does with clients that mean no good: requests that two readers would read differently, clients that take
their time, and clients that come too often. Each of them costs a bounded amount of something, and others are served."""

import os
import re
import socket
import time

import pytest

from broker import Daemon, wait_until
from http_peer import Ended, Gateway, request

KIB = 1024
BEHIND = request("PUT", "/v1/vms/smuggled", "Content-Type: application/json", body=b"{}")
HEAD = b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET /v1/host HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def begin(daemon, directory):
    started = []

    def begin_gateway(limits="", **options):
        started.append(Gateway(daemon, directory, f"[Limits]\n{limits}\n", **options).wait_ready())
        return started[-1]

    yield begin_gateway
    for gateway in started:
        assert gateway.stop() == 0, gateway.stderr()
        assert not gateway.stderr()


@pytest.fixture(scope="module")
def pair(tmp_path_factory, contract):
    directory = tmp_path_factory.mktemp("abuse")
    daemon = Daemon(directory, contract)
    gateway = Gateway(daemon, directory).wait_ready()
    yield gateway
    assert gateway.stop() == 0, gateway.stderr()
    assert not gateway.stderr()
    daemon.finish()


@pytest.fixture
def shared(pair):
    """One pair of daemons for all that is refused anyway."""
    yield pair
    with pair.connect() as peer:
        for name in ["a", "smuggled"]:
            peer.get(f"/v1/vms/{name}", method="DELETE")


def statuses(data):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", data)]


def vms(gateway):
    with gateway.connect() as peer:
        return peer.get("/v1/vms").body


def everything(gateway, data, seconds=5):
    """What comes until the connection ends."""
    with gateway.connect() as peer:
        peer.socket.settimeout(seconds)
        try:
            peer.send(data)
            while True:
                peer._receive()
        except Ended:
            return peer.buffer


# ---- one request, or two ----

TWO_LENGTHS = {
    "cl-te": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "te-cl": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two-cl": HEAD + b"Content-Length: 0\r\nContent-Length: 2\r\n\r\n{}",
    "two-cl-same": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "cl-list": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "cl-plus": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "cl-minus": HEAD + b"Content-Length: -2\r\n\r\n{}",
    "cl-hex": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "cl-space": HEAD + b"Content-Length: 2 2\r\n\r\n{}",
    "cl-huge": HEAD + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "cl-empty": HEAD + b"Content-Length:\r\n\r\n{}",
    "te-x": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "te-list": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "te-twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "te-gzip": HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "te-identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
    "te-tab": HEAD + b"Transfer-Encoding:\tx\tchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "te-quoted": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n2\r\n{}\r\n0\r\n\r\n',
    "te-1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "space-before-colon": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "space-in-name": HEAD + b"Content Length: 2\r\n\r\n{}",
    "tab-before-colon": HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "no-name": HEAD + b": 2\r\n\r\n",
    "no-colon": HEAD + b"Content-Length\r\n\r\n",
    "fold": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "fold-te": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "fold-first": b"PUT /v1/vms/a HTTP/1.1\r\n Host: x\r\n\r\n",
    "bare-lf": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}",
    "bare-lf-once": HEAD + b"X: a\nContent-Length: 2\r\n\r\n{}",
    "bare-cr": HEAD + b"X: a\rContent-Length: 2\r\n\r\n{}",
    "cr-in-value": HEAD + b"X: a\r\rb\r\nContent-Length: 2\r\n\r\n{}",
    "nul-in-value": HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "nul-in-name": HEAD + b"X\0: a\r\nContent-Length: 2\r\n\r\n{}",
    "nul-in-path": HEAD.replace(b"vms/a", b"vms/a\0b") + b"Content-Length: 2\r\n\r\n{}",
    "chunk-size-hex": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "chunk-size-minus": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "chunk-size-plus": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "chunk-size-space": HEAD + b"Transfer-Encoding: chunked\r\n\r\n 2\r\n{}\r\n0\r\n\r\n",
    "chunk-size-huge": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "chunk-size-none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n",
    "chunk-too-long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "chunk-bare-lf": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "chunk-extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n",
    "chunk-extension-lf": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;a\n{}\r\n0\r\n\r\n",
    "empty-line-before": b"\r\n" + GET + b"\r\n",
    "no-host": b"PUT /v1/vms/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two-hosts": b"GET /v1/host HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "http-0.9": b"GET /v1/host\r\n",
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two-spaces": b"GET  /v1/host HTTP/1.1\r\nHost: x\r\n\r\n",
    "space-in-path": b"GET /v1/host x HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab-for-space": b"GET\t/v1/host\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "empty-method": b" /v1/host HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", TWO_LENGTHS)
def test_request_with_two_readings(shared, name):
    """It is refused, the connection ends, and what is behind it is not read as a request."""
    got = everything(shared, TWO_LENGTHS[name] + BEHIND)
    assert len(statuses(got)) <= 1, got
    assert all(400 <= status < 600 for status in statuses(got)), got
    assert b"\r\nConnection: close\r\n" in got or not got, got
    assert b"access-control" not in got.lower()
    assert vms(shared) == b'{"vms":[]}'


@pytest.mark.parametrize("data", [
    pytest.param(GET + b"Connection: close\r\n\r\n", id="plain"),
    pytest.param(GET.replace(b"/v1", b"http://x/v1") + b"Connection: close\r\n\r\n", id="absolute"),
    pytest.param(GET.replace(b"Host: x", b"host:x") + b"connection:close\r\n\r\n", id="lower-case"),
    pytest.param(GET + b"Content-Length: 0\r\nConnection: close\r\n\r\n", id="no-body"),
])
def test_request_with_one_reading(shared, data):
    assert statuses(everything(shared, data)) == [200]


@pytest.mark.parametrize("chunks", [
    b"2\r\n{}\r\n0\r\n\r\n",
    b"000002\r\n{}\r\n000\r\n\r\n",
    b"1\r\n{\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n",
])
def test_chunks(begin, chunks):
    gateway = begin()
    with gateway.connect() as peer:
        assert peer.request(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).status == 201
        assert peer.get().status == 200


def test_header_of_the_trailer_is_none(begin, daemon):
    """A header behind the body must not count as one before it."""
    gateway = begin()
    with gateway.connect() as peer:
        body = b'2\r\n{}\r\n0\r\nIf-Match: "7"\r\n\r\n'
        assert peer.request(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body).status in (200, 201, 400)


def test_pipelined_requests_are_answered_in_order(shared):
    paths = ["/v1/host", "/v1/vms/none", "/healthz", "/v1/nothing", "/v1/vms"] * 10
    with shared.connect() as peer:
        peer.send(b"".join(request("GET", path) for path in paths))
        assert [peer.response().status for _ in paths] == [200, 404, 200, 404, 200] * 10


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_other_origins(shared, origin):
    with shared.connect() as peer:
        for method in ["GET", "OPTIONS"]:
            answer = peer.get("/v1/vms", f"Origin: {origin}", "Access-Control-Request-Method: PUT",
                              "Access-Control-Request-Headers: content-type", method=method)
            assert not [name for name in answer.headers if name.startswith("access-control")]


# ---- too much ----


@pytest.mark.parametrize("data, status", [
    pytest.param(GET + b"".join(b"X-%d: y\r\n" % n for n in range(10000)) + b"\r\n", 431, id="many-headers"),
    pytest.param(GET + b"X: " + b"y" * 100000 + b"\r\n\r\n", 431, id="long-header"),
    pytest.param(GET + b"Y" * 100000 + b": y\r\n\r\n", 431, id="long-name"),
    pytest.param(b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, id="long-path"),
    pytest.param(b"GET /v1/host?" + b"x=y&" * 30000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, id="long-query"),
    pytest.param(b"X" * 100000 + b" / HTTP/1.1\r\nHost: x\r\n\r\n", None, id="long-method"),
])
def test_too_long(shared, data, status):
    got = everything(shared, data + BEHIND)
    found = statuses(got)
    assert len(found) <= 1
    assert not found or found[0] == status or status is None and found[0] >= 400, got
    assert vms(shared) == b'{"vms":[]}'


def test_chunk_extension_that_does_not_end(begin):
    """libmicrohttpd waits for its end, though there is no room for it; the deadline does not. Nothing turns meanwhile."""
    gateway = begin("BodySec=1")
    with gateway.connect() as peer:
        begun, spent = time.monotonic(), gateway.cpu_seconds()
        try:
            peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 100000 + b"\r\n{}\r\n0\r\n\r\n" + BEHIND)
        except Ended:
            pass
        ends_in_time(peer, begun, 0, 4)
        assert gateway.cpu_seconds() - spent < 0.3
    assert vms(gateway) == b'{"vms":[]}'


# ---- too slow ----


def ends_in_time(peer, begun, least, most):
    peer.expect_end(seconds=most)
    assert least <= time.monotonic() - begun <= most


@pytest.mark.parametrize("first, piece", [
    pytest.param(b"", b"", id="silence"),
    pytest.param(b"", b"G", id="line"),
    pytest.param(GET, b"X: y\r\n", id="header"),
    pytest.param(HEAD + b"Content-Length: 1000\r\n\r\n", b" ", id="body"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", id="chunks"),
])
def test_trickle(begin, first, piece):
    """Who sends a byte now and then has no more time than who sends none; others are served."""
    gateway = begin("HeaderSec=1\nBodySec=1")
    slow = [gateway.connect() for _ in range(50)]
    begun = time.monotonic()
    for one in slow:
        one.send(first)
    with gateway.connect() as other:
        while time.monotonic() - begun < 0.7:
            for one in slow:
                one.send(piece)
            assert other.get().status == 200
            time.sleep(0.1)
    for one in slow:
        try:
            one.socket.settimeout(3)
            while True:
                one._receive()  # a word of farewell may come
        except Ended:
            pass
        assert time.monotonic() - begun < 4
        one.close()
    assert time.monotonic() - begun > 0.9
    assert vms(gateway) == b'{"vms":[]}'


def test_idle_connection(begin):
    gateway = begin("IdleSec=1")
    with gateway.connect() as peer:
        assert peer.get().status == 200
        ends_in_time(peer, time.monotonic(), 0.5, 4)


def test_who_does_not_read(begin):
    """A client that sends and does not read what comes is not answered for ever."""
    gateway = begin("HeaderSec=1\nBodySec=1\nIdleSec=1")
    deaf = gateway.connect()
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.socket.settimeout(0.2)
    sent = 0
    try:
        while sent < 64 * KIB * KIB:
            sent += deaf.socket.send(request("GET", "/openapi.json") * 100)
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        pass
    assert sent < 8 * KIB * KIB
    with gateway.connect() as other:
        assert other.get().status == 200
    deaf.close()


# ---- too many ----


def test_connections_of_one_uid(begin):
    gateway = begin("ConnectionsPerUID=8")
    peers = [gateway.connect() for _ in range(8)]
    assert [peer.get().status for peer in peers] == [200] * 8
    with gateway.connect() as ninth:
        ninth.expect_end()
    assert [peer.get().status for peer in peers] == [200] * 8
    peers.pop().close()

    def is_served():
        try:
            with gateway.connect() as peer:
                return peer.get().status == 200
        except Ended:
            return False

    wait_until(is_served, what="a connection less")
    for peer in peers:
        peer.close()


def test_connections_in_all(begin):
    gateway = begin("Connections=8")
    peers = [gateway.connect() for _ in range(8)]
    assert [peer.get().status for peer in peers] == [200] * 8
    with gateway.connect() as ninth:
        ninth.expect_end()
    for peer in peers:
        peer.close()


@pytest.mark.plain
@pytest.mark.timeout(3600)
def test_memory_over_many_connections(begin):
    """PRIVMEMD_CONNECTIONS says how many, if these are too few. Each third is a bad one."""
    gateway = begin()
    count = int(os.environ.get("PRIVMEMD_CONNECTIONS", "5000"))
    good, bad = GET + b"\r\n", TWO_LENGTHS["cl-te"] + BEHIND

    def some(number):
        for n in range(number):
            with gateway.connect() as peer:
                if n % 3 == 0:
                    peer.send(bad)
                    assert peer.response().status == 400
                elif n % 3 == 1:
                    assert peer.request(good).status == 200
                else:
                    peer.send(GET)  # and gone

    some(1000)
    fds, before = gateway.settle(), gateway.rss()
    some(count - 1000)
    assert gateway.settle() == fds
    assert gateway.rss() - before < 256 * KIB
