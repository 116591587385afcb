# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine with a full systemd, in which privmemd is installed: systemd-nspawn boots an overlay over the root that
the tests run in. It has no network, none of the host's units, and whatever it writes is gone with it.

The fixture "machine" is booted once a session; "service" is the machine with privmemd.socket listening,
privmemd.service running, no settings and no drop-in. A test may do with the service what it likes:

    machine.run("systemctl", "is-active", "privmemd")      a command in it; .stdout, .stderr, .returncode
    machine.run("id", uid=ALICE)                           … as another user
    machine.varlink("GetHost")                             a call by varlinkctl; the reply, or Refusal
    machine.connect(ALICE)                                 a wire.Client to use out here; closed after the test
    machine.process(ALICE, function, argument)             a function of Python in a process of the machine, which
                                                           then lives on; .result, .kill(); killed after the test
    machine.show("MainPID", "ActiveState")                 properties of privmemd.service, as strings
    machine.wait_for("NRestarts", "1")                     … until one of them has this value
    machine.systemctl("stop", "privmemd.service")
    machine.restart()                                      systemctl restart, and the new MainPID
    machine.signal(signal.SIGKILL)                         to the daemon, and to nothing else
    machine.daemon_pid()                                   its pid out here: for /proc/PID
    machine.configure("[Limits]\\n…")                       writes privmemd.conf; reload or restart it then
    machine.drop_in("[Service]\\n…")                        changes the unit, and reloads systemd
    machine.journal()                                      what privmemd and systemd said of it during the test
    machine.expect("text")                                 … and which of it is no fault

After each test the journal must not hold a warning, nor a word of privmemd's, that was not expected."""

import ctypes
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid

import user
from contract import INTERFACE
from memory import libc
from wire import Client, Refusal

BOOT_TIMEOUT = 30
LEFT_BEHIND_SECONDS = 3600
SOCKET = f"/run/privmemd/{INTERFACE}"
UNIT = "privmemd.service"
SYS_PIDFD_GETFD = 438
NAMESPACES = (os.CLONE_NEWNS | os.CLONE_NEWNET | os.CLONE_NEWUTS | os.CLONE_NEWIPC | os.CLONE_NEWCGROUP)

# What is mounted is gone with the mount namespace and what runs with the pid namespace, however this ends. The device node is our own: a udev of the machine's, or
# whatever changes it there, must not change the host's.
START = r"""
set -eu
echo $$ >"$CGROUP/cgroup.procs"
mount -t tmpfs -o mode=755 tmpfs "$SCRATCH"
cd "$SCRATCH"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir="$SCRATCH/upper",workdir="$SCRATCH/work" overlay root ||
        { echo "no overlay can be mounted over the root of these tests"; exit 77; }
meson install -C "$BUILD" --no-rebuild --quiet --destdir "$SCRATCH/root"
rm -rf root/etc/systemd/system root/etc/fstab root/etc/machine-id root/var/log/journal
mkdir root/etc/systemd/system
echo "$ID" >root/etc/machine-id
if [ -e /dev/kvm ]; then
        mknod -m 660 kvm c 10 232 || { echo "no device node can be made here (CAP_MKNOD)"; exit 77; }
        chgrp kvm kvm
        set -- "$@" "--bind=$SCRATCH/kvm:/dev/kvm"
fi
exec systemd-nspawn --quiet --boot --register=no --keep-unit --console=pipe --private-network --link-journal=no \
        --machine=privmemd-test --directory="$SCRATCH/root" "$@" systemd.unit=basic.target
"""


def take_fd(pidfd, number):
    """pidfd_getfd(2)"""
    fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return fd


class Unavailable(Exception):
    """What this host lacks to boot a machine."""


def cgroup_parents():
    """Our own cgroup in the unified hierarchy; and, where systemd has a hierarchy of its own, the one that nspawn thinks
    is the same there."""
    found = {}
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            found.setdefault("unified", pathlib.Path(fields.split()[4]))
        elif re.match(r"cgroup \S+ \S*\bname=systemd\b", kind):
            found["systemd"] = pathlib.Path(fields.split()[4])
    if "unified" not in found:
        raise Unavailable("no cgroup2 file system is mounted")
    lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line[3:] for line in lines if line.startswith("0::")).lstrip("/")
    return [found["unified"] / own, *(found[name] / own for name in found if name == "systemd")]


def remove_cgroups(top):
    """All below top that nobody is in, top included."""
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            pass


