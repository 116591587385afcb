/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "core/record-buffer.h"
#include "host/crc32c.h"
#include "host/ledger.h"

/* The records of test ledgers are numbers: frame n has n + 1 records, of type n, in which are bytes of value n. */
enum {
        FRAMES = 5,
        HEADERS_SIZE = 128,
        FRAME_HEAD_SIZE = 40,
        COPY_MAX = 8192,
};

static uint64_t frame_end[FRAMES];

static size_t record_size(unsigned frame, unsigned record) {
        return frame * 3 + record;
}

static size_t frame_size(unsigned frame) {
        size_t size = FRAME_HEAD_SIZE;

        for (unsigned i = 0; i <= frame; i++)
                size += 8 + (record_size(frame, i) + 7) / 8 * 8;
        return size;
}

static int append(Ledger *ledger, unsigned frame) {
        RecordBuffer buffer = {};
        uint8_t bytes[64];
        int r;

        memset(bytes, (int) frame, sizeof(bytes));
        for (unsigned i = 0; i <= frame; i++) {
                record_buffer_begin(&buffer, (uint16_t) frame, 1);
                record_buffer_put(&buffer, bytes, record_size(frame, i));
                assert_int_equal(record_buffer_end(&buffer), 0);
        }
        r = ledger_reserve(ledger, buffer.size);
        if (r == 0)
                r = ledger_append(ledger, buffer.bytes, buffer.size);
        record_buffer_done(&buffer);
        return r;
}

static Ledger *make(unsigned frames) {
        Ledger *ledger;

        assert_int_equal(ledger_new_memfd(7, &ledger), 0);
        for (unsigned i = 0; i < frames; i++) {
                assert_int_equal(append(ledger, i), 0);
                frame_end[i] = ledger_size(ledger);
        }
        return ledger;
}

/* ---- what is read ---- */

typedef struct Seen {
        unsigned records[FRAMES + 1];
        int last, fail_at;
} Seen;

static int see(uint16_t type, uint16_t version, const void *data, size_t size, void *userdata) {
        const uint8_t *bytes = data;
        Seen *seen = userdata;

        assert_int_equal(version, 1);
        assert_true(type <= FRAMES && (int) type >= seen->last);
        assert_int_equal((uintptr_t) data % 8, 0);
        assert_int_equal(size, record_size(type, seen->records[type]));
        for (size_t i = 0; i < size; i++)
                assert_int_equal(bytes[i], type);
        seen->last = type;
        seen->records[type]++;
        return seen->fail_at == type ? -ESTALE : 0;
}

/* Bit n is set if frame n is there, as a whole. */
static unsigned read_all(Ledger *ledger, LedgerReport *ret) {
        Seen seen = { .fail_at = -1 };
        unsigned frames = 0, n = 0, records = 0;

        assert_int_equal(ledger_read(ledger, see, &seen, ret), 0);
        for (unsigned i = 0; i <= FRAMES; i++) {
                if (seen.records[i] == 0)
                        continue;
                assert_int_equal(seen.records[i], i + 1);
                records += i + 1;
                frames |= 1U << i;
                n++;
        }
        assert_int_equal(ret->frames, n);
        assert_int_equal(ret->records, records);
        return frames;
}

/* ---- a file of any bytes ---- */

static uint8_t copy[COPY_MAX];
static size_t copy_size;

static void take_copy(const Ledger *ledger) {
        ssize_t n = pread(ledger_fd(ledger), copy, sizeof(copy), 0);

        assert_true(n > (ssize_t) ledger_size(ledger));
        copy_size = (size_t) n;
}

static int open_bytes(const uint8_t *bytes, size_t size, Ledger **ret) {
        int fd = memfd_create("test-ledger", MFD_CLOEXEC), r;

        assert_true(fd >= 0);
        assert_int_equal(write(fd, bytes, size), size);
        r = ledger_open(fd, ret);
        if (r != 0)
                close(fd);
        return r;
}

/* The ledger goes on after whatever it had to bear. */
static void assert_goes_on(Ledger *ledger, unsigned frames) {
        LedgerReport report;

        assert_int_equal(append(ledger, FRAMES), 0);
        assert_int_equal(read_all(ledger, &report), frames | 1U << FRAMES);
        assert_false(report.torn);
}

/* ---- tests ---- */

