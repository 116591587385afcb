# SPDX-License-Identifier: LGPL-2.1-or-later
"""AdoptBacking: what may be donated, by whom, and what becomes of it."""

import os
import socket
import stat

import pytest

import memory
import user
from memory import FUTURE_WRITE, GROW, MIB, PAGE, SEAL, SHRINK, WRITE, slot
from wire import FDS_MAX

pytestmark = pytest.mark.usefixtures("vm")


def for_reading(fd):
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def test_adopt_reply(client, donation):
    fd = donation(MIB, SHRINK | GROW | SEAL)
    device, inode = memory.identity(fd)
    reply = client.adopt(fd, kind="memfd", size=MIB)
    del reply["backing"]["survival"]
    assert reply == {
        "backing": {"vm": "web1", "name": "ram0", "kind": "memfd", "origin": "adopted", "size": MIB,
                    "pageSize": PAGE, "effectivePageSize": PAGE, "device": device, "inode": inode,
                    "seals": ["seal", "shrink", "grow"], "residentBytes": 0, "slots": 0},
        "created": True}


def test_adopted_memory_is_the_donated_one(client, donation):
    fd = donation()
    memory.write(fd, b"here")
    client.adopt(fd)
    opened = client.call("OpenBacking", vm="web1", backing="ram0")
    assert memory.identity(opened.fd) == memory.identity(fd)
    assert memory.read(opened.fd, 4) == b"here"


def test_adopted_file_cannot_change_its_size(client, donation):
    fd = donation()
    client.adopt(fd)
    for size in (0, PAGE, 2 * MIB):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)


def test_adopt_again_is_the_same_backing(client, donation):
    fd = donation()
    first, again = client.adopt(fd), client.adopt(fd)
    assert (first["created"], again["created"]) == (True, False)
    assert first["backing"] == again["backing"]


def test_adopt_under_another_name_keeps_the_first(client, donation):
    fd = donation()
    client.adopt(fd, "ram0")
    again = client.adopt(fd, "ram1")
    assert (again["created"], again["backing"]["name"]) == (False, "ram0")
    client.fails("NoSuchBacking", "OpenBacking", vm="web1", backing="ram1")


def test_adopt_in_another_vm_of_the_owner_keeps_the_first(client, donation):
    client.register("web2")
    fd = donation()
    client.adopt(fd)
    again = client.adopt(fd, "ram1", vm="web2")
    assert (again["created"], again["backing"]["vm"], again["backing"]["name"]) == (False, "web1", "ram0")
    assert client.call("GetHost")["backings"] == 1


def test_adopt_what_was_allocated_is_that_backing(client):
    allocated = client.allocate()
    again = client.adopt(allocated.fd, "ram1")
    assert (again["created"], again["backing"]["name"], again["backing"]["origin"]) == (False, "ram0", "allocated")


def test_adopt_again_with_another_size(client, donation):
    fd = donation(MIB)
    client.adopt(fd)
    client.fails("InvalidValue", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, size=2 * MIB, fds=[fd])


def test_adopt_again_as_another_kind(client, donation):
    fd = donation(MIB)
    client.adopt(fd)
    client.fails("NotMemory", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, kind="hugetlb", fds=[fd])


def test_adopt_another_file_under_the_name(client, donation):
    client.adopt(donation())
    error = client.fails("NameConflict", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=[donation()])
    assert (error["name"], error["field"]) == ("ram0", "inode")


def test_refused_donation_stays_as_it_was(client, donation):
    client.adopt(donation())
    fd = donation()
    before = os.fstat(fd)
    client.fails("NameConflict", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=[fd])
    assert os.fstat(fd) == before


def test_admission(client):
    assert client.call("AdoptBacking", vm="web1", name="ram0", size=MIB) == {"created": False}
    assert client.call("ListBackings") == {"backings": []}


def test_admission_under_a_name_that_is_taken(client):
    client.allocate()
    error = client.fails("NameConflict", "AdoptBacking", vm="web1", name="ram0", size=MIB)
    assert error["name"] == "ram0"


@pytest.mark.parametrize("size", [0, 1, PAGE + 1, 1 << 63, (1 << 64) - 1])
def test_admission_of_a_bad_size(client, size):
    error = client.fails("InvalidValue", "AdoptBacking", vm="web1", name="ram0", size=size)
    assert (error["field"], error["value"]) == ("size", size)


def test_admission_over_the_limit(client):
    for i in range(256):
        client.allocate(f"ram{i}", size=PAGE)
    assert client.fails("LimitExceeded", "AdoptBacking", vm="web1", name="more", size=PAGE)["limit"] == "backingsPerVM"


def test_adopt_over_the_limit(client, donation):
    for i in range(256):
        client.allocate(f"ram{i}", size=PAGE)
    error = client.fails("LimitExceeded", "AdoptBacking", vm="web1", name="more", fileDescriptor=0, fds=[donation()])
    assert error["limit"] == "backingsPerVM"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\n", "a" * 65])
def test_adopt_bad_name(client, donation, name):
    client.fails("InvalidName", "AdoptBacking", vm="web1", name=name, fileDescriptor=0, fds=[donation()])


