# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every marked step, 20 kills each; ./dev fuzz kill does 10,000."""

import pathlib
import re

import pytest

from kill import STEPS, Session

KILLS = 20
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "daemon"

pytestmark = [pytest.mark.plain, pytest.mark.timeout(120)]


def test_every_step_is_here():
    marked = {name for file in SOURCE.rglob("*.c") for name in re.findall(r'\bSTEP\("([^"]+)"\)', file.read_text())}
    assert marked == set(STEPS)


@pytest.mark.parametrize("step", sorted(STEPS))
def test_kill_at(directory, contract, step):
    reached = 0
    session = Session(directory, contract, f"seed of {step}")
    try:
        for kill in range(KILLS):
            reached += session.kill_at(step, kill % STEPS[step] + 1)
    finally:
        session.close()
    assert reached >= KILLS // 2
