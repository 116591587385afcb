/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The text of OpenMetrics, and what becomes of privmemd's replies in it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rest/http-tally.h"
#include "rest/metrics-page.h"

static const MetricFamily gauge = { "size_bytes", METRIC_GAUGE, "bytes", "How much." };
static const MetricFamily counter = { "calls", METRIC_COUNTER, NULL, "How often." };
static const MetricFamily histogram = { "time_seconds", METRIC_HISTOGRAM, "seconds", "How long." };
static const MetricFamily info = { "build", METRIC_INFO, NULL, "Which." };

#define assert_text(t, expected) \
        do { \
                assert_false((t).failed); \
                assert_string_equal((t).text, expected); \
                text_done(&(t)); \
        } while (0)

static void heads(void **state) {
        Text text = {};

        (void) state;
        openmetrics_head(&text, &gauge, /* is_openmetrics= */ true);
        assert_text(text, "# HELP size_bytes How much.\n# TYPE size_bytes gauge\n# UNIT size_bytes bytes\n");
        openmetrics_head(&text, &gauge, /* is_openmetrics= */ false);
        assert_text(text, "# HELP size_bytes How much.\n# TYPE size_bytes gauge\n");
        openmetrics_head(&text, &counter, /* is_openmetrics= */ true);
        assert_text(text, "# HELP calls How often.\n# TYPE calls counter\n");
        openmetrics_head(&text, &counter, /* is_openmetrics= */ false);
        assert_text(text, "# HELP calls_total How often.\n# TYPE calls_total counter\n");
        openmetrics_head(&text, &info, /* is_openmetrics= */ true);
        assert_text(text, "# HELP build Which.\n# TYPE build info\n");
        openmetrics_head(&text, &info, /* is_openmetrics= */ false);
        assert_text(text, "# HELP build_info Which.\n# TYPE build_info gauge\n");
}

static void samples(void **state) {
        Text text = {};

        (void) state;
        sample_begin(&text, &gauge, "");
        sample_end(&text, UINT64_MAX);
        assert_text(text, "size_bytes 18446744073709551615\n");
        sample_begin(&text, &counter, "");
        sample_label(&text, "vm", SPAN("web1"));
        sample_label_uint64(&text, "uid", 7);
        sample_end(&text, 0);
        assert_text(text, "calls_total{vm=\"web1\",uid=\"7\"} 0\n");
        sample_begin(&text, &gauge, "");
        sample_end_usec(&text, 1500000);
        sample_begin(&text, &gauge, "");
        sample_end_usec(&text, 10);
        sample_begin(&text, &gauge, "");
        sample_end_usec(&text, 3000000);
        assert_text(text, "size_bytes 1.5\nsize_bytes 0.00001\nsize_bytes 3.0\n");
}

static void labels_are_escaped(void **state) {
        Text text = {};

        (void) state;
        sample_begin(&text, &gauge, "");
        sample_label(&text, "a", SPAN("x\"y\\z\nend"));
        sample_label(&text, "b", SPAN("\""));
        sample_label(&text, "c", SPAN(""));
        sample_label(&text, "d", SPAN("\\n"));
        sample_end(&text, 1);
        assert_text(text, "size_bytes{a=\"x\\\"y\\\\z\\nend\",b=\"\\\"\",c=\"\",d=\"\\\\n\"} 1\n");
}

static void histograms(void **state) {
        static const uint64_t bounds[] = { 50, 1000000 }, within[] = { 2, 3 };
        const Histogram h = { bounds, within, 2, /* count= */ 4, /* total_usec= */ 2500000 };
        const Label label = { "method", SPAN("Ping") };
        Text text = {};

        (void) state;
        openmetrics_histogram(&text, &histogram, &label, 1, &h);
        assert_text(text, "time_seconds_bucket{method=\"Ping\",le=\"0.00005\"} 2\n"
                          "time_seconds_bucket{method=\"Ping\",le=\"1.0\"} 3\n"
                          "time_seconds_bucket{method=\"Ping\",le=\"+Inf\"} 4\n"
                          "time_seconds_sum{method=\"Ping\"} 2.5\n"
                          "time_seconds_count{method=\"Ping\"} 4\n");
        openmetrics_histogram(&text, &histogram, NULL, 0, &(Histogram) {});
        assert_text(text, "time_seconds_bucket{le=\"+Inf\"} 0\ntime_seconds_sum 0.0\ntime_seconds_count 0\n");
}

