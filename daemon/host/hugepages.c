/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "core/cleanup.h"
#include "host/file.h"
#include "host/hugepages.h"
#include "host/memory-file.h"

#define HOST_POOLS "/sys/kernel/mm/hugepages"
#define NODES      "/sys/devices/system/node"
#define THP        "/sys/kernel/mm/transparent_hugepage"

/* A count of pages in one of the pool's files, as bytes. */
static int read_pages(const HugePagePool *pool, const char *name, uint64_t *ret) {
        char path[PATH_MAX];
        uint64_t pages;
        int r;

        if (pool->node < 0)
                snprintf(path, sizeof(path), HOST_POOLS "/hugepages-%" PRIu64 "kB/%s", pool->page_size / 1024, name);
        else
                snprintf(path, sizeof(path), NODES "/node%d/hugepages/hugepages-%" PRIu64 "kB/%s", pool->node,
                         pool->page_size / 1024, name);
        r = file_read_u64(path, &pages);
        if (r < 0)
                return r == -ENOENT ? -ENODEV : r;
        if (__builtin_mul_overflow(pages, pool->page_size, ret))
                return -ERANGE;
        return 0;
}

int hugepages_read(uint64_t page_size, int node, HugePagePool *ret) {
        HugePagePool pool = { .page_size = page_size, .node = node };
        uint64_t overcommit, surplus;
        int r;

        r = read_pages(&pool, "nr_hugepages", &pool.total);
        if (r < 0)
                return r;
        r = read_pages(&pool, "free_hugepages", &pool.free);
        if (r < 0)
                return r;
        if (node < 0) {
                r = read_pages(&pool, "resv_hugepages", &pool.reserved);
                if (r < 0)
                        return r;
                /* A page size that only boot-time allocation can fill has no overcommit. */
                if (read_pages(&pool, "nr_overcommit_hugepages", &overcommit) >= 0 &&
                    read_pages(&pool, "surplus_hugepages", &surplus) >= 0 && overcommit > surplus)
                        pool.overcommit = overcommit - surplus;
        }
        *ret = pool;
        return 0;
}

uint64_t hugepages_available(const HugePagePool *pool) {
        return (pool->free > pool->reserved ? pool->free - pool->reserved : 0) + pool->overcommit;
}

static int append(HugePagePool **pools, size_t *n, const HugePagePool *pool) {
        HugePagePool *bigger;

        bigger = reallocarray(*pools, *n + 1, sizeof(**pools));
        if (!bigger)
                return -ENOMEM;
        bigger[(*n)++] = *pool;
        *pools = bigger;
        return 0;
}

/* The pools of every page size, of the host (node -1) or of one node. */
static int list_node(int node, HugePagePool **pools, size_t *n) {
        struct dirent *entry;
        DIR *dir;
        int r = 0;

        dir = opendir(HOST_POOLS);
        if (!dir)
                return errno == ENOENT ? 0 : -errno;
        while (r >= 0 && (entry = readdir(dir))) {
                HugePagePool pool;
                uint64_t kib;

                if (sscanf(entry->d_name, "hugepages-%" SCNu64 "kB", &kib) != 1 || kib > UINT64_MAX / 1024)
                        continue;
                r = hugepages_read(kib * 1024, node, &pool);
                if (r == -ENODEV)
                        r = 0;
                else if (r >= 0)
                        r = append(pools, n, &pool);
        }
        closedir(dir);
        return r;
}

int hugepages_list(HugePagePool **ret, size_t *ret_n) {
        _cleanup_free_ HugePagePool *pools = NULL;
        uint64_t nodes;
        size_t n = 0;
        int r;

        r = list_node(-1, &pools, &n);
        if (r < 0)
                return r;
        nodes = memory_nodes_online();
        for (int node = 0; node < 64; node++)
                if (nodes & (UINT64_C(1) << node)) {
                        r = list_node(node, &pools, &n);
                        if (r < 0)
                                return r;
                }
        *ret = TAKE_PTR(pools);
        *ret_n = n;
        return 0;
}

/* Documentation/admin-guide/mm/transhuge.rst. Since Linux 6.10 each size of huge pages has a switch of its own, which
 * is "inherit" for this size unless somebody changed it. */
uint64_t hugepages_of_memfd(void) {
        char all[32], own[32], path[128];
        uint64_t size;

        if (file_read_u64(THP "/hpage_pmd_size", &size) < 0 || file_read_choice(THP "/shmem_enabled", all) < 0)
                return 0;
        if (strcmp(all, "deny") == 0)
                return 0;
        if (strcmp(all, "force") == 0)
                return size;
        snprintf(path, sizeof(path), THP "/hugepages-%" PRIu64 "kB/shmem_enabled", size / 1024);
        if (file_read_choice(path, own) >= 0 && strcmp(own, "inherit") != 0)
                return strcmp(own, "never") == 0 ? 0 : size;
        return strcmp(all, "never") == 0 ? 0 : size;
}
