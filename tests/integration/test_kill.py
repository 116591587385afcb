# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every marked step, 20 kills each, with an fd store and without a service manager; ./dev fuzz kill does 10,000."""

import os
import pathlib
import re

import pytest

import memory
from inject import OWN_CALLS, Injector
from kill import CUSTODIES, SHMEM_NOISE, STEPS, Session, Wrong, check_shmem, shmem, steps_of
from tenant import HAS_GUEST_MEMFD, lose, showing

KILLS = 20
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "daemon"

pytestmark = [pytest.mark.plain, pytest.mark.timeout(120),
              pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")]


@pytest.fixture(scope="module")
def allocated():
    """How many bytes each test has allocated; after all tests they must be back."""
    before, sizes = shmem(), []
    yield sizes
    check_shmem(before, sum(sizes))


def test_every_step_is_here():
    marked = {name for file in SOURCE.rglob("*.c") for name in re.findall(r'\bSTEP\("([^"]+)"\)', file.read_text())}
    assert marked == set(STEPS)


@pytest.mark.parametrize("custody, step", [(custody, step) for custody in CUSTODIES for step in steps_of(custody)])
def test_kill_at(directory, contract, allocated, custody, step):
    session = Session(directory, contract, f"{custody} {step}", custody)
    try:
        reached = sum(session.kill_at(step) for _ in range(KILLS))
        session.finish()
        allocated.append(session.allocated())
    finally:
        session.close()
    assert reached >= KILLS * 3 // 4


# ---- that this could fail ----


@pytest.fixture
def injector(directory):
    return Injector(directory)


@pytest.fixture
def session(directory, contract, injector, request):
    session = Session(directory, contract, request.node.name)
    session.environment = injector.environment
    session.start_again()
    yield session
    session.close()


@pytest.mark.parametrize("kind", ["slot of another VM's memory", "guest_memfd", "slot of a guest_memfd"])
def test_there_is(session, kind):
    if "guest_memfd" in kind and not HAS_GUEST_MEMFD:
        pytest.skip("there is no guest_memfd here")
    for _ in range(100):
        assert session.work(5)
        if any(tenant.done[kind] for tenant in session.tenants):
            session.check()
            return
    raise AssertionError(f"no {kind} in 500 rounds")


def idle_backing(session):
    """The client, VM and name of a backing with bytes that nothing shows or maps, after some work."""
    while True:
        assert session.work(1, ["register", "allocate"])
        for tenant in session.tenants:
            for name, vm in tenant.model.items():
                for key in vm.backings:
                    if not vm.is_mapped(key) and not showing(tenant.model, name, key):
                        return tenant, name, key


def release(session):
    """The tenant knows of it."""
    tenant, name, key = idle_backing(session)
    tenant.client.call("ReleaseBacking", vm=name, backing=key)
    lose(tenant.model, name, key)


def leak_an_fd(session, injector):
    session.check()
    injector.arm(OWN_CALLS, 1, only="close")
    release(session)
    assert injector.disarm()[1] == 1


def leave_memory(session, injector):
    injector.arm(OWN_CALLS, 1, for_ever=True, only="fallocate64")
    release(session)
    assert injector.disarm()[1] > 0


def change_bytes(session, _):
    tenant, name, key = idle_backing(session)
    memory.write(tenant.client.call("OpenBacking", vm=name, backing=key).fd, b"other")


def lose_a_backing(session, _):
    tenant, name, key = idle_backing(session)
    tenant.client.call("ReleaseBacking", vm=name, backing=key)


def register_another(session, _):
    session.tenants[0].client.register("nobodys")


def say_something(session, _):
    with open(session.host.daemon.log, "a", encoding="utf-8") as log:
        log.write("privmemd: hello\n")


@pytest.mark.parametrize("fault, message", [
    (leak_an_fd, "fds for itself"), (leave_memory, "is no backing, lies in the bag, and has [1-9]"),
    (change_bytes, "is not what it was"), (lose_a_backing, "acknowledged"), (register_another, "nobody has registered"),
    (say_something, "hello")])
def test_the_check_notices(session, injector, fault, message):
    fault(session, injector)
    with pytest.raises(Wrong, match=message):
        session.check()


def test_the_check_notices_memory_that_is_left():
    before = shmem()
    fd = memory.memfd(4 * SHMEM_NOISE)
    memory.populate(fd)
    try:
        with pytest.raises(Wrong, match="shared memory"):
            check_shmem(before, 0, seconds=0.2)
    finally:
        os.close(fd)
    check_shmem(before, 0)
