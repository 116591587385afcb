/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One file of guest memory. Its identity is (st_dev, st_ino), which stays unique while somebody holds the file
 * open; the manager does, from backing_new() to backing_free(). */

#include "core/registry.h"

typedef enum BackingKind {
        BACKING_MEMFD,
        BACKING_HUGETLB,
        BACKING_GUEST_MEMFD, /* created by the VMM, bound for ever to one struct kvm */
        _BACKING_KIND_MAX,
} BackingKind;

typedef enum BackingOrigin {
        BACKING_ALLOCATED, /* created by privmemd */
        BACKING_ADOPTED,   /* donated by a VMM */
        _BACKING_ORIGIN_MAX,
} BackingOrigin;

typedef enum NumaPolicy {
        NUMA_POLICY_NONE,
        NUMA_POLICY_BIND,
        NUMA_POLICY_PREFERRED,
        NUMA_POLICY_INTERLEAVE,
        _NUMA_POLICY_MAX,
} NumaPolicy;

#define NUMA_NODES_MAX 64U

typedef struct BackingSpec {
        const char *name; /* must be name_is_valid(); copied */
        BackingKind kind;
        BackingOrigin origin;
        uint64_t size;      /* bytes, > 0 */
        uint64_t page_size; /* bytes, a power of two */
        NumaPolicy numa_policy;
        uint64_t numa_nodes; /* bit n: node n */
        dev_t dev;
        ino_t ino;
        unsigned seals; /* F_SEAL_… of the file */
} BackingSpec;

/* A VM that the owner lets show the backing. */
typedef struct Share {
        VM *vm;
        bool read_only; /* its slots must have SLOT_READONLY */
} Share;

#define SHARES_PER_BACKING_MAX 64U

struct Backing {
        uint64_t id; /* no other VM or backing has or had it */
        VM *vm;      /* the owner */
        char *name;
        BackingKind kind;
        BackingOrigin origin;
        uint64_t size;
        uint64_t page_size;
        NumaPolicy numa_policy;
        uint64_t numa_nodes;
        dev_t dev;
        ino_t ino;
        unsigned seals;
        /* Of a guest_memfd: that of the VMM which made it, in whose KVM VM alone it can be bound; and whether that VMM has
         * exited, so that it cannot be bound any more. */
        uint64_t vmm_serial;
        bool is_orphan;
        size_t n_slots; /* slots of any VM that show it, on the shared or on the private side */
        Share *shares;  /* in no order */
        size_t n_shares;
        void *userdata; /* the manager's: its fd */

        /* private to core/ */
        File *file; /* knows which slots show it */
        TAILQ_ENTRY(Backing) backings;
};

/* 0: *ret is the new backing. CORE_E_EXISTS: *ret is the VM's backing of that name. CORE_E_KNOWN_FILE: *ret is the
 * backing, of any VM, that is the same file. CORE_E_LIMIT: the VM has backings_per_vm of CoreLimits; *ret is not set. */
int backing_new(VM *vm, const BackingSpec *spec, Backing **ret);
/* The same answers without effect: 0, CORE_E_EXISTS (and *ret), CORE_E_LIMIT. dev and ino are not looked at. */
int backing_admit(VM *vm, const BackingSpec *spec, Backing **ret);
/* CORE_E_IN_USE while a slot shows it. On 0 the backing is gone. */
int backing_release(Backing *backing);

/* Its memory is lost: it is gone, and so are the slots of any VM that show it. */
void backing_lose(Backing *backing);
/* Its VMM has exited. */
void backing_orphan(Backing *backing);
/* Whether it is a guest_memfd that no VMM can bind any more. */
bool backing_is_orphan(const Backing *backing);

/* The field in which the backing differs from the spec, as the wire spells it (kind, size, pageSize, numaPolicy,
 * numaNodes), or NULL. Origin, dev and ino are not compared. */
const char *backing_differs(const Backing *backing, const BackingSpec *spec);

/* The owner lets a VM show the backing at its own guest frames: alias rule 7. The same again is 0; so is the owner
 * itself, which needs no share. CORE_E_EXISTS: it is shared with the VM already, with the other access. CORE_E_LIMIT:
 * SHARES_PER_BACKING_MAX. CORE_E_IN_USE: for reading only, and a slot of the VM shows it for writing. */
int backing_share(Backing *backing, VM *peer);
int backing_share_read_only(Backing *backing, VM *peer);
/* Takes it back, for slots that are set from now on. */
void backing_unshare(Backing *backing, VM *peer);
/* NULL if it is not shared with the VM. */
const Share *backing_find_share(const Backing *backing, const VM *peer);
bool backing_is_shared_with(const Backing *backing, const VM *peer);

typedef enum BackingAccess {
        ACCESS_NONE,
        ACCESS_READ_ONLY,
        ACCESS_READ_WRITE,
} BackingAccess;

/* What a uid may do with it: the owner everything, and the owner of a VM that it is shared with what the greatest of
 * these shares gives. */
BackingAccess backing_access_of(const Backing *backing, uid_t uid);

/* How many slots of the VM show it. */
size_t backing_count_slots_of(const Backing *backing, const VM *vm);

/* A VM other than the owner of which a slot shows it, or NULL. */
VM *backing_shown_by_other(const Backing *backing);
