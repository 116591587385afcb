/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The private ranges of a VM: each promise, each error, and a comparison with a map that has a bit a page. */

#include "core-fixture.h"

#include <stdlib.h>

#include "core/attributes.h"

static bool out_of_memory;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size) {
        return out_of_memory ? NULL : __real_calloc(n, size);
}

/* ---- the map ---- */

static int set_pages(uint64_t page, uint64_t pages, bool private) {
        return attributes_set(&f.vm->private_ranges, P, page * P, pages * P, private);
}

#define make_private(page, pages) assert_int_equal(set_pages((page), (pages), true), 0)
#define make_shared(page, pages)  assert_int_equal(set_pages((page), (pages), false), 0)

/* The n-th private range is [page, page + pages). */
static void assert_range(size_t n, uint64_t page, uint64_t pages) {
        uint64_t start = 0, size = 0, from = 0;

        for (size_t i = 0; i <= n; i++) {
                assert_true(attributes_next_private(&f.vm->private_ranges, from, UINT64_MAX - from, &start, &size));
                from = start + size;
        }
        assert_int_equal(start, page * P);
        assert_int_equal(size, pages * P);
}

#define assert_ranges(n) assert_int_equal(f.vm->private_ranges.n_ranges, (n))

static void all_is_shared_at_first(void **state) {
        uint64_t start, size;

        (void) state;
        assert_ranges(0);
        assert_false(attributes_next_private(&f.vm->private_ranges, 0, UINT64_MAX, &start, &size));
        make_shared(0, 16);
        assert_ranges(0);
}

static void private_range_is_found_and_clipped(void **state) {
        uint64_t start, size;

        (void) state;
        make_private(4, 4);
        assert_range(0, 4, 4);
        assert_true(attributes_next_private(&f.vm->private_ranges, 5 * P, 2 * P, &start, &size));
        assert_int_equal(start, 5 * P);
        assert_int_equal(size, 2 * P);
        assert_false(attributes_next_private(&f.vm->private_ranges, 0, 4 * P, &start, &size));
        assert_false(attributes_next_private(&f.vm->private_ranges, 8 * P, P, &start, &size));
}

static void ranges_that_touch_become_one(void **state) {
        (void) state;
        make_private(0, 1);
        make_private(2, 1);
        assert_ranges(2);
        make_private(1, 1);
        assert_ranges(1);
        assert_range(0, 0, 3);
        make_private(3, 1);
        assert_ranges(1);
        assert_range(0, 0, 4);
}

static void ranges_with_a_page_between_stay_two(void **state) {
        (void) state;
        make_private(0, 1);
        make_private(2, 1);
        assert_ranges(2);
        assert_range(0, 0, 1);
        assert_range(1, 2, 1);
}

static void range_swallows_those_below_it(void **state) {
        (void) state;
        make_private(2, 1);
        make_private(4, 2);
        make_private(8, 4);
        make_private(1, 9);
        assert_ranges(1);
        assert_range(0, 1, 11);
        make_private(3, 1);
        assert_ranges(1);
        assert_range(0, 1, 11);
}

static void shared_range_trims_both_sides(void **state) {
        (void) state;
        make_private(0, 4);
        make_private(6, 1);
        make_private(8, 4);
        make_shared(2, 8);
        assert_ranges(2);
        assert_range(0, 0, 2);
        assert_range(1, 10, 2);
}

static void shared_range_cuts_one_in_two(void **state) {
        (void) state;
        make_private(0, 8);
        make_shared(3, 2);
        assert_ranges(2);
        assert_range(0, 0, 3);
        assert_range(1, 5, 3);
        make_shared(0, 8);
        assert_ranges(0);
}

static void last_addresses(void **state) {
        uint64_t last = (UINT64_MAX - 2 * P + 1) / P;

        (void) state;
        make_private(last, 1);
        assert_range(0, last, 1);
        make_private(0, last);
        assert_ranges(1);
        make_shared(last, 1);
        assert_range(0, 0, last);
}

/* ---- KVM's EINVAL ---- */

static int set_bytes(uint64_t gpa, uint64_t size) {
        return attributes_set(&f.vm->private_ranges, P, gpa, size, true);
}

