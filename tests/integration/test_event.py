# SPDX-License-Identifier: LGPL-2.1-or-later
"""Subscribe: what is told, to whom, and what a subscriber that does not keep up costs."""

import os
import time

import pytest

import memory
import user
from broker import wait_until
from memory import MIB, PAGE, slot
from wire import Refusal

HVA = 0x7E0000000000
EVENTS_KEPT = 4096


def subscribe(client, **parameters):
    """The events from now on; the first message has come."""
    stream = (reply["event"] for reply in client.stream("Subscribe", **parameters))
    hello = next(stream)
    assert hello["kind"] == "subscribed"
    return stream


def newest(daemon):
    """The sequence number of the newest event, or that before the first one."""
    with daemon.connect() as client:
        return next(client.stream("Subscribe"))["event"]["sequence"]


def take(stream, count):
    return [next(stream) for _ in range(count)]


@pytest.fixture
def events(daemon):
    return subscribe(daemon.connect())


def test_first_message(client):
    before = time.time_ns() // 1000
    hello = next(client.stream("Subscribe"))["event"]
    assert hello.keys() == {"sequence", "timestampUSec", "kind"}
    assert hello["kind"] == "subscribed"
    assert before <= hello["timestampUSec"] <= time.time_ns() // 1000


def test_first_message_tells_the_newest(daemon, client):
    before = newest(daemon)
    client.register()
    assert newest(daemon) == before + 1
    assert next(daemon.connect().stream("Subscribe", since=0))["event"]["sequence"] == before + 1


def test_numbers_begin_behind_the_time_of_start(daemon):
    assert 0 <= time.time_ns() // 1000 - newest(daemon) < 60 * 1000000


def test_subscribe_without_more(client):
    client.fails("ExpectedMore", "Subscribe")


def test_sequence_grows_by_one(daemon, client, events):
    first = newest(daemon) + 1
    for i in range(100):
        client.register(f"vm{i}")
    assert [event["sequence"] for event in take(events, 100)] == list(range(first, first + 100))


def test_life_of_a_vm(client, events, donation):
    client.register()
    fd = client.allocate().fd
    memory.fill(fd)
    client.call("PunchBacking", vm="web1", backing="ram0", offset=0, size=PAGE)
    client.call("OpenBacking", vm="web1", backing="ram0", access="read_only")
    client.adopt(donation(), "ram1")
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    client.call("UnregisterVM", vm="web1")
    told = take(events, 9)
    assert [event["kind"] for event in told] == [
        "vm_registered", "backing_allocated", "backing_granted", "backing_punched", "backing_granted",
        "backing_adopted", "backing_released", "backing_released", "vm_unregistered"]
    assert {event["vm"] for event in told} == {"web1"}
    assert [event.get("backing") for event in told] == [
        None, "ram0", "ram0", "ram0", "ram0", "ram1", "ram0", "ram1", None]
    assert [event.get("access") for event in told[2:5]] == ["read_write", None, "read_only"]
    assert {event["peerUID"] for event in (told[2], told[4])} == {os.geteuid()}
    assert [event.get("freedBytes") for event in (told[3], told[6], told[7], told[8])] == [PAGE, MIB - PAGE, 0, 0]


def test_same_request_again_is_no_event(client, events):
    client.register()
    client.register()
    client.register("web2")
    assert [event["vm"] for event in take(events, 2)] == ["web1", "web2"]


@pytest.mark.two_address_spaces
def test_slots(daemon, client, vm):
    client.allocate()
    events = subscribe(daemon.connect())
    shown = slot(0, 0, PAGE, backing="ram0", userspaceAddr=HVA)
    client.call("SetSlot", vm="web1", slot=shown)
    client.call("SetSlot", vm="web1", slot=shown)
    client.call("SetSlot", vm="web1", slot={**shown, "slotId": 1, "addressSpace": 1, "guestPhysAddr": MIB})
    client.fails("SlotRefused", "SetSlot", vm="web1", slot={**shown, "slotId": 2, "guestPhysAddr": 2 * MIB})
    client.call("SetSlot", vm="web1", slot=slot(0, 0, 0))
    told = take(events, 5)
    assert [event["kind"] for event in told] == [
        "slot_set", "slot_set", "alias_reported", "slot_refused", "slot_deleted"]
    assert [event["slot"]["slotId"] for event in told] == [0, 1, 1, 2, 0]
    assert told[0]["slot"] == {**shown, "addressSpace": 0, "backingOffset": 0}
    assert told[2]["verdict"]["rule"] == "address_space_transit"
    assert told[3]["verdict"]["rule"] == "undeclared_alias"
    assert told[3]["verdict"]["conflicts"][0]["slotId"] == 0


