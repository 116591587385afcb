# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the installation has left: the user, the units, and the settings."""

import pathlib

PROJECT = pathlib.Path(__file__).resolve().parents[2]


def test_user(machine):
    """systemd-sysusers(8) made it at boot."""
    name, _, uid, gid, _, home, shell = machine.run("getent", "passwd", "privmem").stdout.strip().split(":")
    assert (name, home) == ("privmem", "/")
    assert shell.endswith("nologin")
    assert 0 < int(uid) < 1000
    assert machine.run("getent", "group", "privmem").stdout.split(":")[2] == gid
    assert machine.run("passwd", "--status", "privmem").stdout.split()[1] == "L"


def test_units_are_clean(machine):
    done = machine.run("systemd-analyze", "verify", "--man=yes", "privmemd.service", "privmemd.socket")
    assert (done.stdout, done.stderr) == ("", "")


def test_exposure(machine):
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=14", "privmemd.service")


def test_settings(machine):
    assert machine.configuration().read_text() == (PROJECT / "policy" / "privmemd.conf").read_text()