static void nothing_is_no_range(void **state) {
        (void) state;
        assert_int_equal(set_bytes(0, 0), ATTRIBUTES_E_RANGE);
        assert_int_equal(set_bytes(P, 0), ATTRIBUTES_E_RANGE);
        assert_ranges(0);
}

static void range_is_made_of_pages(void **state) {
        (void) state;
        assert_int_equal(set_bytes(1, P), ATTRIBUTES_E_RANGE);
        assert_int_equal(set_bytes(P / 2, P), ATTRIBUTES_E_RANGE);
        assert_int_equal(set_bytes(0, P - 1), ATTRIBUTES_E_RANGE);
        assert_int_equal(set_bytes(0, P + 1), ATTRIBUTES_E_RANGE);
        assert_int_equal(set_bytes(0, P), 0);
}

static void range_does_not_wrap_around(void **state) {
        (void) state;
        /* KVM too takes no range that ends with the last byte of all: its sum is 0. */
        assert_int_equal(set_bytes(UINT64_MAX - P + 1, P), ATTRIBUTES_E_RANGE);
        assert_int_equal(set_bytes(UINT64_MAX - P + 1, 2 * P), ATTRIBUTES_E_RANGE);
        assert_int_equal(set_bytes(P, UINT64_MAX - P + 1), ATTRIBUTES_E_RANGE);
        assert_int_equal(set_bytes(UINT64_MAX - 2 * P + 1, P), 0);
}

/* ---- limit and memory ---- */

static void limit(void **state) {
        (void) state;
        for (uint64_t i = 0; i < PRIVATE_RANGES_MAX - 1; i++)
                make_private(4 * i, 1);
        make_private(UINT64_C(1) << 30, 3);
        assert_ranges(PRIVATE_RANGES_MAX);
        assert_int_equal(set_pages(2, 1, true), ATTRIBUTES_E_LIMIT);
        assert_int_equal(set_pages((UINT64_C(1) << 30) + 1, 1, false), ATTRIBUTES_E_LIMIT);
        assert_ranges(PRIVATE_RANGES_MAX);
        assert_range(0, 0, 1);
        assert_range(1, 4, 1);
        /* What needs no range more is as possible as ever. */
        make_private(1, 3);
        assert_ranges(PRIVATE_RANGES_MAX - 1);
}

static void out_of_memory_changes_nothing(void **state) {
        unsigned n = 1;
        int r;

        (void) state;
        out_of_memory = true;
        r = set_pages(0, 8, true);
        out_of_memory = false;
        assert_int_equal(r, -ENOMEM);
        assert_ranges(0);

        /* Not every range needs memory of its own. */
        make_private(0, 8);
        out_of_memory = true;
        while ((r = set_pages(14 + 2 * n, 1, true)) == 0)
                n++;
        out_of_memory = false;
        assert_int_equal(r, -ENOMEM);
        assert_ranges(n);

        out_of_memory = true;
        r = set_pages(2, 1, false);
        make_private(8, 1);
        make_shared(0, 1);
        out_of_memory = false;
        assert_int_equal(r, -ENOMEM);
        assert_ranges(n);
        assert_range(0, 1, 8);
}

/* ---- life ---- */

static void ranges_know_no_slots(void **state) {
        (void) state;
        make_private(0, 4);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .size = 0);
        assert_range(0, 0, 4);
}

static void exit_of_the_vmm_makes_all_shared(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        make_private(0, 4);
        make_private(8, 4);
        vm_detach(f.vm);
        assert_ranges(0);
}

static void freed_vm_leaks_none(void **state) {
        (void) state;
        make_private(0, 4);
        vm_free(f.vm);
}

/* ---- against a bit a page ---- */

#define PAGES 64

static void map_against_bits(void **state) {
        bool bits[PAGES] = {};

        (void) state;
        srandom(1);
        for (size_t round = 0; round < 100000; round++) {
                uint64_t page = (uint64_t) random() % PAGES, pages = 1 + (uint64_t) random() % (PAGES - page);
                bool private = random() % 2;
                size_t n = 0;

                if (random() % 2)
                        pages = 1 + pages % 4 < PAGES - page ? 1 + pages % 4 : 1;
                assert_int_equal(set_pages(page, pages, private), 0);
                for (uint64_t i = page; i < page + pages; i++)
                        bits[i] = private;
                for (uint64_t i = 0; i < PAGES; i++) {
                        uint64_t start, size;

                        n += bits[i] && (i == 0 || !bits[i - 1]);
                        assert_int_equal(attributes_next_private(&f.vm->private_ranges, i * P, P, &start, &size),
                                         bits[i]);
                }
                assert_ranges(n);
        }
}

