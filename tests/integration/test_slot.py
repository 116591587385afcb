# SPDX-License-Identifier: LGPL-2.1-or-later
"""SetSlot, SetSlots, CheckSlots and ListSlots on the wire. The rules themselves are tested on the core."""

import pytest

from memory import MIB, PAGE, slot

HVA = 0x7E0000000000


@pytest.fixture(autouse=True)
def ram(client, vm):
    client.allocate("ram0", 16 * MIB)


def shown(slot_id=0, gpa=0, size=MIB, offset=0, **fields):
    """A slot that shows ram0 through one mapping of it."""
    fields = {"backing": "ram0", "backingOffset": offset, "userspaceAddr": HVA + offset, **fields}
    return slot(slot_id, gpa, size, **fields)


def set_slot(client, wanted, vm="web1"):
    return client.call("SetSlot", vm=vm, slot=wanted)["verdict"]


def refused(client, wanted, vm="web1"):
    error = client.fails("SlotRefused", "SetSlot", vm=vm, slot=wanted)
    assert (error["vm"], error["slotId"], error["addressSpace"]) == (
        vm, wanted["slotId"], wanted.get("addressSpace", 0))
    assert error["message"] == error["verdict"]["reason"]
    return error["verdict"]


OK = {"outcome": "ok", "kernelErrno": 0, "conflicts": []}


def test_set(client):
    assert set_slot(client, shown()) == OK
    assert client.call("ListSlots") == {"slots": [{"vm": "web1", "slot": {**shown(), "addressSpace": 0}}]}


@pytest.mark.two_address_spaces
def test_set_every_field(client):
    full = shown(7, 4 * MIB, flags=["log_dirty_pages", "readonly"], addressSpace=1)
    set_slot(client, full)
    assert client.call("ListSlots")["slots"][0]["slot"] == full


def test_set_again_changes_nothing(client):
    set_slot(client, shown())
    before = client.call("ListSlots")
    assert set_slot(client, shown()) == OK
    assert client.call("ListSlots") == before


@pytest.mark.two_address_spaces
@pytest.mark.parametrize("vm_type, one_address_space, no_readonly", [
    ("undeclared", False, False), ("ordinary", False, False), ("sw_protected", True, False), ("sev", False, False),
    ("sev_es", False, True), ("snp", True, True), ("tdx", True, True),
])
def test_type_of_the_vm(client, vm_type, one_address_space, no_readonly):
    client.register("typed", type=vm_type)
    second = slot(1, 0, MIB, userspaceAddr=HVA, addressSpace=1)
    readonly = slot(2, 0, MIB, userspaceAddr=HVA, flags=["readonly"])
    for wanted, rule, is_refused in ((second, "slot_id", one_address_space), (readonly, "flags", no_readonly)):
        if is_refused:
            verdict = refused(client, wanted, vm="typed")
            assert (verdict["rule"], verdict["kernelErrno"]) == (rule, 22)
        else:
            set_slot(client, wanted, vm="typed")


def test_move_and_delete(client):
    set_slot(client, shown())
    assert set_slot(client, shown(gpa=4 * MIB)) == OK
    assert client.call("ListSlots")["slots"][0]["slot"]["guestPhysAddr"] == 4 * MIB
    assert set_slot(client, slot(0, 0, 0)) == OK
    assert client.call("ListSlots") == {"slots": []}
    assert client.call("ListBackings")["backings"][0]["slots"] == 0


def test_slot_without_a_backing(client):
    window = slot(3, 0xA0000, 0x20000, userspaceAddr=HVA + (1 << 40))
    assert set_slot(client, window) == OK
    assert client.call("ListSlots")["slots"][0]["slot"] == {**window, "addressSpace": 0}


