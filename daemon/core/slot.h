/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The slot table of a VM, and the verdict on every change to it.
 *
 * slot_set() takes what KVM_SET_USER_MEMORY_REGION2 takes, judges it by KVM's own rules in KVM's own order
 * (core/kvm_rules.c), then by the alias rules (core/alias.c), and changes the table only if neither refuses.
 *
 * A slot may be set again with another backing or offset for the same hva: to KVM nothing changes then, but the table
 * learns what is mapped there. What KVM ignores (guest_memfd without the flag) is not remembered.
 *
 * What a slot shows at hva is what the VMM says (backing, offset), or what somebody saw mapped there (mapping), or
 * known by its address alone. Seeing is a look at one moment: a VMM can map something else a moment later. */

#include "core/backing.h"
#include "core/interval.h"
#include "core/registry.h"
#include "core/vm.h"

/* KVM_USER_MEM_SLOTS on x86: SHRT_MAX - KVM_INTERNAL_MEM_SLOTS. */
#define SLOTS_PER_ADDRESS_SPACE_MAX 32764U
/* kvm_arch_nr_memslot_as_ids() on x86 with SMM. */
#define ADDRESS_SPACES_MAX          2U
/* KVM_MEM_MAX_NR_PAGES */
#define SLOT_PAGES_MAX              ((UINT64_C(1) << 31) - 1)

/* KVM_MEM_… */
#define SLOT_LOG_DIRTY_PAGES (UINT32_C(1) << 0)
#define SLOT_READONLY        (UINT32_C(1) << 1)
#define SLOT_GUEST_MEMFD     (UINT32_C(1) << 2)

/* The order is that of the enum SlotRule on the wire. */
typedef enum SlotRule {
        RULE_NONE,
        /* KVM's: refused, with an errno */
        RULE_SLOT_ID,
        RULE_FLAGS,
        RULE_MEMORY_SIZE,
        RULE_GUEST_PHYS_ADDR,
        RULE_USERSPACE_ADDR,
        RULE_GUEST_MEMFD_OFFSET,
        RULE_NO_SUCH_SLOT,
        RULE_GUEST_MEMFD_IMMUTABLE,
        RULE_SLOT_IMMUTABLE,
        RULE_GFN_OVERLAP,
        RULE_NOT_GUEST_MEMFD,
        RULE_FOREIGN_GUEST_MEMFD,
        RULE_BEYOND_BACKING,
        RULE_BINDING_OVERLAP,
        /* ours, and no alias policy lets it pass */
        RULE_SHARE_READ_ONLY,
        /* what is declared is not what is mapped; reported only where the policy is to observe */
        RULE_MAPPING_MISMATCH,
        /* aliases: design section 5, in its order */
        RULE_SAME_FRAME,            /* 1: ok */
        RULE_PRIVATE_ALIAS,         /* 2: refused */
        RULE_ROM_SHADOW,            /* 3: allowed */
        RULE_VMM_WINDOW,            /* 4: allowed */
        RULE_ADDRESS_SPACE_TRANSIT, /* 5: allowed */
        RULE_SMRAM_WINDOW,          /* 6: allowed */
        RULE_DECLARED_SHARE,        /* 7: allowed */
        RULE_HAND_OVER,             /* 7: allowed */
        RULE_UNDECLARED_ALIAS,      /* 8: refused */
        RULE_TOO_MANY_ALIASES,      /* more than SLOT_ALIASES_MAX that are allowed: refused */
        _RULE_MAX,
} SlotRule;

typedef enum Outcome {
        OUTCOME_OK,
        OUTCOME_ALLOWED,
        OUTCOME_REFUSED,
        _OUTCOME_MAX,
} Outcome;

typedef enum MappedKind {
        MAPPED_MEMORY,      /* known by its address alone: without a file, or a device's */
        MAPPED_COPY,        /* a private mapping of a file: what is written there stays out of the file */
        MAPPED_FILE,        /* a shared mapping of a file */
        MAPPED_GUEST_MEMFD, /* the same of a guest_memfd */
        _MAPPED_KIND_MAX,
} MappedKind;

