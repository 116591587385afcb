/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The memory that privmemd's peers hand out: the same system calls as daemon/host/memory-file.c makes for the same
 * request, and no more. Like privmemd, a peer keeps an fd of each. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

#define MEMORY_SIZE     (UINT64_C(2) << 20)
#define MEMORY_SEALS    (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)
#define MEMORY_HELD_MAX 1024

static unsigned memory_flags;
static int memory_held[MEMORY_HELD_MAX];
static size_t memory_n_held;

/* As privmemd does at its start. */
static inline void memory_probe(void) {
        int fd = memfd_create("probe", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

        memory_flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (fd >= 0 ? MFD_NOEXEC_SEAL : 0);
        if (fd >= 0)
                close(fd);
}

/* Returns an fd that memory_release() closes, or -errno. */
static inline int memory_create(const char *label, uint64_t size) {
        int fd, r;

        if (memory_n_held >= MEMORY_HELD_MAX)
                return -ENOSPC;
        fd = memfd_create(label, memory_flags);
        if (fd < 0)
                return -errno;
        if (ftruncate(fd, (off_t) size) < 0 || fchmod(fd, 0600) < 0 || fcntl(fd, F_ADD_SEALS, MEMORY_SEALS) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        memory_held[memory_n_held++] = fd;
        return fd;
}

/* The newest. */
static inline int memory_release(void) {
        if (memory_n_held == 0)
                return -ENOENT;
        close(memory_held[--memory_n_held]);
        return 0;
}
