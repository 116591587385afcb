/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What was seen mapped at a slot's address: against what was declared, and as a way to find aliases. */

#include "core-fixture.h"

#define ELSE      UINT64_C(0x7e0000000000) /* another address of the same VMM */
#define FOREIGN   77U                      /* inodes of files that are no backings */
#define FOREIGN_2 78U
#define OTHER_DEV 9U

/* The mapping of the next slot that is set. */
static struct {
        MappedRun runs[8];
        Mapping mapping;
} seen;

static const Mapping *see(size_t n, const MappedRun *runs) {
        memcpy(seen.runs, runs, n * sizeof(MappedRun));
        seen.mapping = (Mapping) { .n_runs = n, .runs = seen.runs };
        return &seen.mapping;
}

#define SEE(...) \
        .mapping = see(sizeof((MappedRun[]) { __VA_ARGS__ }) / sizeof(MappedRun), (MappedRun[]) { __VA_ARGS__ })

static MappedRun run_of(MappedKind kind, uint64_t hva, uint64_t pages, dev_t dev, ino_t ino, uint64_t page) {
        return (MappedRun) { .kind = kind, .hva = hva, .size = pages * P, .dev = dev, .ino = ino, .offset = page * P };
}

static MappedRun backing_at(uint64_t hva, uint64_t pages, const Backing *backing, uint64_t page) {
        return run_of(backing->kind == BACKING_GUEST_MEMFD ? MAPPED_GUEST_MEMFD : MAPPED_FILE, hva, pages,
                      backing->dev, backing->ino, page);
}

static MappedRun file_at(uint64_t hva, uint64_t pages, ino_t ino, uint64_t page) {
        return run_of(MAPPED_FILE, hva, pages, OTHER_DEV, ino, page);
}

static MappedRun memory_at(uint64_t hva, uint64_t pages) {
        return run_of(MAPPED_MEMORY, hva, pages, 0, 0, 0);
}

static const Conflict *only_conflict(void) {
        assert_int_equal(f.verdict.n_conflicts, 1);
        return &f.verdict.conflicts[0];
}

/* ---- against the declaration ---- */

static void declared_and_mapped(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 4 * P, .hva = HVA, .backing = f.ram, .offset = 2 * P,
                  SEE(backing_at(HVA, 4, f.ram, 2)));
        assert_int_equal(f.verdict.rule, RULE_NONE);
        assert_ptr_equal(slot_find(f.vm, 0, 0)->spec.backing, f.ram);
}

static void declared_and_mapped_in_pieces(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 4 * P, .hva = HVA, .backing = f.ram,
                  SEE(backing_at(HVA, 1, f.ram, 0), backing_at(HVA + 2 * P, 2, f.ram, 2)));
        assert_int_equal(slot_count_showings(slot_find(f.vm, 0, 0)), 1);
}

static void declared_and_not_mapped_yet(void **state) {
        (void) state;
        seen.mapping.n_runs = 0;
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram, .mapping = &seen.mapping);
        assert_ptr_equal(slot_find(f.vm, 0, 0)->spec.backing, f.ram);
}

static void assert_mismatch(MappedKind mapped, const Backing *backing, uint64_t gpa, uint64_t size, uint64_t offset) {
        const Conflict *c = only_conflict();

        assert_int_equal(c->rule, RULE_MAPPING_MISMATCH);
        assert_ptr_equal(c->vm, f.vm);
        assert_int_equal(c->id, 3);
        assert_int_equal(c->mapped, mapped);
        assert_ptr_equal(c->backing, backing);
        assert_int_equal(c->gpa, gpa);
        assert_int_equal(c->requested_gpa, gpa);
        assert_int_equal(c->size, size);
        assert_int_equal(c->offset, offset);
        assert_false(f.changed);
        assert_null(slot_find(f.vm, 0, 3));
}

#define DECLARED .id = 3, .gpa = 16 * P, .size = 4 * P, .hva = HVA, .backing = f.ram, .offset = 2 * P

static void another_offset(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_MAPPING_MISMATCH, DECLARED, SEE(backing_at(HVA, 4, f.ram, 3)));
        assert_mismatch(MAPPED_FILE, f.ram, 16 * P, 4 * P, 3 * P);
}

static void another_backing(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_MAPPING_MISMATCH, DECLARED, SEE(backing_at(HVA, 4, f.peer_ram, 2)));
        assert_mismatch(MAPPED_FILE, f.peer_ram, 16 * P, 4 * P, 2 * P);
}

