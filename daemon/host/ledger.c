/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reading goes through a window of the file by pread(2), never through a mapping: a file in the runtime directory may
 * be cut while it is read, and a mapping of it would be SIGBUS then.
 *
 * What a client chose, such as a name, is in records, and must not pass for a frame where a reader looks for the next
 * valid one behind damage. So each file has a random mark with which its frames begin, and a frame whose head is
 * valid is left as a whole: its records are not searched. That makes reading linear too, whatever the file is. */

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "core/cleanup.h"
#include "core/record-buffer.h"
#include "host/crc32c.h"
#include "host/ledger.h"

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
        HEADERS = 2,
        RESERVE_STEP = 64 * 1024,
        WINDOW_SIZE = 256 * 1024,
};

typedef struct Header {
        char magic[8];
        uint32_t version, oldest_reader;
        uint64_t generation;
        uint64_t mark;
        uint64_t complete; /* 1 or 0 */
        uint8_t reserved[20];
        uint32_t crc; /* of what is before */
} Header;

typedef struct FrameHead {
        uint64_t mark;
        uint64_t generation;
        uint64_t sequence; /* 0, 1, 2, … in each generation */
        uint32_t size;     /* bytes of records */
        uint32_t records_crc;
        uint32_t head_crc; /* of what is before */
        uint32_t zero;
} FrameHead;

static_assert(sizeof(Header) == 64 && offsetof(Header, crc) == 60, "a header is 64 bytes");
static_assert(sizeof(FrameHead) == 40 && offsetof(FrameHead, head_crc) == 32, "the head of a frame is 40 bytes");

#define FRAMES_AT (HEADERS * sizeof(Header))

struct Ledger {
        int fd;
        Header header;
        bool ready;             /* the end and the next number are known */
        bool dirty;             /* what is behind the end is not all zero */
        uint64_t end;           /* of the last valid frame */
        uint64_t reserved;      /* the file has space up to here */
        uint64_t next_sequence; /* of the next frame */
};

/* A part of the file in memory. */
typedef struct Window {
        int fd;
        uint64_t file_size;
        uint64_t start;
        size_t size, allocated;
        uint8_t *bytes;
} Window;

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

static int read_at(int fd, void *bytes, size_t size, uint64_t offset, size_t *ret) {
        size_t done = 0;
        ssize_t n;

        while (done < size) {
                n = pread(fd, (uint8_t *) bytes + done, size - done, (off_t) (offset + done));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                done += (size_t) n;
        }
        *ret = done;
        return 0;
}