/* ---- pieces ---- */

static GuestPiece piece;

static bool next_piece(uint32_t as_id, uint64_t page, uint64_t end_page) {
        return guest_piece_next(f.vm, as_id, page * P, end_page * P, &piece);
}

static void assert_piece(uint64_t page, uint64_t pages, bool private, int slot_id) {
        assert_int_equal(piece.gpa, page * P);
        assert_int_equal(piece.size, pages * P);
        assert_int_equal(piece.private, private);
        assert_int_equal(piece.slot ? (int) piece.slot->spec.id : -1, slot_id);
}

static void nothing_has_no_piece(void **state) {
        (void) state;
        assert_false(next_piece(0, 0, 100));
        assert_false(next_piece(1, 0, 100));
}

static void pieces_of_slots_and_attributes(void **state) {
        (void) state;
        /* Slot 1 is [4, 8), slot 2 is [8, 12); [2, 5), [6, 7) and [20, 21) are private. */
        assert_ok(f.vm, .id = 1, .gpa = 4 * P, .size = 4 * P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .id = 2, .gpa = 8 * P, .size = 4 * P, .hva = HVA + 4 * P, .backing = f.ram, .offset = 4 * P);
        make_private(2, 3);
        make_private(6, 1);
        make_private(20, 1);

        assert_true(next_piece(0, 0, 100));
        assert_piece(2, 2, true, -1);
        assert_true(next_piece(0, 4, 100));
        assert_piece(4, 1, true, 1);
        assert_true(next_piece(0, 5, 100));
        assert_piece(5, 1, false, 1);
        assert_true(next_piece(0, 6, 100));
        assert_piece(6, 1, true, 1);
        assert_true(next_piece(0, 7, 100));
        assert_piece(7, 1, false, 1);
        assert_true(next_piece(0, 8, 100));
        assert_piece(8, 4, false, 2);
        assert_true(next_piece(0, 12, 100));
        assert_piece(20, 1, true, -1);
        assert_false(next_piece(0, 21, 100));
}

static void pieces_are_clipped(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 4 * P, .size = 4 * P, .hva = HVA, .backing = f.ram);
        make_private(5, 10);
        assert_true(next_piece(0, 5, 7));
        assert_piece(5, 2, true, 1);
        assert_true(next_piece(0, 4, 5));
        assert_piece(4, 1, false, 1);
        assert_false(next_piece(0, 0, 4));
        assert_true(next_piece(0, 9, 10));
        assert_piece(9, 1, true, -1);
}

static void other_address_space_has_pieces_of_slots_only(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .as_id = 1, .gpa = 4 * P, .size = 4 * P, .hva = HVA, .backing = f.ram);
        make_private(0, 6);
        make_private(20, 1);
        assert_true(next_piece(1, 0, 100));
        assert_piece(4, 2, true, 1);
        assert_true(next_piece(1, 6, 100));
        assert_piece(6, 2, false, 1);
        assert_false(next_piece(1, 8, 100));
        assert_true(next_piece(0, 0, 100));
        assert_piece(0, 6, true, -1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(all_is_shared_at_first),
                TEST(private_range_is_found_and_clipped),
                TEST(ranges_that_touch_become_one),
                TEST(ranges_with_a_page_between_stay_two),
                TEST(range_swallows_those_below_it),
                TEST(shared_range_trims_both_sides),
                TEST(shared_range_cuts_one_in_two),
                TEST(last_addresses),
                TEST(nothing_is_no_range),
                TEST(range_is_made_of_pages),
                TEST(range_does_not_wrap_around),
                TEST(limit),
                TEST(out_of_memory_changes_nothing),
                TEST(ranges_know_no_slots),
                TEST(exit_of_the_vmm_makes_all_shared),
                TEST(freed_vm_leaks_none),
                TEST(map_against_bits),
                TEST(nothing_has_no_piece),
                TEST(pieces_of_slots_and_attributes),
                TEST(pieces_are_clipped),
                TEST(other_address_space_has_pieces_of_slots_only),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