static void another_file(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_MAPPING_MISMATCH, DECLARED, SEE(file_at(HVA, 4, FOREIGN, 2)));
        assert_mismatch(MAPPED_FILE, NULL, 16 * P, 4 * P, 2 * P);
        assert_int_equal(only_conflict()->dev, OTHER_DEV);
        assert_int_equal(only_conflict()->ino, FOREIGN);
}

static void same_inode_of_another_device(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_MAPPING_MISMATCH, DECLARED, SEE(file_at(HVA, 4, f.ram->ino, 2)));
}

static void private_mapping(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_MAPPING_MISMATCH, DECLARED,
                       SEE(run_of(MAPPED_COPY, HVA, 4, f.ram->dev, f.ram->ino, 2)));
        assert_mismatch(MAPPED_COPY, f.ram, 16 * P, 4 * P, 2 * P);
}

static void memory_without_a_file(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_MAPPING_MISMATCH, DECLARED, SEE(memory_at(HVA, 4)));
        assert_mismatch(MAPPED_MEMORY, NULL, 16 * P, 4 * P, 0);
}

static void one_page_that_differs(void **state) {
        (void) state;
        assert_refused(
                f.vm, RULE_MAPPING_MISMATCH, DECLARED,
                SEE(backing_at(HVA, 2, f.ram, 2), memory_at(HVA + 2 * P, 1), backing_at(HVA + 3 * P, 1, f.ram, 5)));
        assert_mismatch(MAPPED_MEMORY, NULL, 18 * P, P, 0);
}

static void kvms_rules_come_first(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .gpa = 1, .size = P, .hva = HVA, .backing = f.ram,
                           SEE(memory_at(HVA, 1)));
}

/* Then the table says what is mapped, not what was declared. */
static void mismatch_of_an_observed_vm(void **state) {
        (void) state;
        f.vm->alias_policy = ALIAS_POLICY_OBSERVE;
        assert_refused(f.vm, RULE_MAPPING_MISMATCH, DECLARED, SEE(backing_at(HVA, 4, f.peer_ram, 8)));
        assert_true(f.changed);
        assert_ptr_equal(slot_find(f.vm, 0, 3)->spec.backing, f.peer_ram);
        assert_int_equal(slot_find(f.vm, 0, 3)->spec.offset, 8 * P);
        assert_int_equal(f.ram->n_slots, 0);
        assert_int_equal(f.peer_ram->n_slots, 1);
}

static void mismatch_and_alias_of_an_observed_vm(void **state) {
        (void) state;
        f.vm->alias_policy = ALIAS_POLICY_OBSERVE;
        assert_ok(f.peer, .size = 4 * P, .hva = HVA, .backing = f.peer_ram);
        assert_refused(f.vm, RULE_MAPPING_MISMATCH, DECLARED, SEE(backing_at(HVA, 4, f.peer_ram, 2)));
        assert_int_equal(f.verdict.n_conflicts, 2);
        assert_int_equal(f.verdict.conflicts[1].rule, RULE_UNDECLARED_ALIAS);
        assert_int_equal(f.verdict.conflicts[1].size, 2 * P);
}

/* ---- nothing declared: a backing is mapped ---- */

static void mapped_backing_is_as_if_declared(void **state) {
        const Slot *slot;

        (void) state;
        assert_ok(f.vm, .size = 4 * P, .hva = HVA, SEE(backing_at(HVA, 4, f.ram, 2)));
        slot = slot_find(f.vm, 0, 0);
        assert_ptr_equal(slot->spec.backing, f.ram);
        assert_int_equal(slot->spec.offset, 2 * P);
        assert_int_equal(f.ram->n_slots, 1);
}

static void resolved_spec(void **state) {
        SlotSpec spec = { .size = 4 * P, .hva = HVA, SEE(backing_at(HVA, 4, f.ram, 2)) };

        (void) state;
        slot_spec_resolve(f.registry, &spec);
        assert_ptr_equal(spec.backing, f.ram);
        assert_int_equal(spec.offset, 2 * P);
        assert_null(spec.mapping);
        spec = (SlotSpec) { .size = 4 * P, .hva = HVA, SEE(memory_at(HVA, 4)) };
        slot_spec_resolve(f.registry, &spec);
        assert_null(spec.mapping);
        spec = (SlotSpec) { .size = 4 * P, .hva = HVA, SEE(file_at(HVA, 4, FOREIGN, 0)) };
        slot_spec_resolve(f.registry, &spec);
        assert_non_null(spec.mapping);
}

