/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "core/claim.h"
#include "core/core-private.h"
#include "core/range.h"

/* What one uid has, charged while it has anything. */
typedef struct Owner {
        uid_t uid;
        size_t n_vms;
        size_t n_claims; /* of these VMs */
} Owner;

static int compare_owner(const void *a, const void *b) {
        const Owner *x = a, *y = b;

        return x->uid < y->uid ? -1 : x->uid > y->uid;
}

static int compare_vm(const void *a, const void *b) {
        const VM *x = a, *y = b;

        return strcmp(x->name, y->name);
}

int registry_new(uint64_t page_size, const KVMRules *kvm, Registry **ret) {
        Registry *registry;

        assert(page_size > 0 && is_aligned(page_size, page_size));
        assert(kvm->address_spaces > 0 && kvm->address_spaces <= ADDRESS_SPACES_MAX);

        registry = calloc(1, sizeof(Registry));
        if (!registry)
                return -ENOMEM;

        TAILQ_INIT(&registry->vms);
        TAILQ_INIT(&registry->claims);
        registry->page_size = page_size;
        registry->kvm = *kvm;
        registry->limits = (CoreLimits) { VMS_PER_UID_MAX, BACKINGS_PER_VM_MAX };
        *ret = registry;
        return 0;
}

Registry *registry_free(Registry *registry) {
        VM *vm;

        if (!registry)
                return NULL;

        while ((vm = TAILQ_FIRST(&registry->vms)))
                vm_free(vm);

        assert(!registry->vms_by_name && registry->files.n == 0 && !registry->mms_by_id);
        assert(!registry->owners_by_uid && TAILQ_EMPTY(&registry->claims));
        assert(registry->n_vms == 0 && registry->n_backings == 0 && registry->n_slots == 0);
        assert(registry->n_claims == 0 && registry->n_claimed == 0);
        free(registry);
        return NULL;
}

uint64_t registry_new_id(Registry *registry) {
        return ++registry->last_id;
}

static bool is_letter_or_digit(char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool name_is_valid(const char *name) {
        size_t n;

        if (!name || !is_letter_or_digit(name[0]))
                return false;

        for (n = 1; name[n] != '\0'; n++)
                if (n >= NAME_LENGTH_MAX || (!is_letter_or_digit(name[n]) && !strchr("._:-", name[n])))
                        return false;

        return true;
}

VM *registry_find_vm(Registry *registry, const char *name) {
        VM key = { .name = (char *) name }, **found;

        found = tfind(&key, &registry->vms_by_name, compare_vm);
        return found ? *found : NULL;
}

typedef struct Successor {
        const char *after; /* NULL: before all */
        VM *best;
} Successor;

/* Equals nothing, so tfind() walks down to where the name would be and passes the one behind it. */
static int compare_successor(const void *key, const void *member) {
        Successor *successor = (Successor *) key;
        VM *vm = (VM *) member;

        if (successor->after && strcmp(successor->after, vm->name) >= 0)
                return 1;

        successor->best = vm;
        return -1;
}

VM *registry_next_vm(Registry *registry, const char *after) {
        Successor key = { .after = after };

        tfind(&key, &registry->vms_by_name, compare_successor);
        return key.best;
}

VM *registry_first_to_expire(Registry *registry) {
        VM *vm, *first = NULL;

        TAILQ_FOREACH(vm, &registry->vms, vms)
                if (vm->retained_until_usec > 0 && (!first || vm->retained_until_usec < first->retained_until_usec))
                        first = vm;
        return first;
}

typedef struct OwnerSuccessor {
        const uid_t *after;
        const Owner *best;
} OwnerSuccessor;

static int compare_owner_successor(const void *key, const void *member) {
        OwnerSuccessor *successor = (OwnerSuccessor *) key;
        const Owner *owner = member;

        if (successor->after && *successor->after >= owner->uid)
                return 1;

        successor->best = owner;
        return -1;
}

bool registry_next_owner(const Registry *registry, const uid_t *after, OwnerUse *ret) {
        OwnerSuccessor key = { .after = after };

        tfind(&key, &registry->owners_by_uid, compare_owner_successor);
        if (!key.best)
                return false;
        *ret = (OwnerUse) { .uid = key.best->uid, .n_vms = key.best->n_vms, .n_claims = key.best->n_claims };
        return true;
}

Claim *registry_first_claim_to_expire(Registry *registry) {
        return TAILQ_FIRST(&registry->claims);
}

/* Of a VM that is in the indexes. */
static Owner *owner_of(Registry *registry, const VM *vm) {
        Owner key = { .uid = vm->owner }, **found;

        found = tfind(&key, &registry->owners_by_uid, compare_owner);
        assert(found);
        return *found;
}

int registry_charge_claim(Registry *registry, const VM *vm) {
        Owner *owner = owner_of(registry, vm);

        if (owner->n_claims >= CLAIMS_PER_UID_MAX)
                return CORE_E_OWNER_LIMIT;
        owner->n_claims++;
        return 0;
}

void registry_discharge_claim(Registry *registry, const VM *vm) {
        owner_of(registry, vm)->n_claims--;
}

static int charge_owner(Registry *registry, uid_t uid) {
        Owner key = { .uid = uid }, *owner, **found;

        found = tfind(&key, &registry->owners_by_uid, compare_owner);
        if (found) {
                if ((*found)->n_vms >= registry->limits.vms_per_uid)
                        return CORE_E_LIMIT;
                (*found)->n_vms++;
                return 0;
        }

        owner = calloc(1, sizeof(Owner));
        if (!owner)
                return -ENOMEM;
        owner->uid = uid;
        owner->n_vms = 1;
        if (!tsearch(owner, &registry->owners_by_uid, compare_owner)) {
                free(owner);
                return -ENOMEM;
        }

        return 0;
}

static void discharge_owner(Registry *registry, uid_t uid) {
        Owner key = { .uid = uid }, *owner, **found;

        found = tfind(&key, &registry->owners_by_uid, compare_owner);
        assert(found && (*found)->n_vms > 0);
        owner = *found;
        if (--owner->n_vms > 0)
                return;

        tdelete(owner, &registry->owners_by_uid, compare_owner);
        free(owner);
}

int registry_add_vm(Registry *registry, VM *vm) {
        int r;

        r = charge_owner(registry, vm->owner);
        if (r != 0)
                return r;
        if (!tsearch(vm, &registry->vms_by_name, compare_vm)) {
                discharge_owner(registry, vm->owner);
                return -ENOMEM;
        }

        TAILQ_INSERT_TAIL(&registry->vms, vm, vms);
        registry->n_vms++;
        return 0;
}

void registry_remove_vm(Registry *registry, VM *vm) {
        tdelete(vm, &registry->vms_by_name, compare_vm);
        TAILQ_REMOVE(&registry->vms, vm, vms);
        discharge_owner(registry, vm->owner);
        registry->n_vms--;
}

void registry_add_backing(Registry *registry, const Backing *backing) {
        registry->n_backings++;
        promise_add(&registry->promise, &registry->promised_bytes, backing->size);
}

void registry_remove_backing(Registry *registry, const Backing *backing) {
        registry->n_backings--;
        promise_subtract(&registry->promise, &registry->promised_bytes, backing->size);
}
