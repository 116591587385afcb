# SPDX-License-Identifier: LGPL-2.1-or-later
"""Huge pages: reserved when they are promised, given back on release, and refused with the numbers when they lack."""

import fcntl
import mmap
import os

import pytest

import memory
from hugepages import POOLS, pool
from memory import GROW, HUGE_PAGE, MIB, SHRINK, slot

GIB = 1 << 30

pytestmark = [
    pytest.mark.usefixtures("vm", "huge_pages_lock"),
    pytest.mark.skipif(not (POOLS / "hugepages-2048kB").is_dir(), reason="this kernel has no huge pages of 2 MiB"),
]


@pytest.fixture
def empty_pool(huge_pages_lock):
    if pool("free_hugepages") or pool("nr_overcommit_hugepages"):
        pytest.skip("this machine has huge pages in use")


def test_pool_is_missing(client, empty_pool):
    error = client.fails("NoCapacity", "AllocateBacking", vm="web1", name="ram0", size=4 * MIB, kind="hugetlb")
    assert (error["pageSize"], error["needed"], error["available"]) == (HUGE_PAGE, 4 * MIB, 0)
    assert error.get("node") is None
    assert client.call("ListBackings") == {"backings": []}


@pytest.mark.skipif(not (POOLS / "hugepages-1048576kB").is_dir(), reason="this kernel has no huge pages of 1 GiB")
def test_pool_of_1_gib_is_missing(client):
    if pool("free_hugepages", "1048576kB"):
        pytest.skip("this machine has huge pages of 1 GiB")
    error = client.fails("NoCapacity", "AllocateBacking", vm="web1", name="ram0", size=2 * GIB, pageSize=GIB)
    assert (error["pageSize"], error["needed"], error["available"]) == (GIB, 2 * GIB, 0)


@pytest.mark.parametrize("parameters", [{"kind": "hugetlb"}, {"pageSize": HUGE_PAGE}])
def test_allocate(client, pages, parameters):
    reply = client.allocate(size=2 * HUGE_PAGE, **parameters)
    backing = client.backing()
    assert (backing["kind"], backing["pageSize"]) == ("hugetlb", HUGE_PAGE)
    assert os.fstatvfs(reply.fd).f_bsize == HUGE_PAGE
    assert {"seal", "shrink", "grow"} <= set(backing["seals"])


def test_allocate_again_is_the_same_memory(client, pages):
    first = client.allocate(size=HUGE_PAGE, kind="hugetlb")
    again = client.allocate(size=HUGE_PAGE, pageSize=HUGE_PAGE)
    assert again["created"] is False
    assert memory.identity(first.fd) == memory.identity(again.fd)


def test_pages_are_reserved_at_once(client, pages):
    before = pool("resv_hugepages")
    client.allocate(size=3 * HUGE_PAGE, kind="hugetlb")
    assert pool("resv_hugepages") == before + 3
    (listed,) = [one for one in client.call("GetHost")["hugePagePools"]
                 if one["pageSize"] == HUGE_PAGE and one.get("node") is None]
    assert listed["reserved"] == (before + 3) * HUGE_PAGE
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    for fd in client._owned:
        os.close(fd)
    client._owned.clear()
    assert pool("resv_hugepages") == before


def test_more_than_is_left(client, pages):
    client.allocate(size=HUGE_PAGE, kind="hugetlb")
    error = client.fails("NoCapacity", "AllocateBacking", vm="web1", name="ram1", size=pages * HUGE_PAGE,
                         kind="hugetlb")
    assert (error["needed"], error["available"]) == (pages * HUGE_PAGE, (pages - 1) * HUGE_PAGE)
    client.allocate("ram1", size=(pages - 1) * HUGE_PAGE, kind="hugetlb")


def test_more_than_a_node_has(client, pages):
    error = client.fails("NoCapacity", "AllocateBacking", vm="web1", name="ram0", size=1024 * GIB, kind="hugetlb",
                         numaPolicy="bind", numaNodes=[0])
    assert (error["node"], error["needed"]) == (0, 1024 * GIB)


def test_release_gives_the_pages_back(client, pages):
    before = pool("free_hugepages")
    fd = client.allocate(size=2 * HUGE_PAGE, kind="hugetlb").fd
    with mmap.mmap(fd, 2 * HUGE_PAGE) as mapped:
        mapped[0] = mapped[HUGE_PAGE] = 1
    assert pool("free_hugepages") == before - 2
    assert client.call("ListBackings")["backings"][0]["residentBytes"] == 2 * HUGE_PAGE
    assert client.call("ReleaseBacking", vm="web1", backing="ram0") == {"freedBytes": 2 * HUGE_PAGE}
    assert pool("free_hugepages") == before


def test_punch_a_page(client, pages):
    fd = client.allocate(size=2 * HUGE_PAGE, kind="hugetlb").fd
    with mmap.mmap(fd, 2 * HUGE_PAGE) as mapped:
        mapped[0] = mapped[HUGE_PAGE] = 1
    client.fails("InvalidRange", "PunchBacking", vm="web1", backing="ram0", offset=0, size=4096)
    assert client.call("PunchBacking", vm="web1", backing="ram0", offset=0, size=HUGE_PAGE) == {"freedBytes": HUGE_PAGE}


def test_size_is_not_a_multiple(client, pages):
    error = client.fails("InvalidValue", "AllocateBacking", vm="web1", name="ram0", size=HUGE_PAGE + 4096,
                         kind="hugetlb")
    assert (error["field"], error["alignment"]) == ("size", HUGE_PAGE)


def test_adopt(client, pages):
    fd = os.memfd_create("donation", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    try:
        os.ftruncate(fd, HUGE_PAGE)
        fcntl.fcntl(fd, memory.F_ADD_SEALS, SHRINK | GROW)
        backing = client.adopt(fd, kind="hugetlb")["backing"]
        assert (backing["kind"], backing["pageSize"], backing["size"]) == ("hugetlb", HUGE_PAGE, HUGE_PAGE)
        client.fails("NotMemory", "AdoptBacking", vm="web1", name="ram1", fileDescriptor=0, kind="memfd", fds=[fd])
    finally:
        os.close(fd)


def test_read_only_grant(client, pages):
    client.allocate(size=HUGE_PAGE, kind="hugetlb")
    lent = client.call("OpenBacking", vm="web1", backing="ram0", access="read_only").fd
    with pytest.raises(PermissionError):
        mmap.mmap(lent, HUGE_PAGE)


def test_slot(client, pages):
    client.allocate(size=2 * HUGE_PAGE, kind="hugetlb")
    wanted = slot(0, 0, HUGE_PAGE, backing="ram0", userspaceAddr=0x7E0000000000)
    assert client.call("SetSlot", vm="web1", slot=wanted)["verdict"]["outcome"] == "ok"
