/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <stdlib.h>

#include "core/core-private.h"

/* A hash table: of every file of the host that a slot shows, one search at each look, in whatever order. The kernel
 * counts inodes up, so their low bits are what differs. */
#define BUCKETS_MIN 16U

static size_t bucket_of(size_t n_buckets, dev_t dev, ino_t ino) {
        return (size_t) ((ino ^ (dev << 32)) * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (n_buckets - 1);
}

static File **find_place(const FileTable *files, dev_t dev, ino_t ino) {
        File **at = &files->buckets[bucket_of(files->n_buckets, dev, ino)];

        while (*at && ((*at)->dev != dev || (*at)->ino != ino))
                at = &(*at)->next;
        return at;
}

static File *find(const Registry *registry, dev_t dev, ino_t ino) {
        return registry->files.n_buckets > 0 ? *find_place(&registry->files, dev, ino) : NULL;
}

/* Without memory, chains become longer; but there must be a table. */
static int make_room(FileTable *files) {
        size_t n = files->n_buckets > 0 ? 2 * files->n_buckets : BUCKETS_MIN;
        File **buckets, *file, *next;

        if (files->n < files->n_buckets)
                return 0;
        buckets = calloc(n, sizeof(*buckets));
        if (!buckets)
                return files->n_buckets > 0 ? 0 : -ENOMEM;
        for (size_t i = 0; i < files->n_buckets; i++)
                for (file = files->buckets[i]; file; file = next) {
                        File **bucket = &buckets[bucket_of(n, file->dev, file->ino)];

                        next = file->next;
                        file->next = *bucket;
                        *bucket = file;
                }
        free(files->buckets);
        files->buckets = buckets;
        files->n_buckets = n;
        return 0;
}

static void take_out(FileTable *files, File *file) {
        *find_place(files, file->dev, file->ino) = file->next;
        if (--files->n > 0)
                return;
        free(files->buckets);
        *files = (FileTable) {};
}

int file_ref_by_identity(Registry *registry, dev_t dev, ino_t ino, File **ret) {
        FileTable *files = &registry->files;
        File *file = find(registry, dev, ino);

        if (!file) {
                File **bucket;

                file = calloc(1, sizeof(File));
                if (!file || make_room(files) < 0) {
                        free(file);
                        return -ENOMEM;
                }
                bucket = &files->buckets[bucket_of(files->n_buckets, dev, ino)];
                file->dev = dev;
                file->ino = ino;
                file->next = *bucket;
                *bucket = file;
                files->n++;
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
        take_out(&registry->files, file);
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
