# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of privmemd for a test that kills it: it does something at random, and knows what it was told. For each of
its VMs it has what is acknowledged, and what would hold if the call that is not answered yet was done."""

import ctypes
import dataclasses
import os
import random
import signal
import time

import memory
from memory import PAGE, libc, slot

VMS, BACKINGS, SLOTS, RANGES = 3, 6, 12, 8
HVA = 0x7E0000000000
FDS_MAX = 4096  # of this process, for a child that closes them
DATA_SIZE = 64  # bytes at either end of a backing
RETAIN_USEC = 3000
PR_SET_PDEATHSIG = 1
PROT_READ_WRITE, MAP_SHARED = 3, 1

libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class VMM:
    """A process that has memory of a VM: some of it mapped, some as file descriptors."""

    def __init__(self, mapped=None, held=None):
        """Of each {inode: fd}."""
        sizes = {inode: os.fstat(fd).st_size for inode, fd in (mapped or {}).items()}
        self.mapped = {inode: libc.mmap(None, sizes[inode], PROT_READ_WRITE, MAP_SHARED, fd, 0)
                       for inode, fd in (mapped or {}).items()}
        self.has = {*(mapped or {}), *(held or {})}
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live((held or {}).values())
        os.close(writing)
        assert os.read(reading, 1) == b""  # it has closed what is not its own
        os.close(reading)
        for inode, address in self.mapped.items():
            libc.munmap(address, sizes[inode])

    @staticmethod
    def _live(kept):
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            first = 3
            for fd in sorted(kept):
                os.closerange(first, fd)
                first = fd + 1
            os.closerange(first, FDS_MAX)
            while True:
                signal.pause()
        finally:
            os._exit(1)

    def end(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


@dataclasses.dataclass
class Backing:
    size: int
    data: bytes
    inode: int = 0  # not known before the reply
    shares: dict = dataclasses.field(default_factory=dict)  # {peer: access}

    def copy(self):
        return dataclasses.replace(self, shares=dict(self.shares))


@dataclasses.dataclass
class Part:
    """What a VMM has of a VM."""
    vmm: VMM = None
    slots: dict = dataclasses.field(default_factory=dict)  # {id: (gpa, size, backing, offset)}
    private: set = dataclasses.field(default_factory=set)  # {(gpa, size)}

    def copy(self):
        return Part(self.vmm, dict(self.slots), set(self.private))


@dataclasses.dataclass
class VM:
    policy: str  # retain, release, expire
    state: str = "registered"
    backings: dict = dataclasses.field(default_factory=dict)
    part: Part = dataclasses.field(default_factory=Part)
    outgoing: Part = None
    successor: VMM = None
    stray: VMM = None  # was a successor when the VMM ended: the fence lets nobody else in

    def copy(self):
        return dataclasses.replace(
            self, backings={name: one.copy() for name, one in self.backings.items()}, part=self.part.copy(),
            outgoing=self.outgoing and self.outgoing.copy())

    def parts(self):
        return [self.part, self.outgoing] if self.outgoing else [self.part]

    def vmms(self):
        return [vmm for vmm in (self.part.vmm, self.outgoing and self.outgoing.vmm, self.successor) if vmm]

    def is_shown(self, backing):
        return any(one[2] == backing for part in self.parts() for one in part.slots.values())

    def is_mapped(self, backing):
        inode = self.backings[backing].inode
        return any(part.vmm and inode in part.vmm.mapped for part in self.parts())

    def lose(self, backing):
        del self.backings[backing]
        for part in self.parts():
            part.slots = {key: one for key, one in part.slots.items() if one[2] != backing}


def copy(vms):
    return {name: vm.copy() for name, vm in vms.items()}


def without_memory_of_nobody(vms, with_strays=False):
    """What is left of the VMs when only living VMMs keep memory; with_strays: and those that were successors."""
    vms = copy(vms)
    for vm in vms.values():
        has = set().union(*(vmm.has for vmm in vm.vmms()), vm.stray.has if with_strays and vm.stray else ())
        for name in [name for name, one in vm.backings.items() if one.inode not in has]:
            vm.lose(name)
    return vms


def joined(pieces):
    """Ranges, without the cuts that slots make."""
    ranges = []
    for start, size in sorted(pieces):
        if ranges and sum(ranges[-1]) == start:
            start, size = ranges[-1][0], ranges.pop()[1] + size
        ranges.append((start, size))
    return ranges


def seen(vms):
    """The VMs as look() sees them."""
    return {
        name: {
            "state": vm.state,
            "pids": [vmm and vmm.pid for vmm in (vm.part.vmm, vm.successor, vm.outgoing and vm.outgoing.vmm)],
            "backings": {key: (one.size, one.shares) for key, one in vm.backings.items()},
            "slots": {(i > 0, key): one for i, part in enumerate(vm.parts()) for key, one in part.slots.items()},
            "private": joined(vm.part.private),
        } for name, vm in vms.items()}


def look(client):
    """All VMs of a privmemd, and the inodes of all backings: {(VM, name): inode}."""
    vms, inodes = {}, {}
    for vm in client.listed("ListVMs"):
        name = vm["name"]
        vms[name] = {
            "state": vm["state"],
            "pids": [vm.get("pid"), vm.get("successorPID"), vm.get("outgoingPID")],
            "backings": {}, "slots": {},
            "private": joined((one["guestPhysAddr"], one["memorySize"])
                              for one in client.listed("ListMemory", vm=name) if one["private"]),
        }
    for one in client.listed("ListBackings"):
        shares = {share["vm"]: share["access"] for share in one.get("shares") or []}
        vms[one["vm"]]["backings"][one["name"]] = (one["size"], shares)
        inodes[one["vm"], one["name"]] = one["inode"]
    for one in client.listed("ListSlots"):
        declared = one["slot"]
        vms[one["vm"]]["slots"][bool(one.get("outgoing")), declared["slotId"]] = (
            declared["guestPhysAddr"], declared["memorySize"], declared.get("backing"), declared.get("backingOffset", 0))
    return vms, inodes


@dataclasses.dataclass
class Call:
    method: str
    parameters: dict = dataclasses.field(default_factory=dict)
    fds: tuple = ()
    then: callable = lambda reply: None


class Tenant:
    def __init__(self, name, seed):
        self.name = name
        self.random = random.Random(f"{seed} {name}")
        self.model = {}
        self.after = {}
        self.leaving = set()  # VMs whose time is running out
        self.client = None
        self.call = None  # the one that is not answered
        self.allocated = 0  # bytes
        self.vmms = []

    def close(self):
        for vmm in self.vmms:
            vmm.end()

    # ---- calls ----

    def send(self, favourites=()):
        """Does something, or begins to."""
        while not self.call:
            self.after = copy(self.model)
            name = self.random.choice(favourites if favourites and self.random.random() < 0.7 else OPERATIONS)
            changed = self.after
            try:
                self.call = getattr(self, name)()
            except Exception:
                if self.after is changed:
                    self.after = self.model
                raise
            if not self.call and self.after is changed:
                self.after = self.model
        self.client.send(self.call.method, self.call.parameters, self.call.fds)
        for fd in self.call.fds:
            os.close(fd)

    def receive(self):
        """The answer to what was sent."""
        reply, _ = self.client.receive_reply(self.call.method)
        self.call.then(reply)
        self.call = None
        self.client.close_fds()
        self.model = self.after

    def end_life(self):
        """privmemd is dead."""
        self.call = None
        if self.client:
            self.client.close()
        self.client = None

    # ---- operations: each changes what will hold, and returns the call ----

    def vm(self, is_wanted=lambda vm: True):
        names = [name for name, vm in self.after.items() if is_wanted(vm)]
        name = self.random.choice(names) if names else None
        return name, self.after.get(name)

    def register(self):
        name = f"{self.name}-{self.random.randrange(VMS)}"
        if name in self.after:
            return None
        self.wait_for_leaving()
        vm = self.after[name] = VM(self.random.choice(["retain", "retain", "release", "expire"]))
        parameters = {"exitPolicy": "release" if vm.policy == "release" else "retain"}
        if vm.policy == "expire":
            parameters["retainUSec"] = RETAIN_USEC
        return Call("RegisterVM", {"name": name, **parameters})

    def unregister(self):
        name, vm = self.vm(lambda vm: vm.state != "attached")
        if not vm or self.random.randrange(3):
            return None
        self.forget(name)
        return Call("UnregisterVM", {"vm": name})

    def forget(self, name):
        del self.after[name]
        for vm in self.after.values():
            for one in vm.backings.values():
                one.shares.pop(name, None)

    def new_backing(self):
        name, vm = self.vm()
        key = f"ram{self.random.randrange(BACKINGS)}"
        if not vm or key in vm.backings:
            return None, None, None
        one = vm.backings[key] = Backing(PAGE * self.random.randrange(16, 128), self.random.randbytes(DATA_SIZE))
        self.allocated += one.size
        return name, key, one

    def allocate(self):
        name, key, one = self.new_backing()
        return name and Call("AllocateBacking", {"vm": name, "name": key, "size": one.size},
                             then=lambda reply: self.write(reply, one))

    def write(self, reply, one):
        """What is written once it is acknowledged must be there."""
        one.inode = os.fstat(reply.fd).st_ino
        fill(reply.fd, one.data)

    def adopt(self):
        name, key, one = self.new_backing()
        if not name:
            return None
        fd = memory.memfd(one.size)
        fill(fd, one.data)
        one.inode = os.fstat(fd).st_ino
        return Call("AdoptBacking", {"vm": name, "name": key, "fileDescriptor": 0}, (fd,))

    def backing(self, is_wanted=lambda vm, key: True):
        choices = [(name, key) for name, vm in self.after.items() for key in vm.backings if is_wanted(vm, key)]
        return self.random.choice(choices) if choices else (None, None)

    def release(self):
        name, key = self.backing(lambda vm, key: not vm.is_shown(key) and not vm.is_mapped(key))
        if not name:
            return None
        del self.after[name].backings[key]
        return Call("ReleaseBacking", {"vm": name, "backing": key})

    def share(self):
        name, key = self.backing()
        peer, vm = self.vm()
        if not name or not vm or peer == name or peer in self.after[name].backings[key].shares:
            return None
        access = self.random.choice(["read_only", "read_write"])
        self.after[name].backings[key].shares[peer] = access
        return Call("ShareBacking", {"vm": name, "backing": key, "peer": peer, "access": access})

    def reclaim(self):
        name, key = self.backing(lambda vm, key: vm.backings[key].shares)
        if not name:
            return None
        shares = self.after[name].backings[key].shares
        peer = self.random.choice(sorted(shares))
        del shares[peer]
        return Call("ReclaimBacking", {"vm": name, "backing": key, "peer": peer})

    def set_slots(self):
        name, vm = self.vm(lambda vm: vm.backings)
        slots = [one for _ in range(self.random.randrange(1, 5)) for one in self.set_slot(vm)] if vm else []
        return Call("SetSlots", {"vm": name, "slots": slots}) if slots else None

    def set_slot(self, vm):
        number, key = self.random.randrange(SLOTS), self.random.choice(sorted(vm.backings))
        gpa, one = number << 30, vm.backings[key]
        if number in vm.part.slots:
            del vm.part.slots[number]
            yield slot(number, gpa, 0)
            return
        # A VMM that lives must have it mapped, and shown twice it would be an alias.
        hva = vm.part.vmm.mapped.get(one.inode) if vm.part.vmm else HVA + gpa
        if hva and not any(other[2] == key for other in vm.part.slots.values()):
            vm.part.slots[number] = (gpa, one.size, key, 0)
            yield slot(number, gpa, one.size, backing=key, userspaceAddr=hva)

    def set_private(self):
        name, vm = self.vm()
        if not vm:
            return None
        at = (2 * self.random.randrange(RANGES)) << 20
        vm.part.private ^= {(at, 1 << 20)}
        return Call("SetMemoryAttributes", {"vm": name, "guestPhysAddr": at, "memorySize": 1 << 20,
                                            "private": (at, 1 << 20) in vm.part.private})

    # ---- VMMs ----

    def new_vmm(self, name):
        """It has the VM's memory, or some of it."""
        kinds = {"mapped": {}, "held": {}, "neither": {}}
        for key, one in self.model[name].backings.items():
            kind = self.random.choice(["mapped", "mapped", "held", "neither"])
            kinds[kind][one.inode] = self.client.call("OpenBacking", vm=name, backing=key).fd
        vmm = VMM(kinds["mapped"], kinds["held"])
        self.client.close_fds()
        self.vmms.append(vmm)
        return vmm

    def with_pidfd(self, method, name, vmm):
        return Call(method, {"vm": name, "pidFileDescriptor": 0}, (os.pidfd_open(vmm.pid),))

    def attach(self):
        # Slots that were declared before are of addresses that no VMM has.
        name, vm = self.vm(lambda vm: vm.state != "attached" and not vm.part.slots)
        if not vm:
            return None
        vm.part.vmm = vm.stray or self.new_vmm(name)
        vm.state, vm.stray = "attached", None
        return self.with_pidfd("AttachVM", name, vm.part.vmm)

    def name_successor(self):
        name, vm = self.vm(lambda vm: vm.state == "attached" and not vm.outgoing and not vm.successor)
        if not vm:
            return None
        vm.successor = self.new_vmm(name)
        return self.with_pidfd("HandOverVM", name, vm.successor)

    def take_over(self):
        name, vm = self.vm(lambda vm: vm.successor)
        if not vm:
            return None
        vm.outgoing, vm.part, vm.successor = vm.part, Part(vm.successor), None
        return self.with_pidfd("AttachVM", name, vm.part.vmm)

    def end(self, vmm):
        """Whoever has ended is gone, whether privmemd has seen it or not; what it does then is done before a call."""
        vmm.end()
        self.vmms.remove(vmm)
        self.model = self.after
        return Call("GetHost")

    def end_successor(self):
        _, vm = self.vm(lambda vm: vm.successor)
        if not vm:
            return None
        vmm, vm.successor = vm.successor, None
        return self.end(vmm)

    def end_vmm(self):
        name, vm = self.vm(lambda vm: vm.part.vmm)
        if not vm:
            return None
        if vm.outgoing:
            return self.end_either_vmm(vm)
        vmm, vm.stray, vm.successor = vm.part.vmm, vm.successor, None
        vm.part, vm.state = Part(), "retained"
        if vm.policy != "retain":
            self.forget(name)
            self.end_vmms_but([vmm])
        if vm.policy == "expire":
            self.leaving.add(name)
        return self.end(vmm)

    def end_either_vmm(self, vm):
        ended = self.random.choice(vm.parts())
        if ended is vm.part:
            vm.part = vm.outgoing
        vm.outgoing = None
        return self.end(ended.vmm)

    def end_vmms_but(self, others=()):
        """Ends those that no VM knows."""
        known = [*others, *(vmm for vm in self.after.values() for vmm in (*vm.vmms(), vm.stray))]
        for vmm in [vmm for vmm in self.vmms if vmm not in known]:
            vmm.end()
            self.vmms.remove(vmm)

    def wait_for_leaving(self):
        """Until every VM whose time has run out is gone."""
        deadline = time.monotonic() + 10
        while self.leaving & {vm["name"] for vm in self.client.listed("ListVMs")}:
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.leaving} were to be retained for {RETAIN_USEC} µs only")
            time.sleep(0.001)
        self.leaving.clear()


def fill(fd, data):
    """All pages are in memory, and either end has the data."""
    memory.populate(fd)
    memory.write(fd, data)
    memory.write(fd, data, os.fstat(fd).st_size - len(data))


OPERATIONS = ("register", "register", "unregister", "allocate", "allocate", "allocate", "adopt", "release", "release",
              "share", "reclaim", "set_slots", "set_slots", "set_private", "attach", "attach", "name_successor",
              "take_over", "end_successor", "end_vmm")
