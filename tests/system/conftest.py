# SPDX-License-Identifier: LGPL-2.1-or-later
"""One machine for all tests; see machine.py for what it can do."""

import os
import pathlib
import sys

import pytest

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import contract as contract_module  # noqa: E402
from hugepages import huge_pages_lock, pages  # noqa: E402, F401, fixtures
from machine import Machine, Unavailable  # noqa: E402

TEST_TIMEOUT = 60  # seconds


def pytest_collection_modifyitems(items):
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


@pytest.fixture(scope="session")
def session_machine():
    try:
        machine = Machine(pathlib.Path(os.environ["PRIVMEMD_BUILD"]), contract_module.golden())
    except Unavailable as error:
        pytest.skip(str(error))
    yield machine
    machine.halt()


@pytest.fixture
def machine(session_machine):
    session_machine.begin_test()
    yield session_machine
    session_machine.finish_test()
    faults = list(session_machine.faults())
    assert not faults, "in the journal:\n" + "\n".join(faults)


@pytest.fixture
def service(machine):
    machine.reset()
    return machine
