# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lists in pages: limit and cursor, and what happens between two pages; and the filters that name one object."""

import pytest

from memory import MIB, PAGE, slot

HVA = 0x100000000
PAGE_MAX = 1024


def pages(client, method, between=lambda n: None, **parameters):
    """The pages of a list, one call each; between() is called behind each with its number."""
    found, cursor = [], None
    while True:
        reply = client.call(method, **parameters, **({"cursor": cursor} if cursor else {}))
        cursor = reply.pop("nextCursor", None)
        (objects,) = reply.values()
        found.append(objects)
        if cursor is None:
            return found
        assert len(cursor) <= 192
        between(len(found))


def lasting(objects):
    """Without what is told as the clock stands now."""
    return [{key: value for key, value in one.items() if key != "expiresUSec"} for one in objects]


def declare(client, vm, count, **fields):
    client.call("SetSlots", vm=vm, slots=[
        slot(i, 2 * i * PAGE, PAGE, userspaceAddr=HVA + 2 * i * PAGE, **fields) for i in range(count)])


@pytest.fixture
def host(client):
    """Three VMs, seven backings, 21 slots of one and 3 of another."""
    for vm, backings in (("db1", 0), ("web1", 4), ("web2", 3)):
        client.register(vm)
        for i in range(backings):
            client.allocate(f"ram{i}", vm=vm, open=False)
    declare(client, "web1", 21)
    declare(client, "web2", 3)
    for _ in range(20):
        client.call("CreateClaim", vm="web1", backings=["ram0"])
    return client


@pytest.mark.parametrize("method, parameters", [
    ("ListVMs", {}),
    ("ListBackings", {}),
    ("ListBackings", {"vm": "web1"}),
    ("ListSlots", {}),
    ("ListSlots", {"vm": "web1"}),
    ("ListSlots", {"guestPhysAddr": 3 * PAGE, "memorySize": 9 * PAGE}),
    ("ListSlots", {"vm": "web1", "guestPhysAddr": 5 * PAGE}),
    ("ListSlots", {"vm": "web1", "slotId": 4}),
    ("ListSlots", {"slotId": 2}),
    ("ListMetrics", {}),
    ("ListClaims", {"vm": "web1"}),
    ("ListMemory", {"vm": "web1"}),
    ("ListMemory", {"vm": "web1", "guestPhysAddr": 7 * PAGE, "memorySize": 20 * PAGE}),
])
def test_pages_are_the_list(host, method, parameters):
    whole = lasting(host.listed(method, **parameters))
    assert whole
    for limit in (1, 2, 3, 5, 21, 1000):
        found = pages(host, method, limit=limit, **parameters)
        assert lasting(one for page in found for one in page) == whole
        assert all(len(page) == limit for page in found[:-1]) and 0 < len(found[-1]) <= limit


def test_page_is_one_message(host):
    (reply,) = host.stream("ListSlots", limit=20)
    assert len(reply["slots"]) == 20 and reply["nextCursor"]
    declare(host, "web2", 1000)
    assert len(host.call("ListSlots", vm="web2", limit=1000)["slots"]) == 1000
    host.fails("ExpectedMore", "ListSlots", vm="web2")


def test_limit_out_of_range(host):
    for limit in (0, PAGE_MAX + 1, (1 << 63) - 1):
        error = host.fails("InvalidValue", "ListVMs", limit=limit)
        assert (error["field"], error["minimum"], error["maximum"]) == ("limit", 1, PAGE_MAX)


def test_cursor_without_limit_gives_the_rest(host):
    cursor = host.call("ListVMs", limit=1)["nextCursor"]
    reply = host.call("ListVMs", cursor=cursor)
    assert [vm["name"] for vm in reply["vms"]] == ["web1", "web2"] and "nextCursor" not in reply


# ---- what happens in between ----

def test_vms_come_and_go_between_pages(host):
    def change(page):
        if page == 1:
            host.call("UnregisterVM", vm="db1")  # the last one that was sent
            host.register("app1")  # before it
            host.register("web15")  # behind it
    found = pages(host, "ListVMs", change, limit=1)
    assert [vm["name"] for page in found for vm in page] == ["db1", "web1", "web15", "web2"]


