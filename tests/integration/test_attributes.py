# SPDX-License-Identifier: LGPL-2.1-or-later
"""SetMemoryAttributes and ListMemory: which side of guest memory is live, and what both take."""

import os
import random

import pytest

import memory
import user
from memory import MIB, PAGE, slot
from wire import Client

HVA = 0x7E0000000000
LAST = (1 << 64) - 1


def set_private(client, gpa, size, private=True, vm="web1"):
    reply = client.call("SetMemoryAttributes", vm=vm, guestPhysAddr=gpa, memorySize=size, private=private)
    return [(one["guestPhysAddr"], one["memorySize"]) for one in reply["wasPrivate"]]


def private_ranges(client, **parameters):
    """The private ranges of a VM without slots."""
    return [(one["guestPhysAddr"], one["memorySize"]) for one in client.listed("ListMemory", vm="web1", **parameters)]


def pieces(client, **parameters):
    return [(one["guestPhysAddr"], one["memorySize"], one["private"], one.get("slotId"))
            for one in client.listed("ListMemory", vm="web1", **parameters)]


# ---- attributes ----


def test_all_is_shared_at_first(client, vm):
    assert client.call("ListMemory", vm="web1") == {"memory": []}


def test_set_and_set_back(client, vm):
    assert set_private(client, MIB, MIB) == []
    assert private_ranges(client) == [(MIB, MIB)]
    assert set_private(client, MIB, MIB, False) == [(MIB, MIB)]
    assert private_ranges(client) == []


def test_reply_says_what_was_private(client, vm):
    set_private(client, 0, PAGE)
    set_private(client, 4 * PAGE, 4 * PAGE)
    assert set_private(client, 0, 6 * PAGE, False) == [(0, PAGE), (4 * PAGE, 2 * PAGE)]
    assert private_ranges(client) == [(6 * PAGE, 2 * PAGE)]


def test_range_filter(client, vm):
    set_private(client, MIB, MIB)
    assert private_ranges(client, guestPhysAddr=MIB + PAGE, memorySize=PAGE) == [(MIB + PAGE, PAGE)]
    assert private_ranges(client, guestPhysAddr=2 * MIB) == []
    assert private_ranges(client, memorySize=MIB + PAGE) == [(MIB, PAGE)]
    client.fails("InvalidValue", "ListMemory", vm="web1", guestPhysAddr=0, memorySize=0)
    client.fails("InvalidValue", "ListMemory", vm="web1", guestPhysAddr=LAST, memorySize=1)


@pytest.mark.parametrize("gpa, size, field", [
    (0, 0, "memorySize"), (1, PAGE, "guestPhysAddr"), (PAGE - 1, PAGE, "guestPhysAddr"), (0, PAGE + 1, "memorySize"),
    (0, 1, "memorySize"), ((1 << 64) - PAGE, PAGE, "memorySize"), (PAGE, (1 << 64) - PAGE, "memorySize"),
])
def test_einval_of_kvm(client, vm, gpa, size, field):
    error = client.fails("InvalidValue", "SetMemoryAttributes", vm="web1", guestPhysAddr=gpa, memorySize=size,
                         private=True)
    assert (error["field"], error["alignment"]) == (field, PAGE)
    assert private_ranges(client) == []


@pytest.mark.parametrize("field, value", [("guestPhysAddr", -PAGE), ("memorySize", "x"), ("private", 1),
                                          ("private", None), ("vm", None)])
def test_field_of_the_wrong_type(client, vm, field, value):
    parameters = {"vm": "web1", "guestPhysAddr": 0, "memorySize": PAGE, "private": True, field: value}
    client.fails("InvalidParameter", "SetMemoryAttributes", **parameters)


