/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "model-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define USER_END (UINT64_C(0x800000000000) - MODEL_PAGE)

static const ModelBacking BACKINGS[MODEL_BACKINGS] = {
        { .vm = 0, .kind = BACKING_MEMFD, .size = 12 * MODEL_PAGE, .exists = true },
        { .vm = 0, .kind = BACKING_GUEST_MEMFD, .size = 12 * MODEL_PAGE, .exists = true },
        { .vm = 0, .kind = BACKING_GUEST_MEMFD, .size = 4 * MODEL_PAGE, .exists = true },
        { .vm = 1, .kind = BACKING_MEMFD, .size = 12 * MODEL_PAGE, .exists = true },
        { .vm = 1, .kind = BACKING_GUEST_MEMFD, .size = 12 * MODEL_PAGE, .exists = true },
        { .vm = 2, .kind = BACKING_HUGETLB, .size = 12 * MODEL_PAGE, .exists = true },
        { .vm = 2, .kind = BACKING_GUEST_MEMFD, .size = 12 * MODEL_PAGE, .exists = true },
};

/* ---- the table ---- */

static uint64_t private_mm(int vm) {
        return 1000 + (uint64_t) vm;
}

bool model_is_guest_memfd(int file) {
        return file < MODEL_BACKINGS ? BACKINGS[file].kind == BACKING_GUEST_MEMFD : file == MODEL_FILES - 1;
}

void model_init(Model *model) {
        memset(model, 0, sizeof(*model));
        memcpy(model->backings, BACKINGS, sizeof(BACKINGS));
        for (int vm = 0; vm < MODEL_VMS; vm++)
                model->mm[vm] = private_mm(vm);
}

static void remove_at(Model *model, size_t at) {
        model->n_slots--;
        for (; at < model->n_slots; at++)
                model->slots[at] = model->slots[at + 1];
}

static void remove_slots_of(Model *model, int vm) {
        for (size_t i = model->n_slots; i-- > 0;)
                if (model->slots[i].vm == vm)
                        remove_at(model, i);
}

static bool shows(const ModelSlot *slot, int file) {
        for (size_t i = 0; i < MODEL_SLOT_PAGES_MAX; i++)
                if (file_of(slot->shared[i]) == file || file_of(slot->private[i]) == file)
                        return true;
        return false;
}

void model_reset_vm(Model *model, int vm) {
        remove_slots_of(model, vm);
        for (int b = 0; b < MODEL_BACKINGS; b++) {
                model->backings[b].shared_with[vm] = false;
                if (model->backings[b].vm != vm)
                        continue;
                for (size_t i = model->n_slots; i-- > 0;)
                        if (model->backings[b].exists && shows(&model->slots[i], b))
                                remove_at(model, i);
                model->backings[b] = BACKINGS[b];
        }
        model->mm[vm] = private_mm(vm);
        model->observes[vm] = false;
}

void model_detach(Model *model, int vm) {
        remove_slots_of(model, vm);
        model->mm[vm] = private_mm(vm);
}

int model_find(const Model *model, int vm, uint32_t as_id, uint32_t id) {
        for (size_t i = 0; i < model->n_slots; i++)
                if (model->slots[i].vm == vm && model->slots[i].spec.as_id == as_id && model->slots[i].spec.id == id)
                        return (int) i;

        return MODEL_NONE;
}

size_t model_count(const Model *model, int vm) {
        size_t n = 0;

        for (size_t i = 0; i < model->n_slots; i++)
                n += model->slots[i].vm == vm;
        return n;
}

size_t model_count_showing(const Model *model, int backing) {
        size_t n = 0;

        for (size_t i = 0; i < model->n_slots; i++)
                n += shows(&model->slots[i], backing);
        return n;
}

