#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""C files look as clang-format leaves them. With --apply: make them so.

Tables of macros are read as tables, so clang-format keeps its hands off them. Its versions differ in what they
make of one style; the check counts with the version that the tree is formatted with, and is skipped with others.
"""

import collections
import re
import subprocess
import sys

import tree

VERSION = "19"
TABLES = {"api/interface.c"}
OFFENCE = re.compile(r"^(\S.*?):(\d+):\d+: (error|warning): code should be clang-formatted")


def sources(root):
    return [path.as_posix() for path in tree.files(root)
            if path.suffix in (".c", ".h") and path.as_posix() not in TABLES]


def version():
    done = subprocess.run(["clang-format", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return re.search(r"version (\d+)", done.stdout)[1]


def check(root):
    if version() != VERSION:
        print(f"clang-format {VERSION} is missing: this is version {version()}")
        sys.exit(77)
    names = sources(root)
    if not names:
        return
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *names], cwd=root,
                          stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return
    matches = list(filter(None, map(OFFENCE.match, done.stderr.splitlines())))
    if not matches:
        yield f".clang-format:1: clang-format failed: {done.stderr.strip()}"
    places = sorted({(match[1], int(match[2])) for match in matches})
    for name, number in collections.Counter(name for name, _ in places).items():
        first = next(line for other, line in places if other == name)
        yield f"{name}:{first}: the first of {number} lines that clang-format changes; run ./dev format"


def apply(root):
    names = sources(root)
    if names:
        subprocess.run(["clang-format", "-i", *names], cwd=root, check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--apply"]:
        del sys.argv[1]
        tree.main(lambda root: apply(root) or [])
    tree.main(check)
