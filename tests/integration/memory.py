# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files of guest memory as a VMM makes and uses them."""

import ctypes
import fcntl
import mmap
import os
import struct

PAGE = os.sysconf("SC_PAGESIZE")
MIB = 1 << 20
HUGE_PAGE = 2 * MIB

F_ADD_SEALS, F_GET_SEALS = 1033, 1034
SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, EXEC = (1 << i for i in range(6))

KVM_CREATE_VM = 0xAE01
KVM_CREATE_GUEST_MEMFD = 0xC040AED4

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
MAP_FAILED = ctypes.c_void_p(-1).value
SYS_CACHESTAT = 451


def memfd(size=MIB, seals=SHRINK | GROW, name="donation"):
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


def seals(fd):
    return fcntl.fcntl(fd, F_GET_SEALS)


def identity(fd):
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def write(fd, data, offset=0):
    """Through a shared mapping, as a guest does."""
    with mmap.mmap(fd, os.fstat(fd).st_size) as mapped:
        mapped[offset:offset + len(data)] = data


def read(fd, size, offset=0):
    with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as mapped:
        return mapped[offset:offset + size]


def fill(fd):
    """Makes every page of the file resident."""
    for offset in range(0, os.fstat(fd).st_size, MIB):
        os.pwrite(fd, b"x" * min(MIB, os.fstat(fd).st_size - offset), offset)


def _allocate(fd, mode, offset, size):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(size)) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def populate(fd):
    """As fill() does, for what cannot be written."""
    _allocate(fd, 1, 0, os.fstat(fd).st_size)  # KEEP_SIZE


def punch(fd, offset, size):
    _allocate(fd, 3, offset, size)  # KEEP_SIZE | PUNCH_HOLE


def resident(fd):
    """Bytes of the file in memory, asked of the kernel and not of privmemd."""
    wanted = struct.pack("QQ", 0, 0)
    answer = ctypes.create_string_buffer(40)
    if libc.syscall(SYS_CACHESTAT, fd, wanted, answer, 0) < 0:
        return os.fstat(fd).st_blocks * 512
    return struct.unpack_from("Q", answer)[0] * PAGE


GUEST_MEMFD_MMAP, GUEST_MEMFD_INIT_SHARED = 1, 2


def guest_memfd(size=MIB, flags=0):
    """A guest_memfd and the VM that it belongs to; OSError where this kernel or this machine has none."""
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    finally:
        os.close(kvm)
    try:
        return fcntl.ioctl(vm, KVM_CREATE_GUEST_MEMFD, bytearray(struct.pack("QQ48x", size, flags))), vm
    except OSError:
        os.close(vm)
        raise


def slot(slot_id, gpa, size, **fields):
    return {"slotId": slot_id, "guestPhysAddr": gpa, "memorySize": size, **fields}


def address_of(mapped):
    """Where a writable mapping lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))
