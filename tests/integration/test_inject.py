# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each allocation and each system call of each operation fails once. The answer is an error of the interface, or
success; nothing has changed, or everything; no fd is left over; and the next privmemd has what was seen."""

import errno
import itertools
import os
from types import SimpleNamespace

import pytest

import memory
from broker import binary, wait_until
from hugepages import pool
from inject import HVA, LIBRARY_CALLS, LIBRARY_MEMORY, OWN_CALLS, OWN_MEMORY, Injector, Session, look
from memory import HUGE_PAGE, MIB, PAGE, slot
from wire import INTERFACE, Closed, Refusal

pytestmark = [pytest.mark.plain, pytest.mark.timeout(120),
              pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")]

ERRORS = [errno.ENOMEM, errno.EMFILE, errno.ENOSPC]
NTH_MAX = 2000
ALIKE_FROM, ALIKE_STEP = 60, 29
# Of a library's failures, of which there are many, so many go without a kill.
LIBRARY_KILL_EVERY = 8
GONE = (Closed, BrokenPipeError, ConnectionResetError, TimeoutError)


# ---- the operations ----


def adopt(session):
    fd = memory.memfd(2 * MIB)
    try:
        session.client.adopt(fd, "given", vm="web2")
    finally:
        os.close(fd)


def end_vmm(vm, process, state):
    def run(session):
        session.end_process(process)
        wait_until(lambda: session.state(vm) == state)
    return run


def call(method, **parameters):
    return lambda session: session.client.call(method, **parameters)


def redeem(vm, **parameters):
    return lambda session: session.client.call("RedeemClaim", vm=vm, token=session.claims[vm]["token"], **parameters)


def delete_claim(session):
    session.client.call("DeleteClaim", vm="web2", claim=session.claims["web2"]["claim"])


def streamed(method, **parameters):
    return lambda session: list(session.client.stream(method, **parameters))


BATCH = [slot(0, 0, 0), slot(1, MIB, MIB, backing="ram0", userspaceAddr=HVA + MIB),
         slot(2, 4 * MIB, 3 * PAGE, backing="ram1", userspaceAddr=HVA + 4 * MIB)]

HUGE = "AllocateBacking of huge pages"
OPERATIONS = {
    "RegisterVM": call("RegisterVM", name="web9", exitPolicy="retain"),
    "AllocateBacking": call("AllocateBacking", vm="web1", name="ram9", size=MIB),
    "AllocateBacking bound": call("AllocateBacking", vm="web1", name="ram9", size=MIB, numaPolicy="bind",
                                  numaNodes=[0]),
    HUGE: call("AllocateBacking", vm="web1", name="ram9", size=HUGE_PAGE, kind="hugetlb"),
    "AdoptBacking": adopt,
    "OpenBacking": call("OpenBacking", vm="web1", backing="ram0"),
    "OpenBacking for reading": call("OpenBacking", vm="web1", backing="ram0", access="read_only"),
    "ShareBacking": call("ShareBacking", vm="web1", backing="ram1", peer="web2", access="read_write"),
    "ReclaimBacking": call("ReclaimBacking", vm="web2", backing="ram0", peer="web1"),
    "CreateClaim": call("CreateClaim", vm="web1"),
    "DeleteClaim": delete_claim,
    "RedeemClaim": redeem("web2"),
    "RedeemClaim and attach": redeem("web2", attach=True),
    "RedeemClaim behind the fence": redeem("kept", attach=True),
    "SetSlot": call("SetSlot", vm="web2", slot=slot(3, 0, MIB, backing="ram0", userspaceAddr=HVA)),
    "SetSlot of none": call("SetSlot", vm="web1", slot=slot(0, 0, 0)),
    "SetSlots": call("SetSlots", vm="web1", slots=BATCH),
    "SetMemoryAttributes": call("SetMemoryAttributes", vm="web2", guestPhysAddr=16 * MIB, memorySize=MIB,
                                private=True),
    "AttachVM": lambda session: session.with_process("AttachVM", "web2", "vmm"),
    "AttachVM behind the fence": lambda session: session.with_process("AttachVM", "kept", "vmm"),
    "AttachVM of a successor": lambda session: session.with_process("AttachVM", "old", "incoming"),
    "HandOverVM": lambda session: session.with_process("HandOverVM", "run", "vmm"),
    "ReleaseBacking": call("ReleaseBacking", vm="web1", backing="ram1"),
    "PunchBacking": call("PunchBacking", vm="web1", backing="ram0", offset=0, size=PAGE),
    "UnregisterVM": call("UnregisterVM", vm="kept"),
    "UnregisterVM with a share": call("UnregisterVM", vm="web2"),
    "exit to retain": end_vmm("run", "runner", "retained"),
    "exit to release": end_vmm("brief", "short", None),
    "exit of a successor": end_vmm("old", "incoming", "attached"),
    "ListHolders": streamed("ListHolders", vm="run"),
    "CheckSlots": call("CheckSlots", vm="web1", slots=BATCH),
    "GetHost": call("GetHost"),
}
# They change what is there already, and what they write down has its place in memory.
CERTAIN = ("ReclaimBacking", "SetMemoryAttributes", "DeleteClaim")
WRITE = "pwritev64"


class Trial:
    """Sessions that are alike, one after the other."""

    def __init__(self, directory, contract, operation):
        self.directory, self.contract = directory, contract
        self.operation = operation
        self.injector = Injector(directory)
        self.count = itertools.count()
        self.session = None
        self.renew()
        self.before = self.seen()
        self.fds = self.settled_fds()
        self.operation(self.session)
        self.after = self.seen()
        self.delta = self.settled_fds() - self.fds
        self.renew()

    def close(self):
        if self.session:
            self.session.close()

    def renew(self):
        self.close()
        self.session = Session(self.directory / str(next(self.count)), self.contract, self.injector)

    def settled_fds(self):
        self.session.manager.daemon.settle()
        return self.session.manager.daemon.count_fds()

    def settled(self, state):
        """Pids differ between sessions."""
        names = {process.pid: name for name, process in self.session.processes.items()}
        for vm, *_ in state.values():
            for field in ("pid", "outgoingPID", "successorPID"):
                if field in vm:
                    vm[field] = names.get(vm[field], vm[field])
        return state

    def seen(self):
        return self.settled(look(self.session.client))

    def run(self, which, nth, error):
        """Returns whether something failed, whether the answer was success, and where it failed."""
        self.injector.arm(which, nth, error)
        answered = True
        try:
            self.operation(self.session)
            success = True
        except Refusal as refusal:
            assert refusal.error != "org.varlink.service.InvalidParameter"
            success = False
        except GONE as error:
            assert which != LIBRARY_CALLS or not isinstance(error, TimeoutError), "no answer, and the connection is open"
            answered = success = False
        _, failed, name = self.injector.disarm()
        # sd-varlink and sd-event may close a connection, let it be, or abort.
        assert answered or which in (LIBRARY_MEMORY, LIBRARY_CALLS), f"{name}: no answer"
        if not answered or not self.is_open():
            self.session.recover()
        return failed, success, name

    def is_open(self):
        """A connection that is not closed is one that answers."""
        try:
            self.session.client.call("GetHost")
            return True
        except (Closed, BrokenPipeError, ConnectionResetError):
            return False

    def check(self, which, nth, success, name, kill):
        where = f"{name}, {nth} of {which}"
        assert self.session.manager.daemon.process.poll() is None, where
        seen = self.seen()
        assert seen in (self.before, self.after), f"{where}: neither before nor after"
        assert not success or seen == self.after, f"{where}: success, and nothing happened"
        wanted = self.fds + (self.delta if seen == self.after else 0)
        # A VMM whose mappings cannot be read has none open.
        fewest = wanted - (name == "open64")
        daemon = self.session.manager.daemon
        wait_until(lambda: fewest <= daemon.count_fds() <= wanted, 5, f"{where}: {wanted} fds, not {daemon.fds()}")
        if kill:
            self.session.restart()
            assert self.seen() == seen, f"{where}: the next privmemd has something else"
            assert len(self.session.manager.store) == 3, where
        if seen != self.before:
            self.renew()

    def exhaust(self, which):
        nth = 1
        while nth < NTH_MAX:
            failed, success, name = self.run(which, nth, ERRORS[nth % len(ERRORS)])
            self.check(which, nth, success, name, not failed or which != LIBRARY_MEMORY or
                       nth % LIBRARY_KILL_EVERY == 0)
            if not failed:
                return nth
            # A look at all processes makes the same calls for each.
            nth += 1 if nth < ALIKE_FROM else ALIKE_STEP
        raise AssertionError(f"it fails {NTH_MAX} times")


@pytest.fixture
def trial(directory, contract, request):
    trial = Trial(directory, contract, OPERATIONS[request.param])
    yield trial
    trial.close()


@pytest.mark.parametrize("trial", [name for name in OPERATIONS if name not in (HUGE, *CERTAIN)], indirect=True)
def test_each_failure_of(trial):
    assert trial.exhaust(OWN_MEMORY) + trial.exhaust(OWN_CALLS) > 2


@pytest.mark.parametrize("trial", CERTAIN, indirect=True)
def test_nothing_fails_where_nothing_is_needed(trial):
    assert trial.exhaust(OWN_MEMORY) + trial.exhaust(OWN_CALLS) == 2


@pytest.mark.parametrize("operation", [*CERTAIN, "SetSlot", "RegisterVM", "CreateClaim", "RedeemClaim"])
def test_ledger_in_a_directory_that_cannot_be_written(directory, start, operation):
    """A memfd is a mapping; a file is written, which may fail: once, and then for good."""
    injector = Injector(directory)
    (directory / "state").mkdir(mode=0o700)
    command = [binary(), f"--socket={directory / 'socket'}", f"--ledger={directory / 'state'}"]
    client = start(command=command, environment=injector.environment, is_quiet=False).connect()
    for vm in ("web1", "web2"):
        client.register(vm, exitPolicy="retain")
        client.allocate("ram0", vm=vm)
    client.call("ShareBacking", vm="web2", backing="ram0", peer="web1", access="read_only")
    session = SimpleNamespace(client=client, claims={"web2": client.call("CreateClaim", vm="web2")})
    before = look(client)
    injector.arm(OWN_CALLS, 1, errno.EIO, for_ever=True, only=WRITE)
    try:
        OPERATIONS[operation](session)
        refused = False
    except Refusal as refusal:
        assert refusal.error == f"{INTERFACE}.CustodyFull"
        refused = True
    assert injector.disarm()[1] > 1
    assert refused == (look(client) == before)
    if not refused:
        return  # what is given up is given up; the next change makes a new ledger
    injector.arm(OWN_CALLS, 1, errno.EIO, only=WRITE)
    OPERATIONS[operation](session)
    assert injector.disarm()[1] == 1
    assert look(client) != before


@pytest.mark.parametrize("trial", [HUGE], indirect=True)
def test_each_failure_with_huge_pages(pages, trial):
    assert trial.exhaust(OWN_MEMORY) + trial.exhaust(OWN_CALLS) > 2
    trial.close()
    trial.session = None
    wait_until(lambda: pool("free_hugepages") - pool("resv_hugepages") == pages, 5, "that no huge page is left over")


@pytest.mark.parametrize("trial", ["AllocateBacking", "SetSlots", "AttachVM"],
                         indirect=True)
def test_no_memory_for_a_library(trial):
    assert trial.exhaust(LIBRARY_MEMORY) > 20


@pytest.mark.parametrize("trial", ["AllocateBacking", "SetSlots", "AttachVM", "ListHolders", "GetHost"], indirect=True)
def test_each_call_of_a_library(trial):
    """A connection is closed rather than silent."""
    assert trial.exhaust(LIBRARY_CALLS) > 1