/* A range of a VMM's addresses and what it shows. */
typedef struct MappedRun {
        MappedKind kind;
        uint64_t hva, size; /* bytes, size > 0 */
        dev_t dev;          /* the file's, but for MAPPED_MEMORY */
        ino_t ino;
        uint64_t offset; /* byte of the file at hva; offset + size <= 2^64 - 1 */
} MappedRun;

/* What is mapped at a slot's hva, as far as it was looked at. */
typedef struct Mapping {
        size_t n_runs;
        const MappedRun
                *runs; /* in order, apart from each other, inside the slot; what is mapped nowhere is in none */
} Mapping;

typedef struct SlotSpec {
        uint32_t id;          /* KVM's slot, bits 0 to 15 */
        uint32_t as_id;       /* KVM's slot, bits 16 to 31 */
        uint32_t flags;       /* SLOT_… */
        uint64_t gpa;         /* guest physical address, bytes */
        uint64_t size;        /* bytes; 0 deletes */
        uint64_t hva;         /* address in the VMM */
        Backing *backing;     /* what is mapped at hva; NULL if no backing is. Borrowed. */
        uint64_t offset;      /* byte of backing at hva */
        Backing *guest_memfd; /* the private side, with SLOT_GUEST_MEMFD only. Borrowed. */
        uint64_t guest_memfd_offset;
        const Mapping *mapping; /* what was seen at hva; NULL if nobody looked. Borrowed, and not remembered. */
} SlotSpec;

typedef struct Slot Slot;

/* A range of a file that a slot shows. */
typedef struct SlotRun {
        Slot *slot;
        File *file;
        uint64_t offset, size; /* of the file */
        uint64_t at;           /* where the slot shows it, from its start */
} SlotRun;

/* What is remembered of a SlotSpec, in few bytes, for there are many slots. */
typedef struct SlotRecord {
        uint64_t gpa, size, hva;
        Backing *backing; /* all of the shared side, or NULL */
        uint64_t offset;
        uint16_t id;
        uint8_t as_id;
        uint8_t flags;

        /* private to core/: see core/showing.c */
        uint8_t n_runs;
        bool shows_backing; /* known by backing and offset alone: there are no runs */
} SlotRecord;

struct Slot {
        VM *vm;
        SlotRecord spec;

        /* private to core/ */
        SlotRun runs[]; /* what the shared side shows of files, in order of its bytes; then the private side, if any */
};

/* What a slot has in common with another one, or with itself. VM and backing are borrowed: read them before
 * anything is freed. The VM may be the outgoing part of one. */
typedef struct Conflict {
        SlotRule rule;
        VM *vm;
        uint32_t id;
        uint32_t as_id;
        uint64_t gpa;           /* where the other slot shows the bytes */
        uint64_t requested_gpa; /* where the slot asked for would */
        uint64_t size;          /* bytes in common */
        Backing *backing;       /* NULL for memory that no backing holds */
        dev_t dev; /* the file that no backing holds; ino is 0 for memory that is known by its address alone */
        ino_t ino;
        uint64_t offset;   /* of the bytes in the backing or file */
        MappedKind mapped; /* RULE_MAPPING_MISMATCH only: what is mapped; vm, id and as_id are then the slot's own */
} Conflict;

/* Fill with verdict_init(), empty with verdict_done(). */
typedef struct Verdict {
        Outcome outcome;
        /* The worst one: of a refusal before that of an allowance, and of those the first in the order of the enum. */
        SlotRule rule;
        int kernel_errno; /* positive: what KVM gives for the same slot; 0 if KVM alone accepts it */
        /* VERDICT_CONFLICTS_MAX at most. The refused ones come first, then it goes by rule, VM and slot. When so many
         * are refused, nobody looks for more. */
        Conflict *conflicts;
        size_t n_conflicts;
} Verdict;

void verdict_init(Verdict *verdict);
void verdict_done(Verdict *verdict);
/* Whether it keeps a slot from being set in a VM of that policy: any refusal does, but for one by an alias rule where
 * the policy is to observe. */
