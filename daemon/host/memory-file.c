/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>

#include "core/cleanup.h"
#include "host/file.h"
#include "host/hugepages.h"
#include "host/memory-file.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif
#ifndef __NR_cachestat
#define __NR_cachestat 451 /* Linux 6.5 */
#endif
/* Linux 6.19; before, a guest_memfd was an anonymous inode */
#define GUEST_MEMFD_MAGIC 0x474d454dUL
#define ANON_INODE_MAGIC  0x09041934UL

struct cachestat_range_v0 {
        uint64_t off, len;
};

struct cachestat_v0 {
        uint64_t nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted;
};

/* size 0: to the end of the file */
static int cachestat_pages(int fd, uint64_t offset, uint64_t size, uint64_t *ret) {
        struct cachestat_range_v0 range = { offset, size };
        struct cachestat_v0 stat;

        if (syscall(__NR_cachestat, fd, &range, &stat, 0) < 0)
                return -errno;
        *ret = stat.nr_cache;
        return 0;
}

int memory_host_probe(MemoryHost *ret) {
        _cleanup_close_ int fd = -EBADF;
        MemoryHost host = { .noexec_seal = true };
        struct stat st;
        uint64_t pages;

        fd = memfd_create("privmemd-probe", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL) {
                host.noexec_seal = false;
                fd = memfd_create("privmemd-probe", MFD_CLOEXEC);
        }
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        host.memfd_dev = st.st_dev;
        host.cachestat = cachestat_pages(fd, 0, 0, &pages) >= 0;
        *ret = host;
        return 0;
}

uint64_t memory_nodes_online(void) {
        uint64_t nodes;

        if (file_read_bitmap("/sys/devices/system/node/online", &nodes) < 0 || nodes == 0)
                return 1;
        return nodes;
}

static int file_mode_of(NumaPolicy policy) {
        static const int mode[_NUMA_POLICY_MAX] = {
                [NUMA_POLICY_NONE] = MPOL_DEFAULT,
                [NUMA_POLICY_BIND] = MPOL_BIND,
                [NUMA_POLICY_PREFERRED] = MPOL_PREFERRED,
                [NUMA_POLICY_INTERLEAVE] = MPOL_INTERLEAVE,
        };

        return mode[policy];
}

/* mbind(2) on a shared mapping sets the policy of the file itself, which outlives the mapping
 * (mm/shmem.c shmem_set_policy(), fs/hugetlbfs/inode.c hugetlb_vm_op_set_policy()). */
static int set_numa_policy(int fd, const BackingSpec *spec) {
        unsigned long nodes = spec->numa_nodes;
        void *p;
        int r = 0;

        if (spec->numa_policy == NUMA_POLICY_NONE)
                return 0;
        p = mmap(NULL, spec->size, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (p == MAP_FAILED)
                return errno == ENOMEM ? MEMORY_E_SIZE : -errno;
        if (syscall(SYS_mbind, p, spec->size, file_mode_of(spec->numa_policy), &nodes, 8 * sizeof(nodes) + 1, 0) < 0)
                r = -errno;
        munmap(p, spec->size);
        return r;
}

/* Whether one of the bound nodes, alone or all together, lacks the pages. The kernel reserves for the host as a
 * whole, so this is a look and not a promise; the guest would otherwise die of SIGBUS. */
static int check_bound_nodes(const BackingSpec *spec, MemoryShortage *ret_shortage) {
        uint64_t available = 0;
        int first = -1;

        if (spec->numa_policy != NUMA_POLICY_BIND)
                return 0;
        for (int node = 0; node < (int) NUMA_NODES_MAX; node++) {
                HugePagePool pool;

                if (!(spec->numa_nodes & (UINT64_C(1) << node)) || hugepages_read(spec->page_size, node, &pool) < 0)
                        continue;
                if (first < 0)
                        first = node;
                available += pool.free;
        }
        if (available >= spec->size)
                return 0;
        *ret_shortage = (MemoryShortage) { .node = first, .needed = spec->size, .available = available };
        return MEMORY_E_NO_PAGES;
}

/* A shared mapping without MAP_NORESERVE reserves its pages for the inode, and the reservation stays with the inode
 * after munmap() (mm/hugetlb.c hugetlb_reserve_pages()): from here on the guest cannot run out of them. */
static int reserve_huge_pages(int fd, const BackingSpec *spec, MemoryShortage *ret_shortage) {
        HugePagePool pool;
        void *p;
        int r;

        r = check_bound_nodes(spec, ret_shortage);
        if (r != 0)
                return r;
        p = mmap(NULL, spec->size, PROT_NONE, MAP_SHARED, fd, 0);
        if (p != MAP_FAILED) {
                munmap(p, spec->size);
                return 0;
        }
        if (errno != ENOMEM)
                return -errno;
        r = hugepages_read(spec->page_size, -1, &pool);
        if (r < 0)
                return r;
        *ret_shortage = (MemoryShortage) {
                .node = -1,
                .needed = spec->size,
                .available = hugepages_available(&pool),
        };
        return MEMORY_E_NO_PAGES;
}

static int open_memfd(const MemoryHost *host, const char *label, const BackingSpec *spec) {
        unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
        int fd;

        if (host->noexec_seal)
                flags |= MFD_NOEXEC_SEAL;
        if (spec->kind == BACKING_HUGETLB)
                flags |= MFD_HUGETLB | ((unsigned) __builtin_ctzll(spec->page_size) << MFD_HUGE_SHIFT);
        fd = memfd_create(label, flags);
        return fd < 0 ? -errno : fd;
}

/* There is no need to ask what kind of file it is. */
static int identify_own(int fd, const BackingSpec *spec, MemoryIdentity *ret) {
        struct stat st;
        int seals;

        seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || fstat(fd, &st) < 0)
                return -errno;
        *ret = (MemoryIdentity) {
                .kind = spec->kind,
                .size = (uint64_t) st.st_size,
                .page_size = spec->page_size,
                .dev = st.st_dev,
                .ino = st.st_ino,
                .uid = st.st_uid,
                .seals = (unsigned) seals,
                .writable = true,
        };
        return 0;
}

