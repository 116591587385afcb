#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""An include goes only left: core <- host, front <- manager <- main, and api <- front, client.
What is named …-private.h stays in its room.

Each room below says which rooms its files may include, and which headers from outside the tree.
"""

import dataclasses
import pathlib
import re

import tree

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')

LIBC = set("""
    aio alloca argp arpa/inet assert byteswap complex cpio ctype dirent dlfcn elf endian err errno error execinfo
    fcntl features fenv float fnmatch fstab ftw getopt glob gnu/libc-version grp iconv ifaddrs inttypes iso646
    langinfo libgen libintl limits link locale malloc math mntent monetary mqueue net/if netdb netinet/in
    netinet/tcp nl_types paths poll pthread pty pwd regex resolv sched search semaphore setjmp shadow signal spawn
    stdalign stdarg stdatomic stdbool stdckdint stddef stdint stdio stdio_ext stdlib stdnoreturn string strings
    sysexits syslog tar termios tgmath threads time uchar ucontext ulimit unistd utime utmp utmpx values wchar
    wctype wordexp
    """.split())


def is_libc(header):
    return header.removesuffix(".h") in LIBC or header.startswith("sys/")


def is_libc_or_linux(header):
    return is_libc(header) or header.startswith(("linux/", "asm/"))


def is_not_json_c(header):
    return not header.startswith(("json-c/", "json.h"))


def is_not_systemd(header):
    return not header.startswith(("systemd/", "sd-"))


@dataclasses.dataclass
class Room:
    name: str
    files: tuple  # paths or path prefixes; the first room that fits a file is its room
    includes: tuple  # rooms, and single files of other rooms
    outside: callable
    outside_rule: str


DAEMON = (is_not_json_c, "one JSON library per process: the daemon uses sd-json, json-c belongs to its clients")
CLIENT = (is_not_systemd, "a client must build without libsystemd; use json-c and libc")

ROOMS = (
    Room("the public header", ("client/privmem.h",), (),
         is_libc, "the public header needs nothing but libc"),
    Room("client", ("client/",), ("client", "the public header", "api/errors.def"), *CLIENT),
    Room("api", ("api/",), ("api",), *DAEMON),
    Room("core", ("daemon/core/",), ("core",),
         is_libc_or_linux, "the core is pure: only libc and linux/ headers, no libsystemd, no JSON"),
    Room("host", ("daemon/host/",), ("core", "host"), *DAEMON),
    Room("shared", ("daemon/shared/",), ("shared", "daemon/core/cleanup.h"),
         is_libc_or_linux, "privmemd and privmem-rest share it: only libc, neither's libraries"),
    Room("front", ("daemon/front/",), ("core", "front", "shared", "api"), *DAEMON),
    Room("rest", ("daemon/rest/",),
         ("rest", "shared", "client", "the public header", "api/operations.def", "api/errors.def", "daemon/core/cleanup.h"),
         *CLIENT),
    Room("libvirt", ("daemon/libvirt/",),
         ("libvirt", "client", "the public header", "api/errors.def"), *CLIENT),
    Room("manager", ("daemon/manager.", "daemon/manager-", "daemon/keeper.", "daemon/keeper-", "daemon/config."), ("core", "host", "front", "manager"), *DAEMON),
    Room("main", ("daemon/main.",), ("core", "host", "front", "manager", "main", "api"), *DAEMON),
)


def room_of(path):
    name = path.as_posix()
    return next((room for room in ROOMS if name.startswith(room.files)), None)


def included_path(root, includer, name):
    """Where an include of "name" leads: beside the includer, or from the root, client/ or daemon/."""
    tops = sorted(["client", "daemon"], key=lambda top: top != includer.parts[0])
    places = [includer.parent / name, pathlib.Path(name), *(pathlib.Path(top) / name for top in tops)]
    for place in places:
        if (root / place).is_file():
            return pathlib.Path((root / place).resolve()).relative_to(root)
    # A generated header: its name alone tells its room.
    if "/" not in name:
        return places[0]
    return next((place for place in places[1:3] if room_of(place)), None)


def offence(root, includer, room, bracket, name):
    if bracket == "<":
        return None if room.outside(name) else f"{room.name} must not include <{name}>; {room.outside_rule}"
    path = included_path(root, includer, name)
    if path is None:
        return f'"{name}" is in no room; name it from the root, client/ or daemon/, as in "core/slot.h"'
    target = room_of(path)
    if path.name.endswith("-private.h") and target is not room:
        return f'{room.name} must not include "{name}", which is private to its room; declare what you need in another header'
    if target is not None and target.name in room.includes or path.as_posix() in room.includes:
        return None
    allowed = ", ".join(room.includes) or "no room"
    return f'{room.name} must not include "{name}"; it may include {allowed}: ' \
           "move the code to the right or hand the value in"


def check(root):
    for path in tree.files(root):
        if path.parts[0] not in ("api", "client", "daemon") or path.suffix not in (".c", ".h", ".def"):
            continue
        room = room_of(path)
        if room is None:
            yield f"{path}:1: the file is in no room; move it into one, or add the room to tests/check/layers.py"
            continue
        for number, line in enumerate(tree.lines(root / path), 1):
            match = INCLUDE.match(line)
            message = match and offence(root, path, room, *match.groups())
            if message:
                yield f"{path}:{number}: {message}"


if __name__ == "__main__":
    tree.main(check)
