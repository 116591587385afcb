/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The host's pools of huge pages, read from /sys each time: nobody can keep them in step. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct HugePagePool {
        uint64_t page_size;  /* bytes */
        int node;            /* -1: the sum over the host */
        uint64_t total;      /* bytes */
        uint64_t free;       /* bytes that nothing uses, promised ones included */
        uint64_t reserved;   /* bytes of the free ones that are promised; host only, else 0 */
        uint64_t overcommit; /* bytes that the kernel may still add to the pool on demand; host only, else 0 */
} HugePagePool;

/* All pools: the host's, then each node's. Free the array with free(). A kernel without huge pages has none. */
int hugepages_list(HugePagePool **ret, size_t *ret_n);
/* One pool. -ENODEV if the kernel does not know that page size or node. */
int hugepages_read(uint64_t page_size, int node, HugePagePool *ret);
/* Bytes of the huge page that the kernel may use for a memfd of ordinary pages, if the VMM asks for it or without; 0 if
 * it uses none. */
uint64_t hugepages_of_memfd(void);
/* Bytes that a new reservation can have. */
uint64_t hugepages_available(const HugePagePool *pool);
