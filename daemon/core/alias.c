/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One page must not appear at two guest frames, unless one of the rules of the design says why it may.
 *
 * A slot shows its guest one or two sides: the shared side at hva, which is a range of an address space and, if the
 * VMM declared it, of a file; and the private side, a range of a guest_memfd. A side is compared with every side of
 * every live slot through the file, whichever VM has the slot, and through the address space: two slots whose hva
 * ranges overlap show the same memory there, whatever files were declared. What both find is one overlap, not two.
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
        const SlotSpec *spec; /* the slot asked for */
        const Slot *self;     /* what it replaces, or NULL */
        Verdict *verdict;
        size_t n_allowed;
} Question;

typedef struct Run {
        VM *vm;
        const SlotSpec *other;
        uint64_t at;       /* first byte of the run in the slot asked for, from its start */
        uint64_t other_at; /* and in the other one */
        uint64_t size;
        bool same_hva;
        /* The file that the bytes lie in, as either slot declares it; NULL if it declares none. */
        Backing *file, *other_file;
        uint64_t offset; /* in other_file, or in file if there is no other_file */
} Run;

static bool is_private(const Backing *file) {
        return file && file->kind == BACKING_GUEST_MEMFD;
}

static bool may_show(const VM *vm, const Backing *file) {
        return file->vm == vm || backing_is_shared_with(file, vm);
}

/* Every file that is declared for the bytes must be one that both VMs may show. */
static bool is_declared_share(const Question *q, const Run *run) {
        if (!run->file && !run->other_file)
                return false;
        if (run->file && !(may_show(q->vm, run->file) && may_show(run->vm, run->file)))
                return false;
        return !run->other_file || (may_show(q->vm, run->other_file) && may_show(run->vm, run->other_file));
}

static bool in_smram_window(uint64_t gpa, uint64_t size) {
        return gpa >= SMRAM_WINDOW_START && range_within(gpa - SMRAM_WINDOW_START, size, SMRAM_WINDOW_SIZE);
}

static SlotRule rule_of(const Question *q, const Run *run) {
        const SlotSpec *spec = q->spec, *other = run->other;
        uint64_t gpa = spec->gpa + run->at, other_gpa = other->gpa + run->other_at;
        bool same_vm = run->vm == q->vm;

        if (same_vm && spec->as_id != other->as_id && gpa == other_gpa)
                return RULE_SAME_FRAME;
        if (is_private(run->file) || is_private(run->other_file))
                return RULE_PRIVATE_ALIAS;
        if (spec->flags & other->flags & SLOT_READONLY)
                return RULE_ROM_SHADOW;
        if (same_vm && run->same_hva) {
                if (!run->file && !run->other_file)
                        return RULE_VMM_WINDOW;
                if (spec->as_id != other->as_id)
                        return RULE_ADDRESS_SPACE_TRANSIT;
                if (in_smram_window(gpa, run->size) || in_smram_window(other_gpa, run->size))
                        return RULE_SMRAM_WINDOW;
        }
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
        Conflict conflict = {
                .rule = rule_of(q, run),
                .vm = run->vm,
                .id = run->other->id,
                .as_id = run->other->as_id,
                .gpa = run->other->gpa + run->other_at,
                .requested_gpa = q->spec->gpa + run->at,
                .size = run->size,
                .backing = run->other_file ? run->other_file : run->file,
                .offset = run->offset,
        };
        bool too_many = false;
        int r;

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

/* A slot may map the very bytes of its guest_memfd that are its private side, each at its own place. */
static int judge_own_pair(Question *q) {
        const SlotSpec *spec = q->spec;
        uint64_t start;
        Run run = {
                .vm = q->vm,
                .other = spec,
                .file = spec->guest_memfd,
                .other_file = spec->guest_memfd,
        };

        if (!spec->guest_memfd || spec->backing != spec->guest_memfd || spec->offset == spec->guest_memfd_offset ||
            !range_overlaps(spec->offset, spec->size, spec->guest_memfd_offset, spec->size))
                return 0;

        start = range_common(spec->offset, spec->size, spec->guest_memfd_offset, spec->size, &run.size);
        run.offset = start;
        run.at = start - spec->offset;
        run.other_at = start - spec->guest_memfd_offset;
        return judge_run(q, &run);
}

/* Compares one side of the slot asked for with all that is shown of its file. */
static int judge_file(Question *q, Backing *file, uint64_t offset, bool private_side) {
        const SlotSpec *spec = q->spec;
        SlotShowing *showing;
        int r;

        for (showing = showing_first(file, offset, spec->size); showing;
             showing = showing_next(showing, offset, spec->size)) {
                const SlotSpec *other = &showing->slot->spec;
                uint64_t other_offset = showing->private_side ? other->guest_memfd_offset : other->offset;
                Run run = {
                        .vm = showing->slot->vm,
                        .other = other,
                        .file = file,
                        .other_file = file,
                };

                if (showing->slot == q->self)
                        continue;

                run.offset = range_common(offset, spec->size, other_offset, other->size, &run.size);
                run.at = run.offset - offset;
                run.other_at = run.offset - other_offset;
                run.same_hva = !private_side && !showing->private_side && run.vm->mm == q->vm->mm &&
                               spec->hva + run.at == other->hva + run.other_at;
                r = judge_run(q, &run);
                if (r != 0)
                        return r;
        }

        return 0;
}

/* True if the two slots declare the same byte of the same file at each hva that they have in common. */
static bool files_agree(const SlotSpec *a, const SlotSpec *b) {
        return a->backing && a->backing == b->backing && a->offset - a->hva == b->offset - b->hva;
}

static int judge_address_space(Question *q) {
        const SlotSpec *spec = q->spec;
        Slot *slot;
        int r;

        for (slot = slot_first_at_hva(q->vm->mm, spec->hva, spec->size); slot;
             slot = slot_next_at_hva(slot, spec->hva, spec->size)) {
                const SlotSpec *other = &slot->spec;
                uint64_t start;
                Run run = {
                        .vm = slot->vm,
                        .other = other,
                        .same_hva = true,
                        .file = spec->backing,
                        .other_file = other->backing,
                };

                if (slot == q->self || files_agree(spec, other))
                        continue;

                start = range_common(spec->hva, spec->size, other->hva, other->size, &run.size);
                run.at = start - spec->hva;
                run.other_at = start - other->hva;
                if (other->backing)
                        run.offset = other->offset + run.other_at;
                else if (spec->backing)
                        run.offset = spec->offset + run.at;
                r = judge_run(q, &run);
                if (r != 0)
                        return r;
        }

        return 0;
}

static int judge_all(Question *q) {
        const SlotSpec *spec = q->spec;
        int r;

        r = judge_own_pair(q);
        if (r == 0 && spec->backing)
                r = judge_file(q, spec->backing, spec->offset, /* private_side= */ false);
        if (r == 0 && spec->guest_memfd)
                r = judge_file(q, spec->guest_memfd, spec->guest_memfd_offset, /* private_side= */ true);
        if (r == 0)
                r = judge_address_space(q);
        return r;
}

int alias_judge(VM *vm, const SlotSpec *spec, const Slot *self, Verdict *verdict) {
        Question q = { .vm = vm, .spec = spec, .self = self, .verdict = verdict };
        int r;

        r = judge_all(&q);
        return r < 0 ? r : 0;
}
