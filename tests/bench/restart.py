# SPDX-License-Identifier: LGPL-2.1-or-later
"""A privmemd that outlives itself: killed and started again with what a service manager keeps of it."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time

from processes import PATIENCE_SECONDS, Failed, process

VMS = 160
BACKINGS_PER_VM = 100
SLOTS_PER_BACKING = 10
SLOT_SIZE = 64 << 10
HVA = 0x7F0000000000

FIRST = 3  # SD_LISTEN_FDS_START
HIGH = 200  # where fds do not get in the way of those that are passed
STORE_MAX = 8


class Link:
    """A connection; file descriptors that come with replies are closed by the kernel, for nobody has room for them."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(str(path))
        self.rest = b""

    def send(self, method, fds=(), **parameters):
        text = json.dumps({"method": method, "parameters": parameters}, separators=(",", ":")).encode() + b"\0"
        if fds:
            sent = socket.send_fds(self.socket, [text], fds)
            text = text[sent:]
        self.socket.sendall(text)

    def receive(self):
        while b"\0" not in self.rest:
            some = self.socket.recv(1 << 20)
            if not some:
                raise Failed("privmemd hung up")
            self.rest += some
        text, self.rest = self.rest.split(b"\0", 1)
        reply = json.loads(text)
        if "error" in reply:
            raise Failed(f"privmemd answered {reply}")
        return reply["parameters"]

    def call(self, method, **parameters):
        self.send(f"io.privmemd.Memory.{method}", **parameters)
        return self.receive()

    def close(self):
        self.socket.close()


class Kept:
    """privmemd, the socket it listens on, and the file descriptors that it has sent to be kept."""

    def __init__(self, program, path, cpu=None):
        self.program, self.cpu, self.pid = str(program), cpu, None
        self.store = []  # (name, fd)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(128)
        self.path, self.notify = path, f"{path}.notify"
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(self.notify)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGTERM)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self.notify)
        self.thread.join()
        for _, fd in self.store:
            os.close(fd)
        self.notifications.close()
        self.listener.close()

    def listen(self):
        while True:
            text, fds, _, _ = socket.recv_fds(self.notifications, 8192, STORE_MAX)
            if not text:
                return
            self.hear(dict(line.split("=", 1) for line in text.decode().splitlines()), fds)

    def hear(self, fields, fds):
        """What is not kept is closed; that answers a barrier too."""
        name = fields.get("FDNAME", "stored")
        if "FDSTOREREMOVE" in fields:
            for item in [item for item in self.store if item[0] == name]:
                self.store.remove(item)
                os.close(item[1])
        for fd in fds:
            if "FDSTORE" in fields and len(self.store) < STORE_MAX:
                self.store.append((name, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH)))
            os.close(fd)

    def start(self):
        high = fcntl.fcntl(self.listener, fcntl.F_DUPFD_CLOEXEC, HIGH)
        passed = [("varlink", high), *self.store]
        environment = {"LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": ":".join(name for name, _ in passed),
                       "NOTIFY_SOCKET": self.notify, "FDSTORE": str(STORE_MAX), "PATH": os.environ["PATH"]}
        self.pid = os.posix_spawnp(
            "sh", ["sh", "-c", 'LISTEN_PID=$$ exec "$0"', self.program], environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, FIRST + i) for i, (_, fd) in enumerate(passed)])
        os.close(high)
        if self.cpu is not None:
            os.sched_setaffinity(self.pid, {self.cpu})

    def end(self, number):
        os.kill(self.pid, number)
        os.waitpid(self.pid, 0)

    def restart(self):
        """Seconds from SIGKILL until the next one has answered."""
        begin = time.perf_counter()
        self.end(signal.SIGKILL)
        self.start()
        link = Link(self.path)
        link.send("org.varlink.service.GetInfo")
        link.receive()
        seconds = time.perf_counter() - begin
        link.close()
        return seconds

    def ledger(self):
        return next(fd for name, fd in self.store if name.startswith("ledger-"))

    def ledger_size(self):
        return os.fstat(self.ledger()).st_size

    def tear_ledger(self):
        """The next start finds the rest of a frame, and writes a new generation."""
        os.pwrite(self.ledger(), b"\1", self.ledger_size() - 1)


def slot(number):
    at = number * SLOT_SIZE
    return {"slotId": number, "guestPhysAddr": at, "memorySize": SLOT_SIZE, "userspaceAddr": HVA + at,
            "backing": f"ram{number // SLOTS_PER_BACKING}", "backingOffset": number % SLOTS_PER_BACKING * SLOT_SIZE}


def fill_vm(link, name, pid):
    pidfd = os.pidfd_open(pid)
    link.call("RegisterVM", name=name)
    link.call("AttachVM", vm=name, pidFileDescriptor=0, fds=[pidfd])
    os.close(pidfd)
    for i in range(BACKINGS_PER_VM):
        link.send("io.privmemd.Memory.AllocateBacking", vm=name, name=f"ram{i}", size=SLOTS_PER_BACKING * SLOT_SIZE)
    for _ in range(BACKINGS_PER_VM):
        link.receive()
    link.call("SetSlots", vm=name, slots=[slot(i) for i in range(BACKINGS_PER_VM * SLOTS_PER_BACKING)])


def fill(stack, path):
    """As many VMs, each with a VMM, backings and slots."""
    with contextlib.closing(Link(path)) as link:
        for i in range(VMS):
            vmm = stack.enter_context(process("sleep", "infinity"))
            fill_vm(link, f"vm{i}", vmm.pid)
        check(link)


def check(link):
    host = link.call("GetHost")
    expected = VMS, VMS * BACKINGS_PER_VM, VMS * BACKINGS_PER_VM * SLOTS_PER_BACKING
    if (host["vms"], host["backings"], host["slots"]) != expected:
        raise Failed(f"privmemd has {host['vms']} VMs, {host['backings']} backings and {host['slots']} slots "
                     f"instead of {expected}")


def check_all_there(path):
    with contextlib.closing(Link(path)) as link:
        check(link)
