/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Two VMs, the backings of the first one, and, for slot.c, all that core/slot.c, alias.c and kvm_rules.c lean on: each is
 * replaced by what its header says of it, in as few words as there can be. */

#include <errno.h>
#include <stdlib.h>

#include "core/core-private.h"
#include "prove.h"

#define verdict_add_conflict verdict_add_conflict_to_list
#include "core/verdict.c"
#undef verdict_add_conflict

#ifndef SLOTS
#define SLOTS 3
#endif

enum {
        PAGES = 4, /* of a backing, of guest addresses, of addresses in a VMM */
        IDS = 4,
        SIDES = 2,
        PLACES = 2 + SIDES,
        COUNT = 1000, /* of what is counted, before the step */
};
#ifdef EDGES
#define PAGE UINT64_C(4096)
#else
#define PAGE UINT64_C(1)
#endif
#define SMRAM      UINT64_C(0xfeda0000)
#define SMRAM_SIZE UINT64_C(0x20000)

static Registry registry = { .page_size = PAGE, .n_slots = COUNT };
/* Not in arrays: where in an array a pointer points costs a division. */
static SlotTable table, other_table;
static Mm mm, other_mm;
static VM vm, other_vm;
static Backing ram, gmem;
static File ram_file, gmem_file;
static Share share;
static uint64_t gpa_base; /* the few pages lie around one end of the SMRAM window, or at 0 */

/* ---- what is replaced ---- */

static bool memory_is_short;

static bool fails(void) {
        return memory_is_short && nondet_bool();
}

/* No rule depends on the list of conflicts, but on whether there is memory for it. */
int verdict_add_conflict(Verdict *verdict, const Conflict *conflict) {
        (void) conflict;
        if (fails())
                return -ENOMEM;
        verdict->n_conflicts++;
        return 0;
}

int mapping_judge(VM *of, const SlotSpec *spec, Verdict *verdict) {
        (void) of, (void) spec, (void) verdict;
        assert(false);
        return 0;
}

void slot_spec_resolve(Registry *r, SlotSpec *spec) {
        (void) r;
        assert(!spec->mapping);
}

bool mapped_run_is_file(const MappedRun *run) {
        (void) run;
        assert(false);
        return false;
}

Backing *registry_find_file(Registry *r, dev_t dev, ino_t ino) {
        (void) r, (void) dev, (void) ino;
        assert(false);
        return NULL;
}

const Share *backing_find_share(const Backing *backing, const VM *peer) {
        (void) backing;
        return ram.n_shares > 0 && peer == &other_vm ? &share : NULL;
}

bool vm_type_has_private_memory(VMType type) {
        return type == VM_TYPE_SW_PROTECTED || type >= VM_TYPE_SNP;
}

bool vm_type_has_protected_state(VMType type) {
        return type >= VM_TYPE_SEV_ES;
}

bool backing_is_shared_with(const Backing *backing, const VM *peer) {
        return backing_find_share(backing, peer) != NULL;
}

/* ---- memory ---- */

/* Of those that are there before the step, and the one that the step makes. */
static Slot s0, s1, s2, s3, made;
static Slot *const live[] = { &s0, &s1, &s2, &s3 };
static bool in_use[SLOTS + 1];

/* Nothing but slots is made, one at most. Each has room for its private side: proofs.py sees to that. */
void *calloc(size_t n, size_t size) {
        assert(n == 1 && size <= sizeof(Slot) + sizeof(SlotRun) && !in_use[SLOTS]);
        if (fails())
                return NULL;
        made = (Slot) {};
        in_use[SLOTS] = true;
        return &made;
}

void free(void *memory) {
        bool freed = !memory;

        for (unsigned i = 0; i < SLOTS + 1; i++)
                if (memory == (i < SLOTS ? live[i] : &made)) {
                        assert(in_use[i]);
                        in_use[i] = false;
                        freed = true;
                }
        assert(freed);
}

/* ---- the index: what core/interval.h says ---- */

typedef struct Indexed {
        const IntervalTree *tree; /* NULL: free */
        const void *item;
        uint64_t start, last;
        bool withdrawn; /* the tree keeps room for it */
} Indexed;

enum {
        AT_GPA,
        AT_HVA,
        AT_SHARED,
        AT_PRIVATE,
};

/* Of each slot that is there before the step, and what the step inserts. */
static Indexed entries[SLOTS + 1][PLACES];
#define FRESH entries[SLOTS]
static unsigned n_entries;
static bool one_vmm;       /* runs both VMs */
static bool one_vm;        /* the other one is what the first one's former VMM has during a hand-over */
static bool private_first; /* in what order the two sides of a slot are found */

static bool is_entry(const Indexed *e, const IntervalTree *tree, const void *item, uint64_t start) {
        return e->tree == tree && e->item == item && e->start == start;
}

static bool has_fresh(const IntervalTree *tree) {
        bool has = false;

        for (unsigned i = 0; i < PLACES; i++)
                has |= FRESH[i].tree == tree;
        return has;
}

