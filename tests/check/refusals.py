#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/slots.md shows the refusals that privmemd gives, word for word.

usage: refusals.py PROGRAM DOCUMENT [--write]
"""

import difflib
import pathlib
import subprocess
import sys

BEGIN, END = "<!-- refusals: ninja -C build/plain update-refusals -->\n", "<!-- end of refusals -->\n"

program, document = sys.argv[1], pathlib.Path(sys.argv[2])
given = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
head, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
shown, end, tail = rest.partition(END)
if not begin or not end:
    sys.exit(f"{document.name} has no place for refusals: {BEGIN.strip()} … {END.strip()}")
if "--write" in sys.argv[3:]:
    document.write_text(head + begin + "\n" + given + "\n" + end + tail, encoding="utf-8")
elif shown.strip() != given.strip():
    sys.stdout.writelines(difflib.unified_diff(shown.strip().splitlines(True), given.strip().splitlines(True),
                                               document.name, "what privmemd says"))
    sys.exit(f"\n{document.name} shows other refusals than privmemd gives. Read what changed, then "
             "ninja -C build/plain update-refusals")
