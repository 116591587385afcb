/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The alias rules: for each a case that it fits, and the nearest cases that it does not. */

#include "core-fixture.h"

#define RO          SLOT_READONLY
#define GM          SLOT_GUEST_MEMFD
#define SMRAM       UINT64_C(0xfeda0000)
#define SMRAM_PAGES 32U

/* The slot that the others of a test are compared with: a page range of the RAM at its usual place. */
static void have_ram(VM *vm, Backing *ram) {
        assert_ok(vm, .id = 0, .gpa = 0, .size = 8 * P, .hva = HVA, .backing = ram, .offset = 0);
}

static const Conflict *only_conflict(void) {
        assert_int_equal(f.verdict.n_conflicts, 1);
        return &f.verdict.conflicts[0];
}

/* ---- no alias at all ---- */

static void other_pages_of_the_same_file(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_ok(f.vm, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA + 8 * P, .backing = f.ram, .offset = 8 * P);
        assert_int_equal(f.verdict.rule, RULE_NONE);
        assert_ok(f.peer, .id = 1, .gpa = 9 * P, .size = P, .hva = HVA + 9 * P, .backing = f.ram, .offset = 9 * P);
}

static void same_address_in_two_processes(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_ok(f.peer, .size = P, .hva = HVA);
        assert_int_equal(f.verdict.n_conflicts, 0);
}

/* ---- 1: the same frame ---- */

static void same_frame_in_the_other_address_space(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_ok(f.vm, .as_id = 1, .gpa = 2 * P, .size = P, .hva = HVA + 64 * P, .backing = f.ram, .offset = 2 * P);
        assert_int_equal(f.verdict.rule, RULE_SAME_FRAME);
        assert_int_equal(f.verdict.n_conflicts, 0);
        assert_true(f.changed);
}

static void same_frame_of_private_memory(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = GM, .size = P, .hva = HVA, .guest_memfd = f.gmem);
        assert_ok(f.vm, .as_id = 1, .size = P, .hva = HVA + P, .backing = f.gmem);
        assert_int_equal(f.verdict.rule, RULE_SAME_FRAME);
}

static void next_frame_in_the_other_address_space(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .as_id = 1, .gpa = 3 * P, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram, .offset = 2 * P);
}

static void same_frame_of_another_vm(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .as_id = 1, .gpa = 0, .size = P, .hva = HVA, .backing = f.ram);
}

/* ---- 2: private memory ---- */

static void have_private(void) {
        assert_ok(f.vm, .id = 0, .flags = GM, .gpa = 0, .size = 8 * P, .hva = HVA, .guest_memfd = f.gmem);
}

static void private_memory_mapped_into_another_slot(void **state) {
        const Conflict *c;

        (void) state;
        have_private();
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 1, .gpa = 16 * P, .size = 2 * P, .hva = HVA + 64 * P,
                       .backing = f.gmem, .offset = 4 * P);
        c = only_conflict();
        assert_int_equal(c->rule, RULE_PRIVATE_ALIAS);
        assert_int_equal(c->id, 0);
        assert_int_equal(c->gpa, 4 * P);
        assert_int_equal(c->requested_gpa, 16 * P);
        assert_int_equal(c->size, 2 * P);
        assert_ptr_equal(c->backing, f.gmem);
        assert_int_equal(c->offset, 4 * P);
        assert_false(f.changed);
}

static void private_memory_bound_after_its_mapping(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA + 64 * P, .backing = f.gmem, .offset = 4 * P);
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 0, .flags = GM, .size = 8 * P, .hva = HVA,
                       .guest_memfd = f.gmem);
}

static void private_memory_mapped_past_its_binding(void **state) {
        (void) state;
        have_private();
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA + 64 * P, .backing = f.gmem, .offset = 8 * P);
}

static void private_memory_mapped_twice(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 0, .size = P, .hva = HVA, .backing = f.gmem);
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 2, .gpa = P, .size = P, .hva = HVA + P, .backing = f.gmem);
}

static void private_memory_in_another_vm(void **state) {
        (void) state;
        have_private();
        assert_refused(f.peer, RULE_PRIVATE_ALIAS, .size = P, .hva = HVA, .backing = f.gmem);
        assert_ptr_equal(only_conflict()->vm, f.vm);
}

static void private_memory_is_no_rom(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .flags = RO, .size = P, .hva = HVA, .backing = f.gmem);
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 2, .flags = RO, .gpa = P, .size = P, .hva = HVA + P,
                       .backing = f.gmem);
}

