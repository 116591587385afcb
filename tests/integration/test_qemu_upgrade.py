# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stock QEMU is replaced by another one on the same memory, which privmemd hands over; and a replacement that fails."""

import contextlib
import json
import os
import shutil
import socket
import subprocess

import pytest

import memory
from broker import binary, wait_until
from memory import MIB

QEMU = "qemu-system-x86_64"
SIZE = 64 * MIB
MARK = 48 * MIB  # the firmware does not touch it
PATTERN = b"the guest's own" * 100

pytestmark = [
    pytest.mark.skipif(not shutil.which(QEMU), reason=f"{QEMU} is not installed"),
    pytest.mark.timeout(120),
]


class Machine:
    """The firmware alone, under privmemctl run, which becomes QEMU; QMP on a socket pair."""

    def __init__(self, daemon, options, machine="q35", arguments=()):
        ours, theirs = socket.socketpair()
        accelerator = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"
        self.process = subprocess.Popen(
            [binary("client/privmemctl"), f"--socket={daemon.path}", "run", "web1", f"--backing=ram0={SIZE}", *options,
             "--", QEMU, "-machine", f"{machine},memory-backend=ram0", "-accel", accelerator, "-m", str(SIZE // MIB),
             "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-S",
             "-object", f"memory-backend-file,id=ram0,size={SIZE},mem-path={{ram0}},share=on",
             "-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control", *arguments],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        theirs.close()
        ours.settimeout(60)
        self.socket = ours
        self.qmp = ours.makefile("rw", encoding="utf-8")
        greeting = self.qmp.readline()
        assert greeting, self.process.communicate(timeout=10)[0].decode()
        self.command("qmp_capabilities")
        self.command("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    @property
    def pid(self):
        return self.process.pid

    def command(self, name, **arguments):
        self.qmp.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while "return" not in (answer := json.loads(self.qmp.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def status(self):
        return self.command("query-status")["status"]

    def wait_for_migration(self):
        def is_done():
            state = self.command("query-migrate").get("status")
            assert state != "failed"
            return state == "completed"
        wait_until(is_done, 60, "the migration")

    def save(self, path):
        """Everything but the RAM, which stays where it is."""
        self.command("stop")
        self.command("migrate", uri=f"file:{path}")
        self.wait_for_migration()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):
            self.qmp.close()
        self.socket.close()


@pytest.fixture
def boot(daemon):
    """Boots machines, and ends them."""
    booted = []

    def boot_machine(*arguments, **options):
        booted.append(Machine(daemon, *arguments, **options))
        return booted[-1]

    yield boot_machine
    for machine in booted:
        machine.end()


@pytest.fixture
def old(client, boot):
    """Runs, and has something in its memory that the next one must find there."""
    machine = boot(["--exit-policy=retain"])
    machine.command("cont")
    wait_until(lambda: client.backing()["residentBytes"] > 0, 30, "that the firmware touched its memory")
    return machine


def pids(client):
    vm = client.call("ListVMs", vm="web1")["vms"][0]
    return vm.get("pid"), vm.get("outgoingPID")


def test_upgrade(daemon, client, boot, old, directory):
    ram = client.call("OpenBacking", vm="web1", backing="ram0").fd
    memory.write(ram, PATTERN, MARK)
    old.save(directory / "state")
    new = boot(["--take-over"], arguments=["-incoming", "defer"])
    assert pids(client) == (new.pid, old.pid)
    new.command("migrate-incoming", uri=f"file:{directory / 'state'}")
    new.wait_for_migration()
    old.end()
    wait_until(lambda: pids(client) == (new.pid, None))
    new.command("cont")
    assert new.status() == "running"
    assert memory.read(ram, len(PATTERN), MARK) == PATTERN
    # The RAM did not go through the file.
    assert os.stat(directory / "state").st_size < 4 * MIB
    new.end()
    wait_until(lambda: client.call("ListVMs", vm="web1")["vms"][0]["state"] == "retained")
    assert memory.read(ram, len(PATTERN), MARK) == PATTERN


def test_upgrade_that_fails(daemon, client, boot, old, directory):
    ram = client.call("OpenBacking", vm="web1", backing="ram0").fd
    memory.write(ram, PATTERN, MARK)
    old.save(directory / "state")
    new = boot(["--take-over"], machine="pc", arguments=["-incoming", "defer"])
    assert pids(client) == (new.pid, old.pid)
    new.command("migrate-incoming", uri=f"file:{directory / 'state'}")
    assert new.process.wait(60) == 1
    wait_until(lambda: pids(client) == (old.pid, None))
    old.command("cont")
    assert old.status() == "running"
    assert memory.read(ram, len(PATTERN), MARK) == PATTERN
    # And once more, with the right one.
    old.save(directory / "again")
    new = boot(["--take-over"], arguments=["-incoming", "defer"])
    new.command("migrate-incoming", uri=f"file:{directory / 'again'}")
    new.wait_for_migration()
    old.end()
    wait_until(lambda: pids(client) == (new.pid, None))
    new.command("cont")
    assert new.status() == "running"