def test_since_the_beginning(client):
    for name in ("a", "b", "c"):
        client.register(name)
    assert [event["vm"] for event in take(subscribe(client, since=0), 3)] == ["a", "b", "c"]


def test_since_the_last_that_was_seen(daemon, client):
    for name in ("a", "b", "c"):
        client.register(name)
    assert [event["vm"] for event in take(subscribe(client, since=newest(daemon) - 1), 1)] == ["c"]


def since_before_the_start(last):
    return last - 4


def since_the_future(last):
    return last + 1


def since_the_far_future(last):
    return (1 << 63) - 1


@pytest.mark.parametrize("since", [since_before_the_start, since_the_future, since_the_far_future])
def test_since_another_life_is_a_gap(daemon, client, since):
    """A number from before a restart is too low, or too high if the clock was set back."""
    for name in ("a", "b", "c"):
        client.register(name)
    last = newest(daemon)
    events = subscribe(daemon.connect(), since=since(last))
    gap = next(events)
    assert gap["kind"] == "gap"
    if since is since_before_the_start:
        assert (gap["sequence"], gap["firstLost"], gap["lastLost"]) == (last - 3, last - 3, last - 3)
        assert [event["vm"] for event in take(events, 3)] == ["a", "b", "c"]
    else:
        assert (gap["sequence"], gap.get("firstLost"), gap["lastLost"]) == (last, None, last)
    client.register("d")
    assert next(events)["vm"] == "d"


def furnish(client):
    for name in ("web1", "web2", "web3"):
        client.register(name)
        client.allocate(vm=name)
    client.call("ShareBacking", vm="web2", backing="ram0", peer="web1")


def told(stream, count):
    return [(event["kind"], event["vm"]) for event in take(stream, count)]


def test_only_some_vms(daemon, client):
    events = subscribe(daemon.connect(), vm=["web1", "none"])
    furnish(client)
    assert told(events, 4) == [("vm_registered", "web1"), ("backing_allocated", "web1"), ("backing_granted", "web1"),
                               ("backing_shared", "web2")]


def test_only_some_kinds(daemon, client):
    events = subscribe(daemon.connect(), kind=["backing_shared", "vm_registered"])
    furnish(client)
    assert told(events, 4) == [*(("vm_registered", name) for name in ("web1", "web2", "web3")),
                               ("backing_shared", "web2")]


def test_only_some_kinds_of_some_vms(daemon, client):
    furnish(client)
    events = subscribe(daemon.connect(), since=0, vm=["web3", "web1"], kind=["backing_allocated", "backing_shared"])
    assert told(events, 3) == [("backing_allocated", "web1"), ("backing_allocated", "web3"),
                               ("backing_shared", "web2")]


def test_empty_filters_are_none(daemon, client):
    events = subscribe(daemon.connect(), vm=[], kind=[])
    client.register()
    assert told(events, 1) == [("vm_registered", "web1")]


def test_what_is_filtered_out_is_no_gap(daemon, client, vm):
    events = subscribe(daemon.connect(), kind=["vm_unregistered"])
    set_and_delete(client, EVENTS_KEPT)
    client.call("UnregisterVM", vm="web1")
    assert told(events, 1) == [("vm_unregistered", "web1")]


def test_unknown_kind(client):
    client.send("Subscribe", {"kind": ["meteor"]}, more=True)
    with pytest.raises(Refusal, match="InvalidParameter"):
        client.receive_reply("Subscribe")


def test_too_many_vms(client):
    client.send("Subscribe", {"vm": [f"vm{i}" for i in range(65)]}, more=True)
    with pytest.raises(Refusal, match="LimitExceeded"):
        client.receive_reply("Subscribe")


@pytest.mark.parametrize("since", [-1, 0.5, "x", []])
def test_since_nonsense(client, since):
    client.send("Subscribe", {"since": since}, more=True)
    with pytest.raises(Refusal, match="InvalidParameter"):
        client.receive_reply("Subscribe")