@pytest.mark.parametrize("vm_type, has_private_memory", [
    ("undeclared", True), ("ordinary", False), ("sw_protected", True), ("sev", False), ("sev_es", False), ("snp", True),
    ("tdx", True),
])
def test_type_of_the_vm(client, vm_type, has_private_memory):
    client.register(type=vm_type)
    if has_private_memory:
        set_private(client, 0, PAGE)
        assert private_ranges(client) == [(0, PAGE)]
    else:
        error = client.fails("NotSupported", "SetMemoryAttributes", vm="web1", guestPhysAddr=0, memorySize=PAGE,
                             private=True)
        assert "private memory" in error["feature"]
        assert private_ranges(client) == []
    set_private(client, 0, PAGE, False)


def test_limit(client, vm):
    maximum = client.call("GetHost")["limits"]["privateRangesPerVM"]
    for i in range(maximum):
        client.send("SetMemoryAttributes",
                    {"vm": "web1", "guestPhysAddr": 2 * i * PAGE, "memorySize": PAGE, "private": True})
        if i % 64 == 63:
            for _ in range(64):
                client.receive_reply("SetMemoryAttributes")
    error = client.fails("LimitExceeded", "SetMemoryAttributes", vm="web1", guestPhysAddr=2 * maximum * PAGE,
                         memorySize=PAGE, private=True)
    assert (error["limit"], error["maximum"]) == ("privateRangesPerVM", maximum)
    assert len(private_ranges(client)) == maximum
    client.fails("ExpectedMore", "ListMemory", vm="web1")
    assert len(set_private(client, 0, 2 * maximum * PAGE)) == maximum
    assert private_ranges(client) == [(0, 2 * maximum * PAGE)]


def test_attributes_outlive_slots(client, vm):
    set_private(client, 0, MIB)
    client.call("SetSlot", vm="web1", slot=slot(3, 0, MIB, userspaceAddr=HVA))
    assert pieces(client) == [(0, MIB, True, 3)]
    client.call("SetSlot", vm="web1", slot=slot(3, 0, 0))
    assert pieces(client) == [(0, MIB, True, None)]


def test_pieces(client, vm):
    client.call("SetSlot", vm="web1", slot=slot(1, MIB, MIB, userspaceAddr=HVA))
    client.call("SetSlot", vm="web1", slot=slot(0, 2 * MIB, MIB, userspaceAddr=HVA + MIB))
    set_private(client, 2 * MIB - PAGE, 2 * PAGE)
    assert pieces(client) == [(MIB, MIB - PAGE, False, 1), (2 * MIB - PAGE, PAGE, True, 1), (2 * MIB, PAGE, True, 0),
                              (2 * MIB + PAGE, MIB - PAGE, False, 0)]
    # Nothing is counted where there is no guest_memfd.
    assert all(one.keys() == {"addressSpace", "guestPhysAddr", "memorySize", "private", "slotId"}
               for one in client.call("ListMemory", vm="web1")["memory"])


def attach(path, contract):
    from wire import Client
    client = Client(path, contract)
    client.call("AttachVM", vm="web1")
    client.call("SetMemoryAttributes", vm="web1", guestPhysAddr=0, memorySize=PAGE, private=True)


@pytest.mark.root
def test_exit_of_the_vmm_makes_all_shared(client, daemon, contract, process):
    client.register(exitPolicy="retain", ownerUID=user.ALICE)
    vmm = process(user.ALICE, attach, daemon.path, contract)
    assert private_ranges(client) == [(0, PAGE)]
    events = daemon.connect().stream("Subscribe")
    next(events)
    vmm.kill()
    assert next(events)["event"]["kind"] == "vmm_exited"
    assert private_ranges(client) == []


@pytest.mark.root
def test_other_owner(alice, bob):
    alice.register()
    bob.fails("NotPermitted", "SetMemoryAttributes", vm="web1", guestPhysAddr=0, memorySize=PAGE, private=True)
    bob.fails("NotPermitted", "ListMemory", vm="web1")
    bob.fails("NoSuchVM", "ListMemory", vm="web9")


# ---- what is resident ----


