# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd does for a service with a file descriptor store, done here, so that a test can kill and start privmemd
hundreds of times: it listens, keeps the fds that are sent to $NOTIFY_SOCKET, answers barriers, and passes all of it to
the next process. tests/system does the same with systemd itself."""

import array
import os
import pathlib
import signal
import socket
import stat
import threading

import memory
from broker import Daemon, binary

FDS_PER_MESSAGE_MAX = 253
SO_PEEK_OFF = 42
FIRST = 3  # SD_LISTEN_FDS_START


class ServiceManager:
    def __init__(self, directory, contract, capacity=8, program="daemon/privmemd"):
        self.directory = pathlib.Path(directory)
        self.contract = contract
        self.capacity = capacity
        self.program = program
        self.path = self.directory / "socket"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(128)
        os.chmod(self.path, 0o666)
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(self.directory / "notify"))
        self.store = []  # (name, fd)
        self.log = []  # what was sent, as text
        self.answers = True  # barriers
        self.daemon = None
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    # ---- what privmemd sends ----

    def listen(self):
        while True:
            fds = array.array("i")
            try:
                text, ancillary, _, _ = self.notifications.recvmsg(
                    8192, socket.CMSG_SPACE(FDS_PER_MESSAGE_MAX * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            if not text:
                return
            for _, _, data in ancillary:
                fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
            self.hear(dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line), list(fds))

    def hear(self, fields, fds):
        self.log.append(fields)
        name = fields.get("FDNAME", "stored")
        if "FDSTOREREMOVE" in fields:
            for one in [item for item in self.store if item[0] == name]:
                self.store.remove(one)
                os.close(one[1])
        elif "FDSTORE" in fields:
            while fds and len(self.store) < self.capacity:
                self.store.append((name, fds.pop(0)))
        if "BARRIER" in fields and not self.answers:
            return  # its fds stay open
        for fd in fds:
            os.close(fd)

    def settle(self):
        """Returns when all that a dead privmemd has sent is heard."""
        one, other = os.pipe()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self.directory / "notify"))
            socket.send_fds(sender, [b"BARRIER=1"], [other])
        os.close(other)
        was, self.answers = self.answers, True
        assert os.read(one, 1) == b""
        self.answers = was
        os.close(one)

    def names(self):
        return sorted(name for name, _ in self.store)

    def parked(self):
        """What lies in the bag: of each fd what fstat(2) says, and how much of it is in memory. privmemd must not use
        the bag meanwhile."""
        return [one for name, fd in self.store if name.startswith("bag-") for one in peek(fd)]

    # ---- starting and ending it ----

    def start(self, *arguments, environment=None, wait=True, **options):
        passed = [("varlink", self.listener.fileno()), *self.store]
        numbers = range(FIRST, FIRST + len(passed))

        def place():
            high = [os.dup2(fd, 200 + i) for i, (_, fd) in enumerate(passed)]
            for number, fd in zip(numbers, high):
                os.dup2(fd, number, inheritable=True)

        self.daemon = Daemon(
            self.directory, self.contract, path=self.path, wait=wait,
            command=["sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", binary(self.program), *arguments],
            environment={"LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": ":".join(name for name, _ in passed),
                         "NOTIFY_SOCKET": str(self.directory / "notify"), "FDSTORE": str(self.capacity),
                         **(environment or {})},
            preexec_fn=place, pass_fds=numbers, **options)
        return self.daemon

    def end(self, number=signal.SIGKILL):
        """Returns its exit status."""
        status = self.daemon.stop(number)
        self.settle()
        return status

    def wait_end(self, seconds=20):
        status = self.daemon.process.wait(seconds)
        self.settle()
        return status

    def restart(self, number=signal.SIGKILL, **options):
        self.end(number)
        return self.start(**options)

    def close(self):
        if self.daemon and self.daemon.process.poll() is None:
            self.end()
        for _, fd in self.store:
            os.close(fd)
        self.store = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self.directory / "notify"))
        self.thread.join()
        self.notifications.close()
        self.listener.close()


def peek(end):
    """What is in a queue, which stays there."""
    with socket.socket(fileno=os.dup(end)) as queue:
        queue.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        try:
            while True:
                fds = array.array("i")
                _, ancillary, _, _ = queue.recvmsg(8192, socket.CMSG_SPACE(FDS_PER_MESSAGE_MAX * fds.itemsize),
                                                   socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
                for _, _, data in ancillary:
                    fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
                for fd in fds:
                    status = os.fstat(fd)
                    yield status, memory.resident(fd) if stat.S_ISREG(status.st_mode) else 0
                    os.close(fd)
        except BlockingIOError:
            pass
        finally:
            queue.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
