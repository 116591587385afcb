/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The rules about one page at two guest frames, for one pair of pages at a time. */

#include "model-private.h"

typedef struct Pair {
        const Model *model;
        const ModelSlot *s, *o;
        uint64_t i, j; /* page of s, page of o */
} Pair;

static bool is_private(int file) {
        return file != MODEL_NONE && model_is_guest_memfd(file);
}

/* The slot asked for may be the one that brings the file to guest address 0. */
static bool is_custody(const Pair *p, int file) {
        return file != MODEL_NONE && (exists(p->model, file) || p->model->was_at_zero[file] ||
                                      (p->s->spec.gpa == 0 && file_of(p->s->shared[0]) == file));
}

static bool both_may_show(const Pair *p, int file) {
        const ModelBacking *b;

        if (!exists(p->model, file))
                return false;
        b = &p->model->backings[file];
        return (b->vm == p->s->vm || b->shared_with[p->s->vm]) && (b->vm == p->o->vm || b->shared_with[p->o->vm]);
}

static bool in_smram(uint64_t gpa) {
        return gpa >= 0xfeda0000 && gpa < 0xfeda0000 + 128 * 1024;
}

/* All pages that follow each other in both slots like these two, and are known alike, must lie in the window, in the
 * same slot's view. */
static bool are_smram_window(const Pair *p) {
        uint64_t i = p->i, j = p->j;
        bool window = true, other_window = true;

        while (i > 0 && j > 0 && continues(p->s->shared[i - 1], p->s->shared[i]) &&
               continues(p->o->shared[j - 1], p->o->shared[j])) {
                i--;
                j--;
        }
        do {
                window = window && in_smram(p->s->spec.gpa + i * MODEL_PAGE);
                other_window = other_window && in_smram(p->o->spec.gpa + j * MODEL_PAGE);
                i++;
                j++;
        } while (i < pages_of(&p->s->spec) && j < pages_of(&p->o->spec) &&
                 continues(p->s->shared[i - 1], p->s->shared[i]) && continues(p->o->shared[j - 1], p->o->shared[j]));

        return window || other_window;
}

static SlotRule rule_of(const Pair *p, int file, int other_file, bool same_hva) {
        const ModelSpec *s = &p->s->spec, *o = &p->o->spec;
        uint64_t gpa = s->gpa + p->i * MODEL_PAGE, other_gpa = o->gpa + p->j * MODEL_PAGE;
        bool same_vm = p->s->vm == p->o->vm, other_space = s->as_id != o->as_id;
        bool known = file != MODEL_NONE || other_file != MODEL_NONE;

        if (same_vm && other_space && gpa == other_gpa)
                return RULE_SAME_FRAME;
        if (is_private(file) || is_private(other_file))
                return RULE_PRIVATE_ALIAS;
        if ((s->flags & SLOT_READONLY) && (o->flags & SLOT_READONLY))
                return RULE_ROM_SHADOW;
        if (same_vm && same_hva && !is_custody(p, file) && !is_custody(p, other_file))
                return RULE_VMM_WINDOW;
        if (same_vm && same_hva && other_space)
                return RULE_ADDRESS_SPACE_TRANSIT;
        if (same_vm && same_hva && are_smram_window(p))
                return RULE_SMRAM_WINDOW;
        if (!same_vm && known && (file == MODEL_NONE || both_may_show(p, file)) &&
            (other_file == MODEL_NONE || both_may_show(p, other_file)))
                return RULE_DECLARED_SHARE;
        return RULE_UNDECLARED_ALIAS;
}

/* The page as either slot knows it. */
static void add_alias(const Pair *p, ModelVerdict *verdict, PageNumber page, PageNumber other_page, bool same_hva) {
        PageNumber known = other_page != 0 ? other_page : page;

        model_add_common(verdict, (ModelCommon) {
                                          .rule = rule_of(p, file_of(page), file_of(other_page), same_hva),
                                          .vm = p->o->vm,
                                          .id = p->o->spec.id,
                                          .as_id = p->o->spec.as_id,
                                          .gpa = p->o->spec.gpa + p->j * MODEL_PAGE,
                                          .requested_gpa = p->s->spec.gpa + p->i * MODEL_PAGE,
                                          .file = file_of(known),
                                          .offset = known != 0 ? offset_of(known) : 0,
                                  });
}

static void compare_pages(const Pair *p, ModelVerdict *verdict) {
        PageNumber shared = p->s->shared[p->i], private = p->s->private[p->i];
        PageNumber other_shared = p->o->shared[p->j], other_private = p->o->private[p->j];
        uint64_t hva = p->s->spec.hva + p->i * MODEL_PAGE, other_hva = p->o->spec.hva + p->j * MODEL_PAGE;
        bool same_hva = p->model->mm[p->s->vm] == p->model->mm[p->o->vm] && hva == other_hva;

        if (shared != 0 && shared == other_shared)
                add_alias(p, verdict, shared, other_shared, same_hva);
        if (shared != 0 && shared == other_private)
                add_alias(p, verdict, shared, other_private, false);
        if (private != 0 && private == other_shared)
                add_alias(p, verdict, private, other_shared, false);
        if (private != 0 && private == other_private)
                add_alias(p, verdict, private, other_private, false);
        if (same_hva && (shared == 0 || shared != other_shared))
                add_alias(p, verdict, shared, other_shared, true);
}

/* The slot's own pair of a guest_memfd and its mapping has each page at one place. */
static void compare_with_itself(const Pair *p, ModelVerdict *verdict) {
        PageNumber shared = p->s->shared[p->i];

        if (shared != 0 && p->i < p->j && shared == p->s->shared[p->j])
                add_alias(p, verdict, shared, shared, false);
        if (shared != 0 && p->i != p->j && shared == p->s->private[p->j])
                add_alias(p, verdict, shared, shared, false);
}

void model_judge_aliases(const Model *model, const ModelSlot *s, int self, ModelVerdict *verdict) {
        Pair p = { .model = model, .s = s };

        for (int t = MODEL_NONE; t < (int) model->n_slots; t++) {
                if (t == self && t != MODEL_NONE)
                        continue;
                p.o = t == MODEL_NONE ? s : &model->slots[t];
                for (p.i = 0; p.i < pages_of(&s->spec); p.i++)
                        for (p.j = 0; p.j < pages_of(&p.o->spec); p.j++)
                                if (t == MODEL_NONE)
                                        compare_with_itself(&p, verdict);
                                else
                                        compare_pages(&p, verdict);
        }
}
