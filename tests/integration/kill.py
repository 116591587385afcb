# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills privmemd at a marked step while it is at work, starts the next one, and compares: what was acknowledged is
there with its bytes, of a call that was not answered all is there or nothing, and nothing else is left.

usage: kill.py KILLS [SECONDS]    for ./dev fuzz kill: so many at steps chosen at random; PRIVMEMD_SEED repeats them
"""

import os
import pathlib
import random
import re
import select
import stat
import sys
import tempfile
import time
import warnings

import contract as contract_module
import memory
from broker import Daemon, binary
from service_manager import ServiceManager
from tenant import DATA_SIZE, Tenant, fill, look, seen, without_memory_of_nobody
from wire import Client, Closed

PROGRAM = "tests/kill/privmemd-steps"
# Each STEP() of daemon/: before which pass the kill is at the latest, and what leads there.
STEPS = {
    "enter.created": (6, ["allocate"]), "enter.bag": (6, ["allocate", "adopt"]),
    "enter.ledger": (6, ["allocate", "adopt"]),
    "leave.ledger": (3, ["allocate", "release"]), "leave.punched": (3, ["allocate", "release"]),
    "drop.ledger": (2, ["register", "allocate", "unregister", "attach", "end_vmm"]),
    "attach.bag": (3, ["attach", "name_successor", "take_over", "end_vmm"]),
    "attach.ledger": (3, ["attach", "name_successor", "take_over", "end_vmm"]),
    "exit.ledger": (2, ["attach", "end_vmm"]),
    "successor.ledger": (2, ["attach", "name_successor", "end_successor", "end_vmm"]),
    "hand-over.ended": (2, ["attach", "name_successor", "take_over", "end_vmm"]),
    "slots.ledger": (6, ["allocate", "set_slots"]),
    "commit.begun": (20, []), "commit.done": (20, []),
    "ledger.written": (2, ["set_slots", "set_private"]), "ledger.complete": (2, ["set_slots", "set_private"]),
    "ledger.stored": (2, ["set_slots", "set_private"]), "ledger.dropped": (2, ["set_slots", "set_private"]),
    "bag.folded": (2, ["allocate", "adopt", "release"]), "bag.drained": (2, ["allocate", "adopt", "release"]),
    "bag.packed": (3, ["allocate", "release"]), "bag.stored": (3, ["allocate", "release"]),
    "bag.dropped": (3, ["allocate", "release"]),
    "start.read": (1, []), "start.fds": (1, []), "start.begun": (1, []),
}
# Where it does not get to by itself: when a reply has come, and at any instant.
OUTSIDE = {"reply": (30, []), "any": (30, [])}
CUSTODIES = ("fd_store", "file")
TENANTS = 3
ROUNDS_MAX = 150  # until the step must have been reached
ROUNDS_BEFORE_START = 8
KILLS_PER_SESSION = 25
START_SECONDS = 20
INSTANT_MAX = 0.002  # seconds
SHMEM_SECONDS = 20
GONE = (Closed, BrokenPipeError, ConnectionResetError)
SHMEM_NOISE = 64 << 20
LOST = re.compile(r"privmemd: backing (\S+) of VM (\S+), \d+ bytes, is lost: no living VMM has it, and there is no fd store")


def steps_of(custody):
    """Those that there are; without an fd store there is no bag."""
    return sorted(step for step in {**STEPS, **OUTSIDE} if custody == "fd_store" or not step.startswith("bag."))


class Wrong(Exception):
    """What was found is neither what was acknowledged nor that and the last call."""


class Alone:
    """privmemd without a service manager: what ServiceManager is, without it."""

    def __init__(self, directory, contract):
        self.directory = pathlib.Path(directory)
        self.contract = contract
        self.path = self.directory / "socket"
        self.daemon = None

    def start(self, **options):
        self.daemon = Daemon(self.directory, self.contract, path=self.path, **options,
                             command=[binary(PROGRAM), f"--socket={self.path}", f"--ledger={self.directory}"])

    def wait_end(self):
        return self.daemon.process.wait(START_SECONDS)

    def close(self):
        if self.daemon:
            self.daemon.process.kill()
            self.wait_end()


def shmem():
    """Bytes of the whole host."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Shmem:"))


