# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stock QEMU of an ordinary user, as a service beside privmemd's: it crashes, privmemd restarts, and the next QEMU runs
on the same memory."""

import mmap
import os
import shutil
import signal

import pytest

import memory
from broker import wait_until
from machine import SOCKET
from memory import MIB
from user import ALICE
from wire import Client

QEMU = "qemu-system-x86_64"
SIZE = 64 * MIB
MARK = 40 * MIB  # where the firmware writes nothing
PATTERN = b"the guest's own" * 100

pytestmark = pytest.mark.skipif(not shutil.which(QEMU), reason=f"{QEMU} is not installed")


def command(service):
    """The firmware alone."""
    return ["privmemctl", "run", "web1", "--exit-policy=retain", f"--backing=ram0={SIZE}", "--", QEMU,
            "-machine", "q35,memory-backend=ram0", "-accel", "kvm" if service.has_kvm else "tcg", "-m", str(SIZE // MIB),
            "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none",
            "-object", f"memory-backend-file,id=ram0,size={SIZE},mem-path={{ram0}},share=on"]


def start(service, unit):
    """systemd's User= would want a user with a name."""
    service.run("systemd-run", f"--unit={unit}", "--collect", "setpriv", f"--reuid={ALICE}", f"--regid={ALICE}",
                "--groups=kvm", *command(service))
    wait_until(lambda: state(service) == "attached", 20, "that QEMU is attached")


def state(service):
    vms = service.varlink("ListVMs")["vms"]
    return vms[0]["state"] if vms else None


def hold(contract):
    """What a vhost-user backend does."""
    with Client(SOCKET, contract) as client:
        fd = client.call("OpenBacking", vm="web1", backing="ram0").fd
        hold.kept = mmap.mmap(fd, SIZE)
    return os.getpid()


def test_crash_and_replacement(service):
    service.expect("Failed with result", "Main process exited")
    start(service, "first")
    client = service.connect()
    wait_until(lambda: client.backing()["residentBytes"] > 0, 30, "that the firmware touched its memory")
    with service.connect() as opener:
        memory.write(opener.call("OpenBacking", vm="web1", backing="ram0").fd, PATTERN, MARK)
    backend = service.process(ALICE, hold, service.contract)
    service.signal(signal.SIGKILL)
    assert state(service) == "attached"

    service.run("systemctl", "kill", "--signal=KILL", "first.service")
    wait_until(lambda: state(service) == "retained")
    service.restart()
    fenced = service.run(*command(service), uid=ALICE, check=False)
    assert fenced.returncode != 0
    assert f"process {backend.result} (" in fenced.stderr
    assert state(service) == "retained"

    backend.kill()
    start(service, "second")
    with service.connect() as opener:
        ram = opener.call("OpenBacking", vm="web1", backing="ram0").fd
        assert memory.read(ram, len(PATTERN), MARK) == PATTERN
    service.run("systemctl", "kill", "--signal=KILL", "second.service")
    wait_until(lambda: state(service) == "retained")
