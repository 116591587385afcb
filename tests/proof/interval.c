/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One step of the interval tree, from every small tree: a root with two leaves, or a single leaf, filled with any
 * ranges, as far as what core/interval.c says "always holds" holds, and with TRAIL any trail that is still good. One range is
 * inserted, removed, withdrawn, or resized. Afterwards all of it holds again, and the tree has what it should have. In
 * every such tree a search for any range finds, in order, just what a look at each range finds.
 *
 * The tree never looks into an item, so an item is any number. BLOCK is how many entries a block has. */

#ifndef BLOCK
#define BLOCK 2
#endif
#define INTERVAL_BLOCK_ENTRIES BLOCK
#define INTERVAL_LEAF_ENTRIES  BLOCK

/* 0: the root is a leaf. */
#ifndef LEAVES_IN_TREE
#define LEAVES_IN_TREE 2
#endif
/* Going on from one item that was found is as good as from any. */
#ifndef FOUND
#define FOUND 3
#endif

/* Moving bytes, of which nobody knows how many, is slow to reason about; see below. */
#define INTERVAL_OWN_COPY
typedef struct IntervalBlock IntervalBlock;
static void copy_entries(IntervalBlock *to, unsigned to_at, const IntervalBlock *from, unsigned from_at, unsigned n);
static void copy_ties(IntervalBlock *to, unsigned to_at, const IntervalBlock *from, unsigned from_at, unsigned n);

/* Blocks of a known type at known places: proofs.py gives their arrays a size, and each is freed once. */
static void *new_block(void);
static void free_block(void *block);
#include <stdlib.h>
#define calloc(n, size) new_block()
#define free(block)     free_block(block)

#include "core/interval.c"
#include "prove.h"

static IntervalBlock b0, b1, b2, b3, b4, b5, b6;
static IntervalBlock *const blocks[] = { &b0, &b1, &b2, &b3, &b4, &b5, &b6 };
static bool in_use[7];
static unsigned n_blocks;

static void *new_block(void) {
        static const IntervalBlock zero;
        IntervalBlock *block;

        assert(n_blocks < 7);
        block = blocks[n_blocks];
        *block = zero;
        in_use[n_blocks++] = true;
        return block;
}

static void free_block(void *block) {
        bool freed = false;

        for (unsigned i = 0; i < 7; i++)
                if (blocks[i] == block) {
                        assert(in_use[i]);
                        in_use[i] = false;
                        freed = true;
                }
        assert(freed);
}

static bool copies_to(unsigned i, unsigned at, unsigned n) {
        return i >= at && i - at < n;
}

static void copy_entries(IntervalBlock *to, unsigned to_at, const IntervalBlock *from, unsigned from_at, unsigned n) {
        Entry copy[BLOCK];

        assert(n <= BLOCK && to_at <= BLOCK - n && from_at <= BLOCK - n);
        for (unsigned i = 0; i < BLOCK; i++)
                copy[i] = from->entries[i];
        for (unsigned i = 0; i < BLOCK; i++)
                if (copies_to(i, to_at, n))
                        to->entries[i] = copy[i - to_at + from_at];
}

static void copy_ties(IntervalBlock *to, unsigned to_at, const IntervalBlock *from, unsigned from_at, unsigned n) {
        const void *copy[BLOCK];

        assert(n <= BLOCK && to_at <= BLOCK - n && from_at <= BLOCK - n);
        for (unsigned i = 0; i < BLOCK; i++)
                copy[i] = block_ties(from)[i];
        for (unsigned i = 0; i < BLOCK; i++)
                if (copies_to(i, to_at, n))
                        block_ties(to)[i] = copy[i - to_at + from_at];
}

enum {
        LEAVES = 2,
        ITEMS_MAX = LEAVES * BLOCK + 1,
};

/* What should be in the tree. */
static Entry set[ITEMS_MAX];
static unsigned n_set;
static IntervalTree tree;

/* ---- what always holds ---- */

/* The tree does nothing with numbers but compare them, so as many of them as there can be in one step are as good as
 * all; at either end of what 64 bits hold, for blocks are filled up with the greatest. */
static uint64_t any_number(void) {
#ifdef HIGH
        return UINT64_MAX - (nondet_u8() & 15);
#else
        return nondet_u8() & 15;
#endif
}

static void *any_item(void) {
        return (void *) ((uintptr_t) (nondet_u8() & 7) + 1);
}

static bool below(uint64_t start, const void *item, uint64_t other_start, const void *other_item) {
        return start != other_start ? start < other_start : (uintptr_t) item < (uintptr_t) other_item;
}

static bool block_holds(const IntervalBlock *block, bool inner) {
        bool holds = block->n <= BLOCK;

        for (unsigned i = 0; i < BLOCK; i++) {
                const Entry *e = &block->entries[i];

                if (i >= block->n) {
                        holds = holds && e->start == UINT64_MAX && e->last == UINT64_MAX;
                        continue;
                }
                if (i > 0) {
                        holds = holds && below(e[-1].start, block_tie(block, inner, i - 1), e->start,
                                               block_tie(block, inner, i));
                        holds = holds && (!block->rising || e[-1].last <= e->last);
                }
        }
        return holds;
}

