/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "host/crc32c.h"
#include "host/ledger-private.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

#define LEDGER_MAGIC "PRIVMEML"
/* A test makes them greater. */
#ifndef LEDGER_VERSION
#define LEDGER_VERSION 1U
#endif
#ifndef LEDGER_OLDEST_READER
#define LEDGER_OLDEST_READER 1U
#endif

enum {
        RESERVE_STEP = 64 * 1024,
        MAPPED_FRAME_MAX = 64 * 1024, /* what is larger is written */
};

/* A frame goes into a mapping of the file where that is a memfd which nobody can cut: it costs a tenth of a system
 * call, and is kept by the same memory. Space was reserved for it, so there is a page wherever it goes. */

/* ---- header ---- */

static uint32_t header_crc(const Header *header) {
        return crc32c(0, header, offsetof(Header, crc));
}

static bool header_is_valid(const Header *header) {
        return memcmp(header->magic, LEDGER_MAGIC, sizeof(header->magic)) == 0 && header->crc == header_crc(header) &&
               header->mark != 0;
}

static int write_all(int fd, const struct iovec *io, int n_io, size_t size, uint64_t offset) {
        ssize_t n;

        /* A write that was cut short is made again as a whole: half of it is nothing to a reader. */
        for (unsigned tries = 0; tries < 16; tries++) {
                n = pwritev(fd, io, n_io, (off_t) offset);
                if (n == (ssize_t) size)
                        return 0;
                if (n < 0 && errno != EINTR)
                        return -errno;
        }
        return -EIO;
}

static int write_header(Ledger *ledger, unsigned which) {
        struct iovec io = { .iov_base = &ledger->header, .iov_len = sizeof(Header) };

        ledger->header.crc = header_crc(&ledger->header);
        return write_all(ledger->fd, &io, 1, sizeof(Header), which * sizeof(Header));
}

/* Either copy will do: they differ only in what was written last, and damage to one is harmless. */
static int read_header(int fd, Header *ret) {
        Header headers[HEADERS];
        const Header *found = NULL;
        uint64_t complete = 0;
        size_t size;
        int r;

        r = ledger_read_at(fd, headers, sizeof(headers), 0, &size);
        if (r < 0)
                return r;
        for (size_t i = 0; i < size / sizeof(Header); i++) {
                if (!header_is_valid(&headers[i]))
                        continue;
                found = found ?: &headers[i];
                complete |= headers[i].complete;
        }
        if (!found)
                return LEDGER_E_NOT_A_LEDGER;
        /* One that is not complete is nothing, whoever wrote it. */
        if (found->oldest_reader > LEDGER_VERSION)
                return complete ? LEDGER_E_NEWER : LEDGER_E_NOT_A_LEDGER;
        *ret = *found;
        ret->complete = complete;
        return 0;
}

/* ---- life ---- */

static Ledger *ledger_of(int fd) {
        Ledger *ledger = malloc(sizeof(*ledger));
        int seals = fcntl(fd, F_GET_SEALS);

        if (ledger)
                *ledger = (Ledger) {
                        .fd = fd,
                        .end = FRAMES_AT,
                        .is_mappable = seals >= 0 && (seals & F_SEAL_SHRINK) && !(seals & F_SEAL_WRITE),
                };
        return ledger;
}

static void unmap(Ledger *ledger) {
        if (ledger->map)
                (void) munmap(ledger->map, ledger->map_size);
        ledger->map = NULL;
}

static int begin(Ledger *ledger, uint64_t generation) {
        Header *header = &ledger->header;
        int r = 0;

        *header = (Header) {
                .version = LEDGER_VERSION,
                .oldest_reader = LEDGER_OLDEST_READER,
                .generation = generation,
        };
        memcpy(header->magic, LEDGER_MAGIC, sizeof(header->magic));
        while (header->mark == 0)
                if (getrandom(&header->mark, sizeof(header->mark), 0) < 0 && errno != EINTR)
                        return -errno;
        ledger->ready = true;
        r = ledger_reserve(ledger, RECORD_ALIGNMENT);
        for (unsigned i = 0; r == 0 && i < HEADERS; i++)
                r = write_header(ledger, i);
        return r;
}

int ledger_new(int fd, uint64_t generation, Ledger **ret) {
        Ledger *ledger;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size != 0)
                return -EINVAL;
        ledger = ledger_of(fd);
        if (!ledger)
                return -ENOMEM;
        r = begin(ledger, generation);
        if (r != 0) {
                unmap(ledger);
                free(ledger);
                return r;
        }
        *ret = ledger;
        return 0;
}

int ledger_new_memfd(uint64_t generation, Ledger **ret) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        fd = memfd_create("privmemd:ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL)
                fd = memfd_create("privmemd:ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || fchmod(fd, 0600) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
                return -errno;
        r = ledger_new(fd, generation, ret);
        if (r == 0)
                TAKE_FD(fd);
        return r;
}

int ledger_open(int fd, Ledger **ret) {
        Ledger *ledger;
        Header header;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || (uint64_t) st.st_size > LEDGER_SIZE_MAX)
                return LEDGER_E_NOT_A_LEDGER;
        r = read_header(fd, &header);
        if (r != 0)
                return r;
        ledger = ledger_of(fd);
        if (!ledger)
                return -ENOMEM;
        ledger->header = header;
        *ret = ledger;
        return 0;
}

Ledger *ledger_free(Ledger *ledger) {
        if (!ledger)
                return NULL;
        unmap(ledger);
        safe_close(ledger->fd);
        free(ledger);
        return NULL;
}

