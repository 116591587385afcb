/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Two VMs with one memfd and one guest_memfd each, made anew for each test. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/backing.h"
#include "core/registry.h"
#include "core/slot.h"
#include "core/vm.h"

#define P             UINT64_C(4096)
#define MAX_GPA       (UINT64_C(1) << 46)
#define BACKING_PAGES 64U
/* Where the VMM maps what a test does not care about. */
#define HVA           UINT64_C(0x7f0000000000)

static struct {
        Registry *registry;
        VM *vm, *peer;
        Backing *ram, *gmem;           /* of vm */
        Backing *peer_ram, *peer_gmem; /* of peer */
        Verdict verdict;               /* of the last set() */
        bool changed;
} f;

static inline VM *make_vm(const char *name) {
        VM *vm;

        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = name }, &vm), 0);
        return vm;
}

static inline Backing *make_backing(VM *vm, const char *name, BackingKind kind) {
        static ino_t next_ino;
        Backing *backing;

        assert_int_equal(backing_new(vm,
                                     &(BackingSpec) {
                                             .name = name,
                                             .kind = kind,
                                             .size = BACKING_PAGES * P,
                                             .page_size = P,
                                             .dev = 1,
                                             .ino = ++next_ino,
                                     },
                                     &backing),
                         0);
        return backing;
}

static inline int setup_with(const KVMRules *kvm) {
        assert_int_equal(registry_new(P, kvm, &f.registry), 0);
        f.vm = make_vm("vm");
        f.peer = make_vm("peer");
        f.ram = make_backing(f.vm, "ram", BACKING_MEMFD);
        f.gmem = make_backing(f.vm, "gmem", BACKING_GUEST_MEMFD);
        f.peer_ram = make_backing(f.peer, "ram", BACKING_MEMFD);
        f.peer_gmem = make_backing(f.peer, "gmem", BACKING_GUEST_MEMFD);
        verdict_init(&f.verdict);
        return 0;
}

static inline int setup(void **state) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);

        (void) state;
        kvm.max_gpa = MAX_GPA;
        return setup_with(&kvm);
}

static inline int teardown(void **state) {
        (void) state;
        verdict_done(&f.verdict);
        f.registry = registry_free(f.registry);
        return 0;
}

static inline Outcome set(VM *vm, SlotSpec spec) {
        verdict_done(&f.verdict);
        assert_int_equal(slot_set(vm, &spec, &f.verdict, &f.changed), 0);
        return f.verdict.outcome;
}

#define assert_ok(vm, ...) assert_int_equal(set((vm), (SlotSpec) { __VA_ARGS__ }), OUTCOME_OK)
#define assert_outcome(vm, expected_outcome, expected_rule, ...) \
        do { \
                assert_int_equal(set((vm), (SlotSpec) { __VA_ARGS__ }), expected_outcome); \
                assert_int_equal(f.verdict.rule, expected_rule); \
                assert_int_equal(f.verdict.kernel_errno, 0); \
        } while (0)
#define assert_allowed(vm, expected_rule, ...) assert_outcome(vm, OUTCOME_ALLOWED, expected_rule, __VA_ARGS__)
#define assert_refused(vm, expected_rule, ...) assert_outcome(vm, OUTCOME_REFUSED, expected_rule, __VA_ARGS__)
#define assert_kvm_refuses(vm, expected_rule, expected_errno, ...) \
        do { \
                assert_int_equal(set((vm), (SlotSpec) { __VA_ARGS__ }), OUTCOME_REFUSED); \
                assert_int_equal(f.verdict.rule, expected_rule); \
                assert_int_equal(f.verdict.kernel_errno, expected_errno); \
                assert_false(f.changed); \
        } while (0)

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
