/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdlib.h>

#include "host/bag-book.h"

#define BOOK_SLOTS_MIN 64U

/* Ids are often numbers in a row. */
static size_t home_of(const Book *book, uint64_t id) {
        return (size_t) (id * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (book->n_slots - 1);
}

/* Where the id is, or else the free slot where it belongs. */
static BookEntry *slot_of(const Book *book, uint64_t id) {
        size_t at = home_of(book, id);

        while (book->slots[at].used && book->slots[at].id != id)
                at = (at + 1) & (book->n_slots - 1);
        return &book->slots[at];
}

BookEntry *book_find(const Book *book, uint64_t id) {
        BookEntry *entry;

        if (book->n_slots == 0)
                return NULL;
        entry = slot_of(book, id);
        return entry->used ? entry : NULL;
}

static int grow(Book *book) {
        Book larger = { .n_slots = book->n_slots > 0 ? 2 * book->n_slots : BOOK_SLOTS_MIN, .size = book->size };

        larger.slots = calloc(larger.n_slots, sizeof(*larger.slots));
        if (!larger.slots)
                return -ENOMEM;
        for (size_t i = 0; i < book->n_slots; i++)
                if (book->slots[i].used)
                        *slot_of(&larger, book->slots[i].id) = book->slots[i];
        free(book->slots);
        *book = larger;
        return 0;
}

int book_add(Book *book, uint64_t id, int fd, bool young) {
        int r;

        if (2 * (book->size + 1) > book->n_slots) {
                r = grow(book);
                if (r < 0)
                        return r;
        }
        *slot_of(book, id) = (BookEntry) { .id = id, .fd = fd, .used = true, .young = young };
        book->size++;
        return 0;
}

void book_remove(Book *book, uint64_t id) {
        size_t mask = book->n_slots - 1, hole, at;
        BookEntry *entry = book_find(book, id);

        if (!entry)
                return;
        /* Whoever would not be found any more across the hole moves into it. */
        hole = (size_t) (entry - book->slots);
        for (at = (hole + 1) & mask; book->slots[at].used; at = (at + 1) & mask) {
                size_t home = home_of(book, book->slots[at].id);

                if (((at - home) & mask) < ((at - hole) & mask))
                        continue;
                book->slots[hole] = book->slots[at];
                hole = at;
        }
        book->slots[hole].used = false;
        book->size--;
}

static int compare_ids(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return x < y ? -1 : x > y;
}

int book_ids(const Book *book, uint64_t **ret) {
        uint64_t *ids = calloc(book->size ?: 1, sizeof(*ids));
        size_t n = 0;

        if (!ids)
                return -ENOMEM;
        for (size_t i = 0; i < book->n_slots; i++)
                if (book->slots[i].used)
                        ids[n++] = book->slots[i].id;
        qsort(ids, n, sizeof(*ids), compare_ids);
        *ret = ids;
        return 0;
}

void book_done(Book *book) {
        free(book->slots);
        *book = (Book) {};
}
