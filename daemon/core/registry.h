/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The registry owns everything: VMs by name, VMs own their backings and slots, and two indexes see across VMs:
 * files by their identity (st_dev, st_ino), and mappings by VMM process (Mm).
 *
 * What always holds:
 *  - a VM name is unique in the registry, a backing name is unique in its VM, a file is one backing;
 *  - a slot is in its VM's table, in the index of each file that it is known to show, and in its VM's Mm;
 *  - backing->n_slots is the number of slots, of any VM, that show the backing; it is 0 when it is freed.
 *
 * Nothing here does I/O, logs, or knows JSON. Return values: 0 done, negative errno unexpected (only -ENOMEM),
 * positive CORE_E_… a documented condition of that one function. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "core/kvm_rules.h"

typedef struct Backing Backing;
typedef struct Claim Claim;
typedef struct File File;
typedef struct Mm Mm;
typedef struct Registry Registry;
typedef struct SlotTable SlotTable;
typedef struct VM VM;

#define NAME_LENGTH_MAX     64U
#define VMS_PER_UID_MAX     1024U
#define BACKINGS_PER_VM_MAX 256U

/* How much somebody may have; never more than the maxima above, which a new registry allows. */
typedef struct CoreLimits {
        uint32_t vms_per_uid;
        uint32_t backings_per_vm;
} CoreLimits;

enum {
        CORE_E_EXISTS = 1,  /* the name is taken; the object that has it is returned */
        CORE_E_LIMIT,       /* one of CoreLimits is reached */
        CORE_E_KNOWN_FILE,  /* the file is already a backing; it is returned */
        CORE_E_IN_USE,      /* a slot still shows the backing */
        CORE_E_OWNER_LIMIT, /* the owner has as many as one may, of all its VMs */
};

typedef TAILQ_HEAD(VMList, VM) VMList;
typedef TAILQ_HEAD(ClaimList, Claim) ClaimList;

/* By (st_dev, st_ino). */
typedef struct FileTable {
        File **buckets; /* a power of two of them, or NULL; see file.c */
        size_t n_buckets, n;
} FileTable;

struct Registry {
        VMList vms;               /* in order of registration; for walking use registry_next_vm() */
        CoreLimits limits;        /* may be changed at any time; whoever has more already keeps it */
        uint64_t last_generation; /* of any VM; whoever makes the registry sets what there was before */
        size_t n_vms;
        size_t n_backings;
        size_t n_slots;
        size_t n_claims;
        size_t n_claimed; /* sum of the backings of all claims */
        uint64_t
                promised_bytes; /* sum of the sizes of all backings, at most INT64_MAX: sparse files may promise more */

        /* private to core/ */
        uint64_t restarts; /* how often the ledger that it is made from was read anew */
        ClaimList claims;  /* of all VMs, in the order in which they expire */
        uint64_t last_id;  /* of VMs, backings and claims */
        bool was_damaged;  /* the ledger it was made from, and what nobody knows may be something that was lost */
        void *vms_by_name; /* tsearch(3) tree of VM */
        FileTable files;
        void *mms_by_id;           /* tsearch(3) tree of Mm */
        void *owners_by_uid;       /* tsearch(3) tree of what each uid has */
        unsigned __int128 promise; /* the sum behind promised_bytes */
        uint64_t page_size;
        KVMRules kvm;
};

/* page_size: bytes of an ordinary page, a power of two. kvm: copied. */
int registry_new(uint64_t page_size, const KVMRules *kvm, Registry **ret);
/* Frees all VMs, backings and slots too. Accepts NULL, returns NULL. */
Registry *registry_free(Registry *registry);

/* Never 0, and never one that there was before. */
uint64_t registry_new_id(Registry *registry);

typedef struct Slot Slot;
typedef struct Verdict Verdict;

/* Looks at all slots as at one that is set now, and calls found() for each that would be denied. It is what makes sure
 * that a registry which was put together from records is one that could have been. -ENOMEM: not all were looked at.
 * O(n) as long as no slots overlap. */
int registry_audit(Registry *registry, void (*found)(const Slot *slot, const Verdict *verdict, void *userdata),
                   void *userdata);

/* 1 to NAME_LENGTH_MAX characters of A-Z a-z 0-9 . _ : - beginning with a letter or digit. */
bool name_is_valid(const char *name);

/* NULL if there is none. */
VM *registry_find_vm(Registry *registry, const char *name);
/* The VM whose name comes next after the given one in strcmp() order (NULL: the first), or NULL. The name needs
 * not exist, so a list can go on after its last VM has been unregistered. O(log n). */
VM *registry_next_vm(Registry *registry, const char *after);
/* The VM that is retained for the shortest time from now on, of those that are retained for a time; or NULL. O(n). */
VM *registry_first_to_expire(Registry *registry);
/* What the VMs of a uid are charged to it with. */
typedef struct OwnerUse {
        uid_t uid;
        size_t n_vms, n_claims;
} OwnerUse;

/* The owner whose uid comes next after the given one (NULL: the first); false: there is none. */
bool registry_next_owner(const Registry *registry, const uid_t *after, OwnerUse *ret);
/* The claim that expires next, or NULL. O(1). */
Claim *registry_first_claim_to_expire(Registry *registry);
/* The backing that is this file, or NULL. */
Backing *registry_find_file(Registry *registry, dev_t dev, ino_t ino);
