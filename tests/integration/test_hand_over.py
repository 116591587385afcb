# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM that goes from one living VMM to another: HandOverVM, the successor's AttachVM, and the exit of either."""

import mmap
import os
import signal
import subprocess

import pytest

import memory
import user
from broker import binary, wait_until
from contract import golden
from memory import MIB, PAGE, slot
from wire import Client, Refusal

ME = os.geteuid()
HVA = 0x7E0000000000
NEW_HVA = 0x7D0000000000


def run_vmm(path, hva=HVA, **options):
    """The first VMM: registers, attaches itself, allocates, maps, declares and writes."""
    client = Client(path, golden())
    client.register("web1", **options)
    client.call("AttachVM", vm="web1")
    mapped = mmap.mmap(client.allocate(vm="web1").fd, MIB)
    mapped[:5] = b"guest"
    client.call("SetSlot", vm="web1", slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=hva))
    run_vmm.kept = client, mapped
    return os.getpid()


def the_vm(client):
    return client.call("ListVMs", vm="web1")["vms"][0]


def pids(client):
    vm = the_vm(client)
    return [vm.get(field) for field in ("pid", "successorPID", "outgoingPID")]


def with_process(client, method, process):
    return client.call(method, vm="web1", pidFileDescriptor=0, fds=[process.pidfd])["vm"]


def fails_with_process(client, error, method, process):
    return client.fails(error, method, vm="web1", pidFileDescriptor=0, fds=[process.pidfd])


def hand_over(client, new):
    with_process(client, "HandOverVM", new)
    return with_process(client, "AttachVM", new)


def declare_again(client, **fields):
    """As the new VMM does: the same memory, where it maps it."""
    return client.call("SetSlot", vm="web1", slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=NEW_HVA, **fields))


@pytest.fixture
def old(daemon, process):
    return process(ME, run_vmm, daemon.path)


@pytest.fixture
def new(process):
    return process(ME, os.getpid)


@pytest.fixture
def events(daemon, old):
    stream = daemon.connect().stream("Subscribe")
    next(stream)
    return (message["event"] for message in stream)


# ---- both ways ----


def test_naming_a_successor(client, old, new, events):
    vm = with_process(client, "HandOverVM", new)
    assert (vm["pid"], vm["successorPID"], vm.get("outgoingPID")) == (old.result, new.result, None)
    told = next(events)
    assert (told["kind"], told["pid"]) == ("successor_named", new.result)


def test_handing_over(client, old, new, events):
    vm = hand_over(client, new)
    assert (vm["state"], vm["pid"], vm["outgoingPID"], vm.get("successorPID"), vm["slots"]) == (
        "attached", new.result, old.result, None, 0)
    listed = client.call("ListSlots", vm="web1")["slots"]
    assert [(one["outgoing"], one["slot"]["slotId"]) for one in listed] == [(True, 0)]
    verdict = declare_again(client)["verdict"]
    assert (verdict["outcome"], verdict["rule"]) == ("allowed", "hand_over")
    assert (verdict["conflicts"][0]["vm"], verdict["conflicts"][0]["outgoing"]) == ("web1", True)
    assert "the outgoing VMM of VM web1" in verdict["reason"]
    assert client.backing()["slots"] == 2
    old.kill()
    wait_until(lambda: pids(client) == [new.result, None, None])
    (left,) = client.call("ListSlots", vm="web1")["slots"]
    assert (left.get("outgoing"), left["slot"]["userspaceAddr"]) == (None, NEW_HVA)
    assert the_vm(client)["state"] == "attached"
    assert [(event["kind"], event.get("pid")) for event in (next(events) for _ in range(5))] == [
        ("successor_named", new.result), ("vm_attached", new.result), ("slot_set", None), ("alias_reported", None),
        ("vmm_exited", old.result)]
    assert memory.read(client.call("OpenBacking", vm="web1", backing="ram0").fd, 5) == b"guest"


