/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What /dev/kvm says of itself. privmemd never makes a VM: an ioctl on one answers its own VMM only. */

#include <stdbool.h>
#include <stdint.h>

typedef struct KVMHost {
        bool present;               /* /dev/kvm can be opened */
        bool guest_memfd;           /* KVM_CAP_GUEST_MEMFD */
        uint64_t guest_memfd_flags; /* KVM_CAP_GUEST_MEMFD_FLAGS */
} KVMHost;

void kvm_host_probe(KVMHost *ret);

/* The first guest physical address that KVM refuses, as kvm_mmu_max_gfn() has it: the width of the CPU's physical
 * addresses where KVM uses EPT or NPT, 52 bits where it shadows page tables. 0 if it is not known. */
uint64_t kvm_host_max_gpa(void);
