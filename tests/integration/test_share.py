# SPDX-License-Identifier: LGPL-2.1-or-later
"""ShareBacking and ReclaimBacking: what the owner of a backing lets another VM do with it, and nothing more."""

import fcntl
import os

import pytest

import memory
import user
from memory import MIB, PAGE, slot
from wire import Client, Refusal

HVA = 0x7E0000000000


def shown(slot_id=0, gpa=0, size=MIB, **fields):
    return slot(slot_id, gpa, size, **{"backing": "ram0", "userspaceAddr": HVA, **fields})


def theirs(slot_id=0, gpa=0, size=MIB, **fields):
    """A slot of the peer that shows the owner's backing."""
    return shown(slot_id, gpa, size, backingVM="web1", **fields)


@pytest.fixture
def pair(client):
    """Two VMs of one owner."""
    client.register("web1")
    client.register("web2")
    client.allocate("ram0")
    return client


@pytest.fixture
def owners(alice, bob):
    """Two VMs of two owners; web1, with ram0 and ram1, is alice's."""
    alice.register("web1")
    alice.allocate("ram0")
    alice.allocate("ram1")
    bob.register("web2")
    return alice, bob


def share(client, backing="ram0", peer="web2", **fields):
    return client.call("ShareBacking", vm="web1", backing=backing, peer=peer, **fields)["created"]


def reclaim(client, backing="ram0", peer="web2"):
    return client.call("ReclaimBacking", vm="web1", backing=backing, peer=peer)["reclaimed"]


def set_slot(client, wanted, vm):
    return client.call("SetSlot", vm=vm, slot=wanted)["verdict"]


def refused(client, wanted, vm):
    return client.fails("SlotRefused", "SetSlot", vm=vm, slot=wanted)["verdict"]


# ---- one owner ----


def test_share_is_told_by_its_backing(pair):
    assert "shares" not in pair.backing()
    assert share(pair) is True
    pair.register("a")
    assert share(pair, peer="a", access="read_only") is True
    assert pair.backing()["shares"] == [{"vm": "a", "access": "read_only"}, {"vm": "web2", "access": "read_write"}]
    assert pair.call("OpenBacking", vm="web1", backing="ram0")["backing"]["shares"] == pair.backing()["shares"]


def test_share_again(pair):
    assert share(pair) is True
    assert share(pair) is False
    assert share(pair, access="read_write") is False
    error = pair.fails("NameConflict", "ShareBacking", vm="web1", backing="ram0", peer="web2", access="read_only")
    assert (error["field"], error["present"], error["requested"]) == ("access", "read_write", "read_only")


def test_share_allows_the_alias(pair):
    set_slot(pair, shown(), "web1")
    assert refused(pair, theirs(), "web2")["rule"] == "undeclared_alias"
    share(pair)
    verdict = set_slot(pair, theirs(), "web2")
    assert (verdict["outcome"], verdict["rule"]) == ("allowed", "declared_share")


def test_reclaim(pair):
    share(pair)
    assert reclaim(pair) is True
    assert reclaim(pair) is False
    assert "shares" not in pair.backing()
    set_slot(pair, shown(), "web1")
    assert refused(pair, theirs(), "web2")["rule"] == "undeclared_alias"


def test_reclaim_while_it_is_shown(pair):
    share(pair)
    set_slot(pair, shown(), "web1")
    set_slot(pair, theirs(), "web2")
    error = pair.fails("BackingInUse", "ReclaimBacking", vm="web1", backing="ram0", peer="web2")
    assert (error["vm"], error["backing"], error["slots"], error["peer"]) == ("web1", "ram0", 1, "web2")
    assert "web2" in error["message"]
    set_slot(pair, slot(0, 0, 0), "web2")
    assert reclaim(pair) is True


def test_read_only_share_needs_read_only_slots(pair):
    share(pair, access="read_only")
    verdict = refused(pair, theirs(), "web2")
    assert (verdict["rule"], verdict["kernelErrno"], verdict["conflicts"]) == ("share_read_only", 0, [])
    assert "readonly" in verdict["reason"]
    assert set_slot(pair, theirs(flags=["readonly"]), "web2")["outcome"] == "ok"
    assert set_slot(pair, shown(), "web1")["rule"] == "declared_share"


def test_read_only_share_under_observe(pair):
    pair.register("watched", aliasPolicy="observe")
    share(pair, peer="watched", access="read_only")
    assert refused(pair, theirs(), "watched")["rule"] == "share_read_only"


def test_read_only_share_of_what_is_shown_for_writing(pair):
    set_slot(pair, theirs(), "web2")
    error = pair.fails("BackingInUse", "ShareBacking", vm="web1", backing="ram0", peer="web2", access="read_only")
    assert (error["slots"], error["peer"]) == (1, "web2")
    assert share(pair) is True