# ---- what is not memory ----


def open_pipe(_):
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def open_socket(_):
    return socket.socket(socket.AF_UNIX).detach()


def open_directory(directory):
    return os.open(directory, os.O_RDONLY)


def open_file(directory):
    fd = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, MIB)
    return fd


def open_path(directory):
    fd = memory.memfd()
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_PATH)
    finally:
        os.close(fd)


def open_tmpfs(_):
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
    os.ftruncate(fd, MIB)
    return fd


def open_named_like_a_memfd(_):
    path = f"/dev/shm/memfd:{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.unlink(path)
    os.ftruncate(fd, MIB)
    return fd


@pytest.mark.parametrize("make, found", [
    (open_pipe, "pipe"),
    (open_socket, "socket"),
    (open_directory, "directory"),
    (open_file, "regular file"),
    (open_path, "regular file"),
    (open_tmpfs, "regular file"),
    (open_named_like_a_memfd, "regular file"),
    (lambda _: os.pidfd_open(os.getpid()), "anonymous inode"),
    (lambda _: os.eventfd(0), "anonymous inode"),
    (lambda _: os.open("/dev/null", os.O_RDWR), "device"),
    (lambda _: os.open("/proc/self/status", os.O_RDONLY), "regular file"),
])
def test_donate_what_is_not_memory(daemon, client, directory, make, found):
    fd = make(directory)
    try:
        error = client.fails("NotMemory", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=[fd])
        assert error["found"] == found
        daemon.connect().call("GetHost")
    finally:
        os.close(fd)


@pytest.mark.parametrize("seals, missing", [
    (0, ["shrink", "grow"]), (SHRINK, ["grow"]), (GROW, ["shrink"]), (SEAL, ["shrink", "grow"]),
    (WRITE, ["shrink", "grow"]),
])
def test_donate_what_can_change_its_size(client, donation, seals, missing):
    fd = donation(MIB, seals)
    error = client.fails("NotSealed", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=[fd])
    assert error["missing"] == missing
    client.call("ListBackings", vm="web1")


def test_donate_an_empty_memfd(client, donation):
    error = client.fails("InvalidValue", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=[donation(0)])
    assert error["value"] == 0


@pytest.mark.parametrize("size", [1, PAGE + 1, MIB - 1])
def test_donate_a_part_of_a_page(client, donation, size):
    error = client.fails("InvalidValue", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=[donation(size)])
    assert (error["value"], error["alignment"]) == (size, PAGE)


def test_donate_another_size(client, donation):
    error = client.fails("InvalidValue", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, size=2 * MIB,
                         fds=[donation(MIB)])
    assert (error["value"], error["minimum"], error["maximum"]) == (MIB, 2 * MIB, 2 * MIB)


def test_donate_another_kind(client, donation):
    error = client.fails("NotMemory", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, kind="guest_memfd",
                         fds=[donation()])
    assert error["found"] == "memfd"


def test_donate_what_is_open_for_reading_only(client, donation):
    fd = for_reading(donation())
    try:
        error = client.fails("NotMemory", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=[fd])
        assert "reading" in error["found"]
    finally:
        os.close(fd)


def test_donate_a_memfd_that_cannot_be_written(client, donation):
    """Its pages cannot be punched either, so they go with its last holder."""
    fd = donation(MIB, SHRINK | GROW | FUTURE_WRITE)
    client.adopt(fd)
    client.fails("NotSupported", "PunchBacking", vm="web1", backing="ram0", offset=0, size=PAGE)
    assert client.call("ReleaseBacking", vm="web1", backing="ram0") == {"freedBytes": 0}


@pytest.mark.parametrize("count", [2, FDS_MAX])
def test_donate_too_many(daemon, client, donation, count):
    fds = [donation(PAGE)] * count
    error = client.fails("WrongFds", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=0, fds=fds)
    assert (error["received"], error["expected"]) == (count, 1)
    daemon.connect().call("GetHost")


def test_donate_the_wrong_index(client, donation):
    error = client.fails("WrongFds", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=1, fds=[donation()])
    assert (error["received"], error["expected"]) == (1, 1)


@pytest.mark.parametrize("index", [0, 1, 252, (1 << 63) - 1])
def test_donate_nothing(client, index):
    error = client.fails("WrongFds", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=index)
    assert error["received"] == 0


@pytest.mark.parametrize("index", [-1, 0.5, "0", True, [0]])
def test_donate_no_index(client, donation, index):
    error = client.fails("InvalidParameter", "AdoptBacking", vm="web1", name="ram0", fileDescriptor=index,
                         fds=[donation()])
    assert error["parameter"] == "fileDescriptor"


@pytest.mark.parametrize("method, parameters", [
    ("AdoptBacking", {"vm": "web1", "name": "ram0", "kind": "memfd", "size": MIB}), ("AttachVM", {"vm": "web1"}),
])
def test_fd_that_no_index_names(client, donation, method, parameters):
    error = client.fails("WrongFds", method, fds=[donation()], **parameters)
    assert (error["received"], error["expected"]) == (1, 0)


