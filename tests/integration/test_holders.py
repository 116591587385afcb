# SPDX-License-Identifier: LGPL-2.1-or-later
"""ListHolders: who has the memory open or mapped, found among real processes."""

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import memory
import user
from broker import binary, wait_until
from contract import INTERFACE, golden
from memory import HUGE_PAGE, MIB, PAGE
from wire import Client, Refusal

ME = os.geteuid()
MANY, FEW = 300, 30

READ, WRITE = mmap.PROT_READ, mmap.PROT_WRITE


def holders(client, vm="web1", **parameters):
    """The whole list, which must be complete."""
    found = []
    for reply in client.stream("ListHolders", vm=vm, **parameters):
        assert (reply["complete"], reply["unreadable"]) == (True, 0)
        found += reply["holders"]
    return found


def holder(client, pid, **parameters):
    """The only entry of the process."""
    (found,) = [one for one in holders(client, **parameters) if one["pid"] == pid]
    return found


@pytest.fixture
def ram(daemon, vm):
    """A backing that nobody holds."""
    with Client(daemon.path, golden()) as other:
        other.allocate()


def hold(fd, flags, protection, size=MIB):
    """Maps the file in a way that Python's own mmap would not: without a file descriptor that stays."""
    address = memory.libc.mmap(None, size, protection, flags, fd, 0)
    assert address != memory.MAP_FAILED
    return address


def open_and_hold(path, access="read_write", mapped=(), keep=True, backing="ram0"):
    """In a process of its own: opens the backing, maps it, and goes on with its file descriptor or without."""
    client = Client(path, golden())
    fd = client.call("OpenBacking", vm="web1", backing=backing, access=access).fd
    for flags, protection in mapped:
        hold(fd, flags, protection)
    if keep:
        open_and_hold.kept = os.dup(fd)
    client.close()
    return os.getpid()


# ---- what is seen ----


def test_nobody(client, ram):
    assert holders(client) == []
    assert client.call("ListHolders", vm="web1") == {"holders": [], "complete": True, "unreadable": 0}


def test_vm_without_backings(client, vm):
    assert holders(client) == []


NOTHING = {"fileDescriptors": 0, "sharedBytes": 0, "privateBytes": 0, "writable": False, "copiesOnWrite": False}


@pytest.mark.parametrize("access, mapped, keep, seen", [
    ("read_write", [], True, {"fileDescriptors": 1, "writable": True}),
    ("read_only", [], True, {"fileDescriptors": 1}),
    ("read_write", [(mmap.MAP_SHARED, READ | WRITE)], False, {"sharedBytes": MIB, "writable": True}),
    ("read_only", [(mmap.MAP_SHARED, READ)], False, {"sharedBytes": MIB}),
    ("read_only", [(mmap.MAP_PRIVATE, READ | WRITE)], False, {"privateBytes": MIB, "copiesOnWrite": True}),
    ("read_write", [(mmap.MAP_PRIVATE, READ)], False, {"privateBytes": MIB}),
    ("read_write", [(mmap.MAP_SHARED, 0)], False, {"sharedBytes": MIB}),
    ("read_write", [(mmap.MAP_SHARED, READ | WRITE), (mmap.MAP_SHARED, READ), (mmap.MAP_PRIVATE, WRITE)], True,
     {"fileDescriptors": 1, "sharedBytes": 2 * MIB, "privateBytes": MIB, "writable": True, "copiesOnWrite": True}),
])
def test_open_and_mapped(daemon, client, ram, process, access, mapped, keep, seen):
    one = process(ME, open_and_hold, daemon.path, access, mapped, keep)
    found = holder(client, one.result)
    command = found.pop("command")
    assert found == {"backing": "ram0", "pid": one.result, "uid": ME, **NOTHING, **seen}
    with open(f"/proc/{one.result}/comm", encoding="ascii") as file:
        assert command == file.read().rstrip("\n")
    one.kill()
    assert holders(client) == []