def check_shmem(before, allocated, seconds=SHMEM_SECONDS):
    """Of what was allocated and released, all memory of the host is back, within what others do meanwhile."""
    tolerated = max(allocated // 4, SHMEM_NOISE)
    deadline = time.monotonic() + seconds
    while (left := shmem() - before) > tolerated:
        if time.monotonic() > deadline:
            raise Wrong(f"{left} bytes of shared memory are left, and {allocated} were allocated")
        time.sleep(0.1)


class Session:
    """One privmemd after the other."""

    def __init__(self, directory, contract, seed, custody="fd_store"):
        self.is_stored = custody == "fd_store"
        self.host = ServiceManager(directory, contract, program=PROGRAM) if self.is_stored else Alone(directory, contract)
        self.random = random.Random(seed)
        self.tenants = [Tenant(f"vm{i}", seed) for i in range(TENANTS)]
        self.said = ""  # on standard error, since the last check
        self.heard = 0  # characters of the one that runs
        self.base = None  # how many fds privmemd has for itself
        self.environment = {}  # of privmemd

    def close(self):
        for tenant in self.tenants:
            tenant.end_life()
            tenant.close()
        self.host.close()

    def allocated(self):
        return sum(tenant.allocated for tenant in self.tenants)

    # ---- starting ----

    def start(self, step=None, count=1):
        """Returns whether it serves; else it has died."""
        marked = step in STEPS
        kill = {"PRIVMEMD_KILL_AT": f"{step}:{count}"} if marked else {}
        self.host.start(environment={**self.environment, **kill}, wait=False)
        process = self.host.daemon.process
        pidfd = os.pidfd_open(process.pid)
        try:
            for tenant in self.tenants:
                tenant.client = self.connect(pidfd)
                tenant.client.send("GetHost", {})
            for tenant in self.tenants:
                readable, _, _ = select.select([tenant.client.socket, pidfd], [], [], START_SECONDS)
                if tenant.client.socket not in readable:
                    raise Closed
                tenant.client.receive_reply("GetHost")
            return True
        except (Closed, OSError):
            self.die()
            return False
        finally:
            os.close(pidfd)

    def connect(self, pidfd):
        while True:
            try:
                return Client(self.host.path, self.host.contract)
            except (FileNotFoundError, ConnectionRefusedError):
                if select.select([pidfd], [], [], 0.001)[0]:
                    raise Closed from None

    def die(self):
        """Returns its exit status."""
        for tenant in self.tenants:
            tenant.end_life()
        status = self.host.wait_end()
        self.listen()
        self.host.daemon.log.unlink()
        self.heard = 0
        return status

    def listen(self):
        text = self.host.daemon.stderr()
        self.said += text[self.heard:]
        self.heard = len(text)

    def start_again(self):
        if not self.start():
            raise Wrong(f"it does not start again: {self.said}")
        self.check()

    # ---- comparing ----

    def check(self):
        client = self.tenants[0].client
        self.listen()
        for tenant in self.tenants:
            tenant.wait_for_leaving()
        found, files = look(client)
        for tenant in self.tenants:
            self.choose(tenant, {name: vm for name, vm in found.items() if name.startswith(tenant.name + "-")})
            tenant.end_vmms_but()
        if extra := found.keys() - {name for tenant in self.tenants for name in tenant.model}:
            raise Wrong(f"nobody has registered {extra}")
        for tenant in self.tenants:
            self.check_bytes(tenant, files)
        self.check_said()
        self.check_fds(set(files.values()))
        if self.is_stored:
            self.check_store(set(files.values()))

    def choose(self, tenant, found):
        """What was acknowledged, or that and the call that was not answered."""
        matching = [(vms, kept) for vms in (tenant.after, tenant.model) for kept in self.kept(vms) if found == seen(kept)]
        if matching:
            tenant.lost = set.intersection(*(self.backings(vms) - self.backings(kept) for vms, kept in matching))
            tenant.may_be_lost = self.backings(tenant.model) | self.backings(tenant.after) | tenant.parted
            tenant.parted = set()
            tenant.model = tenant.after = matching[0][1]
            return
        raise Wrong(f"found {found}\nacknowledged {seen(tenant.model)}\nwith the last call {seen(tenant.after)}")

    def kept(self, vms):
        """What the next process may have of them. It may have seen a successor before it saw that the VMM is gone."""
        if self.is_stored:
            return [vms]
        return [without_memory_of_nobody(vms), without_memory_of_nobody(vms, with_strays=True)]

    @staticmethod
    def backings(vms):
        return {(name, key) for name, vm in vms.items() for key in vm.backings}

    def check_bytes(self, tenant, files):
        for name, vm in tenant.model.items():
            for key, one in vm.backings.items():
                fd = tenant.client.call("OpenBacking", vm=name, backing=key).fd
                if not one.identity:  # nobody was told
                    fill(fd, one.data)
                    one.identity = files[name, key]
                ends = [memory.read(fd, DATA_SIZE, at) for at in (0, one.size - DATA_SIZE)] if one.data else []
                if (os.fstat(fd).st_size != one.size or any(end != one.data for end in ends) or
                        {memory.identity(fd), files[name, key]} != {one.identity}):
                    raise Wrong(f"backing {key} of {name} is not what it was: {ends}, not {one.data!r} twice")
        tenant.client.close_fds()

    def check_said(self):
        """Nothing, but of each backing that is lost that it is."""
        said = [LOST.fullmatch(line) for line in self.said.splitlines()]
        named = {(match[2], match[1]) for match in said if match}
        lost = set().union(*(tenant.lost for tenant in self.tenants))
        ended = {one for one in named if one[0] not in {name for tenant in self.tenants for name in tenant.model}}
        may_be = ended.union(*(tenant.may_be_lost for tenant in self.tenants))
        if not all(said) or (self.is_stored and named) or not lost <= named <= may_be:
            raise Wrong(f"it said\n{self.said}\nlost are {lost}, and may be {may_be}")
        self.said = ""

    def check_fds(self, files):
        """One of each backing, and what it has for itself and for the processes that it knows."""
        vmms = [vmm for tenant in self.tenants for vm in tenant.model.values() for vmm in vm.vmms()]
        successors = [vm.successor for tenant in self.tenants for vm in tenant.model.values() if vm.successor]
        pid = self.host.daemon.pid
        self.tenants[0].client.call("GetHost")  # what it has sent is closed by then
        status = [os.stat(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        backings = sorted((one.st_dev, one.st_ino) for one in status if (one.st_dev, one.st_ino) in files)
        if backings != sorted(files):
            raise Wrong(f"it has fds of {backings}, and backings {sorted(files)}")
        # A pidfd and the mappings of a VMM, a pidfd of a successor.
        others = len(status) - len(files) - 2 * len(vmms) + len(successors)
        self.base = self.base or others
        if others != self.base:
            raise Wrong(f"it has {others} fds for itself, and had {self.base}: {self.host.daemon.fds()}")

    def check_store(self, files):
        self.host.settle()
        names = self.host.names()
        if [re.sub("[0-9]+", "N", name) for name in names] != ["bag-N", "bag-N", "ledger-N"]:
            raise Wrong(f"the store has {names}")
        for status, resident in self.host.parked():
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in files and resident > 0:
                raise Wrong(f"inode {status.st_ino} is no backing, lies in the bag, and has {resident} bytes")

    def check_empty(self):
        """When all is released, nothing is left."""
        for tenant in self.tenants:
            tenant.leaving |= {name for name, vm in tenant.model.items() if vm.policy == "expire" and vm.part.vmm}
            tenant.close()
        for tenant in self.tenants:
            tenant.wait_for_leaving()
        client = self.tenants[0].client
        for one in client.listed("ListSlots"):
            client.call("SetSlot", vm=one["vm"], slot=memory.slot(one["slot"]["slotId"], 0, 0))
        for vm in client.listed("ListVMs"):
            client.call("UnregisterVM", vm=vm["name"])
        for tenant in self.tenants:
            tenant.model = tenant.after = {}
        self.check()

    # ---- kills ----

    def round(self, favourites):
        """Something of each tenant at once."""
        for tenant in self.tenants:
            tenant.send(favourites)
        for tenant in self.tenants:
            tenant.receive()

    def work(self, rounds, favourites=()):
        """Returns whether it is still alive."""
        if all(self.lives(self.round, favourites) for _ in range(rounds)):
            return True
        self.receive_rest()
        return False

    @staticmethod
    def lives(function, *arguments):
        try:
            function(*arguments)
            return True
        except GONE:
            return False

    def receive_rest(self):
        """What it answered before it died is acknowledged."""
        for tenant in self.tenants:
            if tenant.call:
                self.lives(tenant.receive)

    def kill_outside(self, step, count):
        self.work(self.random.randrange(1, count + 1))
        if step == "any":
            for tenant in self.tenants:
                tenant.send()
            time.sleep(self.random.random() * INSTANT_MAX)
        self.host.daemon.process.kill()
        self.receive_rest()

    def kill_at(self, step):
        """One start that ends with a kill; returns whether that was at the step."""
        count, favourites = {**STEPS, **OUTSIDE}[step]
        count = self.random.randrange(count) + 1
        if step.startswith("start."):
            self.start_again()
            self.kill_outside("reply", ROUNDS_BEFORE_START)
            self.die()
        if not self.start(step, count):
            # So there is something to do for the next one.
            self.start_again()
            self.kill_outside("reply", ROUNDS_BEFORE_START)
            self.die()
            return True
        if step in OUTSIDE:
            self.check()
            self.kill_outside(step, count)
            self.die()
            return True
        is_alive = self.lives(self.check) and self.work(ROUNDS_MAX, favourites)
        if is_alive:
            self.host.daemon.process.kill()
        if self.die() != -9:
            raise Wrong(f"it ended by itself: {self.said}")
        return not is_alive

    def finish(self):
        self.start_again()
        self.check_empty()


def fuzz(seed, kills, seconds, contract):
    """Returns how many kills there were."""
    done, deadline, before, allocated = 0, time.monotonic() + seconds, shmem(), 0
    for number in range(kills):
        choose = random.Random(f"{seed} {number}")
        custody = choose.choice(CUSTODIES)
        step = "nothing"
        with tempfile.TemporaryDirectory(prefix="privmemd-") as directory:
            session = Session(directory, contract, f"{seed} {number}", custody)
            try:
                for _ in range(KILLS_PER_SESSION):
                    step = choose.choice(steps_of(custody))
                    session.kill_at(step)
                    done += 1
                session.finish()
                allocated += session.allocated()
            except Exception as error:
                error.add_note(f"PRIVMEMD_SEED={seed}, session {number}, {custody}, after {done} kills, last at {step}")
                raise
            finally:
                session.close()
        if done >= kills or time.monotonic() > deadline:
            break
    check_shmem(before, allocated)
    return done


def main():
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    seed = os.environ.get("PRIVMEMD_SEED") or str(random.randrange(1 << 32))
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else float("inf")
    done = fuzz(seed, int(sys.argv[1]), seconds, contract_module.golden())
    print(f"{done} kills, seed {seed}: whatever was acknowledged was there, and nothing else")


if __name__ == "__main__":
    main()
