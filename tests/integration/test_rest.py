# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmem-rest: requests become calls of privmemd, and replies become answers."""

import http.client
import json

import pytest

from memory import MIB, PAGE, slot
from rest import problem
from user import ALICE

BACKING = "/v1/vms/web1/backings/ram0"
INVALID_PARAMETER = "org.varlink.service.InvalidParameter"


@pytest.fixture
def backing(rest, vm):
    answer = rest.put(BACKING, {"size": MIB})
    assert answer.status == 201, answer
    return answer


# ---- one of each kind of row ----


def test_host(rest, client, huge_pages_lock):
    answer = rest.get("/v1/host")
    assert (answer.status, answer.type) == (200, "application/json")
    assert answer.json == client.call("GetHost")


def test_put_vm(rest, client):
    answer = rest.put("/v1/vms/web1", {"exitPolicy": "retain"})
    assert (answer.status, answer.headers["Location"]) == (201, "/v1/vms/web1")
    assert answer.json == {"vm": client.listed("ListVMs")[0], "created": True}
    assert answer.json["vm"]["exitPolicy"] == "retain"


def test_put_the_same_again(rest):
    assert rest.put("/v1/vms/web1").status == 201
    again = rest.put("/v1/vms/web1")
    assert (again.status, again.headers["Location"]) == (200, None)
    assert again.json["created"] is False


def test_put_another_of_that_name(rest):
    rest.put("/v1/vms/web1", {"exitPolicy": "retain"})
    document = problem(rest.put("/v1/vms/web1", {"exitPolicy": "release"}), 409)
    assert document["type"] == "io.privmemd.Memory.NameConflict"
    assert (document["field"], document["present"], document["requested"]) == ("exitPolicy", "retain", "release")


def test_owner_is_who_asks(rest, client):
    assert rest.put("/v1/vms/web1").json["vm"]["ownerUID"] == 0
    assert rest.put("/v1/vms/web2", {"ownerUID": None}).json["vm"]["ownerUID"] == 0
    assert rest.put("/v1/vms/web3", {"ownerUID": 1234}).json["vm"]["ownerUID"] == 1234


def test_one_vm(rest, client):
    client.register("web1")
    assert rest.get("/v1/vms/web1").json == client.listed("ListVMs")[0]
    document = problem(rest.get("/v1/vms/web2"), 404)
    assert document["type"] == "io.privmemd.Memory.NoSuchVM"
    assert document["vm"] == "web2"


def test_put_backing(rest, client, backing):
    assert backing.headers["Location"] == BACKING
    assert rest.get(BACKING).json == client.backing()
    assert rest.put(BACKING, {"size": MIB}).status == 200


def test_backing_that_is_not_there(rest, vm):
    assert problem(rest.get(BACKING), 404)


def test_delete(rest, client, backing):
    answer = rest.delete(BACKING)
    assert (answer.status, answer.json) == (200, {"freedBytes": 0})
    assert problem(rest.delete(BACKING), 404)["type"] == "io.privmemd.Memory.NoSuchBacking"


def test_share(rest, client, backing):
    client.register("db1")
    path = f"{BACKING}/shares/db1"
    assert rest.put(path, {"access": "read_only"}).status == 201
    assert problem(rest.put(path), 409)["type"] == "io.privmemd.Memory.NameConflict"
    assert rest.delete(path).json == {"reclaimed": True}
    assert rest.delete(path).json == {"reclaimed": False}


def test_slots(rest, client, backing):
    body = {"guestPhysAddr": 0x100000, "memorySize": PAGE, "userspaceAddr": 0x7f0000000000, "backing": "ram0"}
    assert rest.put("/v1/vms/web1/slots/0/7", body).json["verdict"]["outcome"] == "ok"
    wanted = client.listed("ListSlots")
    assert [one["slot"]["slotId"] for one in wanted] == [7]
    assert rest.get("/v1/vms/web1/slots/0/7").json == wanted[0]
    assert rest.get("/v1/slots").json == {"slots": wanted}
    assert rest.get("/v1/vms/web1/slots?backing=ram0&guestPhysAddr=0&memorySize=1048576").json == {"slots": []}
    assert rest.get("/v1/vms/web1/slots?guestPhysAddr=1048576&memorySize=1").json == {"slots": wanted}
    problem(rest.get("/v1/vms/web1/slots/0/8"), 404)
    assert rest.delete("/v1/vms/web1/slots/0/7").status == 200
    assert client.listed("ListSlots") == []
    gone = problem(rest.delete("/v1/vms/web1/slots/0/7"), 404)
    assert (gone["type"], gone["verdict"]["rule"]) == ("io.privmemd.Memory.SlotRefused", "no_such_slot")


