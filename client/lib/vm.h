/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A VM's handle: its name, and what slot-table.h and kvm.h remember of it. */

#include <json-c/json.h>

#include "connection.h"
#include "privmem.h"
#include "slot-table.h"

struct privmem_vm {
        privmem *p;
        char *name;
        SlotTable slots;
        privmem_kvm_abi abi;
        int user_memory2; /* KVM_CAP_USER_MEMORY2: -1 not asked yet */
};

/* {"vm": name}, to add the other parameters to; NULL: out of memory. */
json_object *vm_parameters(const privmem_vm *vm);