static void insert_slot(Model *model, const ModelSlot *slot) {
        const ModelSpec *spec = &slot->spec;
        int vm = slot->vm;
        size_t at = 0;

        if (model->n_slots == MODEL_SLOTS_MAX)
                abort();
        while (at < model->n_slots) {
                const ModelSlot *s = &model->slots[at];

                if (s->vm > vm)
                        break;
                if (s->vm == vm && s->spec.as_id > spec->as_id)
                        break;
                if (s->vm == vm && s->spec.as_id == spec->as_id && s->spec.id > spec->id)
                        break;
                at++;
        }
        for (size_t i = model->n_slots++; i > at; i--)
                model->slots[i] = model->slots[i - 1];
        model->slots[at] = *slot;
}

/* ---- pages ---- */

Outcome model_outcome(SlotRule rule) {
        if (rule == RULE_NONE || rule == RULE_SAME_FRAME)
                return OUTCOME_OK;
        return rule >= RULE_ROM_SHADOW && rule <= RULE_DECLARED_SHARE ? OUTCOME_ALLOWED : OUTCOME_REFUSED;
}

void model_add_common(ModelVerdict *verdict, ModelCommon common) {
        Outcome outcome = model_outcome(common.rule);

        if (outcome > verdict->outcome || (outcome == verdict->outcome && common.rule < verdict->rule) ||
            verdict->rule == RULE_NONE) {
                verdict->outcome = outcome;
                verdict->rule = common.rule;
        }
        if (common.rule == RULE_SAME_FRAME)
                return;
        verdict->n_allowed += outcome == OUTCOME_ALLOWED;
        if (verdict->n_common == MODEL_COMMON_MAX)
                abort();
        verdict->common[verdict->n_common++] = common;
}

/* ---- KVM ---- */

static bool refuse(ModelVerdict *verdict, SlotRule rule, int kernel_errno) {
        verdict->outcome = OUTCOME_REFUSED;
        verdict->rule = rule;
        verdict->kernel_errno = kernel_errno;
        return true;
}

static bool numbers_refuse(const ModelSpec *s, ModelVerdict *verdict) {
        static const uint32_t legal[] = { 0, 1, 2, 3, 4 };
        bool flags_legal = false;

        for (size_t i = 0; i < sizeof(legal) / sizeof(legal[0]); i++)
                flags_legal |= s->flags == legal[i];

        if (s->id > 32763)
                return refuse(verdict, RULE_SLOT_ID, EINVAL);
        if (!flags_legal)
                return refuse(verdict, RULE_FLAGS, EINVAL);
        if (s->size % MODEL_PAGE != 0)
                return refuse(verdict, RULE_MEMORY_SIZE, EINVAL);
        if (s->gpa % MODEL_PAGE != 0)
                return refuse(verdict, RULE_GUEST_PHYS_ADDR, EINVAL);
        if (s->hva % MODEL_PAGE != 0 || (unsigned __int128) s->hva + s->size > USER_END)
                return refuse(verdict, RULE_USERSPACE_ADDR, EINVAL);
        if (s->flags == 4 && (s->guest_memfd_offset % MODEL_PAGE != 0 ||
                              (unsigned __int128) s->guest_memfd_offset + s->size > UINT64_MAX))
                return refuse(verdict, RULE_GUEST_MEMFD_OFFSET, EINVAL);
        if (s->as_id > 1)
                return refuse(verdict, RULE_SLOT_ID, EINVAL);
        if ((unsigned __int128) s->gpa + s->size > UINT64_MAX)
                return refuse(verdict, RULE_GUEST_PHYS_ADDR, EINVAL);
        if (s->size > UINT64_C(0x7fffffff) * MODEL_PAGE)
                return refuse(verdict, RULE_MEMORY_SIZE, EINVAL);
        if (pages_of(s) > MODEL_SLOT_PAGES_MAX)
                abort();
        return false;
}

