/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A change is made in three steps: judge, link or unlink, then keep or undo. What a change needs it allocates before
 * it touches an index, and what it unlinks it keeps until it is certain, so that undoing cannot fail. */

#include "core/slot.h"

#include <assert.h>
#include <stdlib.h>

#include "core/core-private.h"
#include "core/range.h"

#define slot_of(node, member) ((Slot *) ((char *) (node) - offsetof(Slot, member)))

/* ---- indexes ---- */

static uint64_t slot_key(uint32_t as_id, uint32_t id) {
        return (uint64_t) as_id << 32 | id;
}

static void link_showing(Slot *slot, SlotShowing *showing, Backing *backing, uint64_t offset) {
        if (!backing)
                return;

        showing->slot = slot;
        interval_insert(&backing->showings, &showing->node, offset, slot->spec.size);
}

static void unlink_showing(SlotShowing *showing, Backing *backing) {
        if (!showing->slot)
                return;

        interval_remove(&backing->showings, &showing->node);
        showing->slot = NULL;
}

/* Both sides may show one backing; then it is one slot all the same. */
static void count_slot(const SlotSpec *spec, size_t change) {
        if (spec->backing)
                spec->backing->n_slots += change;
        if (spec->guest_memfd && spec->guest_memfd != spec->backing)
                spec->guest_memfd->n_slots += change;
}

static void slot_link(Slot *slot) {
        const SlotSpec *spec = &slot->spec;
        VM *vm = slot->vm;

        slot->private_side.private_side = true;
        interval_insert(&vm->slots->by_id, &slot->by_id, slot_key(spec->as_id, spec->id), 1);
        interval_insert(&vm->slots->by_gpa[spec->as_id], &slot->by_gpa, spec->gpa, spec->size);
        interval_insert(&vm->mm->slots, &slot->by_hva, spec->hva, spec->size);
        link_showing(slot, &slot->shared_side, spec->backing, spec->offset);
        link_showing(slot, &slot->private_side, spec->guest_memfd, spec->guest_memfd_offset);
        count_slot(spec, 1);
        vm->slots->n_slots++;
        vm->registry->n_slots++;
}

static void slot_unlink(Slot *slot) {
        VM *vm = slot->vm;

        interval_remove(&vm->slots->by_id, &slot->by_id);
        interval_remove(&vm->slots->by_gpa[slot->spec.as_id], &slot->by_gpa);
        interval_remove(&vm->mm->slots, &slot->by_hva);
        unlink_showing(&slot->shared_side, slot->spec.backing);
        unlink_showing(&slot->private_side, slot->spec.guest_memfd);
        count_slot(&slot->spec, (size_t) -1);
        vm->slots->n_slots--;
        vm->registry->n_slots--;
}

Slot *slot_free(Slot *slot) {
        if (!slot)
                return NULL;

        slot_unlink(slot);
        free(slot);
        return NULL;
}

Slot *slot_find(VM *vm, uint32_t as_id, uint32_t id) {
        IntervalNode *node = interval_first_overlap(&vm->slots->by_id, slot_key(as_id, id), 1);

        return node ? slot_of(node, by_id) : NULL;
}

Slot *slot_first(VM *vm) {
        IntervalNode *node = interval_first(&vm->slots->by_id);

        return node ? slot_of(node, by_id) : NULL;
}

Slot *slot_next(VM *vm, uint32_t as_id, uint32_t id) {
        uint64_t key = slot_key(as_id, id);
        IntervalNode *node;

        if (key == UINT64_MAX)
                return NULL;

        node = interval_lower_bound(&vm->slots->by_id, key + 1);
        return node ? slot_of(node, by_id) : NULL;
}

size_t slot_count(const VM *vm) {
        return vm->slots->n_slots;
}

Slot *slot_first_at_gpa(VM *vm, uint32_t as_id, uint64_t gpa, uint64_t size) {
        IntervalNode *node = interval_first_overlap(&vm->slots->by_gpa[as_id], gpa, size);

        return node ? slot_of(node, by_gpa) : NULL;
}

Slot *slot_next_at_gpa(const Slot *slot, uint64_t gpa, uint64_t size) {
        IntervalNode *node = interval_next_overlap(&slot->by_gpa, gpa, size);

        return node ? slot_of(node, by_gpa) : NULL;
}

Slot *slot_first_at_hva(const Mm *mm, uint64_t hva, uint64_t size) {
        IntervalNode *node = interval_first_overlap(&mm->slots, hva, size);

        return node ? slot_of(node, by_hva) : NULL;
}

Slot *slot_next_at_hva(const Slot *slot, uint64_t hva, uint64_t size) {
        IntervalNode *node = interval_next_overlap(&slot->by_hva, hva, size);

        return node ? slot_of(node, by_hva) : NULL;
}

static SlotShowing *showing_of(IntervalNode *node) {
        return node ? (SlotShowing *) ((char *) node - offsetof(SlotShowing, node)) : NULL;
}

SlotShowing *showing_first(const Backing *backing, uint64_t offset, uint64_t size) {
        return showing_of(interval_first_overlap(&backing->showings, offset, size));
}

SlotShowing *showing_next(const SlotShowing *showing, uint64_t offset, uint64_t size) {
        return showing_of(interval_next_overlap(&showing->node, offset, size));
}

/* ---- judging ---- */

