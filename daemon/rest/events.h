/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* GET /v1/events: the events of privmemd, as text/event-stream or application/x-ndjson.
 *
 * There is one subscription to privmemd, whoever listens here, and one ring of the newest events. A subscriber has a cursor
 * into it and no buffer of its own. When privmemd ends, the subscription begins again behind the newest event, and what
 * privmemd says then of events that are lost goes to everybody. */

#include "rest/gateway.h"
#include "rest/ring.h"

typedef struct Events Events;

typedef struct EventsSettings {
        RingSettings ring;       /* without kinds */
        unsigned subscribers;    /* at once */
        unsigned per_caller;     /* of them */
        uint64_t heartbeat_usec; /* silence is broken by then */
} EventsSettings;

/* How many there may be is settings.h's. */
#define EVENTS_SETTINGS_DEFAULT ((EventsSettings) { .ring = RING_SETTINGS_DEFAULT, .heartbeat_usec = 15 * LOOP_SEC })

/* Subscribes, and adds its address to the gateway. */
int events_new(Loop *loop, Upstream *upstream, Gateway *gateway, const EventsSettings *settings, Events **ret);
/* After http_free(), which ends those who listen. */
Events *events_free(Events *events);

typedef struct EventsReport {
        unsigned subscribers;
        uint64_t events;        /* that came from privmemd */
        uint64_t gaps;          /* subscribers that were told that they had lost some */
        uint64_t subscriptions; /* to privmemd: one, and one more each time that it was gone */
        size_t ring_bytes;
} EventsReport;

EventsReport events_report(const Events *events);