static bool gfns_refuse(const Model *model, int vm, const ModelSpec *s, int self, ModelVerdict *verdict) {
        for (size_t t = 0; t < model->n_slots; t++) {
                const ModelSpec *o = &model->slots[t].spec;

                if ((int) t == self || model->slots[t].vm != vm || o->as_id != s->as_id)
                        continue;
                for (uint64_t i = 0; i < pages_of(s); i++)
                        for (uint64_t j = 0; j < pages_of(o); j++)
                                if (s->gpa + i * MODEL_PAGE == o->gpa + j * MODEL_PAGE)
                                        model_add_common(verdict, (ModelCommon) {
                                                                          .rule = RULE_GFN_OVERLAP,
                                                                          .vm = vm,
                                                                          .id = o->id,
                                                                          .as_id = o->as_id,
                                                                          .gpa = o->gpa + j * MODEL_PAGE,
                                                                          .requested_gpa = o->gpa + j * MODEL_PAGE,
                                                                          .file = MODEL_NONE,
                                                                  });
        }

        return verdict->outcome == OUTCOME_REFUSED && refuse(verdict, RULE_GFN_OVERLAP, EEXIST);
}

static bool bindings_refuse(const Model *model, const ModelSpec *s, ModelVerdict *verdict) {
        for (size_t t = 0; t < model->n_slots; t++) {
                const ModelSpec *o = &model->slots[t].spec;

                if (o->guest_memfd != s->guest_memfd)
                        continue;
                for (uint64_t i = 0; i < pages_of(s); i++)
                        for (uint64_t j = 0; j < pages_of(o); j++)
                                if (s->guest_memfd_offset + i * MODEL_PAGE == o->guest_memfd_offset + j * MODEL_PAGE)
                                        model_add_common(verdict,
                                                         (ModelCommon) {
                                                                 .rule = RULE_BINDING_OVERLAP,
                                                                 .vm = model->slots[t].vm,
                                                                 .id = o->id,
                                                                 .as_id = o->as_id,
                                                                 .gpa = o->gpa + j * MODEL_PAGE,
                                                                 .requested_gpa = s->gpa + i * MODEL_PAGE,
                                                                 .file = o->guest_memfd,
                                                                 .offset = o->guest_memfd_offset + j * MODEL_PAGE,
                                                         });
        }

        return verdict->outcome == OUTCOME_REFUSED && refuse(verdict, RULE_BINDING_OVERLAP, EINVAL);
}

/* True if every page of the range is a page of the file. */
static bool file_has(const ModelBacking *file, uint64_t offset, const ModelSpec *s) {
        return (unsigned __int128) offset + s->size <= file->size;
}

static bool guest_memfd_refuses(const Model *model, int vm, const ModelSpec *s, ModelVerdict *verdict) {
        const ModelBacking *file;

        if (s->guest_memfd == MODEL_NONE)
                return refuse(verdict, RULE_NOT_GUEST_MEMFD, EBADF);
        file = &model->backings[s->guest_memfd];
        if (file->kind != BACKING_GUEST_MEMFD)
                return refuse(verdict, RULE_NOT_GUEST_MEMFD, EINVAL);
        if (file->vm != vm)
                return refuse(verdict, RULE_FOREIGN_GUEST_MEMFD, EINVAL);
        if (!file_has(file, s->guest_memfd_offset, s))
                return refuse(verdict, RULE_BEYOND_BACKING, EINVAL);
        return bindings_refuse(model, s, verdict);
}

static bool kvm_refuses(const Model *model, int vm, const ModelSpec *s, int self, ModelVerdict *verdict) {
        const ModelSpec *old = self == MODEL_NONE ? NULL : &model->slots[self].spec;

        if (numbers_refuse(s, verdict))
                return true;
        if (s->size == 0)
                return !old && refuse(verdict, RULE_NO_SUCH_SLOT, EINVAL);
        if (old && old->flags == 4)
                return refuse(verdict, RULE_GUEST_MEMFD_IMMUTABLE, EINVAL);
        if (old && (old->hva != s->hva || old->size != s->size || (old->flags & 6) != (s->flags & 6)))
                return refuse(verdict, RULE_SLOT_IMMUTABLE, EINVAL);
        if (gfns_refuse(model, vm, s, self, verdict))
                return true;
        if (s->flags == 4 && guest_memfd_refuses(model, vm, s, verdict))
                return true;
        if (s->gpa + s->size > MODEL_MAX_GPA)
                return refuse(verdict, RULE_GUEST_PHYS_ADDR, EINVAL);
        return false;
}