static void private_memory_cannot_be_shared(void **state) {
        (void) state;
        have_private();
        assert_int_equal(backing_share(f.gmem, f.peer), 0);
        assert_refused(f.peer, RULE_PRIVATE_ALIAS, .size = P, .hva = HVA, .backing = f.gmem);
}

static void private_memory_has_no_windows(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 0, .size = P, .hva = HVA, .backing = f.gmem);
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 2, .gpa = SMRAM, .size = P, .hva = HVA, .backing = f.gmem);
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .as_id = 1, .gpa = P, .size = P, .hva = HVA, .backing = f.gmem);
}

static void private_memory_known_by_its_mapping(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 0, .size = 2 * P, .hva = HVA, .backing = f.gmem, .offset = 4 * P);
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 2, .gpa = 8 * P, .size = P, .hva = HVA + P);
        assert_ptr_equal(only_conflict()->backing, f.gmem);
        assert_int_equal(only_conflict()->offset, 5 * P);
}

static void own_pair(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = GM, .size = 8 * P, .hva = HVA, .backing = f.gmem, .offset = 4 * P,
                  .guest_memfd = f.gmem, .guest_memfd_offset = 4 * P);
        assert_int_equal(f.verdict.rule, RULE_NONE);
}

static void own_pair_that_is_shifted(void **state) {
        const Conflict *c;

        (void) state;
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 3, .flags = GM, .gpa = 16 * P, .size = 8 * P, .hva = HVA,
                       .backing = f.gmem, .offset = 6 * P, .guest_memfd = f.gmem, .guest_memfd_offset = 4 * P);
        c = only_conflict();
        assert_ptr_equal(c->vm, f.vm);
        assert_int_equal(c->id, 3);
        assert_int_equal(c->requested_gpa, 16 * P);
        assert_int_equal(c->gpa, 18 * P);
        assert_int_equal(c->size, 6 * P);
        assert_int_equal(c->offset, 6 * P);
}

static void own_pair_of_other_pages(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = GM, .size = 8 * P, .hva = HVA, .backing = f.gmem, .offset = 12 * P,
                  .guest_memfd = f.gmem, .guest_memfd_offset = 4 * P);
}

static void own_pair_and_another_slot_is_one_conflict(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .flags = GM, .size = P, .hva = HVA, .backing = f.gmem, .guest_memfd = f.gmem);
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 1, .gpa = P, .size = P, .hva = HVA + P, .backing = f.gmem);
        only_conflict();
}

/* ---- 3: ROM ---- */

static void rom_shown_twice(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .flags = RO, .size = P, .hva = HVA, .backing = f.ram);
        assert_allowed(f.vm, RULE_ROM_SHADOW, .id = 1, .flags = RO | SLOT_LOG_DIRTY_PAGES, .gpa = P, .size = P,
                       .hva = HVA + P, .backing = f.ram);
        assert_int_equal(only_conflict()->rule, RULE_ROM_SHADOW);
        assert_true(f.changed);
}

static void rom_in_two_vms(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = RO, .size = P, .hva = HVA, .backing = f.ram);
        assert_allowed(f.peer, RULE_ROM_SHADOW, .flags = RO, .size = P, .hva = HVA, .backing = f.ram);
}

static void rom_with_a_writable_shadow(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .flags = RO, .size = P, .hva = HVA, .backing = f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram);
}

static void ram_with_a_read_only_shadow(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .size = P, .hva = HVA, .backing = f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .flags = RO, .gpa = P, .size = P, .hva = HVA + P,
                       .backing = f.ram);
}

static void rom_comes_before_windows(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .flags = RO, .size = P, .hva = HVA);
        assert_allowed(f.vm, RULE_ROM_SHADOW, .id = 1, .flags = RO, .gpa = P, .size = P, .hva = HVA);
}

/* ---- 4: the VMM's own windows ---- */

static void device_memory_through_one_mapping(void **state) {
        const Conflict *c;

        (void) state;
        assert_ok(f.vm, .id = 0, .gpa = 0, .size = 4 * P, .hva = HVA);
        assert_allowed(f.vm, RULE_VMM_WINDOW, .id = 1, .gpa = 16 * P, .size = 4 * P, .hva = HVA + 2 * P);
        c = only_conflict();
        assert_int_equal(c->gpa, 2 * P);
        assert_int_equal(c->requested_gpa, 16 * P);
        assert_int_equal(c->size, 2 * P);
        assert_null(c->backing);
}