static void second_mapping_of_a_backing(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 4 * P, .hva = HVA, .backing = f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = ELSE,
                       SEE(backing_at(ELSE, 1, f.ram, 3)));
        assert_int_equal(only_conflict()->gpa, 3 * P);
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = ELSE, SEE(backing_at(ELSE, 1, f.ram, 4)));
}

static void another_vms_backing(void **state) {
        (void) state;
        assert_ok(f.peer, .size = 4 * P, .hva = HVA, .backing = f.peer_ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, SEE(backing_at(HVA, 1, f.peer_ram, 3)));
        assert_ptr_equal(only_conflict()->vm, f.peer);
        assert_ok(f.vm, .size = P, .hva = HVA, SEE(backing_at(HVA, 1, f.peer_ram, 4)));
}

static void another_vms_backing_that_is_shared(void **state) {
        (void) state;
        assert_ok(f.peer, .size = 4 * P, .hva = HVA, .backing = f.peer_ram);
        assert_int_equal(backing_share(f.peer_ram, f.vm), 0);
        assert_allowed(f.vm, RULE_DECLARED_SHARE, .size = P, .hva = HVA, SEE(backing_at(HVA, 1, f.peer_ram, 3)));
}

static void shared_for_reading_only(void **state) {
        (void) state;
        assert_int_equal(backing_share_read_only(f.peer_ram, f.vm), 0);
        assert_refused(f.vm, RULE_SHARE_READ_ONLY, .size = P, .hva = HVA, SEE(backing_at(HVA, 1, f.peer_ram, 0)));
        assert_refused(f.vm, RULE_SHARE_READ_ONLY, .size = 2 * P, .hva = HVA,
                       SEE(backing_at(HVA, 1, f.peer_ram, 0), file_at(HVA + P, 1, FOREIGN, 0)));
        assert_ok(f.vm, .flags = SLOT_READONLY, .size = 2 * P, .hva = HVA,
                  SEE(backing_at(HVA, 1, f.peer_ram, 0), file_at(HVA + P, 1, FOREIGN, 0)));
}

static void mapping_of_a_private_side(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = 8 * P, .hva = HVA, .guest_memfd = f.gmem,
                  SEE(memory_at(HVA, 8)));
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = ELSE,
                       SEE(backing_at(ELSE, 1, f.gmem, 7)));
        assert_refused(f.peer, RULE_PRIVATE_ALIAS, .size = P, .hva = ELSE, SEE(backing_at(ELSE, 1, f.gmem, 7)));
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = ELSE, SEE(backing_at(ELSE, 1, f.gmem, 8)));
}

static void slot_that_maps_its_own_private_side(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = 8 * P, .hva = HVA, .guest_memfd = f.gmem,
                  SEE(backing_at(HVA, 8, f.gmem, 0)));
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 1, .flags = SLOT_GUEST_MEMFD, .gpa = 16 * P, .size = 8 * P,
                       .hva = ELSE, .guest_memfd = f.gmem, .guest_memfd_offset = 8 * P,
                       SEE(backing_at(ELSE, 8, f.gmem, 9)));
}

/* ---- files that are no backings ---- */

static void file_in_two_vms(void **state) {
        const Conflict *c;

        (void) state;
        assert_ok(f.peer, .gpa = 16 * P, .size = 4 * P, .hva = HVA, SEE(file_at(HVA, 4, FOREIGN, 10)));
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .size = 4 * P, .hva = HVA, SEE(file_at(HVA, 4, FOREIGN, 12)));
        c = only_conflict();
        assert_ptr_equal(c->vm, f.peer);
        assert_null(c->backing);
        assert_int_equal(c->dev, OTHER_DEV);
        assert_int_equal(c->ino, FOREIGN);
        assert_int_equal(c->offset, 12 * P);
        assert_int_equal(c->size, 2 * P);
        assert_int_equal(c->gpa, 18 * P);
        assert_ok(f.vm, .size = 4 * P, .hva = HVA, SEE(file_at(HVA, 4, FOREIGN, 14)));
        assert_ok(f.vm, .id = 1, .gpa = 8 * P, .size = 4 * P, .hva = ELSE, SEE(file_at(ELSE, 4, FOREIGN_2, 10)));
}

static void file_of_a_slot_that_is_gone(void **state) {
        (void) state;
        assert_ok(f.peer, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_ok(f.peer, .size = 0);
        assert_ok(f.vm, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 0)));
}

