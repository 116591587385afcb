/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The promises of core/interval.h, one by one. tests/property/intervals.c tries them all together. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/interval.h"

static IntervalTree tree;
static IntervalCursor cursor;
static char items[2000], *a = items, *b = items + 1, *c = items + 2, *d = items + 3;
static int callocs_left = -1;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size) {
        if (callocs_left == 0)
                return NULL;
        if (callocs_left > 0)
                callocs_left--;
        return __real_calloc(n, size);
}

static void put(void *item, uint64_t start, uint64_t size) {
        assert_int_equal(interval_insert(&tree, item, start, size), 0);
}

static void *first(uint64_t start, uint64_t size) {
        return interval_first_overlap(&tree, start, size, &cursor);
}

static void *next(void) {
        return interval_next_overlap(&cursor);
}

static void empty_tree(void **state) {
        (void) state;
        assert_null(first(0, UINT64_MAX));
        interval_tidy(&tree, a, 0);
        assert_null(tree.root);
}

static void neighbours_do_not_overlap(void **state) {
        (void) state;
        put(a, 10, 10);
        assert_null(first(0, 10));
        assert_null(first(20, 10));
        assert_ptr_equal(first(0, 11), a);
        assert_ptr_equal(first(19, 10), a);
        interval_remove(&tree, a, 10);
}

static void overlaps_come_in_order_of_start(void **state) {
        (void) state;
        put(c, 30, 10);
        put(a, 0, 100);
        put(d, 50, 10);
        put(b, 20, 5);
        assert_ptr_equal(first(24, 20), a);
        assert_ptr_equal(next(), b);
        assert_ptr_equal(next(), c);
        assert_null(next());
        interval_remove(&tree, c, 30);
        interval_remove(&tree, a, 0);
        interval_remove(&tree, d, 50);
        interval_remove(&tree, b, 20);
}

static void long_range_is_found_behind_short_ones(void **state) {
        (void) state;
        put(a, 0, 1000);
        put(b, 10, 1);
        put(c, 20, 1);
        assert_ptr_equal(first(900, 1), a);
        assert_null(next());
        interval_remove(&tree, a, 0);
        interval_remove(&tree, b, 10);
        interval_remove(&tree, c, 20);
}

static void equal_ranges_live_side_by_side(void **state) {
        (void) state;
        put(b, 10, 10);
        put(a, 10, 10);
        assert_ptr_equal(first(10, 1), a);
        assert_ptr_equal(next(), b);
        assert_null(next());

        interval_remove(&tree, a, 10);
        assert_ptr_equal(first(10, 1), b);
        interval_remove(&tree, b, 10);
}

static void range_up_to_the_last_byte(void **state) {
        (void) state;
        put(a, UINT64_MAX, 1);
        put(b, 0, UINT64_MAX);
        assert_ptr_equal(first(UINT64_MAX, 1), a);
        assert_ptr_equal(first(UINT64_MAX - 1, 2), b);
        assert_ptr_equal(next(), a);
        interval_remove(&tree, a, UINT64_MAX);
        interval_remove(&tree, b, 0);
}

static void removed_range_is_not_found(void **state) {
        (void) state;
        put(a, 10, 100);
        put(b, 20, 10);
        interval_remove(&tree, a, 10);
        assert_null(first(50, 10));
        assert_ptr_equal(first(0, 100), b);
        interval_remove(&tree, b, 20);
        assert_null(tree.root);
}

/* So many of one start that one block does not hold them. */
/* So many that the tree has inner blocks. */
static void put_all(void) {
        for (unsigned i = 4; i < sizeof(items); i++)
                put(&items[i], 10 * (uint64_t) i, 5);
}

static void remove_all(void) {
        for (unsigned i = 4; i < sizeof(items); i++)
                interval_remove(&tree, &items[i], 10 * (uint64_t) i);
        assert_null(tree.root);
}

