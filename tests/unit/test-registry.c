/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* VMs, backings, and what becomes of them. */

#include "core-fixture.h"

#include <stdio.h>

#include "core/core-private.h"

/* ---- names ---- */

static void valid_names(void **state) {
        static const char *const names[] = { "a", "Z", "0", "a.b_c:d-e", "vm-1", "qemu:web" };
        char longest[NAME_LENGTH_MAX + 1] = {};

        (void) state;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                assert_true(name_is_valid(names[i]));
        memset(longest, 'x', NAME_LENGTH_MAX);
        assert_true(name_is_valid(longest));
}

static void invalid_names(void **state) {
        static const char *const names[] = { "", ".", "-a", "_a", ":a", "a b", "a/b", "a\n", "\xc3\xa4", "a\x7f" };
        char too_long[NAME_LENGTH_MAX + 2] = {};

        (void) state;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                assert_false(name_is_valid(names[i]));
        memset(too_long, 'x', NAME_LENGTH_MAX + 1);
        assert_false(name_is_valid(too_long));
        assert_false(name_is_valid(NULL));
}

/* ---- VMs ---- */

static void new_vm(void **state) {
        VMSpec spec = {
                .name = "new",
                .uuid = { 1, 2, 3 },
                .has_uuid = true,
                .owner = 1000,
                .exit_policy = EXIT_POLICY_RETAIN,
                .alias_policy = ALIAS_POLICY_OBSERVE,
        };
        VM *vm;

        (void) state;
        assert_int_equal(vm_new(f.registry, &spec, &vm), 0);
        assert_string_equal(vm->name, "new");
        assert_ptr_not_equal(vm->name, spec.name);
        assert_memory_equal(vm->uuid, spec.uuid, 16);
        assert_int_equal(vm->state, VM_REGISTERED);
        assert_null(vm_differs(vm, &spec));
        assert_ptr_equal(registry_find_vm(f.registry, "new"), vm);
        assert_int_equal(f.registry->n_vms, 3);
}

static void vm_of_a_taken_name(void **state) {
        VM *vm;

        (void) state;
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "vm", .owner = 5 }, &vm), CORE_E_EXISTS);
        assert_ptr_equal(vm, f.vm);
        assert_int_equal(f.registry->n_vms, 2);
}

static void vm_that_differs(void **state) {
        VMSpec spec = { .name = "vm" };

        (void) state;
        spec.has_uuid = true;
        assert_string_equal(vm_differs(f.vm, &spec), "uuid");
        spec.has_uuid = false;
        spec.owner = 1;
        assert_string_equal(vm_differs(f.vm, &spec), "ownerUID");
        spec.owner = 0;
        spec.exit_policy = EXIT_POLICY_RETAIN;
        assert_string_equal(vm_differs(f.vm, &spec), "exitPolicy");
        spec.exit_policy = EXIT_POLICY_RELEASE;
        spec.alias_policy = ALIAS_POLICY_OBSERVE;
        assert_string_equal(vm_differs(f.vm, &spec), "aliasPolicy");
        spec.retain_guest_memfd = true;
        assert_string_equal(vm_differs(f.vm, &spec), "retainGuestMemfd");
        spec.retain_usec = 1;
        assert_string_equal(vm_differs(f.vm, &spec), "retainUSec");
        spec.retain_usec = 0;
        spec.retain_guest_memfd = false;
        spec.alias_policy = ALIAS_POLICY_ENFORCE;
        spec.type = VM_TYPE_SNP;
        assert_string_equal(vm_differs(f.vm, &spec), "type");
}

static void vm_of_another_type(void **state) {
        VMSpec spec = { .name = "new", .type = VM_TYPE_SEV };
        VM *vm;

        (void) state;
        assert_int_equal(vm_new(f.registry, &spec, &vm), 0);
        assert_int_equal(vm->type, VM_TYPE_SEV);
        spec.type = VM_TYPE_SEV_ES;
        assert_string_equal(vm_differs(vm, &spec), "type");
        spec.type = VM_TYPE_UNDECLARED;
        assert_null(vm_differs(vm, &spec));
}

