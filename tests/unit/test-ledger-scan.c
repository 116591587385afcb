/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Looking at a ledger while it is being written. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "core/record-buffer.h"
#include "host/ledger.h"

enum {
        FRAMES = 5,
        FRAMES_AT = 128,
        FRAME_HEAD = 40,
};

/* Frame n has one record of type n. */
static void append(Ledger *ledger, unsigned n) {
        RecordBuffer buffer = {};
        uint8_t body[100];

        memset(body, (int) n, sizeof(body));
        record_buffer_begin(&buffer, (uint16_t) n, 1);
        record_buffer_put(&buffer, body, sizeof(body) - n);
        assert_int_equal(record_buffer_end(&buffer), 0);
        assert_int_equal(ledger_reserve(ledger, buffer.size), 0);
        assert_int_equal(ledger_append(ledger, buffer.bytes, buffer.size), 0);
        record_buffer_done(&buffer);
}

static Ledger *make(uint64_t ends[static FRAMES + 1]) {
        Ledger *ledger;

        assert_int_equal(ledger_new_memfd(3, &ledger), 0);
        ends[0] = FRAMES_AT;
        for (unsigned i = 0; i < FRAMES; i++) {
                append(ledger, i);
                ends[i + 1] = ledger_size(ledger);
        }
        assert_int_equal(ledger_frames(ledger), FRAMES);
        return ledger;
}

static void flip(const Ledger *ledger, uint64_t at) {
        uint8_t byte;

        assert_int_equal(pread(ledger_fd(ledger), &byte, 1, (off_t) at), 1);
        byte ^= 0x40;
        assert_int_equal(pwrite(ledger_fd(ledger), &byte, 1, (off_t) at), 1);
}

static LedgerScan *scan_of(const Ledger *ledger) {
        LedgerScan *scan;

        assert_int_equal(ledger_scan_new(ledger, &scan), 0);
        return scan;
}

static void assert_frame(LedgerScan *scan, unsigned n, const uint64_t *ends, uint64_t lost, uint64_t damaged) {
        RecordHead head;
        LedgerFrame frame;
        const void *body;
        size_t offset = 0;

        assert_int_equal(ledger_scan_next(scan, &frame), 1);
        assert_int_equal(frame.sequence, n);
        assert_int_equal(frame.offset, ends[n]);
        assert_int_equal(frame.size, ends[n + 1] - ends[n]);
        assert_int_equal(frame.records_size, frame.size - FRAME_HEAD);
        assert_int_equal(frame.lost, lost);
        assert_int_equal(frame.damaged_bytes, damaged);
        assert_int_equal(record_next(frame.records, frame.records_size, &offset, &head, &body), 1);
        assert_int_equal(head.type, n);
        assert_int_equal(((const uint8_t *) body)[0], n);
}

static void assert_end(LedgerScan *scan, uint64_t end, uint64_t lost, uint64_t damaged, uint64_t torn) {
        LedgerFrame frame;

        /* As often as one likes. */
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(ledger_scan_next(scan, &frame), 0);
                assert_null(frame.records);
                assert_int_equal(frame.offset, end);
                assert_int_equal(frame.lost, lost);
                assert_int_equal(frame.damaged_bytes, damaged);
                assert_int_equal(frame.size, torn);
        }
        ledger_scan_free(scan);
}

static void test_every_frame_in_order(void **state) {
        uint64_t ends[FRAMES + 1];
        Ledger *ledger = make(ends);
        LedgerScan *scan = scan_of(ledger);

        (void) state;
        for (unsigned i = 0; i < FRAMES; i++)
                assert_frame(scan, i, ends, 0, 0);
        assert_end(scan, ends[FRAMES], 0, 0, 0);
        ledger_free(ledger);
}

static void test_an_empty_ledger_ends_at_once(void **state) {
        Ledger *ledger;

        (void) state;
        assert_int_equal(ledger_new_memfd(3, &ledger), 0);
        assert_end(scan_of(ledger), FRAMES_AT, 0, 0, 0);
        ledger_free(ledger);
}

static void test_what_is_appended_meanwhile_is_left_to_the_next(void **state) {
        uint64_t ends[FRAMES + 1];
        Ledger *ledger = make(ends);
        LedgerScan *scan = scan_of(ledger);

        (void) state;
        assert_frame(scan, 0, ends, 0, 0);
        for (unsigned i = 0; i < 2000; i++)
                append(ledger, FRAMES);
        for (unsigned i = 1; i < FRAMES; i++)
                assert_frame(scan, i, ends, 0, 0);
        assert_end(scan, ends[FRAMES], 0, 0, 0);
        ledger_free(ledger);
}

static int count(uint16_t type, uint16_t version, const void *data, size_t size, void *userdata) {
        (void) type;
        (void) version;
        (void) data;
        (void) size;
        ++*(unsigned *) userdata;
        return 0;
}

