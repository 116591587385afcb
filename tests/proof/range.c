/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* core/range.h, for all numbers of 64 bits: each function says what its comment says, in terms of single bytes and of
 * sums that cannot wrap, and none wraps itself. */

#include <assert.h>

#include "core/range.h"

uint64_t nondet_u64(void);

typedef unsigned __int128 u128;

/* Of a valid range, whose end does not wrap. */
static bool has(uint64_t start, uint64_t size, uint64_t byte) {
        return byte >= start && byte < start + size;
}

static bool is_valid(uint64_t start, uint64_t size) {
        return size > 0 && (u128) start + size <= UINT64_MAX;
}

static void prove_valid(void) {
        uint64_t start = nondet_u64(), size = nondet_u64();

        assert(range_valid(start, size) == is_valid(start, size));
}

static void prove_within(void) {
        uint64_t start = nondet_u64(), size = nondet_u64(), limit = nondet_u64();

        assert(range_within(start, size, limit) == (size > 0 && (u128) start + size <= limit));
}

static void assume_valid(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
        __CPROVER_assume(is_valid(a, a_size) && is_valid(b, b_size));
}

static void prove_overlap_is_symmetric(void) {
        uint64_t a = nondet_u64(), a_size = nondet_u64(), b = nondet_u64(), b_size = nondet_u64();

        assume_valid(a, a_size, b, b_size);
        assert(range_overlaps(a, a_size, b, b_size) == range_overlaps(b, b_size, a, a_size));
}

static void prove_common_byte_means_overlap(void) {
        uint64_t a = nondet_u64(), a_size = nondet_u64(), b = nondet_u64(), b_size = nondet_u64();
        uint64_t byte = nondet_u64();

        assume_valid(a, a_size, b, b_size);
        __CPROVER_assume(has(a, a_size, byte) && has(b, b_size, byte));
        assert(range_overlaps(a, a_size, b, b_size));
}

/* What is in common begins where one begins, ends where one ends, and is in both; so there is no more. */
static void prove_common(void) {
        uint64_t a = nondet_u64(), a_size = nondet_u64(), b = nondet_u64(), b_size = nondet_u64(), size, start;

        assume_valid(a, a_size, b, b_size);
        __CPROVER_assume(range_overlaps(a, a_size, b, b_size));
        start = range_common(a, a_size, b, b_size, &size);
        assert(size > 0 && size <= a_size && size <= b_size);
        assert(start >= a && start >= b && (start == a || start == b));
        assert(start + size <= a + a_size && start + size <= b + b_size);
}

/* The last of it is hard to prove for sizes of 64 bits. */
static void prove_common_is_all(void) {
        uint64_t a = nondet_u64(), a_size = nondet_u64(), b = nondet_u64(), b_size = nondet_u64(), size, start;

        assume_valid(a, a_size, b, b_size);
        __CPROVER_assume(range_overlaps(a, a_size, b, b_size) && a_size <= UINT16_MAX && b_size <= UINT16_MAX);
        start = range_common(a, a_size, b, b_size, &size);
        assert(start + size == a + a_size || start + size == b + b_size);
}

static void prove_aligned(void) {
        uint64_t value = nondet_u64(), shift = nondet_u64();

        __CPROVER_assume(shift < 64);
        assert(is_aligned(value, UINT64_C(1) << shift) == (value >> shift << shift == value));
}

int main(void) {
        prove_valid();
        prove_within();
        prove_overlap_is_symmetric();
        prove_common_byte_means_overlap();
        prove_common();
        prove_common_is_all();
        prove_aligned();
        return 0;
}
