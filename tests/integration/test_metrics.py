# SPDX-License-Identifier: LGPL-2.1-or-later
"""GetMetrics and ListMetrics: what is counted, and for whom."""

import os
import time

import pytest

import memory
import user
from broker import wait_until
from memory import MIB, PAGE, slot
from service_manager import ServiceManager

HVA = 0x7E0000000000


def of_vm(client, vm="web1"):
    (found,) = client.listed("ListMetrics", vm=vm)
    assert found["vm"] == vm
    return found


def method(client, name):
    (found,) = [one for one in client.call("GetMetrics")["methods"] if one["method"] == name]
    return found


def quota(client, limit, uid=None):
    return [(one["used"], one["maximum"]) for one in client.call("GetMetrics")["quotas"]
            if one["limit"] == limit and one.get("uid") == uid]


def verdicts(client, vm="web1"):
    return {one["rule"]: (one["refused"], one["observed"], one["allowed"]) for one in of_vm(client, vm)["verdicts"]}


def test_new_vm(client, vm):
    assert of_vm(client) == {"vm": "web1", "state": "registered", "memory": [], "slots": 0, "claims": 0, "privateRanges": 0,
                             "verdicts": []}


def test_memory_of_one_kind_is_one_sum(client, vm, donation):
    memory.fill(client.allocate("ram0", size=4 * PAGE).fd)
    client.allocate("ram1", size=MIB)
    client.adopt(donation(2 * MIB), "given")
    (found,) = of_vm(client)["memory"]
    assert found == {"kind": "memfd", "pageSize": PAGE, "backings": 3, "promisedBytes": 3 * MIB + 4 * PAGE,
                     "residentBytes": 4 * PAGE}


def test_memory_of_a_numa_policy_is_a_sum_of_its_own(client, vm):
    client.allocate("ram0")
    client.allocate("ram1", numaPolicy="bind", numaNodes=[0])
    client.allocate("ram2", numaPolicy="preferred", numaNodes=[0])
    assert [(one.get("numaNodes"), one["backings"]) for one in of_vm(client)["memory"]] == [(None, 1), ([0], 2)]


def test_retained_vm(client, process):
    client.register(exitPolicy="retain")
    client.allocate()
    vmm = process(os.geteuid(), os.getpid)
    client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[vmm.pidfd])
    assert of_vm(client)["state"] == "attached"
    vmm.end()
    wait_until(lambda: of_vm(client)["state"] == "retained")


@pytest.mark.two_address_spaces
def test_verdicts(client, vm):
    client.allocate()
    shown = slot(0, 0, PAGE, backing="ram0", userspaceAddr=HVA)
    client.call("SetSlot", vm="web1", slot=shown)
    assert verdicts(client) == {}
    client.call("SetSlot", vm="web1", slot={**shown, "slotId": 1, "addressSpace": 1, "guestPhysAddr": MIB})
    alias = {**shown, "slotId": 2, "guestPhysAddr": 2 * MIB}
    for _ in range(2):
        client.fails("SlotRefused", "SetSlot", vm="web1", slot=alias)
    client.call("CheckSlots", vm="web1", slots=[alias])
    client.fails("SlotsRefused", "SetSlots", vm="web1", slots=[alias, slot(3, 4 * MIB, PAGE), slot(4, 1, PAGE)])
    assert verdicts(client) == {"address_space_transit": (0, 0, 1), "undeclared_alias": (3, 0, 0),
                                "guest_phys_addr": (1, 0, 0)}
    assert of_vm(client)["slots"] == 2


def test_verdicts_where_aliases_are_observed(client):
    client.register(aliasPolicy="observe")
    client.allocate()
    for number in range(3):
        client.call("SetSlot", vm="web1", slot=slot(number, number * MIB, PAGE, backing="ram0", userspaceAddr=HVA))
    client.fails("SlotRefused", "SetSlot", vm="web1", slot=slot(9, 1, PAGE))
    assert verdicts(client) == {"undeclared_alias": (0, 2, 0), "guest_phys_addr": (1, 0, 0)}


def test_private_ranges(client):
    client.register(type="sw_protected")
    for start in (0, 2 * MIB):
        client.call("SetMemoryAttributes", vm="web1", guestPhysAddr=start, memorySize=MIB, private=True)
    assert of_vm(client)["privateRanges"] == 2