@pytest.mark.parametrize("wanted, rule, errno", [
    (shown(32764), "slot_id", 22),
    (shown(addressSpace=2), "slot_id", 22),
    (shown(size=PAGE + 1), "memory_size", 22),
    (shown(gpa=1), "guest_phys_addr", 22),
    (shown(gpa=(1 << 64) - PAGE), "guest_phys_addr", 22),
    (shown(userspaceAddr=HVA + 1), "userspace_addr", 22),
    (shown(userspaceAddr=(1 << 64) - PAGE), "userspace_addr", 22),
    (slot(5, 0, 0), "no_such_slot", 22),
    (shown(flags=["guest_memfd"], guestMemfd="ram0"), "not_guest_memfd", 22),
    (shown(offset=16 * MIB), "beyond_backing", 0),
    (shown(offset=15 * MIB, size=2 * MIB), "beyond_backing", 0),
    (shown(size=PAGE, offset=(1 << 64) - PAGE, userspaceAddr=HVA), "beyond_backing", 0),
])
def test_refused_shape(client, wanted, rule, errno):
    verdict = refused(client, wanted)
    assert (verdict["outcome"], verdict["rule"], verdict["kernelErrno"]) == ("refused", rule, errno)
    assert client.call("ListSlots") == {"slots": []}


def test_refused_change_of_a_live_slot(client):
    set_slot(client, shown())
    verdict = refused(client, shown(size=2 * MIB))
    assert (verdict["rule"], verdict["kernelErrno"]) == ("slot_immutable", 22)


def test_refused_overlap_names_the_other_slot(client):
    set_slot(client, shown(0, 0))
    verdict = refused(client, shown(1, MIB - PAGE, offset=4 * MIB))
    assert (verdict["rule"], verdict["kernelErrno"]) == ("gfn_overlap", 17)
    (conflict,) = verdict["conflicts"]
    assert (conflict["vm"], conflict["slotId"], conflict["guestPhysAddr"], conflict["size"]) == (
        "web1", 0, MIB - PAGE, PAGE)


# ---- aliases ----