def test_nothing_to_share(pair):
    pair.fails("NoSuchVM", "ShareBacking", vm="web9", backing="ram0", peer="web2")
    pair.fails("NoSuchVM", "ShareBacking", vm="web1", backing="ram0", peer="web9")
    pair.fails("NoSuchBacking", "ShareBacking", vm="web1", backing="ram9", peer="web2")
    pair.fails("NoSuchBacking", "ReclaimBacking", vm="web1", backing="ram9", peer="web2")
    pair.fails("NoSuchVM", "ReclaimBacking", vm="web1", backing="ram0", peer="web9")
    pair.fails("NotSupported", "ShareBacking", vm="web1", backing="ram0", peer="web1")
    pair.fails("InvalidParameter", "ShareBacking", vm="web1", backing="ram0", peer="web2", access="none")


def test_guest_memfd_is_not_shared(pair):
    try:
        fd, vm = memory.guest_memfd()
    except OSError as error:
        pytest.skip(f"no guest_memfd here: {error}")
    pair.adopt(fd, "private0")
    os.close(fd)
    os.close(vm)
    pair.fails("NotSupported", "ShareBacking", vm="web1", backing="private0", peer="web2")


def test_limit(pair):
    maximum = pair.call("GetHost")["limits"]["sharesPerBacking"]
    for i in range(maximum):
        pair.register(f"peer{i}")
        share(pair, peer=f"peer{i}")
    error = pair.fails("LimitExceeded", "ShareBacking", vm="web1", backing="ram0", peer="web2")
    assert (error["limit"], error["maximum"]) == ("sharesPerBacking", maximum)
    assert share(pair, peer="peer0") is False


def test_unregistered_peer_has_no_share(pair):
    share(pair)
    pair.call("UnregisterVM", vm="web2")
    assert "shares" not in pair.backing()
    pair.register("web2")
    assert "shares" not in pair.backing()


def test_events(pair):
    events = pair.stream("Subscribe")
    assert next(events)["event"]["kind"] == "subscribed"
    with_another = another(pair)
    with_another(lambda c: share(c, access="read_only"))
    event = next(events)["event"]
    assert (event["kind"], event["vm"], event["backing"], event["peer"], event["access"]) == (
        "backing_shared", "web1", "ram0", "web2", "read_only")
    with_another(lambda c: share(c, access="read_only"))
    with_another(reclaim)
    event = next(events)["event"]
    assert (event["kind"], event["peer"], "access" in event) == ("backing_reclaimed", "web2", False)
    with_another(share)
    with_another(lambda c: c.call("UnregisterVM", vm="web2"))
    assert [next(events)["event"]["kind"] for _ in range(3)] == [
        "backing_shared", "backing_reclaimed", "vm_unregistered"]
    with_another(lambda c: (c.register("web2"), share(c), c.call("ReleaseBacking", vm="web1", backing="ram0")))
    assert [next(events)["event"]["kind"] for _ in range(4)] == [
        "vm_registered", "backing_shared", "backing_reclaimed", "backing_released"]


def another(client):
    """Another connection to the same daemon, since one that is subscribed takes no calls."""
    path = client.socket.getpeername()

    def call(function):
        with Client(path, client.contract) as other:
            return function(other)
    return call


# ---- two owners ----


@pytest.mark.root
def test_only_the_owner_shares(owners):
    alice, bob = owners
    bob.fails("NotPermitted", "ShareBacking", vm="web1", backing="ram0", peer="web2")
    share(alice)
    bob.fails("NotPermitted", "ReclaimBacking", vm="web1", backing="ram0", peer="web2")
    bob.fails("NotPermitted", "ShareBacking", vm="web1", backing="ram0", peer="web2")


@pytest.mark.root
def test_peer_opens_what_is_shared(owners):
    alice, bob = owners
    bob.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram0")
    share(alice)
    reply = bob.call("OpenBacking", vm="web1", backing="ram0")
    memory.write(reply.fd, b"hello")
    assert memory.read(alice.call("OpenBacking", vm="web1", backing="ram0").fd, 5) == b"hello"
    assert reply["backing"]["shares"] == [{"vm": "web2", "access": "read_write"}]
    bob.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram1")
    bob.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram9")
    reclaim(alice)
    bob.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram0")
    # What was handed out cannot be taken back.
    memory.write(reply.fd, b"still")


