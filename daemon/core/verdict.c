/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The conflicts of a verdict are kept in order: those of refused rules first, then by rule, then by the object they
 * name. The first one's rule is the verdict's own. Because the order is total, which ones are listed does not depend
 * on the order in which they were found, even when there are too many. */

#include <stdlib.h>
#include <string.h>

#include "core/core-private.h"

void verdict_init(Verdict *verdict) {
        *verdict = (Verdict) {};
}

void verdict_done(Verdict *verdict) {
        free(verdict->conflicts);
        verdict_init(verdict);
}

bool verdict_denies(const Verdict *verdict, AliasPolicy policy) {
        return verdict->outcome == OUTCOME_REFUSED &&
               (policy == ALIAS_POLICY_ENFORCE || verdict->rule < RULE_MAPPING_MISMATCH);
}

int verdict_count(VM *vm, const Verdict *verdict, bool was_set) {
        VerdictCounts *counts = vm->verdict_counts;

        if (verdict->outcome == OUTCOME_OK)
                return 0;
        if (!counts) {
                counts = calloc(1, sizeof(VerdictCounts));
                if (!counts)
                        return -ENOMEM;
                vm->verdict_counts = counts;
        }

        if (verdict->outcome == OUTCOME_ALLOWED)
                counts->allowed[verdict->rule]++;
        else if (was_set)
                counts->observed[verdict->rule]++;
        else
                counts->refused[verdict->rule]++;
        return 0;
}

Outcome slot_rule_outcome(SlotRule rule) {
        switch (rule) {
        case RULE_NONE:
        case RULE_SAME_FRAME:
                return OUTCOME_OK;
        case RULE_ROM_SHADOW:
        case RULE_VMM_WINDOW:
        case RULE_ADDRESS_SPACE_TRANSIT:
        case RULE_SMRAM_WINDOW:
        case RULE_DECLARED_SHARE:
        case RULE_HAND_OVER:
                return OUTCOME_ALLOWED;
        default:
                return OUTCOME_REFUSED;
        }
}

void verdict_note(Verdict *verdict, Outcome outcome, SlotRule rule, int kernel_errno) {
        if (verdict->rule != RULE_NONE &&
            (outcome < verdict->outcome || (outcome == verdict->outcome && rule >= verdict->rule)))
                return;

        verdict->outcome = outcome;
        verdict->rule = rule;
        verdict->kernel_errno = kernel_errno;
}

static int compare_u64(uint64_t a, uint64_t b) {
        return a < b ? -1 : a > b;
}

static int compare_backing(const Backing *a, const Backing *b) {
        int r;

        if (a == b)
                return 0;
        if (!a || !b)
                return a ? 1 : -1;
        r = strcmp(a->vm->name, b->vm->name);
        return r != 0 ? r : strcmp(a->name, b->name);
}

static int compare_conflict(const Conflict *a, const Conflict *b) {
        int r;

        r = compare_u64(slot_rule_outcome(b->rule), slot_rule_outcome(a->rule));
        if (r == 0)
                r = compare_u64(a->rule, b->rule);
        if (r == 0)
                r = strcmp(a->vm->name, b->vm->name);
        if (r == 0)
                r = compare_u64(a->vm->heir != NULL, b->vm->heir != NULL);
        if (r == 0)
                r = compare_u64(a->as_id, b->as_id);
        if (r == 0)
                r = compare_u64(a->id, b->id);
        if (r == 0)
                r = compare_u64(a->requested_gpa, b->requested_gpa);
        if (r == 0)
                r = compare_u64(a->gpa, b->gpa);
        if (r == 0)
                r = compare_u64(a->size, b->size);
        if (r == 0)
                r = compare_backing(a->backing, b->backing);
        if (r == 0)
                r = compare_u64(a->dev, b->dev);
        if (r == 0)
                r = compare_u64(a->ino, b->ino);
        return r != 0 ? r : compare_u64(a->offset, b->offset);
}

/* The array holds a power of two, so it is full when their number is one. */
static int make_room(Verdict *verdict) {
        size_t n = verdict->n_conflicts;
        Conflict *conflicts;

        if ((n & (n - 1)) != 0)
                return 0;

        conflicts = reallocarray(verdict->conflicts, n > 0 ? 2 * n : 1, sizeof(Conflict));
        if (!conflicts)
                return -ENOMEM;

        verdict->conflicts = conflicts;
        return 0;
}

int verdict_add_conflict(Verdict *verdict, const Conflict *conflict) {
        size_t at, n;
        int c, r;

        for (at = verdict->n_conflicts; at > 0; at--) {
                c = compare_conflict(conflict, &verdict->conflicts[at - 1]);
                if (c == 0)
                        return 0;
                if (c > 0)
                        break;
        }
        if (at == VERDICT_CONFLICTS_MAX)
                return 0;

        if (verdict->n_conflicts < VERDICT_CONFLICTS_MAX) {
                r = make_room(verdict);
                if (r < 0)
                        return r;
                verdict->n_conflicts++;
        }

        n = verdict->n_conflicts - at - 1;
        memmove(verdict->conflicts + at + 1, verdict->conflicts + at, n * sizeof(Conflict));
        verdict->conflicts[at] = *conflict;
        return 0;
}
