/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <search.h>
#include <stdlib.h>

#include "core/core-private.h"

static int compare_file(const void *a, const void *b) {
        const File *x = a, *y = b;

        if (x->dev != y->dev)
                return x->dev < y->dev ? -1 : 1;
        return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static File *find(const Registry *registry, dev_t dev, ino_t ino) {
        File key = { .dev = dev, .ino = ino }, **found;

        found = tfind(&key, &registry->files_by_identity, compare_file);
        return found ? *found : NULL;
}

int file_ref_by_identity(Registry *registry, dev_t dev, ino_t ino, File **ret) {
        File *file = find(registry, dev, ino);

        if (!file) {
                file = calloc(1, sizeof(File));
                if (!file)
                        return -ENOMEM;
                file->dev = dev;
                file->ino = ino;
                if (!tsearch(file, &registry->files_by_identity, compare_file)) {
                        free(file);
                        return -ENOMEM;
                }
        }

        *ret = file_ref(file);
        return 0;
}

File *file_ref(File *file) {
        file->n_refs++;
        return file;
}

File *file_unref(Registry *registry, File *file) {
        if (!file)
                return NULL;

        assert(file->n_refs > 0);
        if (--file->n_refs > 0)
                return NULL;

        assert(!file->backing && !file->showings.root);
        tdelete(file, &registry->files_by_identity, compare_file);
        free(file);
        return NULL;
}

Backing *registry_find_file(Registry *registry, dev_t dev, ino_t ino) {
        const File *file = find(registry, dev, ino);

        return file ? file->backing : NULL;
}

bool file_is_private(const File *file) {
        return file->is_guest_memfd || (file->backing && file->backing->kind == BACKING_GUEST_MEMFD);
}

bool file_is_custody(const File *file) {
        return file->backing || file->was_at_zero;
}

void file_become_backing(File *file, Backing *backing) {
        IntervalCursor cursor;
        SlotShowing s;

        assert(!file->backing);
        file->backing = backing;
        backing->file = file;
        for (s = file_first_showing(file, 0, UINT64_MAX, &cursor); s.slot; s = showing_next(&cursor)) {
                SlotRecord *spec = &s.slot->spec;

                backing->n_slots += showing_counts(&s);
                if (!s.private_side && s.size == spec->size) {
                        spec->backing = backing;
                        spec->offset = s.offset;
                }
        }
}