def test_backings_come_and_go_between_pages(host):
    def change(page):
        if page == 1:
            host.call("ReleaseBacking", vm="web1", backing="ram1")
            host.call("ReleaseBacking", vm="web1", backing="ram0")
            host.allocate("ram1a", open=False)
        if page == 2:
            host.call("UnregisterVM", vm="web1")
    found = pages(host, "ListBackings", change, limit=2)
    assert [(one["vm"], one["name"]) for page in found for one in page] == [
        ("web1", "ram0"), ("web1", "ram1"), ("web1", "ram1a"), ("web1", "ram2"),
        ("web2", "ram0"), ("web2", "ram1"), ("web2", "ram2")]


def test_claims_come_and_go_between_pages(host):
    claims = [one["claim"] for one in host.listed("ListClaims", vm="web1")]

    def change(page):
        if page == 1:
            host.call("DeleteClaim", vm="web1", claim=claims[0])
            host.call("DeleteClaim", vm="web1", claim=claims[4])  # the last one that was sent
            claims.append(host.call("CreateClaim", vm="web1", backings=["ram1"])["claim"])
    found = pages(host, "ListClaims", change, vm="web1", limit=5)
    assert [one["claim"] for page in found for one in page] == claims


@pytest.mark.parametrize("parameters", [{}, {"guestPhysAddr": 0}])
def test_slots_come_and_go_between_pages(host, parameters):
    def change(page):
        if page <= 2:
            host.call("SetSlot", vm="web1", slot=slot(5 * page - 1, 0, 0))  # the last one that was sent
        if page == 2:
            host.call("SetSlot", vm="web1", slot=slot(100, 12 * PAGE + 21 * PAGE, PAGE, userspaceAddr=HVA + 1 * PAGE))
    found = pages(host, "ListSlots", change, vm="web1", limit=5, **parameters)
    ids = [one["slot"]["slotId"] for page in found for one in page]
    assert sorted(set(ids) - {100}) == list(range(21)) and len(set(ids)) == len(ids) == 22


def test_cursor_is_good_over_a_restart(start):
    daemon = start()
    client = daemon.connect()
    for i in range(3):
        client.register(f"vm{i}")
    cursor = client.call("ListVMs", limit=1)["nextCursor"]
    daemon.stop()
    again = start().connect()
    for i in range(3):
        again.register(f"vm{i}")
    assert [vm["name"] for vm in again.call("ListVMs", limit=5, cursor=cursor)["vms"]] == ["vm1", "vm2"]


# ---- a cursor is looked at ----

NEVER = [
    "", "~", "v", "v~", "v~web1", "v~web1~~0~0~0", "v~web1~~0~0~0~0~", "v~web1~~0~0~0~0~0", "v~web1~ram0~0~0~0~0",
    "x~web1~~0~0~0~0", "b~web1~ram0~0~0~0~0", "v~~~0~0~0~0", "v~we/b1~~0~0~0~0", "v~web1~~0~0~0~00", "v~web1~~0~0~0~+0",
    "v~web1~~0~0~0~-1", "v~web1~~4~0~0~0", "v~web1~~0~2~0~0", "v~web1~~0~0~4294967296~0",
    "v~web1~~0~0~0~18446744073709551616", "v~web1~~0~0~0~5", "v~" + "w" * 65 + "~~0~0~0~0", "~" * 100000,
    "v~web1~~0~0~0~0\n", "v~web1~~0~0~0~é", "V~web1~~0~0~0~0", "vv~web1~~0~0~0~0", "v~web1~~~~~",
]


def test_cursor_that_never_was(host):
    for cursor in NEVER:
        for parameters in ({}, {"limit": 2}):
            assert host.fails("InvalidParameter", "ListVMs", cursor=cursor, **parameters)["parameter"] == "cursor"