def set_and_delete(client, times):
    """Two events each."""
    table = [slot(0, 0, PAGE, userspaceAddr=HVA), slot(0, 0, 0)] * 1000
    while times > 0:
        client.call("SetSlots", vm="web1", slots=table[:2 * times])
        times -= 1000


def test_gap_where_events_are_no_longer_kept(daemon, client, vm):
    before = newest(daemon)
    set_and_delete(client, EVENTS_KEPT // 2 + 50)
    events = subscribe(daemon.connect(), since=0)
    gap = next(events)
    assert (gap["kind"], gap["sequence"]) == ("gap", before + 100)
    assert (gap["firstLost"], gap["lastLost"]) == (before, before + 100)
    sequences = [event["sequence"] for event in take(events, EVENTS_KEPT)]
    assert sequences == list(range(before + 101, before + 101 + EVENTS_KEPT))


def test_subscriber_that_falls_behind_is_told_of_the_gap(daemon, client, vm):
    reader = daemon.connect()
    events = subscribe(reader)
    at, gaps = newest(daemon), 0
    set_and_delete(client, 6 * EVENTS_KEPT)
    last = newest(daemon)
    while at < last:
        event = next(events)
        if event["kind"] == "gap":
            assert event["sequence"] > at
            gaps += 1
        else:
            assert event["sequence"] == at + 1
        at = event["sequence"]
    assert gaps == 1


@pytest.mark.plain
def test_subscribers_that_never_read_cost_little(daemon, client, vm):
    set_and_delete(client, EVENTS_KEPT)
    before = daemon.rss()
    for _ in range(16):
        daemon.connect().send("Subscribe", {"since": 0}, more=True)
    started = time.monotonic()
    set_and_delete(client, 5 * EVENTS_KEPT)
    assert time.monotonic() - started < 10
    assert daemon.rss() - before < 8 * MIB


def test_subscriber_that_goes_away_is_forgotten(daemon, client):
    for _ in range(3):
        for i in range(64):
            subscribe(daemon.connect())
        for one in daemon.clients[1:]:
            one.close()
        wait_until(lambda: daemon.count_fds() == daemon.baseline + 1, what="the end of the subscriptions")
    client.register()


def test_limit_of_subscriptions(daemon):
    limit = daemon.connect().call("GetHost")["limits"]["subscribersPerUID"]
    streams = [subscribe(daemon.connect()) for _ in range(limit)]
    late = daemon.connect()
    late.send("Subscribe", {}, more=True)
    message, _ = late.receive()
    assert message["error"] == "io.privmemd.Memory.LimitExceeded"
    assert (message["parameters"]["limit"], message["parameters"]["maximum"]) == ("subscribersPerUID", limit)
    daemon.connect().register()
    assert {next(stream)["vm"] for stream in streams} == {"web1"}


@pytest.mark.root
def test_limit_of_subscriptions_is_each_users(daemon, bob):
    for _ in range(64):
        subscribe(daemon.connect(user.ALICE))
    subscribe(bob)


@pytest.mark.root
def test_events_are_told_to_the_owner_and_root(daemon, alice, bob):
    to_alice, to_root = subscribe(daemon.connect(user.ALICE)), subscribe(daemon.connect())
    bob.register("bobs")
    alice.register("alices")
    bob.register("bobs2")
    alice.register("alices2")
    assert [event["vm"] for event in take(to_alice, 2)] == ["alices", "alices2"]
    assert [event["vm"] for event in take(to_root, 4)] == ["bobs", "alices", "bobs2", "alices2"]


@pytest.mark.root
def test_replay_is_confined_too(daemon, alice, bob):
    bob.register("bobs")
    alice.register("alices")
    assert next(subscribe(daemon.connect(user.ALICE), since=0))["vm"] == "alices"


def test_exit_of_a_vmm_is_told_at_once(daemon, client, vm, process):
    """Nothing else happens in privmemd meanwhile."""
    events = subscribe(daemon.connect())
    vmm = process(os.geteuid(), os.getpid)
    client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[vmm.pidfd])
    assert next(events)["kind"] == "vm_attached"
    time.sleep(0.1)
    vmm.kill()
    told = take(events, 2)
    assert [(event["kind"], event["vm"]) for event in told] == [("vmm_exited", "web1"), ("vm_unregistered", "web1")]
    assert told[0]["pid"] == vmm.result