static void vm_with_another_uuid(void **state) {
        VMSpec spec = { .name = "new", .uuid = { 1 }, .has_uuid = true };
        VM *vm;

        (void) state;
        assert_int_equal(vm_new(f.registry, &spec, &vm), 0);
        spec.uuid[15] = 1;
        assert_string_equal(vm_differs(vm, &spec), "uuid");
        spec.has_uuid = false;
        assert_null(vm_differs(vm, &spec));
}

static void vms_of_one_owner_are_limited(void **state) {
        char name[16];
        VM *vm, *last = NULL;

        (void) state;
        for (unsigned i = 0; i < VMS_PER_UID_MAX; i++) {
                snprintf(name, sizeof(name), "a%u", i);
                assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = name, .owner = 7 }, &last), 0);
        }
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "more", .owner = 7 }, &vm), CORE_E_LIMIT);
        assert_null(registry_find_vm(f.registry, "more"));
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "a0", .owner = 7 }, &vm), CORE_E_EXISTS);
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "other", .owner = 8 }, &vm), 0);

        vm_free(last);
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "more", .owner = 7 }, &vm), 0);
}

static void walk_over_vms_is_in_order_of_names(void **state) {
        VM *b = make_vm("b"), *c = make_vm("c"), *a = make_vm("a");

        (void) state;
        assert_ptr_equal(registry_next_vm(f.registry, NULL), a);
        assert_ptr_equal(registry_next_vm(f.registry, "a"), b);
        assert_ptr_equal(registry_next_vm(f.registry, "b"), c);
        assert_ptr_equal(registry_next_vm(f.registry, "c"), f.peer);
        assert_ptr_equal(registry_next_vm(f.registry, "peer"), f.vm);
        assert_null(registry_next_vm(f.registry, "vm"));
}

static void walk_over_vms_goes_on_after_one_that_is_gone(void **state) {
        VM *b = make_vm("b");

        (void) state;
        make_vm("a");
        assert_ptr_equal(registry_next_vm(f.registry, "aa"), b);
        vm_free(b);
        assert_ptr_equal(registry_next_vm(f.registry, "b"), f.peer);
        assert_null(registry_next_vm(f.registry, "zzz"));
}

static void walk_over_owners(void **state) {
        static const uid_t owners[] = { 7, (uid_t) -2, 1000, 7 };
        OwnerUse use = {};
        VM *vm;

        (void) state;
        for (size_t i = 0; i < sizeof(owners) / sizeof(owners[0]); i++) {
                char name[] = "owned0";

                name[5] = (char) ('0' + i);
                assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = name, .owner = owners[i] }, &vm), 0);
        }
        assert_true(registry_next_owner(f.registry, NULL, &use));
        assert_int_equal(use.uid, 0);
        assert_int_equal(use.n_vms, 2);
        assert_true(registry_next_owner(f.registry, &use.uid, &use));
        assert_int_equal(use.uid, 7);
        assert_int_equal(use.n_vms, 2);
        assert_true(registry_next_owner(f.registry, &use.uid, &use));
        assert_int_equal(use.uid, 1000);
        assert_true(registry_next_owner(f.registry, &use.uid, &use));
        assert_int_equal(use.uid, (uid_t) -2);
        assert_int_equal(use.n_vms, 1);
        assert_false(registry_next_owner(f.registry, &use.uid, &use));
}

static void freed_vm_is_forgotten(void **state) {
        (void) state;
        f.vm = vm_free(f.vm);
        assert_null(f.vm);
        assert_null(registry_find_vm(f.registry, "vm"));
        assert_int_equal(f.registry->n_vms, 1);
        assert_int_equal(f.registry->n_backings, 2);
        assert_int_equal(f.registry->promised_bytes, 2 * BACKING_PAGES * P);
}

static void nothing_is_freed_like_anything_else(void **state) {
        (void) state;
        assert_null(registry_free(NULL));
        assert_null(vm_free(NULL));
        assert_null(backing_free(NULL));
        assert_null(slot_free(NULL));
        assert_null(slot_table_free(NULL));
        assert_null(file_unref(f.registry, NULL));
        assert_null(mm_unref(f.registry, NULL));
}

