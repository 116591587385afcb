/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* KVM's rules, one by one and in KVM's order. Where two tests stand side by side, the first is just inside the limit
 * and the second just outside. */

#include "core-fixture.h"

#define USER_END  ((UINT64_C(1) << 47) - P)
#define PAGES_MAX ((UINT64_C(1) << 31) - 1)

static void slot_id_below_the_maximum(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 32763, .size = P, .hva = HVA);
}

static void slot_id_too_large(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_SLOT_ID, EINVAL, .id = 32764, .size = P, .hva = HVA);
}

static void slot_id_comes_before_flags(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_SLOT_ID, EINVAL, .id = 32764, .flags = 8, .size = P, .hva = HVA);
}

static void second_address_space(void **state) {
        (void) state;
        assert_ok(f.vm, .as_id = 1, .size = P, .hva = HVA);
}

static void third_address_space(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_SLOT_ID, EINVAL, .as_id = 2, .size = P, .hva = HVA);
}

static void address_space_comes_after_the_guest_memfd_offset(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_MEMFD_OFFSET, EINVAL, .as_id = 2, .flags = SLOT_GUEST_MEMFD, .size = P,
                           .hva = HVA, .guest_memfd = f.gmem, .guest_memfd_offset = 1);
        assert_kvm_refuses(f.vm, RULE_SLOT_ID, EINVAL, .as_id = 2, .size = P, .gpa = -P, .hva = HVA);
}

static void legal_flags(void **state) {
        static const uint32_t legal[] = { 0, SLOT_LOG_DIRTY_PAGES, SLOT_READONLY,
                                          SLOT_LOG_DIRTY_PAGES | SLOT_READONLY };

        (void) state;
        for (uint32_t i = 0; i < 4; i++)
                assert_ok(f.vm, .id = i, .flags = legal[i], .gpa = i * P, .size = P, .hva = HVA + i * P);
        assert_ok(f.vm, .id = 4, .flags = SLOT_GUEST_MEMFD, .gpa = 4 * P, .size = P, .hva = HVA + 4 * P,
                  .guest_memfd = f.gmem);
}

static void unknown_flag(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_FLAGS, EINVAL, .flags = 8, .size = P, .hva = HVA);
}

static void guest_memfd_with_dirty_log(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_FLAGS, EINVAL, .flags = SLOT_GUEST_MEMFD | SLOT_LOG_DIRTY_PAGES, .size = P,
                           .hva = HVA, .guest_memfd = f.gmem);
}

static void guest_memfd_read_only(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_FLAGS, EINVAL, .flags = SLOT_GUEST_MEMFD | SLOT_READONLY, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem);
}

static void size_not_aligned(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_MEMORY_SIZE, EINVAL, .size = P + 1, .hva = HVA);
}

static void size_of_the_maximum(void **state) {
        (void) state;
        assert_ok(f.vm, .size = PAGES_MAX * P, .hva = 0);
}

static void size_too_large(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_MEMORY_SIZE, EINVAL, .size = (PAGES_MAX + 1) * P, .hva = 0);
}

static void size_limit_comes_after_the_guest_address(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .gpa = -P, .size = (PAGES_MAX + 1) * P, .hva = 0);
}

static void gpa_not_aligned(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .gpa = 1, .size = P, .hva = HVA);
}

static void gpa_comes_before_hva(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .gpa = 1, .size = P, .hva = HVA + 1);
}

static void gpa_range_that_ends_at_two_to_the_64(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .gpa = -P, .size = P, .hva = HVA);
}

static void hva_not_aligned(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_USERSPACE_ADDR, EINVAL, .size = P, .hva = HVA + 512);
}

static void hva_zero(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = 0);
}

static void hva_range_up_to_the_end_of_user_space(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 2 * P, .hva = USER_END - 2 * P);
}

static void hva_range_beyond_user_space(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_USERSPACE_ADDR, EINVAL, .size = 2 * P, .hva = USER_END - P);
        assert_kvm_refuses(f.vm, RULE_USERSPACE_ADDR, EINVAL, .size = P, .hva = USER_END);
}

static void hva_range_that_wraps(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_USERSPACE_ADDR, EINVAL, .size = 2 * P, .hva = -P);
}

