# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the description of a backing says of the events that it outlives, and that two of them turn out so."""

import json
import os
import subprocess

import pytest

import memory
from broker import binary, wait_until
from memory import HUGE_PAGE, MIB

EVENTS = ("vmmCrash", "vmmUpgrade", "daemonRestart", "hostKexec")


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


def test_restart_turns_out_so(start):
    first = start()
    client = first.connect()
    client.register(exitPolicy="retain")
    client.allocate()
    said = client.backing()["survival"]["daemonRestart"]["survives"]
    first.finish()
    assert (len(start().connect().listed("ListBackings")) == 1) == said


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
