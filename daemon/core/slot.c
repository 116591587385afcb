/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A change is made in three steps: judge, link or unlink, then keep or undo. A slot as it would be is made before any
 * index is touched, judged, and put in the place of the one that it replaces, which is kept until the change is
 * certain, so that undoing cannot fail. */

#include "core/slot.h"

#include <assert.h>
#include <stdlib.h>

#include "core/core-private.h"
#include "core/range.h"

/* ---- indexes ---- */

/* Where a slot is in an index of ranges. */
typedef struct Place {
        IntervalTree *tree;
        void *item;
        uint64_t start, size;
} Place;

enum {
        PLACE_GPA,
        PLACE_HVA,
        PLACE_SHOWINGS, /* and those behind it */
};

static size_t count_places(const Slot *slot) {
        return PLACE_SHOWINGS + slot_count_showings(slot);
}

static Place slot_place(const Slot *slot, size_t i) {
        const SlotRecord *spec = &slot->spec;
        const VM *vm = slot->vm;
        SlotShowing s;

        if (i == PLACE_GPA)
                return (Place) { &vm->slots->by_gpa[spec->as_id], (void *) slot, spec->gpa, spec->size };
        if (i == PLACE_HVA)
                return (Place) { &vm->mm->slots, (void *) slot, spec->hva, spec->size };
        s = slot_showing(slot, i - PLACE_SHOWINGS);
        return (Place) { &s.file->showings, slot_showing_item(slot, i - PLACE_SHOWINGS), s.offset, s.size };
}

/* A slot may show a file more than once; it is one slot all the same. */
static void count_showing(const SlotShowing *showing, size_t change) {
        Backing *backing = showing->file->backing;

        if (backing && showing_counts(showing))
                backing->n_slots += change;
}

static void count_slot(const Slot *slot, size_t change) {
        size_t n = slot_count_showings(slot);

        for (size_t i = 0; i < n; i++) {
                SlotShowing s = slot_showing(slot, i);

                count_showing(&s, change);
        }
        slot->vm->slots->n_slots += change;
        slot->vm->registry->n_slots += change;
}

/* True if slot_tidy() is to be called later. */
static bool leave_places(const Slot *slot, size_t n) {
        bool untidy = false;

        while (n-- > 0) {
                Place place = slot_place(slot, n);

                untidy |= interval_withdraw(place.tree, place.item, place.start);
        }
        return untidy;
}

static int slot_link(Slot *slot) {
        size_t n = count_places(slot), i;
        int r;

        for (i = 0; i < n; i++) {
                Place place = slot_place(slot, i);

                r = interval_insert(place.tree, place.item, place.start, place.size);
                if (r < 0)
                        goto fail;
        }
        r = id_map_set(&slot->vm->slots->by_id[slot->spec.as_id], slot->spec.id, slot);
        if (r < 0)
                goto fail;

        count_slot(slot, 1);
        return 0;

fail:
        (void) leave_places(slot, i);
        return r;
}

/* What a change has unlinked links again without memory; see interval_withdraw(). */
static void slot_link_again(Slot *slot) {
        int r = slot_link(slot);

        assert(r == 0);
        (void) r;
}

/* True if slot_tidy() is to be called later. */
static bool slot_unlink(Slot *slot) {
        (void) id_map_set(&slot->vm->slots->by_id[slot->spec.as_id], slot->spec.id, NULL);
        count_slot(slot, (size_t) -1);
        return leave_places(slot, count_places(slot));
}

/* Gives back the memory that the indexes keep around a slot that was in them. */
static void slot_tidy(const Slot *slot) {
        size_t n = count_places(slot);

        for (size_t i = 0; i < n; i++) {
                Place place = slot_place(slot, i);

                interval_tidy(place.tree, place.item, place.start);
        }
}