static void file_mapped_twice(void **state) {
        (void) state;
        assert_ok(f.vm, .gpa = 16 * P, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 17 * P, .size = P, .hva = ELSE,
                       SEE(file_at(ELSE, 1, FOREIGN, 0)));
        assert_allowed(f.vm, RULE_VMM_WINDOW, .id = 1, .gpa = 17 * P, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
}

/* A file that was at guest address 0 is guest memory from then on. */
static void file_at_guest_address_zero(void **state) {
        (void) state;
        assert_ok(f.vm, .gpa = 0, .size = P, .hva = ELSE, SEE(file_at(ELSE, 1, FOREIGN, 8)));
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 2, .gpa = 17 * P, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_allowed(f.vm, RULE_ADDRESS_SPACE_TRANSIT, .id = 2, .as_id = 1, .gpa = 17 * P, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_ok(f.vm, .id = 0, .size = 0);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 3, .gpa = 18 * P, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
}

static void file_that_comes_to_guest_address_zero(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 2, .gpa = 0, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_allowed(f.vm, RULE_VMM_WINDOW, .id = 2, .gpa = P, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
}

static void file_behind_guest_address_zero(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA + P, SEE(file_at(HVA + P, 1, FOREIGN, 0)));
        assert_allowed(f.vm, RULE_VMM_WINDOW, .id = 2, .gpa = 0, .size = 2 * P, .hva = HVA,
                       SEE(file_at(HVA + P, 1, FOREIGN, 0)));
        assert_allowed(f.vm, RULE_VMM_WINDOW, .id = 3, .gpa = 32 * P, .size = P, .hva = HVA + P,
                       SEE(file_at(HVA + P, 1, FOREIGN, 0)));
}

/* Also if the batch that brought it there moves it away. */
static void batch_that_moves_away_from_guest_address_zero(void **state) {
        const Mapping *mapping = see(1, (MappedRun[]) { file_at(HVA, 1, FOREIGN, 0) });
        const SlotSpec specs[] = {
                { .id = 1, .gpa = 0, .size = P, .hva = HVA, .mapping = mapping },
                { .id = 1, .gpa = 16 * P, .size = P, .hva = HVA, .mapping = mapping },
                { .id = 2, .gpa = 17 * P, .size = P, .hva = HVA, .mapping = mapping },
        };
        Verdict verdicts[3] = {};
        bool accepted;

        (void) state;
        assert_int_equal(slot_set_many(f.vm, specs, 3, true, verdicts, NULL, &accepted), 0);
        assert_false(accepted);
        assert_int_equal(verdicts[1].rule, RULE_NONE);
        assert_int_equal(verdicts[2].rule, RULE_UNDECLARED_ALIAS);
        for (size_t i = 0; i < 3; i++)
                verdict_done(&verdicts[i]);

        assert_int_equal(slot_set_many(f.vm, specs, 2, true, verdicts, NULL, &accepted), 0);
        assert_true(accepted);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 2, .gpa = 17 * P, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
}

static void dry_run_leaves_no_trace(void **state) {
        SlotSpec spec = { .gpa = 0, .size = P, .hva = ELSE, SEE(file_at(ELSE, 1, FOREIGN, 8)) };
        Verdict verdict;
        bool accepted;

        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 0)));
        spec.mapping = see(1, (MappedRun[]) { file_at(ELSE, 1, FOREIGN, 8) });
        verdict_init(&verdict);
        assert_int_equal(slot_set_many(f.vm, &spec, 1, false, &verdict, NULL, &accepted), 0);
        assert_true(accepted);
        verdict_done(&verdict);
        assert_allowed(f.vm, RULE_VMM_WINDOW, .id = 2, .gpa = 17 * P, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
}

static void read_only_file_in_two_vms(void **state) {
        (void) state;
        assert_ok(f.peer, .flags = SLOT_READONLY, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_allowed(f.vm, RULE_ROM_SHADOW, .flags = SLOT_READONLY, .size = P, .hva = HVA,
                       SEE(file_at(HVA, 1, FOREIGN, 0)));
}

static void same_frame_of_a_file(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 0)));
        assert_ok(f.vm, .as_id = 1, .size = P, .hva = ELSE, SEE(file_at(ELSE, 1, FOREIGN, 0)));
        assert_int_equal(f.verdict.rule, RULE_SAME_FRAME);
}

