/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* In what the KVMs differ that privmemd meets. Everything else about memslots has been the same since Linux 6.8 and
 * is written into core/kvm_rules.c.
 *
 * The numbers come from looking at the running KVM (host/kvm.h), never from a version. */

#include <stdbool.h>
#include <stdint.h>

typedef enum KVMGuestMemfd {
        KVM_GUEST_MEMFD_NONE,       /* no slot can have one */
        KVM_GUEST_MEMFD_PRIVATE_VM, /* only in VMs of a type with private memory: Linux 6.8 to 6.17 */
        KVM_GUEST_MEMFD_ANY_VM,     /* Linux 6.18 */
} KVMGuestMemfd;

typedef struct KVMRules {
        uint32_t slots_per_address_space; /* KVM_CAP_NR_MEMSLOTS */
        uint32_t address_spaces;          /* KVM_CAP_MULTI_ADDRESS_SPACE; 1 to ADDRESS_SPACES_MAX */
        bool readonly;                    /* KVM_CAP_READONLY_MEM */
        KVMGuestMemfd guest_memfd;
        int binding_errno;       /* a guest_memfd range bound a second time: EINVAL, from Linux 7.2 on EEXIST */
        bool binding_after_arch; /* and that is seen only after the greatest guest address: from Linux 7.3 on */
        /* Up to Linux 7.1 a guest_memfd range whose end exceeds INT64_MAX passes for one inside the file. privmemd
         * refuses it all the same, but does not claim that KVM does. */
        bool signed_offsets;
        uint64_t user_end; /* access_ok() lets a range end here, not beyond; bytes */
        uint64_t max_gpa;  /* the first guest physical address that no slot can have; 0 for no such limit */
} KVMRules;

/* Lines of development that differ in their rules, each named by its first release. */
typedef enum KVMGeneration {
        KVM_GENERATION_6_8,
        KVM_GENERATION_6_18,
        KVM_GENERATION_7_2,
        KVM_GENERATION_7_3,
        _KVM_GENERATION_MAX,
} KVMGeneration;

/* What holds where KVM cannot be looked at. */
#define KVM_GENERATION_DEFAULT KVM_GENERATION_6_18

/* The rules of a generation on an x86-64 host with SMM, four levels of page tables, and no limit of guest addresses.
 * signed_offsets is false in all of them: it is a defect, not a rule. */
KVMRules kvm_rules_of(KVMGeneration generation);