static void search_after_approach_finds_what_comes_before(void **state) {
        (void) state;
        put_all();
        put(a, 3, 10007); /* reaches to 10010 */
        interval_approach(&tree, 10005);
        assert_ptr_equal(first(10005, 3), a);
        assert_null(next());
        interval_approach(&tree, 10005);
        assert_ptr_equal(first(10005, 6), a);
        assert_ptr_equal(next(), &items[1001]);
        assert_null(next());
        interval_remove(&tree, a, 3);
        remove_all();
}

static void approach_lasts_over_changes(void **state) {
        (void) state;
        put_all();
        interval_approach(&tree, 5007);
        for (unsigned round = 0; round < 100; round++) {
                put(a, 5007, 2);
                put(b, 5007, 1);
                assert_ptr_equal(first(5007, 1), a);
                assert_ptr_equal(next(), b);
                assert_null(next());
                interval_remove(&tree, a, 5007);
                interval_remove(&tree, b, 5007);
                assert_null(first(5007, 1));
        }
        for (unsigned i = 500; i < 560; i++) /* the leaves around it are gone */
                interval_remove(&tree, &items[i], 10 * (uint64_t) i);
        put(a, 5007, 1);
        assert_ptr_equal(first(5007, 1), a);
        interval_remove(&tree, a, 5007);
        for (unsigned i = 500; i < 560; i++)
                put(&items[i], 10 * (uint64_t) i, 5);
        remove_all();
}

static void many_equal_ranges(void **state) {
        (void) state;
        for (size_t i = 0; i < sizeof(items); i++)
                put(&items[i * 7 % sizeof(items)], 100, 1 + i % 3);
        assert_true(tree.height > 1);
        assert_ptr_equal(first(0, UINT64_MAX), items);
        for (size_t i = 1; i < sizeof(items); i++)
                assert_ptr_equal(next(), &items[i]);
        for (size_t i = 0; i < sizeof(items); i++)
                interval_remove(&tree, &items[i * 11 % sizeof(items)], 100);
        assert_null(tree.root);
}

/* Whichever allocation fails, the tree is as before. */
static void failed_insertion_changes_nothing(void **state) {
        unsigned failures = 0;

        (void) state;
        for (size_t i = 0; i < sizeof(items); i++) {
                uint64_t start = i * 7919 % sizeof(items);
                int r = -ENOMEM;

                for (callocs_left = 0; r != 0; failures += r != 0) {
                        int allowed = callocs_left;

                        r = interval_insert(&tree, &items[start], start, 1);
                        assert_true(r == 0 || (r == -ENOMEM && !first(start, 1)));
                        callocs_left = allowed + 1;
                }
                callocs_left = -1;
                assert_ptr_equal(first(start, 1), &items[start]);
        }
        assert_true(failures > 10 && tree.height == 3);
        for (size_t i = 0; i < sizeof(items); i++)
                interval_remove(&tree, &items[i], i);
        assert_null(tree.root);
}

static void withdrawn_ranges_come_back_without_memory(void **state) {
        (void) state;
        for (size_t i = 0; i < sizeof(items); i++)
                put(&items[i], i, 1);

        callocs_left = 0;
        for (size_t i = 0; i < sizeof(items); i++)
                (void) interval_withdraw(&tree, &items[i], i);
        assert_null(first(0, UINT64_MAX));
        for (size_t i = sizeof(items); i-- > 0;)
                put(&items[i], i, 1);
        for (size_t i = 0; i < sizeof(items); i++)
                assert_ptr_equal(first(i, 1), &items[i]);
        callocs_left = -1;

        for (size_t i = 0; i < sizeof(items); i++)
                (void) interval_withdraw(&tree, &items[i], i);
        for (size_t i = 0; i < sizeof(items); i++)
                interval_tidy(&tree, &items[i], i);
        assert_null(tree.root);
}

/* A range that has outgrown the one behind it, which is gone, may be the last of its block: what comes into the gap must
 * find its way. */
