# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stock QEMU with a Linux guest is replaced by another one on the same memory, by the commands of docs/qemu.md."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

import guest
import memory
import user
from broker import Daemon, binary, wait_until
from contract import golden
from memory import MIB
from service_manager import ServiceManager
from wire import Client

PAGE = pathlib.Path(__file__).parents[2] / "docs/qemu.md"
ME = os.geteuid()
STATE_MAX = 2 * MIB  # of a machine without video memory; its RAM is 256 MiB
MINUTE = 60
MARK = 48 * MIB  # the firmware does not touch it
PATTERN = b"the guest's own" * 100

pytestmark = [
    pytest.mark.plain,
    pytest.mark.skipif(guest.missing() is not None, reason=guest.missing() or ""),
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]


def command_of_page(name):
    (text,) = re.findall(rf"^<!-- {name} -->\n```sh\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return text


def guest_options(files, console):
    return ["-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none",
            "-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console",
            "-kernel", str(files / "vmlinux"), "-initrd", str(files / "initramfs"),
            "-append", "console=ttyS0 quiet loglevel=0 panic=-1"]


class Owner:
    """Whoever owns the VM, with a shell, as the page has it."""

    def __init__(self, directory, path, files, uid):
        self.uid = uid
        self.run = directory / f"run-{uid}"
        self.run.mkdir(mode=0o700)
        os.chown(self.run, uid, uid)
        self.path = path
        self.console = guest.Console(self.run / "console")
        self.files = files
        self.options = guest_options(files, self.console.path)
        self.client = Client(path, golden())
        self.processes = []

    def shell(self, text, *options):
        """Starts commands with the variables of the page."""
        variables = f"run={self.run}\nguest=({shlex.join([*self.options, *options])})\n"
        environment = {**os.environ, "PRIVMEM_SOCKET": str(self.path),
                       "PATH": f'{pathlib.Path(binary("client/privmemctl")).parent}:{os.environ["PATH"]}'}
        become = [] if self.uid == ME else [
            "setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        with open(self.run / "messages", "ab") as messages:
            self.processes.append(subprocess.Popen(
                [*become, "bash", "-c", variables + text], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=messages, text=True, env=environment))
        return self.processes[-1]

    def finish(self, text, status=0):
        """Runs commands, and returns what they print."""
        process = self.shell(text)
        output = process.communicate(timeout=2 * MINUTE)[0]
        assert process.returncode == status, self.messages()
        return output

    def messages(self):
        return (self.run / "messages").read_text()

    def start(self, boot=False):
        """A guest that counts, by the command of the page: booted, or where the saved one was."""
        if boot:
            self.shell(command_of_page("start"))
        else:
            shutil.copy(self.files / "console", self.console.path)
            os.chown(self.console.path, self.uid, self.uid)
            self.shell(command_of_page("start"), "-incoming", f"file:{self.files / 'saved'}")
        self.console.wait_count()
        return self.pid()

    def vm(self):
        return next(iter(self.client.call("ListVMs")["vms"]), {})

    def pid(self):
        return self.vm().get("pid")

    def backing(self):
        found = self.client.backing()
        return found["inode"], found["device"], found["size"]

    def maps(self, pid):
        """Permissions of the mappings of the VM's memory."""
        lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[4] == str(self.client.backing()["inode"])]

    def check_alone(self, pid, gone):
        """The one process of the VM is this, and the other is no more."""
        wait_until(lambda: (self.pid(), self.vm().get("outgoingPID")) == (pid, None), 20, "the end of the hand-over")
        assert not is_running(gone)
        assert "rw-s" in self.maps(pid)
        shown = self.finish("privmemctl show web1")
        assert re.search(r"^State +attached", shown, re.M) and re.search(rf"^VMM .*\b{pid}\b", shown, re.M), shown
        assert "Outgoing" not in shown and "Successor" not in shown

    def end(self):
        if not self.processes:
            return
        vm = self.vm()
        for pid in (vm.get("pid"), vm.get("outgoingPID")):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.pid() is None, 20, "the end of every QEMU")
        for process in self.processes:
            process.communicate(timeout=20)
        self.processes = []
        self.client.close()