static void test_what_was_appended_is_read(void **state) {
        LedgerReport report;
        Ledger *ledger, *again;

        (void) state;
        ledger = make(FRAMES);
        assert_int_equal(ledger_generation(ledger), 7);
        assert_int_equal(frame_end[0], HEADERS_SIZE + frame_size(0));
        assert_int_equal(frame_end[FRAMES - 1], frame_end[FRAMES - 2] + frame_size(FRAMES - 1));

        assert_int_equal(ledger_open(fcntl(ledger_fd(ledger), F_DUPFD_CLOEXEC, 3), &again), 0);
        assert_int_equal(ledger_generation(again), 7);
        assert_int_equal(read_all(again, &report), (1U << FRAMES) - 1);
        assert_false(report.torn);
        assert_int_equal(report.lost, 0);
        assert_int_equal(report.damaged_bytes, 0);
        assert_int_equal(ledger_size(again), ledger_size(ledger));
        assert_goes_on(again, (1U << FRAMES) - 1);
        ledger_free(again);
        ledger_free(ledger);
}

static void test_an_empty_ledger_has_nothing(void **state) {
        LedgerReport report;
        Ledger *ledger = make(0);

        (void) state;
        assert_int_equal(read_all(ledger, &report), 0);
        assert_false(report.torn);
        assert_goes_on(ledger, 0);
        ledger_free(ledger);
        assert_null(ledger_free(NULL));
}

static void test_a_snapshot_is_complete_when_it_was_said(void **state) {
        Ledger *ledger = make(2), *again;

        (void) state;
        assert_false(ledger_is_complete(ledger));
        assert_int_equal(ledger_open(fcntl(ledger_fd(ledger), F_DUPFD_CLOEXEC, 3), &again), 0);
        assert_false(ledger_is_complete(again));
        ledger_free(again);

        assert_int_equal(ledger_complete(ledger), 0);
        assert_true(ledger_is_complete(ledger));
        assert_int_equal(ledger_open(fcntl(ledger_fd(ledger), F_DUPFD_CLOEXEC, 3), &again), 0);
        assert_true(ledger_is_complete(again));
        ledger_free(again);
        ledger_free(ledger);
}

static void test_a_file_that_is_not_empty_is_not_made_a_ledger(void **state) {
        Ledger *ledger = make(1), *second;
        int pipes[2];

        (void) state;
        assert_int_equal(ledger_new(ledger_fd(ledger), 1, &second), -EINVAL);
        assert_int_equal(pipe(pipes), 0);
        assert_int_equal(ledger_new(pipes[0], 1, &second), -EINVAL);
        assert_int_equal(ledger_open(pipes[0], &second), LEDGER_E_NOT_A_LEDGER);
        close(pipes[0]);
        close(pipes[1]);
        ledger_free(ledger);
}

