# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a file descriptor that privmemd hands out can do, and what its holder cannot make of it."""

import fcntl
import mmap
import os
import stat

import pytest

import memory
import user
from memory import EXEC, GROW, MIB, PAGE, SEAL, SHRINK

PROT_READ, PROT_WRITE = mmap.PROT_READ, mmap.PROT_WRITE


def test_seals(client, vm):
    fd = client.allocate().fd
    wanted = SEAL | SHRINK | GROW
    if client.call("GetHost")["features"]["noexecSeal"]:
        wanted |= EXEC
    assert memory.seals(fd) == wanted
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, memory.F_ADD_SEALS, memory.WRITE)


@pytest.mark.parametrize("size", [0, MIB - PAGE, MIB + PAGE])
def test_size_cannot_change(client, vm, size):
    fd = client.allocate(size=MIB).fd
    with pytest.raises(PermissionError):
        os.ftruncate(fd, size)


def test_memory_cannot_be_executed(client, vm):
    fd = client.allocate().fd
    if not client.call("GetHost")["features"]["noexecSeal"]:
        pytest.skip("this kernel has no MFD_NOEXEC_SEAL")
    with pytest.raises(PermissionError):
        os.fchmod(fd, 0o700)


@pytest.mark.root
@pytest.mark.parametrize("owner", [0, user.ALICE])
def test_mode_and_owner(client, owner):
    client.register(ownerUID=owner)
    status = os.fstat(client.allocate().fd)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, owner)


def test_privmemd_keeps_its_fds_over_no_exec(daemon, client, vm, donation):
    """What it creates, duplicates and receives is close-on-exec."""
    client.allocate()
    client.adopt(donation(), "ram1")
    client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[pidfd := os.pidfd_open(os.getpid())])
    os.close(pidfd)
    for fd, link in daemon.fds().items():
        if fd > 2:
            with open(f"/proc/{daemon.pid}/fdinfo/{fd}", encoding="ascii") as file:
                flags = int(file.read().split("flags:")[1].split()[0], 8)
            assert flags & os.O_CLOEXEC, link


