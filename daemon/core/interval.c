/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Why no binary tree: with 30,000 slots a search in one waits for memory at each of twenty nodes. Here it looks into
 * three or four blocks, whose entries lie side by side. A large tree is slow where the leaf is in no cache: hence small
 * leaves, and interval_approach(), so that one waits for the leaves of several trees at once and goes down to each but
 * once.
 *
 * What always holds: the entries of a block are in order of their keys. An inner entry's key is not above any key
 * below it, and above all keys below the entry before. Its last is the greatest one below it. All leaves are equally
 * deep. What a block has no entry for is filled up with the greatest numbers, so that nobody has to ask how many there
 * are: no branch of a search depends on what the entries are, for no processor could foresee it.
 *
 * A block may have few entries, or none after interval_withdraw(), which is what makes undoing certain: a block that
 * was full and gave up an entry has room for it until somebody else takes it, and who does is undone before. */

#include "core/interval.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifndef INTERVAL_BLOCK_ENTRIES
#define INTERVAL_BLOCK_ENTRIES 64
#endif
#ifndef INTERVAL_LEAF_ENTRIES
#define INTERVAL_LEAF_ENTRIES (INTERVAL_BLOCK_ENTRIES / 2)
#endif

#define ENTRIES(inner) ((inner) ? INTERVAL_BLOCK_ENTRIES : INTERVAL_LEAF_ENTRIES)

/* Blocks with fewer entries look for a neighbour to merge with, but not so that the next insertion splits them. */
#define FEW(inner)     (ENTRIES(inner) / 4)
#define NOT_FEW(inner) (ENTRIES(inner) * 3 / 4)

/* A block is searched in two steps: which group, and which of the group. */
#define GROUP (INTERVAL_LEAF_ENTRIES < 8 ? INTERVAL_LEAF_ENTRIES : 8)

#define CACHE_LINE 64

_Static_assert(INTERVAL_LEAF_ENTRIES >= 2 && INTERVAL_BLOCK_ENTRIES >= 2, "a split leaves an entry on each side");
_Static_assert(INTERVAL_LEAF_ENTRIES % GROUP == 0 && INTERVAL_BLOCK_ENTRIES % GROUP == 0, "groups are whole");

typedef struct Entry {
        uint64_t start;
        uint64_t last; /* inclusive: start + size - 1 cannot wrap */
        void *of;      /* the item, or the block below */
} Entry;

struct IntervalBlock {
        unsigned n;
        bool rising;     /* no entry's last is below that of the one before, so it can be searched for by halves */
        Entry entries[]; /* ENTRIES(inner) */
};

/* ---- one block ---- */

static const Entry BLANK = { .start = UINT64_MAX, .last = UINT64_MAX };

static IntervalBlock *block_new(bool inner) {
        IntervalBlock *block;

        block = calloc(1, sizeof(IntervalBlock) + ENTRIES(inner) * (sizeof(Entry) + (inner ? sizeof(void *) : 0)));
        if (!block)
                return NULL;

        block->rising = true;
        for (unsigned i = 0; i < ENTRIES(inner); i++)
                block->entries[i] = BLANK;
        return block;
}

/* Of inner blocks, behind the entries: the items of the keys, for ranges of equal start. */
static const void **block_ties(const IntervalBlock *block) {
        return (const void **) &block->entries[INTERVAL_BLOCK_ENTRIES];
}

#ifndef INTERVAL_OWN_COPY
static void copy_entries(IntervalBlock *to, unsigned to_at, const IntervalBlock *from, unsigned from_at, unsigned n) {
        memmove(&to->entries[to_at], &from->entries[from_at], n * sizeof(Entry));
}

static void copy_ties(IntervalBlock *to, unsigned to_at, const IntervalBlock *from, unsigned from_at, unsigned n) {
        memmove(&block_ties(to)[to_at], &block_ties(from)[from_at], n * sizeof(void *));
}
#endif

static const void *block_tie(const IntervalBlock *block, bool inner, unsigned at) {
        return inner ? block_ties(block)[at] : block->entries[at].of;
}

