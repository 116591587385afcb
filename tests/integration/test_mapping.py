# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a VMM has mapped at userspaceAddr: real processes that say too little, or something else than they do."""

import ctypes
import mmap
import os
import pathlib
import re
import subprocess
import sys

import pytest

import memory
import user
from contract import golden
from memory import MIB, PAGE, libc, slot
from wire import Client, Refusal

ME = os.geteuid()
SHARED, PRIVATE, ANONYMOUS = mmap.MAP_SHARED, mmap.MAP_PRIVATE, mmap.MAP_ANONYMOUS
FIXED = 0x10
PR_SET_DUMPABLE = 4
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE


mapped = []


@pytest.fixture(autouse=True)
def unmap():
    """Later tests look at the mappings of this process too."""
    yield
    for address, size in mapped:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    mapped.clear()


def map_at(fd, size=MIB, offset=0, flags=SHARED, address=None):
    """The address; it stays mapped until the test ends."""
    at = libc.mmap(address, size, READ_WRITE, flags | (FIXED if address else 0), fd, offset)
    if at == memory.MAP_FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    mapped.append((at, size))
    return at


def map_guest_memfd(fd, size=MIB):
    try:
        return map_at(fd, size)
    except OSError as error:
        pytest.skip(f"a guest_memfd cannot be mapped here: {error}")


class VMM:
    """The process that runs the test is the VMM: it attaches itself."""

    def __init__(self, client, vm="web1", **parameters):
        self.client, self.vm = client, vm
        client.register(vm, **parameters)
        client.call("AttachVM", vm=vm)

    def set(self, wanted):
        return self.client.call("SetSlot", vm=self.vm, slot=wanted)["verdict"]

    def refused(self, wanted):
        error = self.client.fails("SlotRefused", "SetSlot", vm=self.vm, slot=wanted)
        assert error["verdict"]["kernelErrno"] == 0
        assert "KVM alone would accept it." in error["message"]
        return error["verdict"]

    def allocate(self, name="ram0", size=MIB):
        return self.client.allocate(name, size, vm=self.vm).fd

    def slots(self):
        return [one["slot"] for one in self.client.listed("ListSlots", vm=self.vm)]


@pytest.fixture
def vmm(client):
    return VMM(client)


def at(address, slot_id=0, gpa=0, size=MIB, **fields):
    return slot(slot_id, gpa, size, userspaceAddr=address, **fields)


OK = {"outcome": "ok", "kernelErrno": 0, "conflicts": []}

# ---- a backing that is mapped ----


def test_declared_and_mapped(vmm):
    assert vmm.set(at(map_at(vmm.allocate()), backing="ram0")) == OK