static void hva_limit_holds_for_a_delete(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_USERSPACE_ADDR, EINVAL, .size = 0, .hva = USER_END + P);
        assert_ok(f.vm, .size = 0, .hva = USER_END);
}

static void guest_memfd_offset_not_aligned(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_MEMFD_OFFSET, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem, .guest_memfd_offset = 512);
}

static void guest_memfd_offset_that_wraps(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_MEMFD_OFFSET, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem, .guest_memfd_offset = -P);
}

static void guest_memfd_offset_without_the_flag_is_ignored(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA, .guest_memfd = f.ram, .guest_memfd_offset = 512);
        assert_null(slot_guest_memfd(slot_find(f.vm, 0, 0)));
        assert_int_equal(slot_spec(slot_find(f.vm, 0, 0)).guest_memfd_offset, 0);
}

static void delete_of_no_slot(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_NO_SUCH_SLOT, EINVAL, .size = 0);
}

static void delete_looks_at_one_address_space(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_NO_SUCH_SLOT, EINVAL, .as_id = 1, .size = 0);
}

static void delete_ignores_what_it_does_not_need(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .gpa = MAX_GPA, .size = 0, .hva = P, .backing = f.peer_ram,
                  .offset = 1, .guest_memfd = NULL);
        assert_true(f.changed);
        assert_int_equal(slot_count(f.vm), 0);
}

static void delete_with_an_illegal_flag(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_FLAGS, EINVAL, .flags = 8, .size = 0);
}

static void delete_of_a_guest_memfd_slot(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
        assert_ok(f.vm, .size = 0);
        assert_int_equal(f.gmem->n_slots, 0);
}

static void move_with_another_dirty_log(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_ok(f.vm, .flags = SLOT_LOG_DIRTY_PAGES, .gpa = 8 * P, .size = P, .hva = HVA);
        assert_true(f.changed);
}

static void move_onto_a_part_of_itself(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 4 * P, .hva = HVA);
        assert_ok(f.vm, .gpa = P, .size = 4 * P, .hva = HVA);
}

static void dirty_log_switched(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_ok(f.vm, .flags = SLOT_LOG_DIRTY_PAGES, .size = P, .hva = HVA);
        assert_true(f.changed);
}

static void size_of_a_live_slot(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_SLOT_IMMUTABLE, EINVAL, .size = 2 * P, .hva = HVA);
}

static void hva_of_a_live_slot(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_SLOT_IMMUTABLE, EINVAL, .size = P, .hva = HVA + P);
}

static void read_only_of_a_live_slot(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_SLOT_IMMUTABLE, EINVAL, .flags = SLOT_READONLY, .size = P, .hva = HVA);
}

static void guest_memfd_given_to_a_live_slot(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_SLOT_IMMUTABLE, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem);
}

static void guest_memfd_slot_set_again(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
        assert_kvm_refuses(f.vm, RULE_GUEST_MEMFD_IMMUTABLE, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem);
        assert_kvm_refuses(f.vm, RULE_GUEST_MEMFD_IMMUTABLE, EINVAL, .size = P, .hva = HVA);
}

static void gfn_overlap_names_the_common_bytes(void **state) {
        const Conflict *c;

        (void) state;
        assert_ok(f.vm, .id = 7, .gpa = 4 * P, .size = 4 * P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_GFN_OVERLAP, EEXIST, .id = 8, .gpa = 6 * P, .size = 4 * P, .hva = HVA + 8 * P);
        assert_int_equal(f.verdict.n_conflicts, 1);
        c = &f.verdict.conflicts[0];
        assert_int_equal(c->rule, RULE_GFN_OVERLAP);
        assert_ptr_equal(c->vm, f.vm);
        assert_int_equal(c->id, 7);
        assert_int_equal(c->as_id, 0);
        assert_int_equal(c->gpa, 6 * P);
        assert_int_equal(c->requested_gpa, 6 * P);
        assert_int_equal(c->size, 2 * P);
        assert_null(c->backing);
}

static void gfn_neighbours(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 4 * P, .size = 4 * P, .hva = HVA);
        assert_ok(f.vm, .id = 2, .gpa = 8 * P, .size = P, .hva = HVA + 8 * P);
        assert_ok(f.vm, .id = 3, .gpa = 3 * P, .size = P, .hva = HVA + 9 * P);
}

