/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmemctl's parts that need no privmemd: values on the command line, places of memory in a command, and how
 * values are printed. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/command.h"
#include "ctl/format.h"

static void test_size(void **state) {
        static const char *const wrong[] = { "",          "-1",
                                             "+1",        " 1",
                                             "1 ",        "1k",
                                             "1KB",       "1P",
                                             "x",         "0x10",
                                             "1.5M",      "18446744073709551616",
                                             "16777216T", "18014398509481984K" };
        uint64_t size;

        (void) state;
        assert_int_equal(arguments_size("x", "0", &size), EXIT_OK);
        assert_int_equal(size, 0);
        assert_int_equal(arguments_size("x", "256M", &size), EXIT_OK);
        assert_int_equal(size, 256 * 1024 * 1024);
        assert_int_equal(arguments_size("x", "18446744073709551615", &size), EXIT_OK);
        assert_true(size == UINT64_MAX);
        assert_int_equal(arguments_size("x", "16777215T", &size), EXIT_OK);
        assert_true(size == 16777215ULL << 40);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                assert_int_equal(arguments_size("x", wrong[i], &size), EXIT_USAGE);
}

static void test_time(void **state) {
        static const char *const wrong[] = { "",          "0",  "0s", "-1", "1 s", "1m",    "1us",
                                             "1.5h",      "1S", "s",  "x",  "+1",  "1min ", "18446744073709551615",
                                             "106751992d" };
        uint64_t usec;

        (void) state;
        assert_int_equal(arguments_time("x", "90", &usec), EXIT_OK);
        assert_int_equal(usec, 90000000);
        assert_int_equal(arguments_time("x", "1ms", &usec), EXIT_OK);
        assert_int_equal(usec, 1000);
        assert_int_equal(arguments_time("x", "2min", &usec), EXIT_OK);
        assert_int_equal(usec, 120000000);
        assert_int_equal(arguments_time("x", "36525d", &usec), EXIT_OK);
        assert_true(usec == UINT64_C(3155760000000000));
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                assert_int_equal(arguments_time("x", wrong[i], &usec), EXIT_USAGE);
}

static void test_duration(void **state) {
        static const struct {
                uint64_t usec;
                const char *text;
        } cases[] = {
                { 0, "0ms" },
                { 999999, "999ms" },
                { 1000000, "1s" },
                { 59999999, "59s" },
                { 60000000, "1min" },
                { 90000000, "1min 30s" },
                { 3600000000, "1h" },
                { 3601000000, "1h" },
                { 86399000000, "23h 59min" },
                { 86400000000, "1d" },
                { UINT64_C(3155760000000000), "36525d" },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                char *text = format_duration(cases[i].usec);

                assert_string_equal(text, cases[i].text);
                free(text);
        }
}

static void test_range(void **state) {
        static const char *const wrong[] = {
                "",    "0x", "x", "+1", "1+", "0x1+0x", "0x1+1Q", "0x1 +1", "0xg0", "0x1+-1", "0x10000000000000000",
                "0x1M"
        };
        uint64_t start, size;

        (void) state;
        assert_int_equal(arguments_range("x", "0x100000", &start, &size), EXIT_OK);
        assert_true(start == 0x100000 && size == 1);
        assert_int_equal(arguments_range("x", "0xfffffffffffff000+4K", &start, &size), EXIT_OK);
        assert_true(start == 0xfffffffffffff000 && size == 4096);
        assert_int_equal(arguments_range("x", "1G+0x10", &start, &size), EXIT_OK);
        assert_true(start == UINT64_C(1) << 30 && size == 16);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                assert_int_equal(arguments_range("x", wrong[i], &start, &size), EXIT_USAGE);
}

static void test_numa(void **state) {
        static const char *const wrong[] = { "",          "bind",          "bind:",   "bind:x",    "bind:1-0",
                                             "bind:0-",   "bind:0,",       "bind:+1", "bind:1024", "bin:0",
                                             "binding:0", "bind:0-1023,0", ":0" };
        Numa numa;

        (void) state;
        assert_int_equal(arguments_numa("interleave:0-2+5,7", &numa), EXIT_OK);
        assert_string_equal(numa.policy, "interleave");
        assert_int_equal(numa.value, PRIVMEM_NUMA_INTERLEAVE);
        assert_int_equal(numa.n_nodes, 5);
        assert_int_equal(numa.nodes[2], 2);
        assert_int_equal(numa.nodes[3], 5);
        assert_int_equal(numa.nodes[4], 7);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                assert_int_equal(arguments_numa(wrong[i], &numa), EXIT_USAGE);
}