static void test_the_writer_is_not_disturbed(void **state) {
        uint64_t ends[FRAMES + 1];
        Ledger *ledger = make(ends);
        LedgerReport report;
        unsigned n = 0;

        (void) state;
        for (unsigned i = 0; i < 3; i++) {
                LedgerScan *scan = scan_of(ledger);
                LedgerFrame frame;

                assert_int_equal(ledger_scan_next(scan, &frame), 1);
                append(ledger, FRAMES);
                ledger_scan_free(scan);
                append(ledger, FRAMES);
        }
        assert_int_equal(ledger_read(ledger, count, &n, &report), 0);
        assert_int_equal(n, FRAMES + 6);
        assert_false(report.torn);
        assert_int_equal(report.lost, 0);
        ledger_free(ledger);
}

static void test_it_outlives_the_ledger(void **state) {
        uint64_t ends[FRAMES + 1];
        Ledger *ledger = make(ends);
        LedgerScan *scan = scan_of(ledger);

        (void) state;
        ledger_free(ledger);
        for (unsigned i = 0; i < FRAMES; i++)
                assert_frame(scan, i, ends, 0, 0);
        assert_end(scan, ends[FRAMES], 0, 0, 0);
}

static void test_damage_is_told_where_it_is(void **state) {
        uint64_t ends[FRAMES + 1];
        Ledger *ledger = make(ends);
        LedgerScan *scan;

        (void) state;
        flip(ledger, ends[1] + FRAME_HEAD + 20);
        flip(ledger, ends[2] + 17);
        scan = scan_of(ledger);
        assert_frame(scan, 0, ends, 0, 0);
        assert_frame(scan, 3, ends, 2, ends[3] - ends[1]);
        assert_frame(scan, 4, ends, 0, 0);
        assert_end(scan, ends[FRAMES], 0, 0, 0);
        ledger_free(ledger);
}

/* To ledger_read() it would be torn; but this one was acknowledged, as its writer knows. */
static void test_a_last_frame_that_is_damaged_is_not_torn(void **state) {
        uint64_t ends[FRAMES + 1];
        Ledger *ledger = make(ends);
        LedgerScan *scan;

        (void) state;
        flip(ledger, ends[FRAMES] - 20);
        scan = scan_of(ledger);
        for (unsigned i = 0; i < FRAMES - 1; i++)
                assert_frame(scan, i, ends, 0, 0);
        assert_end(scan, ends[FRAMES], 1, ends[FRAMES] - ends[FRAMES - 1], 0);
        ledger_free(ledger);
}

static void test_what_lies_behind_the_last_frame_is_torn(void **state) {
        uint64_t ends[FRAMES + 1];
        Ledger *ledger = make(ends);
        LedgerScan *scan;
        struct stat st;

        (void) state;
        flip(ledger, ends[FRAMES] + 99);
        scan = scan_of(ledger);
        for (unsigned i = 0; i < FRAMES; i++)
                assert_frame(scan, i, ends, 0, 0);
        assert_end(scan, ends[FRAMES], 0, 0, 100);

        assert_int_equal(fstat(ledger_fd(ledger), &st), 0);
        flip(ledger, (uint64_t) st.st_size - 1);
        scan = scan_of(ledger);
        for (unsigned i = 0; i < FRAMES; i++)
                assert_frame(scan, i, ends, 0, 0);
        assert_end(scan, ends[FRAMES], 0, 0, (uint64_t) st.st_size - ends[FRAMES]);
        ledger_free(ledger);
}

static void test_one_that_was_not_read_yet_has_no_end(void **state) {
        uint64_t ends[FRAMES + 1];
        Ledger *ledger = make(ends), *opened;
        LedgerScan *scan;
        int fd = dup(ledger_fd(ledger));

        (void) state;
        assert_int_equal(ledger_open(fd, &opened), 0);
        assert_int_equal(ledger_scan_new(opened, &scan), -EBUSY);
        ledger_free(opened);
        ledger_free(ledger);
        assert_null(ledger_scan_free(NULL));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_frame_in_order),
                cmocka_unit_test(test_an_empty_ledger_ends_at_once),
                cmocka_unit_test(test_what_is_appended_meanwhile_is_left_to_the_next),
                cmocka_unit_test(test_the_writer_is_not_disturbed),
                cmocka_unit_test(test_it_outlives_the_ledger),
                cmocka_unit_test(test_damage_is_told_where_it_is),
                cmocka_unit_test(test_a_last_frame_that_is_damaged_is_not_torn),
                cmocka_unit_test(test_what_lies_behind_the_last_frame_is_torn),
                cmocka_unit_test(test_one_that_was_not_read_yet_has_no_end),
        };

        return cmocka_run_group_tests_name("ledger-scan", tests, NULL, NULL);
}