static void gfn_overlap_lists_all(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = P, .size = P, .hva = HVA);
        assert_ok(f.vm, .id = 2, .gpa = 3 * P, .size = P, .hva = HVA + P);
        assert_kvm_refuses(f.vm, RULE_GFN_OVERLAP, EEXIST, .id = 3, .size = 8 * P, .hva = HVA + 8 * P);
        assert_int_equal(f.verdict.n_conflicts, 2);
        assert_int_equal(f.verdict.conflicts[0].id, 1);
        assert_int_equal(f.verdict.conflicts[1].id, 2);
}

static void gfn_overlap_lists_the_lowest_of_many(void **state) {
        (void) state;
        for (uint32_t i = 0; i <= VERDICT_CONFLICTS_MAX; i++)
                assert_ok(f.vm, .id = 100 - i, .gpa = i * P, .size = P, .hva = HVA + i * P);
        assert_kvm_refuses(f.vm, RULE_GFN_OVERLAP, EEXIST, .id = 200, .size = 100 * P, .hva = HVA + 100 * P);
        assert_int_equal(f.verdict.n_conflicts, VERDICT_CONFLICTS_MAX);
        assert_int_equal(f.verdict.conflicts[0].gpa, (VERDICT_CONFLICTS_MAX - 1) * P);
        assert_int_equal(f.verdict.conflicts[VERDICT_CONFLICTS_MAX - 1].gpa, 0);
}

static void gfn_overlap_of_a_move(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 0, .size = P, .hva = HVA);
        assert_ok(f.vm, .id = 2, .gpa = P, .size = P, .hva = HVA + P);
        assert_kvm_refuses(f.vm, RULE_GFN_OVERLAP, EEXIST, .id = 2, .gpa = 0, .size = P, .hva = HVA + P);
        assert_int_equal(slot_find(f.vm, 0, 2)->spec.gpa, P);
}

static void gfns_of_other_tables_do_not_overlap(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_ok(f.vm, .as_id = 1, .size = P, .hva = HVA + P);
        assert_ok(f.peer, .size = P, .hva = HVA);
}

static void gfn_overlap_comes_before_the_guest_memfd(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_GFN_OVERLAP, EEXIST, .id = 2, .flags = SLOT_GUEST_MEMFD, .size = P,
                           .hva = HVA + P, .guest_memfd = NULL);
}

static void no_guest_memfd(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_NOT_GUEST_MEMFD, EBADF, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA);
}

static void memfd_as_guest_memfd(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_NOT_GUEST_MEMFD, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.ram);
}

static void guest_memfd_of_another_vm(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.peer_gmem, f.vm), 0);
        assert_kvm_refuses(f.vm, RULE_FOREIGN_GUEST_MEMFD, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.peer_gmem);
}

static void guest_memfd_range_up_to_its_end(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = 2 * P, .hva = HVA, .guest_memfd = f.gmem,
                  .guest_memfd_offset = (BACKING_PAGES - 2) * P);
}

static void guest_memfd_range_beyond_its_end(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_BEYOND_BACKING, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = 2 * P, .hva = HVA,
                           .guest_memfd = f.gmem, .guest_memfd_offset = (BACKING_PAGES - 1) * P);
}

static void guest_memfd_range_that_fools_signed_sums(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_BEYOND_BACKING, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = 4 * P, .hva = HVA,
                           .guest_memfd = f.gmem, .guest_memfd_offset = INT64_MAX - (P - 1));
}

static void binding_overlap_names_the_common_bytes(void **state) {
        const Conflict *c;

        (void) state;
        assert_ok(f.vm, .id = 1, .flags = SLOT_GUEST_MEMFD, .gpa = 16 * P, .size = 4 * P, .hva = HVA,
                  .guest_memfd = f.gmem, .guest_memfd_offset = 8 * P);
        assert_kvm_refuses(f.vm, RULE_BINDING_OVERLAP, EINVAL, .id = 2, .flags = SLOT_GUEST_MEMFD, .gpa = 32 * P,
                           .size = 4 * P, .hva = HVA + 8 * P, .guest_memfd = f.gmem, .guest_memfd_offset = 10 * P);
        assert_int_equal(f.verdict.n_conflicts, 1);
        c = &f.verdict.conflicts[0];
        assert_int_equal(c->rule, RULE_BINDING_OVERLAP);
        assert_ptr_equal(c->vm, f.vm);
        assert_int_equal(c->id, 1);
        assert_int_equal(c->gpa, 18 * P);
        assert_int_equal(c->requested_gpa, 32 * P);
        assert_int_equal(c->size, 2 * P);
        assert_ptr_equal(c->backing, f.gmem);
        assert_int_equal(c->offset, 10 * P);
}

