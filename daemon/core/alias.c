/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One page must not appear at two guest frames, unless one of the rules of the design says why it may.
 *
 * A slot shows its guest one or two sides: the shared side at hva, which is a range of an address space and, as far
 * as it was declared or seen, of one file or several; and the private side, a range of a guest_memfd. A side is
 * compared with every side of every live slot through the files, whichever VM has the slot, and through the address
 * space: two slots whose hva ranges overlap show the same memory there, whatever files are known. What both find is
 * one overlap, not two.
 *
 * A Run is a range of bytes that both slots show. Within it the distance between the two guest addresses, and that
 * between the two hvas, is constant, so one rule fits all of it. */

#include <assert.h>

#include "core/core-private.h"
#include "core/range.h"

/* QEMU's q35 shows SMRAM here while SMM is open. */
#define SMRAM_WINDOW_START UINT64_C(0xfeda0000)
#define SMRAM_WINDOW_SIZE  UINT64_C(0x20000)

typedef struct Question {
        VM *vm;
        const Slot *slot; /* the one asked for, in no index yet */
        const SlotRecord *spec;
        const Slot *self; /* what it replaces, or NULL */
        Verdict *verdict;
        size_t n_allowed;
} Question;

typedef struct Run {
        VM *vm;
        const SlotRecord *other;
        uint64_t at;       /* first byte of the run in the slot asked for, from its start */
        uint64_t other_at; /* and in the other one */
        uint64_t size;
        bool same_hva;
        /* The file that the bytes lie in, as it is known of either slot; NULL if it is not. */
        const File *file, *other_file;
        uint64_t offset; /* in other_file, or in file if there is no other_file */
} Run;

static bool is_private(const File *file) {
        return file && file_is_private(file);
}

/* The slot asked for may be the one that brings the file to guest address 0. */
static bool is_custody(const Question *q, const File *file) {
        SlotShowing first;

        if (!file)
                return false;
        if (file_is_custody(file) || q->spec->gpa != 0 || slot_count_showings(q->slot) == 0)
                return file_is_custody(file);

        first = slot_showing(q->slot, 0);
        return first.file == file && first.at == 0;
}

static bool may_show(const VM *part, const Backing *backing) {
        const VM *vm = vm_whole(part);

        return backing->vm == vm || backing_is_shared_with(backing, vm);
}

/* A file that is no backing has no owner who could share it. */
static bool both_may_show(const Question *q, const Run *run, const File *file) {
        return file->backing && may_show(q->vm, file->backing) && may_show(run->vm, file->backing);
}

/* Every file that is known for the bytes must be one that both VMs may show. */
static bool is_declared_share(const Question *q, const Run *run) {
        if (!run->file && !run->other_file)
                return false;
        return (!run->file || both_may_show(q, run, run->file)) &&
               (!run->other_file || both_may_show(q, run, run->other_file));
}

static bool in_smram_window(uint64_t gpa, uint64_t size) {
        return gpa >= SMRAM_WINDOW_START && range_within(gpa - SMRAM_WINDOW_START, size, SMRAM_WINDOW_SIZE);
}

static SlotRule rule_of(const Question *q, const Run *run) {
        const SlotRecord *spec = q->spec, *other = run->other;
        uint64_t gpa = spec->gpa + run->at, other_gpa = other->gpa + run->other_at;
        bool same_vm = run->vm == q->vm;

        if (same_vm && spec->as_id != other->as_id && gpa == other_gpa)
                return RULE_SAME_FRAME;
        if (is_private(run->file) || is_private(run->other_file))
                return RULE_PRIVATE_ALIAS;
        if (spec->flags & other->flags & SLOT_READONLY)
                return RULE_ROM_SHADOW;
        if (same_vm && run->same_hva) {
                if (!is_custody(q, run->file) && !is_custody(q, run->other_file))
                        return RULE_VMM_WINDOW;
                if (spec->as_id != other->as_id)
                        return RULE_ADDRESS_SPACE_TRANSIT;
                if (in_smram_window(gpa, run->size) || in_smram_window(other_gpa, run->size))
                        return RULE_SMRAM_WINDOW;
        }
        if (!same_vm && vm_whole(run->vm) == vm_whole(q->vm))
                return RULE_HAND_OVER;
        if (!same_vm && is_declared_share(q, run))
                return RULE_DECLARED_SHARE;
        return RULE_UNDECLARED_ALIAS;
}

/* True if no other conflict can be listed any more, for each that is listed is refused. */
static bool list_is_full(const Verdict *verdict) {
        return verdict->n_conflicts == VERDICT_CONFLICTS_MAX &&
               slot_rule_outcome(verdict->conflicts[VERDICT_CONFLICTS_MAX - 1].rule) == OUTCOME_REFUSED;
}

/* Positive if the slot needs no more judging. */
static int judge_run(Question *q, const Run *run) {
        const File *file = run->other_file ? run->other_file : run->file;
        Conflict conflict = {
                .rule = rule_of(q, run),
                .vm = run->vm,
                .id = run->other->id,
                .as_id = run->other->as_id,
                .gpa = run->other->gpa + run->other_at,
                .requested_gpa = q->spec->gpa + run->at,
                .size = run->size,
                .backing = file ? file->backing : NULL,
                .offset = run->offset,
        };
        bool too_many = false;
        int r;

        if (file && !file->backing) {
                conflict.dev = file->dev;
                conflict.ino = file->ino;
        }
        /* A caller must not be able to make judging its slots as slow as it likes. */
        if (slot_rule_outcome(conflict.rule) == OUTCOME_ALLOWED && ++q->n_allowed > SLOT_ALIASES_MAX) {
                too_many = true;
                conflict.rule = RULE_TOO_MANY_ALIASES;
        }

        verdict_note(q->verdict, slot_rule_outcome(conflict.rule), conflict.rule, 0);
        if (conflict.rule == RULE_SAME_FRAME)
                return 0;
        r = verdict_add_conflict(q->verdict, &conflict);
        if (r < 0)
                return r;
        return too_many || list_is_full(q->verdict);
}

