/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The interval tree against a list that is searched from end to end, with blocks so small that a few ranges make it
 * high. PRIVMEMD_SEED repeats a run. */

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

static bool no_memory;

static void *calloc_if_any(size_t n, size_t size) {
        return no_memory ? NULL : calloc(n, size);
}

/* What is looked at inside is private to it. */
#ifndef INTERVAL_BLOCK_ENTRIES
#define INTERVAL_BLOCK_ENTRIES 4
#define INTERVAL_LEAF_ENTRIES  4
#endif
#define calloc calloc_if_any
#include "core/interval.c"
#undef calloc

enum {
        ITEMS = 48,
        ROUNDS = 30000,
        BATCH_MAX = 12,
};

typedef struct Item {
        uint64_t start, size;
        bool in_tree;
} Item;

static Item items[ITEMS];
static IntervalTree tree;
static uint64_t random_state;

static uint64_t next_random(void) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state >> 8;
}

/* Short lists, so that starts are equal and ranges touch; at both ends of the numbers too. */
static void random_range(uint64_t *ret_start, uint64_t *ret_size) {
        uint64_t start = next_random() % 64, size = 1 + next_random() % 12;

        switch (next_random() % 16) {
        case 0:
                start = UINT64_MAX - start;
                size = 1 + next_random() % (UINT64_MAX - start + 1 > 0 ? UINT64_MAX - start + 1 : 1);
                break;
        case 1:
                size = UINT64_MAX - start;
                break;
        case 2:
                size = 64;
                break;
        case 3 ... 6:
                start = tree.trail_start <= UINT64_MAX - size ? tree.trail_start : start;
                break;
        }
        *ret_start = start;
        *ret_size = size;
}

static bool comes_before(const Item *a, const Item *b) {
        return a->start != b->start ? a->start < b->start : a < b;
}

static bool shares_byte(const Item *item, uint64_t start, uint64_t size) {
        return item->start <= start + (size - 1) && start <= item->start + (item->size - 1);
}

/* The first item of the list behind after (NULL: of all) that shares a byte with the range (size 0: any). */
static Item *list_next(const Item *after, uint64_t start, uint64_t size) {
        Item *best = NULL;

        for (Item *item = items; item < items + ITEMS; item++)
                if (item->in_tree && (!after || comes_before(after, item)) && (!best || comes_before(item, best)) &&
                    (size == 0 || shares_byte(item, start, size)))
                        best = item;
        return best;
}

static const char *check_walk(uint64_t start, uint64_t size) {
        IntervalCursor cursor;
        void *found = interval_first_overlap(&tree, start, size, &cursor);

        for (Item *item = list_next(NULL, start, size); item; item = list_next(item, start, size)) {
                if (found != item)
                        return "interval_first_overlap() and interval_next_overlap()";
                found = interval_next_overlap(&cursor);
        }

        return found ? "interval_next_overlap() at the end" : NULL;
}

static bool any_share_a_byte(void) {
        for (Item *a = items; a < items + ITEMS; a++)
                for (Item *b = items; b < a; b++)
                        if (a->in_tree && b->in_tree && shares_byte(a, b->start, b->size))
                                return true;
        return false;
}

static bool key_below(const IntervalBlock *block, bool inner, unsigned a, unsigned b) {
        const Entry *x = &block->entries[a], *y = &block->entries[b];

        return x->start != y->start ? x->start < y->start :
                                      (uintptr_t) block_tie(block, inner, a) < (uintptr_t) block_tie(block, inner, b);
}

/* What the searches rely on. */
static const char *check_block(const IntervalBlock *block, unsigned height, bool tidy) {
        for (unsigned i = 0; i < block->n; i++) {
                const IntervalBlock *child = block->entries[i].of;
                const char *wrong;

                if (i > 0 && !key_below(block, height > 1, i - 1, i))
                        return "the order of keys";
                if (i > 0 && block->rising && block->entries[i - 1].last > block->entries[i].last)
                        return "the order of last bytes";
                if (height == 1)
                        continue;
                wrong = check_block(child, height - 1, tidy);
                if (wrong)
                        return wrong;
                if (block->entries[i].last != block_last(child))
                        return "the greatest last byte";
        }

        return tidy && block->n == 0 ? "an empty block" : NULL;
}

/* The trail is where one would go now. */
static const char *check_trail(void) {
        IntervalTree now = tree;

        interval_approach(&now, tree.trail_start);
        if (tree.trail_height == 0 || now.trail_height == 0)
                return NULL;
        for (unsigned level = 0; level + 1 < now.trail_height; level++)
                if (now.trail[level].block != tree.trail[level].block || now.trail[level].at != tree.trail[level].at)
                        return "the trail";
        return now.trail_height != tree.trail_height ? "the height of the trail" : NULL;
}