/* Of a leaf at an entry of its parent. */
static bool leaf_holds(const IntervalBlock *parent, unsigned at) {
        const Entry *entry = &parent->entries[at];
        const IntervalBlock *leaf = entry->of;
        bool holds = block_holds(leaf, /* inner= */ false);
        uint64_t last = 0;

        for (unsigned i = 0; i < BLOCK; i++) {
                const Entry *e = &leaf->entries[i];

                if (i >= leaf->n)
                        continue;
                last = e->last > last ? e->last : last;
                holds = holds && !below(e->start, e->of, entry->start, block_ties(parent)[at]);
                if (at + 1 < parent->n)
                        holds = holds && below(e->start, e->of, entry[1].start, block_ties(parent)[at + 1]);
        }
        return holds && entry->last == last;
}

/* A trail leads to where ranges of its start are. */
static bool trail_holds(void) {
        const IntervalBlock *root = tree.root;
        const IntervalStep *step = &tree.trail[0];

        if (tree.trail_height == 0)
                return true;
        return tree.trail_height == 2 && tree.height == 2 && step->block == root && step->at < root->n &&
               (step->at == 0 || root->entries[step->at].start < tree.trail_start) &&
               (step->at + 1 == root->n || root->entries[step->at + 1].start > tree.trail_start);
}

/* ---- any tree ---- */

/* interval_resize() wants a tree without empty leaves. */
static bool may_be_empty = true;

static void fill_leaf(IntervalBlock *leaf) {
        unsigned n = nondet_u8();

        __CPROVER_assume(n <= BLOCK);
        __CPROVER_assume(n > 0 || may_be_empty);
        for (unsigned i = 0; i < BLOCK; i++) {
                Entry e = { .start = any_number(), .last = any_number(), .of = any_item() };

                if (i >= n)
                        continue;
                __CPROVER_assume(e.start <= e.last);
                leaf->entries[i] = e;
                set[n_set++] = e;
        }
        leaf->n = n;
        leaf->rising = nondet_bool();
        __CPROVER_assume(block_holds(leaf, /* inner= */ false));
}

static void make_tree(void) {
        IntervalBlock *root = block_new(/* inner= */ LEAVES_IN_TREE > 0);

        tree = (IntervalTree) { .root = root, .height = LEAVES_IN_TREE > 0 ? 2 : 1 };
        if (LEAVES_IN_TREE == 0) {
                fill_leaf(root);
                return;
        }

        root->n = LEAVES_IN_TREE;
        root->rising = nondet_bool();
        for (unsigned i = 0; i < LEAVES_IN_TREE; i++) {
                IntervalBlock *leaf = block_new(/* inner= */ false);

                fill_leaf(leaf);
                root->entries[i] = (Entry) { .start = any_number(), .last = any_number(), .of = leaf };
                block_ties(root)[i] = any_item();
        }
        __CPROVER_assume(block_holds(root, /* inner= */ true));
        for (unsigned i = 0; i < LEAVES_IN_TREE; i++)
                __CPROVER_assume(leaf_holds(root, i));

#ifdef TRAIL
        tree.trail_height = 2;
        tree.trail_start = any_number();
        tree.trail[0] = (IntervalStep) { root, nondet_u8() & 1 };
        __CPROVER_assume(trail_holds());
#endif
}

/* ---- what should be there afterwards ---- */

static bool is_expected(const Entry *e) {
        bool found = false;

        for (unsigned i = 0; i < ITEMS_MAX; i++)
                found = found ||
                        (i < n_set && set[i].start == e->start && set[i].last == e->last && set[i].of == e->of);
        return found;
}

/* As many as expected, each of them expected, and no two the same: these are the expected ones. */
static unsigned count_in_leaf(const IntervalBlock *leaf) {
        for (unsigned i = 0; i < BLOCK; i++)
                if (i < leaf->n)
                        assert(is_expected(&leaf->entries[i]));
        return leaf->n;
}

static unsigned count_in_parent(const IntervalBlock *parent) {
        unsigned n = 0;

        assert(block_holds(parent, /* inner= */ true));
        for (unsigned i = 0; i < BLOCK; i++)
                if (i < parent->n) {
                        assert(leaf_holds(parent, i));
                        n += count_in_leaf(parent->entries[i].of);
                }
        return n;
}

static unsigned count_in_grandparent(const IntervalBlock *block) {
        unsigned n = 0;

        assert(block_holds(block, /* inner= */ true));
        for (unsigned i = 0; i < BLOCK; i++)
                if (i < block->n) {
                        const IntervalBlock *parent = block->entries[i].of;

                        n += count_in_parent(parent);
                        assert(block->entries[i].last == block_last(parent));
                        assert(!below(parent->entries[0].start, block_ties(parent)[0], block->entries[i].start,
                                      block_ties(block)[i]));
                        if (i + 1 < block->n)
                                assert(below(parent->entries[parent->n - 1].start, block_ties(parent)[parent->n - 1],
                                             block->entries[i + 1].start, block_ties(block)[i + 1]));
                }
        return n;
}

