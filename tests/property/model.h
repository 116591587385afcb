/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the core promises, written a second time without any of its cleverness: slots in an array, every rule decided
 * page by page, no trees, no ranges, no pointers. A copy of a Model is a copy of everything.
 *
 * It shares nothing with the core but the names of the rules. Slots must be small, for their pages are compared one
 * with another; model_set() aborts on a slot of more than MODEL_SLOT_PAGES_MAX that no rule of KVM's refuses. */

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
        MODEL_SLOTS_MAX = 128,
        MODEL_SLOT_PAGES_MAX = 64,
        MODEL_COMMON_MAX = 16384,
};

typedef struct ModelSpec {
        uint32_t id, as_id, flags;
        uint64_t gpa, size, hva;
        int backing; /* index, or MODEL_NONE */
        uint64_t offset;
        int guest_memfd; /* index, or MODEL_NONE */
        uint64_t guest_memfd_offset;
} ModelSpec;

typedef struct ModelSlot {
        int vm;
        ModelSpec spec;
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
        ModelSlot slots[MODEL_SLOTS_MAX]; /* in order of VM, address space, id */
        size_t n_slots;
} Model;

/* One page that two slots have in common. */
typedef struct ModelCommon {
        SlotRule rule;
        int vm;
        uint32_t id, as_id;
        uint64_t gpa, requested_gpa;
        int backing;
        uint64_t offset;
} ModelCommon;

typedef struct ModelVerdict {
        Outcome outcome;
        SlotRule rule;
        int kernel_errno;
        bool denied;
        bool changed;
        ModelCommon common[MODEL_COMMON_MAX];
        size_t n_common;
} ModelVerdict;

void model_init(Model *model);
/* Which access a share has is for ever the same, and some are of each kind. */
bool model_shares_read_only(int backing, int vm);
/* Whether a slot of the VM shows the backing for writing. */
bool model_is_written_by(const Model *model, int backing, int vm);
/* Everything that VM has is as model_init() made it; nothing that others had from it is left. */
void model_reset_vm(Model *model, int vm);
void model_set(Model *model, int vm, const ModelSpec *spec, ModelVerdict *verdict);
/* MODEL_NONE if there is none. */
int model_find(const Model *model, int vm, uint32_t as_id, uint32_t id);
size_t model_count(const Model *model, int vm);
size_t model_count_showing(const Model *model, int backing);
void model_detach(Model *model, int vm);
Outcome model_outcome(SlotRule rule);
