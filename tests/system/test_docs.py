# SPDX-License-Identifier: LGPL-2.1-or-later
"""What docs/survival.md shows, turns out so."""

import re

from contract import PROJECT


def session(page):
    """The commands of a page, each with what it prints: a line "…" stands for any lines, and … for anything in a line."""
    steps = []
    for block in re.findall(r"(?:^    .*\n)+", page, re.M):
        for line in block.splitlines():
            if line.startswith("    $ "):
                steps.append((line[6:], []))
            elif steps:
                steps[-1][1].append(line[4:])
    return steps


def pattern(lines):
    return "".join(r"(?:.*\n)*" if line == "…" else
                   r"\s+".join(re.escape(word).replace("…", ".*") for word in line.split()) + r"\s*\n" for line in lines)


def test_survival(service):
    service.expect("Failed with result", "Main process exited")
    steps = session((PROJECT / "docs" / "survival.md").read_text())
    assert len(steps) > 5
    for command, printed in steps:
        done = service.run("sh", "-c", f"exec 2>&1; {command}")
        text = "".join(f"{line.strip()}\n" for line in done.stdout.splitlines())
        assert re.fullmatch(pattern(printed), text), f"{command}\n{done.stdout}"