def test_new_vmm_exits_first(client, old, new, events):
    hand_over(client, new)
    declare_again(client)
    new.kill()
    wait_until(lambda: pids(client) == [old.result, None, None])
    (left,) = client.call("ListSlots", vm="web1")["slots"]
    assert (left.get("outgoing"), left["slot"]["userspaceAddr"]) == (None, HVA)
    assert [(event["kind"], event.get("pid")) for event in (next(events) for _ in range(6))][-2:] == [
        ("vmm_exited", new.result), ("vm_attached", old.result)]
    old.kill()
    wait_until(lambda: client.call("ListVMs") == {"vms": []})


def test_exit_policy_holds_for_the_new_vmm(client, old, new):
    hand_over(client, new)
    old.kill()
    wait_until(lambda: pids(client) == [new.result, None, None])
    new.kill()
    wait_until(lambda: client.call("ListVMs") == {"vms": []})


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_exit(daemon, client, process, new, order):
    old = process(ME, lambda path: run_vmm(path, exitPolicy="retain"), daemon.path)
    hand_over(client, new)
    declare_again(client)
    for i in order:
        os.kill((old, new)[i].pid, signal.SIGKILL)
    wait_until(lambda: the_vm(client)["state"] == "retained")
    assert pids(client) == [None, None, None]
    assert client.call("ListSlots") == {"slots": []}
    assert client.call("GetHost")["slots"] == 0
    client.call("UnregisterVM", vm="web1")


def test_one_after_the_other(client, old, process):
    last = old
    for _ in range(3):
        new = process(ME, os.getpid)
        hand_over(client, new)
        declare_again(client)
        last.kill()
        wait_until(lambda: pids(client) == [new.result, None, None])
        last = new
    assert the_vm(client)["slots"] == 1


def test_taking_back_and_trying_again(client, old, process):
    for _ in range(3):
        new = process(ME, os.getpid)
        hand_over(client, new)
        new.kill()
        wait_until(lambda: pids(client) == [old.result, None, None])
    assert the_vm(client)["slots"] == 1


def test_backings_are_not_affected(client, old, new):
    hand_over(client, new)
    assert memory.read(client.call("OpenBacking", vm="web1", backing="ram0").fd, 5) == b"guest"
    client.allocate("ram1")
    client.call("PunchBacking", vm="web1", backing="ram0", offset=0, size=PAGE)
    assert client.call("ReleaseBacking", vm="web1", backing="ram1") == {"freedBytes": 0}
    # The former VMM maps it and has a slot of it.
    error = client.fails("BackingInUse", "ReleaseBacking", vm="web1", backing="ram0")
    assert error["slots"] == 1


# ---- whose slots ----


def delete_when_told(path, reading, writing):
    """A VMM that deletes its slot 0 once it is told to, which is after it has handed over."""
    os.close(reading)
    pid = run_vmm(path)
    client, _ = run_vmm.kept
    signal.signal(signal.SIGUSR1, lambda *_: os.write(writing, declare_and_tell(client)))
    return pid


def declare_and_tell(client):
    try:
        client.call("SetSlot", vm="web1", slot=slot(0, 0, 0))
        client.call("SetMemoryAttributes", vm="web1", guestPhysAddr=0, memorySize=PAGE, private=True)
        return b"done"
    except Refusal as refusal:
        return refusal.error.encode()


def test_the_former_vmm_declares_its_own_slots(daemon, client, process, new):
    reading, writing = os.pipe()
    old = process(ME, delete_when_told, daemon.path, reading, writing)
    hand_over(client, new)
    declare_again(client)
    os.kill(old.pid, signal.SIGUSR1)
    assert os.read(reading, 100) == b"done"
    (left,) = client.call("ListSlots", vm="web1")["slots"]
    assert (left.get("outgoing"), left["slot"]["userspaceAddr"]) == (None, NEW_HVA)
    assert client.listed("ListMemory", vm="web1")[0]["private"] is False
    # It still maps the memory.
    client.call("SetSlot", vm="web1", slot=slot(0, 0, 0))
    error = client.fails("BackingInUse", "ReleaseBacking", vm="web1", backing="ram0")
    assert (error["slots"], error["pid"]) == (0, old.result)
    new.kill()
    wait_until(lambda: pids(client) == [old.result, None, None])
    assert client.call("ListSlots", vm="web1") == {"slots": []}
    os.close(reading)
    os.close(writing)


