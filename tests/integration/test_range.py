# SPDX-License-Identifier: LGPL-2.1-or-later
"""ListSlots confined to a range of guest addresses."""

import pytest

from memory import MIB, PAGE, slot

HVA = 0x7E0000000000
LAST = (1 << 64) - 1


@pytest.fixture(autouse=True)
def slots(client, vm):
    """Slot 9 at 0, slot 1 at 1 MiB, slot 5 at 4 MiB, 1 MiB each; in the order of ids they come otherwise. Slot 2 of a
    second VM lies where slot 1 does."""
    client.allocate("ram0", 2 * MIB)
    put(client, "web1", slot(9, 0, MIB, backing="ram0", userspaceAddr=HVA))
    put(client, "web1", slot(1, MIB, MIB, backing="ram0", backingOffset=MIB, userspaceAddr=HVA + MIB))
    put(client, "web1", slot(5, 4 * MIB, MIB, userspaceAddr=HVA + 64 * MIB))
    client.register("web2")
    put(client, "web2", slot(2, MIB, MIB, userspaceAddr=HVA))


def put(client, vm, wanted):
    assert client.call("SetSlot", vm=vm, slot=wanted)["verdict"]["outcome"] != "refused"


def listed(client, **filters):
    return [(one["vm"], one["slot"]["addressSpace"], one["slot"]["slotId"])
            for one in client.call("ListSlots", **filters)["slots"]]


@pytest.mark.parametrize("gpa, size, ids", [
    (0, 1, [9]), (MIB - 1, 1, [9]), (MIB - 1, 2, [9, 1]), (MIB, 1, [1]), (2 * MIB - 1, 1, [1]), (2 * MIB, 2 * MIB, []),
    (2 * MIB, 2 * MIB + 1, [5]), (5 * MIB - 1, PAGE, [5]), (5 * MIB, PAGE, []), (0, 16 * MIB, [9, 1, 5]),
    (3, LAST - 3, [9, 1, 5]),
])
def test_range(client, gpa, size, ids):
    assert [one[2] for one in listed(client, vm="web1", guestPhysAddr=gpa, memorySize=size)] == ids


def test_range_without_an_end(client):
    assert [one[2] for one in listed(client, vm="web1", guestPhysAddr=MIB)] == [1, 5]
    assert [one[2] for one in listed(client, vm="web1", guestPhysAddr=LAST - 1)] == []


def test_range_without_a_beginning(client):
    assert [one[2] for one in listed(client, vm="web1", memorySize=MIB + 1)] == [9, 1]


def test_range_in_all_vms(client):
    assert listed(client, guestPhysAddr=MIB, memorySize=PAGE) == [("web1", 0, 1), ("web2", 0, 2)]


def test_range_and_backing(client):
    assert [one[2] for one in listed(client, vm="web1", backing="ram0", guestPhysAddr=0)] == [9, 1]
    assert [one[2] for one in listed(client, vm="web1", backing="ram0", guestPhysAddr=4 * MIB)] == []


@pytest.mark.two_address_spaces
def test_range_in_each_address_space(client):
    put(client, "web1", slot(0, MIB, MIB, addressSpace=1, userspaceAddr=HVA + 128 * MIB))
    put(client, "web1", slot(8, 0, MIB, addressSpace=1, userspaceAddr=HVA + 129 * MIB))
    assert listed(client, vm="web1", guestPhysAddr=0, memorySize=2 * MIB) == [
        ("web1", 0, 9), ("web1", 0, 1), ("web1", 1, 8), ("web1", 1, 0)]


@pytest.mark.parametrize("gpa, size", [(0, 0), (LAST, 1), (LAST, 0), (PAGE, LAST), (1, LAST)])
def test_no_range(client, gpa, size):
    error = client.fails("InvalidValue", "ListSlots", vm="web1", guestPhysAddr=gpa, memorySize=size)
    assert error["field"] == "memorySize"


@pytest.mark.parametrize("method", ["ListVMs", "ListBackings"])
def test_range_is_for_slots(client, method):
    client.fails("InvalidParameter", method, guestPhysAddr=0)


def test_long_list(client):
    """Of 1000 slots 900 are in the range, and come in several messages."""
    client.register("many")
    slots = [slot(i, (999 - i) * PAGE, PAGE, userspaceAddr=(1 << 40) + i * PAGE) for i in range(1000)]
    client.call("SetSlots", vm="many", slots=slots)
    messages = list(client.stream("ListSlots", vm="many", guestPhysAddr=50 * PAGE, memorySize=900 * PAGE))
    assert len(messages) == 8
    assert [one["slot"]["guestPhysAddr"] for message in messages for one in message["slots"]] == [
        i * PAGE for i in range(50, 950)]