class Sides:
    """A slot with a memfd and a guest_memfd, and both files in our hands."""

    def __init__(self, client, size, gpa=0):
        self.client, self.size, self.gpa = client, size, gpa
        client.register()
        self.shared = client.allocate("ram0", size).fd
        try:
            self.private, self.vm = memory.guest_memfd(size)
        except OSError as error:
            pytest.skip(f"no guest_memfd here: {error}")
        client.adopt(self.private, "private0")
        wanted = slot(0, gpa, size, flags=["guest_memfd"], backing="ram0", userspaceAddr=HVA, guestMemfd="private0")
        client.call("SetSlot", vm="web1", slot=wanted)

    def close(self):
        os.close(self.private)
        os.close(self.vm)

    def counts(self, **parameters):
        """residentShared, residentPrivate, residentBoth over all entries."""
        listed = self.client.listed("ListMemory", vm="web1", **parameters)
        return tuple(sum(one[f"resident{side}"] for one in listed) for side in ("Shared", "Private", "Both"))


@pytest.fixture
def sides(client):
    if not client.call("GetHost")["features"]["cachestat"]:
        pytest.skip("this kernel has no cachestat(2)")
    made = []

    def make(*arguments, **options):
        made.append(Sides(client, *arguments, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()


def fill(fd, offset, size):
    memory._allocate(fd, 1, offset, size)  # KEEP_SIZE


def test_nothing_is_resident(sides):
    assert sides(MIB).counts() == (0, 0, 0)


def test_each_side_alone(sides):
    one = sides(MIB)
    fill(one.shared, 0, 64 * PAGE)
    fill(one.private, 64 * PAGE, 32 * PAGE)
    assert one.counts() == (64 * PAGE, 32 * PAGE, 0)


def test_both_sides(sides):
    one = sides(MIB)
    fill(one.shared, 0, MIB)
    fill(one.private, 8 * PAGE, 4 * PAGE)
    assert one.counts() == (MIB, 4 * PAGE, 4 * PAGE)
    memory.punch(one.shared, 0, 10 * PAGE)
    assert one.counts() == (MIB - 10 * PAGE, 4 * PAGE, 2 * PAGE)


def test_what_a_conversion_forgot(sides):
    """Of an entry that is private, the resident bytes of its shared side are of no use to anybody."""
    one = sides(MIB)
    fill(one.shared, 0, MIB)
    set_private(one.client, 0, 16 * PAGE)
    fill(one.private, 0, 16 * PAGE)
    memory.punch(one.shared, 0, 12 * PAGE)
    private, shared = one.client.call("ListMemory", vm="web1")["memory"]
    assert private == {"addressSpace": 0, "guestPhysAddr": 0, "memorySize": 16 * PAGE, "private": True, "slotId": 0,
                       "residentShared": 4 * PAGE, "residentPrivate": 16 * PAGE, "residentBoth": 4 * PAGE}
    assert (shared["private"], shared["residentShared"], shared["residentPrivate"]) == (False, MIB - 16 * PAGE, 0)


def test_offsets(sides, client):
    """The same pages, wherever in their files they are."""
    one = sides(MIB, gpa=16 * MIB)
    client.call("SetSlot", vm="web1", slot=slot(0, 16 * MIB, 0, flags=[]))
    client.call("SetSlot", vm="web1", slot=slot(
        0, 16 * MIB, 8 * PAGE, flags=["guest_memfd"], backing="ram0", backingOffset=32 * PAGE,
        userspaceAddr=HVA + 32 * PAGE, guestMemfd="private0", guestMemfdOffset=64 * PAGE))
    fill(one.shared, 32 * PAGE, PAGE)
    fill(one.private, 64 * PAGE, 2 * PAGE)
    fill(one.shared, 31 * PAGE, PAGE)
    fill(one.private, 72 * PAGE, PAGE)
    assert one.counts() == (PAGE, 2 * PAGE, PAGE)
    assert one.counts(guestPhysAddr=16 * MIB + PAGE) == (0, PAGE, 0)
    assert one.counts(guestPhysAddr=16 * MIB, memorySize=PAGE) == (PAGE, PAGE, PAGE)


@pytest.mark.parametrize("gpa, size, pages", [(PAGE + 1, 6000, (1, 3)), (2 * PAGE - 1, 2, (1, 3)), (0, 1, (0, 1)),
                                              (3 * PAGE - 1, 1, (2, 3)), (1, LAST - 1, (0, 256))])
def test_range_is_widened_to_pages(sides, gpa, size, pages):
    one = sides(MIB)
    fill(one.shared, 0, 2 * PAGE)
    fill(one.private, PAGE, 2 * PAGE)
    listed = one.client.call("ListMemory", vm="web1", guestPhysAddr=gpa, memorySize=size)["memory"]
    assert [(entry["guestPhysAddr"], entry["memorySize"]) for entry in listed] == [
        (pages[0] * PAGE, (pages[1] - pages[0]) * PAGE)]
    inside = set(range(*pages))
    assert one.counts(guestPhysAddr=gpa, memorySize=size) == tuple(
        PAGE * len(inside & side) for side in ({0, 1}, {1, 2}, {1}))


def test_scattered_pages(sides):
    """Every page is asked for in the end; the answer comes in several messages, and no turn takes long."""
    one = sides(32 * MIB)
    pages = one.size // PAGE
    chosen = random.Random(1)
    shared = {page for page in range(pages) if chosen.random() < 0.5}
    private = {page for page in range(pages) if chosen.random() < 0.5}
    for page in shared:
        fill(one.shared, page * PAGE, PAGE)
    for page in private:
        fill(one.private, page * PAGE, PAGE)
    messages = list(one.client.stream("ListMemory", vm="web1"))
    assert len(messages) > 1
    listed = [entry for message in messages for entry in message["memory"]]
    assert [entry["guestPhysAddr"] for entry in listed[1:]] == [
        entry["guestPhysAddr"] + entry["memorySize"] for entry in listed[:-1]]
    for entry in listed:
        first, end = entry["guestPhysAddr"] // PAGE, (entry["guestPhysAddr"] + entry["memorySize"]) // PAGE
        inside = set(range(first, end))
        assert entry["residentShared"] == len(shared & inside) * PAGE
        assert entry["residentPrivate"] == len(private & inside) * PAGE
        assert entry["residentBoth"] == len(shared & private & inside) * PAGE
    assert listed[-1]["guestPhysAddr"] + listed[-1]["memorySize"] == one.size
    one.client.fails("ExpectedMore", "ListMemory", vm="web1")


def test_large_and_empty(sides):
    """What is not there costs nothing to count."""
    one = sides(1 << 40)
    fill(one.shared, 1 << 39, PAGE)
    fill(one.private, 1 << 39, 2 * PAGE)
    assert one.counts() == (PAGE, 2 * PAGE, PAGE)


def test_private_side_alone(sides, client):
    one = sides(MIB)
    client.call("SetSlot", vm="web1", slot=slot(0, 0, 0))
    client.call("SetSlot", vm="web1", slot=slot(0, 0, MIB, flags=["guest_memfd"], userspaceAddr=HVA,
                                                guestMemfd="private0"))
    fill(one.private, 0, PAGE)
    (entry,) = client.call("ListMemory", vm="web1")["memory"]
    assert entry["residentPrivate"] == PAGE
    assert not {"residentShared", "residentBoth"} & entry.keys()


def test_one_file_is_not_there_twice(sides, client):
    """Of a guest_memfd that the VMM maps, both sides of a slot are the same bytes."""
    one = sides(MIB)
    client.call("SetSlot", vm="web1", slot=slot(0, 0, 0))
    client.call("SetSlot", vm="web1", slot=slot(0, 0, MIB, flags=["guest_memfd"], backing="private0",
                                                userspaceAddr=HVA, guestMemfd="private0"))
    fill(one.private, 0, PAGE)
    (entry,) = client.call("ListMemory", vm="web1")["memory"]
    assert entry["residentPrivate"] == PAGE
    assert "residentBoth" not in entry
