# SPDX-License-Identifier: LGPL-2.1-or-later
"""./dev bench still measures. What it finds is no test."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

RUN = pathlib.Path(__file__).resolve().parents[1] / "bench" / "run"
SLOTS = ("slots.kernel-10", "slots.vm", "slots.memory", "slots.set-many")
RESTART = ("restart.allocate", "restart.start", "restart.generation", "restart.ledger")
REST = ("rest.get-16", "rest.tls-16", "rest.subscribers")


@pytest.mark.plain
@pytest.mark.parametrize("goals", (SLOTS, RESTART, REST), ids=("slots", "restart", "rest"))
def test_is_measured(goals):
    done = subprocess.run([sys.executable, RUN, *goals, "--brief", "--json"], env=dict(os.environ), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(rows) == set(goals)
    for name, row in rows.items():
        if name == "slots.kernel-10" and row["ratio"] is None and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            continue
        assert row["ratio"] > 0, done.stderr
        assert (row["met"] is None) == (row["goal"] is None)
