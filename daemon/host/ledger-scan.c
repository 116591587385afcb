/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reading goes through a window of the file by pread(2), never through a mapping: a file in the runtime directory may
 * be cut while it is read, and a mapping of it would be SIGBUS then.
 *
 * What a client chose, such as a name, is in records, and must not pass for a frame where a reader looks for the next
 * valid one behind damage. So each file has a random mark with which its frames begin, and a frame whose head is
 * valid is left as a whole: its records are not searched. That makes reading linear too, whatever the file is. */

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "host/crc32c.h"
#include "host/ledger-private.h"

enum {
        WINDOW_SIZE = 256 * 1024,
};

/* A part of the file in memory. */
typedef struct Window {
        int fd;
        uint64_t file_size;
        uint64_t start;
        size_t size, allocated;
        uint8_t *bytes;
} Window;

struct LedgerScan {
        Window window;
        uint64_t mark, generation;
        uint64_t at;            /* where to go on */
        uint64_t end;           /* of the last valid frame */
        uint64_t next_sequence; /* of the next frame */
        bool dirty;             /* what is behind the end, and was looked at, is not all zero */
        uint64_t n_frames;      /* that were written, if that is known, or 0 */
        uint64_t torn_bytes;    /* behind the last that was written */
};

int ledger_read_at(int fd, void *bytes, size_t size, uint64_t offset, size_t *ret) {
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

bool ledger_are_records(const void *records, size_t size) {
        const void *data;
        size_t offset = 0;
        RecordHead head;
        int r;

        do
                r = record_next(records, size, &offset, &head, &data);
        while (r > 0);
        return r == 0;
}

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
                r = ledger_read_at(window->fd, window->bytes, wanted, at, &window->size);
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

/* Moves to the next place where a frame may begin, or to the end of the file. */
static int find_mark(LedgerScan *scan) {
        Window *window = &scan->window;
        const uint8_t *bytes;
        uint64_t word;
        size_t rest;
        int r;

        while (scan->at < window->file_size) {
                rest = window->file_size - scan->at;
                r = window_get(window, scan->at, rest < sizeof(word) ? rest : sizeof(word), &bytes);
                if (r < 0)
                        return r;
                if (!bytes)
                        /* It was cut meanwhile. */
                        break;
                rest = window_rest(window, scan->at);
                for (; rest >= sizeof(word); rest -= sizeof(word), bytes += sizeof(word), scan->at += sizeof(word)) {
                        memcpy(&word, bytes, sizeof(word));
                        if (word == scan->mark)
                                return 0;
                        scan->dirty = scan->dirty || word != 0;
                }
                for (; rest > 0; rest--, bytes++, scan->at++)
                        scan->dirty = scan->dirty || *bytes != 0;
        }
        scan->at = window->file_size;
        return 0;
}

static bool head_is_valid(const LedgerScan *scan, const FrameHead *head) {
        return head->head_crc == crc32c(0, head, offsetof(FrameHead, head_crc)) && head->mark == scan->mark &&
               head->generation == scan->generation && head->zero == 0 && head->size > 0 &&
               head->size <= LEDGER_FRAME_MAX && head->size % RECORD_ALIGNMENT == 0;
}

/* ret->size: what to go on behind. ret->records: NULL if the frame is not valid. */
static int look_at_frame(LedgerScan *scan, LedgerFrame *ret) {
        const uint8_t *bytes;
        FrameHead head;
        int r;

        *ret = (LedgerFrame) { .offset = scan->at, .size = RECORD_ALIGNMENT };
        r = window_get(&scan->window, scan->at, sizeof(head), &bytes);
        if (r < 0 || !bytes)
                return r;
        memcpy(&head, bytes, sizeof(head));
        if (!head_is_valid(scan, &head))
                return 0;
        ret->size = sizeof(head) + head.size;
        /* Of a file that was cut within the frame, nothing is behind it, however long the file will be one day. */
        r = window_get(&scan->window, scan->at, ret->size, &bytes);
        if (r < 0 || !bytes)
                return r;
        bytes += sizeof(head);
        if (head.sequence < scan->next_sequence || head.sequence == UINT64_MAX ||
            head.records_crc != crc32c(0, bytes, head.size) || !ledger_are_records(bytes, head.size))
                return 0;
        ret->sequence = head.sequence;
        ret->records = bytes;
        ret->records_size = head.size;
        ret->lost = head.sequence - scan->next_sequence;
        ret->damaged_bytes = scan->at - scan->end;
        return 0;
}

static int next_frame(LedgerScan *scan, LedgerFrame *ret) {
        int r;

        for (;;) {
                r = find_mark(scan);
                if (r != 0 || scan->at >= scan->window.file_size)
                        return r;
                r = look_at_frame(scan, ret);
                if (r != 0)
                        return r;
                scan->at += ret->size;
                scan->dirty = !ret->records;
                if (ret->records) {
                        scan->next_sequence = ret->sequence + 1;
                        scan->end = scan->at;
                        return 1;
                }
        }
}

/* ---- all at once ---- */

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

static LedgerScan scan_of(const Ledger *ledger, int fd, uint64_t file_size) {
        return (LedgerScan) {
                .window = { .fd = fd, .file_size = file_size },
                .mark = ledger->header.mark,
                .generation = ledger->header.generation,
                .at = FRAMES_AT,
                .end = FRAMES_AT,
        };
}

static int read_frames(LedgerScan *scan, LedgerRecord record, void *userdata, LedgerReport *report) {
        LedgerFrame frame;
        int r;

        while ((r = next_frame(scan, &frame)) > 0) {
                report->frames++;
                report->lost += frame.lost;
                report->damaged_bytes += frame.damaged_bytes;
                r = hand_out(frame.records, frame.records_size, record, userdata, report);
                if (r != 0)
                        return r;
        }
        return r;
}

int ledger_read(Ledger *ledger, LedgerRecord record, void *userdata, LedgerReport *ret) {
        LedgerReport report = {};
        LedgerScan scan;
        struct stat st;
        int r;

        if (fstat(ledger->fd, &st) < 0)
                return -errno;
        ledger->ready = false;
        scan = scan_of(ledger, ledger->fd, (uint64_t) st.st_size);
        r = read_frames(&scan, record, userdata, &report);
        free(scan.window.bytes);
        if (r != 0)
                return r;
        report.torn = ledger->dirty = scan.dirty;
        ledger->end = scan.end;
        ledger->next_sequence = scan.next_sequence;
        ledger->ready = true;
        *ret = report;
        return 0;
}

/* ---- one frame after the other, while the ledger is written ---- */

/* How much there is behind the last frame that is not zero. */
static int measure_tail(LedgerScan *scan, uint64_t end, uint64_t file_size) {
        Window window = { .fd = scan->window.fd, .file_size = file_size };
        const uint8_t *bytes;
        int r = 0;

        for (uint64_t at = end; at < file_size;) {
                size_t rest;

                r = window_get(&window, at, 1, &bytes);
                if (r < 0 || !bytes)
                        break;
                rest = window_rest(&window, at);
                for (size_t i = 0; i < rest; i++)
                        if (bytes[i] != 0)
                                scan->torn_bytes = at + i + 1 - end;
                at += rest;
        }
        free(window.bytes);
        return r;
}

int ledger_scan_new(const Ledger *ledger, LedgerScan **ret) {
        _cleanup_close_ int fd = -EBADF;
        LedgerScan *scan;
        struct stat st;
        int r;

        if (!ledger->ready)
                return -EBUSY;
        fd = fcntl(ledger->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        scan = malloc(sizeof(*scan));
        if (!scan)
                return -ENOMEM;
        *scan = scan_of(ledger, fd, ledger->end);
        scan->n_frames = ledger->next_sequence;
        r = measure_tail(scan, ledger->end, (uint64_t) st.st_size);
        if (r < 0) {
                free(scan);
                return r;
        }
        TAKE_FD(fd);
        *ret = scan;
        return 0;
}

LedgerScan *ledger_scan_free(LedgerScan *scan) {
        if (!scan)
                return NULL;
        safe_close(scan->window.fd);
        free(scan->window.bytes);
        free(scan);
        return NULL;
}

int ledger_scan_next(LedgerScan *scan, LedgerFrame *ret) {
        int r;

        r = next_frame(scan, ret);
        if (r != 0)
                return r;
        /* What was written is not there, with nothing behind it that would be. */
        *ret = (LedgerFrame) {
                .offset = scan->window.file_size,
                .size = scan->torn_bytes,
                .sequence = scan->n_frames,
                .damaged_bytes = scan->window.file_size - scan->end,
                .lost = scan->n_frames > scan->next_sequence ? scan->n_frames - scan->next_sequence : 0,
        };
        return 0;
}
