# SPDX-License-Identifier: LGPL-2.1-or-later
"""The settings: read at the start and on SIGHUP, as a whole or not at all, and told to the service manager."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

import user
from broker import binary, wait_until
from wire import Closed, Client


def settings(limits="", vm=""):
    return f"[Limits]\n{limits}\n[VM]\n{vm}\n"


@pytest.fixture
def file(directory):
    path = directory / "privmemd.conf"
    path.write_text(settings())
    return path


class Manager:
    """The service manager's end of sd_notify(3)."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind(str(self.path))

    def receive(self):
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())


@pytest.fixture
def manager(directory):
    made = Manager(directory)
    with contextlib.closing(made.socket):
        yield made


@pytest.fixture
def configured(start, directory, file, manager):
    """A privmemd with a file of its own, which reports to the manager; READY=1 has been received."""
    def start_daemon(text=settings(), **options):
        file.write_text(text)
        daemon = start(command=[binary(), f"--socket={directory / 'socket'}", f"--config={file}"],
                       environment={"NOTIFY_SOCKET": str(manager.path)}, **options)
        assert manager.receive() == {"READY": "1"}
        return daemon
    return start_daemon


def reload(daemon, manager):
    """Sends SIGHUP; returns what privmemd answers."""
    before = time.monotonic_ns() // 1000
    os.kill(daemon.pid, signal.SIGHUP)
    begun = manager.receive()
    assert begun.keys() == {"RELOADING", "MONOTONIC_USEC"} and begun["RELOADING"] == "1"
    assert before <= int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    done = manager.receive()
    assert done.pop("READY") == "1"
    return done


def limits(client):
    return client.call("GetHost")["limits"]


