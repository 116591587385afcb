/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "model.h"

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

static bool shows(const ModelSpec *spec, int backing) {
        return spec->backing == backing || spec->guest_memfd == backing;
}

void model_reset_vm(Model *model, int vm) {
        remove_slots_of(model, vm);
        for (int b = 0; b < MODEL_BACKINGS; b++) {
                model->backings[b].shared_with[vm] = false;
                if (model->backings[b].vm != vm)
                        continue;
                for (size_t i = model->n_slots; i-- > 0;)
                        if (shows(&model->slots[i].spec, b))
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
                n += shows(&model->slots[i].spec, backing);
        return n;
}

static void insert_slot(Model *model, int vm, const ModelSpec *spec) {
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
        model->slots[at] = (ModelSlot) { .vm = vm, .spec = *spec };
}

/* ---- pages ---- */

static uint64_t pages_of(const ModelSpec *spec) {
        return spec->size / MODEL_PAGE;
}

Outcome model_outcome(SlotRule rule) {
        if (rule == RULE_NONE || rule == RULE_SAME_FRAME)
                return OUTCOME_OK;
        return rule >= RULE_ROM_SHADOW && rule <= RULE_DECLARED_SHARE ? OUTCOME_ALLOWED : OUTCOME_REFUSED;
}

static void add_common(ModelVerdict *verdict, ModelCommon common) {
        Outcome outcome = model_outcome(common.rule);

        if (outcome > verdict->outcome || (outcome == verdict->outcome && common.rule < verdict->rule) ||
            verdict->rule == RULE_NONE) {
                verdict->outcome = outcome;
                verdict->rule = common.rule;
        }
        if (common.rule == RULE_SAME_FRAME)
                return;
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
                                        add_common(verdict, (ModelCommon) {
                                                                    .rule = RULE_GFN_OVERLAP,
                                                                    .vm = vm,
                                                                    .id = o->id,
                                                                    .as_id = o->as_id,
                                                                    .gpa = o->gpa + j * MODEL_PAGE,
                                                                    .requested_gpa = o->gpa + j * MODEL_PAGE,
                                                                    .backing = MODEL_NONE,
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
                                        add_common(verdict, (ModelCommon) {
                                                                    .rule = RULE_BINDING_OVERLAP,
                                                                    .vm = model->slots[t].vm,
                                                                    .id = o->id,
                                                                    .as_id = o->as_id,
                                                                    .gpa = o->gpa + j * MODEL_PAGE,
                                                                    .requested_gpa = s->gpa + i * MODEL_PAGE,
                                                                    .backing = o->guest_memfd,
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
                const ModelSpec *s = &model->slots[i].spec;

                if (model->slots[i].vm == vm && (s->backing == backing || s->guest_memfd == backing) &&
                    !(s->flags & SLOT_READONLY))
                        return true;
        }
        return false;
}

/* ---- aliases ---- */

typedef struct Pair {
        const Model *model;
        int vm, other_vm;
        const ModelSpec *s, *o;
        uint64_t i, j; /* page of s, page of o */
} Pair;

static bool is_private(const Model *model, int file) {
        return file != MODEL_NONE && model->backings[file].kind == BACKING_GUEST_MEMFD;
}

static bool both_may_show(const Pair *p, int file) {
        const ModelBacking *b = &p->model->backings[file];

        return (b->vm == p->vm || b->shared_with[p->vm]) && (b->vm == p->other_vm || b->shared_with[p->other_vm]);
}

static bool in_smram(uint64_t gpa) {
        return gpa >= 0xfeda0000 && gpa < 0xfeda0000 + 128 * 1024;
}

/* All pages that follow each other in both slots like these two must lie in the window, in the same slot's view. */
static bool are_smram_window(const Pair *p) {
        uint64_t back = p->i < p->j ? p->i : p->j;
        bool window = true, other_window = true;

        for (uint64_t i = p->i - back, j = p->j - back; i < pages_of(p->s) && j < pages_of(p->o); i++, j++) {
                window = window && in_smram(p->s->gpa + i * MODEL_PAGE);
                other_window = other_window && in_smram(p->o->gpa + j * MODEL_PAGE);
        }

        return window || other_window;
}

static SlotRule rule_of(const Pair *p, int file, int other_file, bool same_hva) {
        uint64_t gpa = p->s->gpa + p->i * MODEL_PAGE, other_gpa = p->o->gpa + p->j * MODEL_PAGE;
        bool same_vm = p->vm == p->other_vm, other_space = p->s->as_id != p->o->as_id;
        bool custody = file != MODEL_NONE || other_file != MODEL_NONE;

        if (same_vm && other_space && gpa == other_gpa)
                return RULE_SAME_FRAME;
        if (is_private(p->model, file) || is_private(p->model, other_file))
                return RULE_PRIVATE_ALIAS;
        if ((p->s->flags & SLOT_READONLY) && (p->o->flags & SLOT_READONLY))
                return RULE_ROM_SHADOW;
        if (same_vm && same_hva && !custody)
                return RULE_VMM_WINDOW;
        if (same_vm && same_hva && other_space)
                return RULE_ADDRESS_SPACE_TRANSIT;
        if (same_vm && same_hva && are_smram_window(p))
                return RULE_SMRAM_WINDOW;
        if (!same_vm && custody && (file == MODEL_NONE || both_may_show(p, file)) &&
            (other_file == MODEL_NONE || both_may_show(p, other_file)))
                return RULE_DECLARED_SHARE;
        return RULE_UNDECLARED_ALIAS;
}

static void add_alias(const Pair *p, ModelVerdict *verdict, int file, int other_file, bool same_hva, uint64_t offset) {
        add_common(verdict, (ModelCommon) {
                                    .rule = rule_of(p, file, other_file, same_hva),
                                    .vm = p->other_vm,
                                    .id = p->o->id,
                                    .as_id = p->o->as_id,
                                    .gpa = p->o->gpa + p->j * MODEL_PAGE,
                                    .requested_gpa = p->s->gpa + p->i * MODEL_PAGE,
                                    .backing = other_file != MODEL_NONE ? other_file : file,
                                    .offset = offset,
                            });
}

/* The page of the file that a side of a slot shows, as one number; differs between files; 0 if it shows none. */
static uint64_t page_number(int file, uint64_t offset, uint64_t page) {
        return file == MODEL_NONE ? 0 : ((uint64_t) file + 1) << 32 | (offset / MODEL_PAGE + page);
}

static void compare_pages(const Pair *p, ModelVerdict *verdict) {
        const ModelSpec *s = p->s, *o = p->o;
        uint64_t shared = page_number(s->backing, s->offset, p->i);
        uint64_t private = page_number(s->guest_memfd, s->guest_memfd_offset, p->i);
        uint64_t other_shared = page_number(o->backing, o->offset, p->j);
        uint64_t other_private = page_number(o->guest_memfd, o->guest_memfd_offset, p->j);
        uint64_t hva = s->hva + p->i * MODEL_PAGE, other_hva = o->hva + p->j * MODEL_PAGE;
        bool same_hva = p->model->mm[p->vm] == p->model->mm[p->other_vm] && hva == other_hva;

        if (shared != 0 && shared == other_shared)
                add_alias(p, verdict, s->backing, o->backing, same_hva, o->offset + p->j * MODEL_PAGE);
        if (shared != 0 && shared == other_private)
                add_alias(p, verdict, s->backing, o->guest_memfd, false, o->guest_memfd_offset + p->j * MODEL_PAGE);
        if (private != 0 && private == other_shared)
                add_alias(p, verdict, s->guest_memfd, o->backing, false, o->offset + p->j * MODEL_PAGE);
        if (private != 0 && private == other_private)
                add_alias(p, verdict, s->guest_memfd, o->guest_memfd, false,
                          o->guest_memfd_offset + p->j * MODEL_PAGE);
        if (same_hva && (shared == 0 || shared != other_shared))
                add_alias(p, verdict, s->backing, o->backing, true,
                          other_shared != 0 ? o->offset + p->j * MODEL_PAGE :
                          shared != 0       ? s->offset + p->i * MODEL_PAGE :
                                              0);
}

static void compare_with_itself(const Pair *p, ModelVerdict *verdict) {
        uint64_t shared = page_number(p->s->backing, p->s->offset, p->i);
        uint64_t private = page_number(p->s->guest_memfd, p->s->guest_memfd_offset, p->j);

        if (shared != 0 && shared == private && p->i != p->j)
                add_alias(p, verdict, p->s->backing, p->s->backing, false, p->s->offset + p->i * MODEL_PAGE);
}

static void judge_aliases(const Model *model, int vm, const ModelSpec *s, int self, ModelVerdict *verdict) {
        Pair p = { .model = model, .vm = vm, .s = s };

        for (int t = MODEL_NONE; t < (int) model->n_slots; t++) {
                if (t == self && t != MODEL_NONE)
                        continue;
                p.other_vm = t == MODEL_NONE ? vm : model->slots[t].vm;
                p.o = t == MODEL_NONE ? s : &model->slots[t].spec;
                for (p.i = 0; p.i < pages_of(s); p.i++)
                        for (p.j = 0; p.j < pages_of(p.o); p.j++)
                                if (t == MODEL_NONE)
                                        compare_with_itself(&p, verdict);
                                else
                                        compare_pages(&p, verdict);
        }
}

/* ---- setting ---- */

static bool specs_equal(const ModelSpec *a, const ModelSpec *b) {
        return a->flags == b->flags && a->gpa == b->gpa && a->size == b->size && a->hva == b->hva &&
               a->backing == b->backing && a->offset == b->offset && a->guest_memfd == b->guest_memfd &&
               a->guest_memfd_offset == b->guest_memfd_offset;
}

void model_set(Model *model, int vm, const ModelSpec *spec, ModelVerdict *verdict) {
        int self = model_find(model, vm, spec->as_id, spec->id);
        ModelSpec s = *spec;

        verdict->outcome = OUTCOME_OK;
        verdict->rule = RULE_NONE;
        verdict->kernel_errno = 0;
        verdict->n_common = 0;
        verdict->denied = true;
        verdict->changed = false;

        if (s.flags != 4) {
                s.guest_memfd = MODEL_NONE;
                s.guest_memfd_offset = 0;
        }
        if (s.backing == MODEL_NONE)
                s.offset = 0;

        if (kvm_refuses(model, vm, &s, self, verdict))
                return;
        if (s.size > 0) {
                if (s.backing != MODEL_NONE &&
                    (s.offset % MODEL_PAGE != 0 || !file_has(&model->backings[s.backing], s.offset, &s))) {
                        refuse(verdict, RULE_BEYOND_BACKING, 0);
                        return;
                }
                if (s.backing != MODEL_NONE && model->backings[s.backing].shared_with[vm] &&
                    model_shares_read_only(s.backing, vm) && !(s.flags & SLOT_READONLY)) {
                        refuse(verdict, RULE_SHARE_READ_ONLY, 0);
                        return;
                }
                judge_aliases(model, vm, &s, self, verdict);
        }
        if (verdict->outcome == OUTCOME_REFUSED && !model->observes[vm])
                return;

        verdict->denied = false;
        verdict->changed = self == MODEL_NONE || !specs_equal(&s, &model->slots[self].spec);
        if (self != MODEL_NONE)
                remove_at(model, (size_t) self);
        if (s.size > 0)
                insert_slot(model, vm, &s);
}
