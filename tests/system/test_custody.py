# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmemd has all that it keeps again after whatever systemd does to it, and so does the next privmemd."""

import contextlib
import mmap
import os
import pathlib
import shutil
import signal
import time

import pytest

import memory
from broker import wait_until
from machine import SOCKET, UNIT
from memory import HUGE_PAGE, MIB, slot
from user import ALICE, BOB
from wire import Client

RESTARTED = ("Failed with result", "Main process exited", "core-dump", "Watchdog timeout", "Killing process")
KEPT_FOR_IT = "1 records of a newer privmemd are kept for it"
STORED = "3"  # the two ends of the bag, and the ledger
SIZE = 4 * MIB


def pattern(vm, backing):
    return f"{vm}/{backing} ".encode() * 100


# ---- what is in the machine ----


def run_vmm(contract, vm, peer=None, shown=None):
    """A VMM with memory, slots and private ranges, which shares its memory with a peer or shows what is shared with it."""
    client = Client(SOCKET, contract)
    client.register(vm, exitPolicy="retain")
    client.call("AttachVM", vm=vm)
    mapped = mmap.mmap(client.allocate(vm=vm, size=SIZE).fd, SIZE)
    mapped[:len(pattern(vm, "ram0"))] = pattern(vm, "ram0")
    hva = memory.address_of(mapped)
    slots = [slot(0, 0, SIZE // 2, backing="ram0", userspaceAddr=hva),
             slot(1, 1 << 32, SIZE // 2, userspaceAddr=hva + SIZE // 2, flags=["log_dirty_pages"])]
    if peer:
        client.call("ShareBacking", vm=vm, backing="ram0", peer=peer, access="read_only")
    if shown:
        lent = client.call("OpenBacking", vm=shown, backing="ram0", access="read_only").fd
        other = memory.libc.mmap(None, SIZE, mmap.PROT_READ, mmap.MAP_SHARED, lent, 0)
        slots.append(slot(2, 1 << 33, SIZE, backing="ram0", backingVM=shown, userspaceAddr=other, flags=["readonly"]))
    client.call("SetSlots", vm=vm, slots=slots)
    client.close()
    run_vmm.kept = mapped


def furnish(service):
    """VMs of several users: two that run, one with its successor, one that is retained, and one that never ran. Returns
    the VMMs."""
    root, bob = service.connect(), service.connect(BOB)
    bob.register("web2", exitPolicy="retain")
    vmms = {"web1": service.process(ALICE, run_vmm, service.contract, "web1", "web2"),
            "web2": service.process(BOB, run_vmm, service.contract, "web2", None, "web1")}
    successor = service.process(ALICE, os.getpid)
    root.call("HandOverVM", vm="web1", pidFileDescriptor=0, fds=[successor.pidfd])
    service.process(BOB, run_vmm, service.contract, "web3").kill()
    wait_until(lambda: state(root, "web3") == "retained")
    root.register("web4", ownerUID=ALICE, type="sw_protected", aliasPolicy="observe")
    memory.write(root.allocate("ram0", SIZE, "web4").fd, pattern("web4", "ram0"))
    given = memory.memfd(SIZE)
    memory.write(given, pattern("web4", "given"))
    root.adopt(given, "given", "web4")
    os.close(given)
    root.call("SetMemoryAttributes", vm="web4", guestPhysAddr=MIB, memorySize=MIB, private=True)
    root.call("SetSlot", vm="web4", slot=slot(0, 0, SIZE, backing="given", userspaceAddr=1 << 40))
    return vmms


def state(client, vm):
    (found,) = client.call("ListVMs", vm=vm)["vms"]
    return found["state"]


def everything(service):
    """All that anybody is shown."""
    client = service.connect()
    seen = [client.call("GetHost"), *client.vms()]
    for method in ("ListBackings", "ListSlots"):
        seen += client.listed(method)
    for vm in client.vms():
        seen += client.listed("ListMemory", vm=vm["name"])
    return seen + [vm["name"] for uid in (ALICE, BOB) for vm in service.varlink("ListVMs", uid=uid)["vms"]]


def check_bytes(service):
    client = service.connect()
    for backing in client.listed("ListBackings"):
        names = backing["vm"], backing["name"]
        fd = client.call("OpenBacking", vm=names[0], backing=names[1]).fd
        assert memory.read(fd, len(pattern(*names))) == pattern(*names)


@contextlib.contextmanager
def nothing_changes(service):
    """What the block does ends the daemon; a client that then calls waits for the next one."""
    before, pid = everything(service), service.daemon_pid()
    assert service.show("NFileDescriptorStore") == STORED
    yield
    wait_until(lambda: service.daemon_pid() != pid, 20, "the end of the daemon")
    service.connect(ALICE).call("GetHost")
    assert everything(service) == before
    check_bytes(service)
    service.wait_for("SubState", "running")
    assert service.show("NFileDescriptorStore") == STORED


def check_watched(service, vmms):
    """They are attached, so everything() says; and their exit is seen."""
    client = service.connect()
    for name, vmm in vmms.items():
        vmm.kill()
        wait_until(lambda name=name: state(client, name) == "retained")
    check_bytes(service)


# ---- what systemd does ----


def kill(service):
    service.signal(signal.SIGKILL)


def restart(service):
    service.systemctl("restart", UNIT)


def stop(service):
    """The client's call starts it."""
    service.systemctl("stop", UNIT)


def reexecute(service):
    service.systemctl("daemon-reexec")
    kill(service)


def reload(service):
    service.systemctl("daemon-reload")
    service.systemctl("reload", UNIT)
    kill(service)


@pytest.mark.parametrize("event", [restart, stop, reexecute, reload])
def test_kept(service, event):
    service.expect(*RESTARTED)
    vmms = furnish(service)
    with nothing_changes(service):
        event(service)
    check_watched(service, vmms)


def test_kept_when_the_watchdog_kills(service):
    service.drop_in("[Service]\nWatchdogSec=1s\n")
    service.restart()
    service.expect(*RESTARTED)
    vmms = furnish(service)
    with nothing_changes(service):
        service.signal(signal.SIGSTOP)
    check_watched(service, vmms)


def test_kept_with_huge_pages(service, pages):
    client = service.connect(ALICE)
    client.register("web1")
    memory.write(client.allocate(size=HUGE_PAGE, kind="hugetlb").fd, pattern("web1", "ram0"))
    service.expect(*RESTARTED)
    with nothing_changes(service):
        kill(service)


def test_killed_again_and_again(service):
    """With the system calls that the unit allows, and death for all others."""
    service.drop_in("[Service]\nSystemCallErrorNumber=kill\n")
    service.restart()
    service.expect(*RESTARTED)
    vmms = furnish(service)
    for kills in range(3):
        assert service.show("NRestarts") == str(kills)
        with nothing_changes(service):
            kill(service)
    check_watched(service, vmms)


@contextlib.contextmanager
def enabled(service):
    """The machine has no multi-user.target, which is what wants the service that is enabled; here another target does."""
    service.systemctl("add-wants", "basic.target", UNIT)
    try:
        yield
    finally:
        service.systemctl("disable", UNIT)


def test_kept_without_the_socket(service):
    """systemd knows the unit, for a target wants it. A VMM that exits meanwhile is missed."""
    vmms = furnish(service)
    with enabled(service):
        service.systemctl("stop", "privmemd.socket", UNIT)
        vmms["web2"].kill()
        service.systemctl("daemon-reload")
        service.systemctl("start", UNIT)
        client = service.connect()
        wait_until(lambda: state(client, "web2") == "retained")
        assert state(client, "web1") == "attached"
        check_bytes(service)


def test_unit_that_systemd_forgets(service):
    """It forgets a unit that does not run and that nothing refers to, with all that it keeps for it."""
    furnish(service)
    service.systemctl("stop", "privmemd.socket", UNIT)
    service.wait_for("NFileDescriptorStore", "0")
    service.systemctl("start", UNIT)
    assert service.varlink("ListVMs") == {"vms": []}


# ---- another privmemd ----


@contextlib.contextmanager
def installed(service, program):
    """Another program in the place of privmemd, until the end of the block."""
    path = service.root / service.run("sh", "-c", "command -v privmemd").stdout.strip().lstrip("/")
    saved = path.with_name("privmemd.saved")
    os.rename(path, saved)
    try:
        shutil.copy(program, path)
        yield
    finally:
        os.rename(saved, path)


def in_tests(service, name):
    return service.build / "tests" / "system" / name


def ledger_file(service):
    """Where /proc has the memfd."""
    (found,) = [path for path in pathlib.Path(f"/proc/{service.daemon_pid()}/fd").iterdir()
                if os.readlink(path).startswith("/memfd:privmemd:ledger")]
    return found


def test_newer_version_and_back(service):
    """What we do not know of its ledger is carried along, and is there when it comes back."""
    vmms = furnish(service)
    with installed(service, in_tests(service, "privmemd-newer")), nothing_changes(service):
        restart(service)
    service.expect(KEPT_FOR_IT, *RESTARTED)
    for _ in range(2):
        with nothing_changes(service):
            kill(service)
        assert ledger_file(service).read_bytes().count(b"what only the newer privmemd knows") == 1
    check_watched(service, vmms)


def test_incompatible_version_and_back(service):
    """We leave its ledger alone, do not start, and say so; nothing is lost."""
    vmms = furnish(service)
    with installed(service, in_tests(service, "privmemd-incompatible")):
        with nothing_changes(service):
            restart(service)
        before = everything(service)
        service.systemctl("stop", UNIT)
    service.expect("a newer privmemd that this one does not understand", "Failed to start", KEPT_FOR_IT, *RESTARTED)
    service.systemctl("start", UNIT, check=False)
    assert "Start the newer one" in service.show("StatusText")
    assert service.show("NFileDescriptorStore") == STORED
    waiting = service.connect(ALICE)
    with installed(service, in_tests(service, "privmemd-incompatible")):
        service.wait_for("SubState", "running")
        assert waiting.call("GetHost")["vms"] == 4
        assert everything(service) == before
        check_watched(service, vmms)


# ---- the end of it ----


def test_store_that_becomes_too_small(service):
    """Nothing is begun anew beside what is kept."""
    assert service.varlink("GetHost")["custody"] == "fd_store"
    furnish(service)
    before = everything(service)
    service.drop_in("[Service]\nFileDescriptorStoreMax=4\n")
    service.expect("FileDescriptorStoreMax= is too low", "Failed to start", *RESTARTED)
    service.systemctl("restart", UNIT, check=False)
    assert "FileDescriptorStoreMax= is too low" in service.show("StatusText")
    assert service.show("NFileDescriptorStore") == STORED
    service.drop_in("")
    service.wait_for("SubState", "running")
    assert everything(service) == before
    check_bytes(service)


def test_clean_ends_all(service):
    """Nothing is left, and nothing half. A VMM goes on with its memory, and can give it back to privmemd."""
    vmms = furnish(service)
    service.systemctl("stop", UNIT)
    assert service.show("NFileDescriptorStore") == STORED
    service.systemctl("clean", "--what=fdstore", UNIT)
    assert service.show("NFileDescriptorStore") == "0"
    host = service.varlink("GetHost")
    assert [host[field] for field in ("vms", "backings", "slots", "promisedBytes")] == [0, 0, 0, 0]
    client = service.connect()
    for method in ("ListVMs", "ListBackings", "ListSlots"):
        assert client.listed(method) == []
    assert service.show("NFileDescriptorStore") == STORED

    (mapping,) = [line for line in pathlib.Path(f"/proc/{vmms['web1'].pid}/maps").read_text().splitlines()
                  if line.endswith("/memfd:privmemd:web1/ram0 (deleted)")]
    alice = service.connect(ALICE)
    alice.register("web1", exitPolicy="retain")
    fd = os.open(f"/proc/{vmms['web1'].pid}/map_files/{mapping.split()[0]}", os.O_RDWR)
    alice.adopt(fd)
    os.close(fd)
    assert memory.read(alice.call("OpenBacking", vm="web1", backing="ram0").fd, 5) == pattern("web1", "ram0")[:5]


# ---- many ----

VMS, BACKINGS = 400, 10


def test_thousands(service):
    service.expect(*RESTARTED)
    root = service.connect()
    vmm = service.process(ALICE, os.getpid)
    for i in range(VMS):
        name = f"vm{i}"
        root.register(name, ownerUID=ALICE, exitPolicy="retain")
        for j in range(BACKINGS):
            root.allocate(f"ram{j}", vm=name)
        root.call("AttachVM", vm=name, pidFileDescriptor=0, fds=[vmm.pidfd])
    root.close()
    before = service.connect().call("GetHost")
    pid = service.daemon_pid()
    began = time.monotonic()
    kill(service)
    wait_until(lambda: service.daemon_pid() != pid)
    client = service.connect()
    after = client.call("GetHost")
    print(f"{VMS * BACKINGS} backings of {VMS} VMs: {time.monotonic() - began:.3f} s from kill to answer")
    assert after == before
    assert (after["vms"], after["backings"]) == (VMS, VMS * BACKINGS)
    assert service.show("NFileDescriptorStore") == STORED
    vmm.kill()
    wait_until(lambda: {vm["state"] for vm in client.listed("ListVMs")} == {"retained"}, 20)
