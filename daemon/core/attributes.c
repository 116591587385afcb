/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* kvm_vm_ioctl_set_mem_attributes() and kvm_vm_set_mem_attributes() of Linux 6.8 to 7.3: the order of the checks is of
 * no consequence, since each gives EINVAL, and a change is made wholly or not at all.
 *
 * A set needs one new range at most: if it touches none, or for the second half of a range that it cuts in two. That
 * one is added before anything changes; ranges that grow or shrink stay between their neighbours. */

#include "core/attributes.h"

#include <errno.h>

#include "core/core-private.h"
#include "core/range.h"

typedef struct Range {
        uint64_t start, end;
} Range;

/* Ranges have nothing but themselves, and no two have the same start: one item stands for all of every map, so that a map
 * may be moved. */
static char item;

/* The first one that has a byte in common with [start, end). */
static bool find(const AttributeMap *map, uint64_t start, uint64_t end, Range *ret) {
        IntervalCursor cursor;

        if (start >= end || !interval_first_overlap(&map->ranges, start, end - start, &cursor))
                return false;
        *ret = (Range) { cursor.found_start, cursor.found_last + 1 };
        return true;
}

static void forget(AttributeMap *map, const Range *range) {
        interval_remove(&map->ranges, &item, range->start);
        map->n_ranges--;
}

void attributes_clear(AttributeMap *map) {
        Range range;

        while (find(map, 0, UINT64_MAX, &range))
                forget(map, &range);
}

static int add(AttributeMap *map, uint64_t start, uint64_t end) {
        int r;

        if (map->n_ranges >= PRIVATE_RANGES_MAX)
                return ATTRIBUTES_E_LIMIT;
        r = interval_insert(&map->ranges, &item, start, end - start);
        if (r < 0)
                return r;

        map->n_ranges++;
        return 0;
}

static void change(AttributeMap *map, const Range *range, uint64_t start, uint64_t end) {
        interval_resize(&map->ranges, &item, range->start, start, end - start);
}

static uint64_t behind(uint64_t end) {
        return end < UINT64_MAX ? end + 1 : end;
}

static int make_private(AttributeMap *map, uint64_t start, uint64_t end) {
        Range first, next;

        /* What overlaps, or ends or begins where it begins or ends. */
        if (!find(map, start > 0 ? start - 1 : 0, behind(end), &first))
                return add(map, start, end);

        if (first.start < start)
                start = first.start;
        if (first.end > end)
                end = first.end;
        while (find(map, first.end, behind(end), &next)) {
                if (next.end > end)
                        end = next.end;
                forget(map, &next);
        }
        change(map, &first, start, end);
        return 0;
}

static int make_shared(AttributeMap *map, uint64_t start, uint64_t end) {
        Range range;
        int r;

        while (find(map, start, end, &range)) {
                if (range.start < start && range.end > end) {
                        r = add(map, end, range.end);
                        if (r != 0)
                                return r;
                }
                if (range.start < start)
                        change(map, &range, range.start, start);
                else if (range.end > end)
                        change(map, &range, end, range.end);
                else
                        forget(map, &range);
        }
        return 0;
}

int attributes_set(AttributeMap *map, uint64_t page_size, uint64_t gpa, uint64_t size, bool private) {
        if (!range_valid(gpa, size) || !is_aligned(gpa, page_size) || !is_aligned(size, page_size))
                return ATTRIBUTES_E_RANGE;
        return private ? make_private(map, gpa, gpa + size) : make_shared(map, gpa, gpa + size);
}

bool attributes_next_private(const AttributeMap *map, uint64_t gpa, uint64_t size, uint64_t *ret_gpa,
                             uint64_t *ret_size) {
        Range range;

        if (!find(map, gpa, gpa + size, &range))
                return false;
        *ret_gpa = range_common(gpa, size, range.start, range.end - range.start, ret_size);
        return true;
}

static uint64_t least(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

bool guest_piece_next(VM *vm, uint32_t as_id, uint64_t start, uint64_t end, GuestPiece *ret) {
        IntervalCursor cursor;
        Slot *slot = slot_first_at_gpa(vm, as_id, start, end - start, &cursor);
        uint64_t slot_start = slot && slot->spec.gpa > start ? slot->spec.gpa : start;
        uint64_t at, stop, private_start, private_size = 0;
        bool has_private;

        if (!slot)
                slot_start = end;
        if (as_id != 0 && !slot)
                return false;
        /* Where only slots count, what is private before them does not. */
        at = as_id != 0 ? slot_start : start;
        has_private = attributes_next_private(&vm->private_ranges, at, end - at, &private_start, &private_size);
        if (!has_private)
                private_start = end;
        at = least(slot_start, private_start);
        if (at == end)
                return false;

        stop = slot_start > at ? slot_start : least(end, slot->spec.gpa + slot->spec.size);
        stop = least(stop, private_start > at ? private_start : private_start + private_size);
        *ret = (GuestPiece) {
                .as_id = as_id,
                .gpa = at,
                .size = stop - at,
                .private = private_start == at,
                .slot = slot_start == at ? slot : NULL,
        };
        return true;
}