static bool insert_again(const IntervalTree *tree, const void *item, uint64_t start, uint64_t last) {
        bool done = false;

        for (unsigned i = 0; i < SLOTS * PLACES; i++) {
                Indexed *e = &entries[i / PLACES][i % PLACES];

                if (is_entry(e, tree, item, start)) {
                        assert(e->withdrawn);
                        e->withdrawn = false;
                        e->last = last;
                        done = true;
                }
        }
        return done;
}

int interval_insert(IntervalTree *tree, void *item, uint64_t start, uint64_t size) {
        bool room = !has_fresh(tree), done = false;

        assert(size > 0 && start <= UINT64_MAX - (size - 1));
        if (room && insert_again(tree, item, start, start + (size - 1))) {
                n_entries++;
                return 0;
        }

        if (fails())
                return -ENOMEM;
        for (unsigned i = 0; i < PLACES; i++)
                if (!done && !FRESH[i].tree) {
                        FRESH[i] = (Indexed) { tree, item, start, start + (size - 1), false };
                        done = true;
                }
        assert(done);
        n_entries++;
        return 0;
}

bool interval_withdraw(IntervalTree *tree, void *item, uint64_t start) {
        bool found = false;

        for (unsigned i = 0; i < (SLOTS + 1) * PLACES; i++) {
                Indexed *e = &entries[i / PLACES][i % PLACES];

                if (!is_entry(e, tree, item, start) || e->withdrawn)
                        continue;
                found = true;
                if (i / PLACES == SLOTS)
                        *e = (Indexed) {};
                else
                        e->withdrawn = true;
        }
        assert(found);
        n_entries--;
        return nondet_bool();
}

/* Nothing depends on it. */
void interval_approach(IntervalTree *tree, uint64_t start) {
        (void) tree, (void) start;
}

/* Nothing can be undone any more. */
void interval_tidy(IntervalTree *tree, const void *item, uint64_t start) {
        (void) item, (void) start;
        for (unsigned i = 0; i < SLOTS * PLACES; i++) {
                Indexed *e = &entries[i / PLACES][i % PLACES];

                if (e->tree == tree && e->withdrawn)
                        *e = (Indexed) {};
        }
}

static bool is_found(const Indexed *e, const IntervalCursor *c) {
        return e->tree == (const void *) c->path[0].block && !e->withdrawn && e->start <= c->last &&
               c->start <= e->last;
}

/* Nothing is looked for while a change is being made. */
static void start_search(const IntervalTree *tree, uint64_t start, uint64_t size, IntervalCursor *ret) {
        assert(size > 0 && start <= UINT64_MAX - (size - 1));
        assert(!has_fresh(tree));
        ret->start = start;
        ret->last = start + (size - 1);
        ret->level = 0;
        ret->path[0].block = (void *) tree;
}

void *interval_next_overlap(IntervalCursor *c) {
        void *found = NULL;

        for (unsigned i = 0; i < SLOTS; i++)
                if (!found && i >= c->level &&
                    (is_found(&entries[i][AT_GPA], c) || is_found(&entries[i][AT_HVA], c))) {
                        found = live[i];
                        c->level = i + 1;
                }
        return found;
}

void *interval_first_overlap(const IntervalTree *tree, uint64_t start, uint64_t size, IntervalCursor *ret_cursor) {
        start_search(tree, start, size, ret_cursor);
        return interval_next_overlap(ret_cursor);
}

/* ---- the map of ids: what core/id-map.h says ---- */

typedef struct Mapped {
        const IdMap *map;
        uint32_t id;
        Slot *slot; /* NULL: not any more */
} Mapped;

static Mapped ids[SLOTS + 1]; /* like entries[] */

int id_map_set(IdMap *map, uint32_t id, void *value) {
        bool known = false;

        for (unsigned i = 0; i < SLOTS + 1; i++)
                if (ids[i].map == map && ids[i].id == id) {
                        ids[i].slot = value;
                        known = true;
                }
        if (known || !value)
                return 0;
        if (fails())
                return -ENOMEM;
        assert(!ids[SLOTS].map);
        ids[SLOTS] = (Mapped) { map, id, value };
        return 0;
}

void *id_map_get(const IdMap *map, uint32_t id) {
        Slot *slot = NULL;

        for (unsigned i = 0; i < SLOTS + 1; i++)
                if (ids[i].map == map && ids[i].id == id)
                        slot = ids[i].slot;
        return slot;
}

static File *file_of(const Backing *backing) {
        return backing == &gmem ? &gmem_file : &ram_file;
}

/* ---- what slots show: what core/core-private.h says ---- */

Backing *slot_guest_memfd(const Slot *slot) {
        return slot->spec.flags & SLOT_GUEST_MEMFD ? &gmem : NULL;
}

