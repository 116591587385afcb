# SPDX-License-Identifier: LGPL-2.1-or-later
"""The generation of a VM: every change gives it another one, and whoever says which one it means never changes what it
has not seen."""

import os

import pytest

import user
from broker import wait_until
from memory import MIB, PAGE, slot
from service_manager import ServiceManager
from wire import Client, Refusal

ME = os.geteuid()
HVA = 0x100000000


def generation(client, vm="web1"):
    return client.call("ListVMs", vm=vm)["vms"][0]["generation"]


CHANGES = [
    ("AllocateBacking", {"name": "ram1", "size": MIB, "open": False}),
    ("SetSlot", {"slot": slot(1, MIB, PAGE, backing="ram0", backingOffset=PAGE, userspaceAddr=HVA + PAGE)}),
    ("SetSlot", {"slot": slot(1, MIB, PAGE, flags=["log_dirty_pages"], backing="ram0", backingOffset=PAGE,
                              userspaceAddr=HVA + PAGE)}),
    ("SetSlot", {"slot": slot(1, 0, 0)}),
    ("SetSlots", {"slots": [slot(i, i * PAGE, PAGE, userspaceAddr=HVA + i * PAGE) for i in range(3)]}),
    ("SetMemoryAttributes", {"guestPhysAddr": 0, "memorySize": PAGE, "private": True}),
    ("PunchBacking", {"backing": "ram0", "offset": 0, "size": PAGE}),
    ("ShareBacking", {"backing": "ram0", "peer": "web2"}),
    ("ReclaimBacking", {"backing": "ram0", "peer": "web2"}),
    ("ReleaseBacking", {"backing": "ram1"}),
    ("CreateClaim", {"backings": ["ram0"]}),
    ("AttachVM", {}),
]
NO_CHANGES = [
    ("RegisterVM", {"name": "web1"}),
    ("AllocateBacking", {"name": "ram0", "size": MIB}),
    ("AllocateBacking", {"name": "ram0", "size": 2 * MIB}),
    ("AllocateBacking", {"name": "ram2", "size": MIB, "dryRun": True}),
    ("OpenBacking", {"backing": "ram0"}),
    ("SetSlot", {"slot": slot(0, 0, PAGE, backing="ram0", userspaceAddr=HVA)}),
    ("SetSlot", {"slot": slot(5, 0, PAGE, backing="ram0", userspaceAddr=HVA)}),
    ("SetSlot", {"slot": slot(5, MIB, PAGE, userspaceAddr=HVA + MIB), "dryRun": True}),
    ("CheckSlots", {"slots": [slot(5, MIB, PAGE, userspaceAddr=HVA + MIB)]}),
    ("ReclaimBacking", {"backing": "ram0", "peer": "web2"}),
    ("ReleaseBacking", {"backing": "ram7"}),
    ("ListMemory", {}),
]


@pytest.fixture
def host(client):
    client.register("web1")
    client.register("web2")
    client.allocate(open=False)
    client.call("SetSlot", vm="web1", slot=slot(0, 0, PAGE, backing="ram0", userspaceAddr=HVA))
    return client


def attempt(client, method, parameters):
    try:
        return client.call(method, **({} if "name" in parameters and method == "RegisterVM" else {"vm": "web1"}),
                           **parameters)
    except Refusal as refusal:
        return refusal


def test_every_change_gives_another_one(host):
    other, seen = generation(host, "web2"), {generation(host)}
    for method, parameters in CHANGES:
        before = generation(host)
        assert not isinstance(attempt(host, method, parameters), Refusal), method
        assert generation(host) > before, method
        assert generation(host) not in seen
        seen.add(generation(host))
        if method in ("ShareBacking", "ReclaimBacking"):
            assert generation(host, "web2") != other
        else:
            assert generation(host, "web2") == other, method
        other = generation(host, "web2")


def test_what_changes_nothing_leaves_it(host):
    before = generation(host)
    for method, parameters in NO_CHANGES:
        attempt(host, method, parameters)
        assert generation(host) == before, method


def test_answers_have_the_newest_one(host):
    assert host.call("AttachVM", vm="web1")["vm"]["generation"] == generation(host)
    assert host.register("web1")["generation"] == generation(host)
    assert host.register("web3")["generation"] == generation(host, "web3")


def test_exit_of_the_vmm_changes_it(daemon, client, process):
    client.register(exitPolicy="retain")
    vmm = process(ME, run_vmm, daemon.path, client.contract)
    before = generation(client)
    vmm.kill()
    wait_until(lambda: client.call("ListVMs")["vms"][0]["state"] == "retained")
    assert generation(client) > before