def test_lists_of_many_slots(daemon, client, old, new):
    """Those of the outgoing VMM come last, over several messages."""
    client.allocate("ram1", 512 * PAGE)
    client.call("SetSlots", vm="web1", slots=[
        slot(i, MIB + i * PAGE, PAGE, backing="ram1", backingOffset=i * PAGE, userspaceAddr=NEW_HVA + i * PAGE)
        for i in range(1, 200)])
    hand_over(client, new)
    client.call("SetSlots", vm="web1", slots=[
        slot(i, MIB + i * PAGE, PAGE, backing="ram1", backingOffset=i * PAGE, userspaceAddr=HVA + i * PAGE)
        for i in range(1, 200)])
    wanted = [(None, i) for i in range(1, 200)] + [(True, i) for i in range(200)]
    assert [(one.get("outgoing"), one["slot"]["slotId"]) for one in client.listed("ListSlots", vm="web1")] == wanted
    in_range = client.listed("ListSlots", vm="web1", guestPhysAddr=MIB + 5 * PAGE, memorySize=2 * PAGE)
    assert [(one.get("outgoing"), one["slot"]["slotId"]) for one in in_range] == [
        (None, 5), (None, 6), (True, 5), (True, 6)]
    assert client.call("GetHost")["slots"] == len(wanted)


def test_another_vm_is_told_of_the_outgoing_one(client, old, new):
    hand_over(client, new)
    client.register("web2")
    error = client.fails("SlotRefused", "SetSlot", vm="web2",
                         slot=slot(0, 0, PAGE, backing="ram0", backingVM="web1", userspaceAddr=HVA))
    assert [(c["vm"], c["outgoing"], c["rule"]) for c in error["verdict"]["conflicts"]] == [
        ("web1", True, "undeclared_alias")]


# ---- guest_memfd ----


def run_guest_memfd_vmm(path):
    run_vmm(path)
    fd, vm = memory.guest_memfd()
    client, _ = run_vmm.kept
    client.adopt(fd, "private0")
    client.call("SetSlot", vm="web1", slot=slot(1, MIB, MIB, flags=["guest_memfd"], guestMemfd="private0",
                                                userspaceAddr=HVA + MIB))
    run_guest_memfd_vmm.kept = fd, vm
    return os.getpid()


def test_guest_memfd_is_not_handed_over(daemon, client, process, new):
    try:
        for fd in memory.guest_memfd():
            os.close(fd)
    except OSError as error:
        pytest.skip(f"KVM has no guest_memfd here: {error}")
    old = process(ME, run_guest_memfd_vmm, daemon.path)
    hand_over(client, new)
    error = client.fails("SlotRefused", "SetSlot", vm="web1",
                         slot=slot(1, MIB, MIB, flags=["guest_memfd"], guestMemfd="private0", userspaceAddr=NEW_HVA))
    assert (error["verdict"]["rule"], error["verdict"]["kernelErrno"]) == ("foreign_guest_memfd", 22)
    fd, vm = memory.guest_memfd()
    client.adopt(fd, "private1")
    client.call("SetSlot", vm="web1", slot=slot(1, MIB, MIB, flags=["guest_memfd"], guestMemfd="private1",
                                                userspaceAddr=NEW_HVA))
    old.kill()
    wait_until(lambda: pids(client) == [new.result, None, None])
    assert [one["name"] for one in client.listed("ListBackings", vm="web1")] == ["private1", "ram0"]
    os.close(fd)
    os.close(vm)


def test_guest_memfd_of_a_new_vmm_that_failed(daemon, client, process, old, new):
    try:
        fd, vm = memory.guest_memfd()
    except OSError as error:
        pytest.skip(f"KVM has no guest_memfd here: {error}")
    hand_over(client, new)
    client.adopt(fd, "private1")
    new.kill()
    wait_until(lambda: pids(client) == [old.result, None, None])
    assert [one["name"] for one in client.listed("ListBackings", vm="web1")] == ["ram0"]
    os.close(fd)
    os.close(vm)


# ---- what is refused ----