def test_refused_slots(rest, client, backing):
    """409 because of another one, 422 if KVM would refuse the slot whatever else there is."""
    good = {"guestPhysAddr": 0, "memorySize": PAGE, "userspaceAddr": 0x7f0000000000, "backing": "ram0"}
    assert rest.put("/v1/vms/web1/slots/0/1", good).status == 200
    alias = problem(rest.put("/v1/vms/web1/slots/0/2", {**good, "guestPhysAddr": 0x80000}), 409)
    assert alias["type"] == "io.privmemd.Memory.SlotRefused"
    assert alias["verdict"]["conflicts"]
    odd = problem(rest.put("/v1/vms/web1/slots/0/3", {**good, "memorySize": 1}), 422)
    assert odd["verdict"]["kernelErrno"]
    table = {"slots": [slot(4, 0x100000, PAGE, backing="ram0", backingOffset=PAGE), slot(5, 1, PAGE)]}
    both = problem(rest.post("/v1/vms/web1/slots", table), 422)
    assert len(both["verdicts"]) == 2
    assert rest.post("/v1/vms/web1/slots/check", table).json["accepted"] is False


def test_numbers_go_through_as_they_are(rest, vm):
    document = problem(rest.put(BACKING, b'{"size":18446744073709551615}'), 422)
    assert (document["field"], document["value"]) == ("size", 2**64 - 1)


def test_no_route_for_what_carries_file_descriptors(rest, vm, backing):
    for name in ["attach", "handOver", "backings/ram0/open", "backings/ram0/adopt"]:
        problem(rest.post(f"/v1/vms/web1/{name}", {}), 404)


# ---- lists ----


@pytest.fixture
def many(client):
    """10,000 slots."""
    client.register("web1")
    table = [slot(i, 2 * i * PAGE, PAGE, userspaceAddr=0x100000000 + 2 * i * PAGE) for i in range(10000)]
    for first in range(0, len(table), 4000):
        client.call("SetSlots", vm="web1", slots=table[first:first + 4000])
    return client.listed("ListSlots")


def test_lists(rest, client):
    assert rest.get("/v1/vms").json == {"vms": []}
    client.register("web1")
    client.register("web2")
    assert rest.get("/v1/vms").json == {"vms": client.listed("ListVMs")}
    assert rest.get("/v1/vms/web2/backings").json == {"backings": []}
    problem(rest.get("/v1/vms/web3/backings"), 404)


def test_holders(rest, client, backing):
    reply = client.call("ListHolders", vm="web1")
    assert rest.get("/v1/vms/web1/holders").json == reply
    assert rest.get(f"{BACKING}/holders").json == reply


def test_long_list(rest, many):
    answer = rest.get("/v1/slots")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.json == {"slots": many}


def test_long_list_as_lines(rest, many):
    answer = rest.get("/v1/slots", {"Accept": "application/x-ndjson"})
    assert answer.type == "application/x-ndjson"
    assert [json.loads(line) for line in answer.data.splitlines()] == many


def test_pages(rest, many):
    found, path = [], "/v1/slots?limit=900"
    while path:
        page = rest.get(path)
        assert "Content-Length" in page.headers
        document = page.json
        assert 0 < len(document["slots"]) <= 900
        found += document["slots"]
        cursor = document.get("nextCursor")
        path = cursor and f"/v1/slots?limit=900&cursor={cursor}"
    assert found == many


def test_head_of_a_long_list(rest, many):
    connection = rest.connect()
    answer = rest.request("HEAD", "/v1/slots", connection=connection)
    assert (answer.status, answer.data) == (200, b"")
    assert rest.get("/v1/host", connection=connection).status == 200


def test_list_nobody_reads_to_its_end(rest, many):
    for _ in range(20):
        connection = rest.connect()
        connection.request("GET", "/v1/slots")
        connection.getresponse().read(1)
        connection.close()
    assert rest.get("/v1/slots").json == {"slots": many}


def test_lists_nobody_reads_are_in_nobodys_way(daemon, start_rest, many):
    """There are fewer connections to privmemd for lists than readers here."""
    rest = start_rest(daemon, arguments=["--timeout=2", "--wait=15"])
    readers = [rest.connect() for _ in range(12)]
    for reader in readers:
        reader.request("GET", "/v1/slots")
    assert rest.get("/v1/slots").json == {"slots": many}
    with pytest.raises(http.client.IncompleteRead):
        readers[0].getresponse().read()


