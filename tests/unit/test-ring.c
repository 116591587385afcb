/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ring of events: what each reader gets, and what it is told when it comes too late. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rest/events-query.h"
#include "rest/ring.h"

#define ENTRIES 8U
#define KINDS   "subscribed gap vm_registered slot_set"

static Ring *ring;

static int setup(void **state) {
        (void) state;
        return ring_new(&(RingSettings) { .entries = ENTRIES, .bytes = 4096, .kinds = KINDS }, &ring);
}

static int teardown(void **state) {
        (void) state;
        ring = ring_free(ring);
        return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

static int add(uint64_t sequence, const char *kind, const char *vm) {
        char text[200];

        snprintf(text, sizeof(text), "{\"sequence\":%llu,\"timestampUSec\":1,\"kind\":\"%s\"%s%s%s}",
                 (unsigned long long) sequence, kind, vm ? ",\"vm\":\"" : "", vm ? vm : "", vm ? "\"" : "");
        return ring_add(ring, span_of(text));
}

static void fill(uint64_t from, uint64_t to) {
        for (uint64_t sequence = from; sequence <= to; sequence++)
                assert_int_equal(add(sequence, "slot_set", "vm"), 0);
}

/* The sequence number of the next entry; 0: there is none. */
static uint64_t next_of(RingCursor *cursor, const RingFilter *filter) {
        RingEntry *entry = NULL;
        uint64_t first_lost, sequence;
        int r;

        r = ring_next(ring, filter, cursor, &entry, &first_lost);
        assert_int_not_equal(r, RING_GAP);
        if (r == RING_NOTHING)
                return 0;
        sequence = entry->sequence;
        ring_entry_unref(entry);
        return sequence;
}

static uint64_t next(RingCursor *cursor) {
        return next_of(cursor, &(RingFilter) {});
}

static void assert_gap(RingCursor *cursor, uint64_t first, uint64_t last) {
        RingEntry *entry = NULL;
        uint64_t first_lost;

        assert_int_equal(ring_next(ring, &(RingFilter) {}, cursor, &entry, &first_lost), RING_GAP);
        assert_int_equal(first_lost, first);
        assert_int_equal(cursor->sequence, last);
}

static void assert_all(RingCursor *cursor, uint64_t from, uint64_t to) {
        for (uint64_t sequence = from; sequence <= to; sequence++)
                assert_int_equal(next(cursor), sequence);
        assert_int_equal(next(cursor), 0);
}

static void both_forms(void **state) {
        RingCursor cursor = ring_seek(ring, 0);
        RingEntry *entry = NULL;
        uint64_t first_lost;

        (void) state;
        ring_begin(ring, 100);
        assert_int_equal(add(101, "vm_registered", "web"), 0);
        assert_int_equal(ring_next(ring, &(RingFilter) {}, &cursor, &entry, &first_lost), RING_ENTRY);
        assert_int_equal(entry->size, strlen("id: 101\nevent: vm_registered\ndata: ") + 68 + 2);
        assert_memory_equal(entry->text, "id: 101\nevent: vm_registered\ndata: {\"sequence\":101,", 51);
        assert_memory_equal(entry->text + entry->size - 8, "\"web\"}\n\n", 8);
        assert_int_equal(entry->text[entry->json], '{');
        assert_true(span_is(entry->vm, "web"));
        assert_int_equal(entry->peer.size, 0);
        ring_entry_unref(entry);
}

static void reader_from_the_end(void **state) {
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 100);
        fill(101, 103);
        cursor = ring_end(ring);
        assert_int_equal(next(&cursor), 0);
        fill(104, 105);
        assert_all(&cursor, 104, 105);
}

static void reader_since_an_event(void **state) {
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 100);
        fill(101, 105);
        for (uint64_t since = 100; since <= 105; since++) {
                cursor = ring_seek(ring, since);
                assert_all(&cursor, since + 1, 105);
        }
        cursor = ring_seek(ring, 0);
        assert_all(&cursor, 101, 105);
}

static void reader_at_the_edge(void **state) {
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 100);
        fill(101, 102);
        cursor = ring_seek(ring, 0);
        assert_int_equal(next(&cursor), 101);
        fill(103, 101 + ENTRIES);
        assert_all(&cursor, 102, 101 + ENTRIES);
}

