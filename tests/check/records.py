#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/ledger.md has every type of record with its number, and every field of its body with its place; and each is
printed by privmemctl ledger."""

import re

import tree

DOCUMENT = "docs/ledger.md"
ENUM = "daemon/core/record.h"
BODIES = "daemon/core/record-private.h"
READER = "daemon/core/record-apply.c"
PRINTER = "daemon/core/record-fields.c"
SIZES = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "uint64_t": 8}
COMMENT = re.compile(r"/\*.*?\*/", re.S)


def text_of(root, name):
    path = root / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def numbers(text):
    """What the enum calls each number."""
    body = re.search(r"typedef enum RecordType \{(.*?)\}", text, re.S)
    names = re.findall(r"\bRECORD_(\w+)", COMMENT.sub("", body[1])) if body else []
    return {name: number for number, name in enumerate(names, 1) if not name.startswith("TYPE_MAX")}


def structs(text):
    """The fields of each struct in its order: (offset, size, name)."""
    found, constants = {}, dict(re.findall(r"^#define (\w+) (\d+)$", text, re.M))
    for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", COMMENT.sub("", text), re.S):
        fields, at = [], 0
        for kind, names in re.findall(r"(\w+) ([^;]+);", body):
            for field, count in re.findall(r"(\w+)(?:\[(\w+)\])?", names):
                count = int(constants.get(count, count or 1))
                parts = [(o, s, f"{field}.{n}") for o, s, n in found.get(kind, [])]
                for offset, size, part in parts or [(0, SIZES[kind] * count, field)]:
                    fields.append((at + offset, size, part))
                at = fields[-1][0] + fields[-1][1]
        found[name] = fields
    return found


def bodies(text):
    """The body of each type, as its reader takes it."""
    functions = dict(re.findall(r"^static int (apply_\w+)\(.*?\{\n(.*?)^\}", text, re.S | re.M))
    found = {}
    for name, function in re.findall(r"\[RECORD_(\w+)\] = (\w+)", text):
        body = None
        while function and not body:
            inside = functions.get(function, "")
            body = re.search(r"TAKE\((\w+)\)", inside)
            function = (re.search(r"return (apply_\w+)\(", inside) or [None, None])[1]
        found[name] = body[1] if body else None
    return found


def printed(text):
    """The fields of each type that are printed, as (struct, field); and those of a run."""
    rows = {name: re.findall(r"ROW\((\w+), (\w+), \w+\)", body)
            for name, body in re.findall(r"static const Row (\w+)\[\] = \{(.*?)^\};", text, re.S | re.M)}
    types = {name: rows.get(table, []) for name, table in re.findall(r"\bTYPE\((\w+), (\w+)\)", text)
             if name != "word"}
    return types, rows.get("run_rows", [])


def check_printed(text, enum, reader, laid_out):
    """All of them in their order."""
    types, run = printed(text)
    wanted = {name: reader.get(name) for name in enum}
    for name, struct, rows in [*((name, struct, types.get(name)) for name, struct in wanted.items()),
                               *([("run", "RunBody", run)] if enum else [])]:
        fields = dict.fromkeys((struct, field.split(".")[0]) for _, size, field in laid_out.get(struct, [])
                               if size > 0 and not field.startswith("unused"))
        if rows is None:
            yield f"{PRINTER}:1: RECORD_{name} is not printed; write TYPE({name}, …), and a ROW for each field"
        elif rows != list(fields):
            yield (f"{PRINTER}:1: of {name}, the fields {[field for _, field in rows]} of {rows[0][0] if rows else None} "
                   f"are printed; its {struct} has {[field for _, field in fields]}")


def documented(text):
    """Rows of the tables: of types by name, and of fields by the struct whose table they are in."""
    types, fields, struct = {}, {}, None
    for line, row in enumerate(text.splitlines(), 1):
        heading = re.match(r"\*\*`(\w+)`\*\*", row)
        if heading:
            struct = heading[1]
            fields[struct] = (line, [])
        elif row.startswith("#"):
            struct = None
        cells = [cell.strip(" `") for cell in row.strip("|").split("|")] if row.startswith("|") else []
        if len(cells) == 4 and cells[0].isdigit() and re.fullmatch(r"[A-Z_]+", cells[1]):
            types[cells[1]] = (line, int(cells[0]), cells[2])
        elif len(cells) == 4 and cells[0].isdigit() and struct:
            fields[struct][1].append((int(cells[0]), int(cells[1]), cells[2]))
    return types, fields


def check(root):
    enum, reader, private = numbers(text_of(root, ENUM)), bodies(text_of(root, READER)), text_of(root, BODIES)
    laid_out = structs(private)
    types, fields = documented(text_of(root, DOCUMENT))
    for name, number in enum.items():
        line, shown, body = types.pop(name, (1, None, None))
        if (shown, body) != (number, reader.get(name)):
            yield (f"{DOCUMENT}:{line}: RECORD_{name} is type {number} and has a {reader.get(name)}; "
                   f"write | {number} | `{name}` | `{reader.get(name)}` | … |")
    for name, (line, _, _) in types.items():
        yield f"{DOCUMENT}:{line}: no record is called {name}; {ENUM} has them"
    for struct in sorted({*filter(None, reader.values()), "RunBody"} if enum else ()):
        line, shown = fields.get(struct, (1, []))
        expected = [field for field in laid_out.get(struct, []) if field[1] > 0 and not field[2].startswith("unused")]
        for row in expected:
            if row not in shown:
                yield (f"{DOCUMENT}:{line}: the table of {struct} lacks | {row[0]} | {row[1]} | `{row[2]}` | … |, "
                       f"as {BODIES} has it")
        for row in shown:
            if row not in expected:
                yield f"{DOCUMENT}:{line}: {struct} has no field {row[2]} of {row[1]} bytes at {row[0]}; see {BODIES}"
    yield from check_printed(text_of(root, PRINTER), enum, reader, laid_out)


if __name__ == "__main__":
    tree.main(check)
