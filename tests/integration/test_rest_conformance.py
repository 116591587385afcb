# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmem-rest keeps to /openapi.json: each operation is driven with what the document allows and with what it does not,
each answer is held against it, and each status that it documents is seen."""

import collections
import concurrent.futures
import json
import os
import pathlib
import resource
import signal
import socket
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest, MockResponse

import contract as contract_module
import openapi
import user
from broker import Daemon, binary
from rest import Connection, Response, Rest

DOCUMENT = openapi.golden()
METHODS = DOCUMENT.methods()
WITH_BODY = [operation for operation in METHODS if operation.body is not None]

GIB = 1 << 30
ELSEWHERE = 0x7f8000000000  # where no slot of an example is
VMS_PER_UID = 80

# The order in which the examples make something of nothing; the other operations follow.
FIRST = ["RegisterVM", "AllocateBacking", "SetSlot", "ShareBacking", "CreateClaim"]
# These take it apart.
LAST = ["DeleteClaim", "DeleteSlot", "ReclaimBacking", "ReleaseBacking", "UnregisterVM"]

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


class World:
    """privmemd with what the examples speak of, and privmem-rest, whose every answer is checked."""

    def __init__(self, directory, *arguments):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
        config = directory / "privmemd.conf"
        config.write_text(f"[Limits]\nVMsPerUID={VMS_PER_UID}\n")
        self.daemon = Daemon(directory, contract_module.golden(), command=[
            binary(), f"--socket={directory / 'socket'}", f"--config={config}", *arguments])
        self.rest = Rest(directory, self.daemon)
        self.rest.path.chmod(0o666)
        self.client = self.daemon.connect()
        self.seen = collections.defaultdict(set)
        self.values = {"vm": "web1", "backing": "ram0", "peer": "db1", "addressSpace": 0, "slotId": 0}
        self.client.register("db1")
        self.client.register("scratch")
        self.client.allocate(vm="scratch")

    def finish(self):
        try:
            self.rest.finish()
        finally:
            self.daemon.finish()

    def request(self, operation, body=None, *, query=None, headers=None, rest=None, uid=None, verb=None, **parts):
        """An answer of it, which keeps to the document."""
        if isinstance(operation, str):
            operation = DOCUMENT.operation(operation)
        answer = (rest or self.rest).request(verb or operation.verb, operation.address({**self.values, **parts}, query),
                                             body, headers, uid=uid)
        if verb is None:
            DOCUMENT.check_answer(operation, answer)
            self.seen[operation.id].add(answer.status)
        return answer

    def answer(self, operation, connection):
        """That to a request which was sent already."""
        response = connection.getresponse()
        answer = Response(response, response.read())
        connection.close()
        DOCUMENT.check_answer(operation, answer)
        self.seen[operation.id].add(answer.status)
        return answer

    def expect(self, status, operation, *arguments, **options):
        answer = self.request(operation, *arguments, **options)
        assert answer.status == status, f"{operation} with {arguments} {options}: {answer}"
        return answer

    def refuse(self, operation, *arguments, **options):
        answer = self.request(operation, *arguments, **options)
        assert 400 <= answer.status < 500, f"{operation} with {arguments} {options}: {answer}"
        return answer

    def example(self, name, **options):
        """What the document shows, sent as it is."""
        operation = DOCUMENT.operation(name)
        answer = self.request(operation, operation.example, **options)
        assert answer.status < 300, f"the example of {name}: {answer}"
        return answer


@pytest.fixture(scope="module")
def world():
    with tempfile.TemporaryDirectory(prefix="privmemd-") as path:
        os.chmod(path, 0o755)
        made = World(pathlib.Path(path))
        try:
            for name in FIRST:
                answer = made.example(name)
                made.values.update({"claim": answer.json["claim"]} if name == "CreateClaim" else {})
            yield made
        finally:
            made.finish()


@pytest.fixture(scope="module")
def alone():
    """A privmem-rest without a privmemd."""
    class Nobody:
        path = "/nonexistent/socket"
    with tempfile.TemporaryDirectory(prefix="privmemd-") as path:
        rest = Rest(pathlib.Path(path), Nobody)
        yield rest
        rest.finish()


@pytest.fixture(scope="module")
def core():
    """tests/check/openapi.py has found the document valid."""
    return OpenAPI.from_dict(DOCUMENT.json, config=Config(
        spec_validator_cls=None, extra_media_type_deserializers={openapi.PROBLEM: json.loads}))


def each(operations=METHODS):
    return pytest.mark.parametrize("operation", operations, ids=str)


# ---- what it allows ----


def test_document_is_served(world):
    answer = world.request("GetOpenAPI")
    assert answer.json == DOCUMENT.json
    assert answer.status == 200


def test_examples(world):
    """Each operation with its example, until all that they made is gone again; on what nobody else here needs."""
    world.values.update(vm="example", peer="peer")
    try:
        world.client.register("peer")
        for name in FIRST:
            answer = world.example(name)
            made = {"claim": answer.json["claim"]} if name == "CreateClaim" else {}
        for operation in METHODS:
            if operation.id not in FIRST + LAST and not operation.is_stream:
                world.example(operation.id, **made)
        for name in LAST:
            world.example(name, **made)
    finally:
        world.values.update(vm="web1", peer="db1")


@each([operation for operation in DOCUMENT.operations if operation.verb == "GET" and not operation.is_stream])
def test_each_media_type_and_head(world, operation):
    for name in operation.description["responses"]["200"]["content"]:
        answer = world.expect(200, operation, headers={"Accept": name})
        assert answer.type == name
        head = world.request(operation, headers={"Accept": name}, verb="HEAD")
        assert (head.status, head.type, head.data) == (200, name, b"")


@each([operation for operation in METHODS if not operation.is_stream])
def test_as_openapi_core_sees_it(world, core, operation):
    """Another reader of the document: it finds the operation, and takes the request and its answer. Nothing changes."""
    parts = {"claim": "nothing"} if operation.has_parameter("claim") else {}
    headers = {"If-Match": '"0"'} if operation.has_parameter("If-Match") else {}
    body = None if operation.example is None else json.dumps(operation.example).encode()
    answer = world.request(operation, body, headers=headers, **parts)
    request = MockRequest("http://localhost", operation.verb.lower(), operation.address({**world.values, **parts}),
                          headers=headers, data=body, content_type="application/json")
    core.validate_request(request)
    core.validate_response(request, MockResponse(answer.data, answer.status, dict(answer.headers), answer.type))


def test_repeated_requests(world):
    for name in ["RegisterVM", "AllocateBacking", "ShareBacking"]:
        assert world.example(name).status == 200


@each(WITH_BODY)
def test_generated_bodies(world, operation):
    """Whatever the schema allows, privmemd may refuse; but it is no mistake of the request as such."""
    @settings(max_examples=25, derandomize=True, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(openapi.objects(DOCUMENT, operation.body))
    def drive(body):
        parts = {"vm": "scratch" if operation.id != "RegisterVM" else "generated"}
        if operation.id == "AllocateBacking":
            parts["backing"] = "generated"
        answer = world.request(operation, body, **parts)
        assert answer.status != 400, f"{operation} with {body}: {answer}"
        if operation.id == "AllocateBacking" and answer.status < 300:
            world.request("ReleaseBacking", **parts)
        if operation.id == "RegisterVM" and answer.status < 300:
            world.request("UnregisterVM", **parts)
        if operation.id == "CreateClaim" and answer.status < 300:
            world.request("DeleteClaim", claim=answer.json["claim"], **parts)

    drive()


@each([operation for operation in METHODS if operation.of("query") and operation.verb == "GET" and
       not operation.is_stream])
def test_generated_queries(world, operation):
    schemas = {parameter["name"]: parameter["schema"] for parameter in operation.of("query")}

    @settings(max_examples=15, derandomize=True, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(strategies.fixed_dictionaries({}, optional={
        name: openapi.values(DOCUMENT, schema) for name, schema in schemas.items()}))
    def drive(query):
        answer = world.request(operation, query=query)
        assert answer.status != 400, f"{operation} with {query}: {answer}"

    drive()


# ---- what it does not ----


@each(WITH_BODY)
def test_missing_member(world, operation):
    for name in operation.body.get("required", []):
        body = operation.example
        del body[name]
        document = world.expect(422, operation, body).json
        assert document["type"] == "org.varlink.service.InvalidParameter"
        # Of a body that is one object of the method, that one is named.
        assert document["parameter"] in (name, "slot")


@each(WITH_BODY)
def test_member_of_wrong_type(world, operation):
    for name, schema in operation.body["properties"].items():
        for wrong in openapi.wrong_values(DOCUMENT, schema):
            document = world.expect(422, operation, {**operation.example, name: wrong}).json
            assert document["type"] == "org.varlink.service.InvalidParameter", (name, wrong, document)


@each(WITH_BODY)
def test_member_beyond_its_range(world, operation):
    for name, schema in operation.body["properties"].items():
        for number in openapi.outside(DOCUMENT, schema):
            world.refuse(operation, {**operation.example, name: number})


@each(WITH_BODY)
def test_member_that_is_too_long(world, operation):
    for name, schema in operation.body["properties"].items():
        if openapi.kind(DOCUMENT, schema) == "string":
            for text in ["a" * 65, "a" * 100_000, "\u00e4" * 64, "a b", ""]:
                if "enum" in openapi.resolve(DOCUMENT, schema) or "pattern" in openapi.resolve(DOCUMENT, schema):
                    world.refuse(operation, {**operation.example, name: text})
                else:
                    world.request(operation, {**operation.example, name: text})


def test_number_as_text(world):
    """privmemd itself would take it."""
    assert world.expect(422, "PunchBacking", {"offset": "4096", "size": 8192}).json["parameter"] == "offset"


@each(WITH_BODY)
def test_unknown_member(world, operation):
    document = world.expect(422, operation, {**operation.example, "noSuchMember": 1}).json
    assert document["parameter"] == "noSuchMember"


@each(WITH_BODY)
def test_body_that_is_no_object(world, operation):
    for body in [b"{", b"[]", b"7", b"null", b'"x"', b"{}{}", b"\xff", b'{"a":1,"a":1}', b"[" * 1000, b"nul\0"]:
        world.expect(400, operation, body)


@each(WITH_BODY)
def test_other_content_type(world, operation):
    for name in ["text/plain", "application/x-www-form-urlencoded", "application/json+x", ""]:
        world.expect(415, operation, json.dumps(operation.example).encode(), headers={"Content-Type": name})


@each(WITH_BODY)
def test_body_that_is_too_large(world, operation):
    """The header says so, and the answer does not wait for it."""
    connection = Connection(world.rest.path)
    connection.putrequest(operation.verb, operation.address(world.values))
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(1 << 30))
    connection.endheaders()
    assert world.answer(operation, connection).status == 413


@each()
def test_unknown_parameter(world, operation):
    for query in [{"noSuchParameter": 1}, {"vm.name": "x"}, {"": "x"}]:
        world.expect(400, operation, operation.example, query=query)


@each()
def test_parameter_of_wrong_type(world, operation):
    for parameter in operation.of("query"):
        name = openapi.kind(DOCUMENT, parameter["schema"])
        for wrong in {"integer": ["x", "", "1.5", "0x10", "1e3", "true"], "boolean": ["x", "", "1", "TRUE"]}.get(name, []):
            world.expect(400, operation, operation.example, query={parameter["name"]: wrong})
        for number in openapi.outside(DOCUMENT, parameter["schema"]):
            answer = world.request(operation, operation.example, query={parameter["name"]: number})
            assert answer.status in (400, 422) or parameter["name"] != "limit", (number, answer)


@each()
def test_part_of_wrong_type(world, operation):
    for parameter in operation.of("path"):
        if openapi.kind(DOCUMENT, parameter["schema"]) == "integer":
            for wrong in ["x", "1.5", "%", "+1", "1 "]:
                world.expect(400, operation, operation.example, **{parameter["name"]: wrong})
            for number in openapi.outside(DOCUMENT, parameter["schema"]):
                answer = world.request(operation, operation.example, **{parameter["name"]: number})
                assert answer.status in (400, 404, 422), (number, answer)
        else:
            for wrong in ["a" * 65, "a" * 2000, "a b", "a/b", "\u00e4", "..", "{vm}", "%00"]:
                world.refuse(operation, operation.example, **{parameter["name"]: wrong})


@each()
def test_media_type_that_it_has_not(world, operation):
    world.expect(406, operation, operation.example, headers={"Accept": "image/png"})


@pytest.mark.parametrize("path", DOCUMENT.json["paths"])
def test_other_verbs(world, path):
    operation = next(operation for operation in DOCUMENT.operations if operation.path == path)
    allowed = DOCUMENT.verbs(path) | {"OPTIONS"} | ({"HEAD"} if "GET" in DOCUMENT.verbs(path) else set())
    for verb in {"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"} - allowed:
        answer = world.request(operation, verb=verb)
        assert (answer.status, set(answer.headers["Allow"].split(", "))) == (405, allowed), (verb, answer)
    answer = world.request(operation, verb="OPTIONS")
    assert (answer.status, set(answer.headers["Allow"].split(", "))) == (204, allowed)


@each()
def test_what_is_not_there(world, operation):
    if 404 not in operation.statuses:
        return
    if operation.has_parameter("vm"):
        place = next(parameter["in"] for parameter in operation.parameters if parameter["name"] == "vm")
        options = {"vm": "nothing"} if place == "path" else {"query": {"vm": "nothing"}}
        world.expect(404, operation, operation.example, **options)
    if operation.has_parameter("claim"):
        world.expect(404, operation, claim="nothing")


@each([operation for operation in METHODS if operation.has_parameter("If-Match")])
def test_stale_condition(world, operation):
    document = world.expect(412, operation, operation.example, headers={"If-Match": '"0"'}).json
    assert document["type"] == "io.privmemd.Memory.VMChanged"
    for tag in ["0", "x", '"x"', 'W/"0"', '"0", "1"', '""']:
        assert world.expect(412, operation, operation.example, headers={"If-Match": tag}).json["type"] == "about:blank"


@each()
def test_caller_without_a_right(world, operation):
    world.expect(403, operation, operation.example, uid=user.ALICE)


def test_privmemd_is_not_there(world, alone):
    """All at once, for each waits a while for privmemd."""
    with concurrent.futures.ThreadPoolExecutor(len(METHODS)) as pool:
        answers = pool.map(lambda operation: world.request(operation, operation.example, rest=alone), METHODS)
        assert {answer.status for answer in answers} == {503}


# ---- states that it may meet ----


def test_version_that_is_known(world):
    tag = world.request("GetVM").headers["ETag"]
    assert world.expect(304, "GetVM", headers={"If-None-Match": tag}).headers["ETag"] == tag


def test_what_is_there_already_and_differs(world):
    world.expect(409, "RegisterVM", {"exitPolicy": "release"})
    world.expect(409, "AllocateBacking", {"size": 2 * GIB})
    world.expect(409, "ShareBacking", {"access": "read_write"})


def test_what_is_in_use(world):
    world.client.register("busy")
    world.client.call("AttachVM", vm="busy")
    world.expect(409, "UnregisterVM", vm="busy")
    world.expect(409, "ReleaseBacking")
    world.client.call("SetSlot", vm="db1", slot={
        "slotId": 0, "guestPhysAddr": 0, "memorySize": 4096, "userspaceAddr": ELSEWHERE, "backing": "ram0",
        "backingVM": "web1", "flags": ["readonly"]})
    world.expect(409, "ReclaimBacking")


def test_slots_that_are_refused(world):
    alias = {"guestPhysAddr": 4 * GIB, "memorySize": 4096, "userspaceAddr": ELSEWHERE, "backing": "ram0"}
    overlap = {"guestPhysAddr": 0, "memorySize": 4096, "userspaceAddr": ELSEWHERE}
    for status, slot in [(409, alias), (422, overlap)]:
        world.expect(status, "SetSlot", slot, slotId=5)
        world.expect(status, "SetSlots", {"slots": [{**slot, "slotId": 5}]})
        assert not world.expect(200, "CheckSlots", {"slots": [{**slot, "slotId": 5}]}).json["accepted"]
    world.expect(404, "DeleteSlot", slotId=9)


def test_empty_ranges(world):
    for name in ["ListVMs", "ListBackings", "ListBackingsOfVM", "ListSlots", "ListSlotsOfVM", "ListMemory", "ListMetrics"]:
        world.expect(422, name, query={"limit": 0})


def test_pages(world):
    for name, member in [("ListVMs", "vms"), ("ListBackings", "backings"), ("ListSlots", "slots"), ("ListMetrics", "metrics")]:
        whole, pages, query = world.request(name).json[member], [], {"limit": 1}
        while query:
            page = world.expect(200, name, query=query).json
            pages += page[member]
            query = page.get("nextCursor") and {"limit": 1, "cursor": page["nextCursor"]}
        if name == "ListMetrics":
            whole, pages = [[one["vm"] for one in some] for some in (whole, pages)]
        assert pages == whole


def test_dry_run(world):
    for operation in METHODS:
        if operation.has_parameter("dryRun") and operation.id != "DeleteSlot":
            world.request(operation, operation.example, query={"dryRun": "true"}, backing="dry", slotId=7)
    assert world.request("GetBacking", backing="dry").status == 404
    assert world.request("GetListedSlot", slotId=7).status == 404


# ---- limits ----


def test_limit_of_vms_and_shares(world):
    for i in range(VMS_PER_UID):
        world.client.register(f"many{i}", ownerUID=4242)
    world.expect(429, "RegisterVM", {"ownerUID": 4242}, vm="one-more")
    world.client.register("sharing")
    world.client.allocate(vm="sharing", size=4096)
    for i in range(64):
        world.client.call("ShareBacking", vm="sharing", backing="ram0", peer=f"many{i}")
    world.expect(429, "ShareBacking", {}, vm="sharing", peer="many64")


def test_limit_of_backings(world):
    world.client.register("full")
    for i in range(256):
        world.client.allocate(f"ram{i}", vm="full", size=4096)
        world.client.close_fds()
    world.expect(429, "AllocateBacking", {"size": 4096}, vm="full", backing="one-more")


def test_limit_of_slots_in_one_call(world):
    for name in ["SetSlots", "CheckSlots"]:
        world.expect(429, name, {"slots": DOCUMENT.operation(name).example["slots"] * 4097})


def test_limit_of_claims(world):
    world.client.register("claimed")
    world.client.allocate(vm="claimed", size=4096)
    for _ in range(64):
        world.client.call("CreateClaim", vm="claimed")
    world.expect(429, "CreateClaim", {}, vm="claimed")


def test_limit_of_private_ranges(world):
    world.client.register("private", type="sw_protected")
    for i in range(32768):
        world.client.send("SetMemoryAttributes", {
            "vm": "private", "guestPhysAddr": i * 8192, "memorySize": 4096, "private": True})
        if i % 64 == 63:
            for _ in range(64):
                world.client.receive()
    world.expect(429, "SetMemoryAttributes", {"guestPhysAddr": GIB, "memorySize": 4096, "private": True}, vm="private")


def list_holders_as_one_of_many(world, operation):
    """The others are sent at once, and this one while they are answered."""
    readers = [world.daemon.connect() for _ in range(8)]
    for reader in readers:
        reader.call("GetHost")
    connection = Connection(world.rest.path)
    connection.connect()
    world.daemon.process.send_signal(signal.SIGSTOP)
    for reader in readers:
        reader.send("ListHolders", {"vm": "web1"}, more=True)
    world.daemon.process.send_signal(signal.SIGCONT)
    connection.request("GET", operation.address(world.values))
    answer = world.answer(operation, connection)
    for reader in readers:
        reader.close()
    return answer.status


@pytest.mark.parametrize("name", ["ListHolders", "ListHoldersOfBacking"])
def test_limit_of_lists_of_holders(world, name):
    operation = DOCUMENT.operation(name)
    assert any(list_holders_as_one_of_many(world, operation) == 429 for _ in range(50))


def test_limit_of_ledger_lists(world, directory):
    """A list that is long, and that nobody reads, is still under way."""
    other = World(directory, f"--ledger={directory}")
    try:
        other.client.register("long")
        other.client.call("SetSlots", vm="long", slots=[
            {"slotId": i, "guestPhysAddr": i * 4096, "memorySize": 4096, "userspaceAddr": ELSEWHERE + i * 4096}
            for i in range(4096)])
        assert len(other.rest.get("/v1/ledger").json["records"]) > 4096
        readers = [other.daemon.connect() for _ in range(4)]
        for reader in readers:
            next(reader.stream("ListLedger"))
        other.expect(429, "ListLedger")
        world.seen["ListLedger"] |= other.seen["ListLedger"]
    finally:
        other.finish()


def test_no_capacity(world):
    world.expect(507, "AllocateBacking", {"size": 1 << 50, "kind": "hugetlb"}, backing="huge")


# ---- events ----


def subscribe(world, headers=(), query=""):
    """The connection, and the head of the answer as one that has no body."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(20)
    client.connect(str(world.rest.path))
    lines = [f"GET /v1/events{query} HTTP/1.1", "Host: localhost", *headers, "", ""]
    client.sendall("\r\n".join(lines).encode())
    return client


