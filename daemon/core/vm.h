/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One guest: who owns it, whether a VMM runs it, and what becomes of its memory when that ends. */

#include "core/attributes.h"
#include "core/registry.h"

typedef enum ExitPolicy {
        EXIT_POLICY_RELEASE, /* VMM exits: slots and backings go */
        EXIT_POLICY_RETAIN,  /* VMM exits: slots go, backings stay */
        _EXIT_POLICY_MAX,
} ExitPolicy;

typedef enum AliasPolicy {
        ALIAS_POLICY_ENFORCE, /* a refused alias is refused */
        ALIAS_POLICY_OBSERVE, /* a refused alias is reported and set; KVM's own rules refuse all the same */
        _ALIAS_POLICY_MAX,
} AliasPolicy;

/* What KVM_CREATE_VM is asked for, since some rules depend on it. */
typedef enum VMType {
        VM_TYPE_UNDECLARED,   /* not known: nothing is refused that one of the others could have */
        VM_TYPE_ORDINARY,     /* KVM_X86_DEFAULT_VM */
        VM_TYPE_SW_PROTECTED, /* KVM_X86_SW_PROTECTED_VM */
        VM_TYPE_SEV,          /* KVM_X86_SEV_VM */
        VM_TYPE_SEV_ES,       /* KVM_X86_SEV_ES_VM */
        VM_TYPE_SNP,          /* KVM_X86_SNP_VM */
        VM_TYPE_TDX,          /* KVM_X86_TDX_VM */
        _VM_TYPE_MAX,
} VMType;

/* Guest addresses can be private: has_private_mem of struct kvm_arch. False if the type is not known. */
bool vm_type_has_private_memory(VMType type);
/* The host cannot see the registers: has_protected_state of struct kvm_arch. False if the type is not known. */
bool vm_type_has_protected_state(VMType type);

/* Only vm_attach() and vm_detach() write the state; a hand-over leaves it VM_ATTACHED. */
typedef enum VMState {
        VM_REGISTERED, /* no VMM yet; left by vm_attach() */
        VM_ATTACHED,   /* vm->mm belongs to a living VMM; left by vm_detach() */
        VM_RETAINED,   /* the VMM has exited, no slots; left by vm_attach() */
        _VM_STATE_MAX,
} VMState;

/* The process that is a VM's VMM, in numbers, by which it is found again after a restart of privmemd. */
typedef struct VMMIdentity {
        uint64_t id; /* no VM, backing or other VMM has or had it */
        pid_t pid;
        uid_t uid;
        uint64_t start_time; /* field 22 of /proc/PID/stat: clock ticks since boot */
} VMMIdentity;

typedef TAILQ_HEAD(BackingList, Backing) BackingList;

struct VM {
        uint64_t id;         /* no other VM or backing has or had it */
        uint64_t generation; /* which of its states this is: see vm_changed() */
        Registry *registry;
        char *name;
        uint8_t uuid[16];
        bool has_uuid;
        uid_t owner;
        ExitPolicy exit_policy;
        AliasPolicy alias_policy;
        VMType type;
        VMState state;
        VMMIdentity vmm;       /* while VM_ATTACHED */
        VMMIdentity successor; /* who may take over from it; id 0: nobody */
        uint64_t retain_usec;  /* EXIT_POLICY_RETAIN: for how long; 0: until a VMM attaches or it is unregistered */
        uint64_t retained_until_usec; /* VM_RETAINED: CLOCK_BOOTTIME; 0: no end. See vm_set_retained_until() */
        bool retain_guest_memfd;      /* guest_memfds too, although nobody can bind them any more */
        uint64_t vmm_serial;          /* which of its VMMs runs it, or will: see backing->vmm_serial */
        uint64_t last_vmm_serial;     /* the greatest so far */
        VM *outgoing;                 /* what the former VMM has while it hands over, or NULL: see core/hand-over.h */
        VM *heir;                     /* of such a part: the VM that it is a part of; NULL of a VM */
        BackingList backings;         /* in order of creation */
        size_t n_backings;
        uint64_t promised_bytes; /* sum of their sizes, at most INT64_MAX */
        ClaimList claims;        /* in order of id; see core/claim.h */
        size_t n_claims;
        SlotTable *slots;
        AttributeMap private_ranges;          /* of guest addresses */
        Mm *mm;                               /* never NULL: a private one until a VMM attaches */
        struct VerdictCounts *verdict_counts; /* see verdict_count(); NULL: there is nothing to count */
        void *userdata;                       /* the manager's */

        /* private to core/ */
        void *backings_by_name;    /* tsearch(3) tree of Backing */
        unsigned __int128 promise; /* the sum behind promised_bytes */
        size_t n_shares_taken;     /* backings of other VMs that it may show */
        Mm *own_mm;                /* the private one; kept, so that vm_detach() cannot fail */
        TAILQ_ENTRY(VM) vms;
};

typedef struct VMSpec {
        const char *name; /* must be name_is_valid(); copied */
        uint8_t uuid[16];
        bool has_uuid;
        uid_t owner;
        ExitPolicy exit_policy;
        AliasPolicy alias_policy;
        VMType type;
        uint64_t retain_usec;
        bool retain_guest_memfd;
} VMSpec;

/* 100 years: whatever is added to it fits into 63 bits. */
#define RETAIN_USEC_MAX (UINT64_C(36525) * 24 * 3600 * 1000000)

/* The VM that has the name and the backings, of any part of it. */
static inline VM *vm_whole(const VM *vm) {
        return vm->heir ? vm->heir : (VM *) vm;
}

/* 0: *ret is the new VM. CORE_E_EXISTS: *ret is the VM of that name. CORE_E_LIMIT: the owner has
 * vms_per_uid VMs; *ret is not set. */
int vm_new(Registry *registry, const VMSpec *spec, VM **ret);
/* Frees its slots, and those of other VMs' slots that show one of its backings, and its backings. Accepts NULL,
 * returns NULL. */
VM *vm_free(VM *vm);

/* The field in which the VM differs from the spec, as the wire spells it (uuid, ownerUID, exitPolicy, retainUSec,
 * retainGuestMemfd, aliasPolicy, type), or NULL. A spec without a UUID does not differ by it, nor does one of undeclared
 * type. */
const char *vm_differs(const VM *vm, const VMSpec *spec);

/* A VMM process has become the VM's. mm_id names its address space: equal for two VMs that one process runs, never
 * 0. Slots that were already declared move over to it. The VM is not retained any more. -ENOMEM leaves all as it was. */
int vm_attach(VM *vm, uint64_t mm_id);
/* The VMM has exited: its slots are withdrawn, all guest addresses are shared again, the state becomes VM_RETAINED
 * whatever the exit policy, which the caller applies. No hand-over may be under way. */
void vm_detach(VM *vm);
/* What vm_attach() was told; 0 before. */
uint64_t vm_mm_id(const VM *vm);
/* When a retained VM ends: CLOCK_BOOTTIME, which no one sets and which goes on over a restart; 0: no end. */
void vm_set_retained_until(VM *vm, uint64_t usec);
/* Forgets all slots of the VM, as vm_detach() does. */
void vm_withdraw_slots(VM *vm);

/* Something has changed of the VM or of what it has: its generation is one that no VM ever had. */
void vm_changed(VM *vm);

/* NULL if there is none. */
Backing *vm_find_backing(VM *vm, const char *name);
/* The backing whose name comes next after the given one in strcmp() order (NULL: the first), or NULL. */
Backing *vm_next_backing(VM *vm, const char *after);
