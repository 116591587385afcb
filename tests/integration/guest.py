# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Linux guest that counts: Debian's cloud kernel, and an initramfs of busybox alone. Every line on its console says how
far it has counted, and whether the memory that it filled at the start is still what it was."""

import ctypes
import glob
import pathlib
import re
import shutil
import struct
import subprocess

from broker import wait_until

QEMU = "qemu-system-x86_64"
BUSYBOX = "/bin/busybox"
ZSTD = bytes.fromhex("28b52ffd")
KERNEL_MAX = 256 << 20

# The counter is in anonymous memory, and the bytes are in a tmpfs.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
exec </dev/null >/dev/ttyS0 2>&1
/bin/busybox mount -t proc none /proc
/bin/busybox dd if=/dev/urandom of=/bytes bs=64k count=32 2>/dev/null
sum=$(/bin/busybox md5sum /bytes)
echo "boot $(/bin/busybox cat /proc/sys/kernel/random/boot_id)"
i=0
while :; do
        i=$((i + 1))
        now=$(/bin/busybox md5sum /bytes)
        if [ "$now" = "$sum" ]; then echo "count $i good"; else echo "count $i bad"; fi
done
"""


def missing():
    """Why there can be no guest here, or None."""
    if not shutil.which(QEMU):
        return f"{QEMU} is not installed"
    if not glob.glob("/boot/vmlinuz-*-cloud-amd64"):
        return "linux-image-cloud-amd64 is not installed"
    if not shutil.which("cpio") or not pathlib.Path(BUSYBOX).exists():
        return "cpio or busybox-static is not installed"
    return None


def write_kernel(path):
    """The vmlinux in a bzImage, which QEMU starts at once (PVH), while it unpacks itself for seconds under TCG."""
    image = pathlib.Path(max(glob.glob("/boot/vmlinuz-*-cloud-amd64"))).read_bytes()
    offset, size = struct.unpack_from("<II", image, 0x248)  # payload_offset, payload_length: the x86 boot protocol
    payload = image[(image[0x1F1] + 1) * 512 + offset:][:size - 4]  # the last four are the size when unpacked
    if payload[:4] == ZSTD:
        zstd = ctypes.CDLL("libzstd.so.1")
        zstd.ZSTD_decompress.restype = ctypes.c_size_t
        room = ctypes.create_string_buffer(KERNEL_MAX)
        unpacked = zstd.ZSTD_decompress(room, ctypes.c_size_t(KERNEL_MAX), payload, ctypes.c_size_t(len(payload)))
        if unpacked <= KERNEL_MAX:
            image = ctypes.string_at(room, unpacked)
    path.write_bytes(image)


def write_initramfs(path):
    root = path.with_suffix(".d")
    for name in ("bin", "dev", "proc"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = [".", *(str(one.relative_to(root)) for one in root.rglob("*"))]
    with open(path, "wb") as archive:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], input="\n".join(names), cwd=root, stdout=archive,
                       text=True, check=True, timeout=20)


class Console:
    """The file that a serial port is written to, by one QEMU after the other (append=on)."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def text(self):
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def counted(self):
        """How far the guest has come, after a look at every line so far: no step is missing, no memory is lost, and it
        has booted once."""
        text = self.text()
        lines = text[:text.rfind("\n") + 1].splitlines()
        steps = [line for line in lines if line.startswith("count ")]
        assert steps == [f"count {i} good" for i in range(1, len(steps) + 1)], text[-2000:]
        assert len(re.findall(r"^boot ", text, re.M)) <= 1 and "panic" not in text, text[-2000:]
        return len(steps)

    def wait_count(self, more=3, seconds=60):
        wanted = self.counted() + more
        wait_until(lambda: self.counted() >= wanted, seconds, f"that the guest counts to {wanted}")
        return self.counted()