static unsigned count(void) {
        switch (tree.height) {
        case 0:
                assert(!tree.root);
                return 0;
        case 1:
                assert(block_holds(tree.root, /* inner= */ false));
                return count_in_leaf(tree.root);
        case 2:
                return count_in_parent(tree.root);
        default:
                assert(tree.height == 3);
                return count_in_grandparent(tree.root);
        }
}

static bool overlaps(unsigned i, const Entry *range) {
        return i < n_set && set[i].start <= range->last && range->start <= set[i].last;
}

/* The first one behind an entry (NULL: of all) that overlaps, or NULL. */
static const Entry *look(const Entry *after, const Entry *range) {
        const Entry *best = NULL;

        for (unsigned i = 0; i < ITEMS_MAX; i++)
                if (overlaps(i, range) && (!after || below(after->start, after->of, set[i].start, set[i].of)) &&
                    (!best || below(set[i].start, set[i].of, best->start, best->of)))
                        best = &set[i];
        return best;
}

/* Any search begins at the first overlap; going on is the same from each. */
static void check_search(void) {
        Entry range = { .start = any_number(), .last = any_number() };
        const Entry *expected;
        IntervalCursor cursor;
        void *found;

        __CPROVER_assume(range.start <= range.last && range.last - range.start < UINT64_MAX);
        found = interval_first_overlap(&tree, range.start, range.last - range.start + 1, &cursor);
        expected = look(NULL, &range);
        for (unsigned i = 0; i < FOUND; i++) {
                assert(found == (expected ? expected->of : NULL));
                if (!expected)
                        return;
                assert(cursor.found_start == expected->start && cursor.found_last == expected->last);
                found = interval_next_overlap(&cursor);
                expected = look(expected, &range);
        }
}

/* ---- steps ---- */

static void insert(void) {
        Entry e = { .start = any_number(), .last = any_number(), .of = any_item() };

        __CPROVER_assume(e.start <= e.last && e.last - e.start < UINT64_MAX);
        for (unsigned i = 0; i < ITEMS_MAX; i++)
                __CPROVER_assume(i >= n_set || set[i].of != e.of);
        assert(interval_insert(&tree, e.of, e.start, e.last - e.start + 1) == 0);
        set[n_set++] = e;
}

static unsigned pick(void) {
        unsigned i = nondet_u8();

        __CPROVER_assume(i < n_set);
        return i;
}

static void take_out(void (*how)(IntervalTree *, void *, uint64_t)) {
        unsigned i = pick();

        how(&tree, set[i].of, set[i].start);
        set[i] = set[--n_set];
}

static void withdraw(IntervalTree *t, void *item, uint64_t start) {
        if (interval_withdraw(t, item, start) && nondet_bool())
                interval_tidy(t, item, start);
}

static void resize(void) {
        unsigned i = pick();
        Entry *e = &set[i], new = { .start = any_number(), .last = any_number(), .of = e->of };

        __CPROVER_assume(new.start <= new.last &&new.last - new.start < UINT64_MAX);
        for (unsigned k = 0; k < ITEMS_MAX; k++)
                if (k < n_set && k != i) {
                        bool comes_after = below(e->start, e->of, set[k].start, set[k].of);

                        __CPROVER_assume(comes_after ? below(new.start, new.of, set[k].start, set[k].of) :
                                                       below(set[k].start, set[k].of, new.start, new.of));
                }
        interval_resize(&tree, e->of, e->start, new.start, new.last - new.start + 1);
        *e = new;
}

static void check_tree(void) {
        assert(count() == n_set);
        assert(trail_holds());
}

void prove_insert(void) {
        make_tree();
        insert();
        check_tree();
        reach(tree.height == (LEAVES_IN_TREE > 0 ? 3 : 2));
        reach(tree.height == (LEAVES_IN_TREE > 0 ? 2 : 1));
}

void prove_remove(void) {
        make_tree();
        take_out(interval_remove);
        check_tree();
        reach(tree.height == 2);
        reach(tree.height == 1);
}

void prove_withdraw(void) {
        make_tree();
        take_out(withdraw);
        check_tree();
        reach(tree.height == 2 && ((IntervalBlock *) tree.root->entries[0].of)->n == 0);
        reach(tree.height == 1);
}

void prove_resize(void) {
        may_be_empty = false;
        make_tree();
        resize();
        check_tree();
        reach(tree.height == 2);
}

void prove_search(void) {
        make_tree();
        check_search();
        reach(true);
}

void prove_approach(void) {
        make_tree();
        interval_approach(&tree, any_number());
        check_tree();
        reach(tree.trail_height == 2);
}
