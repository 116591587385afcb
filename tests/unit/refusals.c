/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Prints a refusal by each rule, as a caller gets it, for docs/slots.md. tests/check/refusals.py compares. */

#include <stdio.h>
#include <stdlib.h>

#include "core/core-private.h"
#include "front/reason.h"
#include "front/words.h"

#define P    UINT64_C(4096)
#define MIB  (UINT64_C(1) << 20)
#define HVA  UINT64_C(0x7f0000000000)
#define HVA2 UINT64_C(0x7f8000000000)

static Registry *registry;
static VM *web1, *web2, *snp1;
static Backing *ram0, *gmem0, *web2_ram0, *web2_gmem0;
static bool is_shown[_RULE_MAX];

static void check(bool condition, const char *what) {
        if (condition)
                return;
        fprintf(stderr, "refusals: %s\n", what);
        exit(EXIT_FAILURE);
}

static VM *make_vm(const char *name, VMType type) {
        VM *vm;

        check(vm_new(registry, &(VMSpec) { .name = name, .type = type }, &vm) == 0, "no VM");
        return vm;
}

static Backing *make_backing(VM *vm, const char *name, BackingKind kind, ino_t ino) {
        const BackingSpec spec = { .name = name, .kind = kind, .size = MIB, .page_size = P, .dev = 1, .ino = ino };
        Backing *backing;

        check(backing_new(vm, &spec, &backing) == 0, "no backing");
        return backing;
}

static void start(void) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_6_18);

        kvm.signed_offsets = true;
        kvm.max_gpa = UINT64_C(1) << 46;
        check(registry_new(P, &kvm, &registry) == 0, "no registry");
        web1 = make_vm("web1", VM_TYPE_UNDECLARED);
        web2 = make_vm("web2", VM_TYPE_UNDECLARED);
        snp1 = make_vm("snp1", VM_TYPE_SNP);
        ram0 = make_backing(web1, "ram0", BACKING_MEMFD, 1);
        gmem0 = make_backing(web1, "gmem0", BACKING_GUEST_MEMFD, 2);
        web2_ram0 = make_backing(web2, "ram0", BACKING_MEMFD, 3);
        web2_gmem0 = make_backing(web2, "gmem0", BACKING_GUEST_MEMFD, 4);
}

static void set(VM *vm, SlotSpec spec) {
        Verdict verdict;
        bool changed;

        verdict_init(&verdict);
        check(slot_set(vm, &spec, &verdict, &changed) == 0 && changed, "a slot that should be set is refused");
        verdict_done(&verdict);
}

/* Asks for the slot, which the rule must refuse, shows the answer, and begins anew. */
static void show(SlotRule rule, VM *vm, SlotSpec spec) {
        Verdict verdict;
        bool changed;
        char *text;

        verdict_init(&verdict);
        check(slot_set(vm, &spec, &verdict, &changed) == 0, "out of memory");
        check(verdict.outcome == OUTCOME_REFUSED && verdict.rule == rule, slot_rule_word(rule));
        text = reason_of(vm, &spec, &verdict);
        check(text, "out of memory");
        printf("- `%s`: %s\n", slot_rule_word(rule), text);
        is_shown[rule] = true;
        free(text);
        verdict_done(&verdict);
        registry_free(registry);
        start();
}

#define SHOW(rule, vm, ...) show((rule), (vm), (SlotSpec) { __VA_ARGS__ })
#define SET(vm, ...)        set((vm), (SlotSpec) { __VA_ARGS__ })

static void show_numbers(void) {
        SHOW(RULE_SLOT_ID, web1, .id = 32764, .size = MIB, .hva = HVA);
        SHOW(RULE_SLOT_ID, snp1, .as_id = 1, .size = MIB, .hva = HVA);
        SHOW(RULE_FLAGS, web1, .flags = SLOT_READONLY | SLOT_GUEST_MEMFD, .size = MIB, .hva = HVA);
        SHOW(RULE_FLAGS, snp1, .flags = SLOT_READONLY, .size = MIB, .hva = HVA);
        SHOW(RULE_MEMORY_SIZE, web1, .size = MIB + 1, .hva = HVA);
        SHOW(RULE_GUEST_PHYS_ADDR, web1, .gpa = UINT64_C(1) << 46, .size = MIB, .hva = HVA);
        SHOW(RULE_USERSPACE_ADDR, web1, .size = MIB, .hva = HVA + 1);
        SHOW(RULE_GUEST_MEMFD_OFFSET, web1, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = gmem0,
             .guest_memfd_offset = 1);
}

