#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Has CBMC prove what the C files here say, and shows that each proof could fail.

usage: prove.py NAME…           the proofs of proofs.py with these names
       prove.py --list          their names

First every goal is proved. Then CBMC must find a way to each reach() in it, for a proof about nothing is no proof. Then
it is disproved for each fault: a text of a source and what replaces it.
"""

import contextlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import proofs

HERE = pathlib.Path(__file__).resolve().parent
DAEMON = HERE.parent.parent / "daemon"
PROVED, DISPROVED = 0, 10


@contextlib.contextmanager
def edited(goal, *faults):
    """A copy of the core, as CBMC is to see it."""
    with tempfile.TemporaryDirectory() as directory:
        copy = pathlib.Path(directory, "daemon")
        shutil.copytree(DAEMON / "core", copy / "core")
        for path, right, wrong in (*goal.edits, *faults):
            source = (copy / "core" / path).read_text()
            if source.count(right) != 1:
                sys.exit(f"daemon/core/{path} no longer has {right!r} once: bring tests/proof/proofs.py up to date")
            (copy / "core" / path).write_text(source.replace(right, wrong))
        yield copy


def cbmc(goal, daemon, options):
    """Whether all is proved, and what CBMC says."""
    command = ["cbmc", "-I", daemon, "-I", HERE, "-D_GNU_SOURCE", "--drop-unused-functions", "--slice-formula",
               *options, HERE / goal.source, *(daemon / "core" / name for name in goal.linked)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode not in (PROVED, DISPROVED):
        sys.exit(f"cbmc ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.returncode == PROVED, run.stdout


def failures(goal, daemon):
    """What CBMC disproves, but for the sums that wrap on purpose."""
    proved, said = cbmc(goal, daemon, [*goal.options(), "--unwinding-assertions"])
    failed = [line for line in said.splitlines() if line.endswith(": FAILURE")]
    if not proved and not failed:
        sys.exit(f"cbmc does not say what it disproves:\n{said}")
    return [line for line in failed if not any(f"[{function}.overflow." in line for function in goal.wraps)]


def prove(goal):
    with edited(goal) as daemon:
        failed = failures(goal, daemon)
    if failed:
        sys.exit(f"{goal.name} is not proved:\n" + "\n".join(failed))


def reach(goal):
    with edited(goal) as daemon:
        _, said = cbmc(goal, daemon, [*goal.options(only=False), "-DREACH", "--cover", "cover"])
    lines = [line for line in said.splitlines() if ".coverage." in line]
    missed = [line for line in lines if not line.endswith(": SATISFIED")]
    if missed or not lines:
        sys.exit(f"{goal.name} never comes by these:\n" + "\n".join(missed or [said]))


def disprove(goal, fault):
    with edited(goal, (fault.path, fault.right, fault.wrong)) as daemon:
        if goal.wraps:
            noticed = failures(goal, daemon)
        else:
            noticed = not cbmc(goal, daemon, [*goal.options(), "--unwinding-assertions", "--stop-on-fail"])[0]
    if not noticed:
        sys.exit(f"{goal.name} does not notice {fault.wrong!r} in place of {fault.right!r}")


def timed(text, function, *arguments):
    start = time.monotonic()
    function(*arguments)
    print(f"{time.monotonic() - start:6.1f} s  {text}", flush=True)


def run(proof):
    for goal in proof.goals:
        timed(f"proved {goal.name}", prove, goal)
    for goal in proof.goals:
        if goal.reach:
            timed(f"reached all of {goal.name}", reach, goal)
    for fault in proof.faults:
        timed(f"noticed {fault.wrong!r}", disprove, fault.goal, fault)


def main():
    if sys.argv[1:] == ["--list"]:
        print(*proofs.PROOFS)
        return
    if not sys.argv[1:] or set(sys.argv[1:]) - set(proofs.PROOFS):
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        run(proofs.PROOFS[name])


if __name__ == "__main__":
    main()