static const char *check_all(bool tidy) {
        uint64_t start, size;
        const char *wrong = NULL;

        if (tree.root)
                wrong = check_block(tree.root, tree.height, tidy);
        if (!wrong)
                wrong = check_trail();
        if (!wrong)
                wrong = check_walk(0, UINT64_MAX);
        if (!wrong && interval_has_overlap(&tree) != any_share_a_byte())
                wrong = "interval_has_overlap()";
        random_range(&start, &size);
        return wrong ? wrong : check_walk(start, size);
}

static bool toggle(Item *item, bool withdraw) {
        uint64_t start, size;

        random_range(&start, &size);
        if (next_random() % 3 == 0)
                interval_approach(&tree, next_random() % 2 == 0 ? item->start : start);
        if (!item->in_tree) {
                if (interval_insert(&tree, item, item->start, item->size) < 0)
                        return false;
        } else if (withdraw)
                interval_withdraw(&tree, item, item->start);
        else
                interval_remove(&tree, item, item->start);
        item->in_tree = !item->in_tree;
        return true;
}

static const char *run_round(void) {
        Item *item = &items[next_random() % ITEMS];

        if (!item->in_tree)
                random_range(&item->start, &item->size);
        if (!toggle(item, /* withdraw= */ false))
                return "memory";
        return check_all(/* tidy= */ true);
}

static bool comes_between(const Item *item, uint64_t start) {
        for (const Item *other = items; other < items + ITEMS; other++) {
                bool is_after = other->start != start ? other->start > start : other > item;

                if (other->in_tree && other != item && comes_before(item, other) != is_after)
                        return false;
        }
        return true;
}

static const char *run_resize(void) {
        Item *item = &items[next_random() % ITEMS];
        uint64_t start, size;

        random_range(&start, &size);
        if (!item->in_tree || !comes_between(item, start))
                return NULL;
        interval_resize(&tree, item, item->start, start, size);
        item->start = start;
        item->size = size;
        return check_all(/* tidy= */ true);
}

/* Some changes, undone in reverse order while no memory can be had. */
static const char *run_batch(void) {
        Item *changed[BATCH_MAX];
        size_t n = next_random() % BATCH_MAX;
        const char *wrong;
        bool undone = true;

        for (size_t i = 0; i < n; i++) {
                changed[i] = &items[next_random() % ITEMS];
                if (!toggle(changed[i], /* withdraw= */ true))
                        return "memory";
        }
        wrong = check_all(/* tidy= */ false);

        no_memory = true;
        for (size_t i = n; i-- > 0;)
                undone = toggle(changed[i], /* withdraw= */ true) && undone;
        no_memory = false;
        if (!undone)
                return "undoing needs memory";

        for (size_t i = 0; i < n; i++)
                interval_tidy(&tree, changed[i], changed[i]->start);
        return wrong ? wrong : check_all(/* tidy= */ true);
}

/* In rising order, in falling order, and mixed; removed in another order. */
static const char *check_height(void) {
        enum {
                MANY = 1 << 15,
                HEIGHT_MAX = 15, /* half full at least */
        };
        static char many[MANY];
        IntervalTree large = {};

        for (unsigned odd = 0; odd < 6; odd++) {
                uint64_t factor = odd < 2 ? 1 : UINT64_C(0x9e3779b1) + 2 * odd, flip = odd % 2 ? MANY - 1 : 0;

                for (uint64_t i = 0; i < MANY; i++) {
                        uint64_t at = (i * factor ^ flip) % MANY;

                        if (interval_insert(&large, &many[at], at, 1) < 0)
                                return "memory";
                }
                if (large.height > HEIGHT_MAX)
                        return "the height";
                for (uint64_t i = 0; i < MANY; i++) {
                        uint64_t at = (i * (factor + 6) ^ flip) % MANY;

                        interval_remove(&large, &many[at], at);
                }
                if (large.root)
                        return "the last removal";
        }

        return NULL;
}

int main(void) {
        const char *text = getenv("PRIVMEMD_SEED"), *wrong = NULL, *too_high;
        uint64_t seed = 1;

        if (text)
                seed = strtoull(text, NULL, 0);
        else if (getrandom(&seed, sizeof(uint32_t), 0) < 0)
                seed = 1;
        random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;

        for (Item *item = items; item < items + ITEMS; item++)
                random_range(&item->start, &item->size);

        printf("1..2\n");
        for (unsigned round = 0; round < ROUNDS && !wrong; round++)
                wrong = round % 8 == 0 ? run_batch() : round % 3 == 0 ? run_resize() : run_round();
        if (wrong)
                printf("# PRIVMEMD_SEED=%" PRIu64 " repeats it: %s\n", seed, wrong);
        printf("%s 1 - the tree and the list agree\n", wrong ? "not ok" : "ok");

        too_high = check_height();
        if (too_high)
                printf("# wrong: %s\n", too_high);
        printf("%s 2 - the tree stays flat\n", too_high ? "not ok" : "ok");
        return wrong || too_high ? EXIT_FAILURE : EXIT_SUCCESS;
}
