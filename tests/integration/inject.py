# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the n-th allocation or system call of privmemd fail: tests/inject/fail.c, preloaded."""

import contextlib
import errno
import mmap
import os
import select
import struct
import subprocess

from broker import binary, wait_until
from memory import MIB, PAGE, slot
from service_manager import ServiceManager
from wire import Closed, Refusal

HVA = 0x7E0000000000
START_SECONDS = 20
CLOSING_SECONDS = 2  # between its connections and itself
PATIENCE = 1  # seconds, for an answer that sd-varlink may not give

OWN_MEMORY, OWN_CALLS, LIBRARY_MEMORY, LIBRARY_CALLS = (1 << i for i in range(4))
LAYOUT = struct.Struct("IIIIII32s32s")


class Injector:
    def __init__(self, directory):
        self.path = directory / "fail"
        self.path.write_bytes(bytes(mmap.PAGESIZE))
        with open(self.path, "r+b") as file:
            self.control = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {"LD_PRELOAD": binary("tests/inject/fail.so"), "PRIVMEMD_FAIL": str(self.path)}

    def arm(self, which, nth=0, error=errno.ENOMEM, for_ever=False, only=""):
        """nth 0: only counts."""
        self.control[4:LAYOUT.size] = LAYOUT.pack(0, nth, for_ever, error, 0, 0, only.encode(), b"")[4:]
        self.control[:4] = struct.pack("I", which)

    def disarm(self):
        """How many were reached, how many failed, and the name of the last one that did."""
        self.control[:4] = bytes(4)
        _, _, _, _, reached, failed, _, name = LAYOUT.unpack_from(self.control)
        return reached, failed, name.rstrip(b"\0").decode()


def look(client):
    """All that a client can see, but for what a second run has otherwise."""
    seen = {}
    for vm in client.vms():
        name = vm["name"]
        seen[name] = [vm, *(client.listed(method, vm=name) for method in ("ListBackings", "ListSlots", "ListMemory"))]
        for backing in seen[name][1]:
            backing.pop("inode", None)
    return seen


def answers(client, pidfd):
    client.send("GetHost", {})
    readable, _, _ = select.select([client.socket, pidfd], [], [], START_SECONDS)
    assert readable, "it neither serves nor ends"
    if client.socket not in readable:
        return False
    with contextlib.suppress(Refusal):  # the failure came late
        client.receive_reply("GetHost")
    return True


def serving_client(connect, pid):
    """A client that it answers, or None if it has ended. What failed may have been the first connection."""
    pidfd = os.pidfd_open(pid)
    try:
        for _ in range(2):
            with contextlib.suppress(Closed, ConnectionError):
                client = connect()
                client.socket.settimeout(PATIENCE)
                return client if answers(client, pidfd) else None
            if select.select([pidfd], [], [], CLOSING_SECONDS)[0]:
                return None
        raise AssertionError("it ends connections, and does not end itself")
    finally:
        os.close(pidfd)


class Session:
    """A privmemd with something of each kind, and what VMMs there are."""

    def __init__(self, directory, contract, injector):
        directory.mkdir()
        self.injector = injector
        self.manager = ServiceManager(directory, contract)
        self.processes = {}
        self.start()
        self.furnish()
        # One that has just started has made room for nothing yet.
        self.restart()

    def start(self):
        assert self.try_start()
        self.be_known()

    def be_known(self):
        """sd-varlink opens a pidfd of the peer when it is first asked for one, and keeps it as long as the connection."""
        self.client.fails("ClaimInvalid", "RedeemClaim", vm="none", token="", attach=True)

    def try_start(self):
        """Whether it serves; else it has ended."""
        self.manager.start(environment=self.injector.environment, wait=False)
        self.client = serving_client(self.manager.daemon.connect, self.manager.daemon.pid)
        return self.client is not None

    def restart(self):
        self.manager.end()
        self.start()

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.manager.close()

    def process(self, name):
        if name not in self.processes:
            self.processes[name] = subprocess.Popen(["sleep", "1000"])
        return self.processes[name].pid

    def end_process(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def with_process(self, method, vm, name):
        pidfd = os.pidfd_open(self.process(name))
        try:
            self.client.call(method, vm=vm, pidFileDescriptor=0, fds=[pidfd])
        finally:
            os.close(pidfd)

    def state(self, vm):
        return next((one["state"] for one in self.client.listed("ListVMs") if one["name"] == vm), None)

    def furnish(self):
        client = self.client
        for vm, policy in [("web1", "retain"), ("web2", "retain"), ("run", "retain"), ("brief", "release"),
                           ("kept", "retain"), ("old", "retain")]:
            client.register(vm, exitPolicy=policy)
            client.allocate("ram0", vm=vm)
        client.allocate("ram1", size=3 * PAGE)
        client.call("ShareBacking", vm="web2", backing="ram0", peer="web1", access="read_only")
        client.call("SetSlot", vm="web1", slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=HVA))
        client.call("SetMemoryAttributes", vm="web2", guestPhysAddr=MIB, memorySize=2 * MIB, private=True)
        self.with_process("AttachVM", "run", "runner")
        self.with_process("AttachVM", "brief", "short")
        self.with_process("AttachVM", "old", "outgoing")
        self.with_process("HandOverVM", "old", "incoming")
        self.with_process("AttachVM", "kept", "first")
        self.end_process("first")
        wait_until(lambda: self.state("kept") == "retained")
        self.claims = {vm: client.call("CreateClaim", vm=vm) for vm in ("web2", "kept")}

    def recover(self):
        """There is a privmemd, and it answers."""
        self.client.close()
        self.client = serving_client(self.manager.daemon.connect, self.manager.daemon.pid)
        if self.client:
            self.be_known()
            return
        self.manager.wait_end()
        self.start()