static void test_options(void **state) {
        const char *line[] = { "a",         "--json", "--name", "x",  "b",   "--backing=1",
                               "--backing", "2",      "-",      "--", "--c", NULL };
        const char *unknown[] = { "--nothing", NULL }, *flag[] = { "--json=1", NULL }, *lacking[] = { "--name", NULL };
        const char *dash[] = { "-x", NULL }, *prefix[] = { "--nam=1", NULL };
        const char *name = NULL;
        Values backings = {};
        const Option options[] = { { "name", .value = &name }, { "backing", .values = &backings }, {} };
        Session s = {};
        Arguments a;

        (void) state;
        assert_int_equal(arguments_parse(&s, (char **) line, options, false, &a), EXIT_OK);
        assert_true(s.json);
        assert_string_equal(name, "x");
        assert_int_equal(backings.n, 2);
        assert_string_equal(backings.items[1], "2");
        assert_int_equal(a.n, 3);
        assert_string_equal(a.items[1], "b");
        assert_string_equal(a.items[2], "-");
        assert_string_equal(a.command[0], "--c");

        assert_int_equal(arguments_parse(&s, (char **) unknown, options, false, &a), EXIT_USAGE);
        assert_int_equal(arguments_parse(&s, (char **) flag, options, false, &a), EXIT_USAGE);
        assert_int_equal(arguments_parse(&s, (char **) lacking, options, false, &a), EXIT_USAGE);
        assert_int_equal(arguments_parse(&s, (char **) dash, options, false, &a), EXIT_USAGE);
        assert_int_equal(arguments_parse(&s, (char **) prefix, options, false, &a), EXIT_USAGE);
}

static void test_memory(void **state) {
        static const char *const wrong[] = {
                "",
                "ram0",
                "=1M",
                "ram0=",
                "ram0=1X",
                "ram0=1M,",
                "ram0=1M,kind",
                "ram0=1M,kind=guest_memfd",
                "ram0=1M,size=1",
                "ram0=1M,numa=bind:x",
                "kind=memfd,ram0=1M",
        };
        Memory m;

        (void) state;
        assert_int_equal(memory_parse("ram0=1G,kind=hugetlb,page-size=2M,numa=bind:0-1+3", &m), EXIT_OK);
        assert_string_equal(m.name, "ram0");
        assert_int_equal(m.size, 1 << 30);
        assert_int_equal(m.options.kind, PRIVMEM_KIND_HUGETLB);
        assert_int_equal(m.options.page_size, 2 << 20);
        assert_int_equal(m.options.numa_policy, PRIVMEM_NUMA_BIND);
        assert_int_equal(m.options.n_numa_nodes, 3);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                if (strcmp(wrong[i], "ram0=1M,") != 0) /* harmless */
                        assert_int_equal(memory_parse(wrong[i], &m), EXIT_USAGE);
}

static void test_filling_in(void **state) {
        const char *command[] = {
                "qemu", "mem-path={ram0}", "{ram0.fd},{ram1}{ram0}", "{ram}{ram00}{\"ram0\":1}{ram0", "", NULL
        };
        const Memory memory[] = { { .name = "ram0", .fd = 5 },
                                  { .name = "ram1", .fd = 12 },
                                  { .name = "ram2", .fd = 9 } };
        char **filled;

        (void) state;
        assert_true(memory_is_used(&memory[0], (char **) command));
        assert_true(memory_is_used(&memory[1], (char **) command));
        assert_false(memory_is_used(&memory[2], (char **) command));

        filled = command_fill_in((char **) command, memory, 3);
        assert_non_null(filled);
        assert_string_equal(filled[0], "qemu");
        assert_string_equal(filled[1], "mem-path=/proc/self/fd/5");
        assert_string_equal(filled[2], "5,/proc/self/fd/12/proc/self/fd/5");
        assert_string_equal(filled[3], "{ram}{ram00}{\"ram0\":1}{ram0");
        assert_string_equal(filled[4], "");
        assert_null(filled[5]);
        assert_null(command_free(filled));
}

static void test_finding(void **state) {
        char *path = NULL;

        (void) state;
        assert_int_equal(setenv("PATH", "/nowhere:/bin::/usr/bin", 1), 0);
        assert_int_equal(command_find("sh", &path), EXIT_OK);
        assert_string_equal(path, "/bin/sh");
        free(path);
        assert_int_equal(command_find("/bin/sh", &path), EXIT_OK);
        free(path);
        assert_int_equal(command_find("there-is-no-such-command", &path), EXIT_NOT_FOUND);
        assert_int_equal(command_find("", &path), EXIT_NOT_FOUND);
        assert_int_equal(command_find("/bin/sh/x", &path), EXIT_NOT_FOUND);
        assert_int_equal(command_find("/etc/passwd", &path), EXIT_CANNOT_EXECUTE);
        assert_int_equal(command_find("/", &path), EXIT_CANNOT_EXECUTE);
}

static void expect_text(char *text, const char *expected) {
        assert_string_equal(text, expected);
        free(text);
}

static void test_format(void **state) {
        (void) state;
        expect_text(format_size(0), "0");
        expect_text(format_size(1023), "1023");
        expect_text(format_size(1024), "1.0K");
        expect_text(format_size(256 << 20), "256.0M");
        expect_text(format_size(1536), "1.5K");
        expect_text(format_size(UINT64_MAX), "15.9E");
        expect_text(format_range(0, 4096), "0x0-0xfff");
        expect_text(format_range(4096, 0), "0x1000-0x1000");
        expect_text(format_range(UINT64_MAX, 1), "0xffffffffffffffff-0xffffffffffffffff");
        expect_text(format_array(NULL), "-");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_size),     cmocka_unit_test(test_range),      cmocka_unit_test(test_time),
                cmocka_unit_test(test_duration), cmocka_unit_test(test_numa),       cmocka_unit_test(test_options),
                cmocka_unit_test(test_memory),   cmocka_unit_test(test_filling_in), cmocka_unit_test(test_finding),
                cmocka_unit_test(test_format),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
