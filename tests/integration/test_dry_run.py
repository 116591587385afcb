# SPDX-License-Identifier: LGPL-2.1-or-later
"""dryRun: the answer of the call that would follow, and no effect. And AllocateBacking without a file descriptor."""

import pytest

from broker import binary
from memory import HUGE_PAGE, MIB, PAGE, slot
from wire import Refusal

HVA = 0x100000000


def sequence(daemon):
    """Of the newest event."""
    with daemon.connect() as subscriber:
        return next(subscriber.stream("Subscribe"))["event"]["sequence"]


@pytest.fixture
def untouched(daemon, client, vm, huge_pages_lock):
    """What it gives must not have changed in the end: all lists, and the number of events and file descriptors."""
    def look():
        return {"events": sequence(daemon), "host": client.call("GetHost"),
                **{method: client.listed(method) for method in ("ListVMs", "ListBackings", "ListSlots")}}

    def check(before):
        assert look() == before

    return look, check


def answer(client, method, **parameters):
    """What the client is told, without what only the real call has."""
    try:
        return dict(client.call(method, **parameters))
    except Refusal as refusal:
        return refusal.error, refusal.parameters


def test_allocate_without_fd(client, vm):
    reply = client.allocate(open=False)
    assert (dict(reply), reply.fds) == ({"created": True}, [])
    assert dict(client.allocate(open=False)) == {"created": False}
    assert client.allocate(open=True)["fileDescriptor"] == 0
    assert client.backing()["size"] == MIB


def test_allocate_without_fd_grants_nothing(daemon, client, vm):
    since = sequence(daemon)
    client.allocate(open=False)
    client.allocate("ram1")
    events = daemon.connect().stream("Subscribe", since=since)
    next(events)
    assert [next(events)["event"]["kind"] for _ in range(3)] == [
        "backing_allocated", "backing_allocated", "backing_granted"]


@pytest.mark.parametrize("parameters", [
    {"name": "ram1", "size": MIB},
    {"name": "ram1", "size": 1 << 40},
    {"name": "ram1", "size": MIB, "numaPolicy": "bind", "numaNodes": [0]},
    {"name": "ram0", "size": MIB},
    {"name": "ram0", "size": 2 * MIB},
    {"name": "ram0", "size": HUGE_PAGE, "kind": "hugetlb"},
    {"name": "ram1", "size": MIB, "numaPolicy": "bind", "numaNodes": [63]},
    {"name": "ram1", "size": (1 << 63) - PAGE},
    {"name": "ram1", "size": MIB + 1},
    {"name": "/ram1", "size": MIB},
    {"name": "ram1", "size": 1 << 40, "kind": "hugetlb"},
    {"name": "ram1", "size": MIB, "kind": "guest_memfd"},
])
def test_allocate(client, untouched, parameters):
    client.allocate(open=False)
    look, check = untouched
    before = look()
    told = answer(client, "AllocateBacking", vm="web1", dryRun=True, **parameters)
    assert told == answer(client, "AllocateBacking", vm="web1", dryRun=True, open=False, **parameters)
    check(before)
    assert told == answer(client, "AllocateBacking", vm="web1", open=False, **parameters)


def test_allocate_beyond_the_limit(start, directory):
    (directory / "conf").write_text("[Limits]\nBackingsPerVM=1\n")
    client = start(command=[binary(), f"--socket={directory / 'socket'}", f"--config={directory / 'conf'}"]).connect()
    client.register()
    client.allocate(open=False)
    error = client.fails("LimitExceeded", "AllocateBacking", vm="web1", name="ram1", size=MIB, dryRun=True)
    assert (error["limit"], error["maximum"]) == ("backingsPerVM", 1)


def test_allocate_huge_pages(client, untouched, pages):
    look, check = untouched
    before = look()
    assert client.allocate(size=pages * HUGE_PAGE, pageSize=HUGE_PAGE, dryRun=True) == {"created": True}
    error = client.fails("NoCapacity", "AllocateBacking", vm="web1", name="ram0", size=(pages + 1) * HUGE_PAGE,
                         pageSize=HUGE_PAGE, dryRun=True)
    assert (error["needed"], error["available"]) == ((pages + 1) * HUGE_PAGE, pages * HUGE_PAGE)
    check(before)
    assert client.allocate(size=pages * HUGE_PAGE, pageSize=HUGE_PAGE, open=False)["created"]


@pytest.fixture
def table(client, vm):
    """Slot 0 shows the first page of ram0."""
    client.allocate(open=False)
    client.call("SetSlot", vm="web1", slot=slot(0, 0, PAGE, backing="ram0", userspaceAddr=HVA))


SLOTS = [
    slot(1, MIB, PAGE, backing="ram0", backingOffset=PAGE, userspaceAddr=HVA + PAGE),
    slot(0, 0, PAGE, backing="ram0", userspaceAddr=HVA),
    slot(0, MIB, PAGE, backing="ram0", userspaceAddr=HVA),
    slot(0, 0, 0),
    slot(9, 0, 0),
    slot(1, MIB, PAGE, backing="ram0", userspaceAddr=HVA + MIB),
    slot(1, 0, PAGE, backing="ram0", backingOffset=PAGE, userspaceAddr=HVA + PAGE),
    slot(1, MIB, PAGE, backing="ram0", backingOffset=MIB, userspaceAddr=HVA + MIB),
    slot(1, MIB, PAGE, backing="ram1", userspaceAddr=HVA + MIB),
    slot(1, MIB + 1, PAGE, userspaceAddr=HVA + MIB),
    slot(1 << 16, MIB, PAGE, userspaceAddr=HVA + MIB),
]


@pytest.mark.parametrize("policy", ["enforce", "observe"])
@pytest.mark.parametrize("wanted", SLOTS)
@pytest.mark.usefixtures("table")
def test_slot(client, untouched, wanted, policy):
    client.call("UnregisterVM", vm="web1")
    client.register("web1", aliasPolicy=policy)
    client.allocate(open=False)
    client.call("SetSlot", vm="web1", slot=slot(0, 0, PAGE, backing="ram0", userspaceAddr=HVA))
    look, check = untouched
    before = look()
    told = answer(client, "SetSlot", vm="web1", slot=wanted, dryRun=True)
    check(before)
    assert told == answer(client, "SetSlot", vm="web1", slot=wanted, dryRun=False)


@pytest.mark.parametrize("wanted", [SLOTS[:1], SLOTS[:4], SLOTS[:2] + SLOTS[5:7], [], SLOTS[8:9]])
@pytest.mark.usefixtures("table")
def test_slots(client, untouched, wanted):
    look, check = untouched
    before = look()
    told = answer(client, "SetSlots", vm="web1", slots=wanted, dryRun=True)
    check(before)
    assert told == answer(client, "SetSlots", vm="web1", slots=wanted)


@pytest.mark.root
def test_dry_run_gives_no_right(alice, vm):
    for method, parameters in (("AllocateBacking", {"name": "ram0", "size": MIB}), ("SetSlot", {"slot": slot(0, 0, 0)}),
                               ("SetSlots", {"slots": []})):
        alice.fails("NotPermitted", method, vm="web1", dryRun=True, **parameters)
