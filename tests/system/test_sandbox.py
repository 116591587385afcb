# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the unit lets privmemd do is enough for all that it does, and little more."""

import itertools
import os
import pathlib
import re

import pytest

import memory
from machine import SOCKET
from memory import HUGE_PAGE, MIB
from user import ALICE, BOB
from wire import Client, Refusal

CAPABILITIES = {"CAP_CHOWN": 0, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_SYS_PTRACE": 19}


def vmm(contract, name):
    """Runs in the machine: a VMM that has attached itself, with the first half of its memory in a slot. Returns where it
    has something else mapped."""
    client = Client(SOCKET, contract)
    client.register(name)
    client.call("AttachVM", vm=name)
    fd = client.allocate(vm=name, size=2 * MIB, numaPolicy="bind", numaNodes=[0]).fd
    address = memory.libc.mmap(None, MIB, 3, 1, fd, 0)
    other = memory.libc.mmap(None, MIB, 3, 0x22, -1, 0)  # MAP_PRIVATE | MAP_ANONYMOUS
    assert memory.MAP_FAILED not in (address, other)
    client.call("SetSlot", vm=name, slot=memory.slot(0, 0, MIB, backing="ram0", userspaceAddr=address))
    return other


def attempts(machine):
    """What needs a privilege: name -> a function that raises Refusal where privmemd may not."""
    alice = machine.connect(ALICE)

    def own():
        alice.register("own")
        status = os.fstat(alice.allocate(vm="own").fd)
        assert (status.st_uid, status.st_mode & 0o777) == (ALICE, 0o600)

    def read_only():
        alice.register("read-only")
        memory.fill(alice.allocate(vm="read-only").fd)
        lent = alice.call("OpenBacking", vm="read-only", backing="ram0", access="read_only").fd
        assert memory.read(lent, 1) == b"x"

    def adopt():
        fd = memory.memfd()
        try:
            os.fchown(fd, ALICE, ALICE)
            alice.register("adopt")
            alice.adopt(fd, vm="adopt")
            assert os.fstat(fd).st_mode & 0o777 == 0o600
        finally:
            os.close(fd)

    def look():
        other = machine.process(BOB, vmm, machine.contract, "look").result
        wrong = memory.slot(1, 1 << 30, MIB, backing="ram0", backingOffset=MIB, userspaceAddr=other)
        refusal = machine.connect(BOB).fails("SlotRefused", "SetSlot", vm="look", slot=wrong)
        assert refusal["verdict"]["rule"] == "mapping_mismatch"

    return {"own": own, "read_only": read_only, "adopt": adopt, "look": look}


def failing(machine):
    failed = set()
    for name, attempt in attempts(machine).items():
        try:
            attempt()
        except (Refusal, AssertionError):
            failed.add(name)
    return failed


def status(machine):
    text = pathlib.Path(f"/proc/{machine.daemon_pid()}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines())


# ---- what is there ----


def test_user_and_groups(service):
    found = status(service)
    user, group, kvm = (int(service.run("getent", *words).stdout.split(":")[2])
                        for words in (("passwd", "privmem"), ("group", "privmem"), ("group", "kvm")))
    assert found["Uid"].split() == 4 * [str(user)]
    assert found["Gid"].split() == 4 * [str(group)]
    assert set(found["Groups"].split()) == {str(group), str(kvm)}


def test_capabilities(service):
    found = status(service)
    wanted = sum(1 << number for number in CAPABILITIES.values())
    assert {name: int(found[name], 16) for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")} == dict.fromkeys(
        ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"), wanted)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_file_system(service):
    """It can write nowhere but in a /tmp of its own, and the socket is root's."""
    mounts = pathlib.Path(f"/proc/{service.daemon_pid()}/mountinfo").read_text()
    writable = {fields[4] for fields in map(str.split, mounts.splitlines()) if fields[5].split(",")[0] == "rw"}
    assert "/" not in writable
    for place in ("/etc", "/run/privmemd", "/var/lib", "/usr", "/dev"):
        (real,) = re.findall(r"^(\d+ \d+ \S+ / / ro\S*)", mounts, re.M)[:1] or [None]
        assert real and place not in writable
    for path in ("/run/privmemd", SOCKET):
        assert (service.root / path.lstrip("/")).stat().st_uid == 0
    assert (service.root / SOCKET.lstrip("/")).stat().st_mode & 0o777 == 0o666


def test_namespaces(service):
    daemon, init = (f"/proc/{pid}/ns/" for pid in (service.daemon_pid(), service.leader))
    for name in ("mnt", "net", "ipc", "cgroup"):
        assert os.readlink(daemon + name) != os.readlink(init + name), name
    assert os.readlink(daemon + "user") == os.readlink(init + "user")


def test_kvm(service):
    if not service.has_kvm:
        pytest.skip("/dev/kvm is missing")
    features = service.connect().call("GetHost")["features"]
    assert features["kvm"] is True
    assert features["cachestat"] is True


def test_host_is_the_same_as_outside(service):
    """/proc/sys, /sys and KVM show it what they show everybody."""
    inside = service.connect().call("GetHost")
    assert inside["kernelRelease"] == os.uname().release
    assert inside["features"]["noexecSeal"] is True
    nodes = {pool.get("node") for pool in inside["hugePagePools"]}
    sizes = os.listdir("/sys/kernel/mm/hugepages")
    assert len(inside["features"]["hugePageSizes"]) == len(sizes)
    assert not sizes or None in nodes


# ---- what works ----


def test_all_works(service):
    for attempt in attempts(service).values():
        attempt()


def test_no_system_call_is_denied(service):
    """With the same filter, but death for what it denies."""
    service.drop_in("[Service]\nSystemCallErrorNumber=kill\n")
    pid = service.restart()
    for attempt in attempts(service).values():
        attempt()
    client = service.connect(ALICE)
    client.call("PunchBacking", vm="own", backing="ram0", offset=0, size=4096)
    assert client.call("UnregisterVM", vm="own")["freedBytes"] == 0
    service.systemctl("reload", "privmemd.service")
    assert int(service.show("MainPID")) == pid
    service.systemctl("stop", "privmemd.service")
    assert service.show("Result") == "success"


@pytest.mark.parametrize("capability, needed_by", [
    ("CAP_CHOWN", {"own", "read_only", "adopt", "look"}),
    ("CAP_DAC_READ_SEARCH", {"read_only"}),
    ("CAP_FOWNER", {"adopt"}),
    ("CAP_SYS_PTRACE", {"look"}),
])
def test_each_capability_is_needed(service, capability, needed_by):
    left = " ".join(CAPABILITIES.keys() - {capability})
    service.drop_in("[Service]\nCapabilityBoundingSet=\nAmbientCapabilities=\n"
                    f"CapabilityBoundingSet={left}\nAmbientCapabilities={left}\n")
    service.restart()
    assert failing(service) == needed_by


def test_vmm_that_exits(service):
    process = service.process(ALICE, vmm, service.contract, "web1")
    client = service.connect(ALICE)
    events = service.connect(ALICE).stream("Subscribe")
    next(events)
    (vm,) = client.listed("ListVMs")
    assert (vm["state"], vm["ownerUID"], vm["slots"]) == ("attached", ALICE, 1)
    process.kill()
    assert [event["event"]["kind"] for event in itertools.islice(events, 3)] == [
        "vmm_exited", "backing_released", "vm_unregistered"]


def test_others_see_nothing(service):
    service.connect(ALICE).register("web1")
    assert service.varlink("ListVMs", uid=BOB) == {"vms": []}
    assert [vm["name"] for vm in service.varlink("ListVMs", uid=ALICE)["vms"]] == ["web1"]
    assert [vm["name"] for vm in service.varlink("ListVMs")["vms"]] == ["web1"]
    with pytest.raises(Refusal, match="NotPermitted"):
        service.varlink("UnregisterVM", {"vm": "web1"}, uid=BOB)


def test_privmemctl(service):
    service.run("privmemctl", "register", "web1", uid=ALICE)
    service.run("privmemctl", "allocate", "web1", "ram0", "16M", uid=ALICE)
    assert "16.0M" in service.run("privmemctl", "show", "web1", uid=ALICE).stdout
    service.run("privmemctl", "unregister", "web1", uid=ALICE)


def test_huge_pages(service, pages):
    client = service.connect(ALICE)
    client.register("web1")
    fd = client.allocate(size=2 * HUGE_PAGE, kind="hugetlb").fd
    memory.write(fd, b"x")
    assert client.backing()["residentBytes"] == HUGE_PAGE
    assert client.call("UnregisterVM", vm="web1")["freedBytes"] == HUGE_PAGE


def test_guest_memfd(service):
    try:
        fd, vm = memory.guest_memfd()
    except OSError as error:
        pytest.skip(f"no guest_memfd here: {error}")
    client = service.connect(ALICE)
    client.register("web1")
    assert client.adopt(fd)["backing"]["kind"] == "guest_memfd"
    os.close(fd)
    os.close(vm)
