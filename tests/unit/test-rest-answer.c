/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Replies of privmemd become documents: problems, and lists in parts. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rest/list.h"
#include "rest/problem.h"
#include "rest/scan.h"

static unsigned render(const char *error, const char *parameters, Text *text) {
        const UpstreamReply reply = { .error = span_of(error), .parameters = span_of(parameters) };
        unsigned status = problem_of_error(&reply, text);
        size_t offset;

        assert_int_equal(scan_check((Span) { .text = text->text, .size = text->size }, &offset), 0);
        return status;
}

static void error_with_its_fields(void **state) {
        Text text = {};
        Span value, document;

        (void) state;
        assert_int_equal(render("io.privmemd.Memory.NoCapacity",
                                "{\"message\":\"Too \\\"little\\\".\",\"needed\":18446744073709551615,\"node\":null}",
                                &text),
                         507);
        document = (Span) { .text = text.text, .size = text.size };
        assert_true(scan_find(document, "type", &value) && span_is(value, "\"io.privmemd.Memory.NoCapacity\""));
        assert_true(scan_find(document, "status", &value) && span_is(value, "507"));
        assert_true(scan_find(document, "detail", &value) && span_is(value, "\"Too \\\"little\\\".\""));
        assert_true(scan_find(document, "needed", &value) && span_is(value, "18446744073709551615"));
        assert_true(scan_find(document, "node", &value) && span_is(value, "null"));
        assert_false(scan_find(document, "message", &value));
        text_done(&text);
}

static void statuses(void **state) {
        static const struct {
                const char *error, *parameters;
                unsigned status;
        } cases[] = {
                { "io.privmemd.Memory.NoSuchVM", "{\"message\":\"No.\"}", 404 },
                { "io.privmemd.Memory.NoSuchVM", "{}", 404 },
                { "io.privmemd.Memory.SlotRefused", "{\"message\":\"No.\",\"verdict\":{\"kernelErrno\":0}}", 409 },
                { "io.privmemd.Memory.SlotRefused", "{\"message\":\"No.\",\"verdict\":{\"kernelErrno\":17}}", 422 },
                { "io.privmemd.Memory.SlotsRefused", "{\"verdicts\":[{\"kernelErrno\":0},{\"kernelErrno\":22}]}",
                  422 },
                { "io.privmemd.Memory.SlotsRefused", "{\"verdicts\":[{\"kernelErrno\":0},{}]}", 409 },
                { "io.privmemd.Memory.NameConflict", "{\"kernelErrno\":22}", 409 },
                { "io.privmemd.Memory.Unheard", "{}", 502 },
                { "io.privmemd.Memory.", "{}", 502 },
                { "io.privmemd.Other.NoSuchVM", "{}", 502 },
                { "org.varlink.service.InvalidParameter", "{\"parameter\":\"size\"}", 422 },
                { "org.varlink.service.InvalidParameter", "{}", 422 },
                { "io.systemd.System", "{\"errno\":5}", 502 },
                { "io.privmemd.Memory.NoSuchVM", "{\"type\":1,\"status\":2,\"title\":3,\"detail\":4}", 404 },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                Text text = {};

                assert_int_equal(render(cases[i].error, cases[i].parameters, &text), cases[i].status);
                text_done(&text);
        }
}

static void list_of_several_parts(void **state) {
        Text text = {}, lines = {};

        (void) state;
        assert_true(list_render(&text, "vms", false, true, true,
                                SPAN("{\"vms\":[{\"a\":1},{\"b\":2}],\"complete\":true}")));
        assert_string_equal(text.text, "{\"vms\":[{\"a\":1},{\"b\":2}],\"complete\":true}");
        assert_true(list_render(&lines, "vms", true, true, true, SPAN("{\"vms\":[{\"a\":1},{\"b\":[1,2]}],\"c\":1}")));
        assert_string_equal(lines.text, "{\"a\":1}\n{\"b\":[1,2]}\n");
        text_done(&text);
        assert_true(list_render(&text, "vms", false, true, true, SPAN("{\"vms\":[]}")));
        assert_string_equal(text.text, "{\"vms\":[]}");
        assert_false(list_render(&text, "vms", false, true, true, SPAN("{\"vms\":1}")));
        assert_false(list_render(&text, "vms", false, true, true, SPAN("{\"slots\":[]}")));
        text_done(&text);
        text_done(&lines);
}

static void strings(void **state) {
        Text text = {};

        (void) state;
        text_add_json(&text, "a\"\\\n\x01\x7f\xc3\xa4", 8);
        assert_string_equal(text.text, "\"a\\\"\\\\\\u000a\\u0001\\u007f\xc3\xa4\"");
        text_done(&text);
        text_add_json(&text, "", 0);
        assert_string_equal(text.text, "\"\"");
        text_add_uint64(&text, UINT64_MAX);
        assert_string_equal(text.text, "\"\"18446744073709551615");
        assert_false(text_reserve(&text, SIZE_MAX));
        assert_true(text.failed);
        text_done(&text);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(error_with_its_fields),
                cmocka_unit_test(statuses),
                cmocka_unit_test(list_of_several_parts),
                cmocka_unit_test(strings),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