def test_caller_itself(client, vm):
    reply = client.allocate()
    found = holder(client, os.getpid())
    assert (found["fileDescriptors"], found["writable"], found["sharedBytes"]) == (1, True, 0)
    with mmap.mmap(reply.fd, MIB):
        # Python's mmap has a duplicate of its own.
        assert holder(client, os.getpid())["fileDescriptors"] == 2


def test_one_backing_or_all(daemon, client, ram, process):
    with Client(daemon.path, golden()) as other:
        other.allocate("ram1")
    first = process(ME, open_and_hold, daemon.path)
    second = process(ME, open_and_hold, daemon.path, "read_write", (), True, "ram1")
    assert [(one["backing"], one["pid"]) for one in holders(client)] == [
        ("ram0", first.result), ("ram1", second.result)]
    assert [one["pid"] for one in holders(client, backing="ram1")] == [second.result]


def test_part_of_a_backing(daemon, client, ram, process):
    def map_a_page(path):
        with Client(path, golden()) as other:
            fd = other.call("OpenBacking", vm="web1", backing="ram0").fd
            hold(fd, mmap.MAP_SHARED, READ, PAGE)
        return os.getpid()
    assert holder(client, process(ME, map_a_page, daemon.path).result)["sharedBytes"] == PAGE


@pytest.mark.root
def test_another_uid(client, vm, process):
    fd = client.allocate().fd
    one = process(user.BOB, lambda: hold(fd, mmap.MAP_SHARED, READ))
    found = holder(client, one.pid)
    assert (found["uid"], found["sharedBytes"], found["fileDescriptors"]) == (user.BOB, MIB, 1)


@pytest.mark.parametrize("name, shown", [
    (b"a) R 1 (b", "a) R 1 (b"), (b"two\nlines", "two?lines"), (b"\xc3\xa4\xff\x1b[1m", "????[1m")])
def test_command_that_misleads(daemon, client, ram, process, name, shown):
    def rename(path):
        open_and_hold(path)
        with open("/proc/self/comm", "wb") as file:
            file.write(name)
        return os.getpid()
    assert holder(client, process(ME, rename, daemon.path).result)["command"] == shown


