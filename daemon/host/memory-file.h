/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Files of guest memory: made here, recognised here, measured and emptied here.
 *
 * A file that memory_file_create() returns is sized, has its NUMA policy, belongs to its owner with mode 0600 and
 * is sealed against any change of size, before anybody else sees it. */

#include <stdbool.h>

#include "core/backing.h"

enum {
        MEMORY_E_SIZE = 1,     /* larger than the file system, or with a NUMA policy the address space, allows */
        MEMORY_E_NO_POOL,      /* the kernel has no huge pages of that size */
        MEMORY_E_NO_PAGES,     /* the pool has too few; MemoryShortage says which */
        MEMORY_E_NOT_MEMORY,   /* not a memfd, hugetlb memfd or guest_memfd */
        MEMORY_E_NO_READ_ONLY, /* a guest_memfd cannot be reopened */
};

typedef struct MemoryShortage {
        int node;                   /* -1: the host's sum */
        uint64_t needed, available; /* bytes */
} MemoryShortage;

/* What an fd turned out to be. */
typedef struct MemoryIdentity {
        BackingKind kind;
        uint64_t size;      /* bytes */
        uint64_t page_size; /* bytes */
        dev_t dev;
        ino_t ino;
        uid_t uid;      /* owner of the file */
        unsigned seals; /* F_SEAL_…; 0 for a guest_memfd */
        bool writable;  /* opened O_RDWR */
} MemoryIdentity;

/* What the kernel offers, probed once. */
typedef struct MemoryHost {
        bool noexec_seal; /* MFD_NOEXEC_SEAL */
        bool cachestat;   /* cachestat(2) */
        dev_t memfd_dev;  /* st_dev of every memfd of ordinary pages */
} MemoryHost;

int memory_host_probe(MemoryHost *ret);

/* Bit n is set if NUMA node n is online; bit 0 alone on a kernel without NUMA. */
uint64_t memory_nodes_online(void);

/* label: what /proc/PID/maps shows behind "/memfd:", at most 249 bytes. spec's name, dev and ino are not looked at.
 * *ret is what memory_file_identify() would say of the fd, which the caller owns and which has O_CLOEXEC.
 * MEMORY_E_NO_PAGES sets *ret_shortage. */
int memory_file_create(const MemoryHost *host, const char *label, const BackingSpec *spec, uid_t owner,
                       MemoryIdentity *ret, int *ret_fd, MemoryShortage *ret_shortage);

/* MEMORY_E_NOT_MEMORY sets *ret_found to words for what it is instead; static storage. */
int memory_file_identify(const MemoryHost *host, int fd, MemoryIdentity *ret, const char **ret_found);

/* *ret: whether it is that file. Of an fd that was identified once and kept ever since, so that no other file can have its
 * identity: its kind, its access and its seals, of which none can be taken away, are not asked for again. */
int memory_file_is(int fd, dev_t dev, ino_t ino, uint64_t size, bool *ret);

/* A second open file of the same memory that cannot be mapped for writing. The caller owns *ret_fd. */
int memory_file_open_read_only(int fd, int *ret_fd);

/* Bytes that are in memory now: by cachestat(2) where st_blocks does not say the same, and the kernel has it. */
int memory_file_resident(const MemoryHost *host, int fd, BackingKind kind, uint64_t *ret);

/* The same of a part of the file that is not empty. -EOPNOTSUPP without cachestat(2), and for huge pages. */
int memory_file_resident_range(const MemoryHost *host, int fd, BackingKind kind, uint64_t offset, uint64_t size,
                               uint64_t *ret);

/* Gives the range back to the host. Both multiples of the page size. */
int memory_file_punch(int fd, uint64_t offset, uint64_t size);