/* 0 if it is empty. */
static uint64_t block_last(const IntervalBlock *block) {
        uint64_t last = 0;

        if (block->n > 0 && block->rising)
                return block->entries[block->n - 1].last;
        for (unsigned i = 0; i < block->n; i++)
                if (block->entries[i].last > last)
                        last = block->entries[i].last;
        return last;
}

static void block_look(IntervalBlock *block) {
        block->rising = true;
        for (unsigned i = 1; i < block->n && block->rising; i++)
                block->rising = block->entries[i - 1].last <= block->entries[i].last;
}

/* After the last of an entry has changed. */
static void block_look_at(IntervalBlock *block, unsigned at) {
        if (!block->rising)
                block_look(block);
        else if (at > 0 && block->entries[at - 1].last > block->entries[at].last)
                block->rising = false;
        else
                block->rising = at + 1 == block->n || block->entries[at].last <= block->entries[at + 1].last;
}

static void block_put(IntervalBlock *block, bool inner, unsigned at, const Entry *entry, const void *tie) {
        unsigned n = block->n - at;

        copy_entries(block, at + 1, block, at, n);
        block->entries[at] = *entry;
        if (inner) {
                copy_ties(block, at + 1, block, at, n);
                block_ties(block)[at] = tie;
        }
        block->n++;
        if (block->rising)
                block_look_at(block, at);
}

static void block_erase(IntervalBlock *block, bool inner, unsigned at) {
        unsigned n = --block->n - at;

        copy_entries(block, at, block, at + 1, n);
        block->entries[block->n] = BLANK;
        if (inner)
                copy_ties(block, at, block, at + 1, n);
        if (!block->rising)
                block_look(block);
}

/* Appends what is in right from an entry on to left. */
static void block_move(IntervalBlock *left, IntervalBlock *right, bool inner, unsigned from) {
        unsigned n = right->n - from;

        copy_entries(left, left->n, right, from, n);
        if (inner)
                copy_ties(left, left->n, right, from, n);
        left->n += n;
        while (right->n > from)
                right->entries[--right->n] = BLANK;
        block_look(left);
        block_look(right);
}

/* ---- finding a place ---- */

/* How many entries have a start, or a last, below the number, if those are in order. */
static unsigned count_starts_below(const IntervalBlock *block, bool inner, uint64_t start) {
        unsigned first = 0, n = 0;

        for (unsigned i = GROUP; i < ENTRIES(inner); i += GROUP)
                first += block->entries[i - 1].start < start ? GROUP : 0;
        for (unsigned i = 0; i < GROUP; i++)
                n += block->entries[first + i].start < start;
        return first + n;
}

static unsigned count_lasts_below(const IntervalBlock *block, bool inner, uint64_t last) {
        unsigned first = 0, n = 0;

        for (unsigned i = GROUP; i < ENTRIES(inner); i += GROUP)
                first += block->entries[i - 1].last < last ? GROUP : 0;
        for (unsigned i = 0; i < GROUP; i++)
                n += block->entries[first + i].last < last;
        return first + n;
}

/* The first entry of the block whose key is above (start, item). */
static unsigned block_find(const IntervalBlock *block, bool inner, uint64_t start, const void *item) {
        unsigned at = count_starts_below(block, inner, start);

        while (at < block->n && block->entries[at].start == start &&
               (uintptr_t) block_tie(block, inner, at) <= (uintptr_t) item)
                at++;
        return at;
}

/* The first entry, from one on, whose last is not below. */
static unsigned block_reach(const IntervalBlock *block, bool inner, unsigned at, uint64_t last) {
        unsigned below;

        /* Going on, it is mostly the next one. */
        if (at > 0 && at < block->n && block->entries[at].last >= last)
                return at;
        if (block->rising) {
                below = count_lasts_below(block, inner, last);
                return below > at ? below : at;
        }

        while (at < block->n && block->entries[at].last < last)
                at++;
        return at;
}

/* The trail is good until an inner block changes, but for its lasts and for a first key that becomes smaller. */
static void forget_trail(IntervalTree *tree) {
        tree->trail_height = 0;
}

static bool has_trail(const IntervalTree *tree, uint64_t start) {
        return tree->trail_height > 0 && tree->trail_start == start;
}