static void test_the_memfd_is_ours_alone_and_does_not_shrink(void **state) {
        Ledger *ledger = make(1);
        struct stat st;

        (void) state;
        assert_int_equal(fstat(ledger_fd(ledger), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_true(fcntl(ledger_fd(ledger), F_GETFD) & FD_CLOEXEC);
        assert_int_equal(ftruncate(ledger_fd(ledger), 0), -1);
        assert_int_equal(errno, EPERM);
        ledger_free(ledger);
}

static void test_cut_anywhere_it_has_every_frame_before_the_cut(void **state) {
        LedgerReport report;
        Ledger *ledger;

        (void) state;
        ledger = make(FRAMES);
        take_copy(ledger);
        ledger_free(ledger);
        for (size_t size = 0; size <= frame_end[FRAMES - 1] + 20; size++) {
                unsigned expected = 0;
                size_t end = HEADERS_SIZE;

                if (size < 64) {
                        assert_int_equal(open_bytes(copy, size, &ledger), LEDGER_E_NOT_A_LEDGER);
                        continue;
                }
                for (unsigned i = 0; i < FRAMES && frame_end[i] <= size; i++) {
                        expected |= 1U << i;
                        end = frame_end[i];
                }
                assert_int_equal(open_bytes(copy, size, &ledger), 0);
                assert_int_equal(read_all(ledger, &report), expected);
                assert_int_equal(ledger_size(ledger), end);
                assert_int_equal(report.damaged_bytes, 0);
                assert_int_equal(report.lost, 0);
                assert_int_equal(report.torn, size > end && size < frame_end[FRAMES - 1]);
                assert_goes_on(ledger, expected);
                ledger_free(ledger);
        }
}

/* The space behind is there already, so this is what a write leaves that a signal cut short. */
static void test_a_torn_last_frame_is_overwritten(void **state) {
        LedgerReport report;
        Ledger *ledger;

        (void) state;
        ledger = make(FRAMES);
        take_copy(ledger);
        ledger_free(ledger);
        for (size_t at = frame_end[FRAMES - 1] - 1; at >= frame_end[FRAMES - 2]; at--) {
                copy[at] = 0;
                assert_int_equal(open_bytes(copy, copy_size, &ledger), 0);
                assert_int_equal(read_all(ledger, &report) & 0xf, 0xf);
                if (report.frames == FRAMES) {
                        /* Only zeros were missing. */
                        assert_false(report.torn);
                        ledger_free(ledger);
                        continue;
                }
                assert_int_equal(report.torn, at > frame_end[FRAMES - 2]);
                assert_int_equal(report.damaged_bytes, 0);
                assert_int_equal(append(ledger, 0), 0);
                assert_int_equal(ledger_size(ledger), frame_end[FRAMES - 2] + frame_size(0));
                ledger_free(ledger);
        }
}

static unsigned frame_at(size_t at) {
        unsigned frame = 0;

        while (frame < FRAMES && frame_end[frame] <= at)
                frame++;
        return frame;
}

static void assert_survives(size_t at) {
        unsigned hit = at < HEADERS_SIZE ? FRAMES : frame_at(at), all = (1U << FRAMES) - 1;
        LedgerReport report;
        Ledger *ledger;

        assert_int_equal(open_bytes(copy, copy_size, &ledger), 0);
        assert_true(ledger_is_complete(ledger));
        assert_int_equal(read_all(ledger, &report), all & ~(1U << hit));
        assert_int_equal(report.torn, at >= HEADERS_SIZE && hit >= FRAMES - 1);
        assert_int_equal(report.lost, hit < FRAMES - 1);
        assert_int_equal(report.damaged_bytes, hit < FRAMES - 1 ? frame_size(hit) : 0);
        assert_goes_on(ledger, all & ~(1U << hit));
        ledger_free(ledger);
}

static void test_any_byte_flipped_costs_the_frame_it_is_in(void **state) {
        Ledger *ledger;

        (void) state;
        ledger = make(FRAMES);
        assert_int_equal(ledger_complete(ledger), 0);
        take_copy(ledger);
        ledger_free(ledger);
        for (size_t at = 0; at < frame_end[FRAMES - 1] + 48; at++)
                for (unsigned bit = 0; bit <= 8; bit++) {
                        uint8_t flip = bit == 8 ? 0xff : (uint8_t) (1U << bit);

                        copy[at] ^= flip;
                        assert_survives(at);
                        copy[at] ^= flip;
                }
}

static void test_of_two_frames_damaged_the_others_are_read(void **state) {
        LedgerReport report;
        Ledger *ledger;

        (void) state;
        ledger = make(FRAMES);
        take_copy(ledger);
        ledger_free(ledger);
        /* The head of one, the records of the other. */
        copy[frame_end[0] + 8] ^= 1;
        copy[frame_end[2] + FRAME_HEAD_SIZE] ^= 1;
        assert_int_equal(open_bytes(copy, copy_size, &ledger), 0);
        assert_int_equal(read_all(ledger, &report), 1U << 0 | 1U << 2 | 1U << 4);
        assert_int_equal(report.lost, 2);
        assert_int_equal(report.damaged_bytes, frame_size(1) + frame_size(3));
        assert_false(report.torn);
        ledger_free(ledger);
}

/* What a client chose must not become a frame, even where the head of the frame around it is damaged. */
static void test_a_frame_within_a_record_is_no_frame(void **state) {
        RecordBuffer buffer = {};
        LedgerReport report;
        Ledger *ledger, *other;
        uint8_t forged[256];

        (void) state;
        /* With all that a client may know: the generation, the number, the checksums. */
        other = make(2);
        assert_int_equal(pread(ledger_fd(other), forged, sizeof(forged), (off_t) frame_end[0]), sizeof(forged));
        ledger_free(other);
        ledger = make(0);
        record_buffer_begin(&buffer, 0, 1);
        record_buffer_put(&buffer, forged, sizeof(forged));
        assert_int_equal(record_buffer_end(&buffer), 0);
        assert_int_equal(ledger_reserve(ledger, buffer.size), 0);
        assert_int_equal(ledger_append(ledger, buffer.bytes, buffer.size), 0);
        record_buffer_done(&buffer);
        assert_int_equal(append(ledger, 2), 0);
        take_copy(ledger);
        ledger_free(ledger);
        copy[HEADERS_SIZE] ^= 1;
        assert_int_equal(open_bytes(copy, copy_size, &ledger), 0);
        assert_int_equal(read_all(ledger, &report), 1U << 2);
        assert_int_equal(report.lost, 1);
        ledger_free(ledger);
}

static void set_header(size_t at, uint32_t value) {
        for (size_t header = 0; header < HEADERS_SIZE; header += 64) {
                uint32_t crc;

                memcpy(copy + header + at, &value, sizeof(value));
                crc = crc32c(0, copy + header, 60);
                memcpy(copy + header + 60, &crc, sizeof(crc));
        }
}

static void test_a_newer_ledger_is_read_if_its_oldest_reader_allows(void **state) {
        LedgerReport report;
        Ledger *ledger;

        (void) state;
        ledger = make(FRAMES);
        take_copy(ledger);
        ledger_free(ledger);
        set_header(8, 2);
        assert_int_equal(open_bytes(copy, copy_size, &ledger), 0);
        assert_int_equal(read_all(ledger, &report), (1U << FRAMES) - 1);
        ledger_free(ledger);
        set_header(12, 2);
        /* Not complete, it is nothing. */
        assert_int_equal(open_bytes(copy, copy_size, &ledger), LEDGER_E_NOT_A_LEDGER);
        set_header(32, 1);
        assert_int_equal(open_bytes(copy, copy_size, &ledger), LEDGER_E_NEWER);
}

static void test_frames_of_another_generation_are_not_read(void **state) {
        LedgerReport report;
        Ledger *ledger;

        (void) state;
        ledger = make(FRAMES);
        take_copy(ledger);
        ledger_free(ledger);
        set_header(16, 8);
        assert_int_equal(open_bytes(copy, copy_size, &ledger), 0);
        assert_int_equal(read_all(ledger, &report), 0);
        assert_true(report.torn);
        assert_goes_on(ledger, 0);
        ledger_free(ledger);
}

static void test_a_file_beyond_all_measure_is_no_ledger(void **state) {
        int fd = memfd_create("test-ledger", MFD_CLOEXEC);
        Ledger *ledger = make(1);

        (void) state;
        take_copy(ledger);
        ledger_free(ledger);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, copy, copy_size), copy_size);
        assert_int_equal(ftruncate(fd, (off_t) LEDGER_SIZE_MAX + 1), 0);
        assert_int_equal(ledger_open(fd, &ledger), LEDGER_E_NOT_A_LEDGER);
        close(fd);
}

