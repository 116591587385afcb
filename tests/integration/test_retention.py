# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of a retained VM: for how long it stays, how it ends, and which of its backings stay with it."""

import mmap
import os
import re
import subprocess
import time

import pytest

import memory
from broker import binary, wait_until
from contract import golden
from memory import MIB, slot
from wire import Client

ME = os.geteuid()
HVA = 0x7E0000000000
SOON = 300_000  # microseconds
NEVER = 3600 * 1_000_000
CENTURY = 36525 * 24 * 3600 * 1_000_000


def run_vmm(path, vm="web1", **options):
    """Registers, attaches itself, allocates, maps and declares."""
    client = Client(path, golden())
    client.register(vm, **options)
    client.call("AttachVM", vm=vm)
    mapped = mmap.mmap(client.allocate(vm=vm).fd, MIB)
    mapped[:4] = b"kept"
    client.call("SetSlot", vm=vm, slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=HVA))
    run_vmm.kept = client, mapped
    return os.getpid()


def run_guest_memfd_vmm(path, flags, **options):
    """The same with a guest_memfd beside it."""
    run_vmm(path, **options)
    fd, vm = memory.guest_memfd(flags=flags)
    client, _ = run_vmm.kept
    client.adopt(fd, "private0")
    client.call("SetSlot", vm="web1", slot=slot(1, MIB, MIB, flags=["guest_memfd"], guestMemfd="private0",
                                                userspaceAddr=HVA + MIB))
    if flags:
        memory.write(fd, b"private")
    run_guest_memfd_vmm.kept = fd, vm
    return os.getpid()


def the_vm(client, vm="web1"):
    return client.call("ListVMs", vm=vm)["vms"][0]


def wait_for_state(client, state):
    wait_until(lambda: the_vm(client)["state"] == state, what=f"the state {state}")


def wait_for_end(client):
    wait_until(lambda: client.call("ListVMs") == {"vms": []}, what="that the VM ends")


def attach(client, process):
    return client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[process.pidfd])["vm"]


@pytest.fixture
def events(daemon):
    """The events from here on."""
    stream = daemon.connect().stream("Subscribe")
    assert next(stream)["event"]["kind"] == "subscribed"
    return (message["event"] for message in stream)


def until(events, kind):
    """The events up to the next one of that kind."""
    found = []
    while not found or found[-1]["kind"] != kind:
        found.append(next(events))
    return found


def has_guest_memfd(flags=0):
    try:
        for fd in memory.guest_memfd(flags=flags):
            os.close(fd)
    except OSError:
        return False
    return True


needs_guest_memfd = pytest.mark.skipif(not has_guest_memfd(), reason="KVM has no guest_memfd here")


# ---- for how long ----


def test_retained_without_a_limit(client):
    vm = client.register(exitPolicy="retain")
    assert vm.get("retainUSec") is None
    assert vm.get("retainedUntilUSec") is None


def test_retained_for_a_time(daemon, client, process):
    vmm = process(ME, lambda path: run_vmm(path, exitPolicy="retain", retainUSec=NEVER), daemon.path)
    assert the_vm(client)["retainUSec"] == NEVER
    assert the_vm(client).get("retainedUntilUSec") is None
    before = time.time_ns() // 1000
    vmm.kill()
    wait_for_state(client, "retained")
    assert before + NEVER - 1000 <= the_vm(client)["retainedUntilUSec"] <= time.time_ns() // 1000 + NEVER + 1000


def test_retained_vm_ends(daemon, client, process, events):
    vmm = process(ME, lambda path: run_vmm(path, exitPolicy="retain", retainUSec=SOON), daemon.path)
    held = client.call("OpenBacking", vm="web1", backing="ram0").fd
    vmm.kill()
    told = next(event for event in events if event["kind"] == "vmm_exited")
    wait_for_state(client, "retained")
    assert memory.read(held, 4) == b"kept"
    wait_for_end(client)
    assert memory.resident(held) == 0
    expired, released, unregistered = (next(events) for _ in range(3))
    assert [event["kind"] for event in (expired, released, unregistered)] == [
        "vm_expired", "backing_released", "vm_unregistered"]
    assert expired["timestampUSec"] - told["timestampUSec"] >= SOON - 1000
    assert expired.get("peer") is None
    assert (released["reason"], unregistered["reason"]) == ("expired", "expired")


