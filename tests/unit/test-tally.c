/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "front/tally.h"

static void bounds_rise(void **state) {
        (void) state;
        for (unsigned i = 1; i < TALLY_BOUNDS; i++)
                assert_true(tally_bounds_usec[i - 1] < tally_bounds_usec[i]);
}

static void bounds_are_inclusive_and_cumulative(void **state) {
        Tally tally = {};

        (void) state;
        tally_add(&tally, /* succeeded= */ true, tally_bounds_usec[3]);
        tally_add(&tally, /* succeeded= */ false, tally_bounds_usec[3] + 1);
        tally_add(&tally, /* succeeded= */ true, 0);
        assert_int_equal(tally.succeeded, 2);
        assert_int_equal(tally.failed, 1);
        assert_int_equal(tally.total_usec, 2 * tally_bounds_usec[3] + 1);
        assert_int_equal(tally.within[0], 1);
        assert_int_equal(tally.within[2], 1);
        assert_int_equal(tally.within[3], 2);
        assert_int_equal(tally.within[4], 3);
        assert_int_equal(tally.within[TALLY_BOUNDS - 1], 3);
}

static void beyond_all_bounds(void **state) {
        Tally tally = {};

        (void) state;
        tally_add(&tally, /* succeeded= */ true, UINT64_MAX / 2);
        assert_int_equal(tally.succeeded, 1);
        for (unsigned i = 0; i < TALLY_BOUNDS; i++)
                assert_int_equal(tally.within[i], 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(bounds_rise),
                cmocka_unit_test(bounds_are_inclusive_and_cumulative),
                cmocka_unit_test(beyond_all_bounds),
        };

        return cmocka_run_group_tests_name("tally", tests, NULL, NULL);
}
