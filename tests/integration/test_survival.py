# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the description of a backing says of the events that it outlives, that the manual says the same, and that two of
the events turn out so."""

import itertools
import json
import os
import re
import signal
import subprocess

import pytest

import memory
from broker import Daemon, binary, wait_until
from contract import PROJECT, golden
from memory import HUGE_PAGE, MIB
from service_manager import ServiceManager
from wire import Client

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

EVENTS = ("vmmCrash", "vmmUpgrade", "daemonRestart", "hostKexec")


class Kept:
    """A privmemd, and another one after a kill, with what one of the kinds of custody keeps between them."""

    def __init__(self, custody, directory, contract):
        self.custody = custody
        self.directory = directory
        self.contract = contract
        self.daemon = None
        self.manager = ServiceManager(directory, contract) if custody == "fd_store" else None

    def start(self):
        """Its client, as whoever runs the tests."""
        if self.manager:
            self.daemon = (self.manager.restart if self.daemon else self.manager.start)(is_quiet=False)
        else:
            self.end()
            ledger = self.directory if self.custody == "runtime_file" else ""
            self.daemon = Daemon(self.directory, self.contract, is_quiet=False, command=[
                binary(), f"--socket={self.directory / 'socket'}", f"--ledger={ledger}"])
        return self.daemon.connect()

    def end(self):
        if self.daemon:
            self.daemon.stop(signal.SIGKILL)
        if self.manager:
            self.manager.close()


@pytest.fixture(params=["none", "runtime_file", "fd_store"])
def kept(request, directory, contract):
    kept = Kept(request.param, directory, contract)
    yield kept
    kept.end()


def matrix(backing):
    assert set(backing["survival"]) == set(EVENTS)
    for one in backing["survival"].values():
        assert len(one["explanation"]) > 20 and not one["explanation"].endswith(".")
    return [(backing["survival"][event]["survives"], backing["survival"][event]["reason"]) for event in EVENTS]


@pytest.mark.parametrize("policy, crash", [("retain", (True, "retained")), ("release", (False, "released"))])
def test_memfd(client, policy, crash):
    client.register(exitPolicy=policy)
    client.allocate()
    assert matrix(client.backing()) == [crash, (True, "shared_file"), (False, "not_kept"), (False, "not_kept")]


def test_huge_pages(client, pages):
    client.register(exitPolicy="retain")
    client.allocate(size=HUGE_PAGE, kind="hugetlb")
    assert matrix(client.backing()) == [
        (True, "retained"), (True, "shared_file"), (False, "not_kept"), (False, "kind_not_preserved")]


def test_guest_memfd(client):
    client.register(exitPolicy="retain")
    try:
        fd, vm = memory.guest_memfd(MIB)
    except OSError as error:
        pytest.skip(f"no guest_memfd: {error}")
    adopted = client.adopt(fd)["backing"]
    os.close(fd)
    os.close(vm)
    assert adopted == client.backing()
    assert matrix(adopted) == [
        (False, "bound_to_one_vm"), (False, "bound_to_one_vm"), (False, "not_kept"), (False, "kind_not_preserved")]


def test_every_description_has_it(client, vm):
    client.allocate()
    assert client.call("OpenBacking", vm="web1", backing="ram0")["backing"]["survival"] == client.backing()["survival"]


@pytest.mark.parametrize("policy", ["retain", "release"])
def test_crash_turns_out_so(client, process, policy):
    client.register(exitPolicy=policy)
    client.allocate()
    said = client.backing()["survival"]["vmmCrash"]["survives"]
    vmm = process(os.geteuid(), os.getpid)
    client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[vmm.pidfd])
    vmm.kill()
    wait_until(lambda: [vm["state"] for vm in client.listed("ListVMs")] in ([], ["retained"]))
    assert (len(client.listed("ListBackings")) == 1) == said


def test_host_says_the_custody(kept):
    assert kept.start().call("GetHost")["custody"] == kept.custody


AFTER_RESTART = {  # of a VM without a VMM, and of one that has one
    "none": [(False, "not_kept"), (False, "not_kept")],
    "runtime_file": [(False, "no_living_vmm"), (True, "found_in_vmm")],
    "fd_store": [(True, "in_fd_store"), (True, "in_fd_store")],
}
AFTER_KEXEC = {"none": "not_kept", "runtime_file": "not_kept", "fd_store": "not_handed_to_kernel"}


def run_vmm(path):
    client = Client(path, golden())
    client.register("web1", exitPolicy="retain")
    client.call("AttachVM", vm="web1")
    memory.write(client.allocate().fd, b"guest memory")
    run_vmm.kept = client  # and the file descriptor with it


@pytest.mark.parametrize("has_vmm", [False, True])
def test_restart_turns_out_so(kept, process, has_vmm):
    client = kept.start()
    vmm = process(os.geteuid(), run_vmm, kept.daemon.path)
    if not has_vmm:
        vmm.end()
        wait_until(lambda: client.call("ListVMs")["vms"][0]["state"] == "retained")
    said = matrix(client.backing())
    assert said[2:] == [AFTER_RESTART[kept.custody][has_vmm], (False, AFTER_KEXEC[kept.custody])]
    client = kept.start()
    assert (len(client.listed("ListBackings")) == 1) == said[2][0]
    if said[2][0]:
        fd = client.call("OpenBacking", vm="web1", backing="ram0").fd
        assert memory.read(fd, 12) == b"guest memory"


def manual():
    """The table of privmemd(8): {row: {kind: cell}}"""
    text = (PROJECT / "man" / "privmemd.8.rst").read_text().partition("\nWHAT SURVIVES WHAT\n")[2]
    head, _, *rows = re.search(r"((?:^    .*\n)+)", text, re.M)[1].splitlines()
    columns = re.split(r" {2,}", head.strip())
    table = {}
    for row in rows:
        name, *cells = re.split(r" {2,}", row.strip())
        table[name] = dict(zip(columns[1:], cells, strict=True))
    return table


def add_backing(client, kind, vm, request):
    if kind == "guest_memfd":
        try:
            fd, kvm_vm = memory.guest_memfd(MIB)
        except OSError as error:
            pytest.skip(f"no guest_memfd: {error}")
        client.adopt(fd, vm=vm)
        os.close(fd)
        os.close(kvm_vm)
        return
    if kind == "hugetlb":
        request.getfixturevalue("pages")
    client.allocate(vm=vm, size=HUGE_PAGE, kind=kind)


@pytest.mark.parametrize("kind", ["memfd", "hugetlb", "guest_memfd"])
def test_manual_says_the_same(kept, process, request, kind):
    client, table = kept.start(), manual()
    rows = ["VMM crash", "VMM upgrade", f"privmemd restart, {kept.custody}", "host kexec"]
    for policy, has_vmm in itertools.product(["release", "retain"], [False, True]):
        vm = f"{policy}-{has_vmm}"
        client.register(vm, exitPolicy=policy)
        add_backing(client, kind, vm, request)
        if has_vmm:
            client.call("AttachVM", vm=vm, pidFileDescriptor=0, fds=[process(os.geteuid(), os.getpid).pidfd])
        meaning = {"yes": True, "no": False, "if retain": policy == "retain", "if the VMM lives": has_vmm}
        assert [one[0] for one in matrix(client.backing(vm=vm))] == [meaning[table[row][kind]] for row in rows]


def test_privmemctl(daemon, client):
    client.register(exitPolicy="retain")
    client.allocate()
    command = [binary("client/privmemctl"), f"--socket={daemon.path}", "show", "web1"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    table = [line.split("  ", 1) for line in shown.rpartition("\n\n")[2].splitlines()]
    assert [row[0] for row in table] == ["BACKING"] + ["ram0"] * 4
    rows = [row[1].split() for row in table[1:]]
    assert [row[:3] for row in rows] == [
        ["VMM", "crash", "yes"], ["VMM", "upgrade", "yes"], ["privmemd", "restart", "no"], ["host", "kexec", "no"]]
    assert "the exit policy of the VM is retain" in shown
    shown = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=20, check=True).stdout
    assert json.loads(shown)["backings"] == [client.backing()]
