/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The slot table: changes, batches, and what is left when one fails. The allocator fails on demand: the program is
 * linked with --wrap. */

#include "core-fixture.h"

#include <stdlib.h>

/* ---- the allocator ---- */

static long allocations_left = -1; /* negative: no end */

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_reallocarray(void *p, size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);

static bool allocation_fails(void) {
        if (allocations_left < 0)
                return false;
        if (allocations_left == 0)
                return true;
        allocations_left--;
        return false;
}

void *__wrap_calloc(size_t n, size_t size) {
        return allocation_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size) {
        return allocation_fails() ? NULL : __real_reallocarray(p, n, size);
}

/* ---- one slot ---- */

static void created_slot(void **state) {
        Slot *slot;

        (void) state;
        assert_ok(f.vm, .id = 5, .as_id = 1, .flags = SLOT_READONLY, .gpa = 2 * P, .size = 3 * P, .hva = HVA,
                  .backing = f.ram, .offset = 4 * P);
        assert_true(f.changed);
        slot = slot_find(f.vm, 1, 5);
        assert_non_null(slot);
        assert_ptr_equal(slot->vm, f.vm);
        assert_int_equal(slot->spec.id, 5);
        assert_int_equal(slot->spec.as_id, 1);
        assert_int_equal(slot->spec.flags, SLOT_READONLY);
        assert_int_equal(slot->spec.gpa, 2 * P);
        assert_int_equal(slot->spec.size, 3 * P);
        assert_int_equal(slot->spec.hva, HVA);
        assert_ptr_equal(slot->spec.backing, f.ram);
        assert_int_equal(slot->spec.offset, 4 * P);
        assert_null(slot_find(f.vm, 0, 5));
        assert_null(slot_find(f.peer, 1, 5));
}

/* ---- counts ---- */

static void verdicts_are_counted(void **state) {
        const VerdictCounts *counts;

        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        assert_int_equal(verdict_count(f.vm, &f.verdict, f.changed), 0);
        assert_null(f.vm->verdict_counts);
        assert_allowed(f.vm, RULE_ADDRESS_SPACE_TRANSIT, .as_id = 1, .gpa = P, .size = P, .hva = HVA,
                       .backing = f.ram);
        assert_int_equal(verdict_count(f.vm, &f.verdict, f.changed), 0);

        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.ram);
        assert_int_equal(verdict_count(f.peer, &f.verdict, f.changed), 0);
        assert_int_equal(verdict_count(f.peer, &f.verdict, f.changed), 0);
        f.peer->alias_policy = ALIAS_POLICY_OBSERVE;
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA, .backing = f.ram);
        assert_true(f.changed);
        assert_int_equal(verdict_count(f.peer, &f.verdict, f.changed), 0);

        counts = f.peer->verdict_counts;
        assert_int_equal(counts->refused[RULE_UNDECLARED_ALIAS], 2);
        assert_int_equal(counts->observed[RULE_UNDECLARED_ALIAS], 1);
        assert_int_equal(counts->allowed[RULE_UNDECLARED_ALIAS], 0);
        assert_int_equal(f.vm->verdict_counts->allowed[RULE_ADDRESS_SPACE_TRANSIT], 1);
        assert_int_equal(f.vm->verdict_counts->refused[RULE_ADDRESS_SPACE_TRANSIT], 0);
}

static void count_without_memory(void **state) {
        int r;

        (void) state;
        assert_kvm_refuses(f.vm, RULE_NO_SUCH_SLOT, EINVAL, .id = 3);
        allocations_left = 0;
        r = verdict_count(f.vm, &f.verdict, f.changed);
        allocations_left = -1;
        assert_int_equal(r, -ENOMEM);
        assert_null(f.vm->verdict_counts);
}

/* ---- tables ---- */

static void slots_are_counted(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 0, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .id = 1, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P);
        assert_ok(f.peer, .id = 0, .size = P, .hva = HVA);
        assert_int_equal(slot_count(f.vm), 2);
        assert_int_equal(slot_count(f.peer), 1);
        assert_int_equal(f.registry->n_slots, 3);
        assert_int_equal(f.ram->n_slots, 2);
}

static void slot_that_shows_a_backing_on_both_sides_counts_once(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .backing = f.gmem, .guest_memfd = f.gmem);
        assert_int_equal(f.gmem->n_slots, 1);
        assert_ok(f.vm, .size = 0);
        assert_int_equal(f.gmem->n_slots, 0);
}

