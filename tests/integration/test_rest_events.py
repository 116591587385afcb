# SPDX-License-Identifier: LGPL-2.1-or-later
"""GET /v1/events: what is told, in which form, to whom that comes late, and what those cost who listen."""

import contextlib
import json
import os
import resource
import socket
import time

import pytest

import user
from broker import wait_until
from memory import PAGE, slot
from rest import Connection, Rest, problem
from service_manager import ServiceManager

HVA = 0x7E0000000000
SSE, NDJSON = "text/event-stream", "application/x-ndjson"
RING = 4096
IDLE_MAX = 16 * 1024  # bytes of a subscriber


class Listener:
    """Reads a stream of events as a client does that was not written here."""

    def __init__(self, rest, query="", *, kind=NDJSON, uid=None, **headers):
        self.connection = Connection(rest.path, uid)
        self.connection.request("GET", f"/v1/events{query}", headers={"Accept": kind, **headers})
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        assert self.response.headers["Content-Type"] == kind
        self.kind = kind
        self.hello = self.next()
        assert self.hello["kind"] == "subscribed"

    def line(self):
        line = self.response.readline()
        assert line.endswith(b"\n"), "the stream has ended"
        return line[:-1].decode()

    def block(self):
        """One message of text/event-stream: its fields."""
        fields = {}
        while line := self.line():
            name, value = line.split(": ", 1)
            assert name not in fields
            fields[name] = value
        return fields

    def next(self):
        """The next event; heartbeats are passed over."""
        while True:
            if self.kind == NDJSON:
                line = self.line()
                if line:
                    return json.loads(line)
                continue
            fields = self.block()
            if "data" in fields:
                event = json.loads(fields["data"])
                assert fields["event"] == event["kind"]
                assert event["kind"] == "subscribed" or fields["id"] == str(event["sequence"])
                return {**event, "id": int(fields["id"])}

    def take(self, count):
        return [self.next() for _ in range(count)]

    def told(self, count):
        return [(event["kind"], event.get("vm")) for event in self.take(count)]

    def close(self):
        self.connection.close()
        self.response.close()


def newest(daemon):
    with daemon.connect() as subscriber:
        return next(subscriber.stream("Subscribe"))["event"]["sequence"]


def await_events(rest, daemon):
    """privmem-rest hears of what a test has begun with a moment later."""
    wanted = newest(daemon)

    def has_heard():
        with contextlib.closing(Listener(rest)) as listener:
            return listener.hello["sequence"] >= wanted
    wait_until(has_heard, what="privmem-rest to hear of everything")


@pytest.fixture
def listen(rest, daemon):
    opened = []

    def open_listener(*arguments, **options):
        if not opened:
            await_events(rest, daemon)
        opened.append(Listener(rest, *arguments, **options))
        return opened[-1]

    yield open_listener
    for listener in opened:
        listener.close()


def set_and_delete(client, times):
    """Two events each."""
    table = [slot(0, 0, PAGE, userspaceAddr=HVA), slot(0, 0, 0)] * 1000
    while times > 0:
        client.call("SetSlots", vm="web1", slots=table[:2 * times])
        times -= 1000


@pytest.mark.parametrize("kind", [SSE, NDJSON])
def test_events_as_they_happen(listen, client, kind):
    listener = listen(kind=kind)
    client.register("web1")
    client.allocate()
    client.call("UnregisterVM", vm="web1")
    events = listener.take(5)
    assert [event["kind"] for event in events] == [
        "vm_registered", "backing_allocated", "backing_granted", "backing_released", "vm_unregistered"]
    first = listener.hello["sequence"]
    assert [event["sequence"] for event in events] == list(range(first + 1, first + 6))


def test_events_are_what_privmemd_says(listen, daemon, client):
    listener = listen()
    said = client.stream("Subscribe")
    next(said)
    other = daemon.connect()
    other.register("web1")
    other.allocate()
    other.fails("SlotRefused", "SetSlot", vm="web1", slot=slot(0, 1, PAGE))
    assert listener.take(4) == [next(said)["event"] for _ in range(4)]


def test_event_stream_is_what_a_client_without_a_wish_gets(rest, client):
    with contextlib.closing(Connection(rest.path)) as connection:
        connection.request("GET", "/v1/events")
        response = connection.getresponse()
        assert response.headers["Content-Type"] == SSE
        assert response.headers["Cache-Control"] == "no-store"


def test_other_types_and_methods(rest):
    problem(rest.get("/v1/events", {"Accept": "text/html"}), 406)
    problem(rest.post("/v1/events", {}), 405)
    answer = rest.request("HEAD", "/v1/events")
    assert (answer.status, answer.data) == (200, b"")


