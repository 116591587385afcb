/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The kernel as oracle: a sequence of operations on the memslots of two VMs is given to the core and to /dev/kvm, and
 * both must answer the same.
 *
 * An operation is made of numbers alone, so that a sequence can be made from a seed, left out in parts, and printed. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/kvm_rules.h"
#include "core/slot.h"

#define ORACLE_PAGE       UINT64_C(4096)
/* Where the test has reserved user addresses; nothing is mapped there. Byte n is meant to be byte n of a memfd. */
#define ORACLE_AREA       UINT64_C(0x600000000000)
#define ORACLE_AREA_PAGES 64U

enum {
        ORACLE_VMS = 2,
        ORACLE_GUEST_MEMFDS = 3, /* of each VM: 16 pages, one page, and as large as can be */
        ORACLE_LENGTH_MAX = 48,
};

/* The size of a VM's guest_memfds, in bytes. */
extern const uint64_t oracle_guest_memfd_sizes[ORACLE_GUEST_MEMFDS];

/* What stands in the field guest_memfd. */
typedef enum OracleFD {
        FD_GUEST_MEMFD,                     /* and the two after it */
        FD_DUPLICATE = ORACLE_GUEST_MEMFDS, /* of the VM's first guest_memfd */
        FD_OTHER_VM,                        /* the first guest_memfd of the other VM */
        FD_MINUS_ONE,
        FD_CLOSED,
        FD_MEMFD,
        FD_NULL_DEVICE,
        FD_VM,
        _ORACLE_FD_MAX,
} OracleFD;

/* What the core is told to be mapped at userspace_addr. KVM never hears of it. */
typedef enum OracleDeclared {
        DECLARED_NOTHING,
        DECLARED_RAM,          /* of the VM, ORACLE_AREA_PAGES */
        DECLARED_RAM_OF_OTHER, /* VM 0 shares its with VM 1, which shares its for reading only */
        DECLARED_GUEST_MEMFD,  /* the VM's first one */
        _ORACLE_DECLARED_MAX,
} OracleDeclared;

typedef struct Operation {
        unsigned vm;
        bool old_ioctl;        /* KVM_SET_USER_MEMORY_REGION */
        bool unreadable;       /* the last byte of the structure is not there */
        uint32_t high;         /* half of the ioctl's number */
        unsigned char padding; /* all bytes of it */
        uint32_t slot, flags;
        uint64_t gpa, size, hva;
        OracleFD fd;
        uint64_t fd_offset;
        OracleDeclared declared;
        uint64_t offset;
} Operation;

/* ---- oracle-operation.c ---- */

/* n operations of the sequence with that number, at most ORACLE_LENGTH_MAX. */
size_t operations_make(uint64_t seed, const KVMRules *kvm, Operation *ret);
void operation_print(FILE *f, const Operation *operation);

/* ---- oracle-run.c ---- */

/* Why privmemd refuses what KVM takes. */
typedef enum OracleReason {
        REASON_NONE,
        REASON_ALIAS,          /* an alias rule; see by_rule */
        REASON_BEYOND_SHARED,  /* the declared file is not that large */
        REASON_READ_ONLY,      /* the declared file is shared for reading only */
        REASON_SIGNED_OFFSETS, /* KVM up to 7.1 adds as signed numbers */
        _ORACLE_REASON_MAX,
} OracleReason;

typedef struct OracleCounts {
        size_t operations;
        size_t taken;              /* by both */
        size_t unreadable;         /* EFAULT from both */
        size_t too_large;          /* KVM would take them, and gigabytes for them: not asked */
        size_t refused[_RULE_MAX]; /* by both, with the same errno */
        size_t more[_RULE_MAX];    /* by the core alone */
        size_t reasons[_ORACLE_REASON_MAX];
        size_t observed; /* aliases that the core reported and did not refuse */
} OracleCounts;

extern OracleCounts oracle_counts;

/* False if there is no KVM here; *ret_why says why. */
bool oracle_open(KVMRules *ret, const char **ret_why);
/* Runs the operations on VMs without slots. The index of the first one that the two answer differently, or n if
 * there is none; n - 1 too if their tables differ in the end. VM 1 only observes aliases if so asked. */
size_t oracle_run(const Operation *operations, size_t n, bool observe, char *difference, size_t difference_size);
