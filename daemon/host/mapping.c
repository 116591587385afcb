/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "host/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/range.h"

/* struct procmap_query of <linux/fs.h>, which Debian 13 has not got yet. */
typedef struct ProcmapQuery {
        uint64_t size;
        uint64_t query_flags;
        uint64_t query_addr;
        uint64_t vma_start, vma_end;
        uint64_t vma_flags;
        uint64_t vma_page_size;
        uint64_t vma_offset;
        uint64_t inode;
        uint32_t dev_major, dev_minor;
        uint32_t vma_name_size;
        uint32_t build_id_size;
        uint64_t vma_name_addr;
        uint64_t build_id_addr;
} ProcmapQuery;

#define PROCMAP_QUERY_IOCTL          _IOWR('f', 17, ProcmapQuery)
#define PROCMAP_VMA_SHARED           UINT64_C(0x08)
#define PROCMAP_COVERING_OR_NEXT_VMA UINT64_C(0x10)

_Static_assert(sizeof(ProcmapQuery) == 104, "not the kernel's struct procmap_query");
_Static_assert(offsetof(ProcmapQuery, vma_offset) == 56 && offsetof(ProcmapQuery, vma_name_addr) == 88,
               "not the kernel's struct procmap_query");
_Static_assert(PROCMAP_QUERY_IOCTL == 0xc0686611, "not the kernel's PROCMAP_QUERY");

/* One mapping of the process, as either source describes it. */
typedef struct Area {
        uint64_t start, end, offset;
        bool shared;
        dev_t dev;
        ino_t ino;
        const char *name; /* NULL: ask for it */
} Area;

void mapping_reader_open(pid_t pid, MappingReader *ret) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/maps", (int) pid);
        *ret = (MappingReader) { .fd = open(path, O_RDONLY | O_CLOEXEC), .can_query = true };
}

void mapping_reader_done(MappingReader *reader) {
        reader->fd = safe_close(reader->fd);
}

/* ---- what an area shows ---- */