def test_cursor_of_another_list(host):
    cursors = {
        method: (parameters, host.call(method, limit=1, **parameters)["nextCursor"])
        for method, parameters in (("ListVMs", {}), ("ListBackings", {}), ("ListSlots", {}), ("ListMetrics", {}),
                                   ("ListMemory", {"vm": "web1"}), ("ListClaims", {"vm": "web1"}))}
    for method, (parameters, _) in cursors.items():
        for other, (_, cursor) in cursors.items():
            if other != method:
                assert host.fails("InvalidParameter", method, cursor=cursor, **parameters)["parameter"] == "cursor"
    in_range = host.call("ListSlots", limit=1, guestPhysAddr=0)["nextCursor"]
    for parameters in ({}, {"guestPhysAddr": 1 << 40}, {"vm": "web2", "guestPhysAddr": 0}):
        host.fails("InvalidParameter", "ListSlots", cursor=in_range, **parameters)


@pytest.mark.root
def test_cursor_gives_no_right(client, alice, bob):
    alice.register("web1")
    bob.register("web0")
    declare(alice, "web1", 5)
    for kind in "sr":
        parameters = {"guestPhysAddr": 0} if kind == "r" else {}
        for flags in range(4):
            assert bob.call("ListSlots", cursor=f"{kind}~web1~~{flags}~0~0~0", **parameters)["slots"] == []
    alice.allocate("ram0")
    alice.allocate("ram1")
    assert bob.call("ListBackings", cursor="b~web1~ram0~0~0~0~0")["backings"] == []
    assert [one["name"] for one in alice.call("ListBackings", cursor="b~web1~ram0~0~0~0~0")["backings"]] == ["ram1"]


# ---- filters that name one object ----

def test_list_of_one_backing(host):
    (backing,) = host.call("ListBackings", vm="web2", backing="ram1")["backings"]
    assert (backing["vm"], backing["name"]) == ("web2", "ram1")
    assert host.call("ListBackings", vm="web2", backing="ram1", limit=1) == {"backings": [backing]}
    assert host.fails("NoSuchBacking", "ListBackings", vm="web2", backing="ram3")["backing"] == "ram3"
    host.fails("NoSuchVM", "ListBackings", vm="web3", backing="ram1")
    host.fails("InvalidName", "ListBackings", backing="ram1")


@pytest.mark.root
def test_list_of_one_backing_of_another_owner(client, alice, bob):
    alice.register("web1")
    bob.register("web2")
    alice.allocate("ram0", MIB)
    alice.allocate("ram1", MIB)
    alice.call("ShareBacking", vm="web1", backing="ram0", peer="web2")
    (backing,) = bob.call("ListBackings", vm="web1", backing="ram0")["backings"]
    assert backing["name"] == "ram0"
    for name in ("ram1", "ram2"):
        bob.fails("NotPermitted", "ListBackings", vm="web1", backing=name)


def test_list_of_one_slot(host):
    (found,) = host.call("ListSlots", vm="web1", addressSpace=0, slotId=7)["slots"]
    assert found["slot"]["slotId"] == 7 and found["slot"]["guestPhysAddr"] == 14 * PAGE
    assert [one["vm"] for one in host.call("ListSlots", addressSpace=0, slotId=2)["slots"]] == ["web1", "web2"]
    for nothing in ({"slotId": 21}, {"slotId": 7, "addressSpace": 1}, {"addressSpace": 77},
                    {"slotId": 7, "addressSpace": 0, "guestPhysAddr": 0, "memorySize": PAGE}):
        assert host.call("ListSlots", vm="web1", **nothing)["slots"] == []
    assert len(host.call("ListSlots", vm="web1", addressSpace=0)["slots"]) == 21


@pytest.mark.two_address_spaces
@pytest.mark.root
def test_list_of_one_address_space(host):
    host.call("SetSlot", vm="web1", slot=slot(7, 0, PAGE, addressSpace=1, userspaceAddr=HVA))
    (found,) = host.call("ListSlots", vm="web1", addressSpace=1)["slots"]
    assert found["slot"]["addressSpace"] == 1
    assert len(host.call("ListSlots", vm="web1", slotId=7)["slots"]) == 2
    assert host.call("ListSlots", vm="web1", slotId=7, addressSpace=1)["slots"] == [found]
    assert pages(host, "ListSlots", vm="web1", slotId=7, limit=1) == [
        [one] for one in host.call("ListSlots", vm="web1", slotId=7)["slots"]]
