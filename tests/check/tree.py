# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tree checks share: which files the tree has, and how a check ends."""

import pathlib
import subprocess
import sys

SKIPPED_DIRECTORIES = {".git", "build", "__pycache__", ".pytest_cache", ".hypothesis"}


def _git_files(root):
    """What git knows or would take; None where there is no git or no work tree."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z", "-co", "--exclude-standard"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except FileNotFoundError:
        return None
    return [root / name for name in done.stdout.split("\0") if name] if done.returncode == 0 else None


def _walked_files(root):
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name not in SKIPPED_DIRECTORIES:
                yield from _walked_files(path)
        else:
            yield path


def files(root):
    """The tree's files as paths relative to its root."""
    found = _git_files(root)
    if found is None:
        found = _walked_files(root)
    return sorted(path.relative_to(root) for path in set(found) if path.is_file() and not path.is_symlink())


def lines(path):
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def main(check):
    """Runs check(root), which yields one message an offence: "file:line: what is wrong; what to do"."""
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    if len(sys.argv) < 2:
        root = root.parents[2]
    messages = list(check(root))
    for message in messages:
        print(message)
    sys.exit(1 if messages else 0)
