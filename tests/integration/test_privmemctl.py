# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmemctl against a real privmemd: what its options become, and what it shows of the answer."""

import subprocess

import pytest

from broker import binary


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


@pytest.mark.parametrize("option, words", [
    ("--type=private", "undeclared, ordinary, sw_protected, sev, sev_es, snp or tdx"),
    ("--exit-policy=keep", "release or retain"), ("--alias-policy=", "enforce or observe"),
])
def test_run_refuses_an_unknown_word(privmemctl, client, option, words):
    assert words in privmemctl("run", "web1", option, "--", "true", status=2)
    assert client.call("ListVMs") == {"vms": []}
