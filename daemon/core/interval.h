/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* An intrusive tree of byte ranges, which may overlap each other: a treap ordered by (start, address of the node)
 * and augmented with the greatest last byte below each node. Insert, remove and "first range that overlaps" are
 * O(log n) expected; walking k overlaps is O(log n + k).
 *
 * A node belongs to whoever embeds it; the tree allocates nothing. A node is in at most one tree. */

#include <stdint.h>

typedef struct IntervalNode IntervalNode;

struct IntervalNode {
        IntervalNode *parent, *left, *right;
        uint64_t start;
        uint64_t last; /* the last byte, inclusive: start + size - 1 cannot wrap */
        uint64_t max_last;
        uint64_t priority;
};

typedef struct IntervalTree {
        IntervalNode *root;
} IntervalTree;

/* size > 0 and start + size <= 2^64. */
void interval_insert(IntervalTree *tree, IntervalNode *node, uint64_t start, uint64_t size);
void interval_remove(IntervalTree *tree, IntervalNode *node);

/* The first node, in order of start, that has a byte in common with [start, start + size), or NULL. */
IntervalNode *interval_first_overlap(const IntervalTree *tree, uint64_t start, uint64_t size);
/* The next one after node, or NULL. */
IntervalNode *interval_next_overlap(const IntervalNode *node, uint64_t start, uint64_t size);

/* In order of start. */
IntervalNode *interval_first(const IntervalTree *tree);
IntervalNode *interval_next(const IntervalNode *node);
/* The first node whose start is not below the given one, or NULL. */
IntervalNode *interval_lower_bound(const IntervalTree *tree, uint64_t start);
