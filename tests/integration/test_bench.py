# SPDX-License-Identifier: LGPL-2.1-or-later
"""./dev bench still measures. What it finds is no test."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

RUN = pathlib.Path(__file__).resolve().parents[1] / "bench" / "run"
GOALS = ("slots.kernel-10", "slots.vm", "slots.memory", "slots.set-many")


@pytest.mark.plain
def test_slots_are_measured():
    done = subprocess.run([sys.executable, RUN, *GOALS, "--brief", "--json"], env=dict(os.environ), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(rows) == set(GOALS)
    for name, row in rows.items():
        if name == "slots.kernel-10" and row["ratio"] is None and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            continue
        assert row["ratio"] > 0, done.stderr
        assert (row["met"] is None) == (row["goal"] is None)