/* Frees a slot that is in no index. */
static void slot_discard(Slot *slot) {
        if (!slot)
                return;

        for (size_t i = slot_count_showings(slot); i-- > 0;)
                file_unref(slot->vm->registry, slot_showing(slot, i).file);
        free(slot);
}

Slot *slot_free(Slot *slot) {
        if (!slot)
                return NULL;

        if (slot_unlink(slot))
                slot_tidy(slot);
        slot_discard(slot);
        return NULL;
}

SlotTable *slot_table_free(SlotTable *table) {
        if (!table)
                return NULL;

        for (uint32_t as_id = 0; as_id < ADDRESS_SPACES_MAX; as_id++)
                id_map_done(&table->by_id[as_id]);
        free(table);
        return NULL;
}

static int add_run(Slot *slot, const MappedRun *run) {
        SlotRecord *spec = &slot->spec;
        File *file;
        int r;

        assert(run->hva >= spec->hva && range_within(run->hva - spec->hva, run->size, spec->size));
        if (!mapped_run_is_file(run))
                return 0;

        r = file_ref_by_identity(slot->vm->registry, run->dev, run->ino, &file);
        if (r < 0)
                return r;
        file->is_guest_memfd |= run->kind == MAPPED_GUEST_MEMFD;
        slot->runs[spec->n_runs++] = (SlotRun) {
                .slot = slot,
                .file = file,
                .offset = run->offset,
                .size = run->size,
                .at = run->hva - spec->hva,
        };
        return 0;
}

_Static_assert(sizeof(Slot) <= 56, "malloc(3) makes 64 bytes of them; one more would cost 16");

/* Of numbers that KVM's rules have accepted, and without the private side. */
static SlotRecord record_of(const SlotSpec *spec) {
        _Static_assert(SLOTS_PER_ADDRESS_SPACE_MAX <= UINT16_MAX && ADDRESS_SPACES_MAX <= UINT8_MAX, "they fit");

        return (SlotRecord) {
                .gpa = spec->gpa,
                .size = spec->size,
                .hva = spec->hva,
                .backing = spec->backing,
                .offset = spec->offset,
                .id = (uint16_t) spec->id,
                .as_id = (uint8_t) spec->as_id,
                .flags = (uint8_t) (spec->flags & ~SLOT_GUEST_MEMFD),
                .shows_backing = spec->backing != NULL,
        };
}

static void set_private_side(Slot *slot, const SlotSpec *spec) {
        slot->runs[slot->spec.n_runs] = (SlotRun) {
                .slot = slot,
                .file = file_ref(spec->guest_memfd->file),
                .offset = spec->guest_memfd_offset,
                .size = spec->size,
        };
        slot->spec.flags |= SLOT_GUEST_MEMFD;
}

/* The slot as the spec asks for it, in no index yet. */
static int slot_new(VM *vm, const SlotSpec *spec, Slot **ret) {
        const Mapping *mapping = spec->mapping;
        size_t n_runs = mapping ? mapping->n_runs : 0;
        Slot *slot;

        assert(!mapping || !spec->backing);
        assert((spec->guest_memfd != NULL) == ((spec->flags & SLOT_GUEST_MEMFD) != 0));
        assert(n_runs <= UINT8_MAX);

        slot = calloc(1, sizeof(Slot) + (n_runs + (spec->guest_memfd != NULL)) * sizeof(SlotRun));
        if (!slot)
                return -ENOMEM;
        slot->vm = vm;
        slot->spec = record_of(spec);

        if (spec->backing)
                file_ref(spec->backing->file);
        for (size_t i = 0; i < n_runs; i++)
                if (add_run(slot, &mapping->runs[i]) < 0) {
                        slot_discard(slot);
                        return -ENOMEM;
                }
        if (spec->guest_memfd)
                set_private_side(slot, spec);
        *ret = slot;
        return 0;
}

