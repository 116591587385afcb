# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills privmemd at a marked step while it is at work, starts the next one, and compares: what was acknowledged is
there with its bytes, and of the call that was not answered all is there or nothing.

usage: kill.py KILLS [SEED]        for ./dev fuzz kill: so many kills at steps chosen at random
"""

import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import contract as contract_module
import memory
from memory import PAGE, slot
from service_manager import ServiceManager
from wire import Closed, Refusal

# Each STEP() of daemon/, and how often it is passed before the kill, at most.
STEPS = {
    "enter.created": 6, "enter.bag": 6, "enter.ledger": 6,
    "leave.ledger": 3, "leave.punched": 3,
    "drop.ledger": 2,
    "attach.bag": 2, "attach.ledger": 2, "exit.ledger": 2,
    "slots.ledger": 8,
    "ledger.written": 1, "ledger.complete": 1, "ledger.stored": 1, "ledger.dropped": 1,
    "bag.packed": 1, "bag.stored": 1, "bag.dropped": 1,
    "bag.folded": 1, "bag.drained": 1,
    "start.read": 1, "start.fds": 1, "start.begun": 1,
}
OPERATIONS_MAX = 400  # until the step must have been reached
VMS, BACKINGS = 3, 6
HVA = 0x7E0000000000


class Wrong(Exception):
    """What was found is neither what was acknowledged nor that and the last call."""


def pattern(vm, name, size, seed):
    return random.Random(f"{vm} {name} {size} {seed}").randbytes(64)


class Model:
    """What is known to be acknowledged."""

    def __init__(self, vms=()):
        """Of each VM: backings {name: (size, bytes)}, slots {id: …}, private ranges, and its VMM's process."""
        self.vms = {name: {"backings": dict(vm["backings"]), "slots": dict(vm["slots"]),
                           "private": list(vm["private"]), "vmm": vm["vmm"]} for name, vm in dict(vms).items()}

    def copy(self):
        return Model(self.vms)

    def seen(self):
        return {name: {"backings": {key: size for key, (size, _) in vm["backings"].items()},
                       "slots": dict(vm["slots"]), "private": sorted(vm["private"]), "attached": vm["vmm"] is not None}
                for name, vm in self.vms.items()}


def joined(pieces):
    """Ranges, without the cuts that slots make."""
    ranges = []
    for start, size in sorted(pieces):
        if ranges and sum(ranges[-1]) == start:
            start, size = ranges[-1][0], ranges.pop()[1] + size
        ranges.append((start, size))
    return ranges


def look(client):
    """The same of a living privmemd."""
    seen = {}
    for vm in client.listed("ListVMs"):
        name = vm["name"]
        seen[name] = {
            "backings": {one["name"]: one["size"] for one in client.listed("ListBackings", vm=name)},
            "slots": {one["slot"]["slotId"]: (one["slot"]["guestPhysAddr"], one["slot"]["memorySize"],
                                              one["slot"]["backing"], one["slot"].get("backingOffset", 0))
                      for one in client.listed("ListSlots", vm=name)},
            "private": joined((one["guestPhysAddr"], one["memorySize"])
                              for one in client.listed("ListMemory", vm=name) if one["private"]),
            "attached": vm["state"] == "attached",
        }
    return seen