def connected(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection.detach()


def entered(leader, pidfd, uid, function, arguments):
    """In a child whose pid namespace is the machine's."""
    root = os.open(f"/proc/{leader}/root", os.O_PATH | os.O_DIRECTORY)
    os.setns(pidfd, NAMESPACES)
    os.fchdir(root)
    os.chroot(".")
    user.become(uid)
    return function(*arguments)


class Machine:
    def __init__(self, build, contract):
        if os.geteuid() != 0:
            raise Unavailable("must be root to boot a machine")
        if not shutil.which("systemd-nspawn"):
            raise Unavailable("systemd-nspawn is missing")
        if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], stderr=subprocess.DEVNULL).returncode != 0:
            raise Unavailable("must be allowed to create namespaces (CAP_SYS_ADMIN)")
        parents = cgroup_parents()
        self.build = build
        self.contract = contract
        self.has_kvm = os.path.exists("/dev/kvm")
        self.things = []  # of the present test: clients and processes
        self.expected = []
        self.cursor = None
        self.touched = True  # since the last reset()
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="privmemd-machine-"))
        self.console = self.scratch.with_suffix(".console")
        self.cgroups = [parent / self.scratch.name for parent in parents]
        self.cgroup = self.cgroups[0]
        self.leader = self.pidfd = self.nspawn = None
        try:
            self.boot()
            self.installed_settings = self.configuration().read_text()
        except BaseException:
            self.halt()
            raise

    # ---- boot and halt ----

    def said(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def boot(self):
        for parent in (one.parent for one in self.cgroups):
            for other in parent.glob("privmemd-machine-*"):
                if time.time() - other.stat().st_mtime > LEFT_BEHIND_SECONDS:
                    remove_cgroups(other)  # of a run that was killed
        try:
            self.cgroup.mkdir()
        except OSError as error:
            raise Unavailable(f"must be allowed to make a cgroup: {error}") from None
        environment = dict(os.environ, SCRATCH=str(self.scratch), BUILD=str(self.build), CGROUP=str(self.cgroup),
                           ID=uuid.uuid4().hex, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1")
        with open(self.console, "wb") as console:
            self.nspawn = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", "--pid", "--fork",
                 "--kill-child", "--mount-proc", "sh", "-c", START, "sh"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment, start_new_session=True)
        deadline = time.monotonic() + BOOT_TIMEOUT
        while not self.is_booted():
            status = self.nspawn.poll()
            if status == 77:
                raise Unavailable(self.said().strip().splitlines()[-1])
            if status is not None or time.monotonic() > deadline:
                raise AssertionError(f"the machine did not boot (status {status}):\n{self.said()}")
            time.sleep(0.05)

    def is_booted(self):
        if self.leader is None:
            inside = self.cgroup / "payload" / "init.scope" / "cgroup.procs"
            pids = inside.read_text().split() if inside.exists() else []
            if pids:
                self.leader = int(pids[0])
                self.pidfd = os.pidfd_open(self.leader)
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        if state == "degraded":
            raise AssertionError(f'units have failed: {self.run("systemctl", "--failed", "--no-legend").stdout}')
        return state == "running"

    def halt(self):
        """Kills what is in the machine, and nspawn with it; nothing of it is worth an orderly shutdown."""
        self.finish_test()
        if self.nspawn:
            self.nspawn.kill()
            self.nspawn.wait()
        deadline = time.monotonic() + 10
        while any(one.exists() for one in self.cgroups) and time.monotonic() < deadline:
            for one in self.cgroups:
                remove_cgroups(one)
            time.sleep(0.01)
        if self.pidfd is not None:
            os.close(self.pidfd)
        self.scratch.rmdir()
        self.console.unlink(missing_ok=True)

    # ---- in the machine ----

    @property
    def root(self):
        return pathlib.Path(f"/proc/{self.leader}/root")

    def run(self, *command, uid=0, check=True, timeout=60, **options):
        enter = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
                 "--root", "--wd"]
        if uid != 0:
            enter += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
        done = subprocess.run([*enter, *map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def process(self, uid, function, *arguments):
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        os.setns(self.pidfd, os.CLONE_NEWPID)  # of the children to come
        try:
            self.things.append(user.Process(0, entered, self.leader, self.pidfd, uid, function, arguments))
        finally:
            os.setns(own, os.CLONE_NEWPID)
            os.close(own)
        return self.things[-1]

    # ---- the service ----

    def systemctl(self, *arguments, **options):
        self.touched = True
        return self.run("systemctl", *arguments, **options)

    def show(self, *properties, unit=UNIT):
        shown = self.run("systemctl", "show", unit, f'--property={",".join(properties)}').stdout
        values = dict(line.split("=", 1) for line in shown.splitlines())
        return values[properties[0]] if len(properties) == 1 else [values[name] for name in properties]

    def restart(self):
        self.systemctl("restart", UNIT)
        return int(self.show("MainPID"))

    def daemon_pid(self):
        """0 if it does not run."""
        file = self.cgroup / "payload" / "system.slice" / UNIT / "cgroup.procs"
        pids = file.read_text().split() if file.exists() else []
        return int(pids[0]) if pids else 0

    def signal(self, number):
        self.touched = True
        os.kill(self.daemon_pid(), number)

    def wait_for(self, property_name, value, seconds=15, unit=UNIT):
        deadline = time.monotonic() + seconds
        while (found := self.show(property_name, unit=unit)) != value:
            if time.monotonic() > deadline:
                raise AssertionError(f"{property_name} is {found}, not {value}, after {seconds} s:\n"
                                     + "\n".join(self.journal()))
            time.sleep(0.05)

    def configuration(self):
        found = re.search(r"\S+/privmemd\.conf", self.run("privmemd", "--help").stdout)
        return self.root / found[0].lstrip("/")

    def configure(self, text):
        self.touched = True
        self.configuration().write_text(text)

    def drop_in_directory(self):
        return self.root / "run" / "systemd" / "system" / f"{UNIT}.d"

    def drop_in(self, text):
        directory = self.drop_in_directory()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "test.conf").write_text(text)
        self.systemctl("daemon-reload")

    # ---- the interface ----

    def varlink(self, method, parameters=None, uid=0):
        done = self.run("varlinkctl", "call", "--json=short", SOCKET, f"{INTERFACE}.{method}",
                        json.dumps(parameters or {}), uid=uid, check=False)
        if done.returncode == 0:
            return json.loads(done.stdout)
        error = re.search(rf"{re.escape(INTERFACE)}\.\w+", done.stderr)
        raise Refusal(error[0] if error else "varlinkctl", done.stderr.strip())

    def connect(self, uid=None):
        """By a process in the machine: sd-varlink serves nobody whose pid it cannot see."""
        helper = self.process(uid or 0, connected, SOCKET)
        fd = take_fd(helper.pidfd, helper.result)
        self.things[-1].end()
        self.things[-1] = Client(SOCKET, self.contract, connected=socket.socket(fileno=fd))
        return self.things[-1]

    # ---- the journal ----

    def entries(self):
        """Everything since the test has begun, as dictionaries."""
        after = [f"--after-cursor={self.cursor}"] if self.cursor else []
        self.run("journalctl", "--sync")
        return [json.loads(line) for line in self.run("journalctl", "--output=json", *after).stdout.splitlines()]

    def journal(self):
        return [str(entry.get("MESSAGE")) for entry in self.entries()
                if UNIT in (entry.get("_SYSTEMD_UNIT"), entry.get("UNIT"))]

    def expect(self, *texts):
        self.expected += texts

    def faults(self):
        for entry in self.entries():
            message = str(entry.get("MESSAGE"))
            bad = int(entry.get("PRIORITY", 6)) <= 4 or entry.get("_COMM") == "privmemd"
            # What the kernel says may be about anything on this host.
            if bad and entry.get("_TRANSPORT") != "kernel" and not any(text in message for text in self.expected):
                yield message

    # ---- between tests ----

    def begin_test(self):
        self.expected = []
        shown = self.run("journalctl", "--lines=0", "--show-cursor", "--quiet").stdout
        self.cursor = shown.rpartition("-- cursor: ")[2].strip()

    def finish_test(self):
        for thing in self.things:
            (thing.close if isinstance(thing, Client) else thing.end)()
        self.things = []

    def reset(self):
        """The service as it is installed, started anew; but a start takes half a second, so not if nothing has happened
        to it since the last one."""
        if not self.touched and self.varlink("GetHost")["vms"] == 0:
            return
        self.configure(self.installed_settings)
        directory = self.drop_in_directory()
        if directory.exists():
            shutil.rmtree(directory)
            self.systemctl("daemon-reload")
        self.systemctl("stop", UNIT)
        self.systemctl("clean", "--what=fdstore", UNIT)
        self.systemctl("reset-failed", UNIT, check=False)
        self.systemctl("start", "privmemd.socket", UNIT)
        self.touched = False
