#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual says everything: each option, verb, symbol, error, address and setting has its place in its page, the page names no
option or symbol that is not there, and the example program compiles.

usage: man/check.py --privmemd=PROGRAM --privmemctl=PROGRAM --privmem-rest=PROGRAM --symbols=FILE --include=DIRECTORY
                    --errors=FILE --operations=FILE --interface-page=FILE --settings=FILE --rest-settings=FILE -- COMPILER…
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

MAN = pathlib.Path(__file__).resolve().parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
PROGRAM = re.compile(r"::\n\n((?:(?:    .*)?\n)+)")


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8")


def help_of(program, *arguments):
    done = subprocess.run([program, *arguments, "--help"], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


def section(text, title):
    """The text below a heading that is underlined with "=", up to the next such heading."""
    found = re.search(rf"^{re.escape(title)}\n=+\n(.*?)(?=^\S[^\n]*\n=+\n|\Z)", text, re.M | re.S)
    return found.group(1) if found else ""


def compare(page, what, wanted, present, is_known):
    """is_known says whether a thing that the page has, and that nobody wants, is something of another program."""
    for name in sorted(wanted - present):
        yield f"man/{page}: {what} {name} is missing; describe it there"
    for name in sorted(present - wanted):
        if not is_known(name):
            yield f"man/{page}: {what} {name} does not exist; remove it there"


def defined_options(text):
    """The options that a definition list has: lines such as "--socket=PATH" or "-h, --help"."""
    found = set()
    for line in text.splitlines():
        if re.match(r"\s*(?:``)?-", line):
            found.update(OPTION.findall(line))
    return found


def check_daemon(page, program):
    options = set(OPTION.findall(help_of(program)))
    yield from compare(page, "in OPTIONS, the option", options, defined_options(section(read(MAN / page), "OPTIONS")),
                       lambda name: False)


def check_privmemctl(program):
    page = "privmemctl.1.rst"
    text = read(MAN / page)
    usage = help_of(program)
    verbs = re.findall(r"^  privmemctl ([a-z]+)", usage, re.M)
    described = {}
    for heading, body in re.findall(r"^([a-z]+)\n-+\n(.*?)(?=^[a-z]+\n-+\n|\Z)", section(text, "VERBS"), re.M | re.S):
        described[heading] = body
    yield from compare(page, "in VERBS, the verb", set(verbs), set(described), lambda name: False)

    common = set(OPTION.findall(usage[usage.index("\nOptions"):]))
    yield from compare(page, "in OPTIONS, the option", common, defined_options(section(text, "OPTIONS")),
                       lambda name: False)
    for verb in verbs:
        own = help_of(program, verb)
        own = set(OPTION.findall(own[:own.index("\nOptions")]))
        yield from compare(page, f"of the verb {verb}, the option", own, defined_options(described.get(verb, "")),
                           lambda name: name in common)


def check_library(symbols):
    page = "libprivmem.3.rst"
    text = read(MAN / page)
    exported = set(re.findall(r"^\s+(privmem_\w+);", read(symbols), re.M))
    table = set(re.findall(r"^    (privmem_\w+)\(\) ", section(text, "FUNCTIONS"), re.M))
    yield from compare(page, "in FUNCTIONS, the symbol", exported, table, lambda name: False)
    mentioned = set(re.findall(r"\b(privmem_\w+)\(", text))
    for name in sorted(mentioned - exported - table):
        yield f"man/{page}: the function {name}() does not exist; remove it there"


def check_example(include, compiler):
    page = "libprivmem.3.rst"
    examples = PROGRAM.findall(section(read(MAN / page), "EXAMPLE"))
    if not examples:
        yield f"man/{page}: the program in EXAMPLE is missing; put it there as a literal block"
    for number, example in enumerate(examples, 1):
        with tempfile.TemporaryDirectory() as directory:
            source = pathlib.Path(directory) / f"example-{number}.c"
            source.write_text(re.sub(r"^    ", "", example, flags=re.M), encoding="utf-8")
            command = [*compiler, "-std=gnu17", "-Wall", "-Wextra", "-Werror", f"-I{include}", "-c", "-o",
                       source.with_suffix(".o"), source]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            if done.returncode != 0:
                yield f"man/{page}: example {number} does not compile:\n{done.stderr}"


def check_interface(errors, page):
    text = section(read(page), "ERRORS")
    wanted = set(re.findall(r"^ERROR\((\w+),", read(errors), re.M))
    described = set(re.findall(r"^(\w+)\n-+$", text, re.M))
    yield from compare("io.privmemd.Memory.7", "in ERRORS, the error", wanted, described, lambda name: False)


def check_routes(operations, page):
    rows = re.findall(r'^ROUTE\(\w+,\s+(\w+),\s+"([^"]+)"', read(operations), re.M)
    wanted = {f"{verb} {path}" for verb, path in rows}
    described = set(re.findall(r"``((?:GET|PUT|POST|DELETE) /[^`]*)``", section(read(page), "METHODS")))
    yield from compare("io.privmemd.Memory.7", "in METHODS, the address", wanted, described, lambda name: False)


def check_settings(page, settings):
    """The file in policy/ has them all, in one or several to a comment; the unit tests of both programs see to that."""
    section_name, wanted = None, set()
    for line in read(settings).splitlines():
        section_name = line.strip("[]") if line.startswith("[") else section_name
        found = re.match(r"#(\w+)=(\S*)$", line)
        if found:
            wanted.add((section_name, found.group(1), found.group(2) or "not said"))
    described = set()
    text = section(read(MAN / page), "SETTINGS")
    for heading, body in re.findall(r"^(\w+)\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.M | re.S):
        for key, paragraph in re.findall(r"^(\w+)=\n((?:   .*\n)+)", body, re.M):
            default = re.search(r"The default is\s+\*?(\w+)", paragraph)
            described.add((heading, key, default.group(1) if default else "not said"))
    yield from compare(page, "in SETTINGS, the section, key and default", wanted, described, lambda name: False)


def main():
    parser = argparse.ArgumentParser()
    for name in ["privmemd", "privmemctl", "privmem-rest", "symbols", "include", "errors", "operations", "interface-page", "settings",
                 "rest-settings"]:
        parser.add_argument("--" + name, required=True)
    parser.add_argument("compiler", nargs="+")
    a = parser.parse_args()

    messages = [
        *check_daemon("privmemd.8.rst", a.privmemd),
        *check_daemon("privmem-rest.8.rst", a.privmem_rest),
        *check_privmemctl(a.privmemctl),
        *check_library(a.symbols),
        *check_example(a.include, a.compiler),
        *check_interface(a.errors, a.interface_page),
        *check_routes(a.operations, a.interface_page),
        *check_settings("privmemd.conf.5.rst", a.settings),
        *check_settings("privmem-rest.8.rst", a.rest_settings),
    ]
    for message in messages:
        print(message)
    sys.exit(1 if messages else 0)


if __name__ == "__main__":
    main()
