# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of privmemd for a test that kills it: it does something at random, and knows what it was told. For each of
its VMs it has what is acknowledged, and what would hold if the call that is not answered yet was done."""

import collections
import ctypes
import dataclasses
import os
import random
import signal
import time
import typing

import memory
from memory import PAGE, libc, slot

VMS, BACKINGS, SLOTS, RANGES = 3, 6, 12, 8
HVA = 0x7E0000000000
RESERVED = 1 << 20  # bytes for each slot without a file
FDS_MAX = 4096  # of this process, for a child that closes them
DATA_SIZE = 64  # bytes at either end of a backing
RETAIN_USEC = 3000
PR_SET_PDEATHSIG = 1
PROT_READ_WRITE, MAP_SHARED, MAP_RESERVED = 3, 1, 0x4022  # private, anonymous, without memory

libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class VMM:
    """A process that has memory of VMs: some of it mapped, some as file descriptors, and addresses without a file."""

    def __init__(self, mapped=None, held=None):
        """Of each {identity: fd}."""
        sizes = {identity: os.fstat(fd).st_size for identity, fd in (mapped or {}).items()}
        self.mapped = {identity: libc.mmap(None, sizes[identity], PROT_READ_WRITE, MAP_SHARED, fd, 0)
                       for identity, fd in (mapped or {}).items()}
        self.reserved = libc.mmap(None, SLOTS * RESERVED, PROT_READ_WRITE, MAP_RESERVED, -1, 0)
        self.has = {*(mapped or {}), *(held or {})}
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live((held or {}).values())
        os.close(writing)
        assert os.read(reading, 1) == b""  # it has closed what is not its own
        os.close(reading)
        for identity, address in self.mapped.items():
            libc.munmap(address, sizes[identity])
        libc.munmap(self.reserved, SLOTS * RESERVED)

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
    data: bytes  # b"": of a guest_memfd that cannot be mapped here
    identity: tuple = None  # not known before the reply
    binder: VMM = None  # of a guest_memfd: with whom it goes
    shares: dict = dataclasses.field(default_factory=dict)  # {peer: access}

    def copy(self):
        return dataclasses.replace(self, shares=dict(self.shares))


class Slot(typing.NamedTuple):
    """What a slot shows, of its own VM or of another that shares it."""
    gpa: int
    size: int
    vm: str
    backing: str
    offset: int = 0
    read_only: bool = False
    private: bool = False


@dataclasses.dataclass
class Part:
    """What a VMM has of a VM."""
    vmm: VMM = None
    slots: dict = dataclasses.field(default_factory=dict)  # {id: Slot}
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

    def is_mapped(self, backing):
        identity = self.backings[backing].identity
        return any(part.vmm and identity in part.vmm.mapped for part in self.parts())


def copy(vms):
    return {name: vm.copy() for name, vm in vms.items()}


def showing(vms, name, backing):
    """The VMs that show it."""
    return {key for key, vm in vms.items() for part in vm.parts() for one in part.slots.values()
            if (one.vm, one.backing) == (name, backing)}


def is_shown_elsewhere(vms, name):
    return any(showing(vms, name, backing) - {name} for backing in vms[name].backings)


def lose(vms, name, backing):
    del vms[name].backings[backing]
    for vm in vms.values():
        for part in vm.parts():
            part.slots = {key: one for key, one in part.slots.items() if (one.vm, one.backing) != (name, backing)}


def without_memory_of_nobody(vms, with_strays=False):
    """What is left of the VMs when only living VMMs keep memory; with_strays: and those that were successors."""
    vms = copy(vms)
    vmms = [vmm for vm in vms.values() for vmm in (*vm.vmms(), *([vm.stray] if with_strays and vm.stray else []))]
    has = set().union(*(vmm.has for vmm in vmms))
    for name, vm in vms.items():
        for backing in [key for key, one in vm.backings.items() if one.identity not in has]:
            lose(vms, name, backing)
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
    """All VMs of a privmemd, and which files all backings are: {(VM, name): identity}."""
    vms, files = {}, {}
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
        files[one["vm"], one["name"]] = one["device"], one["inode"]
    for one in client.listed("ListSlots"):
        vms[one["vm"]]["slots"][bool(one.get("outgoing")), one["slot"]["slotId"]] = slot_seen(one["vm"], one["slot"])
    return vms, files


def slot_seen(vm, declared):
    flags = declared.get("flags") or []
    gpa, size, private = declared["guestPhysAddr"], declared["memorySize"], "guest_memfd" in flags
    if private:
        return Slot(gpa, size, vm, declared["guestMemfd"], declared.get("guestMemfdOffset", 0), private=True)
    return Slot(gpa, size, declared.get("backingVM", vm), declared.get("backing"), declared.get("backingOffset", 0),
                "readonly" in flags)


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
        self.parted = set()  # (VM, name) of guest_memfds that went with their VMM, since the last start
        self.done = collections.Counter()  # kinds of what it has done

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
        if not vm or self.random.randrange(3) or is_shown_elsewhere(self.after, name):
            return None
        self.forget(name)
        return Call("UnregisterVM", {"vm": name})

    def forget(self, name):
        del self.after[name]
        for vm in self.after.values():
            for one in vm.backings.values():
                one.shares.pop(name, None)

    def new_backing(self, is_wanted=lambda vm: True):
        name, vm = self.vm(is_wanted)
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
        one.identity = memory.identity(reply.fd)
        fill(reply.fd, one.data)

    def adopt(self):
        name, key, one = self.new_backing()
        if not name:
            return None
        fd = memory.memfd(one.size)
        fill(fd, one.data)
        one.identity = memory.identity(fd)
        return Call("AdoptBacking", {"vm": name, "name": key, "fileDescriptor": 0}, (fd,))

    def adopt_private(self):
        """A guest_memfd, as if the VMM had made it."""
        name, key, one = self.new_backing(lambda vm: vm.part.vmm) if HAS_GUEST_MEMFD else (None, None, None)
        if not name:
            return None
        fd, can_be_mapped = guest_memfd(one.size)
        one.data = one.data if can_be_mapped else b""
        fill(fd, one.data)
        one.identity, one.binder = memory.identity(fd), self.after[name].part.vmm
        self.done["guest_memfd"] += 1
        return Call("AdoptBacking", {"vm": name, "name": key, "fileDescriptor": 0}, (fd,))

    def backing(self, is_wanted=lambda vm, key: True):
        choices = [(name, key) for name, vm in self.after.items() for key in vm.backings if is_wanted(vm, key)]
        return self.random.choice(choices) if choices else (None, None)

    def release(self):
        name, key = self.backing(lambda vm, key: not vm.is_mapped(key))
        if not name or showing(self.after, name, key):
            return None
        del self.after[name].backings[key]
        return Call("ReleaseBacking", {"vm": name, "backing": key})

    def share(self):
        name, key = self.backing(lambda vm, key: not vm.backings[key].binder)
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
        if peer in showing(self.after, name, key):
            return None
        del shares[peer]
        return Call("ReclaimBacking", {"vm": name, "backing": key, "peer": peer})

    def set_slots(self):
        name, vm = self.vm(lambda vm: vm.backings)
        slots = [one for _ in range(self.random.randrange(1, 5)) for one in self.set_slot(name, vm)] if vm else []
        return Call("SetSlots", {"vm": name, "slots": slots}) if slots else None

    def to_show(self, name):
        """What a slot of the VM may show: its own, and what is shared with it by a VM that stays."""
        for owner, vm in self.after.items():
            for key, one in vm.backings.items():
                if owner == name or (vm.policy == "retain" and name in one.shares):
                    yield owner, key

    def set_slot(self, name, vm):
        number = self.random.randrange(SLOTS)
        owner, key = self.random.choice(list(self.to_show(name)))
        gpa, one = number << 30, self.after[owner].backings[key]
        if number in vm.part.slots:
            del vm.part.slots[number]
            yield slot(number, gpa, 0)
            return
        # Shown twice it would be an alias.
        if any((other.vm, other.backing) == (owner, key) for other in vm.part.slots.values()):
            return
        if one.binder:
            yield from self.set_private_slot(name, vm, number, key)
            return
        # A VMM that lives must have it mapped.
        hva = vm.part.vmm.mapped.get(one.identity) if vm.part.vmm else HVA + gpa
        if not hva:
            return
        read_only = one.shares.get(name) == "read_only"
        vm.part.slots[number] = Slot(gpa, one.size, owner, key, read_only=read_only)
        self.done["slot of another VM's memory"] += owner != name
        yield slot(number, gpa, one.size, backing=key, backingVM=owner, userspaceAddr=hva,
                   flags=["readonly"] if read_only else [])

    def set_private_slot(self, name, vm, number, key):
        one = vm.backings[key]
        if one.binder is not vm.part.vmm:
            return
        vm.part.slots[number] = Slot(number << 30, one.size, name, key, private=True)
        self.done["slot of a guest_memfd"] += 1
        yield slot(number, number << 30, one.size, flags=["guest_memfd"], guestMemfd=key,
                   userspaceAddr=vm.part.vmm.reserved + number * RESERVED)

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
        """It has the VM's memory, and what it may show of others, or some of it."""
        kinds = {"mapped": {}, "held": {}, "neither": {}}
        for owner, key in self.to_show(name):
            one = self.model[owner].backings[key]
            kind = "held" if one.binder else self.random.choice(["mapped", "mapped", "held", "neither"])
            kinds[kind][one.identity] = self.client.call("OpenBacking", vm=owner, backing=key).fd
        vmm = VMM(kinds["mapped"], kinds["held"])
        self.client.close_fds()
        self.vmms.append(vmm)
        return vmm

    def with_pidfd(self, method, name, vmm):
        return Call(method, {"vm": name, "pidFileDescriptor": 0}, (os.pidfd_open(vmm.pid),))

    def attach(self):
        # Slots that were declared before are of addresses that no VMM has.
        name, vm = self.vm(lambda vm: vm.state != "attached" and not vm.part.slots)
        if not vm or self.is_held_by_others(vm):
            return None
        vm.part.vmm = vm.stray or self.new_vmm(name)
        vm.state, vm.stray = "attached", None
        return self.with_pidfd("AttachVM", name, vm.part.vmm)

    def is_held_by_others(self, vm):
        """The fence lets nobody in while others have the memory, but for VMMs of VMs that it is shared with."""
        for one in vm.backings.values():
            allowed = [vm.stray, *(part.vmm for peer in one.shares for part in self.after[peer].parts())]
            if any(one.identity in vmm.has for vmm in self.vmms if vmm not in allowed):
                return True
        return False

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
            return self.end_either_vmm(name, vm)
        vmm, vm.stray, vm.successor = vm.part.vmm, vm.successor, None
        vm.part, vm.state = Part(), "retained"
        self.part_with(name, vmm)
        if vm.policy != "retain":
            self.forget(name)
            self.end_vmms_but([vmm])
        if vm.policy == "expire":
            self.leaving.add(name)
        return self.end(vmm)

    def end_either_vmm(self, name, vm):
        ended = self.random.choice(vm.parts())
        if ended is vm.part:
            vm.part = vm.outgoing
        vm.outgoing = None
        self.part_with(name, ended.vmm)
        return self.end(ended.vmm)

    def part_with(self, name, vmm):
        """No other VMM can bind its guest_memfds. A privmemd that has not seen it exit finds them lost."""
        backings = self.after[name].backings
        for key in [key for key, one in backings.items() if one.binder is vmm]:
            del backings[key]
            self.parted.add((name, key))

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
    if data:
        memory.write(fd, data)
        memory.write(fd, data, os.fstat(fd).st_size - len(data))


def guest_memfd(size):
    """A guest_memfd, and whether it can be mapped. It keeps its VM of KVM."""
    for flags in (memory.GUEST_MEMFD_MMAP | memory.GUEST_MEMFD_INIT_SHARED, 0):
        try:
            fd, vm = memory.guest_memfd(size, flags)
        except OSError:
            if flags == 0:
                raise
        else:
            os.close(vm)
            return fd, flags != 0


def has_guest_memfd():
    try:
        os.close(guest_memfd(PAGE)[0])
        return True
    except OSError:
        return False


HAS_GUEST_MEMFD = has_guest_memfd()


OPERATIONS = ("register", "register", "unregister", "allocate", "allocate", "allocate", "adopt",
              "adopt_private", "release", "release",
              "share", "reclaim", "set_slots", "set_slots", "set_private", "attach", "attach", "name_successor",
              "take_over", "end_successor", "end_vmm")