/* KVM takes any offset of the shared side, for it knows no file there; what is declared must exist all the same. */
static bool shared_side_accepts(const VM *vm, const SlotSpec *spec, Verdict *verdict) {
        const Share *share;

        if (!spec->backing)
                return true;
        if (!is_aligned(spec->offset, vm->registry->page_size) ||
            !range_within(spec->offset, spec->size, spec->backing->size)) {
                verdict_note(verdict, OUTCOME_REFUSED, RULE_BEYOND_BACKING, /* kernel_errno= */ 0);
                return false;
        }

        share = backing_find_share(spec->backing, vm);
        if (!share || !share->read_only || (spec->flags & SLOT_READONLY))
                return true;

        verdict_note(verdict, OUTCOME_REFUSED, RULE_SHARE_READ_ONLY, /* kernel_errno= */ 0);
        return false;
}

/* *ret_denied says whether the slot must not be set. */
static int judge(VM *vm, const SlotSpec *spec, const Slot *self, Verdict *verdict, bool *ret_denied) {
        int r;

        r = kvm_rules_judge(vm, spec, verdict);
        if (r < 0)
                return r;

        *ret_denied = true;
        if (verdict->outcome == OUTCOME_REFUSED)
                return 0;
        if (spec->size > 0) {
                if (!shared_side_accepts(vm, spec, verdict))
                        return 0;
                r = alias_judge(vm, spec, self, verdict);
                if (r < 0)
                        return r;
        }

        *ret_denied = verdict_denies(verdict, vm->alias_policy);
        return 0;
}

/* ---- changing ---- */

typedef enum ChangeKind {
        CHANGE_NONE,
        CHANGE_CREATED,
        CHANGE_MODIFIED, /* old is what the slot was */
        CHANGE_DELETED,  /* the slot is in no index, but not freed yet */
} ChangeKind;

typedef struct Change {
        ChangeKind kind;
        Slot *slot;
        SlotSpec old;
} Change;

static void change_undo(Change *change) {
        switch (change->kind) {
        case CHANGE_NONE:
                break;
        case CHANGE_CREATED:
                slot_free(change->slot);
                break;
        case CHANGE_MODIFIED:
                slot_unlink(change->slot);
                change->slot->spec = change->old;
                slot_link(change->slot);
                break;
        case CHANGE_DELETED:
                slot_link(change->slot);
                break;
        }
        change->kind = CHANGE_NONE;
}

static void change_keep(Change *change) {
        if (change->kind == CHANGE_DELETED)
                free(change->slot);
}

/* What KVM ignores is not remembered either. */
static SlotSpec spec_normalize(const SlotSpec *spec) {
        SlotSpec s = *spec;

        if (!(s.flags & SLOT_GUEST_MEMFD)) {
                s.guest_memfd = NULL;
                s.guest_memfd_offset = 0;
        }
        if (!s.backing)
                s.offset = 0;

        return s;
}

/* Of one slot of a VM; a slot with a guest_memfd is never set again, so these fields need no comparison. */
static bool spec_equal(const SlotSpec *a, const SlotSpec *b) {
        return a->flags == b->flags && a->gpa == b->gpa && a->size == b->size && a->hva == b->hva &&
               a->backing == b->backing && a->offset == b->offset;
}

static int apply(VM *vm, const SlotSpec *spec, Slot *self, Change *ret) {
        Change change = { .slot = self };

        if (spec->size == 0) {
                change.kind = CHANGE_DELETED;
                slot_unlink(self);
        } else if (!self) {
                change.kind = CHANGE_CREATED;
                change.slot = calloc(1, sizeof(Slot));
                if (!change.slot)
                        return -ENOMEM;
                change.slot->vm = vm;
                change.slot->spec = *spec;
                slot_link(change.slot);
        } else if (!spec_equal(spec, &self->spec)) {
                change.kind = CHANGE_MODIFIED;
                change.old = self->spec;
                slot_unlink(self);
                self->spec = *spec;
                slot_link(self);
        }

        *ret = change;
        return 0;
}

/* Judges one spec and, unless it is denied, makes the change, which the caller keeps or undoes. */
static int try(VM *vm, const SlotSpec *spec, Verdict *verdict, Change *ret_change, bool *ret_denied) {
        SlotSpec normal = spec_normalize(spec);
        Slot *self = slot_find(vm, spec->as_id, spec->id);
        int r;

        r = judge(vm, &normal, self, verdict, ret_denied);
        if (r < 0)
                return r;
        if (*ret_denied) {
                *ret_change = (Change) {};
                return 0;
        }

        return apply(vm, &normal, self, ret_change);
}

int slot_set(VM *vm, const SlotSpec *spec, Verdict *verdict, bool *ret_changed) {
        Change change;
        bool denied;
        int r;

        r = try(vm, spec, verdict, &change, &denied);
        if (r < 0)
                return r;

        *ret_changed = change.kind != CHANGE_NONE;
        change_keep(&change);
        return 0;
}

int slot_set_many(VM *vm, const SlotSpec *specs, size_t n, bool apply_all, Verdict *verdicts, bool *changed,
                  bool *ret_accepted) {
        bool accepted = true, denied, keep;
        Change *changes;
        size_t i, done;
        int r = 0;

        changes = calloc(n > 0 ? n : 1, sizeof(Change));
        if (!changes)
                return -ENOMEM;

        for (done = 0; done < n; done++) {
                r = try(vm, &specs[done], &verdicts[done], &changes[done], &denied);
                if (r < 0)
                        break;
                accepted = accepted && !denied;
        }

        keep = r == 0 && apply_all && accepted;
        for (i = 0; changed && r == 0 && i < n; i++)
                changed[i] = keep && changes[i].kind != CHANGE_NONE;
        if (keep)
                for (i = 0; i < done; i++)
                        change_keep(&changes[i]);
        else
                while (done > 0)
                        change_undo(&changes[--done]);

        free(changes);
        if (r == 0)
                *ret_accepted = accepted;
        return r;
}