static void binding_overlaps_are_bounded(void **state) {
        const uint32_t n = VERDICT_CONFLICTS_MAX + 1;
        BackingSpec spec = {
                .name = "large",
                .kind = BACKING_GUEST_MEMFD,
                .size = n * P,
                .page_size = P,
                .dev = 2,
                .ino = 1,
        };
        Backing *large;

        (void) state;
        assert_int_equal(backing_new(f.vm, &spec, &large), 0);
        for (uint32_t i = 0; i < n; i++)
                assert_ok(f.vm, .id = i, .flags = SLOT_GUEST_MEMFD, .gpa = i * P, .size = P, .hva = HVA + i * P,
                          .guest_memfd = large, .guest_memfd_offset = i * P);
        assert_kvm_refuses(f.vm, RULE_BINDING_OVERLAP, EINVAL, .id = n, .flags = SLOT_GUEST_MEMFD, .gpa = n * P,
                           .size = n * P, .hva = HVA + n * P, .guest_memfd = large);
        assert_int_equal(f.verdict.n_conflicts, VERDICT_CONFLICTS_MAX);
        assert_int_equal(f.verdict.conflicts[0].id, 0);
}

static void binding_neighbours(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .flags = SLOT_GUEST_MEMFD, .size = 4 * P, .hva = HVA, .guest_memfd = f.gmem);
        assert_ok(f.vm, .id = 2, .flags = SLOT_GUEST_MEMFD, .gpa = 8 * P, .size = P, .hva = HVA + 8 * P,
                  .guest_memfd = f.gmem, .guest_memfd_offset = 4 * P);
}

static void binding_overlap_across_address_spaces(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
        assert_kvm_refuses(f.vm, RULE_BINDING_OVERLAP, EINVAL, .as_id = 1, .flags = SLOT_GUEST_MEMFD, .size = P,
                           .hva = HVA, .guest_memfd = f.gmem);
}

static void binding_comes_before_the_last_gfn(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
        assert_kvm_refuses(f.vm, RULE_BINDING_OVERLAP, EINVAL, .id = 2, .flags = SLOT_GUEST_MEMFD, .gpa = MAX_GPA,
                           .size = P, .hva = HVA + P, .guest_memfd = f.gmem);
}

static void binding_after_a_delete(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
        assert_ok(f.vm, .id = 1, .size = 0);
        assert_ok(f.vm, .id = 2, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
}

static void gpa_range_up_to_the_maximum(void **state) {
        (void) state;
        assert_ok(f.vm, .gpa = MAX_GPA - 2 * P, .size = 2 * P, .hva = HVA);
}

static void gpa_range_beyond_the_maximum(void **state) {
        (void) state;
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .gpa = MAX_GPA - P, .size = 2 * P, .hva = HVA);
}

static void move_beyond_the_maximum(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 2 * P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .gpa = MAX_GPA - P, .size = 2 * P, .hva = HVA);
}

static int setup_without_maximum(void **state) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);

        (void) state;
        return setup_with(&kvm);
}

static void no_maximum(void **state) {
        (void) state;
        assert_ok(f.vm, .gpa = -4 * P, .size = 3 * P, .hva = HVA);
}

static void shared_side_up_to_the_end_of_its_backing(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 2 * P, .hva = HVA, .backing = f.ram, .offset = (BACKING_PAGES - 2) * P);
}

static void shared_side_beyond_its_backing(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_BEYOND_BACKING, .size = 2 * P, .hva = HVA, .backing = f.ram,
                       .offset = (BACKING_PAGES - 1) * P);
        assert_refused(f.vm, RULE_BEYOND_BACKING, .size = 2 * P, .hva = HVA, .backing = f.ram, .offset = -P);
        assert_int_equal(slot_count(f.vm), 0);
}

static void shared_side_at_no_page(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_BEYOND_BACKING, .size = P, .hva = HVA, .backing = f.ram, .offset = 512);
}

