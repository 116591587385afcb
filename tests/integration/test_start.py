# SPDX-License-Identifier: LGPL-2.1-or-later
"""How privmemd is started and stopped: where it listens, what it refuses, and as whom it runs."""

import os
import pathlib
import signal
import socket
import stat
import subprocess

import pytest

import memory
import user
from broker import binary, wait_until
from contract import INTERFACE
from memory import MIB, PAGE, slot


def run(*arguments, **options):
    """One that is expected to end at once."""
    return subprocess.run([binary(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
                          **options)


def test_help():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--socket=PATH" in done.stdout and "--version" in done.stdout


def test_version(client):
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f'privmemd {client.call("GetHost")["version"]}\n')


@pytest.mark.parametrize("arguments", [["--unknown"], ["--socket"], ["word"], ["-x"]])
def test_wrong_usage(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_and_removes_the_socket(daemon, number):
    client = daemon.connect()
    client.register()
    fd = os.dup(client.allocate().fd)
    stream = daemon.connect().stream("Subscribe")
    next(stream)
    assert daemon.stop(number) == 0
    assert not daemon.path.exists()
    os.close(fd)


def test_second_on_the_same_path(daemon):
    done = run(f"--socket={daemon.path}")
    assert done.returncode == 1
    assert "another process listens" in done.stderr and str(daemon.path) in done.stderr
    daemon.connect().call("GetHost")


def test_something_else_at_the_path(directory):
    path = directory / "file"
    path.write_text("precious")
    done = run(f"--socket={path}")
    assert done.returncode == 1
    assert "is no socket" in done.stderr
    assert path.read_text() == "precious"


@pytest.mark.parametrize("make", [
    lambda path: path.mkdir(), lambda path: path.symlink_to("elsewhere"), lambda path: os.mkfifo(path)])
def test_neither_a_file_nor_a_socket_at_the_path(directory, make):
    path = directory / "thing"
    make(path)
    assert run(f"--socket={path}").returncode == 1
    assert path.is_symlink() or path.exists()


def test_stale_socket_is_replaced(start, directory):
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(directory / "socket"))
        old.listen()
    start().connect().call("GetHost")


@pytest.mark.parametrize("path, said", [
    ("/nonexistent/socket", "No such file"), ("/tmp/" + "x" * 200, "too long"), ("", ""),
])
def test_path_that_cannot_be(path, said):
    done = run(f"--socket={path}")
    assert done.returncode == 1
    assert said in done.stderr


def test_everybody_may_connect_to_roots(daemon):
    wanted = 0o666 if os.geteuid() == 0 else 0o600
    assert stat.S_IMODE(daemon.path.stat().st_mode) == wanted


def test_killed_one_is_followed_by_another(start, directory):
    first = start()
    first.process.kill()
    first.process.wait()
    first.process.returncode = 0  # what we did to it
    start().connect().call("GetHost")


# ---- sockets that are passed ----


def activation(path, name="varlink"):
    return ["systemd-socket-activate", f"--fdname={name}", "-l", str(path), binary()]


def test_socket_activation(start, directory):
    path = directory / "activated"
    daemon = start(path=path, command=activation(path), wait=False, is_quiet=False)
    wait_until(daemon.is_serving, 20, "activation")
    client = daemon.connect()
    client.register()
    client.allocate()
    assert daemon.stop() == 0
    assert path.exists()


def test_two_sockets_are_passed(start, directory):
    paths = [directory / "a", directory / "b"]
    command = ["systemd-socket-activate", "--fdname=varlink:varlink", "-l", str(paths[0]),
               "-l", str(paths[1]), binary()]
    daemon = start(path=paths[1], command=command, wait=False, is_quiet=False)
    wait_until(daemon.is_serving, 20, "activation")
    daemon.connect().register()
    daemon.path = paths[0]
    assert len(daemon.connect().call("ListVMs")["vms"]) == 1


def test_a_socket_of_an_unknown_name_is_closed_and_named(start, directory):
    paths = [directory / "known", directory / "unknown"]
    command = ["systemd-socket-activate", "--fdname=varlink:mystery", "-l", str(paths[0]),
               "-l", str(paths[1]), binary()]
    daemon = start(path=paths[0], command=command, wait=False, is_quiet=False)
    wait_until(daemon.is_serving, 20, "activation")
    daemon.connect().call("GetHost")
    assert "'mystery', which is not used" in daemon.stderr() and "'varlink'" not in daemon.stderr()
    held = [os.readlink(f"/proc/{daemon.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{daemon.process.pid}/fd")]
    inodes = {line.split()[-1]: line.split()[-2] for line in pathlib.Path("/proc/net/unix").read_text().splitlines()
              if line.endswith((str(paths[0]), str(paths[1])))}
    assert f"socket:[{inodes[str(paths[0])]}]" in held
    assert str(paths[1]) not in inodes or f"socket:[{inodes[str(paths[1])]}]" not in held


# ---- as an ordinary user ----


@pytest.fixture
def runtime_directory(directory):
    path = directory / "run"
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(path, user.ALICE, user.ALICE)
    return path


@pytest.fixture
def ordinary(start, runtime_directory):
    """As ALICE where root runs the tests, and else as whoever runs them."""
    identity = {"user": user.ALICE, "group": user.ALICE, "extra_groups": []} if os.geteuid() == 0 else {}
    return start(path=runtime_directory / "privmemd" / INTERFACE, command=[binary()],
                 environment={"XDG_RUNTIME_DIR": str(runtime_directory)}, **identity)


def owner():
    return user.ALICE if os.geteuid() == 0 else os.geteuid()


def test_ordinary_users_socket_is_private(ordinary):
    assert stat.S_IMODE(ordinary.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ordinary.path.parent.stat().st_mode) == 0o700
    assert ordinary.path.stat().st_uid == owner()


def test_ordinary_users_memory(ordinary):
    client = ordinary.connect(owner())
    assert client.register()["ownerUID"] == owner()
    fd = client.allocate().fd
    assert os.fstat(fd).st_uid == owner()
    memory.fill(fd)
    client.call("SetSlot", vm="web1", slot=slot(0, 0, PAGE, backing="ram0", userspaceAddr=1 << 32))
    lent = client.call("OpenBacking", vm="web1", backing="ram0", access="read_only").fd
    assert memory.read(lent, 1) == b"x"
    assert client.call("UnregisterVM", vm="web1") == {"freedBytes": MIB}


def test_ordinary_user_adopts(ordinary):
    fd = memory.memfd()
    if os.geteuid() == 0:
        os.fchown(fd, user.ALICE, user.ALICE)
    client = ordinary.connect(owner())
    client.register()
    assert client.adopt(fd)["created"]
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    os.close(fd)


@pytest.mark.root
def test_ordinary_user_has_no_memory_for_others(ordinary):
    client = ordinary.connect()
    error = client.fails("NotSupported", "RegisterVM", name="web1", ownerUID=user.BOB)
    assert "root" in error["feature"]
    assert client.call("ListVMs") == {"vms": []}


@pytest.fixture
def start_with(start, directory):
    """Starts a privmemd through setpriv(1)."""
    def start_daemon(*options):
        directory.chmod(0o777)
        return start(command=["setpriv", *options, binary(), f"--socket={directory / 'socket'}"])
    return start_daemon


@pytest.mark.root
def test_capabilities_take_the_place_of_root(start_with):
    wanted = "+chown,+dac_read_search"
    daemon = start_with(f"--reuid={user.ALICE}", f"--regid={user.ALICE}", "--clear-groups", f"--inh-caps={wanted}",
                        f"--ambient-caps={wanted}")
    client = daemon.connect()
    client.register(ownerUID=user.BOB)
    fd = client.allocate().fd
    assert (os.fstat(fd).st_uid, stat.S_IMODE(os.fstat(fd).st_mode)) == (user.BOB, 0o600)
    memory.fill(fd)
    lent = client.call("OpenBacking", vm="web1", backing="ram0", access="read_only").fd
    assert memory.read(lent, 1) == b"x"


@pytest.mark.root
def test_root_without_the_capability(start_with):
    client = start_with("--bounding-set=-chown").connect()
    client.register()
    client.allocate()
    error = client.fails("NotSupported", "RegisterVM", name="web2", ownerUID=user.BOB)
    assert "CAP_CHOWN" in error["feature"]


def test_ordinary_user_without_a_runtime_directory():
    options = {"user": user.ALICE, "group": user.ALICE, "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
    done = run(env=environment, **options)
    assert done.returncode == 1
    assert "XDG_RUNTIME_DIR" in done.stderr