int memory_file_create(const MemoryHost *host, const char *label, const BackingSpec *spec, uid_t owner,
                       MemoryIdentity *ret, int *ret_fd, MemoryShortage *ret_shortage) {
        _cleanup_close_ int fd = -EBADF;
        HugePagePool pool;
        int r;

        if (spec->kind == BACKING_HUGETLB && hugepages_read(spec->page_size, -1, &pool) < 0)
                return MEMORY_E_NO_POOL;
        fd = open_memfd(host, label, spec);
        if (fd < 0)
                return fd;
        if (spec->size > INT64_MAX)
                return MEMORY_E_SIZE;
        if (ftruncate(fd, (off_t) spec->size) < 0)
                return errno == EFBIG || errno == EINVAL ? MEMORY_E_SIZE : -errno;
        r = set_numa_policy(fd, spec);
        if (r != 0)
                return r;
        if (spec->kind == BACKING_HUGETLB) {
                r = reserve_huge_pages(fd, spec, ret_shortage);
                if (r != 0)
                        return r;
        }
        /* Before the owner, since another owner's mode cannot be changed without CAP_FOWNER. */
        if (fchmod(fd, 0600) < 0)
                return -errno;
        if (owner != geteuid() && fchown(fd, owner, (gid_t) -1) < 0)
                return -errno;
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
                return -errno;
        r = identify_own(fd, spec, ret);
        if (r < 0)
                return r;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

static const char *describe(const struct stat *st) {
        switch (st->st_mode & S_IFMT) {
        case S_IFREG:
                return "regular file";
        case S_IFDIR:
                return "directory";
        case S_IFIFO:
                return "pipe";
        case S_IFSOCK:
                return "socket";
        case S_IFCHR:
        case S_IFBLK:
                return "device";
        default:
                return "anonymous inode";
        }
}

/* The name that /proc shows for the fd; a prefix of it is enough for us. */
static int fd_link(int fd, char *buffer, size_t size) {
        char path[64];
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, buffer, size - 1);
        if (n < 0)
                return -errno;
        buffer[n] = 0;
        return 0;
}

/* Both generations of guest_memfd (kernel-facts: 6.8 to 6.18, and 6.19 on). */
static bool is_guest_memfd(const struct statfs *fs, const char *link) {
        return (unsigned long) fs->f_type == GUEST_MEMFD_MAGIC ||
               ((unsigned long) fs->f_type == ANON_INODE_MAGIC && strcmp(link, "anon_inode:[kvm-gmem]") == 0);
}

/* A memfd lives on the kernel's own mount, which no path reaches, and says so in its name: a file on a tmpfs or
 * hugetlbfs of the administrator's has another st_dev or is not called "/memfd:…". */