static void slow_reader(void **state) {
        RingCursor slow, fast;

        (void) state;
        ring_begin(ring, 100);
        slow = fast = ring_end(ring);
        for (uint64_t sequence = 101; sequence <= 120; sequence++) {
                fill(sequence, sequence);
                assert_all(&fast, sequence, sequence);
        }
        assert_gap(&slow, 101, 120 - ENTRIES);
        assert_all(&slow, 121 - ENTRIES, 120);
}

/* Whatever the speed of each: every number comes once and in order, or is named in a gap. */
static void many_readers(void **state) {
        enum {
                READERS = 20,
                STEPS = 20000
        };
        RingCursor cursors[READERS];
        uint64_t known[READERS], last = 100, gaps = 0;
        unsigned seed = 1;

        (void) state;
        ring_begin(ring, last);
        for (unsigned i = 0; i < READERS; i++) {
                cursors[i] = ring_end(ring);
                known[i] = last;
        }
        for (unsigned step = 0; step < STEPS; step++) {
                unsigned i = (unsigned) rand_r(&seed) % READERS;
                RingEntry *entry = NULL;
                uint64_t first_lost;

                if ((unsigned) rand_r(&seed) % 4 == 0) {
                        last++;
                        fill(last, last);
                }
                switch (ring_next(ring, &(RingFilter) {}, &cursors[i], &entry, &first_lost)) {
                case RING_ENTRY:
                        assert_int_equal(entry->sequence, known[i] + 1);
                        known[i] = entry->sequence;
                        ring_entry_unref(entry);
                        break;
                case RING_GAP:
                        assert_int_equal(first_lost, known[i] + 1);
                        known[i] = cursors[i].sequence;
                        gaps++;
                        break;
                default:
                        assert_int_equal(known[i], last);
                }
        }
        assert_true(gaps > 100);
}

static void entry_outlives_the_ring(void **state) {
        RingCursor cursor;
        RingEntry *entry = NULL;
        uint64_t first_lost;

        (void) state;
        ring_begin(ring, 100);
        cursor = ring_end(ring);
        fill(101, 101);
        assert_int_equal(ring_next(ring, &(RingFilter) {}, &cursor, &entry, &first_lost), RING_ENTRY);
        fill(102, 150);
        assert_int_equal(entry->sequence, 101);
        assert_memory_equal(entry->text, "id: 101\n", 8);
        assert_null(ring_entry_unref(entry));
}

static void bytes_are_bounded(void **state) {
        char vm[1001] = {};

        (void) state;
        memset(vm, 'x', 100);
        ring_begin(ring, 100);
        for (uint64_t sequence = 101; sequence < 200; sequence++) {
                assert_int_equal(add(sequence, "slot_set", vm), 0);
                assert_true(ring_bytes(ring) <= 4096);
        }
        assert_true(ring_bytes(ring) > 0);
}

static void entry_larger_than_the_ring(void **state) {
        char text[5000];
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 100);
        cursor = ring_end(ring);
        fill(101, 103);
        snprintf(text, sizeof(text), "{\"sequence\":104,\"kind\":\"slot_set\",\"vm\":\"%04500d\"}", 1);
        assert_int_equal(ring_add(ring, span_of(text)), 0);
        assert_gap(&cursor, 101, 103);
        assert_all(&cursor, 104, 104);
        fill(105, 105);
        assert_all(&cursor, 105, 105);
}

static void since_what_is_not_kept(void **state) {
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 100);
        fill(101, 120);
        cursor = ring_seek(ring, 0);
        assert_gap(&cursor, 101, 120 - ENTRIES);
        assert_all(&cursor, 121 - ENTRIES, 120);
        cursor = ring_seek(ring, 50);
        assert_gap(&cursor, 51, 120 - ENTRIES);
}

static void since_the_future(void **state) {
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 100);
        cursor = ring_seek(ring, 200);
        assert_gap(&cursor, 0, 100);
        fill(101, 102);
        assert_all(&cursor, 101, 102);
        cursor = ring_seek(ring, 103);
        assert_gap(&cursor, 0, 102);
        fill(103, 103);
        assert_all(&cursor, 103, 103);
}