static void device_memory_in_the_other_address_space(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_allowed(f.vm, RULE_VMM_WINDOW, .as_id = 1, .gpa = P, .size = P, .hva = HVA);
}

static void device_memory_beside_the_other(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .gpa = 0, .size = 4 * P, .hva = HVA);
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = 4 * P, .hva = HVA + 4 * P);
        assert_int_equal(f.verdict.n_conflicts, 0);
}

static void ram_through_one_mapping(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA, .backing = f.ram);
        only_conflict();
}

static void ram_through_one_mapping_with_one_declaration(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA + P);
        assert_ptr_equal(only_conflict()->backing, f.ram);
        assert_int_equal(only_conflict()->offset, P);
}

static void device_memory_that_is_declared_later(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .gpa = 0, .size = P, .hva = HVA);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA, .backing = f.ram,
                       .offset = 3 * P);
        assert_ptr_equal(only_conflict()->backing, f.ram);
        assert_int_equal(only_conflict()->offset, 3 * P);
}

static void device_memory_of_two_vms_in_one_process(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA);
        assert_ptr_equal(only_conflict()->vm, f.vm);
}

static void device_memory_of_two_processes(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 2), 0);
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_ok(f.peer, .size = P, .hva = HVA);
}

/* ---- 5: two address spaces ---- */

static void ram_moved_in_the_other_address_space(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_allowed(f.vm, RULE_ADDRESS_SPACE_TRANSIT, .as_id = 1, .gpa = 32 * P, .size = 8 * P, .hva = HVA,
                       .backing = f.ram);
        assert_int_equal(only_conflict()->size, 8 * P);
}

static void ram_in_the_other_address_space_through_another_mapping(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .as_id = 1, .gpa = 32 * P, .size = 8 * P, .hva = HVA + 64 * P,
                       .backing = f.ram);
}

static void ram_moved_in_the_same_address_space(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 32 * P, .size = 8 * P, .hva = HVA,
                       .backing = f.ram);
}

static void ram_in_the_other_address_space_of_another_vm(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        have_ram(f.vm, f.ram);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .as_id = 1, .gpa = 32 * P, .size = 8 * P, .hva = HVA,
                       .backing = f.ram);
}

/* ---- 6: SMRAM ---- */

static void smram_window(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .gpa = 0, .size = SMRAM_PAGES * P, .hva = HVA, .backing = f.ram);
        assert_allowed(f.vm, RULE_SMRAM_WINDOW, .id = 1, .gpa = SMRAM, .size = SMRAM_PAGES * P, .hva = HVA,
                       .backing = f.ram);
}

static void smram_window_set_first(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = SMRAM + 31 * P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P);
        assert_allowed(f.vm, RULE_SMRAM_WINDOW, .id = 0, .gpa = 0, .size = 8 * P, .hva = HVA, .backing = f.ram);
}

static void smram_window_of_a_page_too_many(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .gpa = 0, .size = (SMRAM_PAGES + 1) * P, .hva = HVA, .backing = f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = SMRAM, .size = (SMRAM_PAGES + 1) * P, .hva = HVA,
                       .backing = f.ram);
}

static void smram_window_a_page_too_low(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = SMRAM - P, .size = P, .hva = HVA,
                       .backing = f.ram);
}

static void smram_window_a_page_too_high(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = SMRAM + SMRAM_PAGES * P, .size = P, .hva = HVA,
                       .backing = f.ram);
}

static void smram_window_through_another_mapping(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = SMRAM, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram);
}

static void smram_window_of_another_vm(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        have_ram(f.vm, f.ram);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .gpa = SMRAM, .size = P, .hva = HVA, .backing = f.ram);
}

/* ---- 7: declared shares ---- */

static void declared_share(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_allowed(f.peer, RULE_DECLARED_SHARE, .gpa = 5 * P, .size = 8 * P, .hva = HVA, .backing = f.ram);
        assert_ptr_equal(only_conflict()->vm, f.vm);
}

static void declared_share_in_the_order_of_the_peer(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_ok(f.peer, .gpa = 5 * P, .size = 8 * P, .hva = HVA, .backing = f.ram);
        assert_allowed(f.vm, RULE_DECLARED_SHARE, .size = 8 * P, .hva = HVA, .backing = f.ram);
}

static void share_that_is_not_declared(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .gpa = 5 * P, .size = 8 * P, .hva = HVA, .backing = f.ram);
}