@pytest.mark.plain
def test_list_is_not_kept(rest, many):
    rest.get("/v1/slots")
    before = rest.rss()
    readers = [rest.connect() for _ in range(6)]
    for reader in readers:
        reader.request("GET", "/v1/slots")
    for _ in range(30):
        rest.get("/v1/host")
    assert rest.rss() - before < 6 * MIB
    assert json.loads(readers[0].getresponse().read()) == {"slots": many}


# ---- conditions ----


def test_dry_run(rest, client, vm):
    answer = rest.put(f"{BACKING}?dryRun=true", {"size": MIB})
    assert (answer.status, answer.json, answer.headers["Location"]) == (200, {"created": True}, None), answer
    assert client.listed("ListBackings") == []
    assert rest.put(f"{BACKING}?dryRun=false", {"size": MIB}).status == 201
    assert rest.put("/v1/vms/web1/slots/0/1?dryRun=true", {"guestPhysAddr": 0, "memorySize": PAGE}).status in (200, 422)
    assert client.listed("ListSlots") == []
    assert problem(rest.put("/v1/vms/web1?dryRun=true"), 400)["parameter"] == "dryRun"
    assert problem(rest.put(f"{BACKING}?dryRun=yes", {"size": MIB}), 400)["parameter"] == "dryRun"


def test_vm_only_as_it_was(rest, vm):
    """The second of two who have looked at the same VM is told that it has changed."""
    seen = rest.get("/v1/vms/web1")
    tag = seen.headers["ETag"]
    assert tag == f'"{seen.json["generation"]}"'
    assert rest.get("/v1/vms/web1", {"If-None-Match": tag}).status == 304
    assert rest.put(BACKING, {"size": MIB}, {"If-Match": tag}).status == 201
    document = problem(rest.delete("/v1/vms/web1", {"If-Match": tag}), 412)
    assert document["type"] == "io.privmemd.Memory.VMChanged"
    assert rest.get("/v1/vms/web1", {"If-None-Match": tag}).status == 200
    for nonsense in ['W/"1"', '"a"', "1", '"1", "2"']:
        assert problem(rest.delete("/v1/vms/web1", {"If-Match": nonsense}), 412)["parameter"] == "If-Match"
    tag = rest.get("/v1/vms/web1").headers["ETag"]
    assert rest.delete("/v1/vms/web1", {"If-Match": tag}).status == 200
    assert rest.put("/v1/vms/web1", None, {"If-Match": "*"}).status == 201


def test_claim(rest, client, backing):
    answer = rest.post("/v1/vms/web1/claims", {})
    assert answer.status == 201
    assert answer.headers["Location"] == f"/v1/vms/web1/claims/{answer.json['claim']}"
    (claim,) = rest.get("/v1/vms/web1/claims").json["claims"]
    (wanted,) = client.call("ListClaims", vm="web1")["claims"]
    assert claim.pop("expiresUSec") == pytest.approx(wanted.pop("expiresUSec"), abs=10**6)
    assert claim == wanted
    assert rest.delete(answer.headers["Location"]).status in (200, 204)
    assert rest.get("/v1/vms/web1/claims").json == {"claims": []}


def test_condition_where_there_is_none(rest, vm):
    assert problem(rest.post("/v1/vms/web1/slots/check", {"slots": []}, {"If-Match": '"1"'}), 400)
    assert rest.get("/v1/host", {"If-Match": '"1"'}).status == 200
    for name, value in [("If-None-Match", "*"), ("If-Unmodified-Since", "Sun, 22 Nov 2026 18:00:00 GMT")]:
        assert problem(rest.put("/v1/vms/web2", {}, {name: value}), 400)["parameter"] == name


# ---- what is wrong with a request ----


def test_bad_address(rest, vm):
    for path, parameter in [
        ("/v1/vms?vm=web1&what=1", "what"),
        ("/v1/vms?vm=web1&vm=web2", "vm"),
        ("/v1/slots?memorySize=0x10", "memorySize"),
        ("/v1/slots?memorySize=18446744073709551616", "memorySize"),
        ("/v1/slots?memorySize=", "memorySize"),
        ("/v1/vms?vm=%zz", "vm"),
        ("/v1/vms?vm=%00", "vm"),
        ("/v1/vms?vm=%ff", "vm"),
        ("/v1/vms?vm=" + "x" * 600, "vm"),
        ("/v1/vms/web1/backings?vm=web1", "vm"),
        ("/v1/vms/web1?ifGeneration=1", "ifGeneration"),
        ("/v1/vms/web1/slots/x/1", "addressSpace"),
        ("/v1/vms/%ff", "vm"),
    ]:
        assert problem(rest.get(path), 400)["parameter"] == parameter, path


