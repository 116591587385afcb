# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nobody becomes the next VMM of a retained VM while another process still has its memory."""

import array
import mmap
import os
import re
import signal
import socket
import subprocess
import time

import pytest

import memory
import user
from broker import binary, wait_until
from contract import golden
from memory import MIB
from wire import Client, Refusal

ME = os.geteuid()
SOON = 300_000  # microseconds


def run_vmm(path, **options):
    client = Client(path, golden())
    client.register("web1", exitPolicy="retain", **options)
    client.call("AttachVM", vm="web1")
    mapped = mmap.mmap(client.allocate(vm="web1").fd, MIB)
    mapped[:5] = b"guest"
    run_vmm.kept = client, mapped
    return os.getpid()


def run_vhost_user_backend(path):
    """As a vhost-user backend does it: the file descriptor comes over a socket, is mapped, and is closed."""
    ours, theirs = socket.socketpair()
    with Client(path, golden()) as client:
        fd = client.call("OpenBacking", vm="web1", backing="ram0").fd
        ours.sendmsg([b"SET_MEM_TABLE"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    _, ancillary, _, _ = theirs.recvmsg(100, socket.CMSG_SPACE(4))
    (fd,) = array.array("i", ancillary[0][2])
    run_vhost_user_backend.kept = memory.libc.mmap(None, MIB, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    return os.getpid()


PR_SET_DUMPABLE = 4


def run_readable_backend(path):
    """Whoever has changed its uid may not be looked at by others of that uid, unless it says so."""
    memory.libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    return run_vhost_user_backend(path)


def open_memory(path, access="read_write", backing="ram0"):
    client = Client(path, golden())
    open_memory.kept = client, client.call("OpenBacking", vm="web1", backing=backing, access=access)
    return os.getpid()


def the_vm(client):
    return client.call("ListVMs", vm="web1")["vms"][0]


def wait_for_state(client, state):
    wait_until(lambda: the_vm(client)["state"] == state, what=f"the state {state}")


def attach(client, process):
    return client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[process.pidfd])["vm"]


def fails_to_attach(client, error, process):
    return client.fails(error, "AttachVM", vm="web1", pidFileDescriptor=0, fds=[process.pidfd])


def send_attach(client, process):
    client.send("AttachVM", {"vm": "web1", "pidFileDescriptor": 0}, [process.pidfd])


@pytest.fixture
def vmm(daemon, process):
    return process(ME, run_vmm, daemon.path)


@pytest.fixture
def new(process):
    return process(ME, os.getpid)


def crash(client, vmm):
    vmm.kill()
    wait_for_state(client, "retained")


# ---- who is in the way ----


def test_nobody_has_the_memory(client, vmm, new):
    crash(client, vmm)
    assert attach(client, new)["pid"] == new.result
    # And again, as ever.
    assert attach(client, new)["pid"] == new.result


def test_vhost_user_backend_outlives_the_vmm(daemon, client, process, vmm, new):
    backend = process(ME, run_vhost_user_backend, daemon.path)
    crash(client, vmm)
    error = client.fails("Fenced", "AttachVM", vm="web1", pidFileDescriptor=0, fds=[new.pidfd])
    assert (error["vm"], [one["pid"] for one in error["holders"]], error["count"]) == ("web1", [backend.result], 1)
    assert error["holders"][0]["command"].startswith("p")
    assert f"process {backend.result} (" in error["message"]
    assert the_vm(client)["state"] == "retained"
    backend.kill()
    assert attach(client, new)["pid"] == new.result


def test_child_of_the_vmm_outlives_it(daemon, client, process, new):
    def run(path):
        run_vmm(path)
        child = os.fork()
        if child == 0:
            signal.alarm(120)
            signal.pause()
            os._exit(0)
        return child
    vmm = process(ME, run, daemon.path)
    crash(client, vmm)
    assert [one["pid"] for one in fails_to_attach(client, "Fenced", new)["holders"]] == [vmm.result]
    os.kill(vmm.result, signal.SIGKILL)

    def attached():
        try:
            return attach(client, new)
        except Refusal as refusal:
            assert refusal.error.endswith(".Fenced")  # it has not ended yet
            return None
    assert wait_until(attached)["pid"] == new.result


@pytest.mark.parametrize("access", ["read_write", "read_only"])
def test_open_file_alone(daemon, client, process, vmm, new, access):
    holder = process(ME, open_memory, daemon.path, access)
    crash(client, vmm)
    assert fails_to_attach(client, "Fenced", new)["count"] == 1
    holder.kill()
    attach(client, new)


def test_any_backing_counts(daemon, client, process, vmm, new):
    with Client(daemon.path, golden()) as other:
        other.allocate("ram1", MIB)
    first, second = process(ME, open_memory, daemon.path), process(ME, open_memory, daemon.path, "read_write", "ram1")
    crash(client, vmm)
    assert [one["pid"] for one in fails_to_attach(client, "Fenced", new)["holders"]] == sorted(
        [first.result, second.result])
    first.kill()
    assert [one["pid"] for one in fails_to_attach(client, "Fenced", new)["holders"]] == [second.result]
    client.call("ReleaseBacking", vm="web1", backing="ram1")
    attach(client, new)


def test_process_with_two_backings_is_named_once(daemon, client, process, vmm, new):
    def run(path):
        with Client(path, golden()) as other:
            other.allocate("ram1", MIB)
        open_memory(path)
        run.first = open_memory.kept
        open_memory(path, backing="ram1")
        return os.getpid()
    holder = process(ME, run, daemon.path)
    crash(client, vmm)
    error = fails_to_attach(client, "Fenced", new)
    assert ([one["pid"] for one in error["holders"]], error["count"]) == ([holder.result], 1)


def test_many_are_counted(daemon, client, process, vmm, new):
    def run(path):
        os.setpgid(0, 0)
        open_memory(path)
        for _ in range(70):
            if os.fork() == 0:
                signal.alarm(120)
                signal.pause()
                os._exit(0)
        return os.getpid()
    holder = process(ME, run, daemon.path)
    crash(client, vmm)
    try:
        error = fails_to_attach(client, "Fenced", new)
        assert (len(error["holders"]), error["count"]) == (64, 71)
        assert "and 68 more" in error["message"]
    finally:
        os.killpg(holder.result, signal.SIGKILL)


def test_who_attaches_may_have_the_memory(daemon, client, process, vmm):
    new = process(ME, open_memory, daemon.path)
    crash(client, vmm)
    assert attach(client, new)["pid"] == new.result


def test_launcher_that_keeps_the_memory_open(daemon, client, process, vmm, new):
    crash(client, vmm)
    launcher = daemon.connect()
    held = launcher.call("OpenBacking", vm="web1", backing="ram0")
    assert os.getpid() in [one["pid"] for one in fails_to_attach(client, "Fenced", new)["holders"]]
    launcher.close()
    assert held.fd >= 0
    attach(client, new)


def test_vmm_of_a_vm_that_it_is_shared_with(daemon, client, process, vmm, new):
    """Unless the memory is shared with that VM, its VMM is in the way as anybody."""
    peer = process(ME, open_memory, daemon.path)
    client.register("peer")
    client.call("AttachVM", vm="peer", pidFileDescriptor=0, fds=[peer.pidfd])
    crash(client, vmm)
    assert [one["pid"] for one in fails_to_attach(client, "Fenced", new)["holders"]] == [peer.result]
    client.call("ShareBacking", vm="web1", backing="ram0", peer="peer")
    attach(client, new)


def test_released_memory_has_no_fence(daemon, client, process, vmm, new):
    process(ME, open_memory, daemon.path)
    crash(client, vmm)
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    attach(client, new)


def test_vm_that_was_never_attached_has_no_fence(daemon, client, process, vm, new):
    client.allocate()
    process(ME, open_memory, daemon.path)
    attach(client, new)


def test_successor_has_no_fence(daemon, client, process, vmm, new):
    process(ME, open_memory, daemon.path)
    client.call("HandOverVM", vm="web1", pidFileDescriptor=0, fds=[new.pidfd])
    assert attach(client, new)["outgoingPID"] == vmm.result


@pytest.mark.root
def test_who_cannot_be_looked_at(daemon, start, process, directory):
    """An ordinary user's privmemd sees its own user's processes only; it attaches, and says so."""
    path = directory / "alice"
    os.mkdir(path)
    os.chown(path, user.ALICE, user.ALICE)
    private = start(path=path / "socket", user=user.ALICE, group=user.ALICE, extra_groups=[])
    client = private.connect(user.ALICE)
    vmm = process(user.ALICE, run_vmm, private.path)
    backend = process(user.ALICE, run_readable_backend, private.path)
    new = process(user.ALICE, os.getpid)
    crash(client, vmm)
    error = fails_to_attach(client, "Fenced", new)
    assert [one["pid"] for one in error["holders"]] == [backend.result]
    assert error["unreadable"] > 0
    backend.kill()
    reply = client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[new.pidfd])
    assert reply["unreadable"] > 0
    assert reply["vm"]["pid"] == new.result


# ---- while privmemd looks ----


def stop_looking(daemon):
    """Nothing is answered until it goes on, so what is sent meanwhile meets a look that has not begun."""
    os.kill(daemon.pid, signal.SIGSTOP)


def go_on(daemon):
    os.kill(daemon.pid, signal.SIGCONT)


def answers(*clients):
    found = []
    for client in clients:
        try:
            found.append(client.receive_reply("AttachVM")[0]["vm"]["pid"])
        except Refusal as refusal:
            found.append(refusal.error.rpartition(".")[2])
    return found


def test_two_at_once(daemon, client, process, vmm, new):
    other = process(ME, os.getpid)
    crash(client, vmm)
    first, second = daemon.connect(), daemon.connect()
    stop_looking(daemon)
    send_attach(first, new)
    send_attach(second, other)
    go_on(daemon)
    found = answers(first, second)
    assert sorted(map(str, found)) == sorted(["VMInUse", str(the_vm(client)["pid"])])
    assert the_vm(client)["pid"] in (new.result, other.result)


def test_the_same_twice_at_once(daemon, client, vmm, new):
    crash(client, vmm)
    first, second = daemon.connect(), daemon.connect()
    stop_looking(daemon)
    send_attach(first, new)
    send_attach(second, new)
    go_on(daemon)
    assert answers(first, second) == [new.result, new.result]


def test_vm_that_goes_meanwhile(daemon, client, vmm, new):
    crash(client, vmm)
    first, second = daemon.connect(), daemon.connect()
    stop_looking(daemon)
    send_attach(first, new)
    second.send("UnregisterVM", {"vm": "web1"})
    go_on(daemon)
    second.receive_reply("UnregisterVM")
    assert answers(first) == ["NoSuchVM"]


def test_process_that_exits_meanwhile(daemon, client, vmm, new):
    crash(client, vmm)
    stop_looking(daemon)
    send_attach(client, new)
    new.kill()
    go_on(daemon)
    assert answers(client) == ["HostFailure"]
    assert the_vm(client)["state"] == "retained"


def test_backing_that_comes_meanwhile(daemon, client, process, vmm, new):
    """It is looked for as well."""
    crash(client, vmm)
    first, second = daemon.connect(), daemon.connect()
    stop_looking(daemon)
    send_attach(first, new)
    second.send("AllocateBacking", {"vm": "web1", "name": "ram1", "size": MIB})
    go_on(daemon)
    second.receive_reply("AllocateBacking")  # and we have it open now
    (found,) = answers(first)
    assert found in ("Fenced", new.result)
    if found == "Fenced":
        second.close()
        attach(client, new)


def test_client_that_hangs_up_meanwhile(daemon, client, vmm, new):
    crash(client, vmm)
    for _ in range(20):
        with Client(daemon.path, golden()) as other:
            send_attach(other, new)
    wait_for_state(client, "attached")
    assert the_vm(client)["pid"] == new.result


def test_call_without_an_answer(daemon, client, vmm, new):
    crash(client, vmm)
    client.send("AttachVM", {"vm": "web1", "pidFileDescriptor": 0}, [new.pidfd], oneway=True)
    # The answer to this call is its own.
    assert "version" in client.call("GetHost")
    wait_for_state(client, "attached")


def test_others_are_served_meanwhile(daemon, client, vmm, new):
    crash(client, vmm)
    other = daemon.connect()
    for _ in range(50):
        send_attach(client, new)
        began = time.monotonic()
        other.call("GetHost")
        assert time.monotonic() - began < 5
        assert answers(client) == [new.result]


def test_end_of_privmemd_meanwhile(daemon, client, vmm, new):
    crash(client, vmm)
    stop_looking(daemon)
    for one in [daemon.connect() for _ in range(5)]:
        send_attach(one, new)
    daemon.process.send_signal(signal.SIGTERM)
    go_on(daemon)
    assert daemon.stop() == 0


def test_expiry_meanwhile(daemon, client, process, new):
    vmm = process(ME, lambda path: run_vmm(path, retainUSec=SOON), daemon.path)
    crash(client, vmm)
    first = daemon.connect()
    stop_looking(daemon)
    send_attach(first, new)
    time.sleep(2 * SOON / 1e6)
    go_on(daemon)
    (found,) = answers(first)
    assert found in ("NoSuchVM", new.result)


# ---- privmemctl ----


def privmemctl(daemon, *arguments, status=0):
    done = subprocess.run([binary("client/privmemctl"), f"--socket={daemon.path}", *arguments], timeout=20,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == status, done.stdout
    return done.stdout


def test_privmemctl_shows_the_fence(daemon, client, process, vmm, new):
    backend = process(ME, run_vhost_user_backend, daemon.path)
    assert "Fence" not in privmemctl(daemon, "show", "web1")
    crash(client, vmm)
    assert f"held by {backend.result} (" in privmemctl(daemon, "show", "web1")
    told = privmemctl(daemon, "attach", "web1", str(new.pid), status=1)
    assert f"process {backend.result} (" in told
    told = privmemctl(daemon, "run", "web1", "--backing=ram0=1M", "--", "head", "-c5", "{ram0}", status=1)
    assert "is fenced" in told
    backend.kill()
    assert re.search("^Fence +open$", privmemctl(daemon, "show", "web1"), re.M)
    assert privmemctl(daemon, "run", "web1", "--backing=ram0=1M", "--", "head", "-c5", "{ram0}") == "guest"
