/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A change is made in three steps: judge, link or unlink, then keep or undo. A slot as it would be is made before any
 * index is touched, judged, and put in the place of the one that it replaces, which is kept until the change is
 * certain, so that undoing cannot fail. */

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

/* The range stays, for whoever links it again. */
static void unlink_showing(SlotShowing *showing) {
        uint64_t start = showing->node.start, last = showing->node.last;

        interval_remove(&showing->file->showings, &showing->node);
        showing->node.start = start;
        showing->node.last = last;
}

/* A slot may show a file more than once; it is one slot all the same. */
static void count_showing(const SlotShowing *showing, size_t change) {
        const SlotSpec *spec = &showing->slot->spec;
        File *file = showing->file;

        if (file->backing && showing_counts(showing))
                file->backing->n_slots += change;
        if (!showing->private_side && showing->at == 0 && spec->gpa == 0)
                file->n_at_zero += change;
}

static void slot_link(Slot *slot) {
        const SlotSpec *spec = &slot->spec;
        VM *vm = slot->vm;

        interval_insert(&vm->slots->by_id, &slot->by_id, slot_key(spec->as_id, spec->id), 1);
        interval_insert(&vm->slots->by_gpa[spec->as_id], &slot->by_gpa, spec->gpa, spec->size);
        interval_insert(&vm->mm->slots, &slot->by_hva, spec->hva, spec->size);
        for (size_t i = 0; i < slot->n_showings; i++) {
                SlotShowing *s = &slot->showings[i];

                interval_insert(&s->file->showings, &s->node, showing_offset(s), showing_size(s));
                count_showing(s, 1);
        }
        vm->slots->n_slots++;
        vm->registry->n_slots++;
}

static void slot_unlink(Slot *slot) {
        VM *vm = slot->vm;

        interval_remove(&vm->slots->by_id, &slot->by_id);
        interval_remove(&vm->slots->by_gpa[slot->spec.as_id], &slot->by_gpa);
        interval_remove(&vm->mm->slots, &slot->by_hva);
        for (size_t i = 0; i < slot->n_showings; i++) {
                SlotShowing *s = &slot->showings[i];

                count_showing(s, (size_t) -1);
                unlink_showing(s);
        }
        vm->slots->n_slots--;
        vm->registry->n_slots--;
}

/* Frees a slot that is in no index. */
static void slot_discard(Slot *slot) {
        if (!slot)
                return;

        for (size_t i = 0; i < slot->n_showings; i++)
                file_unref(slot->vm->registry, slot->showings[i].file);
        free(slot);
}

Slot *slot_free(Slot *slot) {
        if (!slot)
                return NULL;

        slot_unlink(slot);
        slot_discard(slot);
        return NULL;
}

/* Takes the reference to the file. */
static void add_showing(Slot *slot, File *file, uint64_t offset, uint64_t at, uint64_t size, bool private_side) {
        slot->showings[slot->n_showings++] = (SlotShowing) {
                .node = { .start = offset, .last = offset + size - 1 },
                .slot = slot,
                .file = file,
                .at = at,
                .private_side = private_side,
        };
}

static int add_run(Slot *slot, const MappedRun *run) {
        const SlotSpec *spec = &slot->spec;
        File *file;
        int r;

        assert(run->hva >= spec->hva && range_within(run->hva - spec->hva, run->size, spec->size));
        if (!mapped_run_is_file(run))
                return 0;

        r = file_ref_by_identity(slot->vm->registry, run->dev, run->ino, &file);
        if (r < 0)
                return r;
        file->is_guest_memfd |= run->kind == MAPPED_GUEST_MEMFD;
        add_showing(slot, file, run->offset, run->hva - spec->hva, run->size, /* private_side= */ false);
        return 0;
}