def test_name_that_is_no_name(rest):
    for name in ["%20", "a%2Fb", "%22%5c", "%C3%A4"]:
        assert problem(rest.put(f"/v1/vms/{name}"), 422)["type"] == "io.privmemd.Memory.InvalidName"


def test_body_that_is_not_json(rest, vm):
    for body in [
        b"{", b"[]", b"1", b"null", b"{}x", b'{"size":01}', b'{"size":1,}', b"{'size':1}", b'{"size":NaN}',
        b'{"size":+1}', b'{"size":1,"size":2}', b'{"kind":"\xff"}', b'{"kind":"\\u0000"}', b'{"kind":"\\ud800"}',
        b'{"kind":"a\x01"}', b'{"size":' + b"[" * 100 + b"]" * 100 + b"}", b"[" * 100000, b'{"s\\u0069ze":1}',
        b"\xef\xbb\xbf{}", b'{"x":{' + b",".join(b'"%d":0' % i for i in range(100)) + b"}}",
    ]:
        document = problem(rest.put(BACKING, body), 400)
        assert document["type"] == "about:blank", body
        assert "The body " in document["detail"], body


def test_wrong_member(rest, vm):
    for body, parameter in [
        ({"sise": 1}, "sise"),
        ({"size": MIB, "vm": "web2"}, "vm"),
        ({"size": MIB, "name": 1}, "name"),
        ({"size": MIB, "open": True}, "open"),
        ({"size": MIB, "dryRun": True}, "dryRun"),
        ({"size": MIB, "ifGeneration": 1}, "ifGeneration"),
        ({"size": "1"}, "size"),
        ({"size": 4096.0}, "size"),
        ({"size": None}, "size"),
        ({}, "size"),
        ({"size": MIB, "kind": "paper"}, "kind"),
        ({"size": MIB, "numaNodes": 1}, "numaNodes"),
        ({"size": MIB, "numaNodes": [0, "1"]}, "numaNodes"),
    ]:
        document = problem(rest.put(BACKING, body), 422)
        assert (document["type"], document["parameter"]) == (INVALID_PARAMETER, parameter), body
    for one, parameter in [({"slotId": "1"}, "slotId"), ({"what": 1}, "what"), (1, "slots")]:
        document = problem(rest.post("/v1/vms/web1/slots", {"slots": [one]}), 422)
        assert (document["type"], document["parameter"]) == (INVALID_PARAMETER, parameter), one


def test_body_may_say_what_the_address_says(rest, vm):
    assert rest.put(BACKING, {"size": MIB, "vm": "web1", "name": "ram0"}).status == 201
    body = {"addressSpace": 0, "slotId": 7, "guestPhysAddr": 0, "memorySize": PAGE, "userspaceAddr": 0x7f0000000000}
    assert rest.put("/v1/vms/web1/slots/0/7", body).status == 200
    assert problem(rest.put("/v1/vms/web1/slots/0/8", body), 422)["parameter"] == "slotId"


def test_body_that_is_missing(rest, vm):
    problem(rest.put("/v1/vms/web1/slots/0/7"), 400)
    assert problem(rest.post("/v1/vms/web1/slots"), 422)["parameter"] == "slots"


@pytest.mark.root
def test_caller_without_a_right(rest, vm):
    rest.path.chmod(0o666)
    document = problem(rest.get("/v1/vms", uid=ALICE), 403)
    assert str(ALICE) in document["detail"]
    problem(rest.put("/v1/vms/web2", uid=ALICE), 403)
    assert rest.get("/healthz", uid=ALICE).status == 200


# ---- pages ----


def test_pages_for_people(rest):
    assert rest.get("/openapi.json").json["openapi"].startswith("3.1.")
    assert b'href="/openapi.json"' in rest.get("/", {"Accept": "text/html,*/*;q=0.8"}).data
    assert rest.get("/", {"Accept": "text/plain"}).type == "text/plain"
    assert rest.get("/readyz").data == b"ready\n"
    assert rest.get("/healthz").data == b"alive\n"
