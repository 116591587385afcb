/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The promises of core/interval.h, one by one. tests/property/intervals.c tries them all together. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/interval.h"

static IntervalTree tree;
static IntervalNode a, b, c, d;

static int setup(void **state) {
        (void) state;
        tree = (IntervalTree) {};
        return 0;
}

static void empty_tree(void **state) {
        (void) state;
        assert_null(interval_first(&tree));
        assert_null(interval_first_overlap(&tree, 0, UINT64_MAX));
        assert_null(interval_lower_bound(&tree, 0));
}

static void neighbours_do_not_overlap(void **state) {
        (void) state;
        interval_insert(&tree, &a, 10, 10);
        assert_null(interval_first_overlap(&tree, 0, 10));
        assert_null(interval_first_overlap(&tree, 20, 10));
        assert_ptr_equal(interval_first_overlap(&tree, 0, 11), &a);
        assert_ptr_equal(interval_first_overlap(&tree, 19, 10), &a);
}

static void overlaps_come_in_order_of_start(void **state) {
        (void) state;
        interval_insert(&tree, &c, 30, 10);
        interval_insert(&tree, &a, 0, 100);
        interval_insert(&tree, &d, 50, 10);
        interval_insert(&tree, &b, 20, 5);
        assert_ptr_equal(interval_first_overlap(&tree, 24, 20), &a);
        assert_ptr_equal(interval_next_overlap(&a, 24, 20), &b);
        assert_ptr_equal(interval_next_overlap(&b, 24, 20), &c);
        assert_null(interval_next_overlap(&c, 24, 20));
}

static void long_range_is_found_behind_short_ones(void **state) {
        (void) state;
        interval_insert(&tree, &a, 0, 1000);
        interval_insert(&tree, &b, 10, 1);
        interval_insert(&tree, &c, 20, 1);
        assert_ptr_equal(interval_first_overlap(&tree, 900, 1), &a);
        assert_null(interval_next_overlap(&a, 900, 1));
}

static void equal_ranges_live_side_by_side(void **state) {
        IntervalNode *first, *second;

        (void) state;
        interval_insert(&tree, &a, 10, 10);
        interval_insert(&tree, &b, 10, 10);
        first = interval_first_overlap(&tree, 10, 1);
        second = interval_next_overlap(first, 10, 1);
        assert_true((first == &a && second == &b) || (first == &b && second == &a));
        assert_null(interval_next_overlap(second, 10, 1));

        interval_remove(&tree, &a);
        assert_ptr_equal(interval_first_overlap(&tree, 10, 1), &b);
}

static void range_up_to_the_last_byte(void **state) {
        (void) state;
        interval_insert(&tree, &a, UINT64_MAX, 1);
        interval_insert(&tree, &b, 0, UINT64_MAX);
        assert_ptr_equal(interval_first_overlap(&tree, UINT64_MAX, 1), &a);
        assert_ptr_equal(interval_first_overlap(&tree, UINT64_MAX - 1, 2), &b);
        assert_ptr_equal(interval_next_overlap(&b, UINT64_MAX - 1, 2), &a);
}

static void removed_range_is_not_found(void **state) {
        (void) state;
        interval_insert(&tree, &a, 10, 100);
        interval_insert(&tree, &b, 20, 10);
        interval_remove(&tree, &a);
        assert_null(interval_first_overlap(&tree, 50, 10));
        assert_ptr_equal(interval_first(&tree), &b);
        interval_remove(&tree, &b);
        assert_null(tree.root);
}

static void walk_is_in_order_of_start(void **state) {
        (void) state;
        interval_insert(&tree, &c, 30, 1);
        interval_insert(&tree, &a, 10, 100);
        interval_insert(&tree, &b, 20, 1);
        assert_ptr_equal(interval_first(&tree), &a);
        assert_ptr_equal(interval_next(&a), &b);
        assert_ptr_equal(interval_next(&b), &c);
        assert_null(interval_next(&c));
}

static void lower_bound_looks_at_starts(void **state) {
        (void) state;
        interval_insert(&tree, &a, 10, 100);
        interval_insert(&tree, &b, 20, 1);
        assert_ptr_equal(interval_lower_bound(&tree, 0), &a);
        assert_ptr_equal(interval_lower_bound(&tree, 10), &a);
        assert_ptr_equal(interval_lower_bound(&tree, 11), &b);
        assert_null(interval_lower_bound(&tree, 21));
}

#define TEST(function) cmocka_unit_test_setup(function, setup)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(empty_tree),
                TEST(neighbours_do_not_overlap),
                TEST(overlaps_come_in_order_of_start),
                TEST(long_range_is_found_behind_short_ones),
                TEST(equal_ranges_live_side_by_side),
                TEST(range_up_to_the_last_byte),
                TEST(removed_range_is_not_found),
                TEST(walk_is_in_order_of_start),
                TEST(lower_bound_looks_at_starts),
        };

        return cmocka_run_group_tests_name("interval", tests, NULL, NULL);
}