static bool is_memfd(const MemoryHost *host, const struct stat *st, const struct statfs *fs, const char *link) {
        if (strncmp(link, "/memfd:", 7) != 0)
                return false;
        return (unsigned long) fs->f_type == HUGETLBFS_MAGIC || st->st_dev == host->memfd_dev;
}

int memory_file_identify(const MemoryHost *host, int fd, MemoryIdentity *ret, const char **ret_found) {
        char link[64];
        struct statfs fs;
        struct stat st;
        int flags, seals, r;

        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
                return -errno;
        *ret_found = describe(&st);
        if (!S_ISREG(st.st_mode) || (flags & O_PATH))
                return MEMORY_E_NOT_MEMORY;
        r = fd_link(fd, link, sizeof(link));
        if (r < 0)
                return r;
        *ret = (MemoryIdentity) {
                .dev = st.st_dev,
                .ino = st.st_ino,
                .uid = st.st_uid,
                .writable = (flags & O_ACCMODE) == O_RDWR,
                .page_size = (uint64_t) sysconf(_SC_PAGESIZE),
        };
        if (is_guest_memfd(&fs, link)) {
                ret->kind = BACKING_GUEST_MEMFD;
                ret->size = (uint64_t) st.st_size;
                return 0;
        }
        if (!is_memfd(host, &st, &fs, link))
                return MEMORY_E_NOT_MEMORY;
        seals = fcntl(fd, F_GET_SEALS);
        /* Again, after the seals: with F_SEAL_SHRINK and F_SEAL_GROW among them, this size is for ever. */
        if (seals < 0 || fstat(fd, &st) < 0)
                return -errno;
        ret->seals = (unsigned) seals;
        ret->size = (uint64_t) st.st_size;
        ret->kind = BACKING_MEMFD;
        if ((unsigned long) fs.f_type == HUGETLBFS_MAGIC) {
                ret->kind = BACKING_HUGETLB;
                ret->page_size = (uint64_t) fs.f_bsize;
        }
        return 0;
}

int memory_file_is(int fd, dev_t dev, ino_t ino, uint64_t size, bool *ret) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        *ret = S_ISREG(st.st_mode) && st.st_dev == dev && st.st_ino == ino && (uint64_t) st.st_size == size;
        return 0;
}

int memory_file_open_read_only(int fd, int *ret_fd) {
        char path[64];
        int n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = open(path, O_RDONLY | O_CLOEXEC);
        if (n < 0)
                return errno == ENXIO ? MEMORY_E_NO_READ_ONLY : -errno;
        *ret_fd = n;
        return 0;
}

/* cachestat(2) walks the page cache, 31 ns a page: 8 ms for each GiB, in which nobody else is served. st_blocks is
 * there at once, but counts what is swapped, and is always 0 for a guest_memfd. */
static bool needs_cachestat(BackingKind kind) {
        struct sysinfo info;

        switch (kind) {
        case BACKING_MEMFD:
                return sysinfo(&info) < 0 || info.totalswap != info.freeswap;
        case BACKING_GUEST_MEMFD:
                return true;
        default:
                return false;
        }
}

int memory_file_resident(const MemoryHost *host, int fd, BackingKind kind, uint64_t *ret) {
        struct stat st;
        uint64_t pages = 0;
        int r;

        if (host->cachestat && needs_cachestat(kind)) {
                r = cachestat_pages(fd, 0, 0, &pages);
                if (r < 0)
                        return r;
                *ret = pages * (uint64_t) sysconf(_SC_PAGESIZE);
                return 0;
        }
        if (fstat(fd, &st) < 0)
                return -errno;
        *ret = (uint64_t) st.st_blocks * 512;
        return 0;
}

int memory_file_resident_range(const MemoryHost *host, int fd, BackingKind kind, uint64_t offset, uint64_t size,
                               uint64_t *ret) {
        uint64_t pages = 0;
        int r;

        if (!host->cachestat || kind == BACKING_HUGETLB || size == 0)
                return -EOPNOTSUPP;
        r = cachestat_pages(fd, offset, size, &pages);
        if (r < 0)
                return r;
        *ret = pages * (uint64_t) sysconf(_SC_PAGESIZE);
        return 0;
}

int memory_file_punch(int fd, uint64_t offset, uint64_t size) {
        if (offset > INT64_MAX || size > INT64_MAX)
                return -EINVAL;
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) offset, (off_t) size) < 0)
                return -errno;
        return 0;
}
