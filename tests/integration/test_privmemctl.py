# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmemctl against a real privmemd: what its options become, and what it shows of the answer."""

import json
import subprocess

import pytest

from broker import binary
from memory import MIB, slot

HVA = 0x7E0000000000


@pytest.fixture
def privmemctl(daemon):
    def run(*arguments, status=0):
        done = subprocess.run([binary("client/privmemctl"), f"--socket={daemon.path}", *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    return run


def rows(text):
    return dict(line.split(maxsplit=1) for line in text.splitlines() if len(line.split(maxsplit=1)) == 2)


def test_type_is_registered_and_shown(privmemctl, client):
    assert privmemctl("register", "web1", "--type=sev_es") == "Registered VM web1.\n"
    assert client.listed("ListVMs")[0]["type"] == "sev_es"
    assert rows(privmemctl("show", "web1"))["Type"] == "sev_es"
    assert privmemctl("register", "web1") == "VM web1 was registered already.\n"
    assert "type" in privmemctl("register", "web1", "--type=snp", status=1)


def test_run_registers_what_it_is_told(privmemctl, client):
    privmemctl("run", "web1", "--type=tdx", "--exit-policy=retain", "--alias-policy=observe", "--", "true")
    vm = client.listed("ListVMs")[0]
    assert (vm["type"], vm["exitPolicy"], vm["aliasPolicy"]) == ("tdx", "retain", "observe")


def test_lists_are_confined_to_guest_addresses(privmemctl, client, vm):
    client.allocate("ram0", 4 * MIB)
    for i in range(2):
        client.call("SetSlot", vm="web1", slot=slot(i, i * MIB, MIB, userspaceAddr=HVA + i * MIB, backing="ram0",
                                                    backingOffset=i * MIB))
    for verb, members in (("slots", "slots"), ("memory", "memory")):
        def listed(*arguments):
            return json.loads(privmemctl("--json", verb, "web1", *arguments))[members]
        assert len(listed()) == 2
        assert len(listed("--guest=0x100000+4K")) == 1
        assert listed("--guest=1G") == []
        assert "no range" in privmemctl(verb, "web1", "--guest=x", status=2)
    privmemctl("slots", "web1", "--backing=ram1", status=1)
    assert len(json.loads(privmemctl("--json", "slots", "web1", "--backing=ram0", "--guest=0"))["slots"]) == 1


@pytest.mark.parametrize("option, words", [
    ("--type=private", "undeclared, ordinary, sw_protected, sev, sev_es, snp or tdx"),
    ("--exit-policy=keep", "release or retain"), ("--alias-policy=", "enforce or observe"),
])
def test_run_refuses_an_unknown_word(privmemctl, client, option, words):
    assert words in privmemctl("run", "web1", option, "--", "true", status=2)
    assert client.call("ListVMs") == {"vms": []}
