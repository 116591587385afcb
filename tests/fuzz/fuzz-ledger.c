/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ledger against a file of any bytes. Two ways, by the first byte of the input:
 *
 * 0: what follows is the file; its checksums are made right where a header or a frame may be, so that the fuzzer comes
 *    past them.
 * 1: a ledger is written as the input says, frame by frame, then cut and changed as it says. Every frame before the
 *    first change is read, and nothing is read that was not written.
 *
 * Afterwards the ledger goes on: what is appended is read, behind all that was read before. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/record-buffer.h"
#include "host/crc32c.h"
#include "host/ledger.h"

enum {
        FILE_MAX = 1 << 16,
        FRAMES_MAX = 64,
        FRAMES_AT = 128,
        FRAME_HEAD = 40,
};

#define MUST(condition) \
        do { \
                if (!(condition)) { \
                        fprintf(stderr, "%s\n", #condition); \
                        abort(); \
                } \
        } while (0)

typedef struct Input {
        const uint8_t *bytes;
        size_t size;
} Input;

/* Of the second way: frame n has one record of type n with these bytes. */
typedef struct Written {
        const uint8_t *bytes[FRAMES_MAX];
        size_t size[FRAMES_MAX], end[FRAMES_MAX];
        unsigned n;
} Written;

typedef struct Seen {
        const Written *written;
        uint64_t frames, records;
        int last;
} Seen;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned take(Input *input) {
        if (input->size == 0)
                return 0;
        input->size--;
        return *input->bytes++;
}

static int see(uint16_t type, uint16_t version, const void *data, size_t size, void *userdata) {
        volatile uint8_t sum = 0;
        Seen *seen = userdata;

        (void) version;
        MUST((uintptr_t) data % RECORD_ALIGNMENT == 0);
        for (size_t i = 0; i < size; i++)
                sum = (uint8_t) (sum + ((const uint8_t *) data)[i]);
        seen->records++;
        if (!seen->written)
                return 0;
        MUST(type < seen->written->n && (int) type > seen->last && size == seen->written->size[type]);
        MUST(size == 0 || memcmp(data, seen->written->bytes[type], size) == 0);
        seen->frames |= UINT64_C(1) << type;
        seen->last = type;
        return 0;
}

static int append(Ledger *ledger, unsigned type, const uint8_t *bytes, size_t size) {
        RecordBuffer buffer = {};
        int r;

        record_buffer_begin(&buffer, (uint16_t) type, 1);
        record_buffer_put(&buffer, bytes, size);
        MUST(record_buffer_end(&buffer) == 0);
        r = ledger_reserve(ledger, buffer.size);
        if (r == 0)
                r = ledger_append(ledger, buffer.bytes, buffer.size);
        record_buffer_done(&buffer);
        return r;
}

static void read_and_go_on(Ledger *ledger, const Written *written, uint64_t expected) {
        static const uint8_t more[3] = "abc";
        Seen seen = { .written = written, .last = -1 }, again = { .last = -1 };
        LedgerReport report, after;
        int r;

        MUST(ledger_read(ledger, see, &seen, &report) == 0);
        MUST(seen.records == report.records && report.records >= report.frames);
        MUST((seen.frames & expected) == expected);
        r = append(ledger, FRAMES_MAX, more, sizeof(more));
        /* The number of a forged frame may be the last that there is. */
        if (r == -EOVERFLOW && !written)
                return;
        MUST(r == 0);
        MUST(ledger_read(ledger, see, &again, &after) == 0);
        MUST(after.records == report.records + 1 && after.frames == report.frames + 1 && !after.torn);
        MUST(after.lost == report.lost && after.damaged_bytes == report.damaged_bytes);
}

static Ledger *open_file(const uint8_t *bytes, size_t size) {
        int fd = memfd_create("fuzz-ledger", MFD_CLOEXEC);
        Ledger *ledger;

        MUST(fd >= 0 && write(fd, bytes, size) == (ssize_t) size);
        if (ledger_open(fd, &ledger) == 0)
                return ledger;
        close(fd);
        return NULL;
}

/* ---- any bytes ---- */

static void set_crc(uint8_t *crc_at, const uint8_t *of, size_t size) {
        uint32_t crc = crc32c(0, of, size);

        memcpy(crc_at, &crc, sizeof(crc));
}

/* Wherever the mark of the file is, there may be a frame. */
static void make_checksums_right(uint8_t *bytes, size_t size) {
        uint32_t records;

        for (size_t at = 0; at < FRAMES_AT && at + 64 <= size; at += 64)
                if (bytes[at + 40] < 2)
                        set_crc(bytes + at + 60, bytes + at, 60);
        for (size_t at = FRAMES_AT; at + FRAME_HEAD <= size; at += 8) {
                if (memcmp(bytes + at, bytes + 24, 8) != 0)
                        continue;
                memcpy(&records, bytes + at + 24, sizeof(records));
                if (records <= size - at - FRAME_HEAD)
                        set_crc(bytes + at + 28, bytes + at + FRAME_HEAD, records);
                set_crc(bytes + at + 32, bytes + at, 32);
        }
}

static void run_any(const Input *input) {
        static uint8_t bytes[FILE_MAX];
        Ledger *ledger;

        memcpy(bytes, input->bytes, input->size);
        make_checksums_right(bytes, input->size);
        ledger = open_file(bytes, input->size);
        if (ledger)
                read_and_go_on(ledger, /* written= */ NULL, 0);
        ledger_free(ledger);
}

/* ---- written, then damaged ---- */

static void write_frames(Input *input, Ledger *ledger, Written *written) {
        for (unsigned n = take(input) % FRAMES_MAX; written->n < n; written->n++) {
                size_t size = take(input);

                size = size < input->size ? size : input->size;
                written->bytes[written->n] = input->bytes;
                written->size[written->n] = size;
                MUST(append(ledger, written->n, input->bytes, size) == 0);
                written->end[written->n] = ledger_size(ledger);
                input->bytes += size;
                input->size -= size;
        }
}

static void run_written(Input *input) {
        static uint8_t bytes[FILE_MAX];
        Written written = {};
        uint64_t expected = 0;
        size_t size, first;
        Ledger *ledger;

        MUST(ledger_new_memfd(take(input), &ledger) == 0);
        write_frames(input, ledger, &written);
        MUST(ledger_size(ledger) < sizeof(bytes));
        MUST(pread(ledger_fd(ledger), bytes, ledger_size(ledger), 0) == (ssize_t) ledger_size(ledger));
        size = ledger_size(ledger);
        ledger_free(ledger);

        first = size -= (take(input) | take(input) << 8) % (size - FRAMES_AT + 1);
        while (input->size >= 3) {
                size_t at = (take(input) | take(input) << 8) % size;
                uint8_t change = (uint8_t) take(input);

                bytes[at] ^= change;
                if (change != 0 && at < first)
                        first = at;
        }
        for (unsigned i = 0; i < written.n && written.end[i] <= first; i++)
                expected |= UINT64_C(1) << i;
        ledger = open_file(bytes, size);
        /* One of the headers is whole if nothing before the frames was changed. */
        MUST(ledger || first < FRAMES_AT);
        if (ledger)
                read_and_go_on(ledger, &written, expected);
        ledger_free(ledger);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        Input input = { .bytes = data, .size = size };
        unsigned way;

        if (size < 1 || size > FILE_MAX)
                return -1;
        way = take(&input);
        if (way == 0)
                run_any(&input);
        else if (way == 1)
                run_written(&input);
        else
                return -1;
        return 0;
}