static void guest_memfd_that_is_no_backing(void **state) {
        MappedRun run = run_of(MAPPED_GUEST_MEMFD, HVA, 1, OTHER_DEV, FOREIGN, 0);

        (void) state;
        assert_ok(f.peer, .size = P, .hva = HVA, SEE(run));
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .size = P, .hva = HVA, SEE(run));
        assert_refused(f.peer, RULE_PRIVATE_ALIAS, .id = 1, .gpa = P, .size = P, .hva = HVA, SEE(run));
}

static void private_copies_are_no_alias(void **state) {
        MappedRun run = run_of(MAPPED_COPY, HVA, 1, OTHER_DEV, FOREIGN, 0);

        (void) state;
        assert_ok(f.peer, .size = P, .hva = HVA, SEE(run));
        assert_ok(f.vm, .size = P, .hva = HVA, SEE(run));
        assert_int_equal(f.verdict.rule, RULE_NONE);
}

static void file_that_becomes_a_backing(void **state) {
        BackingSpec spec = { .name = "late", .size = 64 * P, .page_size = P, .dev = OTHER_DEV, .ino = FOREIGN };
        Backing *late;
        const Slot *slot;

        (void) state;
        assert_ok(f.peer, .size = 4 * P, .hva = HVA, SEE(file_at(HVA, 4, FOREIGN, 1)));
        assert_ok(f.peer, .id = 1, .gpa = 4 * P, .size = 2 * P, .hva = ELSE,
                  SEE(file_at(ELSE, 1, FOREIGN, 8), file_at(ELSE + P, 1, FOREIGN, 10)));
        assert_int_equal(backing_new(f.peer, &spec, &late), 0);
        assert_int_equal(late->n_slots, 2);
        slot = slot_find(f.peer, 0, 0);
        assert_ptr_equal(slot->spec.backing, late);
        assert_int_equal(slot->spec.offset, P);
        assert_null(slot_find(f.peer, 0, 1)->spec.backing);
        assert_int_equal(backing_release(late), CORE_E_IN_USE);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = late, .offset = 2 * P);
        assert_ptr_equal(only_conflict()->backing, late);
        assert_ok(f.peer, .id = 0, .size = 0);
        assert_ok(f.peer, .id = 1, .size = 0);
        assert_int_equal(backing_release(late), 0);
}

/* ---- several files in one slot ---- */

static void have_patchwork(void) {
        assert_ok(f.vm, .gpa = 0, .size = 8 * P, .hva = HVA,
                  SEE(backing_at(HVA, 2, f.ram, 0), memory_at(HVA + 2 * P, 2), file_at(HVA + 4 * P, 2, FOREIGN, 6),
                      backing_at(HVA + 7 * P, 1, f.ram, 9)));
}

static void every_file_of_a_slot_is_known(void **state) {
        (void) state;
        have_patchwork();
        assert_null(slot_find(f.vm, 0, 0)->spec.backing);
        assert_int_equal(f.ram->n_slots, 1);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = 16 * P, .hva = HVA, .backing = f.ram);
        assert_int_equal(f.verdict.n_conflicts, 2);
        assert_int_equal(f.verdict.conflicts[0].gpa, 0);
        assert_int_equal(f.verdict.conflicts[0].size, 2 * P);
        assert_int_equal(f.verdict.conflicts[1].gpa, 7 * P);
        assert_int_equal(f.verdict.conflicts[1].offset, 9 * P);
        assert_int_equal(f.verdict.conflicts[1].size, P);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 7)));
        assert_int_equal(only_conflict()->gpa, 5 * P);
        assert_ok(f.peer, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN, 8)));
        assert_ok(f.vm, .size = 0);
        assert_int_equal(f.ram->n_slots, 0);
}

/* The bytes that both slots know are found once, through their file; the others through the address. */
static void part_of_a_patchwork_at_its_address(void **state) {
        (void) state;
        have_patchwork();
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 32 * P, .size = 7 * P, .hva = HVA + P,
                       SEE(backing_at(HVA + P, 1, f.ram, 1), memory_at(HVA + 2 * P, 2),
                           file_at(HVA + 4 * P, 2, FOREIGN, 6), backing_at(HVA + 7 * P, 1, f.ram, 9)));
        assert_int_equal(f.verdict.n_conflicts, 5);
        assert_int_equal(f.verdict.conflicts[0].requested_gpa, 32 * P);
        assert_int_equal(f.verdict.conflicts[0].size, P);
        assert_int_equal(f.verdict.conflicts[1].requested_gpa, 38 * P);
        /* The rest of the slot is the VMM's own affair: memory, the file, and what is not mapped. */
        for (size_t i = 2; i < 5; i++)
                assert_int_equal(f.verdict.conflicts[i].rule, RULE_VMM_WINDOW);
        assert_int_equal(f.verdict.conflicts[2].requested_gpa, 33 * P);
        assert_int_equal(f.verdict.conflicts[2].size, 2 * P);
        assert_int_equal(f.verdict.conflicts[3].requested_gpa, 35 * P);
        assert_int_equal(f.verdict.conflicts[3].ino, FOREIGN);
        assert_int_equal(f.verdict.conflicts[4].gpa, 6 * P);
}