static void show_live_slots(void) {
        SHOW(RULE_NO_SUCH_SLOT, web1, .id = 5, .hva = HVA);

        SET(web1, .flags = SLOT_GUEST_MEMFD, .size = MIB, .hva = HVA, .guest_memfd = gmem0);
        SHOW(RULE_GUEST_MEMFD_IMMUTABLE, web1, .flags = SLOT_GUEST_MEMFD, .gpa = MIB, .size = MIB, .hva = HVA,
             .guest_memfd = gmem0);

        SET(web1, .size = MIB, .hva = HVA);
        SHOW(RULE_SLOT_IMMUTABLE, web1, .size = P, .hva = HVA);

        SET(web1, .size = MIB, .hva = HVA);
        SHOW(RULE_GFN_OVERLAP, web1, .id = 1, .gpa = MIB - P, .size = MIB, .hva = HVA2);
}

static void show_files(void) {
        SHOW(RULE_NOT_GUEST_MEMFD, web1, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = ram0);
        SHOW(RULE_FOREIGN_GUEST_MEMFD, web1, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
             .guest_memfd = web2_gmem0);
        SHOW(RULE_BEYOND_BACKING, web1, .size = 2 * MIB, .hva = HVA, .backing = ram0);
        SHOW(RULE_BEYOND_BACKING, web1, .flags = SLOT_GUEST_MEMFD, .size = 2 * MIB, .hva = HVA, .guest_memfd = gmem0);
        SHOW(RULE_BEYOND_BACKING, web1, .flags = SLOT_GUEST_MEMFD, .size = MIB, .hva = HVA, .guest_memfd = gmem0,
             .guest_memfd_offset = INT64_MAX & ~(P - 1));

        SET(web1, .flags = SLOT_GUEST_MEMFD, .size = MIB, .hva = HVA, .guest_memfd = gmem0);
        SHOW(RULE_BINDING_OVERLAP, web1, .id = 1, .flags = SLOT_GUEST_MEMFD, .gpa = MIB, .size = P, .hva = HVA2,
             .guest_memfd = gmem0, .guest_memfd_offset = 4 * P);

        check(backing_share_read_only(ram0, web2) == 0, "no share");
        SHOW(RULE_SHARE_READ_ONLY, web2, .size = MIB, .hva = HVA, .backing = ram0);
}

static void show_mappings(void) {
        const MappedRun other = { .kind = MAPPED_FILE, .hva = HVA, .size = MIB - P, .dev = 1, .ino = 1, .offset = P };
        const MappedRun copy = { .kind = MAPPED_COPY, .hva = HVA, .size = MIB, .dev = 1, .ino = 1 };

        SHOW(RULE_MAPPING_MISMATCH, web1, .size = MIB - P, .hva = HVA, .backing = ram0,
             .mapping = &(Mapping) { .n_runs = 1, .runs = &other });
        SHOW(RULE_MAPPING_MISMATCH, web1, .size = MIB, .hva = HVA, .backing = ram0,
             .mapping = &(Mapping) { .n_runs = 1, .runs = &copy });
}

static void show_aliases(void) {
        SET(web1, .flags = SLOT_GUEST_MEMFD, .size = MIB, .hva = HVA, .guest_memfd = gmem0);
        SHOW(RULE_PRIVATE_ALIAS, web1, .id = 1, .gpa = MIB, .size = MIB, .hva = HVA2, .backing = gmem0);

        SET(web1, .size = MIB, .hva = HVA, .backing = ram0);
        SHOW(RULE_UNDECLARED_ALIAS, web1, .id = 1, .gpa = MIB, .size = P, .hva = HVA2, .backing = ram0,
             .offset = 8 * P);

        SET(web1, .size = MIB, .hva = HVA, .backing = ram0);
        SHOW(RULE_UNDECLARED_ALIAS, web2, .size = MIB, .hva = HVA, .backing = ram0);

        for (uint32_t i = 0; i <= SLOT_ALIASES_MAX; i++)
                SET(web1, .id = i, .flags = SLOT_READONLY, .gpa = i * MIB, .size = P, .hva = HVA + i * MIB,
                    .backing = ram0);
        SHOW(RULE_TOO_MANY_ALIASES, web1, .id = 1000, .flags = SLOT_READONLY, .gpa = 1000 * MIB, .size = P,
             .hva = HVA2, .backing = ram0);
}

int main(void) {
        start();
        show_numbers();
        show_live_slots();
        show_files();
        show_mappings();
        show_aliases();
        for (SlotRule rule = RULE_NONE + 1; rule < _RULE_MAX; rule++)
                check(is_shown[rule] == (slot_rule_outcome(rule) == OUTCOME_REFUSED), slot_rule_word(rule));
        registry_free(registry);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