@pytest.mark.parametrize("kind", [SSE, NDJSON])
def test_since(listen, client, kind):
    for name in ("a", "b", "c"):
        client.register(name)
    all_of_them = listen("?since=0", kind=kind).take(3)
    assert [event["vm"] for event in all_of_them] == ["a", "b", "c"]
    listener = listen(f"?since={all_of_them[0]['sequence']}", kind=kind)
    assert [event["vm"] for event in listener.take(2)] == ["b", "c"]
    client.register("d")
    assert listener.next()["vm"] == "d"


def test_who_comes_again_goes_on_behind_its_last_event(listen, client):
    for name in ("a", "b", "c"):
        client.register(name)
    first, second, _ = listen("?since=0", kind=SSE).take(3)
    again = listen("?since=0", kind=SSE, **{"Last-Event-ID": str(second["sequence"])})
    assert (again.hello["id"], again.next()["vm"]) == (second["sequence"], "c")
    assert listen("?since=0", **{"Last-Event-ID": str(first["sequence"])}).next()["vm"] == "b"


@pytest.mark.parametrize("back", [1, 1 << 40])
def test_since_another_life_is_a_gap(listen, client, back):
    client.register("a")
    start = listen().hello["sequence"] - 1
    gap, event = listen(f"?since={start - back}").take(2)
    assert (gap["kind"], gap["firstLost"], gap["lastLost"]) == ("gap", start - back + 1, start)
    assert (event["kind"], event["vm"]) == ("vm_registered", "a")


def test_since_the_future_is_a_gap(listen, client):
    last = listen().hello["sequence"]
    listener = listen(f"?since={last + 5}")
    gap = listener.next()
    assert (gap["kind"], gap["sequence"], gap.get("firstLost")) == ("gap", last, None)
    client.register("a")
    assert listener.told(1) == [("vm_registered", "a")]


def test_filters(listen, client):
    of_vm, of_kind = listen("?vm=web1"), listen("?kind=vm_registered,backing_shared", kind=SSE)
    of_both = listen("?vm=web3,web1&kind=backing_allocated&vm=web2")
    for name in ("web1", "web2", "web3"):
        client.register(name)
        client.allocate(vm=name)
    client.call("ShareBacking", vm="web2", backing="ram0", peer="web1")
    assert of_vm.told(4) == [("vm_registered", "web1"), ("backing_allocated", "web1"), ("backing_granted", "web1"),
                             ("backing_shared", "web2")]
    assert of_kind.told(4) == [("vm_registered", "web1"), ("vm_registered", "web2"), ("vm_registered", "web3"),
                               ("backing_shared", "web2")]
    assert of_both.told(3) == [("backing_allocated", name) for name in ("web1", "web2", "web3")]