static void slot_that_shows_two_backings_counts_for_both(void **state) {
        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .backing = f.ram, .guest_memfd = f.gmem);
        assert_int_equal(f.ram->n_slots, 1);
        assert_int_equal(f.gmem->n_slots, 1);
        assert_int_equal(f.registry->n_slots, 1);
}

static void slot_set_again_as_it_is(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        assert_false(f.changed);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram, .guest_memfd = f.gmem, .guest_memfd_offset = P);
        assert_false(f.changed);
}

static void offset_of_no_backing_is_ignored(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA, .offset = 5);
        assert_int_equal(slot_find(f.vm, 0, 0)->spec.offset, 0);
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_false(f.changed);
}

static void declaration_can_change(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram, .offset = P);
        assert_true(f.changed);
        assert_int_equal(f.ram->n_slots, 1);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram, .offset = 2 * P);
        assert_true(f.changed);
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_true(f.changed);
        assert_int_equal(f.ram->n_slots, 0);
}

static void moved_slot_leaves_its_old_place(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 1, .gpa = 0, .size = P, .hva = HVA);
        assert_ok(f.vm, .id = 1, .gpa = 8 * P, .size = P, .hva = HVA);
        assert_ok(f.vm, .id = 2, .gpa = 0, .size = P, .hva = HVA + P);
        assert_kvm_refuses(f.vm, RULE_GFN_OVERLAP, EEXIST, .id = 3, .gpa = 8 * P, .size = P, .hva = HVA + 2 * P);
}

static void deleted_slot_can_be_created_anew(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .size = 0);
        assert_true(f.changed);
        assert_null(slot_find(f.vm, 0, 0));
        assert_ok(f.vm, .size = 2 * P, .hva = HVA, .backing = f.ram);
}

static void walk_is_in_order_of_address_space_and_id(void **state) {
        Slot *slot;

        (void) state;
        assert_null(slot_first(f.vm));
        assert_ok(f.vm, .as_id = 1, .id = 0, .gpa = 0, .size = P, .hva = HVA);
        assert_ok(f.vm, .as_id = 0, .id = 32763, .gpa = 0, .size = P, .hva = HVA + P);
        assert_ok(f.vm, .as_id = 0, .id = 2, .gpa = P, .size = P, .hva = HVA + 2 * P);
        slot = slot_first(f.vm);
        assert_int_equal(slot->spec.id, 2);
        slot = slot_next(f.vm, 0, 2);
        assert_int_equal(slot->spec.id, 32763);
        slot = slot_next(f.vm, 0, 32763);
        assert_int_equal(slot->spec.as_id, 1);
        assert_null(slot_next(f.vm, 1, 0));
}

static void walk_goes_on_after_a_slot_that_is_gone(void **state) {
        (void) state;
        assert_ok(f.vm, .id = 5, .size = P, .hva = HVA);
        assert_int_equal(slot_next(f.vm, 0, 3)->spec.id, 5);
        assert_null(slot_next(f.vm, 0, UINT32_MAX));
        assert_null(slot_next(f.vm, UINT32_MAX, UINT32_MAX));
        assert_null(slot_find(f.vm, UINT32_MAX, UINT32_MAX));
}

static void full_table(void **state) {
        (void) state;
        for (uint32_t i = 0; i < SLOTS_PER_ADDRESS_SPACE_MAX; i++)
                assert_ok(f.vm, .id = i, .gpa = i * P, .size = P, .hva = HVA + i * P);
        assert_int_equal(slot_count(f.vm), SLOTS_PER_ADDRESS_SPACE_MAX);
        for (uint32_t i = 0; i < SLOTS_PER_ADDRESS_SPACE_MAX; i++)
                assert_ok(f.vm, .id = i, .size = 0);
        assert_int_equal(slot_count(f.vm), 0);
}

/* ---- batches ---- */

#define BATCH_MAX 8U

static struct {
        Verdict verdicts[BATCH_MAX];
        bool changed[BATCH_MAX];
        bool accepted;
        size_t n;
} batch;

static void batch_done(void) {
        for (size_t i = 0; i < batch.n; i++)
                verdict_done(&batch.verdicts[i]);
        batch.n = 0;
}

static int run_batch(bool apply_all, const SlotSpec *specs, size_t n) {
        batch_done();
        assert_true(n <= BATCH_MAX);
        batch.n = n;
        for (size_t i = 0; i < n; i++)
                verdict_init(&batch.verdicts[i]);
        return slot_set_many(f.vm, specs, n, apply_all, batch.verdicts, batch.changed, &batch.accepted);
}