static void requests(void **state) {
        static HttpTally tally;
        Text text = {};

        (void) state;
        http_tally_add(&tally, "/v1/vms", VERB_GET, 200, true, 60);
        http_tally_add(&tally, "/v1/vms", VERB_GET, 404, true, 40);
        http_tally_add(&tally, "/v1/vms", VERB_GET, 200, true, 6000000);
        http_tally_add(&tally, "/v1/vms", VERB_PUT, 0, false, 1);
        http_tally_requests(&tally, &counter, &text);
        assert_text(text, "calls_total{route=\"/v1/vms\",method=\"GET\",code=\"200\"} 2\n"
                          "calls_total{route=\"/v1/vms\",method=\"GET\",code=\"404\"} 1\n"
                          "calls_total{route=\"/v1/vms\",method=\"PUT\",code=\"0\"} 1\n");
        http_tally_durations(&tally, &histogram, &text);
        assert_non_null(strstr(text.text, "route=\"/v1/vms\",method=\"GET\",le=\"0.00005\"} 1\n"));
        assert_non_null(strstr(text.text, "route=\"/v1/vms\",method=\"GET\",le=\"5.0\"} 2\n"));
        assert_non_null(strstr(text.text, "_count{route=\"/v1/vms\",method=\"GET\"} 3\n"));
        assert_null(strstr(text.text, "PUT"));
        text_done(&text);
}

static void tally_is_bounded(void **state) {
        static HttpTally tally;
        static char routes[HTTP_TALLY_ROWS + 10][8];

        (void) state;
        for (unsigned i = 0; i < HTTP_TALLY_ROWS + 10; i++) {
                snprintf(routes[i], sizeof(routes[i]), "/%u", i);
                for (unsigned status = 200; status < 250; status++)
                        http_tally_add(&tally, routes[i], VERB_GET, status, true, 1);
        }
        assert_int_equal(tally.n_rows, HTTP_TALLY_ROWS);
        assert_int_equal(tally.rows[HTTP_TALLY_ROWS - 1].count, 50);
        assert_int_equal(tally.rows[0].codes[HTTP_TALLY_CODES - 1].count, 50 - (HTTP_TALLY_CODES - 1));
}

/* ---- pages ---- */

static void read_all(const MetricsPage *page, bool is_openmetrics, size_t step, Text *ret) {
        MetricsCursor cursor = { .is_openmetrics = is_openmetrics };
        char buffer[512];
        size_t n;

        while ((n = metrics_page_read(page, &cursor, buffer, step)) > 0)
                text_add(ret, buffer, n);
        assert_false(cursor.head.failed);
        text_done(&cursor.head);
}

static const char vms[] =
        "{\"metrics\":[{\"vm\":\"web1\",\"state\":\"retained\",\"memory\":[{\"kind\":\"memfd\",\"pageSize\":4096,"
        "\"backings\":2,\"promisedBytes\":8192,\"residentBytes\":4096},{\"kind\":\"hugetlb\",\"pageSize\":2097152,"
        "\"numaNodes\":[0,1],\"backings\":1,\"promisedBytes\":2097152,\"residentBytes\":0}],\"slots\":3,\"claims\":1,"
        "\"privateRanges\":4,\"verdicts\":[{\"rule\":\"gfn_overlap\",\"refused\":5,\"observed\":0,\"allowed\":0}]}]}";

