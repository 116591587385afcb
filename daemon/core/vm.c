/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/vm.h"

#include <assert.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "core/claim.h"
#include "core/core-private.h"

static int compare_backing(const void *a, const void *b) {
        const Backing *x = a, *y = b;

        return strcmp(x->name, y->name);
}

/* svm_vm_init() and tdx_vm_init(); kvm_arch_init_vm() for KVM_X86_SW_PROTECTED_VM */
static const struct {
        bool private_memory, protected_state;
} types[] = {
        [VM_TYPE_UNDECLARED] = {},
        [VM_TYPE_ORDINARY] = {},
        [VM_TYPE_SW_PROTECTED] = { .private_memory = true },
        [VM_TYPE_SEV] = {},
        [VM_TYPE_SEV_ES] = { .protected_state = true },
        [VM_TYPE_SNP] = { .private_memory = true, .protected_state = true },
        [VM_TYPE_TDX] = { .private_memory = true, .protected_state = true },
};

_Static_assert(sizeof(types) / sizeof(types[0]) == _VM_TYPE_MAX, "a VMType has no row");

bool vm_type_has_private_memory(VMType type) {
        return types[type].private_memory;
}

bool vm_type_has_protected_state(VMType type) {
        return types[type].protected_state;
}

void vm_changed(VM *vm) {
        vm->generation = ++vm->registry->last_generation;
}

int vm_new(Registry *registry, const VMSpec *spec, VM **ret) {
        VM *vm;
        int r;

        assert(name_is_valid(spec->name));

        vm = registry_find_vm(registry, spec->name);
        if (vm) {
                *ret = vm;
                return CORE_E_EXISTS;
        }

        vm = calloc(1, sizeof(VM));
        if (!vm)
                return -ENOMEM;

        vm->registry = registry;
        vm->id = registry_new_id(registry);
        vm_changed(vm);
        vm->has_uuid = spec->has_uuid;
        if (spec->has_uuid)
                memcpy(vm->uuid, spec->uuid, sizeof(vm->uuid));
        vm->owner = spec->owner;
        vm->exit_policy = spec->exit_policy;
        vm->alias_policy = spec->alias_policy;
        vm->type = spec->type;
        vm->retain_usec = spec->retain_usec;
        vm->retain_guest_memfd = spec->retain_guest_memfd;
        TAILQ_INIT(&vm->backings);
        TAILQ_INIT(&vm->claims);

        r = -ENOMEM;
        vm->name = strdup(spec->name);
        vm->slots = calloc(1, sizeof(SlotTable));
        if (!vm->name || !vm->slots || mm_new(&vm->own_mm) < 0)
                goto fail;
        vm->mm = vm->own_mm;

        r = registry_add_vm(registry, vm);
        if (r != 0)
                goto fail;

        *ret = vm;
        return 0;

fail:
        vm_free(vm);
        return r;
}

/* The shares it has taken are named in backings of other VMs. */
static void return_shares(VM *vm) {
        VM *other;
        Backing *backing;

        for (other = TAILQ_FIRST(&vm->registry->vms); other && vm->n_shares_taken > 0; other = TAILQ_NEXT(other, vms))
                TAILQ_FOREACH(backing, &other->backings, backings)
                        backing_unshare(backing, vm);
}

void vm_withdraw_slots(VM *vm) {
        Slot *slot, *next;

        for (slot = slot_first(vm); slot; slot = next) {
                next = slot_next(vm, slot->spec.as_id, slot->spec.id);
                slot_free(slot);
        }
}