@pytest.mark.parametrize("method, parameters", [
    ("GetHost", {}), ("OpenBacking", {"vm": "web1", "backing": "ram0"}), ("ListVMs", {}),
    ("AllocateBacking", {"vm": "web1", "name": "ram1", "size": MIB}),
])
@pytest.mark.parametrize("count", [1, FDS_MAX])
def test_fds_for_a_method_that_takes_none(daemon, client, donation, method, parameters, count):
    client.allocate()
    error = client.fails("WrongFds", method, fds=[donation()] * count, **parameters)
    assert (error["received"], error["expected"]) == (count, 0)
    daemon.connect().call("GetHost")


# ---- whose memory ----


def mode_and_owner(fd):
    status = os.fstat(fd)
    return stat.S_IMODE(status.st_mode), status.st_uid


def test_adopted_file_is_the_owners_alone(client, donation):
    fd = donation()
    os.fchmod(fd, 0o777)
    client.adopt(fd)
    assert mode_and_owner(fd) == (0o600, os.geteuid())


@pytest.mark.root
def test_root_donates_for_the_owner(client, donation):
    client.register("alices", ownerUID=user.ALICE)
    fd = donation()
    client.adopt(fd, vm="alices")
    assert mode_and_owner(fd) == (0o600, user.ALICE)


@pytest.mark.root
def test_owner_donates_its_own(client, alice):
    client.register("alices", ownerUID=user.ALICE)
    fd = user_memfd(user.ALICE)
    try:
        assert alice.adopt(fd, vm="alices")["created"]
        assert mode_and_owner(fd) == (0o600, user.ALICE)
    finally:
        os.close(fd)


def user_memfd(uid):
    fd = memory.memfd()
    os.fchown(fd, uid, uid)
    return fd


@pytest.mark.root
@pytest.mark.parametrize("reopen", [False, True])
def test_nobody_donates_what_is_another_users(alice, reopen):
    """Whoever was lent a file must not become its owner by donating it."""
    alice.register("alices")
    fd = user_memfd(user.BOB)
    before = os.fstat(fd)
    lent = for_reading(fd) if reopen else fd
    try:
        alice.fails("NotMemory" if reopen else "NotPermitted", "AdoptBacking", vm="alices", name="ram0",
                    fileDescriptor=0, fds=[lent])
        assert os.fstat(fd) == before
        assert alice.call("ListBackings") == {"backings": []}
    finally:
        os.close(fd)
        if reopen:
            os.close(lent)


@pytest.mark.root
@pytest.mark.parametrize("access", ["read_write", "read_only"])
def test_nobody_donates_what_is_another_owners_backing(daemon, alice, bob, access):
    alice.register("alices")
    bob.register("bobs")
    bob.allocate(vm="bobs")
    lent = bob.call("OpenBacking", vm="bobs", backing="ram0", access=access).fd
    before = os.fstat(lent)
    error = alice.fails("NotPermitted", "AdoptBacking", vm="alices", name="ram0", fileDescriptor=0, fds=[lent])
    assert error["peerUID"] == user.ALICE
    assert os.fstat(lent) == before
    (backing,) = daemon.connect().call("ListBackings")["backings"]
    assert backing["vm"] == "bobs"


# ---- guest_memfd ----


@pytest.fixture
def private():
    try:
        fd, vm = memory.guest_memfd(MIB)
    except OSError as error:
        pytest.skip(f"no guest_memfd here: {error}")
    yield fd
    os.close(fd)
    os.close(vm)


def test_adopt_guest_memfd(client, private):
    backing = client.adopt(private, kind="guest_memfd", size=MIB)["backing"]
    assert (backing["kind"], backing["size"], backing["seals"]) == ("guest_memfd", MIB, [])
    assert (backing["device"], backing["inode"]) == memory.identity(private)


def test_open_guest_memfd(client, private):
    client.adopt(private)
    opened = client.call("OpenBacking", vm="web1", backing="ram0")
    assert memory.identity(opened.fd) == memory.identity(private)


def test_open_guest_memfd_read_only(client, private):
    client.adopt(private)
    error = client.fails("NotSupported", "OpenBacking", vm="web1", backing="ram0", access="read_only")
    assert "guest_memfd" in error["feature"]


def test_release_frees_guest_memfd(client, private):
    client.adopt(private)
    memory.populate(private)
    (backing,) = client.call("ListBackings")["backings"]
    assert backing["residentBytes"] == MIB
    assert client.call("ReleaseBacking", vm="web1", backing="ram0") == {"freedBytes": MIB}
    assert memory.resident(private) == 0


def test_private_memory_twice(client, private):
    client.adopt(private)
    private_side = {"flags": ["guest_memfd"], "guestMemfd": "ram0", "guestMemfdOffset": 0}
    client.call("SetSlot", vm="web1", slot=slot(0, 0, PAGE, userspaceAddr=1 << 32, **private_side))
    error = client.fails("SlotRefused", "SetSlot", vm="web1",
                         slot=slot(1, MIB, PAGE, userspaceAddr=1 << 33, **private_side))
    assert error["verdict"]["rule"] == "binding_overlap"
