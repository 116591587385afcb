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
        return file->backing || file->was_at_zero || file->n_at_zero > 0;
}

/* ---- showings ---- */

static SlotShowing *showing_of(IntervalNode *node) {
        return node ? (SlotShowing *) ((char *) node - offsetof(SlotShowing, node)) : NULL;
}

SlotShowing *file_first_showing(const File *file, uint64_t offset, uint64_t size) {
        return showing_of(interval_first_overlap(&file->showings, offset, size));
}

SlotShowing *showing_first(const Backing *backing, uint64_t offset, uint64_t size) {
        return file_first_showing(backing->file, offset, size);
}

SlotShowing *showing_next(const SlotShowing *showing, uint64_t offset, uint64_t size) {
        return showing_of(interval_next_overlap(&showing->node, offset, size));
}

bool showing_counts(const SlotShowing *showing) {
        for (const SlotShowing *s = showing->slot->showings; s < showing; s++)
                if (s->file == showing->file)
                        return false;
        return true;
}

void file_become_backing(File *file, Backing *backing) {
        SlotShowing *s;

        assert(!file->backing);
        file->backing = backing;
        backing->file = file;
        for (s = file_first_showing(file, 0, UINT64_MAX); s; s = showing_next(s, 0, UINT64_MAX)) {
                SlotSpec *spec = &s->slot->spec;

                backing->n_slots += showing_counts(s);
                if (!s->private_side && showing_size(s) == spec->size) {
                        spec->backing = backing;
                        spec->offset = showing_offset(s);
                }
        }
}
