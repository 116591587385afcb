# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a newcomer sees first. The demo checks its own claims; this checks that it makes them."""

import os
import pathlib
import subprocess

import pytest

DEMO = pathlib.Path(__file__).with_name("demo")

CLAIMS = [
    "SeaBIOS (version",
    "attached",
    "64.0M",
    "/memfd:privmemd:web1/ram0 (deleted)",
    "A guest was here.",
    "slot 0 of VM small2",
    "KVM alone accepts the very same slot",
    "slot 0 of VM small3",
    "KVM alone accepts the very same slot",
    "kill -9",
    "retained",
    "SeaBIOS (version",
    "Released backing ram0 of VM web1: 64.0M freed.",
    "done",
]


@pytest.mark.timeout(180)
def test_demo_shows_what_it_says():
    run = subprocess.run([DEMO], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150, env=os.environ)
    assert run.returncode == 0, run.stdout + run.stderr
    position = 0
    for claim in CLAIMS:
        found = run.stdout.find(claim, position)
        assert found >= 0, f"the demo does not show {claim!r} behind what comes before it:\n{run.stdout}"
        position = found + len(claim)


def test_demo_without_a_build_says_what_to_do():
    env = {name: value for name, value in os.environ.items() if name != "PRIVMEMD_BUILD"}
    run = subprocess.run([DEMO], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, env=env)
    assert run.returncode != 0
    assert "./dev demo" in run.stderr