def test_third_process_during_a_hand_over(client, old, new, process):
    with_process(client, "HandOverVM", new)
    third = process(ME, os.getpid)
    assert fails_with_process(client, "VMInUse", "AttachVM", third)["pid"] == old.result
    with_process(client, "AttachVM", new)
    assert fails_with_process(client, "VMInUse", "AttachVM", third)["pid"] == new.result
    assert fails_with_process(client, "VMInUse", "AttachVM", old)["pid"] == new.result
    assert pids(client) == [new.result, None, old.result]


def test_two_hand_overs_at_once(client, old, new, process):
    third = process(ME, os.getpid)
    hand_over(client, new)
    error = fails_with_process(client, "VMInUse", "HandOverVM", third)
    assert error["pid"] == old.result
    assert "has not exited yet" in error["message"]
    client.fails("VMInUse", "HandOverVM", vm="web1")
    old.kill()
    wait_until(lambda: pids(client) == [new.result, None, None])
    with_process(client, "HandOverVM", third)


def test_the_last_name_counts(client, old, new, process, events):
    third = process(ME, os.getpid)
    with_process(client, "HandOverVM", new)
    with_process(client, "HandOverVM", new)
    with_process(client, "HandOverVM", third)
    fails_with_process(client, "VMInUse", "AttachVM", new)
    with_process(client, "AttachVM", third)
    assert [next(events).get("pid") for _ in range(3)] == [new.result, third.result, third.result]


def test_taking_the_name_back(client, old, new, events):
    with_process(client, "HandOverVM", new)
    assert client.call("HandOverVM", vm="web1")["vm"].get("successorPID") is None
    client.call("HandOverVM", vm="web1")
    fails_with_process(client, "VMInUse", "AttachVM", new)
    assert [(event["kind"], event.get("pid")) for event in (next(events), next(events))] == [
        ("successor_named", new.result), ("successor_named", None)]


def test_successor_that_has_exited(client, old, new):
    new.kill()
    error = fails_with_process(client, "HostFailure", "HandOverVM", new)
    assert error["errnoName"] == "ESRCH"


def test_successor_that_exits(client, old, new, process, events):
    with_process(client, "HandOverVM", new)
    new.kill()
    wait_until(lambda: pids(client) == [old.result, None, None])
    next(events)
    told = next(events)
    assert (told["kind"], told.get("pid")) == ("successor_named", None)
    fails_with_process(client, "VMInUse", "AttachVM", process(ME, os.getpid))


def test_hand_over_to_itself(client, old):
    assert "own successor" in fails_with_process(client, "NotSupported", "HandOverVM", old)["message"]


def test_vm_without_a_vmm(daemon, client, process, new):
    client.register("web1", exitPolicy="retain")
    fails_with_process(client, "NotSupported", "HandOverVM", new)
    first = process(ME, os.getpid)
    with_process(client, "AttachVM", first)
    first.kill()
    wait_until(lambda: the_vm(client)["state"] == "retained")
    fails_with_process(client, "NotSupported", "HandOverVM", new)
    client.fails("NotSupported", "HandOverVM", vm="web1")
    client.fails("NoSuchVM", "HandOverVM", vm="web2")


def test_no_pidfd(client, old, donation):
    assert "pidfd" in client.fails("NotSupported", "HandOverVM", vm="web1", pidFileDescriptor=0,
                                   fds=[donation()])["feature"]
    client.fails("WrongFds", "HandOverVM", vm="web1", pidFileDescriptor=0)
    client.fails("WrongFds", "HandOverVM", vm="web1", fds=[old.pidfd])


@pytest.mark.root
def test_another_users_vm(daemon, alice, bob, process):
    old = process(user.ALICE, run_vmm, daemon.path)
    bobs = process(user.BOB, os.getpid)
    assert fails_with_process(bob, "NotPermitted", "HandOverVM", bobs)["peerUID"] == user.BOB
    assert fails_with_process(alice, "NotPermitted", "HandOverVM", bobs)["peerUID"] == user.ALICE
    with_process(alice, "HandOverVM", process(user.ALICE, os.getpid))
    assert the_vm(alice)["pid"] == old.result


@pytest.mark.root
def test_root_names_any_process(client, daemon, process):
    process(user.ALICE, run_vmm, daemon.path)
    hand_over(client, process(user.BOB, os.getpid))


def test_unregister_during_a_hand_over(client, old, new):
    hand_over(client, new)
    assert client.fails("VMInUse", "UnregisterVM", vm="web1")["pid"] == new.result


