/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A range of bytes is [start, start + size) with size > 0. Nobody adds start and size but through here: the
 * kernel itself got that sum wrong until 7.2 (kvm_gmem_bind()). */

#include <stdbool.h>
#include <stdint.h>

/* True if [start, start + size) is not empty and its end does not exceed 2^64 - 1. */
static inline bool range_valid(uint64_t start, uint64_t size) {
        uint64_t end;

        return size > 0 && !__builtin_add_overflow(start, size, &end);
}

/* True if [start, start + size) is not empty and lies inside a file of limit bytes. */
static inline bool range_within(uint64_t start, uint64_t size, uint64_t limit) {
        return size > 0 && start <= limit && size <= limit - start;
}

/* True if the two valid ranges have a byte in common. */
static inline bool range_overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
        return a < b ? b - a < a_size : a - b < b_size;
}

/* The first byte that two overlapping valid ranges have in common, and in *ret_size how many. */
static inline uint64_t range_common(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size, uint64_t *ret_size) {
        uint64_t start = a > b ? a : b;
        uint64_t a_rest = a_size - (start - a), b_rest = b_size - (start - b);

        *ret_size = a_rest < b_rest ? a_rest : b_rest;
        return start;
}

static inline bool is_aligned(uint64_t value, uint64_t power_of_two) {
        return (value & (power_of_two - 1)) == 0;
}
