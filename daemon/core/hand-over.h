/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A VM that goes from one living VMM to another: a VMM is replaced by a newer one, and the guest's memory stays.
 *
 * For a while both live and both show the memory. What belongs to the former VMM alone (its slots, its address space,
 * which of its guest addresses are private) is then in a VM of its own, vm->outgoing, which is in no list and has no
 * backings; its heir is the VM that everybody knows. To KVM's rules the two are different VMs, as they are to KVM. To the
 * alias rules the memory that both show is allowed by RULE_HAND_OVER, unless it is private.
 *
 * vm_hand_over() begins it. It ends with the exit of either VMM: of the former one by vm_end_outgoing(), and of the new
 * one, if that comes first, by vm_take_back(). */

#include "core/vm.h"

/* A VMM, other than the one that has it, takes over an attached VM that is in no hand-over. It begins without slots.
 * vm->userdata goes to vm->outgoing. -ENOMEM leaves all as it was. */
int vm_hand_over(VM *vm, uint64_t mm_id);
/* The former VMM has exited: its slots are withdrawn. vm->outgoing is gone afterwards. */
void vm_end_outgoing(VM *vm);
/* The new VMM has exited: its slots are withdrawn, and the VM is the former one's again, as it left it. vm->outgoing is
 * gone afterwards, and its userdata is the VM's. */
void vm_take_back(VM *vm);
