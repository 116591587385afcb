/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* JSON text, looked at where it lies: what is taken from strangers, and what is found in what was taken. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rest/scan.h"

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))

/* A copy with nothing behind it, so that the sanitizers see who reads there. */
static int check(const char *text, size_t size) {
        char *copy = malloc(size ?: 1);
        size_t offset;
        int r;

        assert_non_null(copy);
        memcpy(copy, text, size);
        r = scan_check((Span) { .text = copy, .size = size }, &offset);
        assert_true(offset <= size);
        free(copy);
        return r;
}

static void assert_taken(const char *text) {
        size_t size = strlen(text);

        if (check(text, size) != 0)
                fail_msg("refused: %s", text);
        /* Nothing shorter is a whole value, but for numbers and what ends with a space. */
        for (size_t i = 0; strchr("{[\"", text[0]) && i < size; i++)
                if (check(text, i) == 0)
                        fail_msg("taken: the first %zu bytes of %s", i, text);
}

static void what_is_json(void **state) {
        static const char *const texts[] = {
                "{}",
                "[]",
                "\"\"",
                "0",
                "-0",
                "10",
                "1.5e+10",
                "1E-1",
                "true",
                "false",
                "null",
                " { } ",
                "\t\r\n1",
                "[1,2]",
                "[[],[]]",
                "{\"a\":{}}",
                "\"\\n\\/\"",
                "\"\\u00e4\"",
                "\"\xc3\xa4\"",
                "\"\xf0\x9f\x98\x80\"",
                "\"\\ud83d\\ude00\"",
                "{\"a\":1,\"b\":[true,null,\"x\"]}",
                "\"\x7f\"",
                "18446744073709551616",
        };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                if (texts[i][0] == ' ')
                        assert_int_equal(check(texts[i], strlen(texts[i])), 0);
                else
                        assert_taken(texts[i]);
}

static void what_is_not(void **state) {
        static const char *const texts[] = {
                "",
                " ",
                "{",
                "}",
                "[1,]",
                "{\"a\":1,}",
                "{a:1}",
                "{'a':1}",
                "01",
                "1.",
                ".5",
                "+1",
                "1e",
                "-",
                "- 1",
                "NaN",
                "Infinity",
                "nul",
                "True",
                "1 2",
                "{}{}",
                "[1 2]",
                "\"\\x\"",
                "\"\\u12g4\"",
                "\"\\ud800\"",
                "\"\\udc00\"",
                "\"\\ud800\\u0041\"",
                "\"a\nb\"",
                "\"\x1f\"",
                "\"\xff\"",
                "\"\xc0\x80\"",
                "\"\xed\xa0\x80\"",
                "\"\xf4\x90\x80\x80\"",
                "\"\xe2\x82\"",
                "// x\n1",
                "[1,,2]",
                "{\"a\"}",
                "{\"a\":}",
                "{1:2}",
                "\xef\xbb\xbf{}",
                "{\"a\\u0062\":1}",
                "\"",
                "\"\\",
                "\"\\u",
                "0x10",
                "--1",
        };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                if (check(texts[i], strlen(texts[i])) != SCAN_E_NOT_JSON)
                        fail_msg("taken: %s", texts[i]);
        assert_int_equal(check("1\0", 2), SCAN_E_NOT_JSON);
        assert_int_equal(check("\"\0\"", 3), SCAN_E_NOT_JSON);
}