static void page_of_a_vm(void **state) {
        MetricsPage *page = metrics_page_new(METRICS_PAGE_BYTES_MAX);
        Text text = {};

        (void) state;
        assert_true(metrics_page_add_vms(page, SPAN(vms)));
        read_all(page, /* is_openmetrics= */ true, 512, &text);
        assert_non_null(strstr(text.text, "\nprivmem_vm_state{vm=\"web1\",state=\"retained\"} 1\n"));
        assert_non_null(strstr(text.text,
                               "privmem_vm_promised_bytes{vm=\"web1\",kind=\"hugetlb\",page_size=\"2097152\","
                               "node=\"0,1\"} 2097152\n"));
        assert_non_null(strstr(text.text, "privmem_vm_retained_bytes{vm=\"web1\",kind=\"memfd\",page_size=\"4096\","
                                          "node=\"any\"} 4096\n"));
        assert_non_null(strstr(text.text, "\nprivmem_vm_slots_refused_total{vm=\"web1\",rule=\"gfn_overlap\"} 5\n"));
        assert_null(strstr(text.text, "privmem_vm_aliases"));
        assert_string_equal(text.text + text.size - 6, "# EOF\n");
        text_done(&text);
        read_all(page, /* is_openmetrics= */ false, 512, &text);
        assert_null(strstr(text.text, "# EOF"));
        assert_null(strstr(text.text, "# UNIT"));
        assert_non_null(strstr(text.text, "# TYPE privmem_vm_slots_refused_total counter\n"));
        text_done(&text);
        assert_null(metrics_page_unref(page));
}

static void page_in_pieces(void **state) {
        MetricsPage *page = metrics_page_new(METRICS_PAGE_BYTES_MAX);
        Text whole = {};

        (void) state;
        metrics_page_add(page, METRIC_UP, 1);
        assert_true(metrics_page_add_vms(page, SPAN(vms)));
        metrics_page_add_process(page);
        read_all(page, /* is_openmetrics= */ true, 512, &whole);
        for (size_t step = 1; step < 100; step += 7) {
                Text text = {};

                read_all(page, /* is_openmetrics= */ true, step, &text);
                assert_string_equal(text.text, whole.text);
                text_done(&text);
        }
        text_done(&whole);
        metrics_page_unref(page);
}

static void page_without_anything(void **state) {
        MetricsPage *page = metrics_page_new(METRICS_PAGE_BYTES_MAX);
        Text text = {};

        (void) state;
        read_all(page, /* is_openmetrics= */ true, 512, &text);
        assert_text(text, "# EOF\n");
        read_all(page, /* is_openmetrics= */ false, 512, &text);
        assert_int_equal(text.size, 0);
        metrics_page_unref(page);
}

static void page_is_bounded(void **state) {
        MetricsPage *page = metrics_page_new(/* bytes_max= */ 10000);
        Text text = {};

        (void) state;
        for (unsigned i = 0; i < 1000; i++)
                assert_true(metrics_page_add_vms(page, SPAN(vms)));
        assert_true(page->omitted > 900 && page->omitted < 1000);
        read_all(page, /* is_openmetrics= */ true, 512, &text);
        assert_true(text.size < 15000);
        text_done(&text);
        metrics_page_unref(page);
}

static void replies_that_make_no_sense(void **state) {
        static const char *const texts[] = { "",
                                             "3",
                                             "[]",
                                             "{}",
                                             "{\"metrics\":3}",
                                             "{\"metrics\":[{}]}",
                                             "{\"metrics\":[{\"memory\":[]}]}",
                                             "{\"hugePagePools\":[]}" };

        (void) state;
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
                MetricsPage *page = metrics_page_new(METRICS_PAGE_BYTES_MAX);

                assert_false(metrics_page_add_vms(page, span_of(texts[i])));
                assert_false(metrics_page_add_host(page, span_of(texts[i])));
                assert_false(metrics_page_add_daemon(page, span_of(texts[i])));
                metrics_page_unref(page);
        }
}

static void every_family_is_described(void **state) {
        (void) state;
        for (unsigned i = 0; i < _METRIC_MAX; i++) {
                const MetricFamily *family = &metric_families[i];

                assert_non_null(family->name);
                assert_true(family->help[strlen(family->help) - 1] == '.');
                if (family->unit)
                        assert_string_equal(strrchr(family->name, '_') + 1, family->unit);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(heads),
                cmocka_unit_test(samples),
                cmocka_unit_test(labels_are_escaped),
                cmocka_unit_test(histograms),
                cmocka_unit_test(requests),
                cmocka_unit_test(tally_is_bounded),
                cmocka_unit_test(page_of_a_vm),
                cmocka_unit_test(page_in_pieces),
                cmocka_unit_test(page_without_anything),
                cmocka_unit_test(page_is_bounded),
                cmocka_unit_test(replies_that_make_no_sense),
                cmocka_unit_test(every_family_is_described),
        };

        return cmocka_run_group_tests_name("openmetrics", tests, NULL, NULL);
}
