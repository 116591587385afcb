/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Shares: what the owner of a backing lets other VMs and their owners do. */

#include "core-fixture.h"

#include <stdio.h>

static VM *make_vm_of(const char *name, uid_t owner) {
        VM *vm;

        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = name, .owner = owner }, &vm), 0);
        return vm;
}

static void share_again_is_no_other(void **state) {
        (void) state;
        assert_int_equal(backing_share_read_only(f.ram, f.peer), 0);
        assert_int_equal(backing_share_read_only(f.ram, f.peer), 0);
        assert_int_equal(f.ram->n_shares, 1);
        assert_true(backing_find_share(f.ram, f.peer)->read_only);
}

static void share_with_the_other_access_exists(void **state) {
        (void) state;
        assert_int_equal(backing_share_read_only(f.ram, f.peer), 0);
        assert_int_equal(backing_share(f.ram, f.peer), CORE_E_EXISTS);
        assert_int_equal(backing_share(f.peer_ram, f.vm), 0);
        assert_int_equal(backing_share_read_only(f.peer_ram, f.vm), CORE_E_EXISTS);
        assert_false(backing_find_share(f.peer_ram, f.vm)->read_only);
}

static void share_limit(void **state) {
        char name[32];

        (void) state;
        for (size_t i = 0; i < SHARES_PER_BACKING_MAX; i++) {
                snprintf(name, sizeof(name), "peer%zu", i);
                assert_int_equal(backing_share(f.ram, make_vm(name)), 0);
        }
        assert_int_equal(backing_share(f.ram, f.peer), CORE_E_LIMIT);
        assert_int_equal(backing_share_read_only(f.ram, f.peer), CORE_E_LIMIT);
        assert_null(backing_find_share(f.ram, f.peer));
}

static void read_only_share_refuses_a_slot_that_writes(void **state) {
        (void) state;
        assert_int_equal(backing_share_read_only(f.ram, f.peer), 0);
        assert_refused(f.peer, RULE_SHARE_READ_ONLY, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.peer, .flags = SLOT_READONLY, .size = P, .hva = HVA, .backing = f.ram);
}

static void read_only_share_is_no_matter_of_alias_policy(void **state) {
        (void) state;
        f.peer->alias_policy = ALIAS_POLICY_OBSERVE;
        assert_int_equal(backing_share_read_only(f.ram, f.peer), 0);
        assert_refused(f.peer, RULE_SHARE_READ_ONLY, .size = P, .hva = HVA, .backing = f.ram);
        assert_true(verdict_denies(&f.verdict, ALIAS_POLICY_OBSERVE));
        assert_false(f.changed);
}

static void read_only_share_leaves_the_owner_and_the_others_alone(void **state) {
        VM *third = make_vm("third");

        (void) state;
        assert_int_equal(backing_share_read_only(f.ram, f.peer), 0);
        assert_int_equal(backing_share(f.ram, third), 0);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        assert_allowed(third, RULE_DECLARED_SHARE, .size = P, .hva = HVA, .backing = f.ram);
}

static void read_only_share_while_it_is_shown_for_writing(void **state) {
        (void) state;
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram);
        assert_int_equal(backing_share_read_only(f.ram, f.peer), CORE_E_IN_USE);
        assert_int_equal(backing_share(f.ram, f.peer), 0);
}

static void read_only_share_while_it_is_shown_for_reading(void **state) {
        (void) state;
        assert_ok(f.peer, .flags = SLOT_READONLY, .size = P, .hva = HVA, .backing = f.ram);
        assert_int_equal(backing_share_read_only(f.ram, f.peer), 0);
}

static void slots_of_one_vm_are_counted(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_int_equal(backing_count_slots_of(f.ram, f.peer), 0);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        assert_allowed(f.peer, RULE_DECLARED_SHARE, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.peer, .id = 1, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P);
        assert_int_equal(backing_count_slots_of(f.ram, f.vm), 1);
        assert_int_equal(backing_count_slots_of(f.ram, f.peer), 2);
}

static void slot_that_shows_both_sides_counts_once(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .backing = f.gmem, .guest_memfd = f.gmem);
        assert_ok(f.vm, .id = 1, .gpa = P, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA + P, .guest_memfd = f.gmem,
                  .guest_memfd_offset = P);
        assert_int_equal(backing_count_slots_of(f.gmem, f.vm), 2);
}

static void access_is_that_of_the_greatest_share(void **state) {
        VM *first = make_vm_of("first", 7), *second = make_vm_of("second", 7);

        (void) state;
        assert_int_equal(backing_access_of(f.ram, f.vm->owner), ACCESS_READ_WRITE);
        assert_int_equal(backing_access_of(f.ram, 7), ACCESS_NONE);
        assert_int_equal(backing_share_read_only(f.ram, first), 0);
        assert_int_equal(backing_access_of(f.ram, 7), ACCESS_READ_ONLY);
        assert_int_equal(backing_access_of(f.ram, 8), ACCESS_NONE);
        assert_int_equal(backing_share(f.ram, second), 0);
        assert_int_equal(backing_access_of(f.ram, 7), ACCESS_READ_WRITE);
        vm_free(second);
        assert_int_equal(backing_access_of(f.ram, 7), ACCESS_READ_ONLY);
        backing_unshare(f.ram, first);
        assert_int_equal(backing_access_of(f.ram, 7), ACCESS_NONE);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(share_again_is_no_other),
                TEST(share_with_the_other_access_exists),
                TEST(share_limit),
                TEST(read_only_share_refuses_a_slot_that_writes),
                TEST(read_only_share_is_no_matter_of_alias_policy),
                TEST(read_only_share_leaves_the_owner_and_the_others_alone),
                TEST(read_only_share_while_it_is_shown_for_writing),
                TEST(read_only_share_while_it_is_shown_for_reading),
                TEST(slots_of_one_vm_are_counted),
                TEST(slot_that_shows_both_sides_counts_once),
                TEST(access_is_that_of_the_greatest_share),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
