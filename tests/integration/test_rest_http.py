# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmem-rest and HTTP itself: methods, media types, limits, and clients that do not keep to it."""

import re
import socket

import pytest

from memory import MIB
from rest import problem

HOST = b"GET /v1/host HTTP/1.1\r\nHost: x\r\n"


def statuses(data):
    """Of the answers in what came."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", data)]


def test_methods_of_an_address(rest):
    for path, allowed in [
        ("/v1/host", "GET, HEAD, OPTIONS"),
        ("/v1/vms/web1", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("/v1/vms/web1/slots", "GET, HEAD, POST, OPTIONS"),
        ("/v1/vms/web1/slots/check", "POST, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ]:
        options = rest.request("OPTIONS", path)
        assert (options.status, options.headers["Allow"], options.data) == (204, allowed, b"")
        for verb in {"GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "BREW"} - set(allowed.split(", ")):
            answer = rest.request(verb, path)
            problem(answer, 405)
            assert answer.headers["Allow"] == allowed
    for path in ["/v2/host", "/v1/host/", "//v1/host", "/v1//host", "/v1/vms//backings", "/v1", "/V1/host", "/v1/host%2F"]:
        problem(rest.get(path), 404)


def test_nothing_is_for_other_origins(rest):
    answer = rest.get("/v1/host", {"Origin": "http://example.com"})
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_head(rest, huge_pages_lock):
    head, get = rest.request("HEAD", "/v1/host"), rest.get("/v1/host")
    assert (head.status, head.data) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_one_connection_for_all(rest, client):
    """No answer costs the connection: not those without a body, nor errors, nor a body that is refused."""
    connection = rest.connect()
    connection.connect()
    used = connection.sock
    for verb, path, body in [
        ("GET", "/v1/host", None), ("GET", "/v1/nothing", None), ("GET", "/v1/vms", None), ("HEAD", "/v1/vms", None),
        ("PUT", "/v1/vms/web1", {}), ("PUT", "/v1/vms/web1", b"no JSON"), ("POST", "/v1/host", {"a": 1}),
        ("DELETE", "/v1/vms/web1", None), ("OPTIONS", "/v1/vms", None), ("GET", "/healthz", None),
    ]:
        rest.request(verb, path, body, connection=connection)
        assert connection.sock is used, (verb, path)


@pytest.mark.parametrize("accept, status, media", [
    ("*/*", 200, "application/json"),
    ("application/*", 200, "application/json"),
    ("text/html, application/json;q=0.1", 200, "application/json"),
    ("application/x-ndjson, application/json;q=0.5", 200, "application/x-ndjson"),
    ("application/json;q=0, application/*", 200, "application/x-ndjson"),
    ("Application/JSON", 200, "application/json"),
    ("text/html", 406, "application/problem+json"),
    ("application/json;q=0", 406, "application/problem+json"),
    ("nonsense", 406, "application/problem+json"),
])
def test_accept(rest, accept, status, media):
    answer = rest.get("/v1/vms", {"Accept": accept})
    assert (answer.status, answer.type) == (status, media)


def test_content_type(rest):
    for media in ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']:
        assert rest.put("/v1/vms/web1", {}, {"Content-Type": media}).status in (200, 201)
    for media in ["text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded", "",
                  "application/jsonx", "multipart/form-data; boundary=x"]:
        problem(rest.put("/v1/vms/web2", {}, {"Content-Type": media}), 415)
    problem(rest.put("/v1/vms/web2", {}, {"Content-Encoding": "gzip"}), 415)
    problem(rest.request("GET", "/v1/vms", {}), 400)
    problem(rest.request("DELETE", "/v1/vms/web1", {}), 400)
    assert [vm["name"] for vm in rest.get("/v1/vms").json["vms"]] == ["web1"]


def test_pipelining(rest):
    assert statuses(rest.raw((HOST + b"\r\n") * 20 + HOST + b"Connection: close\r\n\r\n")) == [200] * 21


def test_a_proxys_form(rest):
    assert statuses(rest.raw(b"GET http://x/v1/host HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == [200]


def test_old_protocol(rest):
    answer = rest.raw(b"GET /v1/vms HTTP/1.0\r\n\r\n")
    assert answer.split(b" ", 2)[1] == b"200" and answer.endswith(b'{"vms":[]}')


def test_too_large(rest, client):
    client.register("web1")
    path = "/v1/vms/web1/slots/check"
    many = b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"
    head = b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    assert statuses(rest.raw(head + b"Content-Length: 5000000\r\n\r\n" + b" " * 5000000, keep=True)) == [413]
    assert statuses(rest.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + many * 65 + b"0\r\n\r\n", keep=True)) == [413]
    # The client does not send what is not wanted.
    expect = head + b"Expect: 100-continue\r\n"
    assert statuses(rest.raw(expect + b"Content-Length: 100000000\r\n\r\n", keep=True)) == [413]
    assert statuses(rest.raw(expect.replace(b"/json", b"/xml") + b"Content-Length: 10\r\n\r\n", keep=True)) == [415]
    assert statuses(rest.raw(expect + b"Content-Length: 10\r\n\r\n", keep=True)) == [100]
    assert rest.get("/v1/vms/" + "x" * 20000).status in (414, 431)
    assert rest.get("/v1/host", {"X": "x" * 20000}).status == 431
    assert rest.get("/v1/host").status == 200


def test_chunked_body(rest, client):
    body = b'2\r\n{"\r\n14\r\nexitPolicy":"retain"\r\n1\r\n}\r\n0\r\n\r\n'
    head = b"PUT /v1/vms/web1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    assert statuses(rest.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + body)) == [201]
    assert client.listed("ListVMs")[0]["exitPolicy"] == "retain"


@pytest.mark.parametrize("request_bytes", [
    b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"Content-Length: 3\r\n\r\n{} ",
    b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"2\r\n{}\r\n0\r\n\r\n",
    b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: +2\r\n\r\n{}",
    b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length : 2\r\n\r\n{}",
    b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\n Content-Length: 2\r\n\r\n{}",
    b"PUT /v1/vms/a HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 2\n\n{}",
    b"PUT /v1/vms/a\r\n\r\n",
    b"PUT /v1/vms/a HTTP/9.9\r\nHost: x\r\n\r\n",
    b"PUT /v1/vms/a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
])
def test_request_that_could_be_taken_for_two(rest, request_bytes):
    """It is refused, and what is behind it is not looked at."""
    got = rest.raw(request_bytes + HOST + b"\r\n", keep=True)
    assert all(status >= 400 for status in statuses(got)), got
    assert len(statuses(got)) <= 1, got
    assert rest.get("/v1/vms").json == {"vms": []}


def test_client_that_goes_in_the_middle(rest, client):
    for data in [b"GET", HOST, b"PUT /v1/vms/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
                 HOST + b"\r\n", (HOST + b"\r\n") * 100]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.connect(str(rest.path))
            one.sendall(data)
    assert rest.get("/v1/vms").json == {"vms": []}


@pytest.mark.plain
def test_many_connections_over_time(rest):
    def some(count):
        for _ in range(count):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
                one.connect(str(rest.path))
                one.sendall(HOST + b"Connection: close\r\n\r\n")
                assert one.recv(16).startswith(b"HTTP/1.1 200")
    some(500)
    before = rest.rss()
    some(3000)
    assert rest.rss() - before < MIB
