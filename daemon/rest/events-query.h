/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a subscriber asks for: since=SEQ, vm=NAME and kind=WORD, of which the last two may come several times, or be lists
 * with commas; empty ones are as if they were not there. */

#include "rest/ring.h"

#define EVENTS_QUERY_VMS_MAX 64U

typedef struct EventsQuery {
        bool has_since;
        uint64_t since;
} EventsQuery;

typedef struct EventsMistake {
        Span parameter;
        const char *detail;
} EventsMistake;

enum {
        EVENTS_QUERY_E_MISTAKE = 1, /* *ret_mistake says which; it may point into the query */
};

/* last_event_id: the header, or NULL; a client that comes again has the number of the last event there, and an address as
 * old as its first request. filter must be empty, and is for events_filter_done() in any case. -ENOMEM. */
int events_query_parse(Span query, const char *last_event_id, const Ring *ring, EventsQuery *ret, RingFilter *filter,
                       EventsMistake *ret_mistake);
void events_filter_done(RingFilter *filter);