SlotSpec slot_spec(const Slot *slot) {
        const SlotRecord *spec = &slot->spec;
        bool private_side = (spec->flags & SLOT_GUEST_MEMFD) != 0;

        return (SlotSpec) {
                .id = spec->id,
                .as_id = spec->as_id,
                .flags = spec->flags,
                .gpa = spec->gpa,
                .size = spec->size,
                .hva = spec->hva,
                .backing = spec->backing,
                .offset = spec->offset,
                .guest_memfd = private_side ? slot->runs[0].file == &gmem_file ? &gmem : &ram : NULL,
                .guest_memfd_offset = private_side ? slot->runs[0].offset : 0,
        };
}

size_t slot_count_shared(const Slot *slot) {
        return slot->spec.backing != NULL;
}

size_t slot_count_showings(const Slot *slot) {
        return slot_count_shared(slot) + ((slot->spec.flags & SLOT_GUEST_MEMFD) != 0);
}

SlotShowing slot_showing(const Slot *slot, size_t i) {
        SlotSpec spec = slot_spec(slot);
        bool private_side = i == slot_count_shared(slot);

        assert(i < slot_count_showings(slot));
        return (SlotShowing) {
                .slot = (Slot *) slot,
                .file = file_of(private_side ? spec.guest_memfd : spec.backing),
                .offset = private_side ? spec.guest_memfd_offset : spec.offset,
                .size = spec.size,
                .private_side = private_side,
        };
}

/* Nobody looks at an item but who made it. */
void *slot_showing_item(const Slot *slot, size_t i) {
        return (char *) slot + 1 + i;
}

bool showing_equal(const SlotShowing *a, const SlotShowing *b) {
        return a->file == b->file && a->offset == b->offset && a->size == b->size && a->at == b->at &&
               a->private_side == b->private_side;
}

/* The private side of a slot that maps its guest_memfd does not count again. */
bool showing_counts(const SlotShowing *showing) {
        SlotSpec spec = slot_spec(showing->slot);

        return !showing->private_side || spec.backing != spec.guest_memfd;
}

SlotShowing showing_next(IntervalCursor *c) {
        SlotShowing found = {};

        for (unsigned i = 0; i < SLOTS; i++) {
                const Indexed *of_shared = &entries[i][AT_SHARED], *of_private = &entries[i][AT_PRIVATE];
                bool shared = is_found(of_shared, c) && c->level <= SIDES * i + private_first;
                bool private_side = is_found(of_private, c) && c->level <= SIDES * i + !private_first;

                if (found.slot || (!shared && !private_side))
                        continue;
                private_side = private_side && (private_first || !shared);
                found = (SlotShowing) {
                        .slot = live[i],
                        .file = private_side ? live[i]->runs[0].file : file_of(live[i]->spec.backing),
                        .offset = private_side ? of_private->start : of_shared->start,
                        .size = live[i]->spec.size,
                        .private_side = private_side,
                };
                c->level = SIDES * i + (private_side != private_first) + 1;
        }
        return found;
}

SlotShowing file_first_showing(const File *file, uint64_t offset, uint64_t size, IntervalCursor *ret_cursor) {
        start_search(&file->showings, offset, size, ret_cursor);
        return showing_next(ret_cursor);
}

SlotShowing showing_first(const Backing *backing, uint64_t offset, uint64_t size, IntervalCursor *ret_cursor) {
        return file_first_showing(file_of(backing), offset, size, ret_cursor);
}

/* What should be in the index for a slot, told from the slot alone. */
static void expect_entries(const Slot *slot, Indexed expected[PLACES]) {
        SlotSpec spec = slot_spec(slot);
        uint64_t more = spec.size - 1;

        for (unsigned i = 0; i < PLACES; i++)
                expected[i] = (Indexed) {};
        expected[AT_GPA] = (Indexed) { &slot->vm->slots->by_gpa[spec.as_id], slot, spec.gpa, spec.gpa + more };
        expected[AT_HVA] = (Indexed) { &slot->vm->mm->slots, slot, spec.hva, spec.hva + more };
        if (spec.backing)
                expected[AT_SHARED] = (Indexed) { &file_of(spec.backing)->showings, slot_showing_item(slot, 0),
                                                  spec.offset, spec.offset + more };
        if (spec.guest_memfd)
                expected[AT_PRIVATE] = (Indexed) { &file_of(spec.guest_memfd)->showings,
                                                   slot_showing_item(slot, spec.backing ? 1 : 0),
                                                   spec.guest_memfd_offset, spec.guest_memfd_offset + more };
}

static unsigned count_expected(const Slot *slot) {
        return slot ? 2 + (unsigned) slot_count_showings(slot) : 0;
}

static bool is_indexed(const Indexed *expected) {
        bool found = !expected->tree;

        for (unsigned i = 0; i < (SLOTS + 1) * PLACES; i++) {
                const Indexed *e = &entries[i / PLACES][i % PLACES];

                found |= is_entry(e, expected->tree, expected->item, expected->start) && e->last == expected->last &&
                         !e->withdrawn;
        }
        return found;
}