/* Sets the cursor to the leaf at the end of the trail, and returns that. */
static IntervalBlock *follow_trail(const IntervalTree *tree, unsigned beyond, IntervalCursor *ret) {
        const IntervalStep *step = tree->trail;

        for (ret->level = 0; ret->level + 1 < tree->trail_height; ret->level++, step++)
                ret->path[ret->level] = (IntervalStep) { step->block, step->at + beyond };
        return step[-1].block->entries[step[-1].at].of;
}

void interval_approach(IntervalTree *tree, uint64_t start) {
        const IntervalBlock *block = tree->root;

        forget_trail(tree);
        if (tree->height < 2 || tree->height > INTERVAL_TRAIL_MAX + 1)
                return;
        for (unsigned level = 0; level + 1 < tree->height; level++) {
                unsigned at = count_starts_below(block, /* inner= */ true, start);

                /* Which way it goes on depends on the item. */
                if (at < block->n && block->entries[at].start == start)
                        return;
                at -= at > 0;
                tree->trail[level] = (IntervalStep) { (IntervalBlock *) block, at };
                block = block->entries[at].of;
        }
        /* Up to the last entry that a search of groups looks at; the rest is hardly ever in use. */
        for (size_t at = 0; at < sizeof(*block) + (INTERVAL_LEAF_ENTRIES - GROUP) * sizeof(Entry); at += CACHE_LINE)
                __builtin_prefetch((const char *) block + at);
        tree->trail_start = start;
        tree->trail_height = tree->height;
}

/* Goes down to where the item is, or would come behind: path[].at is the entry above (start, item) in the leaf, and
 * the entry that leads there in the blocks above. */
static void descend(const IntervalTree *tree, uint64_t start, const void *item, IntervalCursor *ret) {
        IntervalBlock *block = tree->root;

        ret->height = tree->height;
        ret->level = 0;
        if (has_trail(tree, start))
                block = follow_trail(tree, /* beyond= */ 0, ret);
        for (; ret->level + 1 < tree->height; ret->level++) {
                unsigned at = block_find(block, /* inner= */ true, start, item);

                at -= at > 0; /* below the first key: goes there too */
                ret->path[ret->level].block = block;
                ret->path[ret->level].at = at;
                block = block->entries[at].of;
        }
        ret->path[ret->level].block = block;
        ret->path[ret->level].at = block_find(block, /* inner= */ false, start, item);
}

/* ---- inserting ---- */

/* As many blocks as splitting all full ones from the leaf upwards takes, and one for a new root. */
static int reserve(const IntervalCursor *c, IntervalBlock **spares, unsigned *ret_n) {
        unsigned n = 0, level = c->height;

        while (level > 0 && c->path[level - 1].block->n == ENTRIES(level < c->height)) {
                level--;
                spares[n] = block_new(/* inner= */ level + 1 < c->height);
                if (!spares[n])
                        goto fail;
                n++;
        }
        if (level == 0) {
                spares[n] = block_new(/* inner= */ true);
                if (!spares[n])
                        goto fail;
                n++;
        }

        *ret_n = n;
        return 0;

fail:
        while (n > 0)
                free(spares[--n]);
        return -ENOMEM;
}

static Entry entry_of_block(IntervalBlock *block) {
        return (Entry) { .start = block->entries[0].start, .last = block_last(block), .of = block };
}

/* Puts the entry into a full block, of which the right part goes over to another one. Who inserts in rising order
 * leaves full blocks behind. */
static void split(IntervalBlock *block, IntervalBlock *right, bool inner, unsigned at, const Entry *entry,
                  const void *tie) {
        unsigned keep = at == ENTRIES(inner) ? at : ENTRIES(inner) / 2;

        block_move(right, block, inner, keep);
        if (at <= keep && keep < ENTRIES(inner))
                block_put(block, inner, at, entry, tie);
        else
                block_put(right, inner, at - keep, entry, tie);
}

static void grow(IntervalTree *tree, IntervalBlock *root, const Entry *right, const void *tie, bool inner) {
        Entry left = entry_of_block(tree->root);

        assert(tree->height < INTERVAL_HEIGHT_MAX);
        block_put(root, /* inner= */ true, 0, &left, block_tie(tree->root, inner, 0));
        block_put(root, /* inner= */ true, 1, right, tie);
        tree->root = root;
        tree->height++;
}

