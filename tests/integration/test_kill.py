# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every marked step, 20 kills each, with an fd store and without a service manager; ./dev fuzz kill does 10,000."""

import pathlib
import re

import pytest

from kill import CUSTODIES, STEPS, Session, check_shmem, shmem, steps_of

KILLS = 20
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "daemon"

pytestmark = [pytest.mark.plain, pytest.mark.timeout(120),
              pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")]


@pytest.fixture(scope="module")
def allocated():
    """How many bytes each test has allocated; after all tests they must be back."""
    before, sizes = shmem(), []
    yield sizes
    check_shmem(before, sum(sizes))


def test_every_step_is_here():
    marked = {name for file in SOURCE.rglob("*.c") for name in re.findall(r'\bSTEP\("([^"]+)"\)', file.read_text())}
    assert marked == set(STEPS)


@pytest.mark.parametrize("custody, step", [(custody, step) for custody in CUSTODIES for step in steps_of(custody)])
def test_kill_at(directory, contract, allocated, custody, step):
    session = Session(directory, contract, f"{custody} {step}", custody)
    try:
        reached = sum(session.kill_at(step) for _ in range(KILLS))
        session.finish()
        allocated.append(session.allocated())
    finally:
        session.close()
    assert reached >= KILLS * 3 // 4
