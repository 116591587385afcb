# SPDX-License-Identifier: LGPL-2.1-or-later
"""A ledger's bytes, as docs/ledger.md has them: read, and written anew."""

import os
import struct

HEADER = struct.Struct("=8sIIQQQ20sI")
FRAME = struct.Struct("=QQQIIII")
RECORD = struct.Struct("=HHI")
IDS, VM, VMM, BACKING, SLOT = 1, 2, 4, 6, 10

_TABLE = []
for _i in range(256):
    for _ in range(8):
        _i = _i >> 1 ^ (0x82F63B78 if _i & 1 else 0)
    _TABLE.append(_i)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def padded(data):
    return data + bytes(-len(data) % 8)


def record(kind, body, version=1):
    return RECORD.pack(kind, version, len(body)) + padded(body)


class Ledger:
    """What is in the file now; whoever changes it does so while no privmemd runs."""

    def __init__(self, fd):
        self.fd = fd
        self.data = os.pread(fd, os.fstat(fd).st_size, 0)
        (_, self.version, self.oldest_reader, self.generation, self.mark, self.complete, _,
         _) = HEADER.unpack_from(self.data)
        self.frames = []  # (offset, size with its head)
        at = 2 * HEADER.size
        while at + FRAME.size <= len(self.data):
            mark, _, _, size, *_ = FRAME.unpack_from(self.data, at)
            if mark != self.mark:
                break
            self.frames.append((at, FRAME.size + size))
            at += FRAME.size + size
        self.end = at

    def records(self, frame=None):
        """(type, body) of one frame, or of all."""
        found = []
        for at, size in self.frames if frame is None else [self.frames[frame]]:
            offset, end = at + FRAME.size, at + size
            while offset < end:
                kind, _, length = RECORD.unpack_from(self.data, offset)
                found.append((kind, self.data[offset + RECORD.size:offset + RECORD.size + length]))
                offset += RECORD.size + length + -length % 8
        return found

    def frame_of(self, kind, containing=b""):
        """The number of the last frame that has such a record."""
        return max(i for i in range(len(self.frames))
                   for k, body in self.records(i) if k == kind and containing in body)

    def header(self, **changed):
        values = {"version": self.version, "oldest_reader": self.oldest_reader, "generation": self.generation,
                  "complete": self.complete, **changed}
        head = HEADER.pack(b"PRIVMEML", values["version"], values["oldest_reader"], values["generation"], self.mark,
                           values["complete"], bytes(20), 0)[:-4]
        return head + struct.pack("=I", crc32c(head))

    def write_header(self, fd=None, **changed):
        for copy in range(2):
            os.pwrite(self.fd if fd is None else fd, self.header(**changed), copy * HEADER.size)

    def frame(self, *records, sequence=None, generation=None):
        body = b"".join(records)
        head = FRAME.pack(self.mark, self.generation if generation is None else generation,
                          len(self.frames) if sequence is None else sequence, len(body), crc32c(body), 0, 0)[:32]
        return head + struct.pack("=II", crc32c(head), 0) + body

    def append(self, data):
        os.pwrite(self.fd, data, self.end)

    def flip(self, at):
        os.pwrite(self.fd, bytes([self.data[at] ^ 0x40]), at)

    def copy(self, frames=None, **changed):
        """A memfd with these frames, numbered anew for the generation."""
        fd = os.memfd_create("privmemd:ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        generation = changed.get("generation", self.generation)
        self.write_header(fd, **changed)
        at = 2 * HEADER.size
        for sequence, (offset, size) in enumerate(self.frames if frames is None else self.frames[:frames]):
            data = self.frame(self.data[offset + FRAME.size:offset + size], sequence=sequence, generation=generation)
            os.pwrite(fd, data, at)
            at += len(data)
        return fd