static void set_last(const IntervalCursor *c, unsigned level, uint64_t last) {
        IntervalBlock *block = c->path[level].block;
        unsigned at = c->path[level].at;

        block->entries[at].last = last;
        block_look_at(block, at);
}

static void set_key(IntervalBlock *block, unsigned at, uint64_t start, const void *item) {
        block->entries[at].start = start;
        block_ties(block)[at] = item;
}

/* The key of a first entry follows what comes below it; those of others cannot be undercut. */
static void lower_keys(const IntervalCursor *c, uint64_t start, const void *item) {
        for (unsigned level = 0; level < c->level; level++) {
                IntervalBlock *block = c->path[level].block;
                const Entry *first = &block->entries[0];

                if (c->path[level].at > 0 || start > first->start ||
                    (start == first->start && (uintptr_t) item >= (uintptr_t) block_ties(block)[0]))
                        continue;
                set_key(block, 0, start, item);
        }
}

static void put(IntervalTree *tree, const IntervalCursor *c, Entry entry, IntervalBlock **spares) {
        uint64_t last = entry.last;
        unsigned level = c->height - 1, at = c->path[level].at;
        const void *tie = NULL;

        for (;;) {
                IntervalBlock *block = c->path[level].block, *right;
                bool inner = level + 1 < c->height;

                if (block->n < ENTRIES(inner)) {
                        block_put(block, inner, at, &entry, tie);
                        break;
                }
                right = *spares++;
                split(block, right, inner, at, &entry, tie);
                entry = entry_of_block(right);
                tie = block_tie(right, inner, 0);
                if (level == 0) {
                        grow(tree, *spares, &entry, tie, inner);
                        return;
                }
                level--;
                set_last(c, level, block_last(block));
                at = c->path[level].at + 1;
        }

        for (; level > 0; level--)
                if (c->path[level - 1].block->entries[c->path[level - 1].at].last < last)
                        set_last(c, level - 1, last);
}

static uint64_t last_of(uint64_t start, uint64_t size) {
        assert(size > 0 && start <= UINT64_MAX - (size - 1));
        return start + (size - 1);
}

/* Who inserts in rising order comes to the end of the last leaf. Sets the cursor there if the start belongs behind all
 * others, and there is room. */
static bool find_end(const IntervalTree *tree, uint64_t start, IntervalCursor *ret) {
        IntervalBlock *block = tree->root;
        unsigned level;

        for (level = 0; level + 1 < tree->height; level++) {
                unsigned at = block->n - 1;

                if (block->entries[at].start >= start)
                        return false;
                ret->path[level] = (IntervalStep) { block, at };
                block = block->entries[at].of;
        }
        if (block->n == 0 || block->n == ENTRIES(/* inner= */ false) || block->entries[block->n - 1].start >= start)
                return false;
        ret->path[level] = (IntervalStep) { block, block->n };
        ret->height = tree->height;
        ret->level = level;
        return true;
}

/* Where find_end() has found room. */
static void append(const IntervalCursor *c, const Entry *entry) {
        IntervalBlock *leaf = c->path[c->level].block;

        leaf->rising = leaf->rising && leaf->entries[leaf->n - 1].last <= entry->last;
        leaf->entries[leaf->n++] = *entry;
        for (unsigned level = c->level; level > 0; level--)
                if (c->path[level - 1].block->entries[c->path[level - 1].at].last < entry->last)
                        set_last(c, level - 1, entry->last);
}

int interval_insert(IntervalTree *tree, void *item, uint64_t start, uint64_t size) {
        IntervalBlock *spares[INTERVAL_HEIGHT_MAX + 1];
        Entry entry = { .start = start, .last = last_of(start, size), .of = item };
        IntervalCursor c;
        unsigned n_spares;

        if (tree->height == 0) {
                tree->root = block_new(/* inner= */ false);
                if (!tree->root)
                        return -ENOMEM;
                tree->height = 1;
        }

        if (find_end(tree, start, &c)) {
                append(&c, &entry);
                return 0;
        }
        descend(tree, start, item, &c);
        if (reserve(&c, spares, &n_spares) < 0)
                return -ENOMEM;

        if (n_spares > 0)
                forget_trail(tree);
        lower_keys(&c, start, item);
        put(tree, &c, entry, spares);
        return 0;
}