static void shared_side_is_none_of_kvms_business(void **state) {
        SlotSpec spec = { .size = P, .hva = HVA, .backing = f.ram, .offset = -P };

        (void) state;
        assert_true(kvm_rules_accept(f.vm, &spec, &f.verdict));
        spec.hva = 1;
        assert_false(kvm_rules_accept(f.vm, &spec, &f.verdict));
        assert_int_equal(f.verdict.rule, RULE_USERSPACE_ADDR);
}

static void observing_vm_is_refused_the_same(void **state) {
        (void) state;
        f.vm->alias_policy = ALIAS_POLICY_OBSERVE;
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .gpa = 1, .size = P, .hva = HVA);
        assert_refused(f.vm, RULE_BEYOND_BACKING, .size = P, .hva = HVA, .backing = f.ram, .offset = -P);
        assert_int_equal(slot_count(f.vm), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(slot_id_below_the_maximum),
                TEST(slot_id_too_large),
                TEST(slot_id_comes_before_flags),
                TEST(second_address_space),
                TEST(third_address_space),
                TEST(address_space_comes_after_the_guest_memfd_offset),
                TEST(legal_flags),
                TEST(unknown_flag),
                TEST(guest_memfd_with_dirty_log),
                TEST(guest_memfd_read_only),
                TEST(size_not_aligned),
                TEST(size_of_the_maximum),
                TEST(size_too_large),
                TEST(size_limit_comes_after_the_guest_address),
                TEST(gpa_not_aligned),
                TEST(gpa_comes_before_hva),
                TEST(gpa_range_that_ends_at_two_to_the_64),
                TEST(hva_not_aligned),
                TEST(hva_zero),
                TEST(hva_range_up_to_the_end_of_user_space),
                TEST(hva_range_beyond_user_space),
                TEST(hva_range_that_wraps),
                TEST(hva_limit_holds_for_a_delete),
                TEST(guest_memfd_offset_not_aligned),
                TEST(guest_memfd_offset_that_wraps),
                TEST(guest_memfd_offset_without_the_flag_is_ignored),
                TEST(delete_of_no_slot),
                TEST(delete_looks_at_one_address_space),
                TEST(delete_ignores_what_it_does_not_need),
                TEST(delete_with_an_illegal_flag),
                TEST(delete_of_a_guest_memfd_slot),
                TEST(move_with_another_dirty_log),
                TEST(move_onto_a_part_of_itself),
                TEST(dirty_log_switched),
                TEST(size_of_a_live_slot),
                TEST(hva_of_a_live_slot),
                TEST(read_only_of_a_live_slot),
                TEST(guest_memfd_given_to_a_live_slot),
                TEST(guest_memfd_slot_set_again),
                TEST(gfn_overlap_names_the_common_bytes),
                TEST(gfn_neighbours),
                TEST(gfn_overlap_lists_all),
                TEST(gfn_overlap_lists_the_lowest_of_many),
                TEST(gfn_overlap_of_a_move),
                TEST(gfns_of_other_tables_do_not_overlap),
                TEST(gfn_overlap_comes_before_the_guest_memfd),
                TEST(no_guest_memfd),
                TEST(memfd_as_guest_memfd),
                TEST(guest_memfd_of_another_vm),
                TEST(guest_memfd_range_up_to_its_end),
                TEST(guest_memfd_range_beyond_its_end),
                TEST(guest_memfd_range_that_fools_signed_sums),
                TEST(binding_overlap_names_the_common_bytes),
                TEST(binding_overlaps_are_bounded),
                TEST(binding_neighbours),
                TEST(binding_overlap_across_address_spaces),
                TEST(binding_comes_before_the_last_gfn),
                TEST(binding_after_a_delete),
                TEST(gpa_range_up_to_the_maximum),
                TEST(gpa_range_beyond_the_maximum),
                TEST(move_beyond_the_maximum),
                cmocka_unit_test_setup_teardown(no_maximum, setup_without_maximum, teardown),
                TEST(shared_side_up_to_the_end_of_its_backing),
                TEST(shared_side_beyond_its_backing),
                TEST(shared_side_at_no_page),
                TEST(shared_side_is_none_of_kvms_business),
                TEST(observing_vm_is_refused_the_same),
        };

        return cmocka_run_group_tests_name("kvm-rules", tests, NULL, NULL);
}
