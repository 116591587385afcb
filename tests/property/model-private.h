/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the files of the model share. */

#include "model.h"

static inline PageNumber page_number(int file, uint64_t page) {
        return ((PageNumber) file + 1) << 32 | page;
}

/* MODEL_NONE if it is no page of any. */
static inline int file_of(PageNumber number) {
        return (int) (number >> 32) - 1;
}

static inline uint64_t offset_of(PageNumber number) {
        return (number & UINT32_MAX) * MODEL_PAGE;
}

/* Whether the second page follows the first one, or both show nothing that is known. */
static inline bool continues(PageNumber first, PageNumber second) {
        return first == 0 ? second == 0 : second == first + 1;
}

static inline uint64_t pages_of(const ModelSpec *spec) {
        return spec->size / MODEL_PAGE;
}

static inline bool exists(const Model *model, int file) {
        return file < MODEL_BACKINGS && model->backings[file].exists;
}

/* Whatever rule decides for a page that two slots have in common, the worst one decides for the slot. */
void model_add_common(ModelVerdict *verdict, ModelCommon common);
/* The slot asked for against all live ones but self, the index of the one that it replaces, or MODEL_NONE. */
void model_judge_aliases(const Model *model, const ModelSlot *slot, int self, ModelVerdict *verdict);
