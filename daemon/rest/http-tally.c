/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/http-tally.h"

#include <string.h>

static const uint64_t bounds[HTTP_TALLY_BOUNDS] = {
        50, 100, 250, 500, 1000, 2500, 5000, 10000, 50000, 250000, 1000000, 5000000,
};

static const char *const verbs[] = {
        [VERB_GET] = "GET",       [VERB_HEAD] = "HEAD",       [VERB_PUT] = "PUT",     [VERB_POST] = "POST",
        [VERB_DELETE] = "DELETE", [VERB_OPTIONS] = "OPTIONS", [VERB_OTHER] = "other",
};

static HttpTallyRow *find_row(HttpTally *tally, const char *route, Verb verb) {
        HttpTallyRow *row;

        for (unsigned i = 0; i < tally->n_rows; i++)
                if (tally->rows[i].verb == verb && strcmp(tally->rows[i].route, route) == 0)
                        return &tally->rows[i];
        if (tally->n_rows == HTTP_TALLY_ROWS)
                return NULL;
        row = &tally->rows[tally->n_rows++];
        row->route = route;
        row->verb = verb;
        return row;
}

static void count_code(HttpTallyRow *row, unsigned status) {
        unsigned i = 0;

        while (i < HTTP_TALLY_CODES - 1 && row->codes[i].count > 0 && row->codes[i].status != status)
                i++;
        if (row->codes[i].count++ == 0)
                row->codes[i].status = status;
}

void http_tally_add(HttpTally *tally, const char *route, Verb verb, unsigned status, bool is_timed, uint64_t usec) {
        HttpTallyRow *row = find_row(tally, route, verb);

        if (!row)
                return;
        count_code(row, status);
        if (!is_timed)
                return;
        row->count++;
        row->total_usec += usec;
        for (unsigned i = 0; i < HTTP_TALLY_BOUNDS; i++)
                row->within[i] += usec <= bounds[i];
}

void http_tally_requests(const HttpTally *tally, const MetricFamily *family, Text *text) {
        for (unsigned i = 0; i < tally->n_rows; i++)
                for (unsigned c = 0; c < HTTP_TALLY_CODES && tally->rows[i].codes[c].count > 0; c++) {
                        sample_begin(text, family, "");
                        sample_label(text, "route", span_of(tally->rows[i].route));
                        sample_label(text, "method", span_of(verbs[tally->rows[i].verb]));
                        sample_label_uint64(text, "code", tally->rows[i].codes[c].status);
                        sample_end(text, tally->rows[i].codes[c].count);
                }
}

void http_tally_durations(const HttpTally *tally, const MetricFamily *family, Text *text) {
        for (unsigned i = 0; i < tally->n_rows; i++) {
                const HttpTallyRow *row = &tally->rows[i];
                const Label labels[] = {
                        { "route", span_of(row->route) },
                        { "method", span_of(verbs[row->verb]) },
                };
                const Histogram histogram = {
                        .bounds_usec = bounds,
                        .within = row->within,
                        .n_bounds = HTTP_TALLY_BOUNDS,
                        .count = row->count,
                        .total_usec = row->total_usec,
                };

                if (row->count > 0)
                        openmetrics_histogram(text, family, labels, 2, &histogram);
        }
}