int ledger_complete(Ledger *ledger) {
        int r;

        ledger->header.complete = 1;
        /* The second copy first: while one is written, the other is valid. It is enough. */
        r = write_header(ledger, 1);
        if (r == 0)
                (void) write_header(ledger, 0);
        return r;
}

bool ledger_is_complete(const Ledger *ledger) {
        return ledger->header.complete != 0;
}

bool ledger_is_of_another_version(const Ledger *ledger) {
        return ledger->header.version != LEDGER_VERSION;
}

uint64_t ledger_generation(const Ledger *ledger) {
        return ledger->header.generation;
}

uint64_t ledger_size(const Ledger *ledger) {
        return ledger->end;
}

uint64_t ledger_frames(const Ledger *ledger) {
        return ledger->next_sequence;
}

int ledger_fd(const Ledger *ledger) {
        return ledger->fd;
}

/* ---- writing ---- */

static int allocate(int fd, int mode, uint64_t offset, uint64_t size) {
        int r;

        do
                r = fallocate(fd, mode, (off_t) offset, (off_t) size);
        while (r < 0 && errno == EINTR);
        if (r == 0)
                return 0;
        switch (errno) {
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
        case ENOMEM:
                return LEDGER_E_NO_SPACE;
        default:
                return -errno;
        }
}

/* Nothing of a torn frame is left to be seen behind a shorter one that takes its place. */
static int wipe_tail(Ledger *ledger) {
        struct stat st;
        int r = 0;

        if (fstat(ledger->fd, &st) < 0)
                return -errno;
        if ((uint64_t) st.st_size > ledger->end)
                r = allocate(ledger->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, ledger->end,
                             (uint64_t) st.st_size - ledger->end);
        if (r == 0)
                ledger->dirty = false;
        return r;
}

int ledger_reserve(Ledger *ledger, size_t size) {
        uint64_t needed, wanted;
        int r;

        if (!ledger->ready)
                return -EBUSY;
        if (size > LEDGER_FRAME_MAX)
                return -E2BIG;
        needed = ledger->end + sizeof(FrameHead) + size;
        if (needed <= ledger->reserved)
                return 0;
        if (needed > LEDGER_SIZE_MAX)
                return LEDGER_E_NO_SPACE;
        if (ledger->dirty) {
                r = wipe_tail(ledger);
                if (r != 0)
                        return r;
        }
        wanted = (needed + RESERVE_STEP - 1) / RESERVE_STEP * RESERVE_STEP;
        r = allocate(ledger->fd, 0, ledger->reserved, wanted - ledger->reserved);
        if (r == LEDGER_E_NO_SPACE) {
                wanted = needed;
                r = allocate(ledger->fd, 0, ledger->reserved, wanted - ledger->reserved);
        }
        if (r == 0)
                ledger->reserved = wanted;
        return r;
}

/* Where the next bytes of the file are in memory, or NULL. They are reserved. */
static uint8_t *map_next(Ledger *ledger, size_t size) {
        uint64_t from = ledger->end & ~((uint64_t) sysconf(_SC_PAGESIZE) - 1);
        void *map;

        if (ledger->map && ledger->end >= ledger->map_at && ledger->end + size <= ledger->map_at + ledger->map_size)
                return ledger->map + (ledger->end - ledger->map_at);
        if (!ledger->is_mappable || size > MAPPED_FRAME_MAX)
                return NULL;
        unmap(ledger);
        map = mmap(NULL, ledger->reserved - from, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ledger->fd,
                   (off_t) from);
        if (map == MAP_FAILED)
                return NULL;
        ledger->map = map;
        ledger->map_at = from;
        ledger->map_size = ledger->reserved - from;
        return ledger->map + (ledger->end - from);
}

/* The head comes last: without it, nothing looks like a frame. */
static int write_frame(Ledger *ledger, const FrameHead *head, const void *records, size_t size) {
        struct iovec io[] = {
                { .iov_base = (void *) head, .iov_len = sizeof(*head) },
                { .iov_base = (void *) records, .iov_len = size },
        };
        uint8_t *at = map_next(ledger, sizeof(*head) + size);

        if (!at)
                return write_all(ledger->fd, io, ELEMENTSOF(io), sizeof(*head) + size, ledger->end);
        memcpy(at + sizeof(*head), records, size);
        atomic_signal_fence(memory_order_release);
        memcpy(at, head, sizeof(*head));
        return 0;
}

int ledger_append(Ledger *ledger, const void *records, size_t size) {
        FrameHead head = {
                .mark = ledger->header.mark,
                .generation = ledger->header.generation,
                .sequence = ledger->next_sequence,
                .size = (uint32_t) size,
        };
        int r;

        if (!ledger->ready)
                return -EBUSY;
        if (size == 0 || size > LEDGER_FRAME_MAX || !ledger_are_records(records, size))
                return -EINVAL;
        /* No ledger of ours comes so far. */
        if (ledger->next_sequence == UINT64_MAX)
                return -EOVERFLOW;
        if (ledger->end + sizeof(head) + size > ledger->reserved)
                return -ENOBUFS;
        head.records_crc = crc32c(0, records, size);
        head.head_crc = crc32c(0, &head, offsetof(FrameHead, head_crc));
        r = write_frame(ledger, &head, records, size);
        if (r < 0) {
                ledger->reserved = ledger->end;
                ledger->dirty = true;
                return r;
        }
        ledger->end += sizeof(head) + size;
        ledger->next_sequence++;
        return 0;
}