def ask(path, command, **arguments):
    """One command on a monitor that nobody else talks to."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(MINUTE)
        monitor.connect(str(path))
        lines = monitor.makefile("rw", encoding="utf-8")
        lines.readline()
        for execute, given in (("qmp_capabilities", {}), (command, arguments)):
            lines.write(json.dumps({"execute": execute, "arguments": given}) + "\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                assert "error" not in answer, answer
        return answer["return"]


def ignores_shared(path):
    return {one["capability"]: one["state"] for one in ask(path, "query-migrate-capabilities")}["x-ignore-shared"]


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def save_guest(files, contract):
    """Boots it once, by the command of the page, and writes it into a file, RAM and all, from which a guest goes on within
    a second."""
    daemon = Daemon(files, contract)
    owner = Owner(files, daemon.path, files, ME)
    try:
        owner.start(boot=True)
        monitor = owner.run / "web1-1.qmp"
        ask(monitor, "migrate", uri=f"file:{files / 'saved'}")
        wait_until(lambda: ask(monitor, "query-migrate")["status"] == "completed", MINUTE, "that it is saved")
        shutil.copy(owner.console.path, files / "console")
    finally:
        owner.end()
        daemon.finish()
    (files / "saved").chmod(0o644)


@pytest.fixture(scope="module")
def files(contract):
    """What a guest needs, readable for everybody."""
    with tempfile.TemporaryDirectory(prefix="privmemd-guest-") as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        guest.write_kernel(directory / "vmlinux")
        guest.write_initramfs(directory / "initramfs")
        save_guest(directory, contract)
        yield directory


@pytest.fixture
def owner_on(directory, files):
    made = []

    def make(path, uid=ME):
        made.append(Owner(directory, path, files, uid))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def owner(daemon, owner_on):
    return owner_on(daemon.path)


@pytest.mark.parametrize("uid", [ME, pytest.param(user.ALICE, marks=pytest.mark.root)], ids=["self", "alice"])
def test_upgrade(daemon, owner_on, uid):
    owner = owner_on(daemon.path, uid)
    former, backing = owner.start(), owner.backing()
    said = owner.finish(command_of_page("upgrade"))
    pid = owner.pid()
    assert said.startswith(f"VM web1 goes on in process {pid}; process {former} has ended.\n")
    assert int(re.search(r"^(\d+) KiB of state moved", said, re.M)[1]) * 1024 < STATE_MAX
    owner.check_alone(pid, former)
    assert owner.backing() == backing
    owner.console.wait_count()
    # Back again. What it prints is for programs, this time.
    again = command_of_page("upgrade").replace("web1-2", "web1-3").replace("web1-1", "web1-2")
    told = json.loads(owner.finish(again.replace("upgrade web1", "upgrade web1 --json")))
    assert (told["pid"], told["formerPID"]) == (owner.pid(), pid)
    assert 0 < told["stateBytes"] < STATE_MAX and told["stoodStillUSec"] > 0
    owner.check_alone(told["pid"], pid)
    owner.console.wait_count()


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm is missing or may not be used")
def test_upgrade_under_kvm(daemon, owner):
    """The firmware alone, which every KVM runs; and the next QEMU's exit is the VMM's."""
    owner.options = ["-accel", "kvm", "-nodefaults", "-no-user-config", "-display", "none"]
    owner.shell(command_of_page("start"))
    wait_until(lambda: owner.vm().get("residentBytes", 0) > 0, MINUTE, "that the firmware touched its memory")
    former, ram = owner.pid(), owner.client.call("OpenBacking", vm="web1", backing="ram0").fd
    memory.write(ram, PATTERN, MARK)
    told = json.loads(owner.finish(upgrade_with(("upgrade web1", "upgrade web1 --json"))))
    assert told["stateBytes"] < STATE_MAX
    owner.check_alone(told["pid"], former)
    assert ask(owner.run / "web1-2.qmp", "query-kvm")["enabled"] is True
    assert ask(owner.run / "web1-2.qmp", "query-status")["status"] == "running"
    os.kill(told["pid"], signal.SIGKILL)
    wait_until(lambda: owner.vm()["state"] == "retained", 20, "that the VM is retained")
    assert memory.read(ram, len(PATTERN), MARK) == PATTERN


def upgrade_with(*changes):
    """The command of the page, with something wrong in it."""
    text = command_of_page("upgrade")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


WRONG = {
    "machine": [("pc-q35", "pc-i440fx")],
    "no_qemu": [("qemu-system-x86_64", "true")],
    "not_found": [("qemu-system-x86_64", "qemu-system-none")],
    "private": [("share=on", "share=off")],
    "other_memory": [("mem-path={ram0}", "mem-path=$run/other"), ("-m 256M", "-m 256M -name {ram0}")],
    "too_late": [("--backing", "--timeout=1ms --backing")],
    "options": [("-m 256M", "-m 256M -incoming defer")],
    "monitor": [("web1-1.qmp", "none.qmp")],
    "device": [('"${guest[@]}"', '"${guest[@]/-serial/-parallel}"')],
}
SAID = {
    "machine": "Machine type received is 'pc-q35-10.0' and local is",
    "no_qemu": "has ended with exit status 0",
    "not_found": "has ended with exit status 127",
    "private": "only 0 are memory of VM web1",
    "other_memory": "only 0 are memory of VM web1",
    "too_late": "Connection timed out",
    "options": "must not have -incoming",
    "monitor": "cannot connect to the monitor",
    "device": "Unknown section or instance 'serial'|Unknown savevm section or instance 'serial'",
}


def test_upgrade_that_fails(daemon, owner):
    """The guest goes on where it is, every time, and the right command works after all of them."""
    pid, backing = owner.start(), owner.backing()
    for name, changes in WRONG.items():
        before = len(owner.messages())
        owner.finish(upgrade_with(*changes), status=2 if name == "options" else 1)
        assert re.search(SAID[name], owner.messages()[before:]), (name, owner.messages()[before:])
        wait_until(lambda: (owner.pid(), owner.vm().get("outgoingPID")) == (pid, None), 20, f"{name}: the former VMM")
        owner.console.wait_count(2)
    # The next migration of the former one, if any, is an ordinary one.
    assert ignores_shared(owner.run / "web1-1.qmp") is False
    owner.finish(command_of_page("upgrade"))
    owner.check_alone(owner.pid(), pid)
    assert owner.backing() == backing
    assert ignores_shared(owner.run / "web1-2.qmp") is False
    owner.console.wait_count()


def test_paused_guest_and_a_foreign_monitor(daemon, owner):
    former = owner.start()
    ask(owner.run / "web1-1.qmp", "stop")
    counted = owner.console.counted()
    said = owner.finish(command_of_page("upgrade"))
    assert said.startswith(f"VM web1 is paused in process {owner.pid()}; process {former} has ended.\n")
    assert ask(owner.run / "web1-2.qmp", "query-status")["status"] == "paused"
    assert owner.console.counted() == counted
    # The same socket, but of no VMM of this VM.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(owner.run / "web1-1.qmp.new"))
        listener.listen()
        owner.finish(upgrade_with(("web1-1.qmp", "web1-1.qmp.new"), ("web1-2", "web1-3")), status=1)
    assert f"is the socket of process {os.getpid()}, but the VMM" in owner.messages()
    ask(owner.run / "web1-2.qmp", "cont")
    owner.console.wait_count()


# The new QEMU, once it is the VM's VMM: a word in front of the command's own.
BEFORE_QEMU = "bash -c '{}; exec \"$@\"' bash qemu-system-x86_64"


def test_privmemd_dies_meanwhile(directory, contract, owner_on):
    """It is killed when the new QEMU has attached, and restarted while the upgrade waits for it."""
    manager = ServiceManager(directory, contract)
    try:
        manager.start()
        owner = owner_on(manager.path)
        former, backing = owner.start(), owner.backing()
        killed = threading.Thread(target=lambda: (manager.wait_end(MINUTE), manager.start()))
        killed.start()
        owner.finish(upgrade_with(("qemu-system-x86_64", BEFORE_QEMU.format(f"kill -9 {manager.daemon.pid}"))))
        killed.join()
        owner.client = Client(manager.path, golden())
        owner.check_alone(owner.pid(), former)
        assert owner.backing() == backing
        owner.console.wait_count()
        # And once more, but it is not back before the upgrade gives up.
        pid = owner.pid()
        again = [("web1-2", "web1-3"), ("web1-1", "web1-2"), ("--backing", "--timeout=4 --backing")]
        owner.finish(upgrade_with(("qemu-system-x86_64", BEFORE_QEMU.format(f"kill -9 {manager.daemon.pid}")), *again),
                     status=1)
        owner.console.wait_count()
        manager.restart()
        owner.client = Client(manager.path, golden())
        wait_until(lambda: (owner.pid(), owner.vm().get("outgoingPID")) == (pid, None), 20, "the former VMM")
        owner.end()
    finally:
        manager.close()


def test_interrupted(daemon, owner):
    """Ctrl-C while the new QEMU has not even started."""
    pid = owner.start()
    process = owner.shell("exec " + upgrade_with(("qemu-system-x86_64", BEFORE_QEMU.format("sleep 60"))))
    wait_until(lambda: owner.vm().get("outgoingPID") == pid, 20, "the new VMM")
    process.send_signal(signal.SIGINT)
    assert process.wait(MINUTE) == 1
    wait_until(lambda: (owner.pid(), owner.vm().get("outgoingPID")) == (pid, None), 20, "the former VMM")
    owner.console.wait_count()


def test_crash(daemon, owner):
    """What is left of a guest after a crash: its memory, to look at, and to boot on."""
    pid, backing = owner.start(), owner.backing()
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        assert "privmemd:web1/ram0" in maps.read()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: owner.vm()["state"] == "retained", 20, "that the VM is retained")
    counted = owner.console.counted()
    owner.finish(command_of_page("dump"))
    core = (owner.run / "web1.core").read_bytes()
    assert core[:4] == b"\x7fELF" and len(core) >= 256 * MIB
    assert core.count(guest.INIT.encode()[:200]) > 0
    assert f"count {counted} good".encode() in core
    assert owner.backing() == backing
    wait_until(lambda: owner.vm()["state"] == "retained", 20, "that the VM is retained")
    owner.finish(command_of_page("release"))
    assert owner.client.call("ListVMs") == {"vms": []}