VM *vm_free(VM *vm) {
        Backing *backing;
        Claim *claim;

        if (!vm)
                return NULL;

        vm->outgoing = vm_free(vm->outgoing);
        while ((claim = TAILQ_FIRST(&vm->claims)))
                claim_free(claim);
        if (vm->slots)
                vm_withdraw_slots(vm);
        attributes_clear(&vm->private_ranges);
        while ((backing = TAILQ_FIRST(&vm->backings)))
                backing_lose(backing);
        return_shares(vm);

        if (vm->vms.tqe_prev)
                registry_remove_vm(vm->registry, vm);
        if (vm->mm != vm->own_mm)
                mm_unref(vm->registry, vm->mm);
        mm_unref(vm->registry, vm->own_mm);
        slot_table_free(vm->slots);
        free(vm->verdict_counts);
        free(vm->name);
        free(vm);
        return NULL;
}

const char *vm_differs(const VM *vm, const VMSpec *spec) {
        if (spec->has_uuid && (!vm->has_uuid || memcmp(vm->uuid, spec->uuid, sizeof(vm->uuid)) != 0))
                return "uuid";
        if (vm->owner != spec->owner)
                return "ownerUID";
        if (vm->exit_policy != spec->exit_policy)
                return "exitPolicy";
        if (vm->retain_usec != spec->retain_usec)
                return "retainUSec";
        if (vm->retain_guest_memfd != spec->retain_guest_memfd)
                return "retainGuestMemfd";
        if (vm->alias_policy != spec->alias_policy)
                return "aliasPolicy";
        if (spec->type != VM_TYPE_UNDECLARED && vm->type != spec->type)
                return "type";
        return NULL;
}

int vm_attach(VM *vm, uint64_t mm_id) {
        Mm *mm;
        int r;

        r = mm_ref_by_id(vm->registry, mm_id, &mm);
        if (r < 0)
                return r;

        r = slot_enter_mm(vm, mm);
        if (r < 0) {
                mm_unref(vm->registry, mm);
                return r;
        }

        if (vm->mm != vm->own_mm)
                mm_unref(vm->registry, vm->mm);
        vm->mm = mm;
        vm->state = VM_ATTACHED;
        vm_set_retained_until(vm, 0);
        return 0;
}

uint64_t vm_mm_id(const VM *vm) {
        return vm->mm->id;
}

void vm_set_retained_until(VM *vm, uint64_t usec) {
        vm->retained_until_usec = usec;
}

void vm_detach(VM *vm) {
        assert(!vm->outgoing && !vm->heir);

        vm_withdraw_slots(vm);
        attributes_clear(&vm->private_ranges);

        if (vm->mm != vm->own_mm)
                mm_unref(vm->registry, vm->mm);
        vm->mm = vm->own_mm;
        vm->state = VM_RETAINED;
}

Backing *vm_find_backing(VM *vm, const char *name) {
        Backing key = { .name = (char *) name }, **found;

        found = tfind(&key, &vm->backings_by_name, compare_backing);
        return found ? *found : NULL;
}

typedef struct Successor {
        const char *after; /* NULL: before all */
        Backing *best;
} Successor;

/* Equals nothing, so tfind() walks down to where the name would be and passes the one behind it. */
static int compare_successor(const void *key, const void *member) {
        Successor *successor = (Successor *) key;
        Backing *backing = (Backing *) member;

        if (successor->after && strcmp(successor->after, backing->name) >= 0)
                return 1;

        successor->best = backing;
        return -1;
}

Backing *vm_next_backing(VM *vm, const char *after) {
        Successor key = { .after = after };

        tfind(&key, &vm->backings_by_name, compare_successor);
        return key.best;
}

int vm_add_backing(VM *vm, Backing *backing) {
        if (!tsearch(backing, &vm->backings_by_name, compare_backing))
                return -ENOMEM;

        TAILQ_INSERT_TAIL(&vm->backings, backing, backings);
        vm->n_backings++;
        promise_add(&vm->promise, &vm->promised_bytes, backing->size);
        return 0;
}

void vm_remove_backing(VM *vm, Backing *backing) {
        tdelete(backing, &vm->backings_by_name, compare_backing);
        TAILQ_REMOVE(&vm->backings, backing, backings);
        vm->n_backings--;
        promise_subtract(&vm->promise, &vm->promised_bytes, backing->size);
}
