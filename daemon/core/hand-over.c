/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/hand-over.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/core-private.h"

/* As much of a VM as the former VMM needs, still without what is the VMM's. */
static VM *outgoing_new(VM *vm) {
        VM *outgoing;

        outgoing = calloc(1, sizeof(VM));
        if (!outgoing)
                return NULL;

        outgoing->registry = vm->registry;
        outgoing->id = registry_new_id(vm->registry);
        outgoing->heir = vm;
        outgoing->owner = vm->owner;
        outgoing->exit_policy = vm->exit_policy;
        outgoing->alias_policy = vm->alias_policy;
        outgoing->type = vm->type;
        outgoing->state = VM_ATTACHED;
        TAILQ_INIT(&outgoing->backings);
        TAILQ_INIT(&outgoing->claims);
        outgoing->name = strdup(vm->name);
        outgoing->slots = calloc(1, sizeof(SlotTable));
        if (!outgoing->name || !outgoing->slots)
                return vm_free(outgoing);
        return outgoing;
}

/* The VM that gets it must have an empty table, nothing private and no VMM's address space; and so has the other one
 * afterwards. */
static void move_vmm(VM *from, VM *to) {
        SlotTable *empty = to->slots;
        Slot *slot;

        to->slots = from->slots;
        from->slots = empty;
        for (slot = slot_first(to); slot; slot = slot_next(to, slot->spec.as_id, slot->spec.id))
                slot->vm = to;

        to->private_ranges = from->private_ranges;
        from->private_ranges = (AttributeMap) {};
        to->mm = from->mm;
        from->mm = from->own_mm;
        to->vmm = from->vmm;
        to->successor = from->successor = (VMMIdentity) {};
        to->vmm_serial = from->vmm_serial;
        to->userdata = from->userdata;
        from->userdata = NULL;
}

int vm_hand_over(VM *vm, uint64_t mm_id) {
        VM *outgoing;
        Mm *mm;
        int r;

        assert(vm->state == VM_ATTACHED && !vm->outgoing && !vm->heir);

        outgoing = outgoing_new(vm);
        if (!outgoing)
                return -ENOMEM;
        r = mm_ref_by_id(vm->registry, mm_id, &mm);
        if (r < 0) {
                vm_free(outgoing);
                return r;
        }
        assert(mm != vm->mm);

        move_vmm(vm, outgoing);
        vm->mm = mm;
        vm->vmm_serial = ++vm->last_vmm_serial;
        vm->outgoing = outgoing;
        return 0;
}

void vm_end_outgoing(VM *vm) {
        vm->outgoing = vm_free(vm->outgoing);
}

void vm_take_back(VM *vm) {
        vm_withdraw_slots(vm);
        attributes_clear(&vm->private_ranges);
        mm_unref(vm->registry, vm->mm);

        move_vmm(vm->outgoing, vm);
        vm->outgoing = vm_free(vm->outgoing);
}