static void freed_vm_takes_its_slots_along(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.peer_ram, f.vm), 0);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.peer_ram);
        assert_int_equal(f.peer_ram->n_slots, 1);
        vm_free(f.vm);
        assert_int_equal(f.peer_ram->n_slots, 0);
        assert_int_equal(f.registry->n_slots, 0);
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.peer_ram);
}

static void freed_vm_takes_slots_that_show_its_backings_along(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_ok(f.peer, .id = 1, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.peer, .id = 2, .gpa = P, .size = P, .hva = HVA + P, .backing = f.peer_ram);
        vm_free(f.vm);
        assert_null(slot_find(f.peer, 0, 1));
        assert_non_null(slot_find(f.peer, 0, 2));
        assert_int_equal(slot_count(f.peer), 1);
}

static void freed_vm_leaves_no_share(void **state) {
        VM *again;

        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        vm_free(f.peer);
        assert_int_equal(f.ram->n_shares, 0);
        again = make_vm("peer");
        assert_false(backing_is_shared_with(f.ram, again));
}

static void freed_registry_takes_all_along(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
        f.registry = registry_free(f.registry);
        assert_null(f.registry);
        assert_null(registry_free(NULL));
}

/* ---- VMMs ---- */

static void attached_vm(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(f.vm->state, VM_ATTACHED);
        vm_detach(f.vm);
        assert_int_equal(f.vm->state, VM_RETAINED);
        assert_int_equal(vm_attach(f.vm, 2), 0);
        assert_int_equal(f.vm->state, VM_ATTACHED);
}

static void attach_takes_declared_slots_along(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        assert_int_equal(slot_count(f.vm), 1);
        assert_refused(f.peer, RULE_UNDECLARED_ALIAS, .size = P, .hva = HVA);
}

static void attach_to_another_process(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        assert_ok(f.vm, .size = P, .hva = HVA);
        assert_int_equal(vm_attach(f.vm, 2), 0);
        assert_int_equal(vm_attach(f.vm, 2), 0);
        assert_ok(f.peer, .size = P, .hva = HVA);
        assert_allowed(f.vm, RULE_VMM_WINDOW, .id = 1, .gpa = P, .size = P, .hva = HVA);
}

static void detach_withdraws_slots(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        vm_detach(f.vm);
        assert_int_equal(slot_count(f.vm), 0);
        assert_int_equal(f.registry->n_slots, 0);
        assert_int_equal(f.ram->n_slots, 0);
        assert_int_equal(f.vm->n_backings, 2);
        assert_ok(f.peer, .size = P, .hva = HVA);
}

static void first_vm_to_expire(void **state) {
        (void) state;
        assert_null(registry_first_to_expire(f.registry));
        vm_set_retained_until(f.vm, 7);
        assert_ptr_equal(registry_first_to_expire(f.registry), f.vm);
        vm_set_retained_until(f.peer, 5);
        assert_ptr_equal(registry_first_to_expire(f.registry), f.peer);
        vm_set_retained_until(f.peer, 0);
        assert_ptr_equal(registry_first_to_expire(f.registry), f.vm);
}

static void attached_vm_does_not_expire(void **state) {
        (void) state;
        vm_set_retained_until(f.vm, 7);
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_null(registry_first_to_expire(f.registry));
}

static void orphaned_guest_memfd(void **state) {
        (void) state;
        assert_false(backing_is_orphan(f.gmem));
        backing_orphan(f.gmem);
        assert_true(backing_is_orphan(f.gmem));
        assert_kvm_refuses(f.vm, RULE_FOREIGN_GUEST_MEMFD, EINVAL, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA,
                           .guest_memfd = f.gmem);
}

static void detached_vm_is_by_itself(void **state) {
        (void) state;
        assert_int_equal(vm_attach(f.vm, 1), 0);
        assert_int_equal(vm_attach(f.peer, 1), 0);
        vm_detach(f.vm);
        assert_ok(f.peer, .size = P, .hva = HVA);
        assert_ok(f.vm, .size = P, .hva = HVA);
}

/* ---- backings ---- */

static BackingSpec spec_of(const char *name, ino_t ino) {
        return (BackingSpec) {
                .name = name,
                .kind = BACKING_HUGETLB,
                .origin = BACKING_ADOPTED,
                .size = 4 * 512 * P,
                .page_size = 512 * P,
                .numa_policy = NUMA_POLICY_BIND,
                .numa_nodes = 5,
                .dev = 9,
                .ino = ino,
        };
}

