#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The public header, the symbol file and the library name the same functions, and the header is C11 and C++.

usage: header.py SOURCE-ROOT LIBRARY
"""

import pathlib
import re
import shutil
import subprocess
import sys

root, library = pathlib.Path(sys.argv[1]), sys.argv[2]
header = root / "client" / "privmem.h"
COMPILERS = (("cc", "c", ("-std=c11", "-pedantic")), ("clang++", "c++", ("-std=c++11",)), ("g++", "c++", ("-std=c++11",)))
failed = False


def fail(message):
    global failed
    failed = True
    print(message)


def declared():
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
    return set(re.findall(r"^\w[\w *]*?[ *](privmem_\w+)\(", text, flags=re.M))


def versioned():
    return set(re.findall(r"^\s+(privmem_\w+);", (root / "client" / "libprivmem.sym").read_text(), flags=re.M))


def exported():
    done = subprocess.run(["nm", "--dynamic", "--defined-only", library], stdout=subprocess.PIPE, text=True, check=True)
    return {line.split()[-1].split("@")[0] for line in done.stdout.splitlines() if " T " in line}


for name in sorted(declared() ^ versioned()):
    fail(f"{name} is only in {'privmem.h' if name in declared() else 'libprivmem.sym'}")
for name in sorted(versioned() ^ exported()):
    fail(f"{name} is only in {'libprivmem.sym' if name in versioned() else library}")

for compiler, language, options in COMPILERS:
    if not shutil.which(compiler):
        continue
    done = subprocess.run([compiler, "-x", language, *options, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-"],
                          input=f'#include "{header}"\nint main(void) {{ return privmem_version() == 0; }}\n', text=True)
    if done.returncode != 0:
        fail(f"{compiler} does not take privmem.h as {language}")

sys.exit(1 if failed else 0)
