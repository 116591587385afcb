/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The interval tree against a list that is searched from end to end. PRIVMEMD_SEED repeats a run. */

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "core/interval.h"

enum {
        NODES = 48,
        ROUNDS = 30000,
};

typedef struct Item {
        IntervalNode node;
        uint64_t start, size;
        bool in_tree;
} Item;

static Item items[NODES];
static IntervalTree tree;
static uint64_t state;

static uint64_t next_random(void) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state >> 8;
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

        for (Item *item = items; item < items + NODES; item++)
                if (item->in_tree && (!after || comes_before(after, item)) && (!best || comes_before(item, best)) &&
                    (size == 0 || shares_byte(item, start, size)))
                        best = item;
        return best;
}

static Item *list_lower_bound(uint64_t start) {
        Item *best = NULL;

        for (Item *item = items; item < items + NODES; item++)
                if (item->in_tree && item->start >= start && (!best || comes_before(item, best)))
                        best = item;
        return best;
}

static const char *check_walks(void) {
        IntervalNode *node = interval_first(&tree);
        Item *item = list_next(NULL, 0, 0);
        uint64_t start, size;

        for (; item; item = list_next(item, 0, 0), node = interval_next(node))
                if (node != &item->node)
                        return "interval_first() and interval_next()";
        if (node)
                return "interval_next() at the end";

        random_range(&start, &size);
        node = interval_first_overlap(&tree, start, size);
        for (item = list_next(NULL, start, size); item; item = list_next(item, start, size)) {
                if (node != &item->node)
                        return "interval_first_overlap() and interval_next_overlap()";
                node = interval_next_overlap(node, start, size);
        }
        if (node)
                return "interval_next_overlap() at the end";

        item = list_lower_bound(start);
        return interval_lower_bound(&tree, start) == (item ? &item->node : NULL) ? NULL : "interval_lower_bound()";
}

/* What the searches rely on, and how deep the subtree is. */
static const char *check_node(const IntervalNode *node, unsigned *ret_depth) {
        unsigned left = 0, right = 0;
        uint64_t max = node->last;
        const char *wrong;

        for (int side = 0; side < 2; side++) {
                const IntervalNode *child = side == 0 ? node->left : node->right;

                if (!child)
                        continue;
                if (child->parent != node)
                        return "the parent of a node";
                if (child->priority > node->priority)
                        return "the order of priorities";
                wrong = check_node(child, side == 0 ? &left : &right);
                if (wrong)
                        return wrong;
                max = child->max_last > max ? child->max_last : max;
        }

        *ret_depth = 1 + (left > right ? left : right);
        return node->max_last == max ? NULL : "max_last";
}

static const char *run_round(void) {
        Item *item = &items[next_random() % NODES];
        unsigned depth = 0;
        const char *wrong;

        if (item->in_tree)
                interval_remove(&tree, &item->node);
        else {
                random_range(&item->start, &item->size);
                interval_insert(&tree, &item->node, item->start, item->size);
        }
        item->in_tree = !item->in_tree;

        wrong = check_walks();
        return wrong || !tree.root ? wrong : check_node(tree.root, &depth);
}

/* Ranges in rising order make a list of a tree that is not balanced. */
static const char *check_depth(void) {
        enum {
                MANY = 32768,
                DEPTH_MAX = 80, /* the expectation is about 36 */
        };
        static IntervalNode nodes[MANY];
        IntervalTree large = {};
        unsigned depth = 0;
        const char *wrong;

        for (uint64_t i = 0; i < MANY; i++)
                interval_insert(&large, &nodes[i], i, 1);
        wrong = check_node(large.root, &depth);
        if (wrong)
                return wrong;
        if (depth > DEPTH_MAX)
                return "the depth";

        for (size_t i = 0; i < MANY; i++)
                interval_remove(&large, &nodes[i]);
        return large.root ? "the last removal" : NULL;
}

int main(void) {
        const char *text = getenv("PRIVMEMD_SEED"), *wrong = NULL, *too_deep;
        uint64_t seed = 1;

        if (text)
                seed = strtoull(text, NULL, 0);
        else if (getrandom(&seed, sizeof(uint32_t), 0) < 0)
                seed = 1;
        state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;

        printf("1..2\n");
        for (unsigned round = 0; round < ROUNDS && !wrong; round++)
                wrong = run_round();
        if (wrong)
                printf("# PRIVMEMD_SEED=%" PRIu64 " repeats it: %s\n", seed, wrong);
        printf("%s 1 - the tree and the list agree\n", wrong ? "not ok" : "ok");

        too_deep = check_depth();
        if (too_deep)
                printf("# wrong: %s\n", too_deep);
        printf("%s 2 - the tree stays flat\n", too_deep ? "not ok" : "ok");
        return wrong || too_deep ? EXIT_FAILURE : EXIT_SUCCESS;
}
