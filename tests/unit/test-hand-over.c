/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A VM that goes from one VMM to another: alias rule 7 and its neighbours, and what becomes of the slots of either. */

#include <limits.h>

#include "core-fixture.h"

#include "core/hand-over.h"

#define RO SLOT_READONLY
#define GM SLOT_GUEST_MEMFD

/* The VM is attached and shows its RAM. */
static int setup_attached(void **state) {
        if (setup(state) < 0)
                return -1;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_ok(f.vm, .id = 0, .gpa = 0, .size = 8 * P, .hva = HVA, .backing = f.ram);
        return 0;
}

static void hand_over(void) {
        assert_int_equal(vm_hand_over(f.vm, 2), 0);
}

#define IN_HAND_OVER(function) cmocka_unit_test_setup_teardown(function, setup_attached, teardown)

/* ---- the two tables ---- */

static void the_new_table_is_empty(void **state) {
        (void) state;
        f.vm->userdata = &f;
        hand_over();
        assert_int_equal(slot_count(f.vm), 0);
        assert_int_equal(slot_count(f.vm->outgoing), 1);
        assert_int_equal(f.registry->n_slots, 1);
        assert_int_equal(f.registry->n_vms, 2);
        assert_int_equal(f.vm->state, VM_ATTACHED);
        assert_ptr_equal(slot_find(f.vm->outgoing, 0, 0)->vm, f.vm->outgoing);
        assert_ptr_equal(vm_whole(f.vm->outgoing), f.vm);
        assert_ptr_equal(vm_whole(f.vm), f.vm);
        assert_null(f.vm->userdata);
        assert_ptr_equal(f.vm->outgoing->userdata, &f);
        f.vm->outgoing->userdata = NULL;
        assert_ptr_equal(registry_find_vm(f.registry, "vm"), f.vm);
}

static void kvms_rules_see_one_table_each(void **state) {
        (void) state;
        hand_over();
        assert_kvm_refuses(f.vm, RULE_NO_SUCH_SLOT, EINVAL, .id = 0, .size = 0);
        assert_allowed(f.vm, RULE_HAND_OVER, .id = 5, .gpa = 4 * P, .size = 8 * P, .hva = HVA, .backing = f.ram);
        assert_kvm_refuses(f.vm->outgoing, RULE_SLOT_IMMUTABLE, EINVAL, .id = 0, .size = 4 * P, .hva = HVA,
                           .backing = f.ram);
        assert_ok(f.vm->outgoing, .id = 0, .size = 0);
        assert_kvm_refuses(f.vm->outgoing, RULE_NO_SUCH_SLOT, EINVAL, .id = 5, .size = 0);
}

static void attributes_are_each_ones_own(void **state) {
        uint64_t gpa, size;

        (void) state;
        assert_int_equal(attributes_set(&f.vm->private_ranges, P, 0, P, true), 0);
        hand_over();
        assert_false(attributes_next_private(&f.vm->private_ranges, 0, 8 * P, &gpa, &size));
        assert_true(attributes_next_private(&f.vm->outgoing->private_ranges, 0, 8 * P, &gpa, &size));
        assert_int_equal(attributes_set(&f.vm->private_ranges, P, 4 * P, P, true), 0);
        vm_take_back(f.vm);
        assert_true(attributes_next_private(&f.vm->private_ranges, 0, 8 * P, &gpa, &size));
        assert_int_equal(gpa, 0);
        assert_false(attributes_next_private(&f.vm->private_ranges, P, 7 * P, &gpa, &size));
}

static void attributes_of_the_outgoing_vmm_change(void **state) {
        uint64_t gpa, size;

        (void) state;
        assert_int_equal(attributes_set(&f.vm->private_ranges, P, 0, 2 * P, true), 0);
        hand_over();
        assert_int_equal(attributes_set(&f.vm->outgoing->private_ranges, P, P, P, false), 0);
        assert_int_equal(attributes_set(&f.vm->outgoing->private_ranges, P, 4 * P, P, true), 0);
        vm_take_back(f.vm);
        assert_int_equal(f.vm->private_ranges.n_ranges, 2);
        assert_int_equal(attributes_set(&f.vm->private_ranges, P, 0, P, false), 0);
        assert_true(attributes_next_private(&f.vm->private_ranges, 0, 8 * P, &gpa, &size));
        assert_int_equal(gpa, 4 * P);
        assert_int_equal(vm_hand_over(f.vm, 3), 0);
        vm_end_outgoing(f.vm);
        assert_int_equal(f.vm->private_ranges.n_ranges, 0);
}

