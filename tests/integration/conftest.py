# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every integration test has: a privmemd of its own, which must leave nothing behind."""

import os
import pathlib
import tempfile

import pytest

import contract as contract_module
import memory
import user
from broker import Daemon, binary
from hugepages import huge_pages_lock, pages  # noqa: F401, fixtures
from rest import Rest

TEST_TIMEOUT = 60  # seconds; of a test that does not say otherwise


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: runs with the sanitizers only")
    config.addinivalue_line("markers", "plain: runs without the sanitizers only, for it measures the process")
    config.addinivalue_line("markers", "root: needs root, for it acts as several users")
    config.addinivalue_line("markers", "two_address_spaces: of guest memory, whatever KVM has here; needs root")


def pytest_collection_modifyitems(items):
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="must be root to act as several users"))
        if item.get_closest_marker("two_address_spaces") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="must be root to hide /dev/kvm from privmemd"))


@pytest.fixture(scope="session")
def contract():
    return contract_module.golden()


@pytest.fixture
def directory():
    """Short enough for a socket's path, and other users can enter it."""
    with tempfile.TemporaryDirectory(prefix="privmemd-") as path:
        os.chmod(path, 0o755)
        yield pathlib.Path(path)


@pytest.fixture
def start(directory, contract):
    """Starts a privmemd; all that are started are checked and stopped in the end."""
    started = []

    def start_daemon(**options):
        started.append(Daemon(directory, contract, **options))
        return started[-1]

    yield start_daemon
    failures = []
    for daemon in started:
        try:
            daemon.finish()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture
def daemon(start, directory, request):
    """Where it cannot look at KVM, privmemd goes by what x86 has with SMM: two address spaces."""
    if not request.node.get_closest_marker("two_address_spaces") or not os.path.exists("/dev/kvm"):
        return start()
    return start(command=["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/kvm && exec "$0" "$@"',
                          binary(), f"--socket={directory / 'socket'}"])


@pytest.fixture
def start_rest(directory):
    """Starts a privmem-rest for a privmemd; all that are started are checked and stopped in the end."""
    started = []

    def start_one(daemon, **options):
        started.append(Rest(directory, daemon, **options))
        return started[-1]

    yield start_one
    failures = []
    for one in started:
        try:
            one.finish()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture
def rest(daemon, start_rest):
    return start_rest(daemon)


@pytest.fixture
def client(daemon):
    """Connected as whoever runs the tests."""
    return daemon.connect()


@pytest.fixture
def alice(daemon):
    return daemon.connect(user.ALICE)


@pytest.fixture
def bob(daemon):
    return daemon.connect(user.BOB)


@pytest.fixture
def vm(client):
    return client.register("web1")


@pytest.fixture
def donation():
    """Makes sealed memfds, and closes them."""
    made = []

    def make(*arguments, **options):
        made.append(memory.memfd(*arguments, **options))
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


@pytest.fixture
def process():
    """Starts processes of other users, and kills them."""
    started = []

    def start_process(uid, function, *arguments):
        started.append(user.Process(uid, function, *arguments))
        return started[-1]

    yield start_process
    for one in started:
        one.end()