int slot_enter_mm(VM *vm, Mm *mm) {
        Slot *slot, *failed;

        for (slot = slot_first(vm); slot; slot = slot_next(vm, slot->spec.as_id, slot->spec.id))
                if (interval_insert(&mm->slots, slot, slot->spec.hva, slot->spec.size) < 0)
                        break;

        failed = slot;
        if (!failed)
                mm = vm->mm;
        for (slot = slot_first(vm); slot != failed; slot = slot_next(vm, slot->spec.as_id, slot->spec.id))
                interval_remove(&mm->slots, slot, slot->spec.hva);
        return failed ? -ENOMEM : 0;
}

Slot *slot_find(VM *vm, uint32_t as_id, uint32_t id) {
        return as_id < ADDRESS_SPACES_MAX ? id_map_get(&vm->slots->by_id[as_id], id) : NULL;
}

static Slot *first_from(VM *vm, uint32_t as_id, uint32_t id) {
        for (; as_id < ADDRESS_SPACES_MAX; as_id++, id = 0) {
                Slot *slot = id_map_next(&vm->slots->by_id[as_id], id);

                if (slot)
                        return slot;
        }

        return NULL;
}

Slot *slot_first(VM *vm) {
        return first_from(vm, 0, 0);
}

Slot *slot_next(VM *vm, uint32_t as_id, uint32_t id) {
        if (as_id >= ADDRESS_SPACES_MAX)
                return NULL;
        return id < UINT32_MAX ? first_from(vm, as_id, id + 1) : first_from(vm, as_id + 1, 0);
}

size_t slot_count(const VM *vm) {
        return vm->slots->n_slots;
}

Slot *slot_first_at_gpa(VM *vm, uint32_t as_id, uint64_t gpa, uint64_t size, IntervalCursor *ret_cursor) {
        return interval_first_overlap(&vm->slots->by_gpa[as_id], gpa, size, ret_cursor);
}

Slot *slot_next_at_gpa(IntervalCursor *cursor) {
        return interval_next_overlap(cursor);
}

Slot *slot_first_at_hva(const Mm *mm, uint64_t hva, uint64_t size, IntervalCursor *ret_cursor) {
        return interval_first_overlap(&mm->slots, hva, size, ret_cursor);
}

Slot *slot_next_at_hva(IntervalCursor *cursor) {
        return interval_next_overlap(cursor);
}

/* ---- judging ---- */

static bool is_shared_read_only(const VM *vm, const Backing *backing) {
        const Share *share = backing ? backing_find_share(backing, vm_whole(vm)) : NULL;

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
        Slot *old;     /* in no index, but not freed yet; NULL if there was none */
        Slot *new;     /* NULL if the slot was deleted */
        bool untidy;   /* the indexes keep memory for the one that is in them no more */
        File *at_zero; /* what the new one was the first to show at guest address 0; NULL if nothing */
} Change;

static bool is_change(const Change *change) {
        return change->old || change->new;
}

/* Last one first. The two change their roles. */
static void change_undo(Change *change) {
        Slot *undone = change->new;

        if (change->at_zero)
                change->at_zero->was_at_zero = false;
        change->untidy = undone && slot_unlink(undone);
        if (change->old)
                slot_link_again(change->old);
        *change = (Change) { .old = undone, .new = change->old, .untidy = change->untidy };
}

