# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmemd dies, and the next one has all that was acknowledged: with a file descriptor store, and without one."""

import mmap
import os
import signal

import pytest

import memory
from broker import Daemon, binary, wait_until
from contract import golden
from memory import MIB, PAGE, slot
from service_manager import ServiceManager
from wire import Client

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

ME = os.geteuid()
HVA = 0x7E0000000000
PATTERN = b"guest memory" * 100


@pytest.fixture
def manager(directory, contract):
    manager = ServiceManager(directory, contract)
    yield manager
    manager.close()


def everything(client):
    """All that a client can see, but for what a restart may change."""
    seen = []
    for vm in client.vms():
        name = vm["name"]
        seen.append(vm)
        seen += client.listed("ListBackings", vm=name)
        seen += client.listed("ListSlots", vm=name)
        seen += client.listed("ListMemory", vm=name)
    return seen


def hold(path, vm):
    """A VMM that has registered, attached itself and mapped its memory."""
    client = Client(path, golden())
    client.register(vm, exitPolicy="retain")
    client.call("AttachVM", vm=vm)
    mapped = mmap.mmap(client.allocate(vm=vm, name="ram0", size=4 * MIB).fd, 4 * MIB)
    mapped[:len(PATTERN)] = PATTERN
    hva = memory.address_of(mapped)
    client.call("SetSlot", vm=vm, slot=slot(0, 0, 2 * MIB, backing="ram0", userspaceAddr=hva))
    client.call("SetSlot", vm=vm, slot=slot(1, 1 << 32, 2 * MIB, userspaceAddr=hva + 2 * MIB))
    client.close()
    hold.kept = mapped
    return os.getpid()


def furnish(client):
    """Something of each kind."""
    client.register("web1", uuid="5d5e8b6a-0f7c-4d3c-9d2b-6a1f5e8f0c11", aliasPolicy="observe")
    client.register("web2", exitPolicy="retain", type="sw_protected")
    client.allocate("ram0")
    client.allocate("ram1", size=3 * PAGE)
    client.allocate("ram0", vm="web2", size=8 * MIB)
    client.call("ShareBacking", vm="web2", backing="ram0", peer="web1", access="read_only")
    client.call("SetSlot", vm="web1", slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=HVA))
    client.call("SetSlot", vm="web1", slot=slot(3, 4 * MIB, 3 * PAGE, backing="ram1", userspaceAddr=HVA + 2 * MIB,
                                                flags=["log_dirty_pages"]))
    client.call("SetSlot", vm="web1", slot=slot(7, 16 * MIB, 2 * MIB, backing="ram0", backingVM="web2",
                                                backingOffset=2 * MIB, userspaceAddr=HVA + 8 * MIB,
                                                flags=["readonly"]))
    client.call("SetMemoryAttributes", vm="web2", guestPhysAddr=MIB, memorySize=2 * MIB, private=True)
    client.call("SetMemoryAttributes", vm="web2", guestPhysAddr=MIB + PAGE, memorySize=PAGE, private=False)
    fd = memory.memfd(5 * MIB)
    memory.write(fd, PATTERN)
    client.adopt(fd, "given", vm="web2")
    os.close(fd)


def test_all_is_there_after_a_kill(manager, process):
    client = manager.start().connect()
    furnish(client)
    memory.write(client.call("OpenBacking", vm="web2", backing="ram0").fd, PATTERN, 7 * MIB)
    process(ME, hold, manager.path, "web3")
    before = everything(client)
    host = client.call("GetHost")
    client = manager.restart().connect()
    assert everything(client) == before
    after = client.call("GetHost")
    assert {key: after[key] for key in ("vms", "backings", "slots", "promisedBytes")} == \
        {key: host[key] for key in ("vms", "backings", "slots", "promisedBytes")}
    assert memory.read(client.call("OpenBacking", vm="web2", backing="ram0").fd, len(PATTERN), 7 * MIB) == PATTERN
    assert memory.read(client.call("OpenBacking", vm="web2", backing="given").fd, len(PATTERN)) == PATTERN
    assert memory.read(client.call("OpenBacking", vm="web3", backing="ram0").fd, len(PATTERN)) == PATTERN
    assert manager.daemon.stderr() == ""


def test_what_is_restored_is_judged_by(manager):
    client = manager.start().connect()
    furnish(client)
    client = manager.restart().connect()
    refused = client.fails("SlotRefused", "SetSlot", vm="web2",
                           slot=slot(1, 0, 2 * MIB, backing="given", backingOffset=8 * MIB, userspaceAddr=HVA))
    assert refused["verdict"]["rule"] == "beyond_backing"
    allowed = client.call("SetSlot", vm="web2",
                          slot=slot(1, 0, 2 * MIB, backing="ram0", backingOffset=2 * MIB, userspaceAddr=HVA))
    (conflict,) = allowed["verdict"]["conflicts"]
    assert (conflict["rule"], conflict["vm"], conflict["slotId"]) == ("declared_share", "web1", 7)


def test_changes_after_a_restart_are_kept_too(manager):
    client = manager.start().connect()
    furnish(client)
    client = manager.restart().connect()
    client.call("SetSlot", vm="web1", slot=slot(7, 16 * MIB, 0))
    client.call("ReclaimBacking", vm="web2", backing="ram0", peer="web1")
    client.call("ReleaseBacking", vm="web2", backing="ram0")
    client.allocate("ram2", vm="web2", size=2 * MIB)
    client.register("web9")
    before = everything(client)
    client = manager.restart().connect()
    assert everything(client) == before
    assert [one["name"] for one in client.listed("ListBackings", vm="web2")] == ["given", "ram2"]