THREAD = """
import ctypes, mmap, os, sys, threading, time
libc = ctypes.CDLL(None)
mapped = mmap.mmap(int(sys.argv[1]), 0)
threading.Thread(target=time.sleep, args=(100,)).start()
print("ready", flush=True)
libc.syscall(int(sys.argv[2]), 0)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="exit(2) has another number here")
def test_process_whose_first_thread_has_ended(client, vm):
    """Its /proc/PID/maps is empty, and it has the memory all the same."""
    fd = client.allocate().fd
    one = subprocess.Popen([sys.executable, "-c", THREAD, str(fd), "60"], pass_fds=[fd], stdout=subprocess.PIPE)
    try:
        assert one.stdout.readline() == b"ready\n"
        wait_until(lambda: state_of(one.pid) == "Z", what="the end of the first thread")
        found = holder(client, one.pid)
        assert (found["sharedBytes"], found["fileDescriptors"]) == (MIB, 2)
    finally:
        one.kill()
        one.wait()
        one.stdout.close()


def state_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_huge_pages(client, vm, pages):
    fd = client.allocate(size=HUGE_PAGE, kind="hugetlb").fd
    with mmap.mmap(fd, HUGE_PAGE):
        found = holder(client, os.getpid())
    assert (found["sharedBytes"], found["fileDescriptors"]) == (HUGE_PAGE, 2)


@pytest.fixture
def guest_memfd():
    try:
        fd, vm = memory.guest_memfd(MIB, memory.GUEST_MEMFD_MMAP | memory.GUEST_MEMFD_INIT_SHARED)
    except OSError as error:
        pytest.skip(f"no guest_memfd that can be mapped: {error}")
    yield fd
    os.close(fd)
    os.close(vm)


def test_guest_memfd(client, vm, guest_memfd, process):
    client.adopt(guest_memfd, "private0")
    found = holder(client, os.getpid())
    assert (found["backing"], found["fileDescriptors"], found["writable"]) == ("private0", 1, True)

    def map_only():
        hold(guest_memfd, mmap.MAP_SHARED, READ | WRITE)
        os.close(guest_memfd)
    one = process(ME, map_only)
    found = holder(client, one.pid)
    assert (found["fileDescriptors"], found["sharedBytes"], found["writable"]) == (0, MIB, True)


# ---- VMMs ----


def attach(client, process, vm="web1"):
    client.call("AttachVM", vm=vm, pidFileDescriptor=0, fds=[process.pidfd])


def test_vmm(daemon, client, ram, process):
    vmm = process(ME, open_and_hold, daemon.path)
    other = process(ME, open_and_hold, daemon.path)
    assert "vmmOf" not in holder(client, vmm.result)
    attach(client, vmm)
    assert holder(client, vmm.result)["vmmOf"] == ["web1"]
    assert "vmmOf" not in holder(client, other.result)


def test_vmm_of_several(daemon, client, ram, process):
    client.register("db1")
    client.register("web2")
    vmm = process(ME, open_and_hold, daemon.path)
    attach(client, vmm, "web2")
    attach(client, vmm, "db1")
    assert holder(client, vmm.result)["vmmOf"] == ["db1", "web2"]


@pytest.mark.root
def test_vmm_of_a_vm_that_is_not_the_callers(client, alice, bob, process):
    """Its name is told only if the backing is shared with it."""
    alice.register()
    fd = alice.allocate().fd
    bob.register("db1")
    one = process(user.BOB, lambda: hold(fd, mmap.MAP_SHARED, READ))
    attach(bob, one, "db1")
    assert "vmmOf" not in holder(alice, one.pid)
    assert holder(client, one.pid)["vmmOf"] == ["db1"]
    alice.call("ShareBacking", vm="web1", backing="ram0", peer="db1")
    assert holder(alice, one.pid)["vmmOf"] == ["db1"]


@pytest.fixture
def small_vmm(daemon, client):
    """One on /dev/kvm, with libprivmem: a memfd and, if KVM has it, a guest_memfd."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/kvm here")
    vmm = subprocess.Popen([binary("tests/kvm/small-vmm"), "--vm=small", "--hold", f"--socket={daemon.path}"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for line in vmm.stdout:
        if line.startswith(b"The guest has run"):
            break
    yield vmm
    vmm.communicate(timeout=20)
    assert vmm.returncode == 0


def test_small_vmm(client, small_vmm):
    backings = {one["name"]: one["kind"] for one in client.listed("ListBackings", vm="small")}
    found = holders(client, vm="small")
    assert [one["backing"] for one in found] == sorted(backings)
    for one in found:
        assert (one["pid"], one["command"], one["vmmOf"]) == (small_vmm.pid, "small-vmm", ["small"])
        assert (one["sharedBytes"], one["privateBytes"], one["writable"]) == (64 << 10, 0, True)
        assert one["fileDescriptors"] == 1


# ---- privmemctl ----


def ctl(daemon, *arguments, status=0):
    done = subprocess.run([binary("client/privmemctl"), f"--socket={daemon.path}", "holders", *arguments],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == status, done.stderr
    return done


def test_privmemctl(daemon, client, ram, process):
    with Client(daemon.path, golden()) as other:
        other.allocate("ram1")
    private = process(ME, open_and_hold, daemon.path, "read_only", [(mmap.MAP_PRIVATE, READ | WRITE)], False)
    vmm = process(ME, open_and_hold, daemon.path, "read_write", [(mmap.MAP_SHARED, READ | WRITE)])
    attach(client, vmm)
    done = ctl(daemon, "web1")
    assert done.stderr == ""
    title, first, second, note = done.stdout.splitlines()
    assert title.split()[:2] == ["BACKING", "PID"]
    name = first.split()[2]
    assert first.split() == ["ram0", str(private.result), name, str(ME), "-", "0", "-", "1.0M", "read,", "copies"]
    assert second.split() == ["ram0", str(vmm.result), name, str(ME), "web1", "1", "1.0M", "-", "write"]
    assert note.startswith("copies: ")
    assert json.loads(ctl(daemon, "web1", "--json").stdout) == {
        "holders": holders(client), "complete": True, "unreadable": 0}
    assert len(ctl(daemon, "web1", "ram1").stdout.splitlines()) == 1
    assert "ram2" in ctl(daemon, "web1", "ram2", status=1).stderr


@pytest.mark.root
def test_privmemctl_says_what_it_cannot_know(start, directory):
    os.chmod(directory, 0o777)
    daemon = start(user=user.ALICE, group=user.ALICE, extra_groups=[])
    client = daemon.connect()
    client.register(ownerUID=user.ALICE)
    assert "may not look at" in ctl(daemon, "web1").stderr
    assert "may not look at" in ctl(daemon, "web1", "--json").stderr


# ---- who may ask, and for what ----


def test_errors(client, vm):
    assert client.fails("NoSuchVM", "ListHolders", vm="web2")["vm"] == "web2"
    assert client.fails("NoSuchBacking", "ListHolders", vm="web1", backing="ram0")["backing"] == "ram0"


@pytest.mark.root
def test_foreign_vm(client, alice, bob):
    alice.register()
    alice.allocate()
    bob.register("db1")
    alice.call("ShareBacking", vm="web1", backing="ram0", peer="db1")
    assert bob.fails("NotPermitted", "ListHolders", vm="web1")["peerUID"] == user.BOB
    assert [one["pid"] for one in holders(alice)] == [os.getpid()]


@pytest.mark.root
def test_what_may_not_be_looked_at_is_counted(start, directory, process):
    """A privmemd of an ordinary user sees that user's processes, and says that there are others."""
    os.chmod(directory, 0o777)
    daemon = start(user=user.ALICE, group=user.ALICE, extra_groups=[])
    alice = daemon.connect(user.ALICE)
    alice.register()
    fd = alice.allocate().fd
    process(user.BOB, lambda: hold(fd, mmap.MAP_SHARED, READ))
    hers = process(user.ALICE, open_dumpable, fd)
    reply = alice.call("ListHolders", vm="web1")
    assert reply["complete"] is False
    assert reply["unreadable"] >= 2  # BOB's, and this test
    assert [one["pid"] for one in reply["holders"]] == [hers.pid]


@pytest.mark.root
def test_what_the_service_needs(start, directory, process):
    """Not root: these two capabilities, which the unit gives, are enough to look at every process."""
    os.chmod(directory, 0o777)
    capabilities = "+sys_ptrace,+dac_read_search"
    daemon = start(command=["setpriv", f"--reuid={user.ALICE}", f"--regid={user.ALICE}", "--clear-groups",
                            f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", binary(),
                            f"--socket={directory / 'socket'}"])
    alice = daemon.connect(user.ALICE)
    alice.register()
    fd = alice.allocate().fd
    one = process(user.BOB, lambda: hold(fd, mmap.MAP_SHARED, READ))
    found = holder(alice, one.pid)
    assert (found["uid"], found["fileDescriptors"], found["sharedBytes"]) == (user.BOB, 1, MIB)


def open_dumpable(fd):
    """After a change of uid nobody else may look at a process before it says so."""
    memory.libc.prctl(4, 1)  # PR_SET_DUMPABLE
    return os.dup(fd)


@pytest.mark.root
def test_hidden_processes(start, directory):
    """Where procfs shows nothing of other users, there is nothing to count."""
    script = 'mount -t proc -o hidepid=2 proc /proc || exit 9; exec setpriv --reuid=12345 --regid=12345 --clear-groups "$0" "$@"'
    command = ["unshare", "--mount", "sh", "-c", script]
    if subprocess.run([*command, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("procfs cannot be mounted here")
    os.chmod(directory, 0o777)
    daemon = start(command=[*command, binary(), f"--socket={directory / 'socket'}"])
    alice = daemon.connect(user.ALICE)
    alice.register()
    alice.allocate()
    reply = alice.call("ListHolders", vm="web1")
    assert (reply["complete"], reply["unreadable"]) == (False, 0)


# ---- many processes ----


def gather(daemon, process, count):
    """So many have the memory mapped, and no others."""
    with Client(daemon.path, golden()) as other:
        fd = other.allocate().fd
        return [process(ME, lambda: hold(fd, mmap.MAP_SHARED, READ)) for _ in range(count)]


@pytest.fixture
def crowd(daemon, vm, process):
    return gather(daemon, process, MANY)


@pytest.fixture
def group(daemon, vm, process):
    return gather(daemon, process, FEW)


def test_many(daemon, client, crowd):
    replies = list(client.stream("ListHolders", vm="web1"))
    assert [len(reply["holders"]) for reply in replies] == [128, 128, MANY - 256]
    pids = [one["pid"] for reply in replies for one in reply["holders"]]
    assert pids == sorted(one.pid for one in crowd)
    client.fails("ExpectedMore", "ListHolders", vm="web1")
    client.call("GetHost")


def test_exit_in_the_middle(client, crowd):
    """Each entry is of a process that lived; those that live on are all there."""
    pids = {one.pid for one in crowd}
    client.send("ListHolders", {"vm": "web1"}, more=True)
    for one in crowd[::2]:
        one.kill()
    found = {one["pid"] for reply in received(client) for one in reply["holders"]}
    assert {one.pid for one in crowd if one.pid} <= found <= pids
    assert {one["pid"] for one in holders(client)} == {one.pid for one in crowd if one.pid}


def received(client):
    continues = True
    while continues:
        reply, continues = client.receive_reply("ListHolders")
        yield reply


def ask_and_meanwhile(daemon, client, act):
    """Asks for the holders, and acts when privmemd has surely begun to look. Returns what the answer was."""
    reader = daemon.connect()
    reader.send("ListHolders", {"vm": "web1"}, more=True)
    client.call("GetHost")
    client.call("GetHost")
    act()
    try:
        return list(received(reader))
    except Refusal as refusal:
        return refusal.error.rpartition(".")[2]


def test_others_are_served_meanwhile(daemon, client, crowd):
    """Hundreds of calls, one after the other, are answered before the list is. A look that is not cut into steps lets
    through what happens to come before it: 2 to 47 were seen."""
    for _ in range(3):
        reader = daemon.connect()
        reader.send("ListHolders", {"vm": "web1"}, more=True)
        served = 0
        while not select.select([reader.socket], [], [], 0)[0]:
            client.call("GetHost")
            served += 1
        assert served >= 100
        assert len([one for reply in received(reader) for one in reply["holders"]]) == MANY


def test_unregister_meanwhile(daemon, client, group):
    for _ in range(20):
        if ask_and_meanwhile(daemon, client, lambda: client.call("UnregisterVM", vm="web1")) == "NoSuchVM":
            return
        client.register()
    pytest.fail("no call was served while privmemd looked at the processes")


def test_release_meanwhile(daemon, client, group):
    """What is no backing any more is not in the list."""
    replies = ask_and_meanwhile(daemon, client, lambda: client.call("ReleaseBacking", vm="web1", backing="ram0"))
    assert sum(len(reply["holders"]) for reply in replies) in (0, FEW)
    assert holders(client) == []


@pytest.mark.root
def test_name_that_is_another_users_meanwhile(daemon, client, alice, bob, group):
    def change_hands():
        client.call("UnregisterVM", vm="web1")
        client.register(ownerUID=user.BOB)
    client.call("UnregisterVM", vm="web1")
    for _ in range(20):
        client.register(ownerUID=user.ALICE)
        reader = daemon.connect(user.ALICE)
        reader.send("ListHolders", {"vm": "web1"}, more=True)
        client.call("GetHost")
        client.call("GetHost")
        change_hands()
        try:
            list(received(reader))
        except Refusal as refusal:
            assert refusal.error.endswith(".NotPermitted")
            return
        finally:
            client.call("UnregisterVM", vm="web1")
    pytest.fail("no call was served while privmemd looked at the processes")


@contextlib.contextmanager
def never_idle(daemon):
    """There is always a call that waits: of a hundred clients, who ask again as soon as they are answered."""
    call = json.dumps({"method": f"{INTERFACE}.GetHost", "parameters": {}}).encode() + b"\0"
    busy = [daemon.connect().socket for _ in range(100)]
    replies, done = 0, False

    def ask_again():
        nonlocal replies
        with select.epoll() as ready:
            for one in busy:
                ready.register(one, select.EPOLLIN)
                one.send(call)
            by_fd = {one.fileno(): one for one in busy}
            while not done:
                for fd, _ in ready.poll(1):
                    if by_fd[fd].recv(1 << 16).endswith(b"\0"):
                        replies += 1
                        by_fd[fd].send(call)
    thread = threading.Thread(target=ask_again)
    thread.start()
    try:
        wait_until(lambda: replies > 100)
        yield lambda: replies
    finally:
        done = True
        thread.join()


def test_looks_also_while_it_is_never_idle(daemon, client, group):
    with never_idle(daemon) as replies:
        before = replies()
        assert len(holders(client)) == FEW
        assert replies() > before + 100


@contextlib.contextmanager
def stopped(daemon):
    """What is sent meanwhile is there all at once when it goes on."""
    os.kill(daemon.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(daemon.pid) == "T")
    yield
    os.kill(daemon.pid, signal.SIGCONT)


def test_several_at_once(daemon, client, ram, process):
    one = process(ME, open_and_hold, daemon.path)
    readers = [daemon.connect() for _ in range(8)]
    with stopped(daemon):
        for reader in readers:
            reader.send("ListHolders", {"vm": "web1"})
    for reader in readers:
        reply, continues = reader.receive_reply("ListHolders")
        assert (len(reply["holders"]), reply["holders"][0]["pid"], continues) == (1, one.result, False)


def test_whoever_does_not_wait_for_the_answer(daemon, client, ram):
    """Whenever they hang up, nothing of /proc stays open."""
    for i in range(60):
        with daemon.connect() as reader:
            reader.call("GetHost")
            reader.send("ListHolders", {"vm": "web1"})
            time.sleep(i * 0.00003)
        wait_until(lambda: not any(path.startswith("/proc") for path in daemon.fds().values()), what="the walk's end")


def test_limit_for_each_uid(daemon, client, group):
    readers = [daemon.connect() for _ in range(12)]
    with stopped(daemon):
        for reader in readers:
            reader.send("ListHolders", {"vm": "web1"}, more=True)
    refused = []
    for reader in readers:
        try:
            assert len([one for reply in received(reader) for one in reply["holders"]]) == FEW
        except Refusal as refusal:
            refused.append(refusal.parameters)
    assert 0 < len(refused) <= 4
    assert (refused[0]["limit"], refused[0]["maximum"]) == ("holderListsPerUID", 8)
    assert client.call("GetHost")["limits"]["holderListsPerUID"] == 8
    assert len(holders(client)) == FEW


def test_client_that_goes_away(daemon, client, group):
    """Nothing of it stays: the fixture counts the file descriptors."""
    for _ in range(3):
        readers = [daemon.connect() for _ in range(8)]
        with stopped(daemon):
            for reader in readers:
                reader.send("ListHolders", {"vm": "web1"}, more=True)
                reader.close()
    assert len(holders(client)) == FEW


def test_stop_in_the_middle(daemon, client, group):
    with stopped(daemon):
        client.send("ListHolders", {"vm": "web1"}, more=True)
        os.kill(daemon.pid, signal.SIGTERM)
    assert daemon.process.wait(20) == 0


def test_oneway(client, ram):
    client.send("ListHolders", {"vm": "web1"}, oneway=True)
    assert client.call("ListVMs")["vms"][0]["name"] == "web1"
    assert holders(client) == []