/* ---- removing ---- */

/* Goes down to the entry of the item, which must be there. */
static IntervalBlock *descend_to(const IntervalTree *tree, uint64_t start, const void *item, IntervalCursor *ret,
                                 unsigned *ret_at) {
        IntervalBlock *leaf;
        unsigned at;

        descend(tree, start, item, ret);
        leaf = ret->path[ret->level].block;
        assert(ret->path[ret->level].at > 0);
        at = ret->path[ret->level].at - 1;
        assert(leaf->entries[at].of == item && leaf->entries[at].start == start);
        ret->path[ret->level].at = at;
        *ret_at = at;
        return leaf;
}

/* After something in the leaf has got another last. */
static void update_lasts(const IntervalCursor *c, uint64_t old) {
        for (unsigned level = c->level; level > 0; level--) {
                uint64_t above = c->path[level - 1].block->entries[c->path[level - 1].at].last;
                uint64_t last = block_last(c->path[level].block);

                if (above != old && above >= last)
                        break;
                set_last(c, level - 1, last);
        }
}

static void erase(IntervalTree *tree, void *item, uint64_t start, IntervalCursor *c) {
        unsigned at;
        IntervalBlock *leaf = descend_to(tree, start, item, c, &at);
        uint64_t last = leaf->entries[at].last;

        block_erase(leaf, /* inner= */ false, at);
        update_lasts(c, last);
}

/* Merges the block at an entry of its parent with a neighbour, if both have few entries. */
static void merge(IntervalBlock *parent, unsigned at, bool inner) {
        unsigned left_at = at > 0 ? at - 1 : 0;
        IntervalBlock *left, *right;

        if (parent->n < 2)
                return;
        left = parent->entries[left_at].of;
        right = parent->entries[left_at + 1].of;
        if (left->n + right->n > NOT_FEW(inner))
                return;

        block_move(left, right, inner, 0);
        parent->entries[left_at].last = block_last(left);
        block_erase(parent, /* inner= */ true, left_at + 1);
        block_look_at(parent, left_at);
        free(right);
}

static void tidy(IntervalTree *tree, const IntervalCursor *c) {
        for (unsigned level = c->level; level > 0; level--) {
                IntervalBlock *block = c->path[level].block, *parent = c->path[level - 1].block;

                if (block->n > FEW(level + 1 < c->height))
                        return;
                forget_trail(tree);
                if (block->n == 0) {
                        block_erase(parent, /* inner= */ true, c->path[level - 1].at);
                        free(block);
                } else
                        merge(parent, c->path[level - 1].at, /* inner= */ level + 1 < c->height);
        }

        while (tree->height > 1 && tree->root->n == 1) {
                IntervalBlock *root = tree->root;

                tree->root = root->entries[0].of;
                tree->height--;
                free(root);
        }
        if (tree->root->n == 0) {
                free(tree->root);
                *tree = (IntervalTree) {};
        }
}

void interval_remove(IntervalTree *tree, void *item, uint64_t start) {
        IntervalCursor c;

        erase(tree, item, start, &c);
        tidy(tree, &c);
}

/* The first key of a leaf has changed: the keys above that lead there first follow it. */
static void follow_first(const IntervalCursor *c, uint64_t start, const void *item) {
        for (unsigned level = c->level; level > 0 && c->path[level].at == 0; level--)
                set_key(c->path[level - 1].block, c->path[level - 1].at, start, item);
}

/* The last key of a leaf has grown, maybe beyond the keys that lead to the next leaf, for what once was below them may
 * be gone. They become that leaf's first key. */