static void test_what_the_reader_refuses_is_returned(void **state) {
        Seen seen = { .fail_at = 2 };
        LedgerReport report = { .frames = 99 };
        Ledger *ledger = make(FRAMES);

        (void) state;
        assert_int_equal(ledger_read(ledger, see, &seen, &report), -ESTALE);
        assert_int_equal(seen.last, 2);
        assert_int_equal(report.frames, 99);
        assert_int_equal(append(ledger, FRAMES), -EBUSY);
        ledger_free(ledger);
}

static void test_nothing_is_appended_before_the_end_is_known(void **state) {
        Ledger *ledger = make(1), *again;
        uint64_t word[2] = {};

        (void) state;
        assert_int_equal(ledger_open(fcntl(ledger_fd(ledger), F_DUPFD_CLOEXEC, 3), &again), 0);
        assert_int_equal(ledger_reserve(again, 8), -EBUSY);
        assert_int_equal(ledger_append(again, word, 8), -EBUSY);
        ledger_free(again);
        ledger_free(ledger);
}

static void test_only_whole_records_that_were_reserved_are_appended(void **state) {
        static const uint8_t many[70000];
        RecordHead head = { .type = 1, .version = 1, .size = 16 };
        LedgerReport report;
        Ledger *ledger = make(1);

        (void) state;
        assert_int_equal(ledger_append(ledger, &head, 0), -EINVAL);
        assert_int_equal(ledger_append(ledger, &head, sizeof(head)), -EINVAL);
        assert_int_equal(ledger_append(ledger, &head, 7), -EINVAL);
        assert_int_equal(ledger_append(ledger, many, sizeof(many) / 8 * 8), -ENOBUFS);
        assert_int_equal(ledger_reserve(ledger, LEDGER_FRAME_MAX + 8), -E2BIG);
        assert_int_equal(read_all(ledger, &report), 1);
        assert_false(report.torn);
        ledger_free(ledger);
}