static void since_another_life(void **state) {
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 100);
        cursor = ring_seek(ring, 50);
        assert_int_equal(next(&cursor), 0);
        fill(101, 102);
        assert_gap(&cursor, 51, 100);
        assert_all(&cursor, 101, 102);
}

/* What privmemd has kept comes behind its greeting; who does not ask for it does not get it. */
static void reader_that_comes_before_all_is_there(void **state) {
        RingCursor from_now, from_start, from_the_middle;

        (void) state;
        ring_begin(ring, 105);
        from_now = ring_end(ring);
        from_start = ring_seek(ring, 0);
        from_the_middle = ring_seek(ring, 103);
        fill(101, 105);
        fill(106, 106);
        assert_all(&from_now, 106, 106);
        assert_all(&from_start, 101, 106);
        assert_all(&from_the_middle, 104, 106);
}

static void restart_of_privmemd(void **state) {
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 100);
        fill(101, 102);
        cursor = ring_end(ring);
        ring_begin(ring, 1000);
        assert_int_equal(add(1000, "gap", NULL), 0);
        fill(1001, 1002);
        assert_all(&cursor, 1000, 1002);
        cursor = ring_seek(ring, 101);
        assert_int_equal(next(&cursor), 102);
        assert_int_equal(next(&cursor), 1000);
}

static void restart_with_an_earlier_clock(void **state) {
        RingCursor cursor;

        (void) state;
        ring_begin(ring, 1000);
        fill(1001, 1003);
        cursor = ring_end(ring);
        ring_begin(ring, 100);
        assert_int_equal(add(100, "gap", NULL), 0);
        assert_gap(&cursor, 0, 0);
        assert_all(&cursor, 100, 100);
        fill(101, 101);
        assert_all(&cursor, 101, 101);
}

static void filters(void **state) {
        Span names[] = { SPAN("b"), SPAN("c") };
        RingFilter of_vms = { .vms = names, .n_vms = 2 }, of_kind = {}, of_both;
        RingCursor cursor;

        (void) state;
        assert_true(ring_filter_add_kind(ring, &of_kind, SPAN("vm_registered")));
        assert_false(ring_filter_add_kind(ring, &of_kind, SPAN("vm_register")));
        assert_false(ring_filter_add_kind(ring, &of_kind, SPAN("")));
        of_both = of_vms;
        of_both.kinds = of_kind.kinds;
        ring_begin(ring, 100);
        assert_int_equal(add(101, "vm_registered", "a"), 0);
        assert_int_equal(add(102, "slot_set", "b"), 0);
        assert_int_equal(add(103, "vm_registered", "c"), 0);
        assert_int_equal(ring_add(ring, SPAN("{\"sequence\":104,\"kind\":\"slot_set\",\"vm\":\"d\",\"peer\":\"b\"}")),
                         0);
        assert_int_equal(add(105, "meteor", "b"), 0);
        assert_int_equal(add(106, "gap", NULL), 0);
        cursor = ring_seek(ring, 0);
        for (uint64_t sequence = 102; sequence <= 106; sequence++)
                assert_int_equal(next_of(&cursor, &of_vms), sequence);
        cursor = ring_seek(ring, 0);
        assert_int_equal(next_of(&cursor, &of_kind), 101);
        assert_int_equal(next_of(&cursor, &of_kind), 103);
        assert_int_equal(next_of(&cursor, &of_kind), 106);
        assert_int_equal(next_of(&cursor, &of_kind), 0);
        assert_int_equal(cursor.sequence, 106);
        cursor = ring_seek(ring, 0);
        assert_int_equal(next_of(&cursor, &of_both), 103);
        assert_int_equal(next_of(&cursor, &of_both), 106);
}

static void no_event(void **state) {
        static const char *const texts[] = {
                "",
                "[]",
                "{}",
                "{\"sequence\":1}",
                "{\"kind\":\"gap\"}",
                "{\"sequence\":-1,\"kind\":\"gap\"}",
                "{\"sequence\":1,\"kind\":3}",
                "{\"sequence\":1,\"kind\":\"gap\",\n\"vm\":\"a\"}",
                "{\"sequence\":1,\"kind\":\"gap\",\r\"vm\":\"a\"}",
        };

        (void) state;
        ring_begin(ring, 0);
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
                assert_int_equal(ring_add(ring, span_of(texts[i])), -EBADMSG);
        assert_int_equal(ring_last(ring), 0);
}

