/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the KVM of this host does. privmemd makes one VM, at its start, to look at that, and gives it back at once:
 * the VM of a VMM answers that VMM's own ioctls only. */

#include <stdbool.h>
#include <stdint.h>

#include "core/kvm_rules.h"

typedef struct KVMHost {
        bool present;               /* /dev/kvm can be opened */
        bool guest_memfd;           /* KVM_CAP_GUEST_MEMFD */
        uint64_t guest_memfd_flags; /* KVM_CAP_GUEST_MEMFD_FLAGS */
        bool probed;                /* a VM could be made, and showed the rules */
        KVMRules rules;             /* else those of KVM_GENERATION_DEFAULT */
} KVMHost;

void kvm_host_probe(KVMHost *ret);
