/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* In what KVMs differ: each property of KVMRules with what it changes, and the types of VMs. */

#include "core-fixture.h"

#define USER_END ((UINT64_C(1) << 47) - P)

/* The fixture again, on another KVM. */
static void on(KVMRules kvm) {
        teardown(NULL);
        kvm.max_gpa = MAX_GPA;
        setup_with(&kvm);
}

static void on_generation(KVMGeneration generation) {
        on(kvm_rules_of(generation));
}

static VM *make_vm_of_type(const char *name, VMType type) {
        VM *vm;

        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = name, .type = type }, &vm), 0);
        return vm;
}

static void bind_first_page(void) {
        assert_ok(f.vm, .id = 1, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
}

static void binding_overlap_by_generation(void **state) {
        static const int errnos[_KVM_GENERATION_MAX] = { EINVAL, EINVAL, EEXIST, EEXIST };

        (void) state;
        for (KVMGeneration generation = 0; generation < _KVM_GENERATION_MAX; generation++) {
                on_generation(generation);
                bind_first_page();
                assert_kvm_refuses(f.vm, RULE_BINDING_OVERLAP, errnos[generation], .id = 2, .flags = SLOT_GUEST_MEMFD,
                                   .gpa = P, .size = P, .hva = HVA + P, .guest_memfd = f.gmem);
        }
}

static void last_gfn_comes_before_the_binding_from_7_3_on(void **state) {
        (void) state;
        on_generation(KVM_GENERATION_7_2);
        bind_first_page();
        assert_kvm_refuses(f.vm, RULE_BINDING_OVERLAP, EEXIST, .id = 2, .flags = SLOT_GUEST_MEMFD, .gpa = MAX_GPA,
                           .size = P, .hva = HVA + P, .guest_memfd = f.gmem);
        on_generation(KVM_GENERATION_7_3);
        bind_first_page();
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .id = 2, .flags = SLOT_GUEST_MEMFD, .gpa = MAX_GPA,
                           .size = P, .hva = HVA + P, .guest_memfd = f.gmem);
}

static void guest_memfd_comes_before_the_last_gfn_in_7_3(void **state) {
        (void) state;
        on_generation(KVM_GENERATION_7_3);
        assert_kvm_refuses(f.vm, RULE_NOT_GUEST_MEMFD, EBADF, .flags = SLOT_GUEST_MEMFD, .gpa = MAX_GPA, .size = P,
                           .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_BEYOND_BACKING, EINVAL, .flags = SLOT_GUEST_MEMFD, .gpa = MAX_GPA, .size = P,
                           .hva = HVA, .guest_memfd = f.gmem, .guest_memfd_offset = BACKING_PAGES * P);
}

static void kvm_without_guest_memfd(void **state) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);

        (void) state;
        kvm.guest_memfd = KVM_GUEST_MEMFD_NONE;
        on(kvm);
        assert_kvm_refuses(f.vm, RULE_FLAGS, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem);
}

static void kvm_without_a_second_address_space(void **state) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);

        (void) state;
        kvm.address_spaces = 1;
        on(kvm);
        assert_kvm_refuses(f.vm, RULE_SLOT_ID, EINVAL, .as_id = 1, .size = P, .hva = HVA);
}

/* kvm_arch_nr_memslot_as_ids(), kvm_arch_has_readonly_mem(), kvm_arch_has_private_mem() */
static const struct {
        const char *name;
        bool second_address_space, readonly, guest_memfd_before_6_18;
} types[_VM_TYPE_MAX] = {
        [VM_TYPE_UNDECLARED] = { "undeclared", true, true, true },
        [VM_TYPE_ORDINARY] = { "ordinary", true, true, false },
        [VM_TYPE_SW_PROTECTED] = { "sw_protected", false, true, true },
        [VM_TYPE_SEV] = { "sev", true, true, false },
        [VM_TYPE_SEV_ES] = { "sev_es", true, false, false },
        [VM_TYPE_SNP] = { "snp", false, false, true },
        [VM_TYPE_TDX] = { "tdx", false, false, true },
};

static void type_decides_about_the_second_address_space(void **state) {
        (void) state;
        for (VMType type = 0; type < _VM_TYPE_MAX; type++) {
                VM *vm = make_vm_of_type(types[type].name, type);

                if (types[type].second_address_space)
                        assert_ok(vm, .as_id = 1, .size = P, .hva = HVA);
                else
                        assert_kvm_refuses(vm, RULE_SLOT_ID, EINVAL, .as_id = 1, .size = P, .hva = HVA);
                assert_ok(vm, .as_id = 0, .size = P, .hva = HVA);
        }
}