def read_until(client, end):
    data = b""
    while end not in data:
        data += client.recv(1 << 16)
    return data


@pytest.mark.parametrize("media_type", DOCUMENT.operation("Subscribe").description["responses"]["200"]["content"])
def test_events(world, media_type):
    schema = DOCUMENT.operation("Subscribe").description["responses"]["200"]["content"][media_type]["schema"]
    with subscribe(world, [f"Accept: {media_type}"], "?since=0") as client:
        data = b""
        while data.count(b'"sequence"') < 3:
            data += client.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert media_type.encode() in head
    lines = [line.removeprefix(b"data: ") for line in body.replace(b"\r\n", b"\n").split(b"\n")]
    events = [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    assert len(events) > 1
    for event in events:
        DOCUMENT.check("an event", schema["x-itemSchema"], event)
    world.seen["Subscribe"].add(200)


def test_limit_of_subscriptions(world):
    clients = [subscribe(world) for _ in range(1024)]
    for client in clients:
        read_until(client, b"200 ")
    assert world.request("Subscribe").status == 429
    for client in clients:
        client.close()


# ---- all of it ----


def test_every_documented_status_is_seen(world, request):
    """The last test of this file; it needs the others."""
    others = {item.name for item in request.session.items if item.path == request.path}
    if len(others) < len(METHODS):
        pytest.skip("only some tests of this file run")
    missing = {operation.id: sorted(operation.statuses - world.seen[operation.id]) for operation in METHODS}
    assert not {name: statuses for name, statuses in missing.items() if statuses}