def test_each_of_several_ends_in_its_time(daemon, client, process):
    vmms = [process(ME, lambda path, i=i: run_vmm(path, f"vm{i}", exitPolicy="retain", retainUSec=usec), daemon.path)
            for i, usec in enumerate([NEVER, SOON, 2 * SOON, 3 * SOON])]
    for vmm in vmms:
        vmm.kill()
    for left in [["vm0", "vm2", "vm3"], ["vm0", "vm3"], ["vm0"]]:
        wait_until(lambda: [vm["name"] for vm in client.call("ListVMs")["vms"]] == left, what=f"that {left} are left")


def test_attaching_ends_the_time(daemon, client, process):
    process(ME, lambda path: run_vmm(path, exitPolicy="retain", retainUSec=SOON), daemon.path).kill()
    wait_for_state(client, "retained")
    second = process(ME, os.getpid)
    assert attach(client, second).get("retainedUntilUSec") is None
    time.sleep(2 * SOON / 1e6)
    assert the_vm(client)["state"] == "attached"
    second.kill()
    wait_for_state(client, "retained")
    assert the_vm(client)["retainedUntilUSec"] > time.time_ns() // 1000
    wait_for_end(client)


def test_unregistering_before_the_time(daemon, client, process, events):
    process(ME, lambda path: run_vmm(path, exitPolicy="retain", retainUSec=SOON), daemon.path).kill()
    wait_for_state(client, "retained")
    client.call("UnregisterVM", vm="web1")
    client.register(exitPolicy="retain", retainUSec=SOON)
    time.sleep(2 * SOON / 1e6)
    assert the_vm(client)["state"] == "registered"
    assert until(events, "vm_unregistered")[-1]["reason"] == "requested"


def test_expired_while_another_vm_shows_the_memory(daemon, client, process, events):
    vmm = process(ME, lambda path: run_vmm(path, exitPolicy="retain", retainUSec=SOON), daemon.path)
    client.register("watcher")
    client.call("ShareBacking", vm="web1", backing="ram0", peer="watcher")
    client.call("SetSlot", vm="watcher", slot=slot(0, 0, MIB, backing="ram0", backingVM="web1", userspaceAddr=HVA))
    vmm.kill()
    expired = next(event for event in events if event["kind"] == "vm_expired")
    assert (expired["vm"], expired["peer"]) == ("web1", "watcher")
    assert (the_vm(client)["state"], the_vm(client).get("retainedUntilUSec")) == ("retained", None)
    kept = client.call("OpenBacking", vm="web1", backing="ram0").fd
    assert memory.read(kept, 4) == b"kept"
    client.call("UnregisterVM", vm="watcher")
    client.call("UnregisterVM", vm="web1")


def test_release_says_why(daemon, client, process, events):
    process(ME, run_vmm, daemon.path).kill()
    wait_for_end(client)
    ended = [event for event in until(events, "vm_unregistered") if event.get("reason")]
    assert [(event["kind"], event["reason"]) for event in ended] == [
        ("backing_released", "vmm_exited"), ("vm_unregistered", "vmm_exited")]


# ---- registering ----


def test_the_time_is_compared(client):
    client.register(exitPolicy="retain", retainUSec=5)
    assert not client.call("RegisterVM", name="web1", exitPolicy="retain", retainUSec=5)["created"]
    assert not client.call("RegisterVM", name="web1")["created"]
    error = client.fails("NameConflict", "RegisterVM", name="web1", retainUSec=0)
    assert (error["field"], error["present"], error["requested"]) == ("retainUSec", "5", "0")


def test_the_wish_for_guest_memfds_is_compared(client):
    client.register(exitPolicy="retain", retainGuestMemfd=True)
    assert not client.call("RegisterVM", name="web1")["created"]
    error = client.fails("NameConflict", "RegisterVM", name="web1", retainGuestMemfd=False)
    assert (error["field"], error["present"], error["requested"]) == ("retainGuestMemfd", "true", "false")


def test_another_policy_is_told_first(client):
    client.register(exitPolicy="retain", retainUSec=5)
    error = client.fails("NameConflict", "RegisterVM", name="web1", exitPolicy="release")
    assert error["field"] == "exitPolicy"


@pytest.mark.parametrize("wish", [{"retainUSec": 1}, {"retainGuestMemfd": True}])
def test_without_the_policy_retain(client, wish):
    error = client.fails("NotSupported", "RegisterVM", name="web1", **wish)
    assert next(iter(wish)) in error["feature"]
    assert client.call("ListVMs") == {"vms": []}


def test_the_longest_time(client, daemon, process):
    process(ME, lambda path: run_vmm(path, exitPolicy="retain", retainUSec=CENTURY), daemon.path).kill()
    wait_for_state(client, "retained")
    assert the_vm(client)["retainedUntilUSec"] > CENTURY
    client.call("UnregisterVM", vm="web1")
    error = client.fails("InvalidValue", "RegisterVM", name="web1", exitPolicy="retain", retainUSec=CENTURY + 1)
    assert (error["field"], error["maximum"]) == ("retainUSec", CENTURY)


