/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What slots show of files. Hardly any slot shows more than its backing from an offset on, which its own fields say;
 * only the private side, and the runs that were seen of other files or of several, are stored behind them.
 *
 * In the index of a file an item is a pointer to a slot or to a run inside one. Both are aligned, so the lowest bits
 * say which, and which side of the slot. */

#include <assert.h>

#include "core/core-private.h"

enum {
        TAG_SHARED_SIDE = 0,
        TAG_PRIVATE_SIDE = 1,
        TAG_RUN = 2,
        TAG_MASK = 3,
};

static SlotShowing of_backing(const Slot *slot) {
        const SlotRecord *spec = &slot->spec;

        return (SlotShowing) { (Slot *) slot, spec->backing->file, spec->offset, spec->size, 0, false };
}

static SlotShowing of_run(const SlotRun *run, bool private_side) {
        return (SlotShowing) { run->slot, run->file, run->offset, run->size, run->at, private_side };
}

/* KVM knows no slot that has the flag and no guest_memfd. */
static const SlotRun *private_run(const Slot *slot) {
        return slot->spec.flags & SLOT_GUEST_MEMFD ? &slot->runs[slot->spec.n_runs] : NULL;
}

Backing *slot_guest_memfd(const Slot *slot) {
        const SlotRun *run = private_run(slot);

        return run ? run->file->backing : NULL;
}

SlotSpec slot_spec(const Slot *slot) {
        const SlotRecord *spec = &slot->spec;
        const SlotRun *private = private_run(slot);

        return (SlotSpec) {
                .id = spec->id,
                .as_id = spec->as_id,
                .flags = spec->flags,
                .gpa = spec->gpa,
                .size = spec->size,
                .hva = spec->hva,
                .backing = spec->backing,
                .offset = spec->offset,
                .guest_memfd = private ? private->file->backing : NULL,
                .guest_memfd_offset = private ? private->offset : 0,
        };
}

size_t slot_count_shared(const Slot *slot) {
        return slot->spec.shows_backing ? 1 : slot->spec.n_runs;
}

size_t slot_count_showings(const Slot *slot) {
        return slot_count_shared(slot) + (private_run(slot) != NULL);
}

SlotShowing slot_showing(const Slot *slot, size_t i) {
        if (i == slot_count_shared(slot))
                return of_run(private_run(slot), /* private_side= */ true);
        return slot->spec.shows_backing ? of_backing(slot) : of_run(&slot->runs[i], /* private_side= */ false);
}

void *slot_showing_item(const Slot *slot, size_t i) {
        if (i == slot_count_shared(slot))
                return (char *) private_run(slot) + TAG_PRIVATE_SIDE;
        return slot->spec.shows_backing ? (char *) slot + TAG_SHARED_SIDE : (char *) &slot->runs[i] + TAG_RUN;
}

static SlotShowing showing_of(void *item) {
        unsigned tag = (uintptr_t) item & TAG_MASK;
        void *object;

        if (!item)
                return (SlotShowing) {};
        object = (char *) item - tag;
        switch (tag) {
        case TAG_RUN:
                return of_run(object, /* private_side= */ false);
        case TAG_PRIVATE_SIDE:
                return of_run(object, /* private_side= */ true);
        default:
                return of_backing(object);
        }
}

SlotShowing file_first_showing(const File *file, uint64_t offset, uint64_t size, IntervalCursor *ret_cursor) {
        return showing_of(interval_first_overlap(&file->showings, offset, size, ret_cursor));
}

SlotShowing showing_first(const Backing *backing, uint64_t offset, uint64_t size, IntervalCursor *ret_cursor) {
        return file_first_showing(backing->file, offset, size, ret_cursor);
}

SlotShowing showing_next(IntervalCursor *cursor) {
        return showing_of(interval_next_overlap(cursor));
}

bool showing_equal(const SlotShowing *a, const SlotShowing *b) {
        return a->file == b->file && a->offset == b->offset && a->size == b->size && a->at == b->at &&
               a->private_side == b->private_side;
}

bool showing_counts(const SlotShowing *showing) {
        size_t n = slot_count_showings(showing->slot);

        for (size_t i = 0; i < n; i++) {
                SlotShowing s = slot_showing(showing->slot, i);

                if (s.file == showing->file)
                        return showing_equal(&s, showing);
        }
        return true;
}