/* ---- rule 7 ---- */

static void memory_of_the_outgoing_vmm(void **state) {
        (void) state;
        hand_over();
        assert_allowed(f.vm, RULE_HAND_OVER, .id = 0, .gpa = 16 * P, .size = 8 * P, .hva = HVA, .backing = f.ram);
        assert_int_equal(f.verdict.n_conflicts, 1);
        assert_ptr_equal(f.verdict.conflicts[0].vm, f.vm->outgoing);
        assert_true(f.changed);
}

static void memory_of_the_new_vmm(void **state) {
        (void) state;
        hand_over();
        assert_ok(f.vm, .size = 8 * P, .hva = HVA, .backing = f.ram, .offset = 8 * P);
        assert_allowed(f.vm->outgoing, RULE_HAND_OVER, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram, .offset = 9 * P);
        assert_ptr_equal(f.verdict.conflicts[0].vm, f.vm);
}

/* As declared of a VMM alone it would be an alias of its own. */
static void twice_in_the_new_vmm(void **state) {
        (void) state;
        hand_over();
        assert_allowed(f.vm, RULE_HAND_OVER, .id = 0, .size = 8 * P, .hva = HVA, .backing = f.ram);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram, .offset = 7 * P);
}

static void twice_in_the_outgoing_vmm(void **state) {
        (void) state;
        hand_over();
        assert_refused(f.vm->outgoing, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram, .offset = 7 * P);
}

static void after_the_outgoing_vmm_has_exited(void **state) {
        (void) state;
        hand_over();
        vm_end_outgoing(f.vm);
        assert_ok(f.vm, .size = 8 * P, .hva = HVA, .backing = f.ram);
        assert_int_equal(f.verdict.rule, RULE_NONE);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram, .offset = 7 * P);
}

static void before_the_hand_over(void **state) {
        (void) state;
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA + 64 * P,
                       .backing = f.ram, .offset = 7 * P);
}

static void private_memory_is_not_handed_over(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .flags = GM, .gpa = 8 * P, .size = P, .hva = HVA + 8 * P, .guest_memfd = f.gmem);
        hand_over();
        assert_refused(f.vm, RULE_PRIVATE_ALIAS, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA, .backing = f.gmem);
        assert_kvm_refuses(f.vm, RULE_FOREIGN_GUEST_MEMFD, EINVAL, .id = 1, .flags = GM, .gpa = 8 * P, .size = P,
                           .hva = HVA, .guest_memfd = f.gmem);
}

static void each_vmm_binds_its_own_guest_memfd(void **state) {
        Backing *own;

        (void) state;
        hand_over();
        own = make_backing(f.vm, "own", BACKING_GUEST_MEMFD);
        assert_ok(f.vm, .id = 1, .flags = GM, .gpa = 8 * P, .size = P, .hva = HVA, .guest_memfd = own);
        assert_ok(f.vm->outgoing, .id = 1, .flags = GM, .gpa = 8 * P, .size = P, .hva = HVA + 8 * P,
                  .guest_memfd = f.gmem);
        assert_kvm_refuses(f.vm->outgoing, RULE_FOREIGN_GUEST_MEMFD, EINVAL, .id = 2, .flags = GM, .gpa = 9 * P,
                           .size = P, .hva = HVA + 9 * P, .guest_memfd = own);
}

/* Two read-only slots need no other reason. */
static void read_only_memory(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .flags = RO, .gpa = 8 * P, .size = P, .hva = HVA + 8 * P, .backing = f.ram,
                  .offset = 8 * P);
        hand_over();
        assert_allowed(f.vm, RULE_ROM_SHADOW, .id = 1, .flags = RO, .gpa = 8 * P, .size = P, .hva = HVA,
                       .backing = f.ram, .offset = 8 * P);
        assert_allowed(f.vm, RULE_HAND_OVER, .id = 2, .gpa = 9 * P, .size = P, .hva = HVA + P, .backing = f.ram);
}

