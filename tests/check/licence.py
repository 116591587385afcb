#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every source, script and build file says its licence in its first three lines."""

import tree

TAG = "SPDX-License-Identifier: LGPL-2.1-or-later"
SUFFIXES = {".c", ".h", ".def", ".py", ".sh", ".map", ".sym", ".in", ".service", ".socket", ".conf"}
NAMES = {"meson.build", "meson.options", ".clang-format", ".editorconfig", "debian-packages"}


def needs_tag(path, first_line):
    return path.suffix in SUFFIXES or path.name in NAMES or first_line.startswith("#!")


def check(root):
    for path in tree.files(root):
        head = tree.lines(root / path)[:3]
        if needs_tag(path, head[0] if head else "") and not any(TAG in line for line in head):
            yield f'{path}:1: no licence tag; put "{TAG}" into a comment on one of the first three lines'


if __name__ == "__main__":
    tree.main(check)