/* The slot as the spec asks for it, in no index yet. */
static int slot_new(VM *vm, const SlotSpec *spec, Slot **ret) {
        const Mapping *mapping = spec->mapping;
        size_t n_runs = mapping ? mapping->n_runs : 0;
        Slot *slot;

        assert(!mapping || !spec->backing);

        slot = calloc(1, sizeof(Slot) + (n_runs + !!spec->backing + !!spec->guest_memfd) * sizeof(SlotShowing));
        if (!slot)
                return -ENOMEM;
        slot->vm = vm;
        slot->spec = *spec;
        slot->spec.mapping = NULL;

        if (spec->backing)
                add_showing(slot, file_ref(spec->backing->file), spec->offset, /* at= */ 0, spec->size,
                            /* private_side= */ false);
        for (size_t i = 0; i < n_runs; i++)
                if (add_run(slot, &mapping->runs[i]) < 0) {
                        slot_discard(slot);
                        return -ENOMEM;
                }
        if (spec->guest_memfd)
                add_showing(slot, file_ref(spec->guest_memfd->file), spec->guest_memfd_offset, /* at= */ 0, spec->size,
                            /* private_side= */ true);

        *ret = slot;
        return 0;
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

/* ---- judging ---- */

static bool is_shared_read_only(const VM *vm, const Backing *backing) {
        const Share *share = backing ? backing_find_share(backing, vm) : NULL;

        return share && share->read_only;
}

static bool shows_what_is_read_only(VM *vm, const SlotSpec *spec) {
        for (size_t i = 0; spec->mapping && i < spec->mapping->n_runs; i++) {
                const MappedRun *run = &spec->mapping->runs[i];

                if (mapped_run_is_file(run) &&
                    is_shared_read_only(vm, registry_find_file(vm->registry, run->dev, run->ino)))
                        return true;
        }

        return is_shared_read_only(vm, spec->backing);
}

/* KVM takes any offset of the shared side, for it knows no file there; what is declared must exist all the same. */
static void judge_shared_side(VM *vm, const SlotSpec *spec, Verdict *verdict) {
        if (spec->backing && (!is_aligned(spec->offset, vm->registry->page_size) ||
                              !range_within(spec->offset, spec->size, spec->backing->size)))
                verdict_note(verdict, OUTCOME_REFUSED, RULE_BEYOND_BACKING, /* kernel_errno= */ 0);
        else if (!(spec->flags & SLOT_READONLY) && shows_what_is_read_only(vm, spec))
                verdict_note(verdict, OUTCOME_REFUSED, RULE_SHARE_READ_ONLY, /* kernel_errno= */ 0);
}

/* KVM's rules, and what must hold of the declaration before anything else. Of a VM that is only observed, spec says
 * afterwards what is mapped, whatever was declared. */
static int judge_spec(VM *vm, SlotSpec *spec, Verdict *verdict) {
        int r;

        r = kvm_rules_judge(vm, spec, verdict);
        if (r < 0 || verdict->outcome == OUTCOME_REFUSED || spec->size == 0)
                return r;
        if (spec->backing && spec->mapping) {
                r = mapping_judge(vm, spec, verdict);
                if (r < 0 || verdict_denies(verdict, vm->alias_policy))
                        return r;
                spec->backing = NULL;
                spec->offset = 0;
                slot_spec_resolve(vm->registry, spec);
        }

        judge_shared_side(vm, spec, verdict);
        return 0;
}

/* ---- changing ---- */

/* A slot that took the place of another one. Both are NULL if nothing changed. */
typedef struct Change {
        Slot *old; /* in no index, but not freed yet; NULL if there was none */
        Slot *new; /* NULL if the slot was deleted */
} Change;

static bool is_change(const Change *change) {
        return change->old || change->new;
}

static void change_undo(Change *change) {
        slot_free(change->new);
        if (change->old)
                slot_link(change->old);
        *change = (Change) {};
}

/* A dry run must leave no trace, so what is remembered for good is remembered here. */
static void change_keep(Change *change) {
        slot_discard(change->old);
        for (size_t i = 0; change->new && i < change->new->n_showings; i++) {
                File *file = change->new->showings[i].file;

                file->was_at_zero |= file->n_at_zero > 0;
        }
}

/* What KVM ignores is not remembered either. */
static SlotSpec spec_normalize(const VM *vm, const SlotSpec *spec) {
        SlotSpec s = *spec;

        if (!(s.flags & SLOT_GUEST_MEMFD)) {
                s.guest_memfd = NULL;
                s.guest_memfd_offset = 0;
        }
        if (!s.backing)
                s.offset = 0;
        slot_spec_resolve(vm->registry, &s);

        return s;
}

static bool showing_equal(const SlotShowing *a, const SlotShowing *b) {
        return a->file == b->file && a->node.start == b->node.start && a->node.last == b->node.last &&
               a->at == b->at && a->private_side == b->private_side;
}

/* Of one slot of a VM. */
static bool slot_equal(const Slot *a, const Slot *b) {
        if (a->spec.flags != b->spec.flags || a->spec.gpa != b->spec.gpa || a->spec.size != b->spec.size ||
            a->spec.hva != b->spec.hva || a->n_showings != b->n_showings)
                return false;
        for (size_t i = 0; i < a->n_showings; i++)
                if (!showing_equal(&a->showings[i], &b->showings[i]))
                        return false;
        return true;
}

/* Takes the new slot. */
static Change replace(Slot *self, Slot *new) {
        if (self && new && slot_equal(self, new)) {
                slot_discard(new);
                return (Change) {};
        }

        if (self)
                slot_unlink(self);
        if (new)
                slot_link(new);
        return (Change) { .old = self, .new = new };
}

/* Judges one spec and, unless it is denied, makes the change, which the caller keeps or undoes. */
static int try(VM *vm, const SlotSpec *spec, Verdict *verdict, Change *ret_change, bool *ret_denied) {
        SlotSpec normal = spec_normalize(vm, spec);
        Slot *self = slot_find(vm, spec->as_id, spec->id), *new = NULL;
        int r;

        r = judge_spec(vm, &normal, verdict);
        if (r >= 0 && normal.size > 0 && !verdict_denies(verdict, vm->alias_policy)) {
                r = slot_new(vm, &normal, &new);
                if (r >= 0)
                        r = alias_judge(new, self, verdict);
        }
        *ret_denied = verdict_denies(verdict, vm->alias_policy);
        *ret_change = (Change) {};
        if (r < 0 || *ret_denied) {
                slot_discard(new);
                return r;
        }

        *ret_change = replace(self, new);
        return 0;
}

int slot_set(VM *vm, const SlotSpec *spec, Verdict *verdict, bool *ret_changed) {
        Change change;
        bool denied;
        int r;

        r = try(vm, spec, verdict, &change, &denied);
        if (r < 0)
                return r;

        *ret_changed = is_change(&change);
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
                changed[i] = keep && is_change(&changes[i]);
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
