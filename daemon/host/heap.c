/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "host/heap.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t) 2 << 20)
/* Less is there before a huge page is cleared. */
#define WORTH_IT  (2 * HUGE_PAGE)
/* What mallopt(3) says that they are. */
#define STANDARD  (128 * 1024)

static bool expects;

void heap_expect(size_t size) {
        uintptr_t from, to;
        char *piece, *end;

        if (size < WORTH_IT || size > INT32_MAX - HUGE_PAGE)
                return;
        /* The next piece that does not fit makes the heap longer by all of it. Nothing is touched yet, nor given back. */
        if (!mallopt(M_TRIM_THRESHOLD, (int) (size + HUGE_PAGE)) || !mallopt(M_TOP_PAD, (int) size))
                return;
        expects = true;
        piece = malloc(STANDARD - 4096);
        (void) mallopt(M_TOP_PAD, STANDARD);
        end = sbrk(0);
        from = ((uintptr_t) piece + HUGE_PAGE - 1) & ~(uintptr_t) (HUGE_PAGE - 1);
        to = (uintptr_t) end & ~(uintptr_t) (HUGE_PAGE - 1);
        if (piece && end != (void *) -1 && from < to && to - from <= 2 * size)
                (void) madvise((void *) from, to - from, MADV_HUGEPAGE);
        free(piece);
}

/* Whoever sets one of them sets all for good: malloc(3) adapts none any more. */
void heap_expect_no_more(void) {
        if (expects)
                (void) mallopt(M_TRIM_THRESHOLD, STANDARD);
        expects = false;
}