static void new_backing(void **state) {
        BackingSpec spec = spec_of("new", 1);
        Backing *backing;

        (void) state;
        assert_int_equal(backing_new(f.vm, &spec, &backing), 0);
        assert_string_equal(backing->name, "new");
        assert_ptr_not_equal(backing->name, spec.name);
        assert_ptr_equal(backing->vm, f.vm);
        assert_int_equal(backing->origin, BACKING_ADOPTED);
        assert_null(backing_differs(backing, &spec));
        assert_ptr_equal(vm_find_backing(f.vm, "new"), backing);
        assert_ptr_equal(registry_find_file(f.registry, 9, 1), backing);
        assert_null(registry_find_file(f.registry, 1, 9));
        assert_int_equal(f.vm->n_backings, 3);
        assert_int_equal(f.registry->n_backings, 5);
        assert_int_equal(f.vm->promised_bytes, (2 * BACKING_PAGES + 4 * 512) * P);
        assert_int_equal(f.registry->promised_bytes, (4 * BACKING_PAGES + 4 * 512) * P);
}

static void backing_of_a_taken_name(void **state) {
        BackingSpec spec = spec_of("ram", 1);
        Backing *backing;

        (void) state;
        assert_int_equal(backing_new(f.vm, &spec, &backing), CORE_E_EXISTS);
        assert_ptr_equal(backing, f.ram);
        assert_int_equal(f.vm->n_backings, 2);
}

static void backing_of_a_known_file(void **state) {
        BackingSpec spec = spec_of("new", f.peer_ram->ino);
        Backing *backing;

        (void) state;
        spec.dev = f.peer_ram->dev;
        assert_int_equal(backing_new(f.vm, &spec, &backing), CORE_E_KNOWN_FILE);
        assert_ptr_equal(backing, f.peer_ram);
        assert_int_equal(f.vm->n_backings, 2);
}

static void backings_of_one_vm_are_limited(void **state) {
        Backing *backing;
        BackingSpec spec;
        char name[16];

        (void) state;
        for (unsigned i = 2; i < BACKINGS_PER_VM_MAX; i++) {
                snprintf(name, sizeof(name), "a%u", i);
                spec = spec_of(name, i);
                assert_int_equal(backing_new(f.vm, &spec, &backing), 0);
        }
        spec = spec_of("more", 1000);
        assert_int_equal(backing_admit(f.vm, &spec, &backing), CORE_E_LIMIT);
        assert_int_equal(backing_new(f.vm, &spec, &backing), CORE_E_LIMIT);
        assert_int_equal(backing_new(f.peer, &spec, &backing), 0);
        spec.name = "ram";
        assert_int_equal(backing_admit(f.vm, &spec, &backing), CORE_E_EXISTS);
}

static void limits_may_be_lowered_and_raised(void **state) {
        BackingSpec spec = spec_of("more", 1000);
        Backing *backing;
        VM *vm;

        (void) state;
        f.registry->limits = (CoreLimits) { .vms_per_uid = 1, .backings_per_vm = 1 };
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "more" }, &vm), CORE_E_LIMIT);
        assert_int_equal(backing_admit(f.vm, &spec, &backing), CORE_E_LIMIT);
        assert_int_equal(backing_new(f.vm, &spec, &backing), CORE_E_LIMIT);
        assert_int_equal(f.registry->n_vms, 2);
        assert_int_equal(f.vm->n_backings, 2);
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "other", .owner = 9 }, &vm), 0);
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "another", .owner = 9 }, &vm), CORE_E_LIMIT);

        f.registry->limits = (CoreLimits) { .vms_per_uid = 3, .backings_per_vm = 3 };
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "more" }, &vm), 0);
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "yet-more" }, &vm), CORE_E_LIMIT);
        assert_int_equal(backing_new(f.vm, &spec, &backing), 0);
}

static void admission_changes_nothing(void **state) {
        BackingSpec spec = spec_of("new", 1);
        Backing *backing;

        (void) state;
        assert_int_equal(backing_admit(f.vm, &spec, &backing), 0);
        assert_null(vm_find_backing(f.vm, "new"));
        spec.name = "ram";
        assert_int_equal(backing_admit(f.vm, &spec, &backing), CORE_E_EXISTS);
        assert_ptr_equal(backing, f.ram);
}

