# SPDX-License-Identifier: LGPL-2.1-or-later
"""AllocateBacking, OpenBacking, ReleaseBacking, PunchBacking and ListBackings."""

import os

import pytest

import memory
from memory import MIB, PAGE, slot

pytestmark = pytest.mark.usefixtures("vm")

INT64_MAX = (1 << 63) - 1
LARGEST = INT64_MAX & ~(PAGE - 1)


def test_allocate(client):
    reply = client.allocate(size=MIB)
    device, inode = memory.identity(reply.fd)
    seals = ["seal", "shrink", "grow"]
    if client.call("GetHost")["features"]["noexecSeal"]:
        seals.append("exec")
    assert reply == {"fileDescriptor": 0, "created": True}
    backing = client.backing()
    del backing["survival"]
    assert backing == {
        "vm": "web1", "name": "ram0", "kind": "memfd", "origin": "allocated", "size": MIB, "pageSize": PAGE,
        "effectivePageSize": PAGE, "device": device, "inode": inode, "seals": seals, "residentBytes": 0, "slots": 0}
    assert os.fstat(reply.fd).st_size == MIB


def test_allocate_populates_nothing(client):
    assert memory.resident(client.allocate(size=1 << 40).fd) == 0


def test_allocate_again_is_the_same_memory(client):
    first, again = client.allocate(), client.allocate(kind="memfd", pageSize=PAGE)
    assert (first["created"], again["created"]) == (True, False)
    assert memory.identity(first.fd) == memory.identity(again.fd)
    memory.write(first.fd, b"the same")
    assert memory.read(again.fd, 8) == b"the same"


def test_allocate_in_two_vms_is_two_files(client):
    client.register("web2")
    assert memory.identity(client.allocate().fd) != memory.identity(client.allocate(vm="web2").fd)


@pytest.mark.parametrize("field, present, requested", [
    ("size", {}, {"size": 2 * MIB}),
    ("kind", {}, {"kind": "hugetlb", "size": 2 * MIB}),
    ("kind", {}, {"pageSize": 2 * MIB, "size": 2 * MIB}),
    ("numaPolicy", {}, {"numaPolicy": "bind", "numaNodes": [0]}),
    ("numaPolicy", {"numaPolicy": "bind", "numaNodes": [0]}, {"numaPolicy": "preferred", "numaNodes": [0]}),
    ("numaNodes", {"numaPolicy": "bind", "numaNodes": [0]}, {"numaPolicy": "bind", "numaNodes": [0, 1]}),
])
def test_allocate_another_under_the_name(client, field, present, requested):
    client.allocate(**present)
    error = client.fails("NameConflict", "AllocateBacking", **{"vm": "web1", "name": "ram0", "size": MIB, **requested})
    assert (error["name"], error["field"]) == ("ram0", field)
    assert error["present"] != error["requested"]


def test_allocate_under_the_name_of_an_adopted_one(client, donation):
    client.adopt(donation(MIB))
    error = client.fails("NameConflict", "AllocateBacking", vm="web1", name="ram0", size=MIB)
    assert (error["field"], error["present"], error["requested"]) == ("origin", "adopted", "allocated")


@pytest.mark.parametrize("size, alignment", [
    (0, PAGE), (1, PAGE), (PAGE + 1, PAGE), (1 << 63, PAGE), ((1 << 64) - 1, PAGE), ((1 << 64) - PAGE, PAGE),
])
def test_allocate_bad_size(client, size, alignment):
    error = client.fails("InvalidValue", "AllocateBacking", vm="web1", name="ram0", size=size)
    assert (error["field"], error["value"], error["alignment"]) == ("size", size, alignment)
    assert (error["minimum"], error["maximum"]) == (PAGE, LARGEST)


def test_allocate_as_large_as_the_file_system_allows(client):
    assert os.fstat(client.allocate(size=LARGEST).fd).st_size == LARGEST