/* Once all are kept, or all are undone. */
static void change_done(Change *change) {
        if (change->untidy)
                slot_tidy(change->old);
        slot_discard(change->old);
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

/* Of one slot of a VM. */
static bool slot_equal(const Slot *a, const Slot *b) {
        size_t n = slot_count_showings(a);

        if (a->spec.flags != b->spec.flags || a->spec.gpa != b->spec.gpa || a->spec.size != b->spec.size ||
            a->spec.hva != b->spec.hva || slot_count_showings(b) != n)
                return false;
        for (size_t i = 0; i < n; i++) {
                SlotShowing x = slot_showing(a, i), y = slot_showing(b, i);

                if (!showing_equal(&x, &y))
                        return false;
        }
        return true;
}

/* What follows in a batch is judged as if the slot had been set for good. */
static File *bring_to_zero(const Slot *slot) {
        SlotShowing first;

        if (slot->spec.gpa != 0 || slot_count_shared(slot) == 0)
                return NULL;
        first = slot_showing(slot, 0);
        if (first.at != 0 || first.file->was_at_zero)
                return NULL;

        first.file->was_at_zero = true;
        return first.file;
}

/* Takes the new slot, but for -ENOMEM: then nothing changed. */
static int replace(Slot *self, Slot *new, Change *ret) {
        Change change = { .old = self, .new = new };
        int r;

        if (self && new && slot_equal(self, new)) {
                slot_discard(new);
                *ret = (Change) {};
                return 0;
        }

        if (self)
                change.untidy = slot_unlink(self);
        r = new ? slot_link(new) : 0;
        if (r < 0) {
                if (self)
                        slot_link_again(self);
                slot_tidy(new);
                return r;
        }

        if (new)
                change.at_zero = bring_to_zero(new);
        *ret = change;
        return 0;
}

/* To where judging and linking go. */
static void approach(VM *vm, const SlotSpec *spec) {
        if (spec->as_id < ADDRESS_SPACES_MAX)
                interval_approach(&vm->slots->by_gpa[spec->as_id], spec->gpa);
        interval_approach(&vm->mm->slots, spec->hva);
        if (spec->backing)
                interval_approach(&spec->backing->file->showings, spec->offset);
}

/* Judges one spec and, unless it is denied, makes the change, which the caller keeps or undoes. */
static int try(VM *vm, const SlotSpec *spec, Verdict *verdict, Change *ret_change, bool *ret_denied) {
        SlotSpec normal = spec_normalize(vm, spec);
        Slot *self = slot_find(vm, spec->as_id, spec->id), *new = NULL;
        int r;

        if (normal.size > 0)
                approach(vm, &normal);
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

        r = replace(self, new, ret_change);
        if (r < 0)
                slot_discard(new);
        return r;
}

int slot_set(VM *vm, const SlotSpec *spec, Verdict *verdict, bool *ret_changed) {
        Change change;
        bool denied;
        int r;

        r = try(vm, spec, verdict, &change, &denied);
        if (r < 0)
                return r;

        *ret_changed = is_change(&change);
        change_done(&change);
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
        for (i = done; !keep && i > 0; i--)
                change_undo(&changes[i - 1]);
        for (i = 0; i < done; i++)
                change_done(&changes[i]);

        free(changes);
        if (r == 0)
                *ret_accepted = accepted;
        return r;
}

static bool could_be(VM *vm, const SlotSpec *spec) {
        const Backing *shared = spec->backing, *private = spec->guest_memfd;

        return spec->as_id < ADDRESS_SPACES_MAX && spec->id < SLOTS_PER_ADDRESS_SPACE_MAX &&
               range_valid(spec->gpa, spec->size) && range_valid(spec->hva, spec->size) &&
               (!shared || range_within(spec->offset, spec->size, shared->size)) &&
               !private == !(spec->flags & SLOT_GUEST_MEMFD) &&
               (!private || range_within(spec->guest_memfd_offset, spec->size, private->size)) &&
               !slot_find(vm, spec->as_id, spec->id);
}

int slot_restore(VM *vm, const SlotSpec *spec) {
        SlotSpec normal = *spec;
        Slot *slot;
        int r;

        if (!could_be(vm, spec))
                return -EINVAL;
        slot_spec_resolve(vm->registry, &normal);
        r = slot_new(vm, &normal, &slot);
        if (r < 0)
                return r;
        r = slot_link(slot);
        if (r < 0) {
                slot_tidy(slot);
                slot_discard(slot);
                return r;
        }
        (void) bring_to_zero(slot);
        return 0;
}