static void resized_range_outgrows_what_is_gone(void **state) {
        static char many[6000];
        const size_t n = sizeof(many);

        (void) state;
        for (size_t i = 0; i < n; i++)
                put(&many[i], i * 10, 5);
        assert_int_equal(tree.height, 3);

        for (size_t i = 0; i + 1 < n; i += 2) {
                interval_remove(&tree, &many[i + 1], (i + 1) * 10);
                interval_resize(&tree, &many[i], i * 10, (i + 1) * 10 + 6, 3);
                put(&many[i + 1], i * 10, 5);
        }
        for (size_t i = 0; i + 1 < n; i += 2) {
                assert_ptr_equal(first(i * 10, 20), &many[i + 1]);
                assert_ptr_equal(next(), &many[i]);
                assert_null(next());
        }

        for (size_t i = 0; i + 1 < n; i += 2)
                interval_resize(&tree, &many[i], (i + 1) * 10 + 6, i * 10 + 5, 15);
        assert_null(first((n - 1) * 10 + 10, 1));
        for (size_t i = 0; i + 1 < n; i += 2) {
                assert_ptr_equal(first(i * 10 + 19, 1), &many[i]);
                interval_remove(&tree, &many[i], i * 10 + 5);
                interval_remove(&tree, &many[i + 1], i * 10);
        }
        assert_null(tree.root);
}

/* Blocks of all levels, of ranges that touch and do not overlap; then one byte more, anywhere. */
static void any_overlap_is_seen(void **state) {
        const size_t n = sizeof(items);

        (void) state;
        assert_false(interval_has_overlap(&tree));
        for (size_t i = 0; i < n; i++)
                put(&items[i], i * 10, 10);
        assert_false(interval_has_overlap(&tree));
        for (size_t i = 0; i + 1 < n; i++) {
                interval_resize(&tree, &items[i], i * 10, i * 10, 11);
                assert_true(interval_has_overlap(&tree));
                interval_resize(&tree, &items[i], i * 10, i * 10, 10);
        }
        assert_false(interval_has_overlap(&tree));
        interval_resize(&tree, &items[0], 0, 0, 10 * n);
        assert_true(interval_has_overlap(&tree));
        for (size_t i = 0; i < n; i++)
                interval_remove(&tree, &items[i], i * 10);
        assert_false(interval_has_overlap(&tree));
}

/* At the end of the tree, where the last block is full, where its last range is a long one, and where it is empty. */
static void ranges_that_come_in_order(void **state) {
        const size_t n = sizeof(items);

        (void) state;
        put(&items[0], 0, 100000);
        for (size_t i = 1; i < n; i++) {
                put(&items[i], i * 10, 5);
                assert_ptr_equal(first(i * 10, 1), &items[0]);
                assert_ptr_equal(next(), &items[i]);
                assert_null(next());
        }
        for (size_t i = n; i-- > n - 100;)
                (void) interval_withdraw(&tree, &items[i], i * 10);
        for (size_t i = n - 100; i < n; i++)
                put(&items[i], i * 10 + 1, 7);
        for (size_t i = 1; i < n; i++)
                interval_remove(&tree, &items[i], i < n - 100 ? i * 10 : i * 10 + 1);
        interval_remove(&tree, &items[0], 0);
        assert_null(tree.root);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(empty_tree),
                cmocka_unit_test(neighbours_do_not_overlap),
                cmocka_unit_test(overlaps_come_in_order_of_start),
                cmocka_unit_test(long_range_is_found_behind_short_ones),
                cmocka_unit_test(equal_ranges_live_side_by_side),
                cmocka_unit_test(range_up_to_the_last_byte),
                cmocka_unit_test(removed_range_is_not_found),
                cmocka_unit_test(search_after_approach_finds_what_comes_before),
                cmocka_unit_test(approach_lasts_over_changes),
                cmocka_unit_test(many_equal_ranges),
                cmocka_unit_test(failed_insertion_changes_nothing),
                cmocka_unit_test(withdrawn_ranges_come_back_without_memory),
                cmocka_unit_test(resized_range_outgrows_what_is_gone),
                cmocka_unit_test(any_overlap_is_seen),
                cmocka_unit_test(ranges_that_come_in_order),
        };

        return cmocka_run_group_tests_name("interval", tests, NULL, NULL);
}