static void type_decides_about_read_only_slots(void **state) {
        (void) state;
        for (VMType type = 0; type < _VM_TYPE_MAX; type++) {
                VM *vm = make_vm_of_type(types[type].name, type);

                if (types[type].readonly)
                        assert_ok(vm, .flags = SLOT_READONLY, .size = P, .hva = HVA);
                else
                        assert_kvm_refuses(vm, RULE_FLAGS, EINVAL, .flags = SLOT_READONLY, .size = P, .hva = HVA);
                assert_ok(vm, .id = 1, .flags = SLOT_LOG_DIRTY_PAGES, .gpa = P, .size = P, .hva = HVA + P);
        }
}

static void type_decides_about_guest_memfd_before_6_18(void **state) {
        (void) state;
        on_generation(KVM_GENERATION_6_8);
        for (VMType type = 0; type < _VM_TYPE_MAX; type++) {
                VM *vm = make_vm_of_type(types[type].name, type);
                Backing *gmem = make_backing(vm, "gmem", BACKING_GUEST_MEMFD);

                if (types[type].guest_memfd_before_6_18)
                        assert_ok(vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = gmem);
                else
                        assert_kvm_refuses(vm, RULE_FLAGS, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                                           .guest_memfd = gmem);
        }
}

static void type_decides_nothing_about_guest_memfd_from_6_18_on(void **state) {
        (void) state;
        on_generation(KVM_GENERATION_6_18);
        for (VMType type = 0; type < _VM_TYPE_MAX; type++) {
                VM *vm = make_vm_of_type(types[type].name, type);
                Backing *gmem = make_backing(vm, "gmem", BACKING_GUEST_MEMFD);

                assert_ok(vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = gmem);
        }
}

static void kvm_without_read_only_slots(void **state) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);

        (void) state;
        kvm.readonly = false;
        on(kvm);
        assert_kvm_refuses(f.vm, RULE_FLAGS, EINVAL, .flags = SLOT_READONLY, .size = P, .hva = HVA);
        assert_ok(f.vm, .flags = SLOT_LOG_DIRTY_PAGES, .size = P, .hva = HVA);
}

static void kvm_with_fewer_slots(void **state) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);

        (void) state;
        kvm.slots_per_address_space = 509;
        on(kvm);
        assert_ok(f.vm, .id = 508, .size = P, .hva = HVA);
        assert_kvm_refuses(f.vm, RULE_SLOT_ID, EINVAL, .id = 509, .gpa = P, .size = P, .hva = HVA + P);
}

static void five_levels_of_page_tables(void **state) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);
        uint64_t end = (UINT64_C(1) << 56) - P;

        (void) state;
        kvm.user_end = end;
        on(kvm);
        assert_ok(f.vm, .size = P, .hva = USER_END);
        assert_ok(f.vm, .id = 1, .gpa = P, .size = P, .hva = end - P);
        assert_kvm_refuses(f.vm, RULE_USERSPACE_ADDR, EINVAL, .id = 2, .gpa = 2 * P, .size = P, .hva = end);
}

/* The kernel's sum of offset and size is negative, and so passes for less than the size of the file. */
static void signed_sum_is_not_said_to_be_refused_by_kvm(void **state) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_6_18);
        uint64_t last = INT64_MAX - (P - 1);

        (void) state;
        kvm.signed_offsets = true;
        on(kvm);
        assert_refused(f.vm, RULE_BEYOND_BACKING, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                       .guest_memfd = f.gmem, .guest_memfd_offset = last);
        assert_kvm_refuses(f.vm, RULE_BEYOND_BACKING, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem, .guest_memfd_offset = last - P);
        assert_kvm_refuses(f.vm, RULE_BEYOND_BACKING, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem, .guest_memfd_offset = last + P);
        assert_kvm_refuses(f.vm, RULE_GUEST_PHYS_ADDR, EINVAL, .flags = SLOT_GUEST_MEMFD, .gpa = MAX_GPA, .size = P,
                           .hva = HVA, .guest_memfd = f.gmem, .guest_memfd_offset = last);
        assert_int_equal(slot_count(f.vm), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(binding_overlap_by_generation),
                TEST(last_gfn_comes_before_the_binding_from_7_3_on),
                TEST(guest_memfd_comes_before_the_last_gfn_in_7_3),
                TEST(kvm_without_guest_memfd),
                TEST(kvm_without_a_second_address_space),
                TEST(type_decides_about_the_second_address_space),
                TEST(type_decides_about_read_only_slots),
                TEST(type_decides_about_guest_memfd_before_6_18),
                TEST(type_decides_nothing_about_guest_memfd_from_6_18_on),
                TEST(kvm_without_read_only_slots),
                TEST(kvm_with_fewer_slots),
                TEST(five_levels_of_page_tables),
                TEST(signed_sum_is_not_said_to_be_refused_by_kvm),
        };

        return cmocka_run_group_tests_name("kvm-generations", tests, NULL, NULL);
}