static int batch_teardown(void **state) {
        allocations_left = -1;
        batch_done();
        return teardown(state);
}

#define BATCH_TEST(function) cmocka_unit_test_setup_teardown(function, setup, batch_teardown)

/* Three slots of a table that the batches below change. */
static void have_three(void) {
        assert_ok(f.vm, .id = 1, .gpa = 0, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .id = 2, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P);
        assert_ok(f.vm, .id = 3, .flags = SLOT_GUEST_MEMFD, .gpa = 2 * P, .size = P, .hva = HVA + 2 * P,
                  .guest_memfd = f.gmem);
}

/* Nothing of have_three() has changed, in any index. */
static void assert_still_three(void) {
        assert_int_equal(slot_count(f.vm), 3);
        assert_int_equal(f.registry->n_slots, 3);
        assert_int_equal(f.ram->n_slots, 2);
        assert_int_equal(f.gmem->n_slots, 1);
        assert_int_equal(slot_find(f.vm, 0, 1)->spec.gpa, 0);
        assert_int_equal(slot_find(f.vm, 0, 2)->spec.gpa, P);
        assert_int_equal(slot_find(f.vm, 0, 3)->spec.gpa, 2 * P);
        assert_kvm_refuses(f.vm, RULE_GFN_OVERLAP, EEXIST, .id = 9, .gpa = 0, .size = 16 * P, .hva = HVA + 64 * P);
        assert_int_equal(f.verdict.n_conflicts, 3);
        assert_refused(f.peer, RULE_PRIVATE_ALIAS, .size = P, .hva = HVA, .backing = f.gmem);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = 8 * P, .hva = HVA, .backing = f.ram);
        assert_int_equal(f.verdict.n_conflicts, 2);
        assert_allowed(f.vm, RULE_VMM_WINDOW, .id = 9, .as_id = 1, .gpa = 32 * P, .size = P, .hva = HVA + 2 * P);
        assert_ok(f.vm, .id = 9, .as_id = 1, .size = 0);
}

static const SlotSpec *change_all_three(void) {
        static SlotSpec specs[4];

        specs[0] = (SlotSpec) { .id = 1, .size = 0 };
        specs[1] = (SlotSpec) { .id = 2, .gpa = 8 * P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P };
        specs[2] = (SlotSpec) { .id = 3, .size = 0 };
        specs[3] =
                (SlotSpec) { .id = 4, .gpa = 0, .size = 4 * P, .hva = HVA + 8 * P, .backing = f.ram, .offset = 8 * P };
        return specs;
}

static void batch_that_is_accepted(void **state) {
        (void) state;
        have_three();
        assert_int_equal(run_batch(true, change_all_three(), 4), 0);
        assert_true(batch.accepted);
        for (size_t i = 0; i < 4; i++) {
                assert_int_equal(batch.verdicts[i].outcome, OUTCOME_OK);
                assert_true(batch.changed[i]);
        }
        assert_int_equal(slot_count(f.vm), 2);
        assert_null(slot_find(f.vm, 0, 1));
        assert_int_equal(slot_find(f.vm, 0, 2)->spec.gpa, 8 * P);
        assert_non_null(slot_find(f.vm, 0, 4));
        assert_int_equal(f.gmem->n_slots, 0);
}

static void batch_that_is_refused_is_undone(void **state) {
        SlotSpec specs[5];

        (void) state;
        have_three();
        memcpy(specs, change_all_three(), 4 * sizeof(SlotSpec));
        specs[4] = (SlotSpec) { .id = 5, .gpa = 0, .size = P, .hva = HVA + 32 * P };
        assert_int_equal(run_batch(true, specs, 5), 0);
        assert_false(batch.accepted);
        assert_int_equal(batch.verdicts[4].rule, RULE_GFN_OVERLAP);
        for (size_t i = 0; i < 5; i++)
                assert_false(batch.changed[i]);
        assert_still_three();
}