static void what_is_refused_by_name(void **state) {
        char deep[2 * SCAN_DEPTH_MAX + 2], wide[16 * (SCAN_MEMBERS_MAX + 1)];
        size_t n;

        (void) state;
        assert_int_equal(check("\"a\\u0000\"", 9), SCAN_E_NUL);
        assert_int_equal(check("{\"a\":1,\"b\":2,\"a\":1}", 19), SCAN_E_DUPLICATE);
        assert_int_equal(check("{\"a\":{\"a\":1}}", 13), 0);
        memset(deep, '[', SCAN_DEPTH_MAX + 1);
        memset(deep + SCAN_DEPTH_MAX + 1, ']', SCAN_DEPTH_MAX + 1);
        assert_int_equal(check(deep, sizeof(deep)), SCAN_E_TOO_DEEP);
        assert_int_equal(check(deep + 1, sizeof(deep) - 2), 0);
        for (unsigned members = SCAN_MEMBERS_MAX; members <= SCAN_MEMBERS_MAX + 1; members++) {
                n = 0;
                for (unsigned i = 0; i < members; i++)
                        n += (size_t) snprintf(wide + n, sizeof(wide) - n, "%c\"%u\":0", i == 0 ? '{' : ',', i);
                wide[n++] = '}';
                assert_int_equal(check(wide, n), members > SCAN_MEMBERS_MAX ? SCAN_E_TOO_MANY : 0);
        }
}

static void members_and_elements(void **state) {
        Span object = SPAN(" {\"a\": {\"x\":\"}\\\"]\"} , \"b\":[1, [2] ,\"3,\"], \"c\" :null}"), key, value;
        const char *const elements[] = { "1", "[2]", "\"3,\"" };
        Scan scan;

        (void) state;
        object.text++, object.size--;
        assert_true(scan_find(object, "a", &value));
        assert_true(span_is(value, "{\"x\":\"}\\\"]\"}"));
        assert_true(scan_find2(object, "a", "x", &value));
        assert_true(span_is(value, "\"}\\\"]\""));
        assert_true(scan_find(object, "c", &value));
        assert_true(span_is(value, "null"));
        assert_false(scan_find(object, "d", &value));
        assert_false(scan_find(object, "x", &value));
        assert_true(scan_find(object, "b", &value));
        assert_true(scan_open(&scan, value, '['));
        for (size_t i = 0; i < ELEMENTSOF(elements); i++) {
                assert_int_equal(scan_element(&scan, &value), 1);
                assert_true(span_is(value, elements[i]));
        }
        assert_int_equal(scan_element(&scan, &value), 0);
        assert_false(scan_open(&scan, object, '['));
        assert_true(scan_open(&scan, SPAN("{ }"), '{'));
        assert_int_equal(scan_member(&scan, &key, &value), 0);
}

/* They come from a privmemd that has lost its mind. */
static void broken_text_is_never_read_beyond_its_end(void **state) {
        static const char *const texts[] = { "{\"a\"}",      "{\"a\":}", "{a:1}",     "{\"a:1}",          "{\"a\":[}",
                                             "{\"a\":\"\\}", "{,}",      "{\"a\" 1}", "{\"a\":1 \"b\":2}" };
        Span key, value;

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                size_t size = strlen(texts[i]);
                char *copy = malloc(size);
                Scan scan;
                int r;

                assert_non_null(copy);
                memcpy(copy, texts[i], size);
                assert_true(scan_open(&scan, (Span) { .text = copy, .size = size }, '{'));
                while ((r = scan_member(&scan, &key, &value)) > 0)
                        ;
                if (r == 0)
                        fail_msg("taken: %s", texts[i]);
                free(copy);
        }
}

static void numbers(void **state) {
        uint64_t value;

        (void) state;
        assert_true(scan_uint64(SPAN("18446744073709551615"), &value));
        assert_true(value == UINT64_MAX);
        assert_true(scan_uint64(SPAN("0"), &value));
        assert_false(scan_uint64(SPAN("18446744073709551616"), &value));
        assert_false(scan_uint64(SPAN("-1"), &value));
        assert_false(scan_uint64(SPAN("1.0"), &value));
        assert_false(scan_uint64(SPAN("01"), &value));
        assert_false(scan_uint64(SPAN(""), &value));
        assert_false(scan_uint64((Span) {}, &value));
        assert_true(scan_is_integer(SPAN("-1")));
        assert_false(scan_is_integer(SPAN("-")));
        assert_false(scan_is_integer(SPAN("1e3")));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_json),
                cmocka_unit_test(what_is_not),
                cmocka_unit_test(what_is_refused_by_name),
                cmocka_unit_test(members_and_elements),
                cmocka_unit_test(broken_text_is_never_read_beyond_its_end),
                cmocka_unit_test(numbers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
