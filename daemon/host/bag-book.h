/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The live entries of a bag by id: a hash table with linear probing, never more than half full. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct BookEntry {
        uint64_t id;
        int fd; /* borrowed */
        bool used;
        bool young; /* in the young queue, and not known to be in the packed one */
} BookEntry;

/* All zero is the empty book. */
typedef struct Book {
        BookEntry *slots;
        size_t n_slots; /* 0 or a power of two */
        size_t size;    /* entries */
} Book;

/* NULL if it is not there. Valid until the next change. */
BookEntry *book_find(const Book *book, uint64_t id);
/* Of an id that is not there. -ENOMEM: nothing changed. */
int book_add(Book *book, uint64_t id, int fd, bool young);
/* The id may be unknown. */
void book_remove(Book *book, uint64_t id);
/* The ids of all entries, in order, to be freed. */
int book_ids(const Book *book, uint64_t **ret);
void book_done(Book *book);
