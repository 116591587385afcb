# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the n-th allocation or system call of privmemd fail: tests/inject/fail.c, preloaded."""

import errno
import mmap
import struct

from broker import binary

OWN_MEMORY, OWN_CALLS, LIBRARY_MEMORY, LIBRARY_CALLS = (1 << i for i in range(4))
LAYOUT = struct.Struct("IIIIII32s32s")


class Injector:
    def __init__(self, directory):
        self.path = directory / "fail"
        self.path.write_bytes(bytes(mmap.PAGESIZE))
        with open(self.path, "r+b") as file:
            self.control = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {"LD_PRELOAD": binary("tests/inject/fail.so"), "PRIVMEMD_FAIL": str(self.path)}

    def arm(self, which, nth=0, error=errno.ENOMEM, for_ever=False, only=""):
        """nth 0: only counts."""
        self.control[4:LAYOUT.size] = LAYOUT.pack(0, nth, for_ever, error, 0, 0, only.encode(), b"")[4:]
        self.control[:4] = struct.pack("I", which)

    def disarm(self):
        """How many were reached, how many failed, and the name of the last one that did."""
        self.control[:4] = bytes(4)
        _, _, _, _, reached, failed, _, name = LAYOUT.unpack_from(self.control)
        return reached, failed, name.rstrip(b"\0").decode()