def test_a_vmm_that_exits_meanwhile_is_missed(manager, process):
    client = manager.start().connect()
    vmm = process(ME, hold, manager.path, "web3")
    manager.end()
    vmm.end()
    client = manager.start().connect()
    (vm,) = wait_until(lambda: [vm for vm in client.listed("ListVMs") if vm["state"] == "retained"])
    assert (vm["name"], vm["backings"], vm["slots"]) == ("web3", 1, 0)
    assert memory.read(client.call("OpenBacking", vm="web3", backing="ram0").fd, len(PATTERN)) == PATTERN


def test_a_vmm_that_goes_on_is_watched(manager, process):
    client = manager.start().connect()
    vmm = process(ME, hold, manager.path, "web3")
    client = manager.restart().connect()
    (vm,) = client.listed("ListVMs")
    assert (vm["state"], vm["pid"], vm["slots"]) == ("attached", vmm.result, 2)
    vmm.end()
    wait_until(lambda: client.listed("ListVMs")[0]["state"] == "retained")


def test_released_memory_stays_released(manager):
    client = manager.start().connect()
    client.register("web1")
    for i in range(20):
        memory.fill(client.allocate(f"ram{i}", size=MIB).fd)
    for i in range(20):
        client.call("ReleaseBacking", vm="web1", backing=f"ram{i}")
    client = manager.restart().connect()
    assert client.call("GetHost")["backings"] == 0
    assert len(manager.store) == 3


def test_clients_wait_for_the_restart(manager):
    manager.start().connect().register("web1")
    manager.end()
    with Client(manager.path, golden()) as waiting:
        waiting.send("ListVMs", {}, more=True)
        manager.start(wait=False)
        reply, _ = waiting.receive_reply("ListVMs")
    assert [vm["name"] for vm in reply["vms"]] == ["web1"]


def test_stop_and_start_keeps_all(manager):
    client = manager.start().connect()
    furnish(client)
    before = everything(client)
    assert manager.end(signal.SIGTERM) == 0
    assert everything(manager.start().connect()) == before


def test_many_restarts_leave_nothing_behind(manager):
    client = manager.start().connect()
    furnish(client)
    before = everything(client)
    for _ in range(10):
        client = manager.restart().connect()
        assert everything(client) == before
        assert len(manager.store) == 3
    assert manager.daemon.stderr() == ""


def test_a_store_that_is_too_small_is_none(directory, contract):
    manager = ServiceManager(directory, contract, capacity=2)
    try:
        manager.start(is_quiet=False).connect().register("web1")
        assert manager.store == []
        assert manager.restart(is_quiet=False).connect().listed("ListVMs") == []
    finally:
        manager.close()


def test_a_store_that_becomes_too_small_is_refused(manager):
    manager.start().connect().register("web1")
    manager.end()
    manager.capacity = 4
    manager.start(wait=False, is_quiet=False)
    assert manager.wait_end() == 1
    assert "FileDescriptorStoreMax= is too low to go on with what is kept" in manager.daemon.stderr()
    manager.capacity = 8
    assert [vm["name"] for vm in manager.start().connect().listed("ListVMs")] == ["web1"]


# ---- without a service manager ----


@pytest.fixture
def ledger(directory):
    path = directory / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def run(directory, contract, ledger):
    started = []

    def start(**options):
        for daemon in started:
            daemon.stop(signal.SIGKILL)
        started.append(Daemon(directory, contract, command=[
            binary(), f"--socket={directory / 'socket'}", f"--ledger={ledger}"], **options))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


def test_file_takes_memory_back_from_living_vmms(run, process):
    client = run().connect()
    vmm = process(ME, hold, client.socket.getpeername(), "web3")
    before = everything(client)
    daemon = run()
    client = daemon.connect()
    assert everything(client) == before
    assert memory.read(client.call("OpenBacking", vm="web3", backing="ram0").fd, len(PATTERN)) == PATTERN
    assert daemon.stderr() == ""
    vmm.end()
    wait_until(lambda: client.listed("ListVMs")[0]["state"] == "retained")


def test_file_reports_what_is_gone_once(run):
    client = run().connect()
    client.register("web1")
    client.allocate("ram0")
    client.call("SetSlot", vm="web1", slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=HVA))
    daemon = run(is_quiet=False)
    assert "backing ram0 of VM web1, 1048576 bytes, is lost" in daemon.stderr()
    (vm,) = daemon.connect().listed("ListVMs")
    assert (vm["name"], vm["backings"], vm["slots"]) == ("web1", 0, 0)
    daemon = run()
    assert daemon.stderr() == ""
    assert [vm["name"] for vm in daemon.connect().listed("ListVMs")] == ["web1"]


def test_file_is_locked(run, directory, contract, ledger):
    run()
    second = Daemon(directory, contract, path=directory / "second", wait=False, is_quiet=False, command=[
        binary(), f"--socket={directory / 'second'}", f"--ledger={ledger}"])
    assert second.process.wait(20) == 1
    assert "another privmemd uses the ledger" in second.stderr()