static int count_record(uint16_t type, uint16_t version, const void *data, size_t size, void *userdata) {
        (void) type;
        (void) version;
        (void) data;
        *(uint64_t *) userdata += size;
        return 0;
}

/* Frames that are larger than what is read at a time, and smaller ones across its border. */
static void test_large_frames_among_small_ones(void **state) {
        static uint8_t bytes[700000];
        uint64_t expected = 0, seen = 0;
        RecordBuffer buffer = {};
        LedgerReport report;
        Ledger *ledger = make(0);

        (void) state;
        memset(bytes, 0x5a, sizeof(bytes));
        for (unsigned i = 0; i < 400; i++) {
                size_t size = i % 100 == 50 ? sizeof(bytes) - i : i * 37 % 5000;

                record_buffer_clear(&buffer);
                record_buffer_begin(&buffer, 1, 1);
                record_buffer_put(&buffer, bytes, size);
                assert_int_equal(record_buffer_end(&buffer), 0);
                assert_int_equal(ledger_reserve(ledger, buffer.size), 0);
                assert_int_equal(ledger_append(ledger, buffer.bytes, buffer.size), 0);
                expected += size;
        }
        assert_int_equal(ledger_read(ledger, count_record, &seen, &report), 0);
        assert_int_equal(seen, expected);
        assert_int_equal(report.frames, 400);
        assert_int_equal(report.damaged_bytes, 0);
        assert_false(report.torn);
        record_buffer_done(&buffer);
        ledger_free(ledger);
}

/* RLIMIT_FSIZE stands for a full file system. */
static void test_no_space_is_told_before_anything_is_written(void **state) {
        struct rlimit before, limit;
        Ledger *ledger = make(1);
        int r = 0;

        (void) state;
        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        limit = before;
        /* Not a multiple of what is reserved at a time: the last bytes are used too. */
        limit.rlim_cur = 128 * 1024 + 4096;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        for (unsigned i = 0; i < 100000 && r == 0; i++)
                r = append(ledger, 0);
        assert_int_equal(r, LEDGER_E_NO_SPACE);
        assert_true(ledger_size(ledger) > limit.rlim_cur - 2 * frame_size(0));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(append(ledger, FRAMES - 1), 0);
        ledger_free(ledger);
}

/* ---- in a directory ---- */

static int directory(char path[static 32]) {
        int fd;

        strcpy(path, "/tmp/test-ledger-XXXXXX");
        assert_non_null(mkdtemp(path));
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(fd >= 0);
        return fd;
}

static void remove_directory(int fd, const char *path) {
        unlinkat(fd, "ledger", 0);
        unlinkat(fd, "ledger.new", 0);
        unlinkat(fd, "ledger.lock", 0);
        close(fd);
        assert_int_equal(rmdir(path), 0);
}

static void test_a_new_generation_takes_the_place_of_the_old(void **state) {
        Ledger *first, *second, *found;
        LedgerReport report;
        char path[32];
        int fd = directory(path);

        (void) state;
        assert_int_equal(ledger_open_at(fd, &found), LEDGER_E_NONE);
        assert_int_equal(ledger_new_at(fd, 1, &first), 0);
        assert_int_equal(append(first, 0), 0);
        assert_int_equal(ledger_replace_at(fd, first), -EINVAL);
        assert_int_equal(ledger_open_at(fd, &found), LEDGER_E_NONE);
        assert_int_equal(ledger_complete(first), 0);
        assert_int_equal(ledger_replace_at(fd, first), 0);

        /* One that was never completed is thrown away. */
        assert_int_equal(ledger_new_at(fd, 2, &second), 0);
        ledger_free(second);
        assert_int_equal(ledger_open_at(fd, &found), 0);
        assert_int_equal(ledger_generation(found), 1);
        ledger_free(found);

        assert_int_equal(ledger_new_at(fd, 3, &second), 0);
        assert_int_equal(append(second, 1), 0);
        assert_int_equal(ledger_complete(second), 0);
        assert_int_equal(ledger_replace_at(fd, first), -ESTALE);
        assert_int_equal(ledger_replace_at(fd, second), 0);
        assert_int_equal(ledger_open_at(fd, &found), 0);
        assert_int_equal(ledger_generation(found), 3);
        assert_int_equal(read_all(found, &report), 1U << 1);
        ledger_free(found);
        ledger_free(first);
        ledger_free(second);
        remove_directory(fd, path);
}

