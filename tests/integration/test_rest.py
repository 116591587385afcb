# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmem-rest: requests become calls of privmemd, and replies become answers."""

from rest import problem


def test_host(rest, client):
    answer = rest.get("/v1/host")
    assert (answer.status, answer.type) == (200, "application/json")
    assert answer.json == client.call("GetHost")


def test_list_of_vms(rest, client):
    assert rest.get("/v1/vms").json == {"vms": []}
    client.register("web1")
    client.register("web2")
    assert rest.get("/v1/vms").json["vms"] == client.listed("ListVMs")


def test_one_vm(rest, client):
    vm = client.register("web1")
    assert rest.get("/v1/vms/web1").json == vm
    document = problem(rest.get("/v1/vms/web2"), 404)
    assert document["type"] == "io.privmemd.Memory.NoSuchVM"
    assert document["vm"] == "web2"


def test_requests_on_one_connection(rest):
    connection = rest.connect()
    for path in ["/v1/host", "/v1/nothing", "/v1/vms", "/healthz", "/v1/vms/web1", "/readyz", "/"]:
        rest.get(path, connection=connection)
        assert connection.sock, path