static void backing_that_differs(void **state) {
        BackingSpec spec = spec_of("new", 1);
        Backing *backing;

        (void) state;
        assert_int_equal(backing_new(f.vm, &spec, &backing), 0);
        spec.dev = spec.ino = 77;
        spec.origin = BACKING_ALLOCATED;
        assert_null(backing_differs(backing, &spec));
        spec.numa_nodes = 1;
        assert_string_equal(backing_differs(backing, &spec), "numaNodes");
        spec.numa_policy = NUMA_POLICY_NONE;
        assert_string_equal(backing_differs(backing, &spec), "numaPolicy");
        spec.page_size = P;
        assert_string_equal(backing_differs(backing, &spec), "pageSize");
        spec.size = P;
        assert_string_equal(backing_differs(backing, &spec), "size");
        spec.kind = BACKING_MEMFD;
        assert_string_equal(backing_differs(backing, &spec), "kind");
}

static void released_backing_is_forgotten(void **state) {
        dev_t dev = f.ram->dev;
        ino_t ino = f.ram->ino;

        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_int_equal(backing_release(f.ram), 0);
        assert_null(vm_find_backing(f.vm, "ram"));
        assert_null(registry_find_file(f.registry, dev, ino));
        assert_int_equal(f.vm->n_backings, 1);
        assert_int_equal(f.vm->promised_bytes, BACKING_PAGES * P);
        vm_free(f.peer);
}

static void backing_in_use_is_not_released(void **state) {
        (void) state;
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .guest_memfd = f.gmem);
        assert_int_equal(backing_release(f.ram), CORE_E_IN_USE);
        assert_int_equal(backing_release(f.gmem), CORE_E_IN_USE);
        assert_ok(f.peer, .size = 0);
        assert_ok(f.vm, .size = 0);
        assert_int_equal(backing_release(f.ram), 0);
        assert_int_equal(backing_release(f.gmem), 0);
}

/* More than the table has places for at first, and with identities of every kind. */
static void every_file_is_found_by_its_identity(void **state) {
        enum {
                FILES = 3000
        };
        static File *files[FILES];

        (void) state;
        for (size_t i = 0; i < FILES; i++) {
                assert_int_equal(
                        file_ref_by_identity(f.registry, 5 + i % 3, i / 3 + ((ino_t) (i % 40) << 40), &files[i]), 0);
                assert_int_equal(files[i]->n_refs, 1);
        }
        for (size_t round = 0; round < 2; round++) {
                for (size_t i = round; i < FILES; i++) {
                        File *file;

                        if (round > 0 && i % 2 == 0)
                                continue;
                        assert_int_equal(
                                file_ref_by_identity(f.registry, 5 + i % 3, i / 3 + ((ino_t) (i % 40) << 40), &file),
                                0);
                        assert_ptr_equal(file, files[i]);
                        file_unref(f.registry, file);
                }
                for (size_t i = 0; round == 0 && i < FILES; i += 2)
                        assert_null(file_unref(f.registry, files[i]));
        }
        assert_ptr_equal(registry_find_file(f.registry, f.ram->dev, f.ram->ino), f.ram);
        for (size_t i = 1; i < FILES; i += 2)
                file_unref(f.registry, files[i]);
        assert_ptr_equal(registry_find_file(f.registry, f.peer_gmem->dev, f.peer_gmem->ino), f.peer_gmem);
        assert_null(registry_find_file(f.registry, 77, 77));
}

static void promised_bytes_do_not_wrap(void **state) {
        BackingSpec spec = spec_of("a", 1);
        Backing *a, *b, *c;

        (void) state;
        spec.size = INT64_MAX - (P - 1);
        assert_int_equal(backing_new(f.vm, &spec, &a), 0);
        spec.name = "b";
        spec.ino = 2;
        assert_int_equal(backing_new(f.vm, &spec, &b), 0);
        spec.name = "c";
        spec.ino = 3;
        assert_int_equal(backing_new(f.vm, &spec, &c), 0);
        assert_int_equal(f.vm->promised_bytes, INT64_MAX);
        assert_int_equal(f.registry->promised_bytes, INT64_MAX);
        backing_release(a);
        backing_release(b);
        assert_int_equal(f.registry->promised_bytes, INT64_MAX);
        backing_release(c);
        assert_int_equal(f.registry->promised_bytes, 4 * BACKING_PAGES * P);
        assert_int_equal(f.vm->promised_bytes, 2 * BACKING_PAGES * P);
}