static void share_of_another_backing(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_int_equal(backing_share(f.peer_ram, f.vm), 0);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .gpa = 5 * P, .size = 8 * P, .hva = HVA, .backing = f.ram);
}

static void share_that_was_taken_back(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        backing_unshare(f.ram, f.peer);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .gpa = 5 * P, .size = 8 * P, .hva = HVA, .backing = f.ram);
}

static void share_does_not_help_within_one_vm(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_ok(f.peer, .id = 0, .gpa = 0, .size = P, .hva = HVA, .backing = f.ram);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram);
}

static void share_between_two_peers(void **state) {
        VM *third = make_vm("third");

        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram);
        assert_refused(third, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.ram);
        assert_int_equal(backing_share(f.ram, third), 0);
        assert_allowed(third, RULE_DECLARED_SHARE, .size = P, .hva = HVA, .backing = f.ram);
}

static void share_that_the_live_slot_lacks(void **state) {
        (void) state;
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.ram);
}

static void share_through_one_process(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        have_ram(f.vm, f.ram);
        assert_allowed(f.peer, RULE_DECLARED_SHARE, .size = P, .hva = HVA, .backing = f.ram);
        only_conflict();
}

static void share_of_a_mapping_that_one_vm_declares(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        have_ram(f.vm, f.ram);
        assert_allowed(f.peer, RULE_DECLARED_SHARE, .size = P, .hva = HVA);
}

static void share_needs_every_file_that_is_declared(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        have_ram(f.vm, f.ram);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.peer_ram);
        assert_int_equal(backing_share(f.peer_ram, f.vm), 0);
        assert_allowed(f.peer, RULE_DECLARED_SHARE, .size = P, .hva = HVA, .backing = f.peer_ram);
}

/* ---- 8: anything else ---- */

static void undeclared_alias_names_the_common_bytes(void **state) {
        const Conflict *c;

        (void) state;
        assert_ok(f.vm, .id = 4, .as_id = 1, .gpa = 32 * P, .size = 8 * P, .hva = HVA, .backing = f.ram,
                  .offset = 16 * P);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .gpa = 100 * P, .size = 8 * P, .hva = HVA, .backing = f.ram,
                       .offset = 10 * P);
        c = only_conflict();
        assert_int_equal(c->rule, RULE_UNDECLARED_ALIAS);
        assert_ptr_equal(c->vm, f.vm);
        assert_int_equal(c->id, 4);
        assert_int_equal(c->as_id, 1);
        assert_int_equal(c->gpa, 32 * P);
        assert_int_equal(c->requested_gpa, 106 * P);
        assert_int_equal(c->size, 2 * P);
        assert_ptr_equal(c->backing, f.ram);
        assert_int_equal(c->offset, 16 * P);
}

static void same_file_through_two_mappings(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram);
        assert_int_equal(slot_count(f.vm), 1);
}

static void files_that_disagree_about_one_mapping(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA, .backing = f.ram,
                       .offset = 32 * P);
        assert_int_equal(only_conflict()->offset, 0);
}

static void file_and_mapping_that_show_different_overlaps(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA, .backing = f.ram,
                       .offset = 2 * P);
        assert_int_equal(f.verdict.n_conflicts, 2);
        assert_int_equal(f.verdict.conflicts[0].gpa, 0);
        assert_int_equal(f.verdict.conflicts[1].gpa, 2 * P);
}

/* ---- more than one, and changes ---- */

static void the_worst_decides_and_comes_first(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .flags = RO, .gpa = 0, .size = P, .hva = HVA, .backing = f.ram, .offset = 0);
        assert_ok(f.vm, .id = 1, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P);
        assert_ok(f.vm, .id = 2, .flags = RO, .gpa = 2 * P, .size = P, .hva = HVA + 2 * P, .backing = f.ram,
                  .offset = 2 * P);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 3, .flags = RO, .gpa = 16 * P, .size = 3 * P,
                       .hva = HVA + 64 * P, .backing = f.ram);
        assert_int_equal(f.verdict.n_conflicts, 3);
        assert_int_equal(f.verdict.conflicts[0].id, 1);
        assert_int_equal(f.verdict.conflicts[1].id, 0);
        assert_int_equal(f.verdict.conflicts[2].id, 2);
}

