# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmemd under systemd: socket activation, reload, restart, crash and watchdog."""

import json
import signal

import pytest

from broker import wait_until
from contract import INTERFACE
from machine import SOCKET
from user import ALICE, BOB
from wire import Closed

RESTARTED = ("Failed with result", "Main process exited", "core-dump", "Watchdog timeout", "Killing process")


@pytest.mark.parametrize("uid", [0, ALICE])
def test_socket_activation(service, uid):
    service.systemctl("stop", "privmemd.service")
    assert service.show("ActiveState") == "inactive"
    assert service.show("ActiveState", unit="privmemd.socket") == "active"
    assert service.varlink("GetHost", uid=uid)["vms"] == 0
    assert service.show("ActiveState", "SubState") == ["active", "running"]


def test_socket_is_enabled_with_the_service(service):
    service.systemctl("enable", "privmemd.service")
    try:
        assert service.systemctl("is-enabled", "privmemd.socket").stdout.strip() == "enabled"
    finally:
        service.systemctl("disable", "privmemd.service", "privmemd.socket")


def test_start_without_its_socket(service):
    """The service needs the socket, so it brings it along."""
    service.systemctl("stop", "privmemd.service", "privmemd.socket")
    service.systemctl("start", "privmemd.service")
    assert service.show("ActiveState", unit="privmemd.socket") == "active"
    service.varlink("GetHost", uid=ALICE)


def test_restart_keeps_the_socket(service):
    client = service.connect(ALICE)
    client.call("GetHost")
    before = int(service.show("MainPID"))
    socket = service.connect(ALICE)
    assert service.restart() != before
    with pytest.raises((Closed, BrokenPipeError)):
        client.call("GetHost")
    with pytest.raises((Closed, BrokenPipeError)):
        socket.call("GetHost")
    assert service.show("Result", "NRestarts") == ["success", "0"]
    service.connect(ALICE).call("GetHost")


def managed(service, group, method, **parameters):
    """A call by a user of that group alone; its exit status and what it says."""
    done = service.run("setpriv", f"--reuid={BOB}", f"--regid={BOB}", f"--groups={group}", "--",
                       "varlinkctl", "call", "--json=short", SOCKET, f"{INTERFACE}.{method}", json.dumps(parameters),
                       check=False)
    return done.returncode, done.stdout + done.stderr


def test_group_of_managers(service):
    """systemd-sysusers makes it with the user, and privmemd looks it up where it is confined."""
    service.connect(ALICE).register("web1")
    status, said = managed(service, "privmem", "ListVMs")
    assert status == 0 and json.loads(said)["vms"][0]["ownerUID"] == ALICE
    status, said = managed(service, "privmem", "AllocateBacking", vm="web1", name="ram0", size=1 << 20, open=False)
    assert status == 0 and json.loads(said) == {"created": True}
    status, said = managed(service, "privmem", "OpenBacking", vm="web1", backing="ram0")
    assert status != 0 and "NotPermitted" in said
    status, said = managed(service, "kvm", "UnregisterVM", vm="web1")
    assert status != 0 and "NotPermitted" in said
    assert managed(service, "privmem", "UnregisterVM", vm="web1")[0] == 0


def test_stop_and_start(service):
    service.systemctl("stop", "privmemd.service")
    assert service.show("ActiveState", "Result") == ["inactive", "success"]
    assert service.daemon_pid() == 0
    waiting = service.connect(ALICE)  # before it runs; the socket starts it
    assert waiting.call("GetHost")["vms"] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_killed_one_is_started_again(service, number):
    service.expect(*RESTARTED)
    service.signal(number)
    service.wait_for("NRestarts", "1")
    service.wait_for("SubState", "running")
    service.connect(ALICE).call("GetHost")


def test_killed_often_is_not_given_up(service):
    service.expect(*RESTARTED)
    for n in range(5):
        service.wait_for("SubState", "running")
        service.signal(signal.SIGKILL)
        service.wait_for("NRestarts", str(n + 1))
    service.wait_for("SubState", "running")


def test_watchdog(service):
    service.drop_in("[Service]\nWatchdogSec=1s\n")
    service.restart()
    service.expect(*RESTARTED)
    service.signal(signal.SIGSTOP)
    service.wait_for("NRestarts", "1")
    service.wait_for("SubState", "running")
    assert any("Watchdog timeout" in line for line in service.journal())
    service.connect(ALICE).call("GetHost")


def test_watchdog_of_an_idle_one(service):
    """It is alive, and says so though nobody calls."""
    service.drop_in("[Service]\nWatchdogSec=500ms\n")
    pid = service.restart()
    service.run("sleep", "1.2")
    assert service.show("MainPID", "NRestarts") == [str(pid), "0"]


def test_file_descriptor_store_is_kept(service):
    assert service.show("FileDescriptorStoreMax", "FileDescriptorStorePreserve") == ["8", "yes"]


# ---- settings ----


def limits(machine):
    return machine.varlink("GetHost")["limits"]


def test_reload(service):
    pid = service.show("MainPID")
    service.configure("[Limits]\nVMsPerUID=3\n[VM]\nExitPolicy=retain\n")
    service.systemctl("reload", "privmemd.service")
    assert service.show("MainPID", "StatusText") == [pid, ""]
    assert limits(service)["vmsPerUID"] == 3
    assert service.connect(ALICE).register()["exitPolicy"] == "retain"


def test_bad_settings_on_reload(service):
    service.configure("[Limits]\nVMsPerUID=3\n")
    service.systemctl("reload", "privmemd.service")
    service.expect("the settings stay as they were")
    service.configure("[Limits]\nVMsPerUID=0\n")
    service.systemctl("reload", "privmemd.service")
    shown = service.show("StatusText")
    assert shown.startswith("The settings stay as they were: ")
    assert shown.endswith("privmemd.conf:2: VMsPerUID=0: it must be a number from 1 to 1024")
    assert any("VMsPerUID=0: it must be" in line for line in service.journal())
    assert limits(service)["vmsPerUID"] == 3

    service.configure("")
    service.systemctl("reload", "privmemd.service")
    assert service.show("StatusText") == ""
    assert limits(service)["vmsPerUID"] == 1024


def test_bad_settings_at_the_start(service):
    """It is tried again and again, so that a file put right is enough; clients wait meanwhile."""
    service.expect("annot start", *RESTARTED, "Failed to start")
    service.configure("[VM]\nExitPolicy=keep\n")
    service.systemctl("restart", "privmemd.service", check=False)
    waiting = service.connect(ALICE)
    # Each attempt begins with an empty one.
    wait_until(lambda: service.show("StatusText").endswith(
        "privmemd.conf:2: ExitPolicy=keep: it must be release or retain"), 20, "the mistake in the status")
    service.configure("[VM]\nExitPolicy=retain\n")
    service.wait_for("SubState", "running", seconds=40)
    assert waiting.register()["exitPolicy"] == "retain"
