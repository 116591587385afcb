#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""No C file outgrows its reader, and none is left half done."""

import re

import tree

LINES_MAX = 800
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


def check(root):
    for path in tree.files(root):
        if path.suffix not in (".c", ".h"):
            continue
        text = tree.lines(root / path)
        if len(text) > LINES_MAX:
            yield f"{path}:{LINES_MAX + 1}: the file has {len(text)} lines, more than {LINES_MAX}; split it by noun"
        for number, line in enumerate(text, 1):
            match = UNFINISHED.search(line)
            if match:
                yield f"{path}:{number}: {match[1]}; do it now, or leave it out and say so in an issue"


if __name__ == "__main__":
    tree.main(check)