bool verdict_denies(const Verdict *verdict, AliasPolicy policy);

/* How the slots of a VM were judged since privmemd started, by rule. Nearly no VM has any. */
typedef struct VerdictCounts {
        uint64_t refused[_RULE_MAX];  /* and not set */
        uint64_t observed[_RULE_MAX]; /* refused, but set: ALIAS_POLICY_OBSERVE */
        uint64_t allowed[_RULE_MAX];  /* and set: the rule allows what they show */
} VerdictCounts;

/* Counts a verdict that says more than ok on a slot that was asked for. -ENOMEM: it is not counted. */
int verdict_count(VM *vm, const Verdict *verdict, bool was_set);

/* At most this many conflicts are listed in one verdict. */
#define VERDICT_CONFLICTS_MAX 64U
/* A slot may have this many allowed aliases; the next one is refused. No machine comes near it,
 * and without it 32,764 views of one page would cost a walk over all of them each. */
#define SLOT_ALIASES_MAX      256U

/* Creates, moves, changes the flags of, or deletes a slot. 0: judged; verdict->outcome says how, and the table has
 * changed unless it is denied: OUTCOME_REFUSED by a KVM rule, by RULE_BEYOND_BACKING for the shared side or
 * RULE_SHARE_READ_ONLY (of which KVM knows nothing, so kernel_errno is 0), or by an alias rule under
 * ALIAS_POLICY_ENFORCE.
 * *ret_changed says whether it has (a slot set again as it is counts as not changed). -ENOMEM: nothing changed. */
int slot_set(VM *vm, const SlotSpec *spec, Verdict *verdict, bool *ret_changed);

/* Judges n specs in order, each as if those before it that were not denied had been set; verdicts[] are
 * initialised by the caller. apply_all false: nothing changes. apply_all true: all are set, or nothing changes if one
 * was denied. *ret_accepted says whether none was: under ALIAS_POLICY_OBSERVE it may be true beside verdicts of
 * OUTCOME_REFUSED. changed, if not NULL, has n entries and says for each spec whether it changed the table.
 * -ENOMEM: nothing changed, and the verdicts are to be emptied. */
int slot_set_many(VM *vm, const SlotSpec *specs, size_t n, bool apply_all, Verdict *verdicts, bool *changed,
                  bool *ret_accepted);

/* Sets a slot as it was set before, without judging it. -EINVAL: no slot could ever have been like that, or the id is
 * taken. */
int slot_restore(VM *vm, const SlotSpec *spec);

/* Makes a mapping that says no more than the declaration could one: if it bears out the declaration, or if nothing is
 * declared and all of it is one backing, which is declared then, spec->mapping is NULL afterwards. */
void slot_spec_resolve(Registry *registry, SlotSpec *spec);

/* As it would have to be asked for again; the mapping that was seen is not remembered. */
SlotSpec slot_spec(const Slot *slot);
/* The private side, or NULL. */
Backing *slot_guest_memfd(const Slot *slot);

/* NULL if there is none. */
Slot *slot_find(VM *vm, uint32_t as_id, uint32_t id);
/* The first slot in order of (as_id, id), and the one that comes after (as_id, id), which need not exist itself; NULL
 * if there is none. */
Slot *slot_first(VM *vm);
Slot *slot_next(VM *vm, uint32_t as_id, uint32_t id);
size_t slot_count(const VM *vm);
/* How many ranges of files the slot shows. */
size_t slot_count_showings(const Slot *slot);
/* Slots of one address space that have a byte in common with the range, in order of guest physical address. Since no
 * two of them have one in common with each other, a walk may go on from the end of the last one instead. */
Slot *slot_first_at_gpa(VM *vm, uint32_t as_id, uint64_t gpa, uint64_t size, IntervalCursor *ret_cursor);
Slot *slot_next_at_gpa(IntervalCursor *cursor);

/* KVM's rules alone, in KVM's order (kernel-facts 1.3): fills verdict if they refuse. Returns true if they accept. */
bool kvm_rules_accept(VM *vm, const SlotSpec *spec, Verdict *verdict);