/* ---- queries ---- */

static int ask(const char *text, const char *last_event_id, EventsQuery *query, RingFilter *filter) {
        EventsMistake mistake;

        *filter = (RingFilter) {};
        return events_query_parse(text ? span_of(text) : (Span) {}, last_event_id, ring, query, filter, &mistake);
}

static void good_queries(void **state) {
        RingFilter filter;
        EventsQuery query;

        (void) state;
        assert_int_equal(ask(NULL, NULL, &query, &filter), 0);
        assert_false(query.has_since);
        assert_int_equal(filter.n_vms, 0);
        assert_int_equal(filter.kinds, 0);
        assert_int_equal(ask("since=12&vm=a,b&vm=c%3ad%2Ce&kind=gap,slot_set", NULL, &query, &filter), 0);
        assert_true(query.has_since);
        assert_int_equal(query.since, 12);
        assert_int_equal(filter.n_vms, 4);
        assert_true(span_is(filter.vms[0], "a"));
        assert_true(span_is(filter.vms[1], "b"));
        assert_true(span_is(filter.vms[2], "c:d"));
        assert_true(span_is(filter.vms[3], "e"));
        assert_int_equal(filter.kinds, 1U << 1 | 1U << 3);
        events_filter_done(&filter);
        assert_int_equal(ask("since=0&vm=&kind=", "18446744073709551615", &query, &filter), 0);
        assert_true(query.since == UINT64_MAX);
        assert_int_equal(filter.n_vms, 0);
        assert_int_equal(filter.kinds, 0);
        events_filter_done(&filter);
}

static void bad_queries(void **state) {
        static const char *const texts[] = {
                "x=1",
                "since",
                "since=",
                "since=-1",
                "since=1&since=2",
                "since=18446744073709551616",
                "since=0x1",
                "vm",
                "vm=%",
                "vm=%4",
                "vm=%zz",
                "kind=gap,",
                "kind=meteor",
                "kind=gap,meteor",
                "&",
                "=",
                "vm=a&",
                "Vm=a",
        };
        RingFilter filter;
        EventsQuery query;

        (void) state;
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
                if (ask(texts[i], NULL, &query, &filter) != EVENTS_QUERY_E_MISTAKE)
                        fail_msg("%s passes", texts[i]);
                events_filter_done(&filter);
        }
        assert_int_equal(ask(NULL, "", &query, &filter), EVENTS_QUERY_E_MISTAKE);
        assert_int_equal(ask(NULL, "abc", &query, &filter), EVENTS_QUERY_E_MISTAKE);
        events_filter_done(&filter);
}

static void as_many_vms_as_may_be(void **state) {
        char text[1024] = "vm=";
        RingFilter filter;
        EventsQuery query;

        (void) state;
        for (unsigned i = 0; i < EVENTS_QUERY_VMS_MAX; i++)
                strcat(text, i > 0 ? ",a" : "a");
        assert_int_equal(ask(text, NULL, &query, &filter), 0);
        assert_int_equal(filter.n_vms, EVENTS_QUERY_VMS_MAX);
        events_filter_done(&filter);
        strcat(text, "&vm=b");
        assert_int_equal(ask(text, NULL, &query, &filter), EVENTS_QUERY_E_MISTAKE);
        events_filter_done(&filter);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(both_forms),
                TEST(reader_from_the_end),
                TEST(reader_since_an_event),
                TEST(reader_at_the_edge),
                TEST(slow_reader),
                TEST(many_readers),
                TEST(entry_outlives_the_ring),
                TEST(bytes_are_bounded),
                TEST(entry_larger_than_the_ring),
                TEST(since_what_is_not_kept),
                TEST(since_the_future),
                TEST(since_another_life),
                TEST(reader_that_comes_before_all_is_there),
                TEST(restart_of_privmemd),
                TEST(restart_with_an_earlier_clock),
                TEST(filters),
                TEST(no_event),
                TEST(good_queries),
                TEST(bad_queries),
                TEST(as_many_vms_as_may_be),
        };

        return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
