# SPDX-License-Identifier: LGPL-2.1-or-later
"""The host's pools of huge pages."""

import pathlib

POOLS = pathlib.Path("/sys/kernel/mm/hugepages")


def pool(name, size="2048kB"):
    return int((POOLS / f"hugepages-{size}" / name).read_text())