static void walk_over_backings_is_in_order_of_names(void **state) {
        (void) state;
        assert_ptr_equal(vm_next_backing(f.vm, NULL), f.gmem);
        assert_ptr_equal(vm_next_backing(f.vm, "gmem"), f.ram);
        assert_ptr_equal(vm_next_backing(f.vm, "h"), f.ram);
        assert_null(vm_next_backing(f.vm, "ram"));
        assert_null(vm_next_backing(make_vm("empty"), NULL));
}

/* ---- shares ---- */

static void share_is_idempotent(void **state) {
        (void) state;
        assert_false(backing_is_shared_with(f.ram, f.peer));
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_true(backing_is_shared_with(f.ram, f.peer));
        backing_unshare(f.ram, f.peer);
        assert_false(backing_is_shared_with(f.ram, f.peer));
        backing_unshare(f.ram, f.peer);
}

static void share_with_the_owner_is_none(void **state) {
        (void) state;
        assert_int_equal(backing_share(f.ram, f.vm), 0);
        assert_int_equal(f.ram->n_shares, 0);
}

static void share_that_ends_leaves_the_others(void **state) {
        VM *third = make_vm("third");

        (void) state;
        assert_int_equal(backing_share(f.ram, f.peer), 0);
        assert_int_equal(backing_share(f.ram, third), 0);
        backing_unshare(f.ram, f.peer);
        assert_true(backing_is_shared_with(f.ram, third));
}

static void shown_by_another_vm(void **state) {
        (void) state;
        assert_ok(f.vm, .size = P, .hva = HVA, .backing = f.ram);
        assert_null(backing_shown_by_other(f.ram));
        assert_ok(f.peer, .size = P, .hva = HVA, .backing = f.ram, .offset = P);
        assert_ptr_equal(backing_shown_by_other(f.ram), f.peer);
        vm_withdraw_slots(f.peer);
        assert_null(backing_shown_by_other(f.ram));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(valid_names),
                TEST(invalid_names),
                TEST(new_vm),
                TEST(vm_of_a_taken_name),
                TEST(vm_that_differs),
                TEST(vm_with_another_uuid),
                TEST(vm_of_another_type),
                TEST(vms_of_one_owner_are_limited),
                TEST(walk_over_vms_is_in_order_of_names),
                TEST(walk_over_vms_goes_on_after_one_that_is_gone),
                TEST(walk_over_owners),
                TEST(freed_vm_is_forgotten),
                TEST(nothing_is_freed_like_anything_else),
                TEST(freed_vm_takes_its_slots_along),
                TEST(freed_vm_takes_slots_that_show_its_backings_along),
                TEST(freed_vm_leaves_no_share),
                TEST(freed_registry_takes_all_along),
                TEST(attached_vm),
                TEST(attach_takes_declared_slots_along),
                TEST(attach_to_another_process),
                TEST(detach_withdraws_slots),
                TEST(detached_vm_is_by_itself),
                TEST(first_vm_to_expire),
                TEST(attached_vm_does_not_expire),
                TEST(orphaned_guest_memfd),
                TEST(new_backing),
                TEST(backing_of_a_taken_name),
                TEST(backing_of_a_known_file),
                TEST(backings_of_one_vm_are_limited),
                TEST(limits_may_be_lowered_and_raised),
                TEST(admission_changes_nothing),
                TEST(backing_that_differs),
                TEST(released_backing_is_forgotten),
                TEST(backing_in_use_is_not_released),
                TEST(every_file_is_found_by_its_identity),
                TEST(promised_bytes_do_not_wrap),
                TEST(walk_over_backings_is_in_order_of_names),
                TEST(share_is_idempotent),
                TEST(share_with_the_owner_is_none),
                TEST(share_that_ends_leaves_the_others),
                TEST(shown_by_another_vm),
        };

        return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
