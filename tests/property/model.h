/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the core promises, written a second time without any of its cleverness: slots in an array, each with a map of
 * what its pages show, every rule decided page by page, no trees, no ranges, no pointers. A copy of a Model is a copy
 * of everything.
 *
 * It shares nothing with the core but the names of the rules. Slots must be small, for their pages are compared one
 * with another; model_set() aborts on a slot of more than MODEL_SLOT_PAGES_MAX that no rule of KVM's refuses.
 *
 * Files have numbers. The first ones are backings, while these exist; the others privmemd never holds. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/slot.h"

#define MODEL_PAGE    UINT64_C(4096)
#define MODEL_MAX_GPA (UINT64_C(1) << 32)
#define MODEL_NONE    (-1)

enum {
        MODEL_VMS = 3,
        MODEL_BACKINGS = 7,
        MODEL_FILES = 10,
        MODEL_SLOTS_MAX = 48,
        MODEL_SLOT_PAGES_MAX = 16,
        MODEL_COMMON_MAX = 32768,
};

typedef struct ModelSpec {
        uint32_t id, as_id, flags;
        uint64_t gpa, size, hva;
        int backing; /* index, or MODEL_NONE */
        uint64_t offset;
        int guest_memfd; /* index, or MODEL_NONE */
        uint64_t guest_memfd_offset;
} ModelSpec;

typedef enum ModelSeen {
        SEEN_NOWHERE,
        SEEN_MEMORY,
        SEEN_COPY,
        SEEN_FILE,
        _MODEL_SEEN_MAX,
} ModelSeen;

/* What is mapped at one page of a slot's hva. */
typedef struct ModelPage {
        ModelSeen kind;
        int file;      /* SEEN_COPY, SEEN_FILE */
        uint32_t page; /* of the file */
} ModelPage;

/* A page of a file as one number: differs between files, and goes up by one with the page; 0 is no page of any. */
typedef uint64_t PageNumber;

typedef struct ModelSlot {
        int vm;
        ModelSpec spec; /* backing: what all of the shared side is; see model_settle() */
        PageNumber shared[MODEL_SLOT_PAGES_MAX];
        PageNumber private[MODEL_SLOT_PAGES_MAX];
} ModelSlot;

typedef struct ModelBacking {
        int vm;
        BackingKind kind;
        uint64_t size;
        bool exists;
        bool shared_with[MODEL_VMS];
} ModelBacking;

typedef struct Model {
        uint64_t mm[MODEL_VMS]; /* two VMs with the same number share an address space */
        bool observes[MODEL_VMS];
        ModelBacking backings[MODEL_BACKINGS];
        bool was_at_zero[MODEL_FILES];
        ModelSlot slots[MODEL_SLOTS_MAX]; /* in order of VM, address space, id */
        size_t n_slots;
} Model;

/* One page that two slots have in common. */
typedef struct ModelCommon {
        SlotRule rule;
        int vm;
        uint32_t id, as_id;
        uint64_t gpa, requested_gpa;
        int file;
        uint64_t offset;
        MappedKind mapped;
} ModelCommon;

typedef struct ModelVerdict {
        Outcome outcome;
        SlotRule rule;
        int kernel_errno;
        bool denied;
        bool changed;
        ModelCommon common[MODEL_COMMON_MAX];
        size_t n_common;
        size_t n_allowed; /* pages */
} ModelVerdict;

void model_init(Model *model);
/* Which access a share has is for ever the same, and some are of each kind. */
bool model_shares_read_only(int backing, int vm);
/* Whether a slot of the VM shows the backing for writing. */
bool model_is_written_by(const Model *model, int backing, int vm);
/* Everything that VM has is as model_init() made it; nothing that others had from it is left. */
void model_reset_vm(Model *model, int vm);
/* What was seen: an entry a page of the slot, or NULL if nobody looked. */
void model_set(Model *model, int vm, const ModelSpec *spec, const ModelPage *seen, ModelVerdict *verdict);
/* Ends an operation: files that nobody knows any more are forgotten, and each slot's spec says what it shows. */
void model_settle(Model *model);
bool model_is_guest_memfd(int file);
/* MODEL_NONE if there is none. */
int model_find(const Model *model, int vm, uint32_t as_id, uint32_t id);
size_t model_count(const Model *model, int vm);
size_t model_count_showing(const Model *model, int backing);
void model_detach(Model *model, int vm);
Outcome model_outcome(SlotRule rule);