def test_alias_in_the_vm_names_every_conflict(client):
    set_slot(client, shown(0, 0, MIB, 0))
    set_slot(client, shown(1, 8 * MIB, MIB, MIB))
    verdict = refused(client, shown(2, 32 * MIB, MIB, MIB // 2))
    assert (verdict["rule"], verdict["kernelErrno"]) == ("undeclared_alias", 0)
    common = {"rule": "undeclared_alias", "vm": "web1", "addressSpace": 0, "size": MIB // 2, "backing": "ram0",
              "backingVM": "web1"}
    assert verdict["conflicts"] == [
        {**common, "slotId": 0, "guestPhysAddr": MIB // 2, "requestedGuestPhysAddr": 32 * MIB,
         "backingOffset": MIB // 2},
        {**common, "slotId": 1, "guestPhysAddr": 8 * MIB, "requestedGuestPhysAddr": 32 * MIB + MIB // 2,
         "backingOffset": MIB},
    ]
    assert "web1" in verdict["reason"]
    assert len(client.call("ListSlots")["slots"]) == 2


def test_alias_through_two_mappings_of_the_file(client):
    set_slot(client, shown())
    verdict = refused(client, shown(1, 32 * MIB, userspaceAddr=HVA + (1 << 40)))
    assert verdict["rule"] == "undeclared_alias"


def test_alias_through_one_mapping_without_the_file(client):
    """The second slot does not say which file it shows; its address says it."""
    set_slot(client, shown())
    verdict = refused(client, slot(1, 32 * MIB, MIB, userspaceAddr=HVA))
    assert verdict["rule"] == "undeclared_alias"
    assert verdict["conflicts"][0]["backing"] == "ram0"


def test_alias_across_vms(client):
    set_slot(client, shown())
    client.register("web2")
    verdict = refused(client, shown(4, 0, PAGE, backingVM="web1"), vm="web2")
    assert verdict["rule"] == "undeclared_alias"
    assert verdict["conflicts"] == [{
        "rule": "undeclared_alias", "vm": "web1", "slotId": 0, "addressSpace": 0, "guestPhysAddr": 0,
        "requestedGuestPhysAddr": 0, "size": PAGE, "backing": "ram0", "backingVM": "web1", "backingOffset": 0}]


@pytest.mark.two_address_spaces
def test_same_frame_in_the_other_address_space(client):
    set_slot(client, shown())
    verdict = set_slot(client, shown(addressSpace=1))
    assert (verdict["outcome"], verdict["conflicts"]) == ("ok", [])


@pytest.mark.parametrize("first, second, rule", [
    (shown(flags=["readonly"]), shown(1, 32 * MIB, flags=["readonly"]), "rom_shadow"),
    (slot(0, 0, MIB, userspaceAddr=HVA), slot(1, 32 * MIB, MIB, userspaceAddr=HVA), "vmm_window"),
    pytest.param(shown(), shown(1, 32 * MIB, addressSpace=1), "address_space_transit",
                 marks=pytest.mark.two_address_spaces),
    (shown(0, 0xA0000, 0x20000, 0xA0000), shown(1, 0xFEDA0000, 0x20000, 0xA0000), "smram_window"),
])
def test_allowed_alias(client, first, second, rule):
    set_slot(client, first)
    verdict = set_slot(client, second)
    assert (verdict["outcome"], verdict["rule"], verdict["kernelErrno"]) == ("allowed", rule, 0)
    (conflict,) = verdict["conflicts"]
    assert (conflict["rule"], conflict["slotId"]) == (rule, 0)
    assert len(client.call("ListSlots")["slots"]) == 2


def test_observe_reports_and_sets(client):
    client.register("watched", aliasPolicy="observe")
    client.allocate("ram0", vm="watched")
    set_slot(client, shown(), vm="watched")
    verdict = set_slot(client, shown(1, 32 * MIB), vm="watched")
    assert (verdict["outcome"], verdict["rule"]) == ("refused", "undeclared_alias")
    assert len(client.call("ListSlots", vm="watched")["slots"]) == 2


def test_observe_lets_no_rule_of_kvm_pass(client):
    client.register("watched", aliasPolicy="observe")
    client.allocate("ram0", vm="watched")
    assert refused(client, shown(gpa=1), vm="watched")["rule"] == "guest_phys_addr"


# ---- names and numbers ----


def test_unknown_names_in_a_slot(client):
    client.fails("NoSuchVM", "SetSlot", vm="web9", slot=shown())
    error = client.fails("NoSuchBacking", "SetSlot", vm="web1", slot=shown(backing="ram9"))
    assert (error["vm"], error["backing"]) == ("web1", "ram9")
    client.fails("NoSuchVM", "SetSlot", vm="web1", slot=shown(backingVM="web9"))
    client.fails("NoSuchBacking", "SetSlot", vm="web1",
                 slot=shown(flags=["guest_memfd"], guestMemfd="ram9"))


def test_offset_without_backing(client):
    error = client.fails("InvalidValue", "SetSlot", vm="web1", slot=slot(0, 0, MIB, backingOffset=PAGE))
    assert error["value"] == PAGE


def test_guest_memfd_without_its_flag(client):
    client.fails("NotSupported", "SetSlot", vm="web1", slot=shown(guestMemfd="ram0"))


@pytest.mark.parametrize("field, value", [
    ("slotId", -1), ("slotId", 1 << 32), ("slotId", "0"), ("slotId", None), ("addressSpace", -1),
    ("guestPhysAddr", -4096), ("guestPhysAddr", 0.5), ("guestPhysAddr", 1 << 64), ("memorySize", -4096),
    ("memorySize", True), ("memorySize", []), ("flags", "readonly"), ("flags", ["unknown"]), ("flags", [None]),
    ("flags", [1]), ("flags", [[]]), ("backing", 1), ("backingVM", {}), ("backingOffset", -1), ("unknown", 1),
])
@pytest.mark.parametrize("many", [False, True])
def test_field_of_the_wrong_type(client, field, value, many):
    wanted = {**shown(), field: value}
    if many:
        client.fails("InvalidParameter", "SetSlots", vm="web1", slots=[shown(1, 32 * MIB, offset=8 * MIB), wanted])
    else:
        client.fails("InvalidParameter", "SetSlot", vm="web1", slot=wanted)
    assert client.call("ListSlots") == {"slots": []}


@pytest.mark.parametrize("slots", [None, {}, "x", [None], [1], [[]], ["x"]])
def test_table_of_the_wrong_type(client, slots):
    client.fails("InvalidParameter", "SetSlots", vm="web1", slots=slots)
    client.fails("InvalidParameter", "CheckSlots", vm="web1", slots=slots)


def test_numbers_as_strings(client):
    """JSON libraries that keep numbers as doubles write large ones as strings."""
    set_slot(client, shown(gpa=str(4 * MIB), size=str(MIB)))
    assert client.call("ListSlots")["slots"][0]["slot"]["guestPhysAddr"] == 4 * MIB


# ---- many ----


def test_table_is_set_at_once(client):
    reply = client.call("SetSlots", vm="web1", slots=[shown(i, i * MIB, offset=i * MIB) for i in range(4)])
    assert reply == {"verdicts": [OK] * 4}
    assert [listed["slot"]["slotId"] for listed in client.call("ListSlots")["slots"]] == [0, 1, 2, 3]


def test_table_without_slots(client):
    assert client.call("SetSlots", vm="web1", slots=[]) == {"verdicts": []}
    assert client.call("CheckSlots", vm="web1", slots=[]) == {"accepted": True, "verdicts": []}


def test_table_is_set_wholly_or_not_at_all(client):
    error = client.fails("SlotsRefused", "SetSlots", vm="web1",
                         slots=[shown(0), shown(1, 1), shown(2, 4 * MIB), shown(3, 8 * MIB, offset=8 * MIB)])
    assert [verdict.get("rule") for verdict in error["verdicts"]] == [None, "guest_phys_addr", "undeclared_alias", None]
    assert "2 of 4" in error["message"]
    assert client.call("ListSlots") == {"slots": []}


def test_table_may_delete_and_create(client):
    set_slot(client, shown())
    client.call("SetSlots", vm="web1", slots=[slot(0, 0, 0), shown(1, 32 * MIB)])
    assert [listed["slot"]["slotId"] for listed in client.call("ListSlots")["slots"]] == [1]


def test_table_too_long(client):
    error = client.fails("LimitExceeded", "SetSlots", vm="web1", slots=[slot(0, 0, 0)] * 4097)
    assert (error["limit"], error["maximum"]) == ("slotsPerCall", 4096)


def test_check_has_no_effect(client):
    assert client.call("CheckSlots", vm="web1", slots=[shown()]) == {"accepted": True, "verdicts": [OK]}
    reply = client.call("CheckSlots", vm="web1", slots=[shown(), shown(1, 32 * MIB)])
    assert reply["accepted"] is False
    assert [verdict["outcome"] for verdict in reply["verdicts"]] == ["ok", "refused"]
    assert client.call("ListSlots") == {"slots": []}
    with_events = client.stream("Subscribe", since=0)
    kinds = [next(with_events)["event"]["kind"] for _ in range(4)]
    assert kinds == ["subscribed", "vm_registered", "backing_allocated", "backing_granted"]


@pytest.mark.two_address_spaces
def test_list_filters(client):
    client.register("db1")
    client.allocate("ram0", vm="db1")
    set_slot(client, shown(), vm="db1")
    set_slot(client, shown(5, 0))
    set_slot(client, slot(6, 32 * MIB, MIB, userspaceAddr=HVA + (1 << 40)))
    set_slot(client, shown(1, 0, addressSpace=1))

    def listed(**filters):
        return [(one["vm"], one["slot"]["addressSpace"], one["slot"]["slotId"])
                for one in client.call("ListSlots", **filters)["slots"]]
    assert listed() == [("db1", 0, 0), ("web1", 0, 5), ("web1", 0, 6), ("web1", 1, 1)]
    assert listed(vm="web1") == [("web1", 0, 5), ("web1", 0, 6), ("web1", 1, 1)]
    assert listed(vm="web1", backing="ram0") == [("web1", 0, 5), ("web1", 1, 1)]
    client.fails("NoSuchVM", "ListSlots", vm="web9")
    client.fails("InvalidName", "ListSlots", backing="ram0")


def test_list_shows_the_slots_of_other_vms(client):
    client.register("watcher", aliasPolicy="observe")
    set_slot(client, shown())
    set_slot(client, shown(9, backingVM="web1"), vm="watcher")
    assert [(one["vm"], one["slot"]["slotId"], one["slot"].get("backingVM"))
            for one in client.call("ListSlots", vm="web1", backing="ram0")["slots"]] == [
                ("watcher", 9, "web1"), ("web1", 0, None)]
    error = client.fails("BackingInUse", "UnregisterVM", vm="web1")
    assert (error["backing"], error["slots"]) == ("ram0", 2)


def test_deleted_slots_free_the_memory_for_another_vm(client):
    set_slot(client, shown())
    client.register("web2")
    there = shown(0, 0, backingVM="web1")
    assert refused(client, there, vm="web2")["rule"] == "undeclared_alias"
    set_slot(client, slot(0, 0, 0))
    assert set_slot(client, there, vm="web2") == OK
