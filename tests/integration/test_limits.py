# SPDX-License-Identifier: LGPL-2.1-or-later
"""What does not fit is refused by name, nothing is lost, and it goes on when there is room again."""

import errno
import os
import resource
import socket
import subprocess
import time

import pytest

import memory
from broker import Daemon, binary
from memory import MIB, PAGE
from service_manager import ServiceManager
from tenant import VMM
from wire import Refusal

pytestmark = [pytest.mark.plain, pytest.mark.timeout(90),
              pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")]


@pytest.fixture
def manager(directory, contract):
    manager = ServiceManager(directory, contract)
    yield manager
    manager.close()


def everything(client):
    return [(vm, *(client.listed(method, vm=vm["name"]) for method in ("ListBackings", "ListSlots", "ListMemory")))
            for vm in client.vms()]


def allocate(client, name, vm="web1"):
    """Without keeping its fd."""
    reply = client.allocate(name, size=PAGE, vm=vm)
    for fd in client._owned:
        os.close(fd)
    client._owned.clear()
    return reply


def until_refused(change, most):
    """How often it was done, and the refusal."""
    for i in range(most):
        try:
            change(i)
        except Refusal as refusal:
            return i, refusal
    raise AssertionError(f"it was done {most} times")


def check_full(refusal, what, number):
    assert refusal.error == "io.privmemd.Memory.CustodyFull", refusal
    assert refusal.parameters["what"] == what
    assert (refusal.parameters["errno"], refusal.parameters["errnoName"]) == (number, errno.errorcode[number])


def start_limited(manager, files, command="", uid=None):
    """RLIMIT_NOFILE holds from its start on."""
    program = manager.directory / "limited"
    program.write_text(f'#!/bin/sh\nexport LISTEN_PID=$$\nulimit -n {files}\nexec {command} '
                       f'"{os.environ["PRIVMEMD_BUILD"]}/daemon/privmemd" "$@"\n')
    program.chmod(0o755)
    manager.program = str(program)
    manager.start(wait=False)
    client = manager.daemon.connect(uid)
    client.call("GetHost")
    return client


# ---- file descriptors ----


def test_too_few_file_descriptors(manager):
    """What is kept can be taken back by the next one under the same limit."""
    client = start_limited(manager, 400)
    client.register("web1")
    n, refusal = until_refused(lambda i: allocate(client, f"ram{i}"), 400)
    assert n > 20
    check_full(refusal, "file descriptors", errno.EMFILE)
    again = client.fails("CustodyFull", "AllocateBacking", vm="web1", name=f"ram{n}", size=PAGE)
    assert again == refusal.parameters
    before = everything(client)
    manager.end()
    client = start_limited(manager, 400)
    assert everything(client) == before
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    assert allocate(client, "ram0")["created"]


@pytest.mark.root
def test_fds_in_flight(manager):
    """The kernel counts what lies in queues, by user, unless privmemd has CAP_SYS_RESOURCE or CAP_SYS_ADMIN."""
    os.chmod(manager.directory / "notify", 0o666)
    client = start_limited(manager, 120, "setpriv --reuid=54321 --regid=54321 --clear-groups", 54321)
    client.register("web1")
    allocate(client, "ram0")

    def change(i):
        allocate(client, f"x{i}")
        client.call("ReleaseBacking", vm="web1", backing=f"x{i}")

    n, refusal = until_refused(change, 250)
    check_full(refusal, "fds in flight", errno.ETOOMANYREFS)
    client.fails("NoSuchBacking", "OpenBacking", vm="web1", backing=f"x{n}")
    client.call("OpenBacking", vm="web1", backing="ram0")
    client.close_fds()
    before = everything(client)
    assert before[0][0]["backings"] == 1
    manager.end()
    client = start_limited(manager, 1000, "setpriv --reuid=54321 --regid=54321 --clear-groups", 54321)
    assert everything(client) == before
    change(n)


def fly(number):
    """As many file descriptors as that lie in a queue until this process ends."""
    fly.kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for _ in range(0, number, 50):
        socket.send_fds(fly.kept[0], [b"x"], [0] * 50)


@pytest.mark.root
def test_fds_in_flight_of_others(manager, process):
    """Who does not get an fd is told so, and nothing is done; the connection stays."""
    os.chmod(manager.directory / "notify", 0o666)
    client = start_limited(manager, 120, "setpriv --reuid=54321 --regid=54321 --clear-groups", 54321)
    client.register("web1")
    allocate(client, "ram0")
    before = everything(client)
    other = process(54321, fly, 300)
    for method, parameters in [("OpenBacking", {"backing": "ram0"}), ("AllocateBacking", {"name": "ram0", "size": PAGE}),
                               ("AllocateBacking", {"name": "ram1", "size": PAGE})]:
        error = client.fails("CustodyFull", method, vm="web1", **parameters)
        assert (error["what"], error["errno"]) == ("fds in flight", errno.ETOOMANYREFS)
    assert everything(client) == before
    other.end()
    assert not allocate(client, "ram0")["created"]
    assert allocate(client, "ram1")["created"]


# ---- the ledger ----


def test_ledger_that_cannot_grow(manager):
    client = manager.start().connect()
    client.register("web1")
    allocate(client, "ram0")
    _, hard = resource.prlimit(manager.daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(manager.daemon.pid, resource.RLIMIT_FSIZE, (64 * 1024, hard))

    def change(i):
        client.call("SetMemoryAttributes", vm="web1", guestPhysAddr=2 * i * MIB, memorySize=MIB, private=True)

    n, refusal = until_refused(change, 3000)
    assert n > 100
    check_full(refusal, "ledger", errno.ENOSPC)
    # What gives something up has room of its own.
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    before = everything(client)
    manager.end()
    client = manager.start().connect()
    assert everything(client) == before
    change(n)


@pytest.fixture
def small_file_system(directory):
    """Where a tmpfs of 64 KiB is, and the command that goes there: nobody else sees it, and it ends with us."""
    place = directory / "small"
    place.mkdir()
    keeper = subprocess.Popen(["unshare", "--mount", "--propagation=private", "sh", "-c",
                               'mount -t tmpfs -o size=64k,mode=755 tmpfs "$0" && echo mounted && exec cat', place],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if keeper.stdout.readline() != b"mounted\n":
            pytest.skip("no file system can be mounted here")
        yield place, ["nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt"]
    finally:
        keeper.kill()
        keeper.communicate()


@pytest.mark.root
def test_ledger_on_a_full_file_system(directory, contract, small_file_system):
    """Without a service manager: the ledger is a file."""
    place, enter = small_file_system

    def start_there():
        daemon = Daemon(directory, contract, command=[
            *enter, binary(), f"--socket={directory / 'socket'}", f"--ledger={place}"])
        return daemon, daemon.connect()

    def change(i):
        client.call("SetMemoryAttributes", vm="web1", guestPhysAddr=2 * i * MIB, memorySize=MIB, private=True)

    daemon, client = start_there()
    client.register("web1")
    client.register("web2", exitPolicy="retain")
    fd = client.allocate(size=PAGE).fd
    vmm = VMM({memory.identity(fd): fd})
    try:
        pidfd = os.pidfd_open(vmm.pid)
        client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[pidfd])
        os.close(pidfd)
        n, refusal = until_refused(change, 3000)
        assert n > 100
        check_full(refusal, "ledger", errno.ENOSPC)
        client.call("UnregisterVM", vm="web2")
        before = everything(client)
        daemon.process.kill()
        daemon.process.wait()
        daemon, client = start_there()
        assert everything(client) == before
        subprocess.run([*enter, "mount", "-o", "remount,size=1m", place], check=True)
        change(n)
    finally:
        vmm.end()
        daemon.process.kill()
        daemon.process.wait()


# ---- the service manager ----


def test_barrier_that_is_never_answered(manager):
    """Where a new generation cannot be stored, the old one goes on."""
    manager.program = "tests/kill/privmemd-steps"
    client = manager.start().connect()
    client.register("web1")
    manager.answers = False
    start = time.monotonic()
    for i in range(120):
        client.call("SetMemoryAttributes", vm="web1", guestPhysAddr=2 * i * MIB, memorySize=MIB, private=True)
        if time.monotonic() - start > 5:
            break
    else:
        raise AssertionError("no new generation was begun")
    # It is not asked again at each change.
    start = time.monotonic()
    for i in range(200, 210):
        client.call("SetMemoryAttributes", vm="web1", guestPhysAddr=2 * i * MIB, memorySize=MIB, private=True)
    assert time.monotonic() - start < 5
    before = everything(client)
    manager.answers = True
    client = manager.restart().connect()
    assert everything(client) == before
    assert len(manager.store) == 3
