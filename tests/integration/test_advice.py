# SPDX-License-Identifier: LGPL-2.1-or-later
"""Advice beside verdicts. What is due when is tested on the core; here is what reaches the caller."""

import pathlib

import pytest

from hugepages import POOLS
from memory import HUGE_PAGE, PAGE, slot

HVA = 0x7E0000000000
THP = pathlib.Path("/sys/kernel/mm/transparent_hugepage")


def memfd_page():
    """The largest page that the kernel may use for a memfd, from the same switches, read in another way."""
    def choice(path):
        return path.read_text().split("[")[1].split("]")[0]
    try:
        size = int((THP / "hpage_pmd_size").read_text())
        word = choice(THP / "shmem_enabled")
        own = THP / f"hugepages-{size // 1024}kB" / "shmem_enabled"
        if word not in ("deny", "force") and own.exists() and choice(own) != "inherit":
            word = choice(own)
    except FileNotFoundError:
        return PAGE
    return PAGE if word in ("never", "deny") else size


@pytest.fixture(autouse=True)
def ram(client, vm):
    client.allocate("ram0", 4 * HUGE_PAGE)


def shown(slot_id=0, gpa=0, size=HUGE_PAGE, offset=0, **fields):
    return slot(slot_id, gpa, size, **{"backing": "ram0", "backingOffset": offset, "userspaceAddr": HVA + offset,
                                       **fields})


def advice(verdict, kind):
    """The advice of that kind, or None."""
    found = [one for one in verdict.get("advice", []) if one["kind"] == kind]
    assert len(found) <= 1
    return found[0] if found else None


def set_slot(client, wanted, vm="web1"):
    return client.call("SetSlot", vm=vm, slot=wanted)["verdict"]


def test_misaligned(client):
    one = advice(set_slot(client, shown(gpa=PAGE)), "huge_pages_misaligned")
    assert one.pop("message")
    assert one == {"kind": "huge_pages_misaligned", "pageSize": PAGE, "possiblePageSize": HUGE_PAGE,
                   "guestPhysAddrLow": PAGE, "userspaceAddrLow": 0, "backingOffsetLow": 0}
    assert advice(set_slot(client, shown(gpa=HUGE_PAGE)), "huge_pages_misaligned") is None


def test_small_pages(client):
    one = advice(set_slot(client, shown()), "small_pages")
    if memfd_page() > PAGE:
        assert one is None
    else:
        assert "shmem_enabled" in one["message"]
        assert (one["pageSize"], one["possiblePageSize"]) == (PAGE, HUGE_PAGE)


def test_effective_page_size(client):
    client.allocate("small", HUGE_PAGE - PAGE)
    assert client.backing()["effectivePageSize"] == memfd_page()
    assert client.backing("small")["effectivePageSize"] == PAGE


def test_no_advice_is_no_field(client):
    assert "advice" not in set_slot(client, shown(size=HUGE_PAGE - PAGE, gpa=PAGE))
    assert "advice" not in set_slot(client, slot(0, 0, 0))


def test_no_advice_on_what_is_refused(client):
    error = client.fails("SlotRefused", "SetSlot", vm="web1", slot=shown(gpa=1))
    assert "advice" not in error["verdict"]


def test_advice_beside_an_allowance(client):
    set_slot(client, shown(flags=["readonly"]))
    verdict = set_slot(client, shown(1, 8 * HUGE_PAGE + PAGE, flags=["readonly"]))
    assert (verdict["outcome"], verdict["rule"]) == ("allowed", "rom_shadow")
    assert advice(verdict, "huge_pages_misaligned")


def test_advice_on_a_table(client):
    slots = [shown(), shown(1, 8 * HUGE_PAGE + PAGE, offset=HUGE_PAGE)]
    for verdicts in (client.call("CheckSlots", vm="web1", slots=slots)["verdicts"],
                     client.call("SetSlots", vm="web1", slots=slots)["verdicts"]):
        assert [bool(advice(verdict, "huge_pages_misaligned")) for verdict in verdicts] == [False, True]


@pytest.mark.skipif(not (POOLS / "hugepages-2048kB").is_dir(), reason="this kernel has no huge pages of 2 MiB")
def test_huge_pages(client, pages):
    client.allocate("huge", HUGE_PAGE, kind="hugetlb")
    assert client.backing("huge")["effectivePageSize"] == HUGE_PAGE
    assert "advice" not in set_slot(client, shown(backing="huge"))
    one = advice(set_slot(client, shown(backing="huge", flags=["log_dirty_pages"])), "flags_limit_backing")
    assert (one["pageSize"], one["possiblePageSize"]) == (PAGE, HUGE_PAGE)
    assert "advice" not in set_slot(client, shown(backing="huge"))