static void another_vm_is_not_in_the_hand_over(void **state) {
        (void) state;
        hand_over();
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.ram);
        assert_ptr_equal(f.verdict.conflicts[0].vm, f.vm->outgoing);
}

static void a_share_holds_for_both(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_int_equal(vm_attach(f.peer, 3), 0);
        hand_over();
        assert_allowed(f.peer, RULE_DECLARED_SHARE, .size = P, .hva = HVA, .backing = f.ram);
        assert_int_equal(vm_hand_over(f.peer, 4), 0);
        assert_allowed(f.peer, RULE_DECLARED_SHARE, .size = P, .hva = HVA, .backing = f.ram);
        assert_int_equal(f.verdict.n_conflicts, 2);
        assert_int_equal(backing_count_slots_of(f.ram, f.peer), 2);
}

static void a_share_for_reading_holds_for_both(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.peer, 3), 0);
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram, .offset = 8 * P);
        assert_int_equal(vm_hand_over(f.peer, 4), 0);
        assert_int_equal(backing_share_read_only(f.ram, f.peer), CORE_E_IN_USE);
        vm_end_outgoing(f.peer);
        assert_int_equal(backing_share_read_only(f.ram, f.peer), 0);
        assert_int_equal(vm_hand_over(f.peer, 5), 0);
        assert_refused(f.peer->outgoing, RULE_SHARE_READ_ONLY, .size = P, .hva = HVA, .backing = f.ram,
                       .offset = 8 * P);
}

static void the_owner_is_no_other_vm(void **state) {
        (void) state;
        hand_over();
        assert_null(backing_shown_by_other(f.ram));
        assert_int_equal(vm_attach(f.peer, 3), 0);
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram, .offset = 8 * P);
        assert_int_equal(vm_hand_over(f.peer, 4), 0);
        assert_ptr_equal(backing_shown_by_other(f.ram), f.peer);
}

/* ---- how it ends ---- */

static void the_outgoing_vmm_exits(void **state) {
        (void) state;
        hand_over();
        assert_allowed(f.vm, RULE_HAND_OVER, .id = 3, .size = 8 * P, .hva = HVA, .backing = f.ram);
        vm_end_outgoing(f.vm);
        assert_null(f.vm->outgoing);
        assert_int_equal(f.vm->state, VM_ATTACHED);
        assert_int_equal(slot_count(f.vm), 1);
        assert_non_null(slot_find(f.vm, 0, 3));
        assert_int_equal(f.ram->n_slots, 1);
        assert_int_equal(f.registry->n_slots, 1);
}

static void the_new_vmm_exits_first(void **state) {
        (void) state;
        f.vm->userdata = &f;
        hand_over();
        assert_allowed(f.vm, RULE_HAND_OVER, .id = 3, .size = 8 * P, .hva = HVA, .backing = f.ram);
        vm_take_back(f.vm);
        assert_null(f.vm->outgoing);
        assert_ptr_equal(f.vm->userdata, &f);
        f.vm->userdata = NULL;
        assert_int_equal(f.vm->state, VM_ATTACHED);
        assert_int_equal(slot_count(f.vm), 1);
        assert_ptr_equal(slot_find(f.vm, 0, 0)->vm, f.vm);
        assert_int_equal(f.ram->n_slots, 1);
        /* Its address space is the former one again. */
        assert_allowed(f.vm, RULE_SMRAM_WINDOW, .id = 1, .gpa = UINT64_C(0xfeda0000), .size = P, .hva = HVA);
}

