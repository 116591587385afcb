# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM and the process that runs it: AttachVM, and what becomes of the memory when the process ends."""

import mmap
import os
import signal

import pytest

import memory
import user
from broker import wait_until
from contract import golden
from memory import MIB, PAGE, slot
from wire import Client

PATTERN = b"guest memory" * 100
HVA = 0x7E0000000000
ME = os.geteuid()


def run_vmm(path, vm="web1", policy="release"):
    """A VMM as libprivmem makes one: registers, attaches itself, allocates, maps, declares, and writes."""
    client = Client(path, golden())
    client.register(vm, exitPolicy=policy)
    client.call("AttachVM", vm=vm)
    mapped = mmap.mmap(client.allocate(vm=vm, size=MIB).fd, MIB)
    mapped[:len(PATTERN)] = PATTERN
    client.call("SetSlot", vm=vm, slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=HVA))
    run_vmm.kept = client, mapped  # until it is killed
    return os.getpid()


def state_of(client, vm="web1"):
    return client.call("ListVMs", vm=vm)["vms"][0]["state"]


def wait_for_state(client, state):
    wait_until(lambda: state_of(client) == state, what=f"the state {state}")


def attach(client, process, vm="web1"):
    return client.call("AttachVM", vm=vm, pidFileDescriptor=0, fds=[process.pidfd])["vm"]


# ---- attaching ----


def test_attach_self(daemon, client, process):
    vmm = process(ME, run_vmm, daemon.path)
    (vm,) = client.call("ListVMs")["vms"]
    assert (vm["state"], vm["pid"], vm["slots"], vm["backings"]) == ("attached", vmm.result, 1, 1)


def test_attach_by_pidfd(client, vm, process):
    vmm = process(ME, os.getpid)
    attached = attach(client, vmm)
    assert (attached["state"], attached["pid"]) == ("attached", vmm.result)


def test_attach_the_same_again(client, vm, process):
    vmm = process(ME, os.getpid)
    assert attach(client, vmm) == attach(client, vmm)


def test_attach_another(client, vm, process):
    vmm = process(ME, os.getpid)
    attach(client, vmm)
    error = client.fails("VMInUse", "AttachVM", vm="web1", pidFileDescriptor=0, fds=[process(ME, os.getpid).pidfd])
    assert (error["vm"], error["pid"]) == ("web1", vmm.result)


def test_one_process_runs_two_vms(client, vm, process):
    client.register("web2")
    vmm = process(ME, os.getpid)
    attach(client, vmm)
    attach(client, vmm, "web2")
    vmm.kill()
    wait_until(lambda: client.call("ListVMs") == {"vms": []})


def test_one_mapping_shown_by_two_vms_of_a_process(client, vm, process):
    client.register("web2")
    vmm = process(ME, os.getpid)
    attach(client, vmm)
    attach(client, vmm, "web2")
    window = slot(0, 0, MIB, userspaceAddr=HVA)
    client.call("SetSlot", vm="web1", slot=window)
    error = client.fails("SlotRefused", "SetSlot", vm="web2", slot=window)
    assert error["verdict"]["conflicts"][0]["vm"] == "web1"


def test_attach_what_has_exited(client, vm, process):
    vmm = process(ME, os.getpid)
    vmm.kill()
    error = client.fails("HostFailure", "AttachVM", vm="web1", pidFileDescriptor=0, fds=[vmm.pidfd])
    assert (error["errno"], error["errnoName"]) == (3, "ESRCH")
    assert state_of(client) == "registered"


def test_attach_a_zombie(client, vm, process):
    vmm = process(ME, os.getpid)
    os.kill(vmm.pid, signal.SIGKILL)
    os.waitid(os.P_PIDFD, vmm.pidfd, os.WEXITED | os.WNOWAIT)
    client.fails("HostFailure", "AttachVM", vm="web1", pidFileDescriptor=0, fds=[vmm.pidfd])


def test_attach_no_pidfd(client, vm, donation):
    error = client.fails("NotSupported", "AttachVM", vm="web1", pidFileDescriptor=0, fds=[donation()])
    assert "pidfd" in error["feature"]


@pytest.mark.parametrize("index, count", [(0, 0), (1, 1), (252, 1)])
def test_attach_the_wrong_index(client, vm, process, index, count):
    vmm = process(ME, os.getpid)
    error = client.fails("WrongFds", "AttachVM", vm="web1", pidFileDescriptor=index, fds=[vmm.pidfd] * count)
    assert error["received"] == count


def test_attach_too_many(client, vm, process):
    vmm = process(ME, os.getpid)
    error = client.fails("WrongFds", "AttachVM", vm="web1", pidFileDescriptor=0, fds=[vmm.pidfd] * 2)
    assert (error["received"], error["expected"]) == (2, 1)


@pytest.mark.root
def test_attach_another_users_process(alice, process):
    alice.register("web1")
    error = alice.fails("NotPermitted", "AttachVM", vm="web1", pidFileDescriptor=0,
                        fds=[process(user.BOB, os.getpid).pidfd])
    assert error["peerUID"] == user.ALICE
    attach(alice, process(user.ALICE, os.getpid))


@pytest.mark.root
def test_root_attaches_any_process(client, alice, process):
    alice.register("web1")
    assert attach(client, process(user.BOB, os.getpid))["state"] == "attached"


# ---- while it lives ----


