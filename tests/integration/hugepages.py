# SPDX-License-Identifier: LGPL-2.1-or-later
"""The host's pools of huge pages."""

import fcntl
import os
import pathlib

import pytest

POOLS = pathlib.Path("/sys/kernel/mm/hugepages")


def pool(name, size="2048kB"):
    return int((POOLS / f"hugepages-{size}" / name).read_text())


@pytest.fixture
def huge_pages_lock():
    """The pools belong to the host; another run of these tests must not use them meanwhile."""
    fd = os.open(POOLS, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


@pytest.fixture
def pages(huge_pages_lock):
    """Four free huge pages."""
    file = POOLS / "hugepages-2048kB" / "nr_hugepages"
    before = pool("nr_hugepages")
    try:
        file.write_text(str(before + 4))
    except PermissionError as error:
        pytest.skip(f"the pool of huge pages cannot be changed here: {error}")
    try:
        if pool("nr_hugepages") < before + 4:
            pytest.skip("this machine has no memory for four huge pages")
        yield pool("free_hugepages") - pool("resv_hugepages")
    finally:
        file.write_text(str(before))
