/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which guest addresses of a VM are private: what KVM_SET_MEMORY_ATTRIBUTES keeps in kvm->mem_attr_array, as far as the
 * VMM declares it. All are shared to begin with. Slots have no part in it: an attribute may be set where there is none,
 * and stays when one is deleted.
 *
 * Always: the private ranges do not overlap nor touch each other, and there are PRIVATE_RANGES_MAX at most. */

#include <stdbool.h>
#include <stddef.h>

#include "core/interval.h"

/* Each takes memory of ours. A guest that alternates page by page for 128 MiB has as many. */
#define PRIVATE_RANGES_MAX 32768U

enum {
        ATTRIBUTES_E_RANGE = 1, /* empty, not a multiple of the page size, or wraps around: KVM's EINVAL */
        ATTRIBUTES_E_LIMIT,     /* there would be more than PRIVATE_RANGES_MAX */
};

/* Filled with zeroes it is empty. May be moved by assignment. */
typedef struct AttributeMap {
        size_t n_ranges;

        /* private to core/ */
        IntervalTree ranges;
} AttributeMap;

/* All is shared again. */
void attributes_clear(AttributeMap *map);

/* 0, ATTRIBUTES_E_…, or -ENOMEM; nothing changed unless it is 0. */
int attributes_set(AttributeMap *map, uint64_t page_size, uint64_t gpa, uint64_t size, bool private);

/* The first private part of a range that is not empty and does not wrap around. False if all of it is shared. */
bool attributes_next_private(const AttributeMap *map, uint64_t gpa, uint64_t size, uint64_t *ret_gpa,
                             uint64_t *ret_size);

typedef struct Slot Slot;
typedef struct VM VM;

/* Guest addresses of which one thing is true. */
typedef struct GuestPiece {
        uint32_t as_id;
        uint64_t gpa;
        uint64_t size;
        bool private;
        Slot *slot; /* that shows them, or NULL; the piece may be a part of it */
} GuestPiece;

/* The first piece of [start, end), start < end, in an address space. What is shared and has no slot is none; nor is what
 * is private and has no slot, but in address space 0: attributes know no address spaces. */
bool guest_piece_next(VM *vm, uint32_t as_id, uint64_t start, uint64_t end, GuestPiece *ret);
