#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree checks on made-up trees: every kind of offence is reported at its line, and nothing else is.

And the test driver on made-up test programs: nothing that went wrong may get lost in its reading of them."""

import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import shutil
import sys
import tempfile
import time
import unittest
import unittest.mock as mock

import format
import layers
import licence
import records
import size

HERE = pathlib.Path(__file__).resolve().parent

HEADERS = ["api/interface.h", "api/errors.def", "api/operations.def", "client/privmem.h", "client/wire.h", "client/lib/json.h",
           "daemon/core/slot.h", "daemon/core/vm.h", "daemon/core/core-private.h", "daemon/host/memory.h", "daemon/front/server.h",
           "daemon/manager.h", "daemon/manager-private.h", "daemon/config.h", "tests/unit/helper.h"]

LAYERS_ALLOWED = {
    "daemon/core/slot.c": ['"core/slot.h"', '"core/core-private.h"', '"vm.h"', "<errno.h>", "<sys/queue.h>", "<linux/kvm.h>"],
    "daemon/host/memory.c": ['"core/slot.h"', '"host/memory.h"', "<systemd/sd-event.h>", "<sys/mman.h>"],
    "daemon/front/server.c": ['"core/slot.h"', '"front/server.h"', '"api/interface.h"', "<systemd/sd-varlink.h>"],
    "daemon/manager.c": ['"manager.h"', '"config.h"', '"host/memory.h"', '"front/server.h"', '"core/vm.h"'],
    "daemon/manager-vm.c": ['"manager-private.h"', '"manager.h"', '"host/memory.h"', '"front/server.h"'],
    "daemon/main.c": ['"manager.h"', '"front/server.h"', '"host/memory.h"', '"core/vm.h"', '"api/interface.h"'],
    "api/dump.c": ['"interface.h"', '"api/operations.def"', "<systemd/sd-varlink-idl.h>"],
    "client/wire.c": ['"client/privmem.h"', '"wire.h"', '"lib/json.h"', '"api/errors.def"', "<json-c/json.h>"],
}

LAYERS_REFUSED = {
    "daemon/core/a.c": ['"host/memory.h"', '"front/server.h"', '"manager.h"', '"api/interface.h"', '"client/privmem.h"',
                        "<systemd/sd-event.h>", "<json-c/json.h>", "<seccomp.h>", '"../host/memory.h"'],
    "daemon/host/a.c": ['"manager-private.h"', '"front/server.h"', '"manager.h"', '"config.h"', '"api/interface.h"', "<json-c/json.h>"],
    "daemon/front/a.c": ['"host/memory.h"', '"manager.h"', '"client/privmem.h"'],
    "daemon/manager.c": ['"api/interface.h"', '"tests/unit/helper.h"', '"nowhere/nothing.h"'],
    "daemon/config.c": ['"client/wire.h"', '"lib/json.h"'],
    "daemon/manager-vm.c": ['"api/interface.h"', '"core/core-private.h"'],
    "daemon/main.c": ['"client/privmem.h"', '"manager-private.h"'],
    "api/dump.c": ['"core/slot.h"', '"client/wire.h"', '"daemon/manager.h"'],
    "client/wire.c": ['"api/interface.h"', '"api/operations.def"', '"core/slot.h"', "<systemd/sd-json.h>"],
    "client/privmem.h": ['"client/wire.h"', '"api/errors.def"', "<linux/kvm.h>", "<json-c/json.h>"],
}


class Tree:
    """A made-up tree in a temporary directory."""

    def __init__(self, case):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="privmemd-check-"))
        case.addCleanup(shutil.rmtree, self.root)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def write_includes(self, files):
        for name, headers in files.items():
            self.write(name, "".join(f"#include {header}\n" for header in headers))

    def offences(self, module):
        return [":".join(message.split(":")[:2]) for message in module.check(self.root)]


class Layers(unittest.TestCase):
    def setUp(self):
        self.tree = Tree(self)
        for name in HEADERS:
            self.tree.write(name, "\n")

    def test_what_is_allowed_is_not_reported(self):
        self.tree.write_includes(LAYERS_ALLOWED)
        self.assertEqual(list(layers.check(self.tree.root)), [])

    def test_every_offence_is_reported_at_its_line(self):
        self.tree.write_includes(LAYERS_REFUSED)
        wanted = [f"{name}:{number}" for name, headers in LAYERS_REFUSED.items()
                  for number in range(1, len(headers) + 1)]
        self.assertEqual(sorted(self.tree.offences(layers)), sorted(wanted))

    def test_a_message_names_the_include_and_the_way_out(self):
        self.tree.write("daemon/host/a.c", '\n#include "front/server.h"\n')
        message, = layers.check(self.tree.root)
        self.assertRegex(message, r'^daemon/host/a\.c:2: host must not include "front/server\.h"; it may include core')

    def test_generated_header_counts_as_the_room_it_names(self):
        self.tree.write_includes({"daemon/core/a.c": ['"host/generated.h"', '"core/generated.h"', '"generated.h"']})
        self.assertEqual(self.tree.offences(layers), ["daemon/core/a.c:1"])

    def test_file_in_no_room(self):
        self.tree.write("daemon/misc.c", "")
        self.assertEqual(self.tree.offences(layers), ["daemon/misc.c:1"])


class Licence(unittest.TestCase):
    def test_every_kind_of_file(self):
        tree = Tree(self)
        for name in ("a.c", "a.h", "a.def", "a.py", "meson.build", "dev"):
            tree.write(f"good/{name}", f"#!/bin/sh\n\n# {licence.TAG}\n")
            tree.write(f"late/{name}", f"#!/bin/sh\n\n\n# {licence.TAG}\n")
        tree.write("empty.c", "")
        tree.write("README.md", "Words.\n")
        tree.write("build/generated.c", "")
        wanted = ["empty.c:1", "late/a.c:1", "late/a.def:1", "late/a.h:1", "late/a.py:1", "late/dev:1",
                  "late/meson.build:1"]
        self.assertEqual(tree.offences(licence), wanted)


class Size(unittest.TestCase):
    def test_long_and_unfinished(self):
        tree = Tree(self)
        tree.write("full.c", "\n" * size.LINES_MAX)
        tree.write("long.c", "\n" * (size.LINES_MAX + 1))
        tree.write("half.h", "\n".join(["", "/* TO" + "DO: more */", "/* FIX" + "ME */", "x(XX" + "X);", 'f("XXXXXX");']))
        self.assertEqual(tree.offences(size), ["half.h:2", "half.h:3", "half.h:4", f"long.c:{size.LINES_MAX + 1}"])


class Records(unittest.TestCase):
    def setUp(self):
        self.tree = Tree(self)
        for name in (records.DOCUMENT, records.ENUM, records.BODIES, records.READER, records.PRINTER):
            self.tree.write(name, (HERE.parents[1] / name).read_text(encoding="utf-8"))

    def messages_after(self, name, old, new):
        path = self.tree.root / name
        text = path.read_text(encoding="utf-8")
        self.assertIn(old, text)
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return [message.split(": ", 1)[1] for message in records.check(self.tree.root)]

    def test_as_it_is(self):
        self.assertEqual(list(records.check(self.tree.root)), [])

    def test_a_new_type(self):
        number = len(records.numbers(records.text_of(self.tree.root, records.ENUM))) + 1
        self.assertIn(f"RECORD_NEW is type {number} ", self.messages_after(records.ENUM, "_RECORD_TYPE_MAX,",
                                                                            "RECORD_NEW, _RECORD_TYPE_MAX,")[0])

    def test_two_types_that_are_exchanged(self):
        found = self.messages_after(records.ENUM, "RECORD_SHARE,\n        RECORD_SHARE_GONE",
                                    "RECORD_SHARE_GONE,\n        RECORD_SHARE")
        self.assertEqual(len(found), 2)

    def test_a_type_that_is_read_as_another_body(self):
        self.assertIn("| 13 | `RETAINED` | `GoneBody` |", self.messages_after(
            records.READER, "TAKE(RetainedBody)", "TAKE(GoneBody)")[0])

    def test_a_type_that_is_gone(self):
        self.assertTrue(self.messages_after(records.ENUM, "RECORD_TAKEN_BACK,", ""))

    def test_a_new_field(self):
        self.assertIn("| 80 | 8 | `color` |", self.messages_after(
            records.BODIES, "guest_memfd, guest_memfd_offset;", "guest_memfd, guest_memfd_offset, color;")[0])

    def test_a_field_of_another_size_moves_those_behind_it(self):
        self.assertEqual(len(self.messages_after(records.BODIES, "uint32_t as_id, id;\n        Tail",
                                                 "uint64_t as_id, id;\n        Tail")), 24)

    def test_a_field_that_is_gone(self):
        self.assertIn("ShareBody has no field read_only", self.messages_after(
            records.BODIES, "uint8_t read_only, unused[7]", "uint8_t unused[8]")[0])

    def test_a_type_that_is_not_printed(self):
        self.assertEqual(self.messages_after(records.PRINTER, "TYPE(RETAINED, retained_rows),", ""), [
            "RECORD_RETAINED is not printed; write TYPE(RETAINED, …), and a ROW for each field"])

    def test_a_field_that_is_not_printed(self):
        for row, what in (("ROW(IdsBody, was_damaged, BOOL),", "IDS"), ("ROW(RunBody, flags, HEX),", "run")):
            self.setUp()
            (found,) = self.messages_after(records.PRINTER, row, "")
            self.assertIn(f"of {what}, the fields ", found)

    def test_a_type_that_is_printed_as_another_body(self):
        (found,) = self.messages_after(records.PRINTER, "TYPE(RETAINED, retained_rows),", "TYPE(RETAINED, ids_rows),")
        self.assertIn("of IdsBody are printed; its RetainedBody has", found)


class Format(unittest.TestCase):
    def setUp(self):
        if format.version() != format.VERSION:
            self.skipTest(f"clang-format {format.VERSION} is missing")
        self.tree = Tree(self)
        shutil.copy(HERE.parents[1] / ".clang-format", self.tree.root)

    def test_offence_and_remedy(self):
        self.tree.write("good.c", "int f(void) {\n        return 0;\n}\n")
        self.tree.write("bad.c", "int g(void);\nint f( void ) {\n        return 0;\n}\n")
        self.tree.write("api/interface.c", "int  table [ ];\n")
        self.assertEqual(set(self.tree.offences(format)), {"bad.c:2"})
        format.apply(self.tree.root)
        self.assertEqual(self.tree.offences(format), [])


def load_driver():
    loader = importlib.machinery.SourceFileLoader("driver", str(HERE.parent / "run"))
    driver = importlib.util.module_from_spec(importlib.util.spec_from_loader("driver", loader))
    sys.modules["driver"] = driver
    loader.exec_module(driver)
    return driver


class Driver(unittest.TestCase):
    driver = load_driver()

    def outcomes(self, result, status, output, errors="", tap=True):
        record = {"result": result, "returncode": status, "stdout": output, "stderr": errors}
        return [(found.name, found.outcome, found.text)
                for found in self.driver.program_results("unit", "p", record, tap)]

    def test_cmocka(self):
        output = "TAP version 13\n1..3\nok 1 - a\nnot ok 2 - b\n# 1 != 2\n# no kvm\nok 3 # SKIP c\n# not ok - group\n"
        passed, failed, skipped = self.outcomes("ERROR", 1, output, "noise\n")
        self.assertEqual(passed, ("p: a", "passed", ""))
        self.assertEqual(failed[:2], ("p: b", "failed"))
        self.assertIn("# 1 != 2\n", failed[2])
        self.assertIn("noise\n", failed[2])
        self.assertEqual(skipped, ("p: c", "skipped", "no kvm"))

    def test_program_that_ends_early(self):
        for output in ("1..3\nok 1 - a\n", "1..3\nok 1 - a\nnot ok 2 - b\n"):
            name, outcome, text = self.outcomes("ERROR", -11, output, "ERROR: AddressSanitizer\n")[-1]
            self.assertEqual((name, outcome), ("p", "failed"))
            self.assertIn("exit status -11", text)
            self.assertIn("AddressSanitizer", text)

    def test_leak_after_the_last_test(self):
        found = self.outcomes("ERROR", 99, "1..1\nok 1 - a\n", "ERROR: LeakSanitizer\n")
        self.assertEqual([outcome for _, outcome, _ in found], ["passed", "failed"])

    def test_whole_programs(self):
        self.assertEqual(self.outcomes("OK", 0, "", tap=False), [("p", "passed", "")])
        self.assertEqual(self.outcomes("SKIP", 77, "no kvm\n", tap=False), [("p", "skipped", "no kvm")])
        self.assertEqual(self.outcomes("SKIP", 0, "1..0 # SKIP no kvm\n"), [("p", "skipped", "no kvm")])
        self.assertEqual(self.outcomes("TIMEOUT", -15, "", tap=False)[0][1], "failed")
        self.assertEqual(self.outcomes("TIMEOUT", -15, "1..1\n")[0][1], "failed")

    def run_all(self, **sources):
        """With sources that have one test each, but for those that are given."""
        def source(build, _):
            yield self.driver.Result("s", build.name, "passed"), 0.0

        made = dict.fromkeys(["run_meson", "run_integration", "run_system", "run_fuzz"], source) | sources
        with mock.patch.multiple(self.driver, fuzz_targets=lambda _: ["x"], **made), \
                contextlib.redirect_stdout(io.StringIO()):
            return [(result.build, result.outcome) for result in self.driver.run_all("")]

    def test_every_suite_counts(self):
        def failing(build, _):
            yield self.driver.Result("s", "t", "failed"), 0.0

        builds = ["plain", "asan", "plain", "plain", "asan", "plain", "fuzz"]
        self.assertEqual(self.run_all(), [(build, "passed") for build in builds])
        self.assertEqual(self.run_all(run_system=failing)[5], ("plain", "failed"))

    def test_suite_that_cannot_run_is_no_success(self):
        def raising(_, __):
            raise FileNotFoundError("cbmc")
            yield

        with self.assertRaises(FileNotFoundError):
            self.run_all(run_integration=raising)

    def test_what_runs_is_stopped(self):
        def source(build, _):
            if build.name == "asan":
                self.driver.run(["sleep", "1000"], build)
                return
            while not self.driver.RUNNING:
                time.sleep(0.01)
            raise KeyboardInterrupt
            yield

        with self.assertRaises(KeyboardInterrupt):
            self.run_all(run_meson=source)
        self.assertFalse(self.driver.RUNNING)

    def fuzz_outcome(self, status, output):
        return self.driver.fuzz_result("fuzz-x", status, output).outcome

    def test_fuzz_target(self):
        ran = "stat::number_of_executed_units: 12\n"
        self.assertEqual(self.fuzz_outcome(0, ran), "passed")
        self.assertEqual(self.fuzz_outcome(77, ran), "failed")
        for output in ("", "stat::number_of_executed_units: 0\n"):
            self.assertEqual(self.fuzz_outcome(0, output), "failed")

    def test_fuzz_finding_is_shown_with_its_input(self):
        with tempfile.NamedTemporaryFile(prefix="crash-") as found:
            found.write(b"\x01\xab\n")
            found.flush()
            text = self.driver.fuzz_result("fuzz-x", 1, f"ERROR: x\nTest unit written to {found.name}\n").text
            name = pathlib.Path(found.name).name
        self.assertIn("ERROR: x", text)
        self.assertRegex(text, rf"{name}, 3 bytes: 01ab0a\n")
        self.assertRegex(text, rf"fuzz/fuzz-x \S*{name}$")

    def covered(self, number, of):
        branches = [{"count": int(i < number)} for i in range(of)]
        lines = [{"line_number": 7, "count": 1, "branches": branches}, {"line_number": 8, "count": 0, "branches": []}]
        return [{"file": "daemon/core/a.c", "lines": lines}]

    def test_coverage(self):
        self.assertEqual(self.driver.counted_coverage(self.covered(3, 4)), (1, 2, 3, 4))
        self.assertEqual(self.driver.percent(1999, 2000), 99.9)
        self.assertEqual(self.driver.coverage_result(self.covered(95, 100)).outcome, "passed")
        for files in (self.covered(94, 100), self.covered(0, 0), []):
            self.assertEqual(self.driver.coverage_result(files).outcome, "failed")
        self.assertEqual(self.driver.branches_missed(self.covered(94, 100)[0]), [7])
        self.assertEqual(self.driver.branches_missed(self.covered(4, 4)[0]), [])


if __name__ == "__main__":
    outcome = unittest.main(testRunner=unittest.TextTestRunner(stream=sys.stdout), exit=False).result
    sys.exit(0 if outcome.wasSuccessful() else 1)
