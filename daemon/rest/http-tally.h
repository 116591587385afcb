/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How often each address was asked for, how that ended, and how long it took. */

#include "rest/http.h"
#include "rest/openmetrics.h"

#define HTTP_TALLY_BOUNDS 12U
/* Addresses and methods together; there are fewer: what does not exist has one address. */
#define HTTP_TALLY_ROWS   256U
/* Statuses of one of them; more count as the last. */
#define HTTP_TALLY_CODES  16U

typedef struct HttpTallyRow {
        const char *route; /* as api/operations.def has it; it must stay */
        Verb verb;
        struct {
                unsigned status;
                uint64_t count;
        } codes[HTTP_TALLY_CODES];
        uint64_t within[HTTP_TALLY_BOUNDS], total_usec, count;
} HttpTallyRow;

/* All zero is the empty one. */
typedef struct HttpTally {
        HttpTallyRow rows[HTTP_TALLY_ROWS];
        unsigned n_rows;
} HttpTally;

/* status 0: nothing was answered. is_timed: how long it took says something, since it is not the client who ends it. */
void http_tally_add(HttpTally *tally, const char *route, Verb verb, unsigned status, bool is_timed, uint64_t usec);
/* All of its samples. */
void http_tally_requests(const HttpTally *tally, const MetricFamily *family, Text *text);
void http_tally_durations(const HttpTally *tally, const MetricFamily *family, Text *text);