/* Either copy will do: they differ only in what was written last, and damage to one is harmless. */
static int read_header(int fd, Header *ret) {
        Header headers[HEADERS];
        const Header *found = NULL;
        uint64_t complete = 0;
        size_t size;
        int r;

        r = read_at(fd, headers, sizeof(headers), 0, &size);
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

        if (ledger)
                *ledger = (Ledger) { .fd = fd, .end = FRAMES_AT };
        return ledger;
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

int ledger_fd(const Ledger *ledger) {
        return ledger->fd;
}

/* ---- reading ---- */

/* Makes [at, at + size) readable; at is a multiple of 8, and so is the address of what is returned. NULL in *ret: the
 * file ends before. */
static int window_get(Window *window, uint64_t at, size_t size, const uint8_t **ret) {
        size_t wanted = size > WINDOW_SIZE ? size : WINDOW_SIZE;
        uint8_t *bytes;
        int r;

        *ret = NULL;
        if (at > window->file_size || size > window->file_size - at)
                return 0;
        if (at < window->start || at - window->start > window->size || size > window->size - (at - window->start)) {
                if (wanted > window->allocated) {
                        bytes = realloc(window->bytes, wanted);
                        if (!bytes)
                                return -ENOMEM;
                        window->bytes = bytes;
                        window->allocated = wanted;
                }
                window->start = at;
                window->size = 0;
                r = read_at(window->fd, window->bytes, wanted, at, &window->size);
                if (r < 0)
                        return r;
                if (window->size < size)
                        return 0;
        }
        *ret = window->bytes + (at - window->start);
        return 0;
}

/* How much of the file, from at on, is in the window. */
static size_t window_rest(const Window *window, uint64_t at) {
        uint64_t end = window->start + window->size;

        return (end < window->file_size ? end : window->file_size) - at;
}

/* Moves *at to the next place where a frame may begin, or to the end of the file. */
static int find_mark(Ledger *ledger, Window *window, uint64_t *at) {
        const uint8_t *bytes;
        uint64_t word;
        size_t rest;
        int r;

        while (*at < window->file_size) {
                rest = window->file_size - *at;
                r = window_get(window, *at, rest < sizeof(word) ? rest : sizeof(word), &bytes);
                if (r < 0)
                        return r;
                if (!bytes)
                        /* It was cut meanwhile. */
                        break;
                rest = window_rest(window, *at);
                for (; rest >= sizeof(word); rest -= sizeof(word), bytes += sizeof(word), *at += sizeof(word)) {
                        memcpy(&word, bytes, sizeof(word));
                        if (word == ledger->header.mark)
                                return 0;
                        ledger->dirty = ledger->dirty || word != 0;
                }
                for (; rest > 0; rest--, bytes++, (*at)++)
                        ledger->dirty = ledger->dirty || *bytes != 0;
        }
        *at = window->file_size;
        return 0;
}

static bool head_is_valid(const Ledger *ledger, const FrameHead *head) {
        return head->head_crc == crc32c(0, head, offsetof(FrameHead, head_crc)) && head->mark == ledger->header.mark &&
               head->generation == ledger->header.generation && head->zero == 0 && head->size > 0 &&
               head->size <= LEDGER_FRAME_MAX && head->size % RECORD_ALIGNMENT == 0;
}

static bool are_records(const void *records, size_t size) {
        const void *data;
        size_t offset = 0;
        RecordHead head;
        int r;

        do
                r = record_next(records, size, &offset, &head, &data);
        while (r > 0);
        return r == 0;
}

/* *ret_size: what to go on behind. *ret_records: NULL if the frame is not valid. */
static int look_at_frame(Ledger *ledger, Window *window, uint64_t at, FrameHead *ret, size_t *ret_size,
                         const void **ret_records) {
        const uint8_t *bytes;
        int r;

        *ret_records = NULL;
        *ret_size = RECORD_ALIGNMENT;
        r = window_get(window, at, sizeof(*ret), &bytes);
        if (r < 0 || !bytes)
                return r;
        memcpy(ret, bytes, sizeof(*ret));
        if (!head_is_valid(ledger, ret))
                return 0;
        *ret_size = sizeof(*ret) + ret->size;
        /* Of a file that was cut within the frame, nothing is behind it, however long the file will be one day. */
        r = window_get(window, at, *ret_size, &bytes);
        if (r < 0 || !bytes)
                return r;
        bytes += sizeof(*ret);
        if (ret->sequence >= ledger->next_sequence && ret->sequence < UINT64_MAX &&
            ret->records_crc == crc32c(0, bytes, ret->size) && are_records(bytes, ret->size))
                *ret_records = bytes;
        return 0;
}

static int hand_out(const void *records, size_t size, LedgerRecord record, void *userdata, LedgerReport *report) {
        const void *data;
        size_t offset = 0;
        RecordHead head;
        int r = 0;

        while (r == 0 && record_next(records, size, &offset, &head, &data) > 0) {
                report->records++;
                r = record(head.type, head.version, data, head.size, userdata);
        }
        return r;
}

static int read_frames(Ledger *ledger, Window *window, LedgerRecord record, void *userdata, LedgerReport *report) {
        uint64_t at = FRAMES_AT;
        const void *records;
        FrameHead head;
        size_t size;
        int r;

        for (;;) {
                r = find_mark(ledger, window, &at);
                if (r != 0 || at >= window->file_size)
                        return r;
                r = look_at_frame(ledger, window, at, &head, &size, &records);
                if (r != 0)
                        return r;
                if (records) {
                        report->frames++;
                        report->lost += head.sequence - ledger->next_sequence;
                        report->damaged_bytes += at - ledger->end;
                        r = hand_out(records, head.size, record, userdata, report);
                        if (r != 0)
                                return r;
                        ledger->next_sequence = head.sequence + 1;
                        ledger->end = at + size;
                }
                ledger->dirty = !records;
                at += size;
        }
}

int ledger_read(Ledger *ledger, LedgerRecord record, void *userdata, LedgerReport *ret) {
        Window window = { .fd = ledger->fd };
        LedgerReport report = {};
        struct stat st;
        int r;

        if (fstat(ledger->fd, &st) < 0)
                return -errno;
        window.file_size = (uint64_t) st.st_size;
        ledger->ready = ledger->dirty = false;
        ledger->end = FRAMES_AT;
        ledger->next_sequence = 0;
        r = read_frames(ledger, &window, record, userdata, &report);
        free(window.bytes);
        if (r != 0)
                return r;
        report.torn = ledger->dirty;
        ledger->ready = true;
        *ret = report;
        return 0;
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

int ledger_append(Ledger *ledger, const void *records, size_t size) {
        FrameHead head = {
                .mark = ledger->header.mark,
                .generation = ledger->header.generation,
                .sequence = ledger->next_sequence,
                .size = (uint32_t) size,
        };
        struct iovec io[] = {
                { .iov_base = &head, .iov_len = sizeof(head) },
                { .iov_base = (void *) records, .iov_len = size },
        };
        int r;

        if (!ledger->ready)
                return -EBUSY;
        if (size == 0 || size > LEDGER_FRAME_MAX || !are_records(records, size))
                return -EINVAL;
        /* No ledger of ours comes so far. */
        if (ledger->next_sequence == UINT64_MAX)
                return -EOVERFLOW;
        if (ledger->end + sizeof(head) + size > ledger->reserved)
                return -ENOBUFS;
        head.records_crc = crc32c(0, records, size);
        head.head_crc = crc32c(0, &head, offsetof(FrameHead, head_crc));
        r = write_all(ledger->fd, io, ELEMENTSOF(io), sizeof(head) + size, ledger->end);
        if (r < 0) {
                ledger->reserved = ledger->end;
                ledger->dirty = true;
                return r;
        }
        ledger->end += sizeof(head) + size;
        ledger->next_sequence++;
        return 0;
}