static void batch_that_changes_a_slot_twice_is_undone(void **state) {
        SlotSpec specs[6] = {
                { .id = 2, .gpa = 8 * P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P },
                { .id = 2, .gpa = 9 * P, .size = P, .hva = HVA + P },
                { .id = 2, .size = 0 },
                { .id = 2, .gpa = 4 * P, .size = 2 * P, .hva = HVA + 9 * P },
                { .id = 2, .size = 0 },
                { .id = 2, .size = 0 },
        };

        (void) state;
        have_three();
        assert_int_equal(run_batch(true, specs, 6), 0);
        assert_false(batch.accepted);
        assert_int_equal(batch.verdicts[5].rule, RULE_NO_SUCH_SLOT);
        assert_still_three();
        assert_int_equal(run_batch(true, specs, 5), 0);
        assert_true(batch.accepted);
        assert_int_equal(slot_count(f.vm), 2);
}

static void dry_run_changes_nothing(void **state) {
        (void) state;
        have_three();
        assert_int_equal(run_batch(false, change_all_three(), 4), 0);
        assert_true(batch.accepted);
        for (size_t i = 0; i < 4; i++)
                assert_false(batch.changed[i]);
        assert_still_three();
}

static void what_comes_after_a_refused_slot_is_judged_too(void **state) {
        SlotSpec specs[4] = {
                { .id = 1, .gpa = 0, .size = P, .hva = HVA },
                { .id = 2, .gpa = 0, .size = P, .hva = HVA + P },
                { .id = 3, .gpa = 0, .size = P, .hva = HVA + 2 * P },
                { .id = 4, .gpa = P, .size = P, .hva = HVA + P },
        };

        (void) state;
        assert_int_equal(run_batch(true, specs, 4), 0);
        assert_false(batch.accepted);
        assert_int_equal(batch.verdicts[0].outcome, OUTCOME_OK);
        assert_int_equal(batch.verdicts[1].rule, RULE_GFN_OVERLAP);
        assert_int_equal(batch.verdicts[2].rule, RULE_GFN_OVERLAP);
        assert_int_equal(batch.verdicts[2].n_conflicts, 1);
        assert_int_equal(batch.verdicts[2].conflicts[0].id, 1);
        assert_int_equal(batch.verdicts[3].rule, RULE_NONE);
        assert_int_equal(slot_count(f.vm), 0);
}

static void slots_of_a_batch_are_judged_against_each_other(void **state) {
        SlotSpec specs[2] = {
                { .id = 1, .gpa = 0, .size = P, .hva = HVA, .backing = f.ram },
                { .id = 2, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram },
        };

        (void) state;
        assert_int_equal(run_batch(false, specs, 2), 0);
        assert_false(batch.accepted);
        assert_int_equal(batch.verdicts[1].rule, RULE_UNDECLARED_ALIAS);
}

static void observing_vm_accepts_a_batch_with_an_alias(void **state) {
        SlotSpec specs[2] = {
                { .id = 1, .gpa = 0, .size = P, .hva = HVA, .backing = f.ram },
                { .id = 2, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram },
        };

        (void) state;
        f.vm->alias_policy = ALIAS_POLICY_OBSERVE;
        assert_int_equal(run_batch(true, specs, 2), 0);
        assert_true(batch.accepted);
        assert_int_equal(batch.verdicts[1].outcome, OUTCOME_REFUSED);
        assert_true(batch.changed[1]);
        assert_int_equal(slot_count(f.vm), 2);
}

static void batch_with_a_slot_that_is_as_asked(void **state) {
        SlotSpec specs[2] = {
                { .id = 1, .gpa = 0, .size = P, .hva = HVA, .backing = f.ram },
                { .id = 1, .gpa = 0, .size = P, .hva = HVA, .backing = f.ram },
        };

        (void) state;
        assert_int_equal(run_batch(true, specs, 2), 0);
        assert_true(batch.changed[0]);
        assert_false(batch.changed[1]);
}

static void empty_batch(void **state) {
        (void) state;
        assert_int_equal(run_batch(true, NULL, 0), 0);
        assert_true(batch.accepted);
}

static void batch_without_interest_in_changes(void **state) {
        SlotSpec spec = { .size = P, .hva = HVA };
        Verdict verdict;
        bool accepted;

        (void) state;
        verdict_init(&verdict);
        assert_int_equal(slot_set_many(f.vm, &spec, 1, true, &verdict, /* changed= */ NULL, &accepted), 0);
        assert_true(accepted);
        verdict_done(&verdict);
}

/* ---- out of memory ---- */

static void create_without_memory(void **state) {
        SlotSpec spec = { .id = 7, .gpa = 16 * P, .size = P, .hva = HVA + 64 * P };
        bool changed;

        (void) state;
        have_three();
        allocations_left = 0;
        verdict_done(&f.verdict);
        assert_int_equal(slot_set(f.vm, &spec, &f.verdict, &changed), -ENOMEM);
        allocations_left = -1;
        assert_still_three();
}

