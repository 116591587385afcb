# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each allocation and each system call of a start fails once. The start fails and says why, or goes on; either way the
next privmemd has everything."""

import contextlib
import os

import pytest

import memory
from broker import Daemon, binary
from inject import OWN_CALLS, OWN_MEMORY, Injector, Session, look, serving_client
from tenant import VMM
from test_inject import ERRORS, NTH_MAX

pytestmark = [pytest.mark.plain, pytest.mark.timeout(120),
              pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")]


class Alone:
    """A privmemd without a service manager, and a VMM that has all memory: some of it mapped, some open."""

    def __init__(self, directory, contract, injector):
        self.directory, self.contract, self.injector = directory, contract, injector
        self.vmm = None
        assert self.try_start()
        self.client.register("web1", exitPolicy="release")
        fds = [self.client.allocate(f"ram{i}").fd for i in range(4)]
        files = [(memory.identity(fd), fd) for fd in fds]
        self.vmm = VMM(dict(files[:2]), dict(files[2:]))
        pidfd = os.pidfd_open(self.vmm.pid)
        self.client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[pidfd])
        os.close(pidfd)
        self.client.close_fds()

    def try_start(self):
        path = self.directory / "socket"
        path.unlink(missing_ok=True)
        self.daemon = Daemon(self.directory, self.contract, path=path, environment=self.injector.environment, wait=False,
                             command=[binary(), f"--socket={path}", f"--ledger={self.directory}"])
        self.client = serving_client(self.connect, self.daemon.pid)
        return self.client is not None

    def connect(self):
        """The socket is bound a moment before it listens."""
        while self.daemon.process.poll() is None:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return self.daemon.connect()
        raise ConnectionRefusedError

    def end(self):
        self.daemon.process.kill()
        self.daemon.process.wait()
        for client in self.daemon.clients:
            client.close()

    def close(self):
        if self.vmm:
            self.vmm.end()
        self.end()


class Stored(Session):
    """With a service manager that keeps its file descriptors."""

    @property
    def daemon(self):
        return self.manager.daemon

    def end(self):
        self.manager.end()


@pytest.fixture
def host(directory, contract, request):
    (directory / "host").mkdir()
    one = request.param(directory / "host" if request.param is Alone else directory / "host" / "0", contract,
                        Injector(directory))
    yield one
    one.close()


@pytest.mark.parametrize("host", [Stored, Alone], indirect=True)
@pytest.mark.parametrize("which", [OWN_MEMORY, OWN_CALLS])
def test_each_failure_of_a_start(host, which):
    before, failed, nth = look(host.client), 1, 0
    while failed:
        nth += 1
        assert nth < NTH_MAX
        host.end()
        host.injector.arm(which, nth, ERRORS[nth % len(ERRORS)])
        is_serving = host.try_start()
        _, failed, name = host.injector.disarm()
        where, said = f"{name}, {nth} of {which}", host.daemon.stderr()
        if is_serving:
            assert look(host.client) == before, f"{where}: {said}"
        else:
            assert host.daemon.process.wait() == 1, where
            assert said.startswith("privmemd: cannot ") and said.count("\n") == 1, f"{where}: {said}"
        host.end()
        assert host.try_start(), where
        assert look(host.client) == before, f"{where}: the next privmemd has something else"
    assert nth > 20
