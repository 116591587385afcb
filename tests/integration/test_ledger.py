# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ledgers that privmemd did not write like that: torn, damaged, of two generations, of a newer privmemd."""

import os
import struct

import pytest

import memory
from ledger import BACKING, FRAME, VM, Ledger, record
from memory import MIB, PAGE, slot
from service_manager import ServiceManager

pytestmark = pytest.mark.plain

HVA = 0x7E0000000000
PATTERN = b"guest memory" * 100
NEWER = 4711  # a type that no privmemd knows


@pytest.fixture
def manager(directory, contract):
    manager = ServiceManager(directory, contract)
    yield manager
    manager.close()


def everything(client):
    """All that a client can see."""
    return [(vm, *(client.listed(method, vm=vm["name"]) for method in ("ListBackings", "ListSlots", "ListMemory")))
            for vm in client.vms()]


def furnish(client):
    for vm in ("web1", "web2", "web3"):
        client.register(vm, exitPolicy="retain")
        client.allocate("ram0", vm=vm)
        client.call("SetSlot", vm=vm, slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=HVA))
    client.allocate("extra", size=3 * PAGE, vm="web2")
    memory.write(client.call("OpenBacking", vm="web2", backing="extra").fd, PATTERN)
    client.call("ShareBacking", vm="web1", backing="ram0", peer="web3", access="read_only")
    client.call("SetMemoryAttributes", vm="web3", guestPhysAddr=MIB, memorySize=MIB, private=True)
    return everything(client)


def stored(manager):
    (fd,) = [fd for name, fd in manager.store if name.startswith("ledger-")]
    return Ledger(fd)


def names_of_fds(daemon):
    return [link for link in daemon.fds().values() if "memfd:privmemd:" in link]


@pytest.fixture
def dead(manager):
    """A service manager whose privmemd was killed, its ledger, and what was to be seen."""
    before = furnish(manager.start().connect())
    manager.end()
    return manager, stored(manager), before


# ---- the end of the file ----


@pytest.mark.parametrize("what", ["half a head", "half the records", "a wrong checksum", "a wrong generation",
                                  "garbage"])