class Session:
    """One service manager, one privmemd after the other."""

    def __init__(self, directory, contract, seed, program="tests/kill/privmemd-steps"):
        self.manager = ServiceManager(directory, contract, program=program)
        self.random = random.Random(seed)
        self.model = Model()
        self.after = self.model  # what holds if the call that was not answered was done
        self.client = None
        self.processes = []

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.manager.close()

    # ---- changes: each says what would hold, calls, and returns ----

    def vm(self, has=None):
        names = [name for name, vm in self.after.vms.items() if not has or vm[has]]
        return self.random.choice(names) if names else None

    def register(self):
        name = f"vm{self.random.randrange(VMS)}"
        if name in self.after.vms:
            return
        self.after.vms[name] = {"backings": {}, "slots": {}, "private": [], "vmm": None}
        self.client.register(name, exitPolicy="retain")

    def add(self, adopt=False):
        vm = self.vm()
        name = f"ram{self.random.randrange(BACKINGS)}"
        if not vm or name in self.after.vms[vm]["backings"]:
            return
        size = PAGE * self.random.randrange(1, 64)
        data = pattern(vm, name, size, self.random.random())
        self.after.vms[vm]["backings"][name] = (size, data)
        if adopt:
            fd = memory.memfd(size)
            memory.write(fd, data)
            try:
                self.client.adopt(fd, name, vm)
            finally:
                os.close(fd)
        else:
            # What is written once it is acknowledged must be there.
            memory.write(self.client.allocate(name, size, vm).fd, data)

    def release(self):
        vm = self.vm("backings")
        if not vm:
            return
        name = self.random.choice(sorted(self.after.vms[vm]["backings"]))
        for other in self.after.vms.values():
            if any(one[2] == name for one in other["slots"].values()):
                return
        del self.after.vms[vm]["backings"][name]
        self.client.call("ReleaseBacking", vm=vm, backing=name)

    def unregister(self):
        vm = self.vm()
        if not vm or self.after.vms[vm]["vmm"] is not None or self.random.randrange(4):
            return
        del self.after.vms[vm]
        self.client.call("UnregisterVM", vm=vm)

    def set_slots(self):
        vm = self.vm("backings")
        if not vm:
            return
        state, slots = self.after.vms[vm], []
        for _ in range(self.random.randrange(1, 5)):
            number = self.random.randrange(12)
            name = self.random.choice(sorted(state["backings"]))
            gpa = number << 30
            if number in state["slots"]:
                slots.append(slot(number, gpa, 0))
                del state["slots"][number]
            elif not any(one[2] == name for one in state["slots"].values()):
                size = state["backings"][name][0]
                slots.append(slot(number, gpa, size, backing=name, userspaceAddr=HVA + gpa))
                state["slots"][number] = (gpa, size, name, 0)
        if state["vmm"] is None and slots:
            self.client.call("SetSlots", vm=vm, slots=slots)
        else:  # a living process has nothing mapped there
            self.after.vms[vm] = self.model.copy().vms[vm]

    def make_private(self):
        vm = self.vm()
        if not vm:
            return
        state, at = self.after.vms[vm], (2 * self.random.randrange(8)) << 20
        one = (at, 1 << 20)
        private = one not in state["private"]
        state["private"] = [other for other in state["private"] if other != one] + [one] * private
        self.client.call("SetMemoryAttributes", vm=vm, guestPhysAddr=at, memorySize=1 << 20, private=private)

    def attach(self):
        vm = self.vm()
        if not vm or self.after.vms[vm]["vmm"] is not None or self.after.vms[vm]["slots"]:
            return
        process = subprocess.Popen(["sleep", "1000"])
        self.processes.append(process)
        self.after.vms[vm]["vmm"] = process
        pidfd = os.pidfd_open(process.pid)
        try:
            self.client.call("AttachVM", vm=vm, pidFileDescriptor=0, fds=[pidfd])
        finally:
            os.close(pidfd)

    def end_vmm(self):
        vm = self.vm("vmm")
        if not vm:
            return
        process = self.after.vms[vm]["vmm"]
        self.after.vms[vm].update(vmm=None, slots={}, private=[])
        process.kill()
        process.wait()
        self.processes.remove(process)
        # Whoever ended is gone, whether privmemd has seen it or not.
        self.model = self.after.copy()
        while look(self.client)[vm]["attached"]:
            time.sleep(0.001)

    def change(self):
        self.after = self.model.copy()
        operations = [self.register, self.add, self.add, self.add, lambda: self.add(adopt=True), self.release,
                      self.release, self.unregister, self.set_slots, self.set_slots, self.make_private, self.attach,
                      self.end_vmm]
        self.random.choice(operations)()
        self.model = self.after

    # ---- kills ----

    def check(self):
        found = look(self.client)
        if found == self.after.seen():
            self.model = self.after
        elif found != self.model.seen():
            raise Wrong(f"found {found}\nacknowledged {self.model.seen()}\nwith the last call {self.after.seen()}")
        for name, vm in self.model.vms.items():
            for backing, (size, data) in vm["backings"].items():
                fd = self.client.call("OpenBacking", vm=name, backing=backing).fd
                have = memory.read(fd, len(data))
                acknowledged = backing in self.acknowledged.get(name, {})
                if os.fstat(fd).st_size != size or (have != data and acknowledged):
                    raise Wrong(f"backing {backing} of {name} is not what it was: {have!r}, not {data!r}")
                if not acknowledged:
                    memory.write(fd, data)
        if self.manager.daemon.stderr():
            raise Wrong(self.manager.daemon.stderr())
        if len(self.manager.store) != 3:
            raise Wrong(f"the store has {self.manager.names()}")

    def start(self, where=None):
        """Until it serves, or has died."""
        environment = {"PRIVMEMD_KILL_AT": where} if where else {}
        self.manager.start(environment=environment, wait=False)
        try:
            self.client = self.manager.daemon.connect()
            self.client.call("GetHost")
            return True
        except (Closed, OSError):
            return False

    def run_until_dead(self):
        for _ in range(OPERATIONS_MAX):
            self.acknowledged = {name: set(vm["backings"]) for name, vm in self.model.vms.items()}
            try:
                self.change()
            except (Closed, BrokenPipeError, ConnectionResetError):
                return
            if self.manager.daemon.process.poll() is not None:
                return
        self.acknowledged = {name: set(vm["backings"]) for name, vm in self.model.vms.items()}
        self.after = self.model
        self.manager.daemon.process.kill()

    def kill_at(self, step, count):
        """One kill; returns whether the step was reached."""
        self.acknowledged = {name: set(vm["backings"]) for name, vm in self.model.vms.items()}
        if self.start(f"{step}:{count}"):
            self.check()
            self.run_until_dead()
        reached = self.manager.wait_end() == -9
        if not self.start():
            raise Wrong(f"it does not start again: {self.manager.daemon.stderr()}")
        self.check()
        self.acknowledged = {name: set(vm["backings"]) for name, vm in self.model.vms.items()}
        self.after = self.model
        self.manager.end()
        return reached


def main():
    kills = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    choose = random.Random(seed)
    contract = contract_module.golden()
    for kill in range(kills):
        with tempfile.TemporaryDirectory(prefix="privmemd-") as directory:
            session = Session(pathlib.Path(directory), contract, choose.random())
            try:
                for _ in range(10):
                    step = choose.choice(sorted(STEPS))
                    session.kill_at(step, choose.randrange(STEPS[step]) + 1)
            except Wrong as wrong:
                sys.exit(f"seed {seed}, session {kill}: killed at {step}: {wrong}")
            finally:
                session.close()


if __name__ == "__main__":
    main()