@pytest.mark.parametrize("parameters", [
    {"pageSize": 3 * PAGE}, {"pageSize": PAGE // 2}, {"kind": "memfd", "pageSize": 2 * MIB},
    {"kind": "hugetlb", "pageSize": PAGE}, {"pageSize": 1 << 63},
])
def test_allocate_bad_page_size(client, parameters):
    error = client.fails("InvalidValue", "AllocateBacking", vm="web1", name="ram0", size=2 * MIB, **parameters)
    assert (error["field"], error["value"]) == ("pageSize", parameters["pageSize"])


def test_allocate_page_size_that_the_kernel_does_not_know(client):
    error = client.fails("NoCapacity", "AllocateBacking", vm="web1", name="ram0", size=64 * MIB, pageSize=64 * MIB)
    assert (error["pageSize"], error["needed"], error["available"]) == (64 * MIB, 64 * MIB, 0)


def test_allocate_guest_memfd(client):
    error = client.fails("NotSupported", "AllocateBacking", vm="web1", name="ram0", size=MIB, kind="guest_memfd")
    assert "guest_memfd" in error["feature"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\n", "a" * 65, "a" * 10240])
def test_allocate_bad_name(client, name):
    assert client.fails("InvalidName", "AllocateBacking", vm="web1", name=name, size=MIB)["field"] == "name"


def test_allocate_up_to_the_limit(client):
    limit = client.call("GetHost")["limits"]["backingsPerVM"]
    for i in range(limit):
        client.allocate(f"ram{i}", size=PAGE)
    error = client.fails("LimitExceeded", "AllocateBacking", vm="web1", name="more", size=PAGE)
    assert (error["limit"], error["maximum"]) == ("backingsPerVM", limit)
    assert len(client.listed("ListBackings", vm="web1")) == limit
    client.fails("ExpectedMore", "ListBackings")
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    client.allocate("more", size=PAGE)


def test_open_is_the_same_memory(client):
    first = client.allocate()
    memory.write(first.fd, b"here")
    opened = client.call("OpenBacking", vm="web1", backing="ram0")
    assert memory.identity(opened.fd) == memory.identity(first.fd)
    assert opened["backing"]["residentBytes"] == PAGE
    assert memory.read(opened.fd, 4) == b"here"


def test_open_read_only(client):
    memory.write(client.allocate().fd, b"here")
    opened = client.call("OpenBacking", vm="web1", backing="ram0", access="read_only")
    assert memory.read(opened.fd, 4) == b"here"
    with pytest.raises(PermissionError):
        memory.write(opened.fd, b"there")


def test_unknown_backing_is_named(client):
    for method in ("OpenBacking", "ReleaseBacking"):
        error = client.fails("NoSuchBacking", method, vm="web1", backing="ram9")
        assert (error["vm"], error["backing"]) == ("web1", "ram9")
    client.fails("NoSuchBacking", "PunchBacking", vm="web1", backing="ram9", offset=0, size=PAGE)
    client.fails("NoSuchBacking", "ListSlots", vm="web1", backing="ram9")


def test_release_gives_back_what_others_hold_open(client):
    fd = client.allocate().fd
    memory.fill(fd)
    assert memory.resident(fd) == MIB
    assert client.call("ReleaseBacking", vm="web1", backing="ram0") == {"freedBytes": MIB}
    assert memory.resident(fd) == 0
    client.fails("NoSuchBacking", "ReleaseBacking", vm="web1", backing="ram0")
    assert client.call("GetHost")["promisedBytes"] == 0


def test_release_while_a_slot_shows_it(client):
    client.allocate()
    for i in range(2):
        client.call("SetSlot", vm="web1",
                    slot=slot(i, i * PAGE, PAGE, backing="ram0", backingOffset=i * PAGE,
                              userspaceAddr=(1 << 32) + i * PAGE))
    error = client.fails("BackingInUse", "ReleaseBacking", vm="web1", backing="ram0")
    assert (error["vm"], error["backing"], error["slots"], error.get("pid")) == ("web1", "ram0", 2, None)
    for i in range(2):
        client.call("SetSlot", vm="web1", slot=slot(i, 0, 0))
    client.call("ReleaseBacking", vm="web1", backing="ram0")


def test_punch(client):
    fd = client.allocate().fd
    memory.fill(fd)
    reply = client.call("PunchBacking", vm="web1", backing="ram0", offset=PAGE, size=2 * PAGE)
    assert reply == {"freedBytes": 2 * PAGE}
    assert memory.resident(fd) == MIB - 2 * PAGE
    assert memory.read(fd, 3 * PAGE) == b"x" * PAGE + bytes(2 * PAGE)


def test_punch_what_is_not_there_frees_nothing(client):
    client.allocate()
    assert client.call("PunchBacking", vm="web1", backing="ram0", offset=0, size=MIB) == {"freedBytes": 0}


@pytest.mark.parametrize("offset, size", [
    (0, 0), (0, 1), (1, PAGE), (0, MIB + PAGE), (MIB, PAGE), (MIB - PAGE, 2 * PAGE), (1 << 63, PAGE),
    ((1 << 64) - PAGE, PAGE), (PAGE, (1 << 64) - PAGE), ((1 << 64) - 1, (1 << 64) - 1),
])
def test_punch_bad_range(client, offset, size):
    fd = client.allocate().fd
    memory.fill(fd)
    error = client.fails("InvalidRange", "PunchBacking", vm="web1", backing="ram0", offset=offset, size=size)
    assert (error["backing"], error["offset"], error["size"], error["backingSize"]) == ("ram0", offset, size, MIB)
    assert memory.resident(fd) == MIB


def test_list_backings_in_order(client):
    client.register("db1")
    for vm, name in [("web1", "b"), ("web1", "a"), ("db1", "c")]:
        client.allocate(name, vm=vm)
    listed = [(backing["vm"], backing["name"]) for backing in client.call("ListBackings")["backings"]]
    assert listed == [("db1", "c"), ("web1", "a"), ("web1", "b")]
    assert [backing["name"] for backing in client.call("ListBackings", vm="db1")["backings"]] == ["c"]
    client.fails("NoSuchVM", "ListBackings", vm="db2")
