/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The survival matrix, one row for each combination that makes a difference. */

#include "core-fixture.h"

#include "core/survival.h"

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))

enum {
        ANY = -1
};

static const struct {
        SurvivalEvent event;
        int kind, policy, state, custody; /* ANY: whatever it is */
        SurvivalReason reason;
} rows[] = {
        { SURVIVAL_VMM_CRASH, BACKING_MEMFD, EXIT_POLICY_RETAIN, ANY, ANY, SURVIVAL_RETAINED },
        { SURVIVAL_VMM_CRASH, BACKING_HUGETLB, EXIT_POLICY_RETAIN, ANY, ANY, SURVIVAL_RETAINED },
        { SURVIVAL_VMM_CRASH, BACKING_MEMFD, EXIT_POLICY_RELEASE, ANY, ANY, SURVIVAL_RELEASED },
        { SURVIVAL_VMM_CRASH, BACKING_HUGETLB, EXIT_POLICY_RELEASE, ANY, ANY, SURVIVAL_RELEASED },
        { SURVIVAL_VMM_CRASH, BACKING_GUEST_MEMFD, ANY, ANY, ANY, SURVIVAL_BOUND_TO_ONE_VM },
        { SURVIVAL_VMM_UPGRADE, BACKING_MEMFD, ANY, ANY, ANY, SURVIVAL_SHARED_FILE },
        { SURVIVAL_VMM_UPGRADE, BACKING_HUGETLB, ANY, ANY, ANY, SURVIVAL_SHARED_FILE },
        { SURVIVAL_VMM_UPGRADE, BACKING_GUEST_MEMFD, ANY, ANY, ANY, SURVIVAL_BOUND_TO_ONE_VM },
        { SURVIVAL_DAEMON_RESTART, ANY, ANY, ANY, CUSTODY_NONE, SURVIVAL_NOT_KEPT },
        { SURVIVAL_DAEMON_RESTART, ANY, ANY, ANY, CUSTODY_FD_STORE, SURVIVAL_IN_FD_STORE },
        { SURVIVAL_DAEMON_RESTART, ANY, ANY, VM_ATTACHED, CUSTODY_RUNTIME_FILE, SURVIVAL_FOUND_IN_VMM },
        { SURVIVAL_DAEMON_RESTART, ANY, ANY, VM_REGISTERED, CUSTODY_RUNTIME_FILE, SURVIVAL_NO_LIVING_VMM },
        { SURVIVAL_DAEMON_RESTART, ANY, ANY, VM_RETAINED, CUSTODY_RUNTIME_FILE, SURVIVAL_NO_LIVING_VMM },
        { SURVIVAL_HOST_KEXEC, BACKING_MEMFD, ANY, ANY, CUSTODY_FD_STORE, SURVIVAL_NOT_HANDED_TO_KERNEL },
        { SURVIVAL_HOST_KEXEC, BACKING_MEMFD, ANY, ANY, CUSTODY_RUNTIME_FILE, SURVIVAL_NOT_KEPT },
        { SURVIVAL_HOST_KEXEC, BACKING_MEMFD, ANY, ANY, CUSTODY_NONE, SURVIVAL_NOT_KEPT },
        { SURVIVAL_HOST_KEXEC, BACKING_HUGETLB, ANY, ANY, ANY, SURVIVAL_KIND_NOT_PRESERVED },
        { SURVIVAL_HOST_KEXEC, BACKING_GUEST_MEMFD, ANY, ANY, ANY, SURVIVAL_KIND_NOT_PRESERVED },
};

static bool fits(int wanted, int value) {
        return wanted == ANY || wanted == value;
}

/* How many rows fit, and the reason in the last of them. */
static size_t look_up(SurvivalEvent event, const Backing *backing, Custody custody, SurvivalReason *ret) {
        size_t n = 0;

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                if (rows[i].event == event && fits(rows[i].kind, (int) backing->kind) &&
                    fits(rows[i].policy, (int) backing->vm->exit_policy) &&
                    fits(rows[i].state, (int) backing->vm->state) && fits(rows[i].custody, (int) custody)) {
                        *ret = rows[i].reason;
                        n++;
                }
        return n;
}

static void check(const Backing *backing) {
        for (Custody custody = 0; custody < _CUSTODY_MAX; custody++)
                for (SurvivalEvent event = 0; event < _SURVIVAL_EVENT_MAX; event++) {
                        SurvivalReason reason = _SURVIVAL_REASON_MAX;

                        assert_int_equal(look_up(event, backing, custody, &reason), 1);
                        assert_int_equal(survival_of(backing, event, custody), reason);
                }
}

static void every_combination(void **state) {
        (void) state;
        for (BackingKind kind = 0; kind < _BACKING_KIND_MAX; kind++)
                for (ExitPolicy policy = 0; policy < _EXIT_POLICY_MAX; policy++)
                        for (VMState vm_state = 0; vm_state < _VM_STATE_MAX; vm_state++) {
                                VM vm = { .exit_policy = policy, .state = vm_state };

                                check(&(Backing) { .vm = &vm, .kind = kind });
                        }
}

static void every_reason_is_given(void **state) {
        (void) state;
        for (SurvivalReason reason = 0; reason < _SURVIVAL_REASON_MAX; reason++) {
                bool given = false;

                for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                        given |= rows[i].reason == reason;
                assert_true(given);
        }
}

static void which_reasons_are_good(void **state) {
        (void) state;
        for (SurvivalReason reason = 0; reason < _SURVIVAL_REASON_MAX; reason++)
                assert_int_equal(survival_is_good(reason),
                                 reason == SURVIVAL_RETAINED || reason == SURVIVAL_SHARED_FILE ||
                                         reason == SURVIVAL_IN_FD_STORE || reason == SURVIVAL_FOUND_IN_VMM);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(every_combination),
                TEST(every_reason_is_given),
                TEST(which_reasons_are_good),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