static bool starts_with(const char *text, const char *prefix) {
        return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Whether the same inode and offset are always the same memory. Not so for a device, nor for most anonymous inodes:
 * VFIO shows every device it has through one inode. */
static bool file_is_memory(const char *name) {
        if (starts_with(name, "/dev/"))
                return starts_with(name, "/dev/shm/") || starts_with(name, "/dev/hugepages/") ||
                       strcmp(name, "/dev/zero (deleted)") == 0;
        return name[0] == '/';
}

/* Linux 6.8 to 6.18, and from 6.19 on. */
static bool is_guest_memfd(const char *name) {
        return strcmp(name, "anon_inode:[kvm-gmem]") == 0 || strcmp(name, "/[kvm-gmem] (deleted)") == 0;
}

static MappedKind kind_by_name(const char *name) {
        if (is_guest_memfd(name))
                return MAPPED_GUEST_MEMFD;
        return file_is_memory(name) ? MAPPED_FILE : MAPPED_MEMORY;
}

static bool goes_on(const MappedRun *run, const MappedRun *next) {
        if (run->kind != next->kind || run->hva + run->size != next->hva)
                return false;
        return run->kind == MAPPED_MEMORY ||
               (run->dev == next->dev && run->ino == next->ino && run->offset + run->size == next->offset);
}

/* ---- collecting ---- */

typedef struct Collection {
        uint64_t start, end;
        int fd;
        MappingKnownFile known;
        void *userdata;
        MappedRun *runs;
        size_t n, n_areas;
        bool gone;
} Collection;

static int query(int fd, uint64_t at, char *name, size_t name_size, ProcmapQuery *ret) {
        *ret = (ProcmapQuery) {
                .size = sizeof(*ret),
                .query_flags = PROCMAP_COVERING_OR_NEXT_VMA,
                .query_addr = at,
                .vma_name_size = (uint32_t) name_size,
                .vma_name_addr = (uint64_t) (uintptr_t) name,
        };
        return ioctl(fd, PROCMAP_QUERY_IOCTL, ret) < 0 ? -errno : 0;
}

/* What is there may have changed since the area was found; then it counts as memory. */
static MappedKind kind_by_query(int fd, const Area *area) {
        char name[PATH_MAX];
        ProcmapQuery q;

        if (query(fd, area->start, name, sizeof(name), &q) < 0 || q.vma_start != area->start || q.inode != area->ino ||
            q.vma_name_size == 0)
                return MAPPED_MEMORY;
        return kind_by_name(name);
}

static MappedKind kind_of(const Collection *c, const Area *area) {
        MappedKind kind;
        uint64_t end;

        if (area->ino == 0 || __builtin_add_overflow(area->offset, area->end - area->start, &end))
                return MAPPED_MEMORY;
        if (!c->known || !c->known(area->dev, area->ino, &kind, c->userdata))
                kind = area->name ? kind_by_name(area->name) : kind_by_query(c->fd, area);
        return kind == MAPPED_FILE && !area->shared ? MAPPED_COPY : kind;
}

/* False if that was enough. The area has a byte in common with the range. */
static bool collect(Collection *c, const Area *area) {
        MappedRun run = { .kind = kind_of(c, area) };

        run.hva = range_common(c->start, c->end - c->start, area->start, area->end - area->start, &run.size);
        if (run.kind != MAPPED_MEMORY) {
                run.dev = area->dev;
                run.ino = area->ino;
                run.offset = area->offset + (run.hva - area->start);
        }
        if (c->n > 0 && goes_on(&c->runs[c->n - 1], &run))
                c->runs[c->n - 1].size += run.size;
        else
                c->runs[c->n++] = run;
        return ++c->n_areas < MAPPING_RUNS_MAX;
}

/* Negative if the kernel does not have the query. */
static int query_all(Collection *c) {
        uint64_t at = c->start;

        while (at < c->end) {
                ProcmapQuery q;
                Area area;
                int r;

                r = query(c->fd, at, /* name= */ NULL, 0, &q);
                c->gone = r == -ESRCH;
                if (r < 0)
                        /* ENOENT: nothing is mapped from here on. */
                        return r == -ENOTTY ? r : 0;
                if (q.vma_start >= c->end)
                        return 0;
                area = (Area) {
                        .start = q.vma_start,
                        .end = q.vma_end,
                        .offset = q.vma_offset,
                        .shared = q.vma_flags & PROCMAP_VMA_SHARED,
                        .dev = makedev(q.dev_major, q.dev_minor),
                        .ino = q.inode,
                };
                if (!collect(c, &area))
                        return 0;
                at = q.vma_end;
        }
        return 0;
}

static bool parse_line(char *line, Area *ret) {
        unsigned device_major, device_minor;
        char permissions[5];
        uint64_t inode;
        int name = 0;

        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &ret->start, &ret->end,
                   permissions, &ret->offset, &device_major, &device_minor, &inode, &name) != 7)
                return false;
        line[strcspn(line, "\n")] = 0;
        ret->shared = permissions[3] == 's';
        ret->dev = makedev(device_major, device_minor);
        ret->ino = inode;
        ret->name = line + name;
        return ret->start < ret->end;
}

static void read_text(Collection *c) {
        _cleanup_close_ int copy = fcntl(c->fd, F_DUPFD_CLOEXEC, 3);
        _cleanup_free_ char *line = NULL;
        _cleanup_fclose_ FILE *f = NULL;
        size_t size = 0;
        Area area;

        f = copy < 0 ? NULL : fdopen(copy, "r");
        if (!f)
                return;
        TAKE_FD(copy);
        rewind(f);      /* the copy has the offset in common with it */
        c->gone = true; /* a living one has its own program mapped at least */
        for (unsigned n = 0; n < MAPPING_LINES_MAX && getline(&line, &size, f) >= 0; n++) {
                c->gone = false;
                if (!parse_line(line, &area) || area.end <= c->start)
                        continue;
                if (area.start >= c->end || !collect(c, &area))
                        break;
        }
}

size_t mapping_read(MappingReader *reader, uint64_t hva, uint64_t size, MappingKnownFile known, void *userdata,
                    MappedRun runs[static MAPPING_RUNS_MAX]) {
        Collection c = { .start = hva, .fd = reader->fd, .known = known, .userdata = userdata, .runs = runs };

        reader->gone = false;
        if (reader->fd < 0 || !range_valid(hva, size))
                return 0;
        c.end = hva + size;
        if (reader->can_query)
                reader->can_query = query_all(&c) >= 0;
        if (!reader->can_query)
                read_text(&c);
        reader->gone = c.gone;
        return c.n;
}
