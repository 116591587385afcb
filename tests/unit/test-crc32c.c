/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "host/crc32c.h"

/* RFC 3720 B.4, and the check value that catalogues of CRCs give. */
static void test_published_values(void **state) {
        static const uint8_t command[48] = {
                0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
                0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0,    0,
        };
        uint8_t bytes[32];

        (void) state;
        assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
        assert_int_equal(crc32c(0, "", 0), 0);
        memset(bytes, 0, sizeof(bytes));
        assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
        memset(bytes, 0xff, sizeof(bytes));
        assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
        for (uint8_t i = 0; i < 32; i++)
                bytes[i] = i;
        assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
        for (uint8_t i = 0; i < 32; i++)
                bytes[i] = 31 - i;
        assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x113fdb5c);
        assert_int_equal(crc32c(0, command, sizeof(command)), 0xd9963a56);
}

static uint32_t crc_by_bits(const uint8_t *bytes, size_t size) {
        uint32_t crc = UINT32_MAX;

        for (size_t i = 0; i < size; i++) {
                crc ^= bytes[i];
                for (unsigned bit = 0; bit < 8; bit++)
                        crc = crc & 1 ? crc >> 1 ^ 0x82f63b78U : crc >> 1;
        }
        return ~crc;
}

static void test_any_size_any_address_any_cut(void **state) {
        uint8_t bytes[80];

        (void) state;
        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t) (i * 167 + 13);
        for (size_t at = 0; at < 9; at++)
                for (size_t size = 0; size <= 64; size++) {
                        uint32_t whole = crc_by_bits(bytes + at, size);

                        assert_int_equal(crc32c(0, bytes + at, size), whole);
                        assert_int_equal(crc32c_portable(0, bytes + at, size), whole);
                        for (size_t cut = 0; cut <= size; cut += 5)
                                assert_int_equal(crc32c(crc32c(0, bytes + at, cut), bytes + at + cut, size - cut),
                                                 whole);
                }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_published_values),
                cmocka_unit_test(test_any_size_any_address_any_cut),
        };

        return cmocka_run_group_tests_name("crc32c", tests, NULL, NULL);
}
