# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stock QEMU that runs as an ordinary user on memory from privmemd, by the file descriptor that it inherits."""

import contextlib
import json
import os
import shutil
import socket
import subprocess

import pytest

import memory
import user
from broker import wait_until
from memory import MIB

QEMU = "qemu-system-x86_64"
SIZE = 64 * MIB

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which(QEMU), reason=f"{QEMU} is not installed"),
]


def open_kvm():
    """QEMU opens /dev/kvm itself, which this user may not; so it inherits it."""
    try:
        return os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None


class Machine:
    """The firmware alone, as the user; QMP on a socket pair."""

    def __init__(self, uid, ram, kvm, share):
        self.has_kvm = kvm is not None
        ours, theirs = socket.socketpair()
        fds = [ram, theirs.fileno()]
        accelerator = ["-accel", "tcg"]
        if kvm is not None:
            fds.append(kvm)
            accelerator = ["-add-fd", f"fd={kvm},set=1", "-accel", "kvm,device=/dev/fdset/1"]
        self.process = subprocess.Popen(
            ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups",
             QEMU, "-machine", "q35,memory-backend=ram0", *accelerator, "-m", str(SIZE // MIB), "-nodefaults",
             "-no-user-config", "-display", "none", "-monitor", "none", "-S",
             "-object", f"memory-backend-file,id=ram0,size={SIZE},mem-path=/proc/self/fd/{ram},share={share}",
             "-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"],
            pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        theirs.close()
        ours.settimeout(30)
        self.qmp = ours.makefile("rw", encoding="utf-8")
        self.socket = ours

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        greeting = self.qmp.readline()
        assert greeting, self.process.communicate(timeout=10)[0].decode()
        self.command("qmp_capabilities")
        self.command("cont")

    def command(self, name):
        self.qmp.write(json.dumps({"execute": name}) + "\n")
        self.qmp.flush()
        while "return" not in (answer := json.loads(self.qmp.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def mappings(self, inode):
        """Permissions of each mapping of the file."""
        with open(f"/proc/{self.pid}/maps", encoding="utf-8") as file:
            fields = [line.split() for line in file]
        return [line[1] for line in fields if int(line[4]) == inode]

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):
            self.qmp.close()
        self.socket.close()


@pytest.fixture
def boot():
    """Boots machines, and ends them."""
    booted = []

    def boot_machine(uid, ram, share="on"):
        kvm = open_kvm()
        try:
            booted.append(Machine(uid, ram, kvm, share))
        finally:
            if kvm is not None:
                os.close(kvm)
        booted[-1].start()
        return booted[-1]

    yield boot_machine
    for machine in booted:
        machine.end()


def attach(client, machine):
    pidfd = os.pidfd_open(machine.pid)
    client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[pidfd])
    os.close(pidfd)


def resident(client):
    return client.backing()["residentBytes"]


def test_qemu_of_an_ordinary_user_runs_on_a_backing(alice, boot):
    alice.register()
    backing = alice.allocate(size=SIZE)
    machine = boot(user.ALICE, backing.fd)
    with open(f"/proc/{machine.pid}/status", encoding="ascii") as file:
        assert f"Uid:\t{user.ALICE}\t" in file.read()
    assert "rw-s" in machine.mappings(alice.backing()["inode"])
    wait_until(lambda: resident(alice) > 0, 30, "that the firmware touched its memory")
    assert machine.command("query-kvm")["enabled"] == machine.has_kvm
    assert machine.command("query-status")["status"] == "running"


def test_qemu_of_another_user_cannot_reopen_the_backing(alice, boot):
    alice.register()
    backing = alice.allocate(size=SIZE)
    with pytest.raises(AssertionError, match="Permission denied"):
        boot(user.BOB, backing.fd)


def test_memory_outlives_a_killed_qemu(client, alice, boot):
    alice.register(exitPolicy="retain")
    backing = alice.allocate(size=SIZE)
    machine = boot(user.ALICE, backing.fd)
    attach(alice, machine)
    wait_until(lambda: resident(alice) > 0, 30, "that the firmware touched its memory")
    error = alice.fails("BackingInUse", "ReleaseBacking", vm="web1", backing="ram0")
    assert error["pid"] == machine.pid
    machine.end()
    wait_until(lambda: client.call("ListVMs")["vms"][0]["state"] == "retained")
    assert resident(alice) > 0
    assert alice.call("ReleaseBacking", vm="web1", backing="ram0")["freedBytes"] > 0
    assert memory.resident(backing.fd) == 0


@pytest.mark.parametrize("share", ["on", "off"])
def test_qemu_is_a_holder(alice, boot, share):
    """With share=off the guest's writes are not in the memory that privmemd keeps, and the list says so."""
    alice.register()
    machine = boot(user.ALICE, alice.allocate(size=SIZE).fd, share)
    attach(alice, machine)
    (found,) = [one for one in alice.call("ListHolders", vm="web1")["holders"] if one["pid"] == machine.pid]
    assert (found["command"], found["uid"], found["vmmOf"]) == (QEMU[:15], user.ALICE, ["web1"])
    seen = {"sharedBytes": found["sharedBytes"], "privateBytes": found["privateBytes"]}
    assert seen == {"sharedBytes": SIZE if share == "on" else 0, "privateBytes": 0 if share == "on" else SIZE}
    assert found["copiesOnWrite"] == (share == "off")
