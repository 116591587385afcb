/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A tree of byte ranges, which may overlap each other: a B+ tree ordered by (start, item) in which every inner entry
 * knows the greatest last byte below it. Insert, remove and "first range that overlaps" are O(log n); walking k
 * overlaps is O(log n + k).
 *
 * A range stands for an item, which the tree never looks into. The same item may be in many trees. */

#include <stdbool.h>
#include <stdint.h>

typedef struct IntervalBlock IntervalBlock;

typedef struct IntervalStep {
        IntervalBlock *block;
        unsigned at; /* which entry of it */
} IntervalStep;

/* A tree as high as this would have more entries than there are bytes of memory. */
#define INTERVAL_HEIGHT_MAX 16
/* A million entries need no more. */
#define INTERVAL_TRAIL_MAX  3

/* All zero is the empty tree, which has no memory of its own. */
typedef struct IntervalTree {
        IntervalBlock *root;
        unsigned height; /* 1: the root is a leaf */

        /* private: the way that interval_approach() went */
        unsigned trail_height; /* the tree's; 0 if there is no trail, or not any more */
        uint64_t trail_start;
        IntervalStep trail[INTERVAL_TRAIL_MAX]; /* of the inner blocks */
} IntervalTree;

/* Where a search stands. Any change of the tree ends the search. */
typedef struct IntervalCursor {
        uint64_t found_start, found_last; /* the range of the item that was returned */

        /* private */
        uint64_t start, last; /* what is searched for */
        unsigned height, level;
        IntervalStep path[INTERVAL_HEIGHT_MAX];
} IntervalCursor;

/* size > 0 and start + size <= 2^64; the item is in the tree once at most. -ENOMEM: nothing changed. */
int interval_insert(IntervalTree *tree, void *item, uint64_t start, uint64_t size);
/* The item must be there, at that start. Memory that is not needed any more is given back. */
void interval_remove(IntervalTree *tree, void *item, uint64_t start);

/* Gives the item another range, which must leave it in its place in the order. Nothing may have been withdrawn since
 * interval_tidy(). */
void interval_resize(IntervalTree *tree, const void *item, uint64_t start, uint64_t new_start, uint64_t size);

/* Like interval_remove(), but gives no memory back. So what is inserted and withdrawn after it can be undone without
 * allocating anything: withdraw what was inserted, insert what was withdrawn, in reverse order. True if interval_tidy() is
 * to be called later, which gives the memory back around where the item was. */
bool interval_withdraw(IntervalTree *tree, void *item, uint64_t start);
void interval_tidy(IntervalTree *tree, const void *item, uint64_t start);

/* Goes ahead to where ranges of that start are. Memory that is in no cache is on its way then, and until blocks split
 * or merge a search from that start on, and inserting or removing a range of it, need not go the same way again. */
void interval_approach(IntervalTree *tree, uint64_t start);

/* The first item, in order of start, that has a byte in common with [start, start + size), or NULL. */
void *interval_first_overlap(const IntervalTree *tree, uint64_t start, uint64_t size, IntervalCursor *ret_cursor);
/* The next one, or NULL. */
void *interval_next_overlap(IntervalCursor *cursor);
/* Whether any two ranges have a byte in common. No item is looked at. */
bool interval_has_overlap(const IntervalTree *tree);
