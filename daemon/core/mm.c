/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <search.h>
#include <stdlib.h>

#include "core/core-private.h"

static int compare_mm(const void *a, const void *b) {
        const Mm *x = a, *y = b;

        return x->id < y->id ? -1 : x->id > y->id;
}

int mm_new(Mm **ret) {
        Mm *mm;

        mm = calloc(1, sizeof(Mm));
        if (!mm)
                return -ENOMEM;

        mm->n_vms = 1;
        *ret = mm;
        return 0;
}

int mm_ref_by_id(Registry *registry, uint64_t id, Mm **ret) {
        Mm key = { .id = id }, *mm, **found;
        int r;

        assert(id != 0);

        found = tfind(&key, &registry->mms_by_id, compare_mm);
        if (found) {
                (*found)->n_vms++;
                *ret = *found;
                return 0;
        }

        r = mm_new(&mm);
        if (r < 0)
                return r;

        mm->id = id;
        if (!tsearch(mm, &registry->mms_by_id, compare_mm)) {
                free(mm);
                return -ENOMEM;
        }

        *ret = mm;
        return 0;
}

Mm *mm_unref(Registry *registry, Mm *mm) {
        if (!mm)
                return NULL;

        assert(mm->n_vms > 0);
        if (--mm->n_vms > 0)
                return NULL;

        assert(!mm->slots.root);
        if (mm->id != 0)
                tdelete(mm, &registry->mms_by_id, compare_mm);
        free(mm);
        return NULL;
}