# ---- guest_memfd ----


@needs_guest_memfd
@pytest.mark.parametrize("policy", ["retain", "release"])
def test_guest_memfd_goes_with_its_vmm(daemon, client, process, events, policy):
    vmm = process(ME, lambda path: run_guest_memfd_vmm(path, 0, exitPolicy=policy), daemon.path)
    assert client.backing("private0")["bindable"] is True
    assert client.backing("ram0").get("bindable") is None
    vmm.kill()
    released = next(event for event in events if event["kind"] == "backing_released" and event["backing"] == "private0")
    if policy == "release":
        assert released["reason"] == "vmm_exited"
        return
    assert released["reason"] == "cannot_be_bound"
    assert [backing["name"] for backing in client.call("ListBackings")["backings"]] == ["ram0"]


@needs_guest_memfd
def test_kept_guest_memfd_cannot_be_bound(daemon, client, process):
    vmm = process(ME, lambda path: run_guest_memfd_vmm(path, 0, exitPolicy="retain", retainGuestMemfd=True),
                  daemon.path)
    vmm.kill()
    wait_for_state(client, "retained")
    assert the_vm(client)["retainGuestMemfd"] is True
    assert client.backing("private0")["bindable"] is False
    attach(client, process(ME, os.getpid))
    error = client.fails("SlotRefused", "SetSlot", vm="web1",
                         slot=slot(1, MIB, MIB, flags=["guest_memfd"], guestMemfd="private0", userspaceAddr=HVA))
    assert (error["verdict"]["rule"], error["verdict"]["kernelErrno"]) == ("foreign_guest_memfd", 22)
    assert "no kernel can bind it to another VM" in error["message"]
    fd = client.call("OpenBacking", vm="web1", backing="private0").fd
    error = client.fails("NotSupported", "AdoptBacking", vm="web1", name="again", fileDescriptor=0, fds=[fd])
    assert "no kernel can bind it to another VM" in error["message"]
    assert "freedBytes" in client.call("ReleaseBacking", vm="web1", backing="private0")


@pytest.mark.skipif(not has_guest_memfd(memory.GUEST_MEMFD_MMAP | memory.GUEST_MEMFD_INIT_SHARED),
                    reason="KVM has no guest_memfd here that can be mapped")
def test_kept_guest_memfd_can_be_read(daemon, client, process):
    flags = memory.GUEST_MEMFD_MMAP | memory.GUEST_MEMFD_INIT_SHARED
    process(ME, lambda path: run_guest_memfd_vmm(path, flags, exitPolicy="retain", retainGuestMemfd=True),
            daemon.path).kill()
    wait_for_state(client, "retained")
    fd = client.call("OpenBacking", vm="web1", backing="private0").fd
    assert memory.read(fd, 7) == b"private"


# ---- privmemctl ----


def privmemctl(daemon, *arguments):
    return subprocess.run([binary("client/privmemctl"), f"--socket={daemon.path}", *arguments], timeout=20,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True).stdout


def rows(text):
    """The table that show begins with."""
    return dict(re.split("  +", line, maxsplit=1) for line in text.split("\n\n")[0].strip().splitlines())


def test_show_says_how_long(daemon, client, process):
    privmemctl(daemon, "register", "web1", "--retain=90", "--retain-guest-memfd")
    told = rows(privmemctl(daemon, "show", "web1"))
    assert (told["Exit policy"], told["Retained for"]) == ("retain", "1min 30s")
    assert told["guest_memfds"] == "kept for reading"
    assert "Retained until" not in told
    process(ME, lambda path: Client(path, golden()).call("AttachVM", vm="web1") and None, daemon.path).kill()
    wait_for_state(client, "retained")
    told = rows(privmemctl(daemon, "show", "web1"))
    ends = time.mktime(time.strptime(told["Retained until"].split(".")[0], "%Y-%m-%d %H:%M:%S"))
    assert time.time() + 60 < ends < time.time() + 91


@needs_guest_memfd
def test_show_says_that_a_guest_memfd_cannot_be_bound(daemon, client, process):
    process(ME, lambda path: run_guest_memfd_vmm(path, 0, exitPolicy="retain", retainGuestMemfd=True),
            daemon.path).kill()
    wait_for_state(client, "retained")
    assert "guest_memfd (cannot be bound)" in privmemctl(daemon, "show", "web1")