static void test_two_daemons_do_not_share_a_directory(void **state) {
        int fd, lock, other;
        char path[32];

        (void) state;
        fd = directory(path);
        assert_int_equal(ledger_lock(fd, &lock), 0);
        assert_int_equal(ledger_lock(fd, &other), LEDGER_E_LOCKED);
        close(lock);
        assert_int_equal(ledger_lock(fd, &other), 0);
        close(other);
        remove_directory(fd, path);
}

static void test_a_file_that_others_may_touch_is_not_ours(void **state) {
        Ledger *ledger;
        char path[32];
        int fd, lock;

        (void) state;
        fd = directory(path);
        assert_int_equal(symlinkat("/dev/null", fd, "ledger"), 0);
        assert_int_equal(ledger_open_at(fd, &ledger), LEDGER_E_UNSAFE);
        unlinkat(fd, "ledger", 0);
        assert_int_equal(mkfifoat(fd, "ledger", 0600), 0);
        assert_int_equal(ledger_open_at(fd, &ledger), LEDGER_E_UNSAFE);
        unlinkat(fd, "ledger", 0);

        assert_int_equal(ledger_new_at(fd, 1, &ledger), 0);
        assert_int_equal(ledger_complete(ledger), 0);
        assert_int_equal(ledger_replace_at(fd, ledger), 0);
        ledger_free(ledger);
        assert_int_equal(fchmodat(fd, "ledger", 0640, 0), 0);
        assert_int_equal(ledger_open_at(fd, &ledger), LEDGER_E_UNSAFE);

        close(openat(fd, "ledger.lock", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
        assert_int_equal(fchmodat(fd, "ledger.lock", 0666, 0), 0);
        assert_int_equal(ledger_lock(fd, &lock), LEDGER_E_UNSAFE);
        remove_directory(fd, path);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_was_appended_is_read),
                cmocka_unit_test(test_an_empty_ledger_has_nothing),
                cmocka_unit_test(test_a_snapshot_is_complete_when_it_was_said),
                cmocka_unit_test(test_a_file_that_is_not_empty_is_not_made_a_ledger),
                cmocka_unit_test(test_the_memfd_is_ours_alone_and_does_not_shrink),
                cmocka_unit_test(test_cut_anywhere_it_has_every_frame_before_the_cut),
                cmocka_unit_test(test_a_torn_last_frame_is_overwritten),
                cmocka_unit_test(test_any_byte_flipped_costs_the_frame_it_is_in),
                cmocka_unit_test(test_of_two_frames_damaged_the_others_are_read),
                cmocka_unit_test(test_a_frame_within_a_record_is_no_frame),
                cmocka_unit_test(test_a_newer_ledger_is_read_if_its_oldest_reader_allows),
                cmocka_unit_test(test_frames_of_another_generation_are_not_read),
                cmocka_unit_test(test_a_file_beyond_all_measure_is_no_ledger),
                cmocka_unit_test(test_what_the_reader_refuses_is_returned),
                cmocka_unit_test(test_nothing_is_appended_before_the_end_is_known),
                cmocka_unit_test(test_only_whole_records_that_were_reserved_are_appended),
                cmocka_unit_test(test_large_frames_among_small_ones),
                cmocka_unit_test(test_no_space_is_told_before_anything_is_written),
                cmocka_unit_test(test_a_new_generation_takes_the_place_of_the_old),
                cmocka_unit_test(test_two_daemons_do_not_share_a_directory),
                cmocka_unit_test(test_a_file_that_others_may_touch_is_not_ours),
        };

        return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