def run(*arguments):
    return subprocess.run([binary(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)


# ---- at the start ----


def test_limits_are_in_force_and_shown(configured):
    client = configured(settings("VMsPerUID=1\nBackingsPerVM=2\nConnections=30\nConnectionsPerUID=20")).connect()
    shown = limits(client)
    assert (shown["vmsPerUID"], shown["backingsPerVM"], shown["connections"], shown["connectionsPerUID"]) == (
        1, 2, 30, 20)
    client.register()
    error = client.fails("LimitExceeded", "RegisterVM", name="web2")
    assert (error["limit"], error["maximum"]) == ("vmsPerUID", 1)
    client.allocate("a")
    client.allocate("b")
    error = client.fails("LimitExceeded", "AllocateBacking", vm="web1", name="c", size=1 << 20)
    assert (error["limit"], error["maximum"]) == ("backingsPerVM", 2)


def test_limit_of_connections(configured):
    daemon = configured(settings("ConnectionsPerUID=3"))
    clients = [daemon.connect() for _ in range(3)]
    for client in clients:
        client.call("GetHost")
    with pytest.raises((Closed, BrokenPipeError)):
        daemon.connect().call("GetHost")
    clients[0].close()
    wait_until(lambda: can_connect(daemon), what="a connection less")


def can_connect(daemon):
    try:
        with Client(daemon.path, daemon.contract) as client:
            return client.call("GetHost")
    except (Closed, BrokenPipeError):
        return None


@pytest.mark.parametrize("given, wanted", [
    ({}, ("retain", "observe")),
    ({"exitPolicy": "release", "aliasPolicy": "enforce"}, ("release", "enforce")),
])
def test_policies_of_who_does_not_say(configured, given, wanted):
    client = configured(settings(vm="ExitPolicy=retain\nAliasPolicy=observe")).connect()
    vm = client.register(**given)
    assert (vm["exitPolicy"], vm["aliasPolicy"]) == wanted


def test_explicit_file_must_be_there(directory):
    done = run(f"--socket={directory / 'socket'}", f"--config={directory / 'missing'}")
    assert done.returncode == 1
    assert done.stderr == f"privmemd: cannot start: cannot read {directory / 'missing'}: No such file or directory\n"


def test_unreadable_file(directory):
    done = run(f"--socket={directory / 'socket'}", f"--config={directory}")
    assert done.returncode == 1
    assert done.stderr == f"privmemd: cannot start: cannot read {directory}: Is a directory\n"


def test_bad_file_at_the_start(directory, file, manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    file.write_text("[Limits]\nVMsPerUID=1025\n")
    done = run(f"--socket={directory / 'socket'}", f"--config={file}")
    assert done.returncode == 1
    said = f"annot start: {file}:2: VMsPerUID=1025: it must be a number from 1 to 1024"
    assert done.stderr == f"privmemd: c{said}\n"
    assert manager.receive() == {"STATUS": f"C{said}"}
    assert not (directory / "socket").exists()


# ---- on SIGHUP ----


def test_reload(configured, file, manager):
    daemon = configured()
    client = daemon.connect()
    client.register()
    for name in "abc":
        client.allocate(name)
    file.write_text(settings("VMsPerUID=1\nBackingsPerVM=2", "ExitPolicy=retain"))
    assert reload(daemon, manager) == {"STATUS": ""}
    assert limits(client)["vmsPerUID"] == 1
    client.fails("LimitExceeded", "RegisterVM", name="web2")
    client.fails("LimitExceeded", "AllocateBacking", vm="web1", name="d", size=1 << 20)
    assert len(client.listed("ListBackings")) == 3  # whoever has more keeps it
    client.call("UnregisterVM", vm="web1")
    assert client.register("web2")["exitPolicy"] == "retain"

    file.write_text("")
    assert reload(daemon, manager) == {"STATUS": ""}
    assert limits(client)["vmsPerUID"] == 1024
    assert client.register("web3")["exitPolicy"] == "release"


def test_connections_above_a_new_limit_stay(configured, file, manager):
    daemon = configured()
    clients = [daemon.connect() for _ in range(4)]
    for client in clients:
        client.call("GetHost")
    file.write_text(settings("Connections=2"))
    reload(daemon, manager)
    for client in clients:
        assert limits(client)["connections"] == 2
    assert can_connect(daemon) is None
    for client in clients[1:]:
        client.close()
    wait_until(lambda: can_connect(daemon), what="two connections less")


def test_register_again_after_the_default_has_changed(configured, file, manager):
    daemon = configured()
    client = daemon.connect()
    before = client.register()
    file.write_text(settings(vm="ExitPolicy=retain\nAliasPolicy=observe"))
    reload(daemon, manager)
    again = client.call("RegisterVM", name="web1")
    assert again == {"vm": before, "created": False}
    error = client.fails("NameConflict", "RegisterVM", name="web1", exitPolicy="retain")
    assert (error["field"], error["present"], error["requested"]) == ("exitPolicy", "release", "retain")


@pytest.mark.parametrize("spoil, said", [
    (lambda file: file.write_text("[VM]\nExitPolicy=release\nAliasPolicy=no\n"),
     "{}:3: AliasPolicy=no: it must be enforce or observe"),
    (lambda file: file.unlink(), "cannot read {}: No such file or directory"),
])
def test_bad_file_leaves_the_settings_as_they_were(configured, file, manager, spoil, said):
    daemon = configured(settings("VMsPerUID=5", "ExitPolicy=retain"), is_quiet=False)
    client = daemon.connect()
    spoil(file)
    said = f"The settings stay as they were: {said.format(file)}"
    assert reload(daemon, manager) == {"STATUS": said}
    assert daemon.stderr() == f"privmemd: t{said[1:]}\n"
    assert limits(client)["vmsPerUID"] == 5
    assert client.register()["exitPolicy"] == "retain"

    file.write_text(settings("VMsPerUID=6"))
    assert reload(daemon, manager) == {"STATUS": ""}
    assert limits(client)["vmsPerUID"] == 6


def test_reload_without_a_service_manager(daemon):
    client = daemon.connect()
    os.kill(daemon.pid, signal.SIGHUP)
    assert limits(client)["vmsPerUID"] == 1024


@pytest.mark.root
def test_settings_of_an_ordinary_user(configured, directory, file, manager):
    os.chown(directory, user.ALICE, user.ALICE)
    manager.path.chmod(0o777)
    daemon = configured(settings("VMsPerUID=2"), user=user.ALICE, group=user.ALICE, extra_groups=[])
    assert limits(daemon.connect(user.ALICE))["vmsPerUID"] == 2