def test_torn_tail_is_nothing(dead, what):
    manager, ledger, before = dead
    frame = ledger.frame(record(VM, bytes(64)), record(VM, bytes(64)))
    wrong = ledger.frame(record(VM, bytes(64)), generation=ledger.generation + 1)
    ledger.append({"half a head": frame[:FRAME.size // 2], "half the records": frame[:-70],
                   "a wrong checksum": frame[:-1] + b"\1", "a wrong generation": wrong,
                   "garbage": os.urandom(5000)}[what])
    assert everything(manager.start().connect()) == before
    assert manager.daemon.stderr() == ""
    assert stored(manager).generation == ledger.generation + (what != "half a head" or 1)


def test_what_comes_behind_a_torn_frame_is_kept(dead):
    manager, ledger, _ = dead
    ledger.append(ledger.frame(record(VM, bytes(64)))[:-3] + b"xxx")
    client = manager.start().connect()
    client.register("web9")
    before = everything(client)
    assert everything(manager.restart().connect()) == before


# ---- damage ----


def test_damage_costs_one_frame(dead):
    manager, ledger, before = dead
    at, size = ledger.frames[ledger.frame_of(BACKING, b"extra")]
    ledger.flip(at + size // 2)
    manager.start(is_quiet=False)
    assert "the ledger is damaged: 1 frames are missing" in manager.daemon.stderr()
    assert "1 file descriptors that no record names are kept" in manager.daemon.stderr()
    seen = everything(manager.daemon.connect())
    web2 = next(one for one in before if one[0]["name"] == "web2")
    web2[0]["backings"] -= 1
    web2[0].update(promisedBytes=MIB, residentBytes=0)
    web2[1][:] = [one for one in web2[1] if one["name"] != "extra"]
    assert seen == before


def test_what_damage_made_unknown_is_kept_for_good(dead):
    manager, ledger, _ = dead
    at, size = ledger.frames[ledger.frame_of(BACKING, b"extra")]
    ledger.flip(at + size // 2)
    for _ in range(4):
        manager.start(is_quiet=False, wait=False)
        manager.daemon.connect().call("GetHost")
        (number,) = [number for number, link in manager.daemon.fds().items() if "web2/extra" in link]
        with open(f"/proc/{manager.daemon.pid}/fd/{number}", "rb") as file:
            assert file.read(len(PATTERN)) == PATTERN
        manager.end()


@pytest.mark.parametrize("copy", [0, 1])
def test_one_header_is_enough(dead, copy):
    manager, ledger, before = dead
    ledger.flip(copy * 64 + 20)
    assert everything(manager.start().connect()) == before


def test_without_a_header_every_fd_is_kept(dead):
    manager, ledger, _ = dead
    for copy in range(2):
        ledger.flip(copy * 64 + 20)
    manager.start(is_quiet=False)
    assert "4 file descriptors that no record names are kept" in manager.daemon.stderr()
    assert manager.daemon.connect().listed("ListVMs") == []
    assert len(names_of_fds(manager.daemon)) == 4 + 1  # and the ledger


# ---- generations ----


def test_newer_generation_that_is_not_complete(dead):
    manager, ledger, before = dead
    generation = ledger.generation + 1
    manager.store.append((f"ledger-{generation}", ledger.copy(frames=2, generation=generation, complete=0)))
    assert everything(manager.start().connect()) == before
    manager.end()
    assert len(manager.store) == 3
    assert stored(manager).generation == ledger.generation


def test_newer_generation_that_is_complete(dead):
    manager, ledger, before = dead
    generation = ledger.generation + 1
    manager.store.append((f"ledger-{generation}", ledger.copy(generation=generation)))
    # What the older one says since counts for nothing.
    ledger.append(ledger.frame(record(NEWER, b"never")))
    assert everything(manager.start().connect()) == before
    assert manager.daemon.stderr() == ""
    manager.end()
    assert len(manager.store) == 3
    assert stored(manager).generation == generation


def test_generation_of_another_name(dead):
    manager, ledger, before = dead
    manager.store.append((f"ledger-{ledger.generation + 5}", ledger.copy(frames=2)))
    assert everything(manager.start().connect()) == before
    manager.end()
    assert len(manager.store) == 3


# ---- versions ----


def test_unknown_records_are_carried_along(dead):
    manager, ledger, before = dead
    first, second = b"of a newer privmemd", struct.pack("=QQ", 1, 2)
    ledger.append(ledger.frame(record(NEWER, first), record(NEWER + 1, second, version=3)))
    for turn in range(4):
        assert everything(manager.start(is_quiet=False).connect()) == before
        assert "2 records of a newer privmemd are kept for it" in manager.daemon.stderr()
        manager.end()
        now = stored(manager)
        assert [one for one in now.records() if one[0] >= NEWER] == [(NEWER, first), (NEWER + 1, second)]
        # A torn tail makes the next one begin a new generation.
        now.append(now.frame(record(VM, bytes(64)))[:-3] + b"xxx")
        assert now.generation == ledger.generation + turn


def test_ledger_that_only_a_newer_one_may_read(dead):
    manager, ledger, before = dead
    ledger.write_header(version=9, oldest_reader=9)
    store = manager.names()
    manager.start(wait=False)
    assert manager.wait_end() == 1
    assert "written by a newer privmemd that this one does not understand" in manager.daemon.stderr()
    assert manager.names() == store
    ledger.write_header()
    assert everything(manager.start().connect()) == before


def test_ledger_of_a_newer_one_that_was_never_complete(dead):
    manager, ledger, before = dead
    generation = ledger.generation + 1
    manager.store.append((f"ledger-{generation}", ledger.copy(frames=1, generation=generation, complete=0, version=9,
                                                              oldest_reader=9)))
    assert everything(manager.start().connect()) == before
    manager.end()
    assert len(manager.store) == 3


def test_upgrade_and_back(manager):
    before = furnish(manager.start().connect())
    for turn in range(3):
        manager.end()
        manager.program = "tests/inject/privmemd-newer"
        client = manager.start().connect()
        assert everything(client) == before
        client.register(f"by-newer{turn}")
        client.allocate("ram0", vm=f"by-newer{turn}")
        client.call("SetSlot", vm=f"by-newer{turn}", slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=HVA))
        before = everything(client)
        manager.end()
        ledger = stored(manager)
        # A long body, whether it was written as a change or into a new generation.
        assert len(max(body for kind, body in ledger.records() if kind == VM and b"by-newer" in body)) > 64 + 24
        ledger.append(ledger.frame(record(VM, bytes(64)))[:-3] + b"xxx")
        manager.program = "daemon/privmemd"
        client = manager.start().connect()
        assert everything(client) == before
        assert stored(manager).generation == ledger.generation + 1
    assert manager.daemon.stderr() == ""