def test_grant_is_close_on_exec_at_a_careful_receiver(client, vm):
    assert fcntl.fcntl(client.allocate().fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_read_only_grant_is_read_only(client, vm):
    client.allocate()
    fd = client.call("OpenBacking", vm="web1", backing="ram0", access="read_only").fd
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


# ---- a second user who was lent a file descriptor for reading ----


def attempt_everything(fd, daemon_pid, owner_pid, owner_fd):
    """Runs as a user who holds fd for reading only; returns what succeeded in making it writable."""
    won = []

    def attempt(what, function, *arguments):
        try:
            function(*arguments)
            won.append(what)
        except OSError:
            pass

    def protect():
        mapped = memory.libc.mmap(None, PAGE, PROT_READ, mmap.MAP_SHARED, fd, 0)
        if mapped == memory.MAP_FAILED:
            raise AssertionError("the file descriptor cannot even be read")
        if memory.libc.mprotect(memory.ctypes.c_void_p(mapped), PAGE, PROT_READ | PROT_WRITE) < 0:
            raise OSError
    for path in (f"/proc/self/fd/{fd}", f"/dev/fd/{fd}", f"/proc/{owner_pid}/fd/{owner_fd}",
                 *(f"/proc/{daemon_pid}/fd/{n}" for n in range(3, 24))):
        attempt(f"open {path} for writing", os.open, path, os.O_RDWR)
        attempt(f"truncate {path}", os.truncate, path, 0)
        attempt(f"chmod {path}", os.chmod, path, 0o777)
    attempt("mmap for writing", mmap.mmap, fd, PAGE, mmap.MAP_SHARED, PROT_READ | PROT_WRITE)
    attempt("mprotect", protect)
    attempt("pwrite", os.pwrite, fd, b"x", 0)
    attempt("fchmod", os.fchmod, fd, 0o777)
    attempt("fchown", os.fchown, fd, os.getuid(), -1)
    attempt("ftruncate", os.ftruncate, fd, 0)
    attempt("add seals", fcntl.fcntl, fd, memory.F_ADD_SEALS, memory.WRITE)
    attempt("punch", memory.punch, fd, 0, PAGE)
    return won


@pytest.mark.root
@pytest.mark.parametrize("uid", [user.ALICE, user.BOB])
def test_read_only_grant_stays_read_only(daemon, client, vm, uid):
    client.allocate()
    memory.write(client.call("OpenBacking", vm="web1", backing="ram0").fd, b"here")
    opened = client.call("OpenBacking", vm="web1", backing="ram0")
    lent = client.call("OpenBacking", vm="web1", backing="ram0", access="read_only").fd
    assert user.run_as(uid, attempt_everything, lent, daemon.pid, os.getpid(), opened.fd) == []
    assert user.run_as(uid, memory.read, lent, 4) == b"here"


@pytest.mark.root
def test_read_only_grant_of_an_adopted_file_stays_read_only(daemon, client, vm):
    """memfd_create(2) gives each memfd the mode 0777."""
    fd = os.memfd_create("donation", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | 0x10)  # MFD_EXEC
    os.ftruncate(fd, MIB)
    fcntl.fcntl(fd, memory.F_ADD_SEALS, SHRINK | GROW)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o777
    client.adopt(fd)
    lent = client.call("OpenBacking", vm="web1", backing="ram0", access="read_only").fd
    assert user.run_as(user.ALICE, attempt_everything, lent, daemon.pid, os.getpid(), fd) == []
    os.close(fd)


# ---- who gets a file descriptor at all ----


@pytest.mark.root
@pytest.mark.parametrize("method, parameters", [
    ("AttachVM", {}),
    ("UnregisterVM", {}),
    ("AllocateBacking", {"name": "ram1", "size": MIB}),
    ("AllocateBacking", {"name": "ram0", "size": MIB}),
    ("AdoptBacking", {"name": "ram1", "size": MIB}),
    ("OpenBacking", {"backing": "ram0"}),
    ("OpenBacking", {"backing": "ram0", "access": "read_only"}),
    ("ReleaseBacking", {"backing": "ram0"}),
    ("PunchBacking", {"backing": "ram0", "offset": 0, "size": PAGE}),
    ("SetSlot", {"slot": memory.slot(0, 0, PAGE)}),
    ("SetSlots", {"slots": []}),
    ("CheckSlots", {"slots": []}),
    ("ListVMs", {}),
    ("ListBackings", {}),
    ("ListSlots", {}),
    ("ListSlots", {"backing": "ram0"}),
])
def test_another_users_vm(alice, bob, method, parameters):
    alice.register("alices")
    fd = alice.allocate(vm="alices").fd
    memory.fill(fd)
    error = bob.fails("NotPermitted", method, vm="alices", **parameters)
    assert error["peerUID"] == user.BOB
    assert memory.resident(fd) == MIB


@pytest.mark.root
def test_root_may_do_all(client, alice):
    alice.register("alices")
    mine = alice.allocate(vm="alices").fd
    roots = client.call("OpenBacking", vm="alices", backing="ram0").fd
    assert memory.identity(mine) == memory.identity(roots)
    client.call("ReleaseBacking", vm="alices", backing="ram0")
    client.call("UnregisterVM", vm="alices")


@pytest.mark.root
def test_lists_show_a_user_its_own(client, alice, bob):
    for who, name in ((alice, "alices"), (bob, "bobs")):
        who.register(name)
        who.allocate(vm=name)
        who.call("SetSlot", vm=name, slot=memory.slot(0, 0, PAGE, backing="ram0", userspaceAddr=1 << 32))
    for method, field in (("ListVMs", "name"), ("ListBackings", "vm"), ("ListSlots", "vm")):
        assert [thing[field] for thing in alice.listed(method)] == ["alices"]
        assert [thing[field] for thing in bob.listed(method)] == ["bobs"]
        assert [thing[field] for thing in client.listed(method)] == ["alices", "bobs"]


@pytest.mark.root
def test_register_for_somebody_else(alice):
    error = alice.fails("NotPermitted", "RegisterVM", name="bobs", ownerUID=user.BOB)
    assert error["peerUID"] == user.ALICE


@pytest.mark.root
def test_register_under_another_users_name_tells_nothing(alice, bob):
    alice.register("web1", uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8", exitPolicy="retain")
    error = bob.fails("NotPermitted", "RegisterVM", name="web1")
    assert error.keys() == {"message", "object", "peerUID"}


@pytest.mark.root
def test_limit_of_vms_is_each_users(alice, bob):
    for i in range(1024):
        alice.register(f"vm{i}")
    alice.fails("LimitExceeded", "RegisterVM", name="more")
    bob.register("bobs")


@pytest.mark.root
def test_slot_of_another_users_memory(alice, bob):
    alice.register("alices")
    alice.allocate(vm="alices")
    bob.register("bobs")
    wanted = memory.slot(0, 0, PAGE, backing="ram0", backingVM="alices", userspaceAddr=1 << 32)
    assert bob.fails("NotPermitted", "SetSlot", vm="bobs", slot=wanted)["object"] == "alices"
    bob.fails("NotPermitted", "SetSlots", vm="bobs", slots=[wanted])
    bob.fails("NotPermitted", "CheckSlots", vm="bobs", slots=[wanted])
    assert alice.call("ListBackings")["backings"][0]["slots"] == 0