def test_many_vms_come_in_several_messages(client):
    names = sorted(f"vm{i}" for i in range(300))
    for name in names:
        client.register(name)
    messages = [[one["vm"] for one in reply["metrics"]] for reply in client.stream("ListMetrics")]
    assert len(messages) > 1
    assert sum(messages, []) == names
    client.fails("ExpectedMore", "ListMetrics")


def test_unknown_vm(client):
    client.fails("NoSuchVM", "ListMetrics", vm="web1")


@pytest.mark.root
def test_a_vm_is_counted_for_its_owner(client, alice, bob):
    alice.register("hers")
    bob.register("his")
    assert [one["vm"] for one in alice.listed("ListMetrics")] == ["hers"]
    assert [one["vm"] for one in client.listed("ListMetrics")] == ["hers", "his"]
    alice.fails("NotPermitted", "ListMetrics", vm="his")


@pytest.mark.root
def test_quotas(daemon, client, alice, bob):
    alice.register("hers")
    bob.register("his")
    bob.register("his2")
    maximum = client.call("GetHost")["limits"]
    assert quota(client, "vmsPerUID", user.ALICE) == [(1, maximum["vmsPerUID"])]
    assert quota(client, "vmsPerUID", user.BOB) == [(2, maximum["vmsPerUID"])]
    assert quota(alice, "vmsPerUID", user.ALICE) == [(1, maximum["vmsPerUID"])]
    assert quota(alice, "vmsPerUID", user.BOB) == []
    ((connections, most),) = quota(client, "connections")
    assert (connections >= 3, most) == (True, maximum["connections"])
    next(daemon.connect(user.ALICE).stream("Subscribe"))
    assert quota(client, "subscribersPerUID", user.ALICE) == [(1, maximum["subscribersPerUID"])]


def test_calls(client):
    before = method(client, "ListVMs")
    assert (before["succeeded"], before["failed"], before["totalUSec"], set(before["within"])) == (0, 0, 0, {0})
    for _ in range(3):
        client.listed("ListVMs")
    client.fails("NoSuchVM", "ListVMs", vm="none")
    client.fails("InvalidParameter", "ListVMs", vm=3)
    after = method(client, "ListVMs")
    assert (after["succeeded"], after["failed"]) == (3, 1)
    assert after["within"] == sorted(after["within"]) and after["within"][-1] == 4
    assert method(client, "GetMetrics")["succeeded"] == 2


def test_refused_slot_is_a_failed_call(client, vm):
    client.fails("SlotRefused", "SetSlot", vm="web1", slot=slot(0, 1, PAGE))
    assert (method(client, "SetSlot")["succeeded"], method(client, "SetSlot")["failed"]) == (0, 1)


def test_every_method_is_counted(client, contract):
    metrics = client.call("GetMetrics")
    assert [one["method"] for one in metrics["methods"]] != []
    assert {one["method"] for one in metrics["methods"]} == set(contract.methods())
    assert metrics["boundsUSec"] == sorted(set(metrics["boundsUSec"]))
    assert all(len(one["within"]) == len(metrics["boundsUSec"]) for one in metrics["methods"])


def test_start(client):
    before = client.call("GetMetrics")
    assert 0 <= time.time_ns() // 1000 - before["startedUSec"] < 60 * 1000000
    assert before["restarts"] == 0


def test_events_are_counted_by_kind(client):
    def counts():
        return {one["kind"]: one["count"] for one in client.call("GetMetrics")["events"]}

    assert set(counts().values()) == {0}
    client.register("web1")
    client.register("web2")
    client.allocate()
    assert {kind: count for kind, count in counts().items() if count} == {
        "vm_registered": 2, "backing_allocated": 1, "backing_granted": 1}


def test_claims_are_counted(client, vm):
    client.allocate()
    first, _ = (client.call("CreateClaim", vm="web1") for _ in range(2))
    assert of_vm(client)["claims"] == 2
    client.call("RedeemClaim", vm="web1", token=first["token"])
    assert of_vm(client)["claims"] == 1
    ((used, _),) = quota(client, "claimsPerUID", os.geteuid())
    assert used == 1


def test_restarts_are_counted_over_restarts(directory, contract):
    manager = ServiceManager(directory, contract)
    try:
        client = manager.start().connect()
        assert client.call("GetMetrics")["restarts"] == 0
        client.register()
        for restarts in (1, 2, 3):
            client = manager.restart().connect()
            assert client.call("GetMetrics")["restarts"] == restarts
    finally:
        manager.close()