static void refusal_without_memory(void **state) {
        SlotSpec overlap = { .id = 7, .gpa = 0, .size = P, .hva = HVA + 64 * P };
        SlotSpec alias = { .id = 7, .gpa = 8 * P, .size = P, .hva = HVA };
        bool changed;

        (void) state;
        have_three();
        verdict_done(&f.verdict);
        allocations_left = 0;
        assert_int_equal(slot_set(f.vm, &overlap, &f.verdict, &changed), -ENOMEM);
        verdict_done(&f.verdict);
        assert_int_equal(slot_set(f.vm, &alias, &f.verdict, &changed), -ENOMEM);
        verdict_done(&f.verdict);
        assert_false(kvm_rules_accept(f.vm, &overlap, &f.verdict));
        assert_int_equal(f.verdict.rule, RULE_GFN_OVERLAP);
        allocations_left = -1;
        assert_still_three();
}

static void move_without_memory(void **state) {
        SlotSpec spec = { .id = 2, .gpa = 8 * P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P };
        bool changed;

        (void) state;
        have_three();
        allocations_left = 0;
        verdict_done(&f.verdict);
        assert_int_equal(slot_set(f.vm, &spec, &f.verdict, &changed), -ENOMEM);
        allocations_left = -1;
        assert_still_three();
}

static void delete_needs_no_memory(void **state) {
        (void) state;
        have_three();
        allocations_left = 0;
        assert_ok(f.vm, .id = 3, .size = 0);
        allocations_left = -1;
}

static void batch_without_memory_is_undone(void **state) {
        SlotSpec specs[6];
        long n;

        (void) state;
        memcpy(specs, change_all_three(), 4 * sizeof(SlotSpec));
        specs[4] = (SlotSpec) { .id = 5, .gpa = 16 * P, .size = P, .hva = HVA + 32 * P };
        specs[5] = (SlotSpec) { .id = 6, .gpa = 17 * P, .size = P, .hva = HVA + 32 * P };

        have_three();
        for (n = 0;; n++) {
                int r;

                allocations_left = n;
                r = run_batch(true, specs, 6);
                allocations_left = -1;
                if (r == 0)
                        break;
                assert_int_equal(r, -ENOMEM);
                assert_still_three();
        }
        assert_int_equal(n, 6); /* the changes, a slot moved and three created, one conflict */
        assert_true(batch.accepted);
        assert_int_equal(batch.verdicts[5].rule, RULE_VMM_WINDOW);
        assert_int_equal(slot_count(f.vm), 4);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(created_slot),
                TEST(verdicts_are_counted),
                TEST(count_without_memory),
                TEST(slots_are_counted),
                TEST(slot_that_shows_a_backing_on_both_sides_counts_once),
                TEST(slot_that_shows_two_backings_counts_for_both),
                TEST(slot_set_again_as_it_is),
                TEST(offset_of_no_backing_is_ignored),
                TEST(declaration_can_change),
                TEST(moved_slot_leaves_its_old_place),
                TEST(deleted_slot_can_be_created_anew),
                TEST(walk_is_in_order_of_address_space_and_id),
                TEST(walk_goes_on_after_a_slot_that_is_gone),
                TEST(full_table),
                BATCH_TEST(batch_that_is_accepted),
                BATCH_TEST(batch_that_is_refused_is_undone),
                BATCH_TEST(batch_that_changes_a_slot_twice_is_undone),
                BATCH_TEST(dry_run_changes_nothing),
                BATCH_TEST(what_comes_after_a_refused_slot_is_judged_too),
                BATCH_TEST(slots_of_a_batch_are_judged_against_each_other),
                BATCH_TEST(observing_vm_accepts_a_batch_with_an_alias),
                BATCH_TEST(batch_with_a_slot_that_is_as_asked),
                BATCH_TEST(empty_batch),
                BATCH_TEST(batch_without_interest_in_changes),
                BATCH_TEST(create_without_memory),
                BATCH_TEST(refusal_without_memory),
                BATCH_TEST(move_without_memory),
                BATCH_TEST(delete_needs_no_memory),
                BATCH_TEST(batch_without_memory_is_undone),
        };

        return cmocka_run_group_tests_name("slot", tests, NULL, NULL);
}