@pytest.mark.root
def test_peer_opens_for_reading_only(owners):
    alice, bob = owners
    share(alice, access="read_only")
    error = bob.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram0")
    assert "reading only" in error["message"]
    bob.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram0", access="read_write")
    fd = bob.call("OpenBacking", vm="web1", backing="ram0", access="read_only").fd
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    with pytest.raises(PermissionError):
        user.run_as(user.BOB, os.open, f"/proc/self/fd/{fd}", os.O_RDWR)


@pytest.mark.root
def test_greatest_of_several_shares(owners):
    alice, bob = owners
    bob.register("web3")
    share(alice, access="read_only")
    share(alice, peer="web3")
    bob.call("OpenBacking", vm="web1", backing="ram0", access="read_write")
    reclaim(alice, peer="web3")
    bob.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram0", access="read_write")


@pytest.mark.root
def test_peer_lists_what_is_shared(owners, client):
    alice, bob = owners
    bob.fails("NotPermitted", "ListBackings", vm="web1")
    assert bob.listed("ListBackings") == []
    client.register("other")
    share(alice)
    share(alice, peer="other")
    for listed in (bob.listed("ListBackings"), bob.listed("ListBackings", vm="web1")):
        (backing,) = listed
        assert (backing["vm"], backing["name"]) == ("web1", "ram0")
        assert backing["shares"] == [{"vm": "web2", "access": "read_write"}]
    assert [one["name"] for one in alice.listed("ListBackings", vm="web1")] == ["ram0", "ram1"]
    assert len(alice.backing("ram0")["shares"]) == 2
    bob.fails("NotPermitted", "ListVMs", vm="web1")
    bob.fails("NotPermitted", "ListSlots", vm="web1")
    bob.fails("NotPermitted", "ListSlots", vm="web1", backing="ram0")
    assert [vm["name"] for vm in bob.listed("ListVMs")] == ["web2"]


@pytest.mark.root
def test_peer_shows_what_is_shared(owners):
    alice, bob = owners
    bob.register("web3")
    set_slot(alice, shown(), "web1")
    bob.fails("NotPermitted", "SetSlot", vm="web2", slot=theirs())
    share(alice)
    assert set_slot(bob, theirs(), "web2")["rule"] == "declared_share"
    # Another VM of the same owner has no share; nor has another backing.
    bob.fails("NotPermitted", "SetSlot", vm="web3", slot=theirs())
    bob.fails("NotPermitted", "SetSlot", vm="web2", slot=theirs(1, 32 * MIB, backing="ram1"))
    bob.fails("NotPermitted", "CheckSlots", vm="web2", slots=[theirs(1, 32 * MIB, backing="ram9")])
    error = alice.fails("BackingInUse", "ReclaimBacking", vm="web1", backing="ram0", peer="web2")
    assert (error["slots"], error["peer"]) == (1, "web2")
    set_slot(bob, slot(0, 0, 0), "web2")
    assert reclaim(alice) is True
    bob.fails("NotPermitted", "SetSlot", vm="web2", slot=theirs())


@pytest.mark.root
@pytest.mark.parametrize("method, parameters", [
    ("UnregisterVM", {}), ("ReleaseBacking", {"backing": "ram0"}),
    ("PunchBacking", {"backing": "ram0", "offset": 0, "size": PAGE}), ("AllocateBacking", {"name": "x", "size": MIB}),
    ("SetSlot", {"slot": shown()}), ("SetSlots", {"slots": []}), ("CheckSlots", {"slots": []}), ("AttachVM", {}),
])
def test_peer_may_do_nothing_else(owners, method, parameters):
    alice, bob = owners
    share(alice)
    bob.fails("NotPermitted", method, vm="web1", **parameters)


@pytest.mark.root
def test_peer_cannot_adopt_what_is_shared(owners):
    alice, bob = owners
    share(alice)
    fd = bob.call("OpenBacking", vm="web1", backing="ram0").fd
    with pytest.raises(Refusal) as refusal:
        bob.adopt(fd, "mine", vm="web2")
    assert refusal.value.error.endswith(".NotPermitted")


@pytest.mark.root
def test_both_owners_get_the_events(owners, daemon):
    alice, bob = owners
    seen = {uid: daemon.connect(uid).stream("Subscribe") for uid in (user.ALICE, user.BOB)}
    for events in seen.values():
        assert next(events)["event"]["kind"] == "subscribed"
    share(alice)
    set_slot(alice, shown(), "web1")
    bob.call("UnregisterVM", vm="web2")
    kinds = {uid: [next(events)["event"]["kind"] for _ in range(3)]
             for uid, events in seen.items()}
    assert kinds == {user.ALICE: ["backing_shared", "slot_set", "backing_reclaimed"],
                     user.BOB: ["backing_shared", "backing_reclaimed", "vm_unregistered"]}