static void slot_that_shows_a_page_twice(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .gpa = 0, .size = 4 * P, .hva = HVA,
                       SEE(backing_at(HVA, 2, f.ram, 0), backing_at(HVA + 2 * P, 2, f.ram, 1)));
        assert_ptr_equal(only_conflict()->vm, f.vm);
        assert_int_equal(only_conflict()->offset, P);
        assert_int_equal(only_conflict()->size, P);
        assert_int_equal(only_conflict()->requested_gpa, P);
        assert_int_equal(only_conflict()->gpa, 2 * P);
        assert_ok(f.vm, .gpa = 0, .size = 4 * P, .hva = HVA,
                  SEE(backing_at(HVA, 2, f.ram, 0), backing_at(HVA + 2 * P, 2, f.ram, 3)));
}

static void patchwork_set_again(void **state) {
        (void) state;
        have_patchwork();
        have_patchwork();
        assert_false(f.changed);
        assert_ok(f.vm, .gpa = 0, .size = 8 * P, .hva = HVA,
                  SEE(backing_at(HVA, 2, f.ram, 0), file_at(HVA + 4 * P, 2, FOREIGN, 7)));
        assert_true(f.changed);
        assert_int_equal(slot_count_showings(slot_find(f.vm, 0, 0)), 2);
}

static void patchwork_that_moves_to_another_process(void **state) {
        (void) state;
        have_patchwork();
        assert_int_equal(vm_attach(f.vm, 5), 0);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 32 * P, .size = P, .hva = HVA + P);
        vm_detach(f.vm);
        assert_int_equal(f.ram->n_slots, 0);
}

/* Nothing but the sanitizers can see it. */
static void all_is_freed_with_the_registry(void **state) {
        (void) state;
        have_patchwork();
        assert_ok(f.peer, .size = P, .hva = HVA, SEE(file_at(HVA, 1, FOREIGN_2, 0)));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(declared_and_mapped),
                TEST(declared_and_mapped_in_pieces),
                TEST(declared_and_not_mapped_yet),
                TEST(another_offset),
                TEST(another_backing),
                TEST(another_file),
                TEST(same_inode_of_another_device),
                TEST(private_mapping),
                TEST(memory_without_a_file),
                TEST(one_page_that_differs),
                TEST(kvms_rules_come_first),
                TEST(mismatch_of_an_observed_vm),
                TEST(mismatch_and_alias_of_an_observed_vm),
                TEST(mapped_backing_is_as_if_declared),
                TEST(resolved_spec),
                TEST(second_mapping_of_a_backing),
                TEST(another_vms_backing),
                TEST(another_vms_backing_that_is_shared),
                TEST(shared_for_reading_only),
                TEST(mapping_of_a_private_side),
                TEST(slot_that_maps_its_own_private_side),
                TEST(file_in_two_vms),
                TEST(file_of_a_slot_that_is_gone),
                TEST(file_mapped_twice),
                TEST(file_at_guest_address_zero),
                TEST(file_that_comes_to_guest_address_zero),
                TEST(file_behind_guest_address_zero),
                TEST(batch_that_moves_away_from_guest_address_zero),
                TEST(dry_run_leaves_no_trace),
                TEST(read_only_file_in_two_vms),
                TEST(same_frame_of_a_file),
                TEST(guest_memfd_that_is_no_backing),
                TEST(private_copies_are_no_alias),
                TEST(file_that_becomes_a_backing),
                TEST(every_file_of_a_slot_is_known),
                TEST(part_of_a_patchwork_at_its_address),
                TEST(slot_that_shows_a_page_twice),
                TEST(patchwork_set_again),
                TEST(patchwork_that_moves_to_another_process),
                TEST(all_is_freed_with_the_registry),
        };

        return cmocka_run_group_tests_name("mapping-alias", tests, NULL, NULL);
}
