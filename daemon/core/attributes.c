/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* kvm_vm_ioctl_set_mem_attributes() and kvm_vm_set_mem_attributes() of Linux 6.8 to 7.3: the order of the checks is of
 * no consequence, since each gives EINVAL, and a change is made wholly or not at all.
 *
 * A set needs one new node at most: one range more if it touches none, or the second half of a range that it cuts in
 * two. That node is made before anything changes. */

#include "core/attributes.h"

#include <errno.h>
#include <stdlib.h>

#include "core/core-private.h"
#include "core/range.h"

/* The node is all there is of a range. */
static uint64_t end_of(const IntervalNode *node) {
        return node->last + 1;
}

static void forget(AttributeMap *map, IntervalNode *node) {
        interval_remove(&map->ranges, node);
        map->n_ranges--;
        free(node);
}

void attributes_clear(AttributeMap *map) {
        while (map->ranges.root)
                forget(map, map->ranges.root);
}

static int add(AttributeMap *map, uint64_t start, uint64_t end) {
        IntervalNode *node;

        if (map->n_ranges >= PRIVATE_RANGES_MAX)
                return ATTRIBUTES_E_LIMIT;
        node = calloc(1, sizeof(IntervalNode));
        if (!node)
                return -ENOMEM;

        interval_insert(&map->ranges, node, start, end - start);
        map->n_ranges++;
        return 0;
}

static void change(AttributeMap *map, IntervalNode *node, uint64_t start, uint64_t end) {
        interval_remove(&map->ranges, node);
        interval_insert(&map->ranges, node, start, end - start);
}

/* What overlaps the range, or ends or begins where it begins or ends. */
static IntervalNode *first_touching(const AttributeMap *map, uint64_t start, uint64_t end) {
        uint64_t from = start > 0 ? start - 1 : 0, to = end < UINT64_MAX ? end + 1 : end;

        return interval_first_overlap(&map->ranges, from, to - from);
}

static int make_private(AttributeMap *map, uint64_t start, uint64_t end) {
        IntervalNode *first = first_touching(map, start, end), *next;

        if (!first)
                return add(map, start, end);

        if (first->start < start)
                start = first->start;
        if (end_of(first) > end)
                end = end_of(first);
        change(map, first, start, end);
        /* The others that it touches come right behind it. */
        while ((next = interval_next(first)) && next->start <= end) {
                if (end_of(next) > end)
                        end = end_of(next);
                forget(map, next);
                change(map, first, start, end);
        }
        return 0;
}

static int make_shared(AttributeMap *map, uint64_t start, uint64_t end) {
        IntervalNode *node = interval_first_overlap(&map->ranges, start, end - start);
        int r;

        if (node && node->start < start && end_of(node) > end) {
                uint64_t node_end = end_of(node);

                r = add(map, end, node_end);
                if (r == 0)
                        change(map, node, node->start, start);
                return r;
        }

        for (; node; node = interval_first_overlap(&map->ranges, start, end - start)) {
                if (node->start < start)
                        change(map, node, node->start, start);
                else if (end_of(node) > end)
                        change(map, node, end, end_of(node));
                else
                        forget(map, node);
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
        const IntervalNode *node = interval_first_overlap(&map->ranges, gpa, size);

        if (!node)
                return false;
        *ret_gpa = range_common(gpa, size, node->start, end_of(node) - node->start, ret_size);
        return true;
}

static uint64_t least(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

bool guest_piece_next(VM *vm, uint32_t as_id, uint64_t start, uint64_t end, GuestPiece *ret) {
        Slot *slot = slot_first_at_gpa(vm, as_id, start, end - start);
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
