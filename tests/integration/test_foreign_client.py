# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that were not written here: varlinkctl and python3-varlink."""

import json
import os
import subprocess

import pytest
import varlink

from contract import GOLDEN, INTERFACE

pytestmark = pytest.mark.usefixtures("daemon")


def varlinkctl(*arguments, status=0):
    done = subprocess.run(["varlinkctl", "--no-pager", *map(str, arguments)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20, env={**os.environ, "COLUMNS": "10000"})
    assert (done.returncode == 0) == (status == 0), done.stdout + done.stderr
    return done


def call(daemon, method, more=False, **parameters):
    options = ["-j", "--more"] if more else ["-j"]
    text = varlinkctl(*options, "call", daemon.path, f"{INTERFACE}.{method}", json.dumps(parameters)).stdout
    if not more:
        return json.loads(text)
    return [json.loads(line) for line in text.replace("\x1e", "\n").splitlines() if line.strip()]


# ---- varlinkctl ----


def test_varlinkctl_info(daemon):
    info = json.loads(varlinkctl("-j", "info", daemon.path).stdout)
    assert info["product"] == "privmemd"
    assert set(info["interfaces"]) == {INTERFACE, "io.systemd", "org.varlink.service"}


def test_varlinkctl_validates_the_golden_file():
    varlinkctl("validate-idl", GOLDEN)


def test_varlinkctl_introspects_what_the_golden_file_says(daemon):
    assert varlinkctl("introspect", daemon.path, INTERFACE).stdout.strip() == GOLDEN.read_text().strip()


def test_varlinkctl_lists_the_methods(daemon):
    methods = varlinkctl("list-methods", daemon.path, INTERFACE).stdout
    assert f"{INTERFACE}.AllocateBacking" in methods


def test_varlinkctl_call(daemon):
    assert call(daemon, "RegisterVM", name="web1")["created"] is True
    assert call(daemon, "AllocateBacking", vm="web1", name="ram0", size=4096)["created"] is True
    assert [vm["name"] for vm in call(daemon, "ListVMs")["vms"]] == ["web1"]


def test_varlinkctl_call_with_more(daemon):
    for i in range(300):
        daemon.connect().register(f"vm{i}")
    replies = call(daemon, "ListVMs", more=True)
    assert len(replies) > 1
    assert sum(len(reply["vms"]) for reply in replies) == 300


def test_varlinkctl_subscribes(daemon):
    with subprocess.Popen(["varlinkctl", "-j", "--more", "call", daemon.path, f"{INTERFACE}.Subscribe", "{}"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert json.loads(process.stdout.readline().strip("\x1e"))["event"]["kind"] == "subscribed"
            daemon.connect().register()
            assert json.loads(process.stdout.readline().strip("\x1e"))["event"]["vm"] == "web1"
        finally:
            process.kill()


def test_varlinkctl_shows_an_error(daemon):
    done = varlinkctl("call", daemon.path, f"{INTERFACE}.UnregisterVM", '{"vm":"web1"}', status=1)
    assert f"{INTERFACE}.NoSuchVM" in done.stderr


def test_varlinkctl_shows_a_wrong_parameter(daemon):
    done = varlinkctl("call", daemon.path, f"{INTERFACE}.RegisterVM", '{"name":1}', status=1)
    assert "name" in done.stdout + done.stderr


# ---- python3-varlink ----


@pytest.fixture
def remote(daemon):
    with varlink.Client(address=f"unix:{daemon.path}") as client, client.open(INTERFACE) as connection:
        yield connection


def test_python_has_every_method(remote, daemon):
    methods = daemon.contract.members
    for name, member in methods.items():
        if type(member).__name__ == "_Method":
            assert callable(getattr(remote, name))


def test_python_calls(remote):
    assert remote.RegisterVM("web1")["vm"]["state"] == "registered"
    assert remote.AllocateBacking(vm="web1", name="ram0", size=1 << 20)["created"] is True
    assert remote.ListBackings()["backings"][0]["kind"] == "memfd"
    slot = {"slotId": 0, "guestPhysAddr": 0, "memorySize": 4096, "userspaceAddr": 1 << 32, "backing": "ram0"}
    assert remote.SetSlot("web1", slot)["verdict"]["outcome"] == "ok"
    assert remote.ListSlots()["slots"][0]["slot"]["backing"] == "ram0"
    assert remote.GetHost()["promisedBytes"] == 1 << 20


def test_python_sees_typed_errors(remote):
    with pytest.raises(varlink.VarlinkError) as caught:
        remote.UnregisterVM("web1")
    assert caught.value.error() == f"{INTERFACE}.NoSuchVM"
    assert caught.value.parameters()["vm"] == "web1"


def test_python_sees_a_wrong_parameter(remote):
    with pytest.raises(varlink.InvalidParameter):
        remote.RegisterVM(name="web1", exitPolicy="keep")


def test_python_streams_a_list(remote):
    for i in range(300):
        remote.RegisterVM(f"vm{i}")
    with pytest.raises(varlink.VarlinkError):
        remote.ListVMs()
    assert len([vm for reply in remote.ListVMs(_more=True) for vm in reply["vms"]]) == 300


def test_python_subscribes(daemon, remote):
    stream = remote.Subscribe(_more=True)
    assert next(stream)["event"]["kind"] == "subscribed"
    daemon.connect().register()
    assert next(stream)["event"]["vm"] == "web1"
