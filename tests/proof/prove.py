#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Has CBMC prove range.c, and disprove it where core/range.h is wrong: a proof that cannot fail proves nothing.

A fault is a text of the header and what replaces it.
"""

import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADER = "core/range.h"
CHECKS = ["--signed-overflow-check", "--unsigned-overflow-check", "--bounds-check", "--pointer-check"]
FAULTS = [
    ("b - a < a_size : a - b < b_size", "b - a <= a_size : a - b < b_size"),
    ("b - a < a_size : a - b < b_size", "b - a < b_size : a - b < b_size"),
    ("start <= limit && size <= limit - start", "start + size <= limit"),
    ("a_rest < b_rest ? a_rest : b_rest", "a_rest"),
]


def prove(include):
    """Whether CBMC proves all of it, and what it says."""
    run = subprocess.run(["cbmc", "-I", include, *CHECKS, HERE / "range.c"], capture_output=True, text=True)
    if run.returncode not in (0, 10):  # proved, disproved
        sys.exit(f"cbmc ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.returncode == 0, run.stdout


def main():
    header = (ROOT / "daemon" / HEADER).read_text()
    proved, said = prove(ROOT / "daemon")
    if not proved:
        sys.exit(said)
    for right, wrong in FAULTS:
        if header.count(right) != 1:
            sys.exit(f"daemon/{HEADER} no longer has {right!r} once: bring the list of faults up to date")
        with tempfile.TemporaryDirectory() as include:
            copy = pathlib.Path(include, HEADER)
            copy.parent.mkdir()
            copy.write_text(header.replace(right, wrong))
            if prove(include)[0]:
                sys.exit(f"the proof does not notice {wrong!r} in place of {right!r}")


if __name__ == "__main__":
    main()