static void make_way(const IntervalCursor *c) {
        IntervalBlock *block, *leaf;
        unsigned level = c->level, at;

        while (level > 0 && c->path[level - 1].at + 1 == c->path[level - 1].block->n)
                level--;
        if (level == 0)
                return;

        block = c->path[level - 1].block;
        at = c->path[level - 1].at + 1;
        leaf = block->entries[at].of;
        for (unsigned i = level; i < c->level; i++)
                leaf = leaf->entries[0].of;
        for (unsigned i = level; i <= c->level; i++, at = 0) {
                set_key(block, at, leaf->entries[0].start, leaf->entries[0].of);
                block = block->entries[at].of;
        }
}

void interval_resize(IntervalTree *tree, const void *item, uint64_t start, uint64_t new_start, uint64_t size) {
        IntervalCursor c;
        unsigned at;
        IntervalBlock *leaf = descend_to(tree, start, item, &c, &at);
        uint64_t last = leaf->entries[at].last;

        forget_trail(tree);
        leaf->entries[at].start = new_start;
        set_last(&c, c.level, last_of(new_start, size));
        update_lasts(&c, last);
        if (at == 0)
                follow_first(&c, new_start, item);
        if (at + 1 == leaf->n)
                make_way(&c);
}

bool interval_withdraw(IntervalTree *tree, void *item, uint64_t start) {
        IntervalCursor c;

        erase(tree, item, start, &c);
        return c.path[c.level].block->n <= FEW(/* inner= */ false);
}

void interval_tidy(IntervalTree *tree, const void *item, uint64_t start) {
        IntervalCursor c;

        if (tree->height == 0)
                return;
        descend(tree, start, item, &c);
        tidy(tree, &c);
}

/* ---- searching ---- */

/* From where the cursor stands, the next item that overlaps. The first entry whose last reaches the range decides:
 * if it starts behind the range, so do all that follow. */
static void *advance(IntervalCursor *c) {
        for (;;) {
                IntervalBlock *block = c->path[c->level].block;
                unsigned at = c->path[c->level].at;
                bool inner = c->level + 1 < c->height;

                at = block_reach(block, inner, at, c->start);
                c->path[c->level].at = at + 1;
                if (at >= block->n) {
                        if (c->level == 0)
                                return NULL;
                        c->level--;
                } else if (inner) {
                        c->level++;
                        c->path[c->level].block = block->entries[at].of;
                        c->path[c->level].at = 0;
                } else {
                        c->found_start = block->entries[at].start;
                        c->found_last = block->entries[at].last;
                        return c->found_start <= c->last ? block->entries[at].of : NULL;
                }
        }
}

/* Whether nothing before the trail's end reaches its start. */
static bool trail_leads_to_first(const IntervalTree *tree) {
        for (unsigned level = 0; level + 1 < tree->trail_height; level++) {
                const IntervalBlock *block = tree->trail[level].block;
                unsigned at = tree->trail[level].at;

                if (at > 0 && (!block->rising || block->entries[at - 1].last >= tree->trail_start))
                        return false;
        }
        return true;
}

void *interval_first_overlap(const IntervalTree *tree, uint64_t start, uint64_t size, IntervalCursor *ret_cursor) {
        IntervalCursor *c = ret_cursor;

        c->start = start;
        c->last = last_of(start, size);
        c->height = tree->height;
        c->level = 0;
        c->path[0] = (IntervalStep) { tree->root, 0 };
        if (has_trail(tree, start) && trail_leads_to_first(tree)) {
                IntervalBlock *leaf = follow_trail(tree, /* beyond= */ 1, c);

                c->path[c->level] = (IntervalStep) { leaf, 0 };
        }
        return tree->height > 0 ? advance(c) : NULL;
}

void *interval_next_overlap(IntervalCursor *cursor) {
        return advance(cursor);
}

/* In order of start, a range overlaps one before it if it begins before those have ended. */
static bool has_overlap(const IntervalBlock *block, unsigned height, const Entry **before) {
        for (unsigned i = 0; i < block->n; i++) {
                const Entry *entry = &block->entries[i];

                if (height > 1 && has_overlap(entry->of, height - 1, before))
                        return true;
                if (height > 1)
                        continue;
                if (*before && entry->start <= (*before)->last)
                        return true;
                *before = entry;
        }
        return false;
}

bool interval_has_overlap(const IntervalTree *tree) {
        const Entry *before = NULL;

        return tree->height > 0 && has_overlap(tree->root, tree->height, &before);
}