/* Two showings of one file, whose ranges overlap. */
static Run common_run(const SlotShowing *a, const SlotShowing *b) {
        Run run = {
                .vm = b->slot->vm,
                .other = &b->slot->spec,
                .file = a->file,
                .other_file = b->file,
        };
        uint64_t start = range_common(a->offset, a->size, b->offset, b->size, &run.size);

        run.offset = start;
        run.at = a->at + (start - a->offset);
        run.other_at = b->at + (start - b->offset);
        return run;
}

/* A slot may map the very bytes of its guest_memfd that are its private side, each at its own place. Anything else
 * that it shows twice is an alias of its own. */
static int judge_itself(Question *q) {
        size_t n = slot_count_showings(q->slot);
        int r;

        for (size_t i = 0; i < n; i++)
                for (size_t j = i + 1; j < n; j++) {
                        SlotShowing a = slot_showing(q->slot, i), b = slot_showing(q->slot, j);
                        Run run;

                        if (a.file != b.file || !range_overlaps(a.offset, a.size, b.offset, b.size))
                                continue;
                        run = common_run(&a, &b);
                        if (run.at == run.other_at)
                                continue;
                        r = judge_run(q, &run);
                        if (r != 0)
                                return r;
                }

        return 0;
}

/* Compares what the slot asked for shows of a file with all else that is shown of it. */
static int judge_showing(Question *q, const SlotShowing *showing) {
        IntervalCursor cursor;
        SlotShowing other;
        int r;

        for (other = file_first_showing(showing->file, showing->offset, showing->size, &cursor); other.slot;
             other = showing_next(&cursor)) {
                Run run;

                if (other.slot == q->self)
                        continue;

                run = common_run(showing, &other);
                run.same_hva = !showing->private_side && !other.private_side && run.vm->mm == q->vm->mm &&
                               q->spec->hva + run.at == run.other->hva + run.other_at;
                r = judge_run(q, &run);
                if (r != 0)
                        return r;
        }

        return 0;
}

/* What is known of a byte of a slot's shared side. */
typedef struct Spot {
        const File *file; /* NULL: nothing but its address */
        uint64_t offset;  /* of the byte in the file */
        uint64_t size;    /* for how many bytes, from this one on, the same holds */
} Spot;

static Spot spot_at(const Slot *slot, uint64_t at) {
        size_t low = 0, high = slot_count_shared(slot);
        SlotShowing s;

        /* The first showing that does not end before the byte. */
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                s = slot_showing(slot, middle);
                if (at >= s.at && at - s.at >= s.size)
                        low = middle + 1;
                else
                        high = middle;
        }

        if (low == slot_count_shared(slot))
                return (Spot) { .size = slot->spec.size - at };
        s = slot_showing(slot, low);
        if (at < s.at)
                return (Spot) { .size = s.at - at };
        return (Spot) { .file = s.file, .offset = s.offset + (at - s.at), .size = s.size - (at - s.at) };
}

static uint64_t least(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

/* A range of addresses that both slots have, cut where what is known of it changes. */
static int judge_addresses(Question *q, const Slot *other, uint64_t start, uint64_t size) {
        int r;

        for (uint64_t done = 0, step; done < size; done += step) {
                uint64_t at = start - q->spec->hva + done, other_at = start - other->spec.hva + done;
                Spot spot = spot_at(q->slot, at), other_spot = spot_at(other, other_at);
                Run run = {
                        .vm = other->vm,
                        .other = &other->spec,
                        .at = at,
                        .other_at = other_at,
                        .same_hva = true,
                        .file = spot.file,
                        .other_file = other_spot.file,
                        .offset = other_spot.file ? other_spot.offset : spot.offset,
                };

                step = least(size - done, least(spot.size, other_spot.size));
                if (spot.file && spot.file == other_spot.file && spot.offset == other_spot.offset)
                        continue; /* judged as bytes of the file */
                run.size = step;
                r = judge_run(q, &run);
                if (r != 0)
                        return r;
        }

        return 0;
}

static int judge_address_space(Question *q) {
        const SlotRecord *spec = q->spec;
        IntervalCursor cursor;
        Slot *slot;
        int r;

        for (slot = slot_first_at_hva(q->vm->mm, spec->hva, spec->size, &cursor); slot;
             slot = slot_next_at_hva(&cursor)) {
                uint64_t start, size;

                if (slot == q->self)
                        continue;
                start = range_common(spec->hva, spec->size, slot->spec.hva, slot->spec.size, &size);
                r = judge_addresses(q, slot, start, size);
                if (r != 0)
                        return r;
        }

        return 0;
}

static int judge_all(Question *q) {
        size_t n = slot_count_showings(q->slot);
        int r;

        r = judge_itself(q);
        for (size_t i = 0; r == 0 && i < n; i++) {
                SlotShowing showing = slot_showing(q->slot, i);

                r = judge_showing(q, &showing);
        }
        if (r == 0)
                r = judge_address_space(q);
        return r;
}

int alias_judge(const Slot *slot, const Slot *self, Verdict *verdict) {
        Question q = { .vm = slot->vm, .slot = slot, .spec = &slot->spec, .self = self, .verdict = verdict };
        int r;

        r = judge_all(&q);
        return r < 0 ? r : 0;
}
