/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the files of core/ share among themselves and with nobody else. */

#include <errno.h>

#include "core/backing.h"
#include "core/id-map.h"
#include "core/interval.h"
#include "core/registry.h"
#include "core/slot.h"
#include "core/vm.h"

/* ---- Mm: the address space of one VMM ---- */

/* A VM has a private Mm of its own until a VMM attaches: the addresses that it declares until then are known to be
 * the same VMM's, but not yet whose. VMs that one process runs share that process's Mm. */
struct Mm {
        uint64_t id; /* 0: private to one VM, in no index */
        size_t n_vms;
        IntervalTree slots; /* all slots of all its VMs, by hva */
};

int mm_new(Mm **ret);
/* The Mm of that id, made if there is none yet, with one reference more. */
int mm_ref_by_id(Registry *registry, uint64_t id, Mm **ret);
/* Accepts NULL, returns NULL. */
Mm *mm_unref(Registry *registry, Mm *mm);

/* ---- File: what a slot shows ---- */

/* A file that slots show, or that is a backing, or both. One that nobody gave us is known while a slot shows it, and
 * so long the VMM's mapping keeps its identity from being given to another. */
struct File {
        dev_t dev;
        ino_t ino;
        Backing *backing; /* NULL: privmemd does not hold it */
        size_t n_refs;
        IntervalTree showings; /* what all slots show of it, by byte of the file; see core/showing.c */
        bool was_at_zero;      /* a slot has shown it at guest address 0 */
        bool is_guest_memfd;   /* known even if it is no backing */
        File *next;            /* in its bucket */
};

/* The file of that identity, made if it is not known yet, with one reference more. */
int file_ref_by_identity(Registry *registry, dev_t dev, ino_t ino, File **ret);
File *file_ref(File *file);
/* Accepts NULL, returns NULL. */
File *file_unref(Registry *registry, File *file);
/* Takes the reference. Slots that show the file show the backing from now on. */
void file_become_backing(File *file, Backing *backing);
/* A guest_memfd, whoever holds it. */
bool file_is_private(const File *file);
/* Custody RAM: every backing, and every shared file that was ever at guest address 0. */
bool file_is_custody(const File *file);

/* ---- promised bytes ---- */

/* One guest_memfd may be as large as INT64_MAX and cost nothing, so the sum needs more than 64 bits. */
static inline void promise_show(unsigned __int128 sum, uint64_t *shown) {
        *shown = sum > INT64_MAX ? INT64_MAX : (uint64_t) sum;
}

static inline void promise_add(unsigned __int128 *sum, uint64_t *shown, uint64_t size) {
        *sum += size;
        promise_show(*sum, shown);
}

static inline void promise_subtract(unsigned __int128 *sum, uint64_t *shown, uint64_t size) {
        *sum -= size;
        promise_show(*sum, shown);
}

/* ---- Registry ---- */

/* Charges the owner and enters the VM in the indexes. CORE_E_LIMIT: the owner has vms_per_uid VMs. */
int registry_add_vm(Registry *registry, VM *vm);
void registry_remove_vm(Registry *registry, VM *vm);
/* Charges the VM's owner with a claim. CORE_E_OWNER_LIMIT: it has CLAIMS_PER_UID_MAX. */
int registry_charge_claim(Registry *registry, const VM *vm);
void registry_discharge_claim(Registry *registry, const VM *vm);
void registry_add_backing(Registry *registry, const Backing *backing);
void registry_remove_backing(Registry *registry, const Backing *backing);

/* ---- VM ---- */

int vm_add_backing(VM *vm, Backing *backing);
void vm_remove_backing(VM *vm, Backing *backing);

/* ---- Backing ---- */

/* No slot may show it. Accepts NULL, returns NULL. */
Backing *backing_free(Backing *backing);

/* ---- Slot ---- */

struct SlotTable {
        IdMap by_id[ADDRESS_SPACES_MAX];
        IntervalTree by_gpa[ADDRESS_SPACES_MAX];
        size_t n_slots;
};

/* No slot is in it any more. Accepts NULL, returns NULL. */
SlotTable *slot_table_free(SlotTable *table);

/* Takes the slot out of all indexes and frees it. Accepts NULL, returns NULL. */
Slot *slot_free(Slot *slot);

/* Enters all slots of the VM in another Mm and takes them out of its own. -ENOMEM: nothing changed. */
int slot_enter_mm(VM *vm, Mm *mm);

/* Slots of any VM that have a byte of an address space in common with the range. */
Slot *slot_first_at_hva(const Mm *mm, uint64_t hva, uint64_t size, IntervalCursor *ret_cursor);
Slot *slot_next_at_hva(IntervalCursor *cursor);

/* ---- SlotShowing: a range of a file that a slot shows ---- */

typedef struct SlotShowing {
        Slot *slot; /* NULL: there is none */
        File *file;
        uint64_t offset, size; /* of the file */
        uint64_t at;           /* where the slot shows it, from its start */
        bool private_side;
} SlotShowing;

/* The shared side in order of its bytes, then the private side. */
size_t slot_count_shared(const Slot *slot);
SlotShowing slot_showing(const Slot *slot, size_t i);
/* What stands for it in the index of the file. */
void *slot_showing_item(const Slot *slot, size_t i);
bool showing_equal(const SlotShowing *a, const SlotShowing *b);
/* False for a second showing of the same file by the same slot. */
bool showing_counts(const SlotShowing *showing);

/* What slots, of any VM, show of the range of the file or backing. */
SlotShowing file_first_showing(const File *file, uint64_t offset, uint64_t size, IntervalCursor *ret_cursor);
SlotShowing showing_first(const Backing *backing, uint64_t offset, uint64_t size, IntervalCursor *ret_cursor);
SlotShowing showing_next(IntervalCursor *cursor);

/* ---- Verdict ---- */

/* Notes a rule without a conflict, if it is worse than what the verdict says already. */
void verdict_note(Verdict *verdict, Outcome outcome, SlotRule rule, int kernel_errno);
/* Adds a conflict, in its place, unless it is listed already or VERDICT_CONFLICTS_MAX worse ones are. */
int verdict_add_conflict(Verdict *verdict, const Conflict *conflict);
Outcome slot_rule_outcome(SlotRule rule);

/* ---- rules: fill the verdict; 0 or -ENOMEM ---- */

int kvm_rules_judge(VM *vm, const SlotSpec *spec, Verdict *verdict);
/* slot: as it would be, in no index yet. self: as it is before the change, or NULL; it is no alias of itself. */
int alias_judge(const Slot *slot, const Slot *self, Verdict *verdict);

/* ---- Mapping ---- */

/* A shared mapping of a file. */
bool mapped_run_is_file(const MappedRun *run);
/* Refuses by RULE_MAPPING_MISMATCH unless what is mapped bears out what spec declares; it must declare a backing. */
int mapping_judge(VM *vm, const SlotSpec *spec, Verdict *verdict);
