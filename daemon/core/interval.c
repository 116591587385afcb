/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The order is (start, address of the node). max_last lets a search skip every subtree that ends before the range
 * asked for; whatever starts behind the range ends the search, because all that follows starts later still.
 *
 * The priorities come from a counter mixed with the node's address: a caller that picks its ranges with care cannot
 * foresee them and so cannot make the tree a list. */

#include "core/interval.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

static uint64_t next_priority(const IntervalNode *node) {
        static uint64_t counter = UINT64_C(0x9e3779b97f4a7c15);
        uint64_t x;

        counter += UINT64_C(0x9e3779b97f4a7c15);
        x = counter ^ (uint64_t) (uintptr_t) node;
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

static bool comes_before(const IntervalNode *a, const IntervalNode *b) {
        return a->start != b->start ? a->start < b->start : (uintptr_t) a < (uintptr_t) b;
}

static void update_max_last(IntervalNode *node) {
        uint64_t max = node->last;

        if (node->left && node->left->max_last > max)
                max = node->left->max_last;
        if (node->right && node->right->max_last > max)
                max = node->right->max_last;
        node->max_last = max;
}

static void replace_child(IntervalTree *tree, IntervalNode *parent, IntervalNode *old, IntervalNode *new) {
        if (!parent)
                tree->root = new;
        else if (parent->left == old)
                parent->left = new;
        else
                parent->right = new;
        if (new)
                new->parent = parent;
}

/* The child takes the place of its parent, which becomes its child on the other side. */
static void rotate_up(IntervalTree *tree, IntervalNode *child) {
        IntervalNode *parent = child->parent, *moved;

        replace_child(tree, parent->parent, parent, child);
        if (parent->left == child) {
                moved = child->right;
                child->right = parent;
                parent->left = moved;
        } else {
                moved = child->left;
                child->left = parent;
                parent->right = moved;
        }
        parent->parent = child;
        if (moved)
                moved->parent = parent;

        update_max_last(parent);
        update_max_last(child);
}

void interval_insert(IntervalTree *tree, IntervalNode *node, uint64_t start, uint64_t size) {
        IntervalNode *parent = NULL, **link = &tree->root;

        assert(size > 0 && start <= UINT64_MAX - (size - 1));

        *node = (IntervalNode) {
                .start = start,
                .last = start + (size - 1),
                .max_last = start + (size - 1),
                .priority = next_priority(node),
        };

        while (*link) {
                parent = *link;
                if (parent->max_last < node->last)
                        parent->max_last = node->last;
                link = comes_before(node, parent) ? &parent->left : &parent->right;
        }
        node->parent = parent;
        *link = node;

        while (node->parent && node->parent->priority < node->priority)
                rotate_up(tree, node);
}

void interval_remove(IntervalTree *tree, IntervalNode *node) {
        IntervalNode *parent;

        while (node->left && node->right)
                rotate_up(tree, node->left->priority > node->right->priority ? node->left : node->right);

        parent = node->parent;
        replace_child(tree, parent, node, node->left ? node->left : node->right);
        for (; parent; parent = parent->parent)
                update_max_last(parent);

        *node = (IntervalNode) {};
}

/* The first node of the subtree that overlaps [start, last]. */
static IntervalNode *first_below(IntervalNode *node, uint64_t start, uint64_t last) {
        while (node && node->max_last >= start) {
                if (node->left && node->left->max_last >= start) {
                        node = node->left;
                        continue;
                }
                if (node->start > last)
                        return NULL;
                if (node->last >= start)
                        return node;
                node = node->right;
        }

        return NULL;
}

static uint64_t last_of(uint64_t start, uint64_t size) {
        assert(size > 0 && start <= UINT64_MAX - (size - 1));
        return start + (size - 1);
}

IntervalNode *interval_first_overlap(const IntervalTree *tree, uint64_t start, uint64_t size) {
        return first_below(tree->root, start, last_of(start, size));
}

IntervalNode *interval_next_overlap(const IntervalNode *node, uint64_t start, uint64_t size) {
        uint64_t last = last_of(start, size);

        for (;;) {
                IntervalNode *parent;

                /* What lies below on the right comes next, if any of it reaches the range. */
                if (node->right && node->right->max_last >= start)
                        return first_below(node->right, start, last);

                while ((parent = node->parent) && parent->right == node)
                        node = parent;
                if (!parent || parent->start > last)
                        return NULL;
                if (parent->last >= start)
                        return parent;
                node = parent;
        }
}

IntervalNode *interval_first(const IntervalTree *tree) {
        IntervalNode *node = tree->root;

        while (node && node->left)
                node = node->left;
        return node;
}

IntervalNode *interval_next(const IntervalNode *node) {
        IntervalNode *next;

        if (node->right) {
                for (next = node->right; next->left;)
                        next = next->left;
                return next;
        }

        while ((next = node->parent) && next->right == node)
                node = next;
        return next;
}

IntervalNode *interval_lower_bound(const IntervalTree *tree, uint64_t start) {
        IntervalNode *node = tree->root, *best = NULL;

        while (node)
                if (node->start >= start) {
                        best = node;
                        node = node->left;
                } else
                        node = node->right;

        return best;
}