def test_what_is_filtered_out_is_no_gap(listen, client, vm):
    listener, pace = listen("?kind=vm_unregistered"), listen()
    for _ in range(RING // 500):
        set_and_delete(client, 500)
        pace.take(1000)
    client.call("UnregisterVM", vm="web1")
    assert listener.told(1) == [("vm_unregistered", "web1")]


@pytest.mark.parametrize("query, parameter", [
    ("kind=meteor", "kind"), ("kind=gap,", "kind"), ("since=x", "since"), ("since=-1", "since"),
    ("since=1&since=2", "since"), ("vm", "vm"), ("vm=%zz", "vm"), ("unknown=1", "unknown"),
    ("vm=" + ",".join(["a"] * 65), "vm")])
def test_wrong_parameters(rest, query, parameter):
    assert problem(rest.get(f"/v1/events?{query}"), 400)["parameter"] == parameter


def test_wrong_last_event_id(rest):
    assert problem(rest.get("/v1/events", {"Last-Event-ID": "abc"}), 400)["parameter"] == "Last-Event-ID"


@pytest.mark.parametrize("kind", [SSE, NDJSON])
def test_who_does_not_read_is_told_what_it_missed_and_slows_nobody(listen, client, vm, kind):
    slow, fast = listen(kind=kind), listen(kind=kind)
    slow.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    total = 0
    while total < 5 * RING:
        set_and_delete(client, 500)
        assert [event["kind"] for event in fast.take(1000)] == ["slot_set", "slot_deleted"] * 500
        total += 1000
    first = slow.hello["sequence"] + 1
    at, gaps = first - 1, []
    while at < first - 1 + total:
        event = slow.next()
        if event["kind"] == "gap":
            assert event["firstLost"] == at + 1
            gaps.append(event["lastLost"] - at)
        else:
            assert event["sequence"] == at + 1
        at = event["sequence"]
    assert len(gaps) == 1 and gaps[0] > 0
    assert at == first - 1 + total


def test_silence_is_broken(directory, daemon):
    rest = Rest(directory, daemon, arguments=["--heartbeat=1"])
    try:
        lines, stream = Listener(rest), Listener(rest, kind=SSE)
        start = time.monotonic()
        assert lines.line() == ""
        assert stream.block() == {"id": str(stream.hello["sequence"])}
        assert time.monotonic() - start < 4
        lines.close()
        stream.close()
    finally:
        rest.finish()


def test_restart_of_privmemd(directory, contract):
    manager = ServiceManager(directory, contract)
    rest = None
    try:
        client = manager.start().connect()
        client.register("web1")
        rest = Rest(directory, manager)
        listener = Listener(rest, "?kind=vm_registered")
        before = listener.hello["sequence"]
        client = manager.restart().connect()
        client.register("web2")
        gap, event = listener.take(2)
        assert (gap["kind"], gap["firstLost"]) == ("gap", before + 1)
        assert (event["kind"], event["vm"]) == ("vm_registered", "web2")
        # Who was away meanwhile learns the same.
        late = Listener(rest, f"?since={before}&kind=vm_registered")
        assert [one["kind"] for one in late.take(2)] == ["gap", "vm_registered"]
        listener.close()
        late.close()
    finally:
        if rest:
            rest.finish()
        manager.close()


def test_without_privmemd(directory, daemon):
    daemon.stop()
    rest = Rest(directory, daemon)
    try:
        answer = rest.get("/v1/events")
        problem(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        rest.finish()


def test_one_subscription_for_all(listen, client, vm):
    listeners = [listen() for _ in range(100)]

    def used():
        return [one["used"] for one in client.call("GetMetrics")["quotas"]
                if one["limit"] == "subscribersPerUID" and one["uid"] == os.geteuid()]
    wait_until(lambda: used() == [1], what="one subscription to be left")
    client.register("web2")
    assert [listener.told(1) for listener in listeners] == [[("vm_registered", "web2")]] * 100


def test_nothing_is_left_of_those_who_went(rest, listen, client):
    def fds():
        return len(os.listdir(f"/proc/{rest.pid}/fd"))

    listen()
    before = fds()
    for kind in (SSE, NDJSON):
        for listener in [listen(kind=kind) for _ in range(50)]:
            listener.close()
    wait_until(lambda: fds() == before, what="the end of the connections")
    client.register("web1")


@pytest.mark.root
def test_who_has_no_right_hears_nothing(rest):
    os.chmod(rest.path, 0o666)
    problem(rest.get("/v1/events", uid=user.ALICE), 403)


def test_limits(directory, daemon, start_rest):
    settings = directory / "rest.conf"
    for line, status, word in [("Subscribers=2", 503, "Retry-After"), ("SubscribersPerCaller=2", 429, None)]:
        settings.write_text(f"[Limits]\n{line}\n")
        rest = start_rest(daemon, arguments=[f"--config={settings}"])
        listeners = [Listener(rest) for _ in range(2)]
        refused = rest.get("/v1/events")
        problem(refused, status)
        assert word is None or int(refused.headers[word]) > 0
        listeners.pop().close()
        wait_until(lambda rest=rest: rest.request("HEAD", "/v1/events").status == 200, what="a place")
        listeners.pop().close()


@pytest.fixture
def many_fds():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.plain
def test_a_thousand_subscribers(many_fds, directory, daemon, client):
    """So many are served at once, what an idle one takes is bounded, and there is an end to it."""
    rest = Rest(directory, daemon)
    listeners = []
    try:
        client.register("web1")
        listeners += [Listener(rest, kind=SSE) for _ in range(24)]
        before = rest.rss()
        listeners += [Listener(rest, kind=SSE) for _ in range(1000)]
        each = (rest.rss() - before) / 1000
        print(f"{each / 1024:.1f} KiB each")
        assert each <= IDLE_MAX
        problem(rest.get("/v1/events"), 429)
        start = time.monotonic()
        client.register("web2")
        assert all(listener.told(1) == [("vm_registered", "web2")] for listener in listeners)
        print(f"{time.monotonic() - start:.2f} s for one event")
        assert (rest.rss() - before) / 1000 <= IDLE_MAX
    finally:
        for listener in listeners:
            listener.close()
        rest.finish()
