/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* core/range.h, for all numbers of 64 bits: each function says what its comment says, in terms of sums that cannot
 * wrap, and none wraps itself. */

#include "core/range.h"
#include "prove.h"

typedef unsigned __int128 u128;

static bool is_valid(uint64_t start, uint64_t size) {
        return size > 0 && (u128) start + size <= UINT64_MAX;
}

void prove_valid(void) {
        uint64_t start = nondet_u64(), size = nondet_u64();

        assert(range_valid(start, size) == is_valid(start, size));
}

void prove_within(void) {
        uint64_t start = nondet_u64(), size = nondet_u64(), limit = nondet_u64();

        assert(range_within(start, size, limit) == (size > 0 && (u128) start + size <= limit));
}

void prove_overlap_is_symmetric(void) {
        uint64_t a = nondet_u64(), a_size = nondet_u64(), b = nondet_u64(), b_size = nondet_u64();

        __CPROVER_assume(is_valid(a, a_size) && is_valid(b, b_size));
        assert(range_overlaps(a, a_size, b, b_size) == range_overlaps(b, b_size, a, a_size));
}

/* Any two ranges that have no byte in common, told by how long they are and what lies between them. */
void prove_apart(void) {
        uint64_t a = nondet_u64(), a_size = nondet_u64(), between = nondet_u64(), b_size = nondet_u64(), b;

        __CPROVER_assume(a_size > 0 && b_size > 0 && (u128) a + a_size + between + b_size <= UINT64_MAX);
        b = a + a_size + between;
        assert(!range_overlaps(a, a_size, b, b_size));
}

/* Any two ranges that have bytes in common, told by how many bytes come before, are common, and come after: those
 * before belong to one of the two, and so do those after. So there are four cases. */

static uint64_t start, before, common, after;

static void any_lengths(void) {
        start = nondet_u64();
        before = nondet_u64();
        common = nondet_u64();
        after = nondet_u64();
        __CPROVER_assume(common > 0 && (u128) start + before + common + after <= UINT64_MAX);
}

static void check_common(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
        uint64_t size;

        assert(range_overlaps(a, a_size, b, b_size));
        assert(range_common(a, a_size, b, b_size, &size) == start + before);
        assert(size == common);
}

void prove_one_around_the_other(void) {
        any_lengths();
        check_common(start, before + common + after, start + before, common);
}

void prove_one_inside_the_other(void) {
        any_lengths();
        check_common(start + before, common, start, before + common + after);
}

void prove_one_before_the_other(void) {
        any_lengths();
        check_common(start, before + common, start + before, common + after);
}

void prove_one_behind_the_other(void) {
        any_lengths();
        check_common(start + before, common + after, start, before + common);
}

void prove_aligned(void) {
        uint64_t value = nondet_u64(), shift = nondet_u64();

        __CPROVER_assume(shift < 64);
        assert(is_aligned(value, UINT64_C(1) << shift) == (value >> shift << shift == value));
}