def test_end_of_privmemd_during_a_hand_over(daemon, client, old, new):
    hand_over(client, new)
    declare_again(client)
    assert daemon.stop() == 0


def test_one_process_runs_two_vms(daemon, client, old, new):
    """The process that hands one of them over keeps its address space for the other."""
    client.register("web2")
    client.call("AttachVM", vm="web2", pidFileDescriptor=0, fds=[old.pidfd])
    window = slot(1, 16 * MIB, PAGE, userspaceAddr=HVA + 64 * MIB)
    client.call("SetSlot", vm="web1", slot=window)
    hand_over(client, new)
    error = client.fails("SlotRefused", "SetSlot", vm="web2", slot=window)
    assert error["verdict"]["conflicts"][0]["outgoing"] is True
    client.register("web3")
    client.call("AttachVM", vm="web3", pidFileDescriptor=0, fds=[old.pidfd])
    client.fails("SlotRefused", "SetSlot", vm="web3", slot=window)


# ---- privmemctl ----


def privmemctl(daemon, *arguments, status=0):
    done = subprocess.run([binary("client/privmemctl"), f"--socket={daemon.path}", *arguments], timeout=20,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == status, done.stdout
    return done.stdout


def test_privmemctl_names_and_attaches(daemon, client, old, new):
    assert privmemctl(daemon, "handover", "web1", str(new.pid)) == f"Process {new.pid} may take over VM web1.\n"
    assert f"Successor     {new.pid}" in privmemctl(daemon, "show", "web1")
    assert privmemctl(daemon, "handover", "web1", "--take-back") == "Nobody may take over VM web1.\n"
    assert "VMInUse" in privmemctl(daemon, "--json", "attach", "web1", str(new.pid), status=1)
    privmemctl(daemon, "handover", "web1", str(new.pid))
    assert privmemctl(daemon, "attach", "web1", str(new.pid)) == f"Process {new.pid} is the VMM of VM web1.\n"
    assert f"Outgoing VMM  {old.pid}" in privmemctl(daemon, "show", "web1")
    assert "web1 (outgoing)" in privmemctl(daemon, "slots", "web1")


def test_privmemctl_refuses_nonsense(daemon, old):
    privmemctl(daemon, "handover", "web1", status=2)
    privmemctl(daemon, "handover", "web1", "1", "--take-back", status=2)
    privmemctl(daemon, "handover", "web1", "x", status=2)
    assert "no process" in privmemctl(daemon, "handover", "web1", "2147483647", status=1)
    privmemctl(daemon, "run", "web1", "--take-over", "--retain=5", "--", "true", status=2)


def start_run(daemon, *command, backings=("--backing=ram0=1M",)):
    return subprocess.Popen([binary("client/privmemctl"), f"--socket={daemon.path}", "run", "web1", "--take-over",
                             *backings, "--", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def test_run_takes_over(daemon, client, old):
    with start_run(daemon, "sh", "-c", "head -c 5 {ram0}; echo; exec sleep 60") as new:
        try:
            assert new.stdout.readline() == "guest\n"
            assert pids(client) == [new.pid, None, old.result]
            old.kill()
            wait_until(lambda: pids(client) == [new.pid, None, None])
        finally:
            new.kill()
    wait_until(lambda: client.call("ListVMs") == {"vms": []})


def test_run_that_fails_gives_the_vm_back(daemon, client, old):
    with start_run(daemon, "false", backings=()) as new:
        assert new.wait(20) == 1
    wait_until(lambda: pids(client) == [old.result, None, None])
    with start_run(daemon, "true {ram0} {extra}", backings=("--backing=ram0=2M", "--backing=extra=1M")) as new:
        assert new.wait(20) == 127
    assert [one["name"] for one in client.listed("ListBackings", vm="web1")] == ["ram0"]
    with start_run(daemon, "true", "{extra}", "{ram0}", backings=("--backing=extra=1M", "--backing=ram0=2M")) as new:
        assert new.wait(20) == 1
    assert [one["name"] for one in client.listed("ListBackings", vm="web1")] == ["ram0"]
    assert pids(client) == [old.result, None, None]