static void guest_memfd_after_it_was_taken_back(void **state) {
        Backing *of_new, *of_third;

        (void) state;
        hand_over();
        of_new = make_backing(f.vm, "new", BACKING_GUEST_MEMFD);
        vm_take_back(f.vm);
        assert_ok(f.vm, .id = 1, .flags = GM, .gpa = 8 * P, .size = P, .hva = HVA + 8 * P, .guest_memfd = f.gmem);
        assert_kvm_refuses(f.vm, RULE_FOREIGN_GUEST_MEMFD, EINVAL, .id = 2, .flags = GM, .gpa = 9 * P, .size = P,
                           .hva = HVA + 9 * P, .guest_memfd = of_new);
        assert_int_equal(vm_hand_over(f.vm, 3), 0);
        of_third = make_backing(f.vm, "third", BACKING_GUEST_MEMFD);
        assert_int_not_equal(of_third->vmm_serial, of_new->vmm_serial);
        assert_int_not_equal(of_third->vmm_serial, f.gmem->vmm_serial);
}

static void a_chain_of_hand_overs(void **state) {
        (void) state;
        for (uint64_t mm = 2; mm < 6; mm++) {
                assert_int_equal(vm_hand_over(f.vm, mm), 0);
                assert_allowed(f.vm, RULE_HAND_OVER, .size = 8 * P, .hva = HVA, .backing = f.ram);
                vm_end_outgoing(f.vm);
        }
        vm_detach(f.vm);
        assert_int_equal(f.vm->state, VM_RETAINED);
        assert_int_equal(f.registry->n_slots, 0);
}

static void a_vm_is_freed_in_the_middle(void **state) {
        (void) state;
        hand_over();
        assert_allowed(f.vm, RULE_HAND_OVER, .size = 8 * P, .hva = HVA, .backing = f.ram);
        vm_free(f.vm);
        assert_int_equal(f.registry->n_slots, 0);
        assert_int_equal(f.registry->n_vms, 1);
}

static void an_address_space_of_two_vms(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.peer, 1), 0);
        hand_over();
        /* The former VMM runs both still, so its mapping is one. */
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA);
        vm_end_outgoing(f.vm);
        assert_ok(f.peer, .size = P, .hva = HVA);
}

static unsigned allocations_left = UINT_MAX;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size) {
        if (allocations_left == 0)
                return NULL;
        allocations_left--;
        return __real_calloc(n, size);
}

static void out_of_memory(void **state) {
        unsigned n;
        int r = -ENOMEM;

        (void) state;
        for (n = 0; r == -ENOMEM; n++) {
                allocations_left = n;
                r = vm_hand_over(f.vm, 2);
                allocations_left = UINT_MAX;
                if (r == -ENOMEM) {
                        assert_null(f.vm->outgoing);
                        assert_int_equal(slot_count(f.vm), 1);
                        assert_int_equal(f.vm->vmm_serial, 0);
                }
        }
        assert_int_equal(r, 0);
        assert_in_range(n, 3, 10);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_HAND_OVER(the_new_table_is_empty),
                IN_HAND_OVER(kvms_rules_see_one_table_each),
                IN_HAND_OVER(attributes_are_each_ones_own),
                IN_HAND_OVER(attributes_of_the_outgoing_vmm_change),
                IN_HAND_OVER(memory_of_the_outgoing_vmm),
                IN_HAND_OVER(memory_of_the_new_vmm),
                IN_HAND_OVER(twice_in_the_new_vmm),
                IN_HAND_OVER(twice_in_the_outgoing_vmm),
                IN_HAND_OVER(after_the_outgoing_vmm_has_exited),
                IN_HAND_OVER(before_the_hand_over),
                IN_HAND_OVER(private_memory_is_not_handed_over),
                IN_HAND_OVER(each_vmm_binds_its_own_guest_memfd),
                IN_HAND_OVER(read_only_memory),
                IN_HAND_OVER(another_vm_is_not_in_the_hand_over),
                IN_HAND_OVER(a_share_holds_for_both),
                IN_HAND_OVER(a_share_for_reading_holds_for_both),
                IN_HAND_OVER(the_owner_is_no_other_vm),
                IN_HAND_OVER(the_outgoing_vmm_exits),
                IN_HAND_OVER(the_new_vmm_exits_first),
                IN_HAND_OVER(guest_memfd_after_it_was_taken_back),
                IN_HAND_OVER(a_chain_of_hand_overs),
                IN_HAND_OVER(a_vm_is_freed_in_the_middle),
                IN_HAND_OVER(an_address_space_of_two_vms),
                IN_HAND_OVER(out_of_memory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