def run_vmm(path, contract):
    run_vmm.kept = Client(path, contract)
    run_vmm.kept.call("AttachVM", vm="web1")


def test_every_change_may_have_a_condition(host):
    for method, parameters in CHANGES:
        current, events = generation(host), host.call("GetMetrics")["events"]
        stale = {**parameters, "ifGeneration": current - 1}
        error = host.fails("VMChanged", method, vm="web1", **stale)
        assert (error["vm"], error["present"], error["requested"]) == ("web1", current, current - 1)
        assert (generation(host), host.call("GetMetrics")["events"]) == (current, events), method
        host.call(method, vm="web1", **{**parameters, "ifGeneration": current})
        host.fails("VMChanged", method, vm="web1", **{**parameters, "ifGeneration": current})


def test_of_two_changes_from_one_look_one_is_done(host):
    current = generation(host)
    host.call("AllocateBacking", vm="web1", name="ram1", size=MIB, ifGeneration=current)
    host.fails("VMChanged", "AllocateBacking", vm="web1", name="ram2", size=MIB, ifGeneration=current)
    assert [one["name"] for one in host.call("ListBackings", vm="web1")["backings"]] == ["ram0", "ram1"]


def test_dry_run_looks_at_the_condition(host):
    wanted = slot(3, MIB, PAGE, userspaceAddr=HVA + MIB)
    current = generation(host)
    host.fails("VMChanged", "SetSlot", vm="web1", slot=wanted, dryRun=True, ifGeneration=current + 1)
    host.call("SetSlot", vm="web1", slot=wanted, dryRun=True, ifGeneration=current)
    host.call("SetSlot", vm="web1", slot=wanted, ifGeneration=None)


def test_adopt(host, donation):
    fd = donation(MIB)
    host.fails("VMChanged", "AdoptBacking", vm="web1", name="given", fileDescriptor=0, ifGeneration=1, fds=[fd])
    host.adopt(fd, "given", ifGeneration=generation(host))


def test_register_what_is_there(host):
    current = generation(host)
    assert host.call("RegisterVM", name="web1", ifGeneration=current)["created"] is False
    assert host.fails("VMChanged", "RegisterVM", name="web1", ifGeneration=1)["present"] == current
    assert "present" not in host.fails("VMChanged", "RegisterVM", name="web9", ifGeneration=1)
    host.fails("NoSuchVM", "ListVMs", vm="web9")


def test_unregister(host):
    host.fails("VMChanged", "UnregisterVM", vm="web2", ifGeneration=generation(host))
    host.call("UnregisterVM", vm="web2", ifGeneration=generation(host, "web2"))
    host.fails("NoSuchVM", "UnregisterVM", vm="web2", ifGeneration=1)


def test_vm_of_the_same_name_is_another_one(host):
    before = generation(host, "web2")
    host.call("UnregisterVM", vm="web2")
    assert host.register("web2")["generation"] > before


def test_restart_makes_every_one_stale(directory, contract):
    manager = ServiceManager(directory, contract)
    try:
        client = manager.start().connect()
        client.register()
        for i in range(100):
            client.allocate(f"ram{i}", open=False)
        before = generation(client)
        client = manager.restart().connect()
        assert generation(client) > before
        client.fails("VMChanged", "ReleaseBacking", vm="web1", backing="ram0", ifGeneration=before)
    finally:
        manager.close()


@pytest.mark.parametrize("wrong", [-1, "1", 1.5, True, [], {}])
def test_what_is_no_generation(host, wrong):
    assert host.fails("InvalidParameter", "ReleaseBacking", vm="web1", backing="ram0",
                      ifGeneration=wrong)["parameter"] == "ifGeneration"


def test_lists_take_no_condition(host):
    for method in ("ListVMs", "ListBackings", "CheckSlots", "OpenBacking"):
        parameters = {"slots": []} if method == "CheckSlots" else {"backing": "ram0"} if method == "OpenBacking" else {}
        assert host.fails("InvalidParameter", method, vm="web1", ifGeneration=1,
                          **parameters)["parameter"] == "ifGeneration"


@pytest.mark.root
def test_condition_tells_nothing_to_others(alice, bob):
    alice.register()
    for method, parameters in (("UnregisterVM", {"vm": "web1"}), ("RegisterVM", {"name": "web1"})):
        assert bob.fails("NotPermitted", method, ifGeneration=1, **parameters)["peerUID"] == user.BOB
