/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/sha256.h"

static void assert_digest(const void *bytes, size_t size, const char *hex) {
        uint8_t digest[SHA256_SIZE];
        char text[2 * SHA256_SIZE + 1];

        sha256(bytes, size, digest);
        for (size_t i = 0; i < sizeof(digest); i++)
                snprintf(text + 2 * i, 3, "%02x", digest[i]);
        assert_string_equal(text, hex);
}

/* NIST's "Examples with Intermediate Values" for FIPS 180-4: of one block, of two, and of none. */
static void test_published_values(void **state) {
        (void) state;
        assert_digest("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
                      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        assert_digest("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_digest("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmno"
                      "pqrsmnopqrstnopqrstu",
                      112, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
}

/* The vectors of NIST's SHA test suite that are a byte, and those around the end of a block. */
static void test_short_messages(void **state) {
        static const struct {
                size_t zeros;
                const char *hex;
        } cases[] = {
                { 55, "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7" },
                { 56, "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb" },
                { 57, "65a16cb7861335d5ace3c60718b5052e44660726da4cd13bb745381b235a1785" },
                { 64, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b" },
                { 1000, "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53" },
        };
        static const uint8_t zeros[1000];

        (void) state;
        assert_digest("\xbd", 1, "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b");
        assert_digest("\xc9\x8c\x8e\x55", 4, "7abc22c0ae5af26ce93dbb94433a0e0b2e119d014f8e7f65bd56c61ccccd9504");
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                assert_digest(zeros, cases[i].zeros, cases[i].hex);
}

static void test_a_million_times_a(void **state) {
        char *a = malloc(1000000);

        (void) state;
        memset(a, 'a', 1000000);
        assert_digest(a, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        free(a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_published_values),
                cmocka_unit_test(test_short_messages),
                cmocka_unit_test(test_a_million_times_a),
        };

        return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
