# SPDX-License-Identifier: LGPL-2.1-or-later
"""Long lists: they come whole, in messages of bounded size, and a reader that does not read costs nothing."""

import time

import pytest

from memory import MIB, PAGE, slot

HVA = 0x100000000
SLOTS = 20000  # of each VM
MESSAGE_MAX = MIB


def declare(client, vm, count=SLOTS):
    """Slots of no backing, one page each, apart from each other."""
    client.register(vm)
    table = [slot(i, 2 * i * PAGE, PAGE, userspaceAddr=HVA + 2 * i * PAGE) for i in range(count)]
    for first in range(0, count, 4000):
        client.call("SetSlots", vm=vm, slots=table[first:first + 4000])
    return table


@pytest.fixture
def table(client):
    return declare(client, "web1")


def test_40000_slots(client, table):
    declare(client, "web2")
    whole = client.listed("ListSlots")
    assert [one["vm"] for one in whole] == ["web1"] * SLOTS + ["web2"] * SLOTS
    for i in range(2):
        assert [{**wanted, "addressSpace": 0} for wanted in table] == [
            one["slot"] for one in whole[i * SLOTS:(i + 1) * SLOTS]]
    assert client.largest < MESSAGE_MAX
    client.fails("ExpectedMore", "ListSlots")
    assert client.call("GetHost")["slots"] == 2 * SLOTS


def test_change_while_it_is_listed(daemon, client, table):
    """What is unregistered meanwhile is not met again; what is there all the time is listed once."""
    declare(client, "web2", 1000)
    client.register("db1")
    reader = daemon.connect()
    stream = reader.stream("ListSlots")
    first = next(stream)["slots"]
    client.call("UnregisterVM", vm="web1")
    client.call("UnregisterVM", vm="db1")
    rest = [one for reply in stream for one in reply["slots"]]
    assert [one["slot"]["slotId"] for one in rest if one["vm"] == "web2"] == list(range(1000))
    before = [one["slot"]["slotId"] for one in first + rest if one["vm"] == "web1"]
    assert before == list(range(len(before)))


def test_reader_that_does_not_read_keeps_nobody_waiting(daemon, client, table):
    for _ in range(8):
        daemon.connect().send("ListSlots", {}, more=True)
    started = time.monotonic()
    for i in range(100):
        client.register(f"vm{i}")
    assert time.monotonic() - started < 5


@pytest.mark.plain
def test_reader_that_does_not_read_costs_little(daemon, client, table):
    client.listed("ListSlots")
    before = daemon.rss()
    readers = [daemon.connect() for _ in range(8)]
    for reader in readers:
        reader.send("ListSlots", {}, more=True)
    for _ in range(20):
        client.call("GetHost")
        time.sleep(0.01)
    assert daemon.rss() - before < 8 * MIB
    readers[0].close()
    assert len([one for reply in continued(readers[1]) for one in reply["slots"]]) == SLOTS


def continued(reader):
    continues = True
    while continues:
        reply, continues = reader.receive_reply("ListSlots")
        yield reply


def test_list_of_one_backings_slots_among_many(client, table):
    client.allocate("ram0", MIB)
    client.call("SetSlot", vm="web1", slot=slot(SLOTS, 0x40000000, PAGE, backing="ram0", userspaceAddr=0x70000000000))
    (found,) = client.call("ListSlots", vm="web1", backing="ram0")["slots"]
    assert found["slot"]["slotId"] == SLOTS


def test_unregister_forgets_all_slots(client, table):
    client.call("UnregisterVM", vm="web1")
    assert client.call("GetHost")["slots"] == 0