/* The same page of the same slot, by the file it is in: first one that is no backing, then by VM and name. */
static void conflicts_of_one_page_are_in_order_of_its_files(void **state) {
        const MappedRun foreign = { .kind = MAPPED_FILE, .hva = HVA, .size = P, .dev = 2, .ino = 1 };
        const Mapping seen = { .n_runs = 1, .runs = &foreign };
        Backing *const others[] = { NULL, f.peer_ram, f.ram };

        (void) state;
        f.vm->alias_policy = ALIAS_POLICY_OBSERVE;
        for (size_t i = 0; i < 3; i++) {
                size_t gmem_at = others[i] == f.ram ? 0 : 1;

                assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .backing = others[i],
                          .guest_memfd = f.gmem, .mapping = others[i] ? NULL : &seen);
                assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA,
                               .backing = f.gmem);
                assert_int_equal(f.verdict.n_conflicts, 2);
                assert_ptr_equal(f.verdict.conflicts[gmem_at].backing, f.gmem);
                assert_ptr_equal(f.verdict.conflicts[1 - gmem_at].backing, others[i]);
                assert_int_equal(f.verdict.conflicts[0].gpa, f.verdict.conflicts[1].gpa);
                assert_ok(f.vm, .id = 1, .size = 0);
                assert_ok(f.vm, .id = 0, .size = 0);
        }
}

static void the_list_of_conflicts_is_bounded(void **state) {
        (void) state;
        for (uint32_t i = 0; i < BACKING_PAGES; i++)
                assert_ok(f.vm, .id = i, .flags = RO, .gpa = i * P, .size = P, .hva = HVA + i * P, .backing = f.ram,
                          .offset = i * P);
        assert_ok(f.vm, .id = 100, .gpa = 100 * P, .size = P, .hva = HVA + 1000 * P);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 101, .flags = RO, .gpa = 200 * P, .size = BACKING_PAGES * P,
                       .hva = HVA + (1000 - BACKING_PAGES + 1) * P, .backing = f.ram);
        assert_int_equal(f.verdict.n_conflicts, VERDICT_CONFLICTS_MAX);
        assert_int_equal(f.verdict.conflicts[0].id, 100);
        assert_int_equal(f.verdict.conflicts[1].id, 0);
}

static void aliases_of_one_slot_are_bounded(void **state) {
        (void) state;
        for (uint32_t i = 0; i <= SLOT_ALIASES_MAX; i++)
                set(f.vm, (SlotSpec) { .id = i, .gpa = i * P, .size = P, .hva = HVA });
        assert_int_equal(f.verdict.outcome, OUTCOME_ALLOWED);
        assert_int_equal(f.verdict.n_conflicts, VERDICT_CONFLICTS_MAX);
        f.vm->alias_policy = ALIAS_POLICY_OBSERVE;
        for (uint32_t i = 1000; i < 1003; i++) {
                assert_refused(f.vm, RULE_TOO_MANY_ALIASES, .id = i, .gpa = i * P, .size = P, .hva = HVA);
                assert_int_equal(f.verdict.conflicts[0].rule, RULE_TOO_MANY_ALIASES);
                /* Nobody has looked any further. */
                assert_int_equal(f.verdict.conflicts[1].rule, RULE_VMM_WINDOW);
        }
}

static void same_frames_are_not_bounded(void **state) {
        (void) state;
        for (uint32_t i = 0; i <= SLOT_ALIASES_MAX; i++)
                assert_ok(f.vm, .id = i, .gpa = i * P, .size = P, .hva = HVA + i * P);
        assert_ok(f.vm, .as_id = 1, .gpa = 0, .size = (SLOT_ALIASES_MAX + 1) * P, .hva = HVA);
}

static void observing_vm_gets_its_slot(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        f.peer->alias_policy = ALIAS_POLICY_OBSERVE;
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.ram);
        assert_true(f.changed);
        assert_non_null(slot_find(f.peer, 0, 0));
}

static void observing_vm_does_not_excuse_the_other(void **state) {
        (void) state;
        f.vm->alias_policy = ALIAS_POLICY_OBSERVE;
        have_ram(f.vm, f.ram);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.ram);
        assert_false(f.changed);
        assert_null(slot_find(f.peer, 0, 0));
}

static void slot_is_no_alias_of_itself(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_ok(f.vm, .id = 0, .gpa = 4 * P, .size = 8 * P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .id = 0, .flags = SLOT_LOG_DIRTY_PAGES, .gpa = 4 * P, .size = 8 * P, .hva = HVA,
                  .backing = f.ram);
}