def test_unregister_while_attached(client, vm, process):
    vmm = process(ME, os.getpid)
    attach(client, vmm)
    error = client.fails("VMInUse", "UnregisterVM", vm="web1")
    assert (error["vm"], error["pid"]) == ("web1", vmm.result)


def test_release_what_the_vmm_maps(daemon, client, process):
    vmm = process(ME, run_vmm, daemon.path)
    client.call("SetSlot", vm="web1", slot=slot(0, 0, 0))
    error = client.fails("BackingInUse", "ReleaseBacking", vm="web1", backing="ram0")
    assert (error["backing"], error["slots"], error["pid"]) == ("ram0", 0, vmm.result)


def test_release_what_the_vmm_only_holds_open(daemon, client, vm, process):
    fd = client.allocate().fd
    attach(client, process(ME, os.dup, fd))
    client.call("ReleaseBacking", vm="web1", backing="ram0")


# ---- when it ends ----


def test_exit_releases(daemon, client, process):
    vmm = process(ME, run_vmm, daemon.path)
    held = client.call("OpenBacking", vm="web1", backing="ram0").fd
    assert memory.resident(held) == PAGE
    vmm.kill()
    wait_until(lambda: client.call("ListVMs") == {"vms": []})
    assert client.call("ListBackings") == {"backings": []}
    assert client.call("ListSlots") == {"slots": []}
    assert client.call("GetHost")["promisedBytes"] == 0
    assert memory.resident(held) == 0


def test_exit_retains(daemon, client, process):
    vmm = process(ME, run_vmm, daemon.path, "web1", "retain")
    vmm.kill()
    wait_for_state(client, "retained")
    (vm,) = client.call("ListVMs")["vms"]
    assert (vm["slots"], vm["backings"], vm["residentBytes"], vm.get("pid")) == (0, 1, PAGE, None)
    assert client.call("ListSlots") == {"slots": []}
    kept = client.call("OpenBacking", vm="web1", backing="ram0").fd
    assert memory.read(kept, len(PATTERN)) == PATTERN


def test_retained_memory_is_freed_by_release(daemon, client, process):
    process(ME, run_vmm, daemon.path, "web1", "retain").kill()
    wait_for_state(client, "retained")
    held = client.call("OpenBacking", vm="web1", backing="ram0").fd
    assert client.call("ReleaseBacking", vm="web1", backing="ram0") == {"freedBytes": PAGE}
    assert memory.resident(held) == 0
    client.call("UnregisterVM", vm="web1")


def test_retained_vm_takes_its_next_vmm(daemon, client, process):
    process(ME, run_vmm, daemon.path, "web1", "retain").kill()
    wait_for_state(client, "retained")
    second = process(ME, os.getpid)
    assert attach(client, second)["pid"] == second.result


def test_exit_events(daemon, client, process):
    vmm = process(ME, run_vmm, daemon.path)
    stream = client.stream("Subscribe")
    assert next(stream)["event"]["kind"] == "subscribed"
    vmm.kill()
    told = [next(stream)["event"] for _ in range(3)]
    assert [event["kind"] for event in told] == ["vmm_exited", "backing_released", "vm_unregistered"]
    assert (told[0]["pid"], told[1]["freedBytes"], told[2]["freedBytes"]) == (vmm.result, PAGE, PAGE)


def test_exit_event_of_a_retained_vm(daemon, client, process):
    vmm = process(ME, run_vmm, daemon.path, "web1", "retain")
    stream = client.stream("Subscribe")
    next(stream)
    vmm.kill()
    assert next(stream)["event"]["kind"] == "vmm_exited"
    daemon.connect().register("web2")
    assert next(stream)["event"]["kind"] == "vm_registered"


def test_exit_between_two_calls(daemon, client, process):
    """Whoever calls after the exit meets no VMM."""
    for i in range(20):
        process(ME, run_vmm, daemon.path, f"vm{i}").kill()
        client.fails("NoSuchVM", "ListSlots", vm=f"vm{i}")


def test_exit_while_another_vm_shows_the_memory(daemon, client, process):
    """It is kept for the other VM, whatever the policy says."""
    vmm = process(ME, run_vmm, daemon.path)
    client.register("watcher", aliasPolicy="observe")
    client.call("SetSlot", vm="watcher",
                slot=slot(0, 0, MIB, backing="ram0", backingVM="web1", userspaceAddr=HVA))
    vmm.kill()
    wait_for_state(client, "retained")
    kept = client.call("OpenBacking", vm="web1", backing="ram0").fd
    assert memory.read(kept, len(PATTERN)) == PATTERN
    client.call("UnregisterVM", vm="watcher")
    client.call("UnregisterVM", vm="web1")
    assert memory.resident(kept) == 0


def test_exit_without_attach_changes_nothing(daemon, client, vm, process):
    """A VM that nobody attached to is not bound to whoever registered it."""
    def register_only(path):
        other = Client(path, golden())
        other.register("web2")
        other.allocate(vm="web2")
    process(ME, register_only, daemon.path).kill()
    assert state_of(client, "web2") == "registered"
    assert len(client.call("ListBackings", vm="web2")["backings"]) == 1


@pytest.mark.root
def test_vmm_of_an_ordinary_user(daemon, client, process):
    vmm = process(user.ALICE, run_vmm, daemon.path)
    (vm,) = client.call("ListVMs")["vms"]
    assert (vm["ownerUID"], vm["state"], vm["pid"]) == (user.ALICE, "attached", vmm.result)
    vmm.kill()
    wait_until(lambda: client.call("ListVMs") == {"vms": []})