def test_mapped_and_not_declared(vmm):
    """The table has what is mapped, as if it had been declared."""
    fd = vmm.allocate()
    address = map_at(fd, MIB // 2, MIB // 4)
    assert vmm.set(at(address + PAGE, size=PAGE)) == OK
    (listed,) = vmm.slots()
    assert (listed["backing"], listed["backingOffset"]) == ("ram0", MIB // 4 + PAGE)
    assert vmm.client.backing()["slots"] == 1
    assert vmm.client.fails("BackingInUse", "ReleaseBacking", vm="web1", backing="ram0")["slots"] == 1


@pytest.mark.parametrize("first_declares", [True, False])
def test_two_mappings_of_one_backing(vmm, first_declares):
    fd = vmm.allocate()
    vmm.set(at(map_at(fd), **({"backing": "ram0"} if first_declares else {})))
    verdict = vmm.refused(at(map_at(fd), 1, 16 * MIB))
    assert verdict["rule"] == "undeclared_alias"
    (conflict,) = verdict["conflicts"]
    assert (conflict["backing"], conflict["slotId"], conflict["size"]) == ("ram0", 0, MIB)


def test_two_mappings_of_other_pages(vmm):
    fd = vmm.allocate()
    vmm.set(at(map_at(fd, MIB // 2), size=MIB // 2))
    assert vmm.set(at(map_at(fd, MIB // 2, MIB // 2), 1, 16 * MIB, MIB // 2)) == OK


def test_table_and_check_are_looked_at_too(vmm):
    fd = vmm.allocate()
    table = [at(map_at(fd)), at(map_at(fd), 1, 16 * MIB)]
    reply = vmm.client.call("CheckSlots", vm="web1", slots=table)
    assert [verdict.get("rule") for verdict in reply["verdicts"]] == [None, "undeclared_alias"]
    error = vmm.client.fails("SlotsRefused", "SetSlots", vm="web1", slots=table)
    assert error["verdicts"] == reply["verdicts"]
    assert vmm.slots() == []


def test_backing_in_two_processes(daemon, client, vmm, process):
    """The file descriptor travelled from one VMM to the other, and neither says so."""
    fd = vmm.allocate()
    vmm.set(at(map_at(fd)))

    def other():
        second = VMM(Client(daemon.path, golden()), "web2")
        other.kept = second.client
        return second.refused(at(map_at(fd), gpa=4 * MIB))
    verdict = process(ME, other).result
    assert verdict["rule"] == "undeclared_alias"
    (conflict,) = verdict["conflicts"]
    assert (conflict["vm"], conflict["backing"], conflict["backingVM"]) == ("web1", "ram0", "web1")


# ---- something else than was declared ----


def mismatch(vmm, wanted):
    verdict = vmm.refused(wanted)
    assert verdict["rule"] == "mapping_mismatch"
    assert vmm.slots() == []
    (conflict,) = verdict["conflicts"]
    assert (conflict["vm"], conflict["slotId"]) == ("web1", wanted["slotId"])
    return conflict, verdict["reason"]


def test_wrong_offset(vmm):
    address = map_at(vmm.allocate(), MIB - PAGE, PAGE)
    conflict, reason = mismatch(vmm, at(address, size=MIB - PAGE, backing="ram0"))
    assert (conflict["mapped"], conflict["backing"], conflict["backingOffset"]) == ("file", "ram0", PAGE)
    assert reason == (
        "Slot 0 of VM web1 at guest address 0x0+0xff000: what the VMM has mapped at userspaceAddr is not what was declared: at "
        f"userspaceAddr 0x{address:x} there is range 0x1000+0xff000 of ram0 of VM web1, where range 0x0+0xff000 of ram0 of VM "
        "web1 was declared. KVM alone would accept it. Map the declared range there, with MAP_SHARED, before the slot is "
        "set; or declare what is mapped.")
    vmm.set(at(address, size=MIB - PAGE, backing="ram0", backingOffset=PAGE))


def test_another_backing(vmm):
    vmm.allocate("ram1")
    conflict, _ = mismatch(vmm, at(map_at(vmm.allocate()), backing="ram1"))
    assert (conflict["mapped"], conflict["backing"]) == ("file", "ram0")


def test_private_mapping(vmm):
    """What the guest writes there would never be in the backing."""
    address = map_at(vmm.allocate(), flags=PRIVATE)
    conflict, reason = mismatch(vmm, at(address, backing="ram0"))
    assert (conflict["mapped"], conflict["backing"]) == ("copy", "ram0")
    assert "a private copy of range 0x0+0x100000 of ram0 of VM web1, so that writes do not reach the file" in reason
    assert vmm.set(at(address)) == OK


def test_memory_without_a_file(vmm):
    vmm.allocate()
    conflict, reason = mismatch(vmm, at(map_at(-1, flags=PRIVATE | ANONYMOUS), backing="ram0"))
    assert (conflict["mapped"], conflict.get("backing"), conflict.get("inode")) == ("memory", None, None)
    assert "0x100000 bytes of memory that is in no file" in reason


def test_file_that_is_no_backing(vmm, donation):
    vmm.allocate()
    fd = donation()
    conflict, reason = mismatch(vmm, at(map_at(fd), backing="ram0"))
    device, inode = memory.identity(fd)
    assert (conflict["mapped"], conflict["device"], conflict["inode"], conflict["fileOffset"]) == (
        "file", f"{os.major(device)}:{os.minor(device)}", inode, 0)
    assert f"of a file that is no backing (device {conflict['device']}, inode {inode})" in reason


def test_one_page_that_differs(vmm):
    address = map_at(vmm.allocate())
    map_at(-1, PAGE, flags=PRIVATE | ANONYMOUS, address=address + 5 * PAGE)
    conflict, _ = mismatch(vmm, at(address, 7, 16 * MIB, backing="ram0"))
    assert (conflict["guestPhysAddr"], conflict["size"]) == (16 * MIB + 5 * PAGE, PAGE)


def test_not_mapped_yet(vmm):
    """KVM takes such an address, so there is nothing to hold against the declaration."""
    address = map_at(vmm.allocate())
    libc.munmap(ctypes.c_void_p(address + MIB // 2), ctypes.c_size_t(MIB // 2))
    assert vmm.set(at(address, backing="ram0")) == OK


def test_observed_vm_is_told(client):
    vmm = VMM(client, aliasPolicy="observe")
    vmm.allocate("ram1")
    verdict = vmm.set(at(map_at(vmm.allocate()), backing="ram1"))
    assert (verdict["outcome"], verdict["rule"]) == ("refused", "mapping_mismatch")
    (listed,) = vmm.slots()
    assert listed["backing"] == "ram0"


# ---- files that are no backings ----


def test_memfd_in_two_vms(daemon, client, vmm, process, donation):
    fd = donation()
    assert vmm.set(at(map_at(fd), gpa=16 * MIB)) == OK
    assert "backing" not in vmm.slots()[0]

    def other():
        second = VMM(Client(daemon.path, golden()), "web2")
        other.kept = second.client
        return second.refused(at(map_at(fd)))
    verdict = process(ME, other).result
    assert verdict["rule"] == "undeclared_alias"
    (conflict,) = verdict["conflicts"]
    device, inode = memory.identity(fd)
    assert (conflict["vm"], conflict["device"], conflict["inode"]) == (
        "web1", f"{os.major(device)}:{os.minor(device)}", inode)
    assert re.search(r"the same memory would appear at two guest frames, and nothing allows it: range 0x0\+0x100000 of a "
                     r"file that is no backing \(device \d+:\d+, inode \d+\) that it would show at 0x0 is already at "
                     r"guest address 0x1000000 in slot 0 of VM web1\. KVM alone would accept it\. .*AdoptBacking", verdict["reason"])


def test_memfd_mapped_twice(vmm, donation):
    fd = donation()
    vmm.set(at(map_at(fd), gpa=16 * MIB))
    assert vmm.refused(at(map_at(fd), 1, 32 * MIB))["rule"] == "undeclared_alias"
    assert vmm.set(at(map_at(donation()), 1, 32 * MIB)) == OK


def test_window_of_a_file(vmm, donation):
    """A VMM may show its own device memory twice through one mapping, but not its guest's RAM."""
    window, ram = map_at(donation()), map_at(donation())
    vmm.set(at(window, 0, 16 * MIB))
    assert vmm.set(at(window, 1, 32 * MIB))["rule"] == "vmm_window"
    vmm.set(at(ram, 2, 0))
    assert vmm.refused(at(ram, 3, 64 * MIB))["rule"] == "undeclared_alias"


def test_file_in_shm(vmm):
    path = f"/dev/shm/privmemd-test-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, MIB)
        vmm.set(at(map_at(fd), gpa=16 * MIB))
        assert vmm.refused(at(map_at(fd), 1, 32 * MIB))["rule"] == "undeclared_alias"
    finally:
        os.unlink(path)
        os.close(fd)


def test_devices_are_known_by_their_address_alone(vmm):
    """One inode and one offset, and yet two memories."""
    fd = os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC)
    vmm.set(at(map_at(fd, flags=PRIVATE), 0, 16 * MIB))
    assert vmm.set(at(map_at(fd, flags=PRIVATE), 1, 32 * MIB)) == OK
    assert vmm.set(at(map_at(fd), 2, 48 * MIB)) == OK
    assert vmm.set(at(map_at(fd), 3, 64 * MIB)) == OK
    os.close(fd)


def test_memfd_that_is_adopted_later(vmm, donation):
    fd = donation()
    vmm.set(at(map_at(fd)))
    vmm.client.adopt(fd)
    assert vmm.client.backing()["slots"] == 1
    assert vmm.slots()[0]["backing"] == "ram0"


def test_slot_over_two_files(vmm, donation):
    first, second = donation(), vmm.allocate()
    address = map_at(-1, 2 * MIB, flags=PRIVATE | ANONYMOUS)
    map_at(first, address=address)
    map_at(second, address=address + MIB)
    assert vmm.set(at(address, size=2 * MIB)) == OK
    assert "backing" not in vmm.slots()[0]
    assert vmm.client.backing()["slots"] == 1
    assert vmm.refused(at(map_at(first), 1, 16 * MIB))["conflicts"][0]["guestPhysAddr"] == 0
    assert vmm.refused(at(map_at(second), 1, 16 * MIB))["conflicts"][0]["guestPhysAddr"] == MIB


def test_slot_that_shows_a_file_twice(vmm):
    fd = vmm.allocate()
    address = map_at(-1, 2 * MIB, flags=PRIVATE | ANONYMOUS)
    map_at(fd, address=address)
    map_at(fd, address=address + MIB)
    assert vmm.refused(at(address, size=2 * MIB))["rule"] == "undeclared_alias"


# ---- guest_memfd ----


@pytest.fixture
def guest_memfd():
    """One that can be mapped, and the KVM VM that it belongs to."""
    try:
        fd, vm = memory.guest_memfd(MIB, memory.GUEST_MEMFD_MMAP | memory.GUEST_MEMFD_INIT_SHARED)
    except OSError as error:
        pytest.skip(f"no guest_memfd that can be mapped here: {error}")
    yield fd
    os.close(fd)
    os.close(vm)


def bind(vmm, fd):
    """Slot 0 has all of it as its private side."""
    vmm.client.adopt(fd, "gmem0", vm=vmm.vm)
    vmm.set(at(map_at(-1, flags=PRIVATE | ANONYMOUS), flags=["guest_memfd"], guestMemfd="gmem0"))


def test_guest_memfd_mapped_for_another_slot(vmm, guest_memfd):
    bind(vmm, guest_memfd)
    verdict = vmm.refused(at(map_at(guest_memfd), 1, 16 * MIB))
    assert verdict["rule"] == "private_alias"
    assert verdict["conflicts"][0]["backing"] == "gmem0"


def test_guest_memfd_mapped_for_its_own_slot(vmm, guest_memfd):
    vmm.client.adopt(guest_memfd, "gmem0")
    assert vmm.set(at(map_at(guest_memfd), flags=["guest_memfd"], guestMemfd="gmem0")) == OK


def test_guest_memfd_mapped_for_another_vm(daemon, client, vmm, guest_memfd, process):
    bind(vmm, guest_memfd)

    def other():
        second = VMM(Client(daemon.path, golden()), "web2")
        other.kept = second.client
        return second.refused(at(map_at(guest_memfd)))
    verdict = process(ME, other).result
    assert verdict["rule"] == "private_alias"
    assert (verdict["conflicts"][0]["vm"], verdict["conflicts"][0]["backing"]) == ("web1", "gmem0")
    assert "private memory must not appear twice" in verdict["reason"]


def test_guest_memfd_that_nobody_adopted(vmm, guest_memfd):
    address = map_at(guest_memfd)
    vmm.set(at(address, 0, 16 * MIB))
    assert vmm.refused(at(address, 1, 32 * MIB))["rule"] == "private_alias"
    assert vmm.refused(at(map_at(guest_memfd), 1, 32 * MIB))["rule"] == "private_alias"


# ---- a VMM that cannot be looked at ----


@pytest.mark.root
def test_vmm_of_another_user(directory, start, process):
    """A privmemd of an ordinary user cannot read root's mappings: what is declared holds."""
    os.chown(directory, user.ALICE, user.ALICE)
    daemon = start(user=user.ALICE, group=user.ALICE, extra_groups=[])
    client = daemon.connect()
    client.register("web1", ownerUID=user.ALICE)
    fd = client.allocate().fd
    other = process(user.BOB, map_at, fd, MIB, 0, PRIVATE)
    client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[other.pidfd])
    assert client.call("SetSlot", vm="web1", slot=at(other.result, backing="ram0"))["verdict"] == OK


@pytest.mark.root
def test_vmm_of_the_same_ordinary_user(directory, start, process):
    os.chown(directory, user.ALICE, user.ALICE)
    daemon = start(user=user.ALICE, group=user.ALICE, extra_groups=[])

    def run():
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after an exec; giving up root has cleared it
        vmm = VMM(Client(daemon.path, golden()))
        run.kept = vmm.client
        return vmm.refused(at(map_at(vmm.allocate(), flags=PRIVATE), backing="ram0"))["rule"]
    assert process(user.ALICE, run).result == "mapping_mismatch"


EXECUTED = """
import mmap, sys
memory = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]))
import ctypes
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.read()
"""


def test_vmm_that_has_executed_since(daemon, client):
    """As under privmemctl run, which attaches and becomes the VMM."""
    client.register()
    fd = client.allocate().fd
    attach = f"""
import os, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from contract import golden
from wire import Client
Client({str(daemon.path)!r}, golden()).call("AttachVM", vm="web1")
os.execv(sys.executable, [sys.executable, "-c", {EXECUTED!r}, {str(fd)!r}, {str(MIB)!r}])
"""
    with subprocess.Popen([sys.executable, "-c", attach], pass_fds=[fd], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        hva = int(process.stdout.readline())
        wrong = slot(0, 0, MIB // 2, userspaceAddr=hva, backing="ram0", backingOffset=MIB // 2)
        verdict = client.fails("SlotRefused", "SetSlot", vm="web1", slot=wrong)["verdict"]
        assert verdict["rule"] == "mapping_mismatch"
        assert client.call("SetSlot", vm="web1", slot={**wrong, "backingOffset": 0})["verdict"]["outcome"] == "ok"
        process.stdin.close()


def test_vm_without_a_vmm(client):
    """Nobody to look at."""
    client.register("web1")
    client.allocate()
    address = map_at(-1, flags=PRIVATE | ANONYMOUS)
    assert client.call("SetSlot", vm="web1", slot=at(address, backing="ram0"))["verdict"] == OK


def test_look_is_of_one_moment(vmm):
    """It is no lock: what is mapped later is seen when the slot is set again."""
    address = map_at(vmm.allocate())
    wanted = at(address, backing="ram0")
    vmm.set(wanted)
    map_at(-1, flags=PRIVATE | ANONYMOUS, address=address)
    with pytest.raises(Refusal, match="mapping_mismatch"):
        vmm.set(wanted)
