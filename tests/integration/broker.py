# SPDX-License-Identifier: LGPL-2.1-or-later
"""A privmemd of the test's own: started, watched and stopped. Stopping it checks what every test wants to hold: all
file descriptors are given back, SIGTERM ends it at once with status 0, and it has nothing to complain about."""

import os
import pathlib
import signal
import subprocess
import time

from wire import Client, Closed

START_TIMEOUT = 20
STOP_TIMEOUT = 20


def binary(name="daemon/privmemd"):
    return str(pathlib.Path(os.environ["PRIVMEMD_BUILD"]) / name)


def wait_until(condition, seconds=5, what="the condition"):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.01)
    return value


class Daemon:
    def __init__(self, directory, contract, *, path=None, command=None, environment=None, wait=True, is_quiet=True,
                 **popen):
        self.directory = pathlib.Path(directory)
        self.path = pathlib.Path(path or self.directory / "socket")
        self.contract = contract
        self.clients = []
        self.baseline = None
        self.is_quiet = is_quiet
        self.log = self.directory / f"stderr-{id(self)}"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command or [binary(), f"--socket={self.path}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(environment or {})}, **popen)
        if wait:
            self.wait_ready()

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        return self.log.read_text(errors="replace")

    def complaints(self):
        """What it has said, but for the line that each redeemed claim has."""
        return [line for line in self.stderr().splitlines() if " was redeemed by " not in line]

    # ---- start and stop ----

    def is_serving(self):
        if self.process.poll() is not None:
            raise AssertionError(f"privmemd ended with {self.process.returncode}:\n{self.stderr()}")
        try:
            with Client(self.path, self.contract) as client:
                client.call("GetHost")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def wait_ready(self):
        wait_until(self.is_serving, START_TIMEOUT, "privmemd's start")
        self.settle()
        self.baseline = self.count_fds()

    def settle(self):
        """Waits until the connections that were closed are closed at the other end too."""
        previous = -1
        while previous != (previous := self.count_fds()):
            time.sleep(0.02)

    def stop(self, number=signal.SIGTERM):
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"privmemd did not end on signal {number}:\n{self.stderr()}") from None

    def finish(self):
        """Stops it, and checks that it had nothing to hide."""
        failures = []
        try:
            if self.baseline is not None and self.process.poll() is None:
                self.check_fds()
        except (AssertionError, OSError, Closed) as error:
            failures.append(str(error) or repr(error))
        status = self.stop()
        if status != 0:
            failures.append(f"privmemd ended with {status}")
        if failures or (self.is_quiet and self.complaints()):
            raise AssertionError("\n".join([*failures, "privmemd's standard error:", self.stderr()]))

    # ---- looking at it ----

    def count_fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss(self):
        """Resident bytes."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def check_fds(self):
        """It holds one file descriptor for each backing, a pidfd and the mappings of each living VMM, a pidfd of each
        successor, and no other since it started. The mappings may be closed to an ordinary user."""
        for client in self.clients:
            client.close()
        with Client(self.path, self.contract) as client:
            host = client.call("GetHost")
            vms = client.listed("ListVMs")
        vmms, successors = (sum(vm.get(field) is not None for vm in vms for field in fields)
                            for fields in [("pid", "outgoingPID"), ("successorPID",)])
        least = self.baseline + host["backings"] + vmms + successors
        wanted = range(least, least + vmms + 1)
        deadline = time.monotonic() + 5
        while self.count_fds() not in wanted:
            if time.monotonic() > deadline:
                raise AssertionError(f"privmemd holds {self.count_fds()} file descriptors, not {wanted}: {self.fds()}")
            time.sleep(0.01)

    def fds(self):
        links = {}
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                links[int(fd)] = os.readlink(f"/proc/{self.pid}/fd/{fd}")
            except FileNotFoundError:
                pass
        return links

    # ---- talking to it ----

    def connect(self, uid=None):
        client = Client(self.path, self.contract, uid)
        self.clients.append(client)
        return client