/* ---- shares ---- */

bool model_shares_read_only(int backing, int vm) {
        return (backing + vm) % 3 == 0;
}

bool model_is_written_by(const Model *model, int backing, int vm) {
        for (size_t i = 0; i < model->n_slots; i++) {
                const ModelSlot *s = &model->slots[i];

                if (s->vm == vm && shows(s, backing) && !(s->spec.flags & SLOT_READONLY))
                        return true;
        }
        return false;
}

/* ---- what is mapped ---- */

static bool is_as_declared(const ModelSpec *s, const ModelPage *seen, uint64_t i) {
        if (seen[i].kind == SEEN_NOWHERE)
                return true;
        return seen[i].kind == SEEN_FILE && seen[i].file == s->backing &&
               seen[i].page * MODEL_PAGE == s->offset + i * MODEL_PAGE;
}

/* Whether one mapping may show both pages, one after the other. */
static bool is_one_mapping(const ModelPage *a, const ModelPage *b) {
        if (a->kind != b->kind)
                return false;
        return a->kind == SEEN_MEMORY || (a->file == b->file && a->page + 1 == b->page);
}

static MappedKind mapped_kind(const ModelPage *page) {
        if (page->kind == SEEN_FILE)
                return model_is_guest_memfd(page->file) ? MAPPED_GUEST_MEMFD : MAPPED_FILE;
        return page->kind == SEEN_COPY ? MAPPED_COPY : MAPPED_MEMORY;
}

/* What is reported is the first mapping that is not as declared. */
static bool mapping_refuses(int vm, const ModelSpec *s, const ModelPage *seen, ModelVerdict *verdict) {
        uint64_t i = 0;

        while (i < pages_of(s) && is_as_declared(s, seen, i))
                i++;
        if (i == pages_of(s))
                return false;

        do {
                bool has_file = seen[i].kind != SEEN_MEMORY;

                model_add_common(verdict, (ModelCommon) {
                                                  .rule = RULE_MAPPING_MISMATCH,
                                                  .vm = vm,
                                                  .id = s->id,
                                                  .as_id = s->as_id,
                                                  .gpa = s->gpa + i * MODEL_PAGE,
                                                  .requested_gpa = s->gpa + i * MODEL_PAGE,
                                                  .file = has_file ? seen[i].file : MODEL_NONE,
                                                  .offset = has_file ? seen[i].page * MODEL_PAGE : 0,
                                                  .mapped = mapped_kind(&seen[i]),
                                          });
                i++;
        } while (i < pages_of(s) && is_one_mapping(&seen[i - 1], &seen[i]));
        return refuse(verdict, RULE_MAPPING_MISMATCH, 0);
}

static void show_what_is_seen(ModelSlot *slot, const ModelPage *seen) {
        for (uint64_t i = 0; i < pages_of(&slot->spec); i++)
                if (seen[i].kind == SEEN_FILE)
                        slot->shared[i] = page_number(seen[i].file, seen[i].page);
}

static void show_what_is_declared(ModelSlot *slot) {
        const ModelSpec *s = &slot->spec;

        for (uint64_t i = 0; i < pages_of(s); i++) {
                if (s->backing != MODEL_NONE)
                        slot->shared[i] = page_number(s->backing, s->offset / MODEL_PAGE + i);
                if (s->guest_memfd != MODEL_NONE)
                        slot->private[i] = page_number(s->guest_memfd, s->guest_memfd_offset / MODEL_PAGE + i);
        }
}

/* The backing that is all of the shared side, each page after the one before, or MODEL_NONE. */
static int whole_backing(const Model *model, const ModelSlot *slot) {
        int file = file_of(slot->shared[0]);

        for (uint64_t i = 1; i < pages_of(&slot->spec); i++)
                if (!continues(slot->shared[i - 1], slot->shared[i]))
                        return MODEL_NONE;
        return file != MODEL_NONE && exists(model, file) ? file : MODEL_NONE;
}