static void move_is_judged_at_its_new_place(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_ok(f.vm, .as_id = 1, .gpa = 0, .size = 8 * P, .hva = HVA + 64 * P, .backing = f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .as_id = 1, .gpa = P, .size = 8 * P, .hva = HVA + 64 * P,
                       .backing = f.ram);
        assert_int_equal(slot_find(f.vm, 1, 0)->spec.gpa, 0);
}

static void declaration_is_judged(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_ok(f.vm, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA + 64 * P);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 16 * P, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram);
        assert_null(slot_find(f.vm, 0, 1)->spec.backing);
}

static void delete_is_never_an_alias(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        f.peer->alias_policy = ALIAS_POLICY_OBSERVE;
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.peer, .size = 0, .hva = HVA, .backing = f.ram);
}

static void deleted_slot_is_forgotten(void **state) {
        (void) state;
        have_ram(f.vm, f.ram);
        assert_ok(f.vm, .size = 0);
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(other_pages_of_the_same_file),
                TEST(same_address_in_two_processes),
                TEST(same_frame_in_the_other_address_space),
                TEST(same_frame_of_private_memory),
                TEST(next_frame_in_the_other_address_space),
                TEST(same_frame_of_another_vm),
                TEST(private_memory_mapped_into_another_slot),
                TEST(private_memory_bound_after_its_mapping),
                TEST(private_memory_mapped_past_its_binding),
                TEST(private_memory_mapped_twice),
                TEST(private_memory_in_another_vm),
                TEST(private_memory_is_no_rom),
                TEST(private_memory_cannot_be_shared),
                TEST(private_memory_has_no_windows),
                TEST(private_memory_known_by_its_mapping),
                TEST(own_pair),
                TEST(own_pair_that_is_shifted),
                TEST(own_pair_of_other_pages),
                TEST(own_pair_and_another_slot_is_one_conflict),
                TEST(rom_shown_twice),
                TEST(rom_in_two_vms),
                TEST(rom_with_a_writable_shadow),
                TEST(ram_with_a_read_only_shadow),
                TEST(rom_comes_before_windows),
                TEST(device_memory_through_one_mapping),
                TEST(device_memory_in_the_other_address_space),
                TEST(device_memory_beside_the_other),
                TEST(ram_through_one_mapping),
                TEST(ram_through_one_mapping_with_one_declaration),
                TEST(device_memory_that_is_declared_later),
                TEST(device_memory_of_two_vms_in_one_process),
                TEST(device_memory_of_two_processes),
                TEST(ram_moved_in_the_other_address_space),
                TEST(ram_in_the_other_address_space_through_another_mapping),
                TEST(ram_moved_in_the_same_address_space),
                TEST(ram_in_the_other_address_space_of_another_vm),
                TEST(smram_window),
                TEST(smram_window_set_first),
                TEST(smram_window_of_a_page_too_many),
                TEST(smram_window_a_page_too_low),
                TEST(smram_window_a_page_too_high),
                TEST(smram_window_through_another_mapping),
                TEST(smram_window_of_another_vm),
                TEST(declared_share),
                TEST(declared_share_in_the_order_of_the_peer),
                TEST(share_that_is_not_declared),
                TEST(share_of_another_backing),
                TEST(share_that_was_taken_back),
                TEST(share_does_not_help_within_one_vm),
                TEST(share_between_two_peers),
                TEST(share_that_the_live_slot_lacks),
                TEST(share_through_one_process),
                TEST(share_of_a_mapping_that_one_vm_declares),
                TEST(share_needs_every_file_that_is_declared),
                TEST(undeclared_alias_names_the_common_bytes),
                TEST(same_file_through_two_mappings),
                TEST(files_that_disagree_about_one_mapping),
                TEST(file_and_mapping_that_show_different_overlaps),
                TEST(the_worst_decides_and_comes_first),
                TEST(conflicts_of_one_page_are_in_order_of_its_files),
                TEST(the_list_of_conflicts_is_bounded),
                TEST(aliases_of_one_slot_are_bounded),
                TEST(same_frames_are_not_bounded),
                TEST(observing_vm_gets_its_slot),
                TEST(observing_vm_does_not_excuse_the_other),
                TEST(slot_is_no_alias_of_itself),
                TEST(move_is_judged_at_its_new_place),
                TEST(declaration_is_judged),
                TEST(delete_is_never_an_alias),
                TEST(deleted_slot_is_forgotten),
        };

        return cmocka_run_group_tests_name("alias", tests, NULL, NULL);
}