static void note_whole_backing(const Model *model, ModelSlot *slot) {
        slot->spec.backing = whole_backing(model, slot);
        slot->spec.offset = slot->spec.backing != MODEL_NONE ? offset_of(slot->shared[0]) : 0;
}

void model_settle(Model *model) {
        for (int file = 0; file < MODEL_FILES; file++)
                if (!exists(model, file) && model_count_showing(model, file) == 0)
                        model->was_at_zero[file] = false;
        for (size_t i = 0; i < model->n_slots; i++)
                note_whole_backing(model, &model->slots[i]);
}

/* ---- setting ---- */

static bool slots_equal(const ModelSlot *a, const ModelSlot *b) {
        return a->spec.flags == b->spec.flags && a->spec.gpa == b->spec.gpa && a->spec.size == b->spec.size &&
               a->spec.hva == b->spec.hva && memcmp(a->shared, b->shared, sizeof(a->shared)) == 0 &&
               memcmp(a->private, b->private, sizeof(a->private)) == 0;
}

static bool shows_what_is_read_only(const Model *model, const ModelSlot *slot) {
        for (uint64_t i = 0; i < pages_of(&slot->spec); i++) {
                int file = file_of(slot->shared[i]);

                if (file != MODEL_NONE && exists(model, file) && model->backings[file].shared_with[slot->vm] &&
                    model_shares_read_only(file, slot->vm))
                        return true;
        }
        return false;
}

/* The shared side, as it is declared or seen, and the rules about it that are no alias rules. True if they deny the
 * slot, whatever the policy or because the policy is to enforce. */
static bool shared_side_is_denied(const Model *model, ModelSlot *slot, const ModelPage *seen, ModelVerdict *verdict) {
        ModelSpec *s = &slot->spec;

        if (seen && s->backing != MODEL_NONE && mapping_refuses(slot->vm, s, seen, verdict)) {
                if (!model->observes[slot->vm])
                        return true;
                s->backing = MODEL_NONE;
        }
        if (seen && s->backing == MODEL_NONE) {
                show_what_is_seen(slot, seen);
                note_whole_backing(model, slot);
        }

        if (s->backing != MODEL_NONE &&
            (s->offset % MODEL_PAGE != 0 || !file_has(&model->backings[s->backing], s->offset, s)))
                return refuse(verdict, RULE_BEYOND_BACKING, 0);
        show_what_is_declared(slot);
        return shows_what_is_read_only(model, slot) && !(s->flags & SLOT_READONLY) &&
               refuse(verdict, RULE_SHARE_READ_ONLY, 0);
}

void model_set(Model *model, int vm, const ModelSpec *spec, const ModelPage *seen, ModelVerdict *verdict) {
        int self = model_find(model, vm, spec->as_id, spec->id);
        ModelSlot slot = { .vm = vm, .spec = *spec };
        ModelSpec *s = &slot.spec;

        verdict->outcome = OUTCOME_OK;
        verdict->rule = RULE_NONE;
        verdict->kernel_errno = 0;
        verdict->n_common = 0;
        verdict->n_allowed = 0;
        verdict->denied = true;
        verdict->changed = false;

        if (s->flags != 4) {
                s->guest_memfd = MODEL_NONE;
                s->guest_memfd_offset = 0;
        }
        if (s->backing == MODEL_NONE)
                s->offset = 0;

        if (kvm_refuses(model, vm, s, self, verdict))
                return;
        if (s->size > 0) {
                if (shared_side_is_denied(model, &slot, seen, verdict))
                        return;
                model_judge_aliases(model, &slot, self, verdict);
        }
        if (verdict->outcome == OUTCOME_REFUSED && !model->observes[vm])
                return;

        verdict->denied = false;
        verdict->changed = self == MODEL_NONE || !slots_equal(&slot, &model->slots[self]);
        if (self != MODEL_NONE)
                remove_at(model, (size_t) self);
        if (s->size == 0)
                return;
        insert_slot(model, &slot);
        if (s->gpa == 0 && slot.shared[0] != 0)
                model->was_at_zero[file_of(slot.shared[0])] = true;
}
