/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "rest/answer.h"
#include "rest/events-query.h"
#include "rest/problem.h"
#include "rest/route.h"
#include "rest/scan.h"

#define TYPE_SSE "text/event-stream"

/* Before privmemd is asked again. */
#define RETRY_USEC   (250 * LOOP_MSEC)
#define REFUSED_USEC (5 * LOOP_SEC)

typedef struct Subscriber {
        Events *events;
        Exchange *exchange;
        RingFilter filter;
        RingCursor cursor;
        RingEntry *entry; /* being sent, from at on; NULL: between two */
        size_t at;
        bool is_sse;
        bool is_greeted;
        bool is_waiting;
        bool is_beat;    /* is to be shown that we are alive */
        bool has_spoken; /* since the last heartbeat */
        TAILQ_ENTRY(Subscriber) subscribers;
} Subscriber;

struct Events {
        Loop *loop;
        Upstream *upstream;
        EventsSettings settings;
        Ring *ring;
        Resource resource;
        UpstreamCall call;
        Text message;
        LoopTimer retry, heartbeat;
        bool is_refused; /* and has been said to be */
        bool is_heard;   /* the subscription has had its first message */
        TAILQ_HEAD(, Subscriber) subscribers;
        EventsReport report;
};

/* ---- messages ---- */

static uint64_t now_usec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

static RingEntry *entry_of(uint64_t id, const char *kind, Text *json) {
        RingEntry *entry = NULL;

        if (!json->failed)
                entry = ring_entry_new(id, span_of(kind), (Span) { .text = json->text, .size = json->size });
        text_done(json);
        return entry;
}

static void begin_event(Text *json, uint64_t sequence, const char *kind) {
        text_add_string(json, "{\"sequence\":");
        text_add_uint64(json, sequence);
        text_add_string(json, ",\"timestampUSec\":");
        text_add_uint64(json, now_usec());
        text_printf(json, ",\"kind\":\"%s\"", kind);
}

/* What privmemd sends first; who is cut off before the next event comes again with its number. */
static RingEntry *make_hello(const Subscriber *s) {
        Text json = {};

        begin_event(&json, ring_newest(s->events->ring), "subscribed");
        text_add_string(&json, "}");
        return entry_of(s->cursor.sequence, "subscribed", &json);
}

static RingEntry *make_gap(const Subscriber *s, uint64_t first_lost) {
        Text json = {};

        begin_event(&json, s->cursor.sequence, "gap");
        if (first_lost > 0) {
                text_add_string(&json, ",\"firstLost\":");
                text_add_uint64(&json, first_lost);
                text_add_string(&json, ",\"lastLost\":");
                text_add_uint64(&json, s->cursor.sequence);
        }
        text_add_string(&json, "}");
        return entry_of(s->cursor.sequence, "gap", &json);
}

/* The next thing to send, or NULL with *ret_failed. */
static RingEntry *next_entry(Subscriber *s, bool *ret_failed) {
        RingEntry *entry = NULL;
        uint64_t first_lost;

        *ret_failed = false;
        if (!s->is_greeted) {
                s->is_greeted = true;
                entry = make_hello(s);
                *ret_failed = !entry;
                return entry;
        }
        switch (ring_next(s->events->ring, &s->filter, &s->cursor, &entry, &first_lost)) {
        case RING_GAP:
                s->events->report.gaps++;
                entry = make_gap(s, first_lost);
                *ret_failed = !entry;
                return entry;
        case RING_ENTRY:
                return entry;
        default:
                return NULL;
        }
}

/* ---- sending ---- */

/* A message without data: the client learns the number that it is at, and whoever passes it on that we live. */
static size_t put_heartbeat(const Subscriber *s, char *buffer, size_t size) {
        char text[64];
        size_t n;

        if (s->is_sse)
                n = (size_t) snprintf(text, sizeof(text), "id: %llu\n\n", (unsigned long long) s->cursor.sequence);
        else
                n = (size_t) snprintf(text, sizeof(text), "\n");
        if (n > size)
                return 0;
        memcpy(buffer, text, n);
        return n;
}

/* Of the entry that is being sent, what fits. */
static size_t put_entry(Subscriber *s, char *buffer, size_t size) {
        const RingEntry *entry = s->entry;
        size_t end = s->is_sse ? entry->size : entry->size - 1, n = end - s->at;

        if (n > size)
                n = size;
        memcpy(buffer, entry->text + s->at, n);
        s->at += n;
        if (s->at == end)
                s->entry = ring_entry_unref(s->entry);
        return n;
}

static ssize_t on_read(void *userdata, char *buffer, size_t size) {
        Subscriber *s = userdata;
        bool failed = false;
        size_t n = 0;

        s->is_waiting = false;
        while (n < size) {
                if (!s->entry) {
                        s->entry = next_entry(s, &failed);
                        if (failed)
                                return BODY_BROKEN;
                        if (!s->entry)
                                break;
                        s->at = s->is_sse ? 0 : s->entry->json;
                }
                n += put_entry(s, buffer + n, size - n);
        }
        if (n == 0 && s->is_beat)
                n = put_heartbeat(s, buffer, size);
        s->is_beat = false;
        s->has_spoken |= n > 0;
        s->is_waiting = n == 0;
        return (ssize_t) n;
}

static Subscriber *subscriber_free(Subscriber *s) {
        if (!s)
                return NULL;
        ring_entry_unref(s->entry);
        events_filter_done(&s->filter);
        free(s);
        return NULL;
}

static void on_free(void *userdata) {
        Subscriber *s = userdata;

        TAILQ_REMOVE(&s->events->subscribers, s, subscribers);
        s->events->report.subscribers--;
        subscriber_free(s);
}

static void wake(Subscriber *s) {
        if (!s->is_waiting)
                return;
        s->is_waiting = false;
        exchange_wake(s->exchange);
}

/* Whoever is up to date and does not want the event passes over it now, or it would seem to fall behind. */
static void tell(Events *events) {
        Subscriber *s;

        TAILQ_FOREACH(s, &events->subscribers, subscribers) {
                bool failed;

                if (!s->is_waiting)
                        continue;
                s->entry = next_entry(s, &failed);
                s->at = s->entry && !s->is_sse ? s->entry->json : 0;
                if (s->entry || failed)
                        wake(s);
        }
}

static void on_heartbeat(void *userdata) {
        Events *events = userdata;
        Subscriber *s;

        TAILQ_FOREACH(s, &events->subscribers, subscribers) {
                s->is_beat = !s->has_spoken;
                s->has_spoken = false;
                if (s->is_beat)
                        wake(s);
        }
        loop_timer_set(events->loop, &events->heartbeat, events->settings.heartbeat_usec);
}

/* ---- privmemd's side ---- */

static void subscribe(Events *events) {
        text_done(&events->message);
        upstream_message_begin(&events->message, "Subscribe");
        text_add_string(&events->message, "\"since\":");
        text_add_uint64(&events->message, ring_last(events->ring));
        upstream_message_end(&events->message, /* is_stream= */ true);
        if (events->message.failed) {
                loop_timer_set(events->loop, &events->retry, REFUSED_USEC);
                return;
        }
        events->is_heard = false;
        events->report.subscriptions++;
        events->call.message = (Span) { .text = events->message.text, .size = events->message.size };
        upstream_call(events->upstream, &events->call);
}

static void on_retry(void *userdata) {
        subscribe(userdata);
}

/* The first message of a subscription says which event is the newest, and is nobody else's business. */
static int take_event(Events *events, Span event) {
        Span value;
        uint64_t newest;
        int r;

        if (!events->is_heard) {
                if (!scan_find(event, "sequence", &value) || !scan_uint64(value, &newest))
                        return -EBADMSG;
                events->is_heard = true;
                ring_begin(events->ring, newest);
                return 0;
        }
        r = ring_add(events->ring, event);
        if (r < 0)
                return r;
        events->report.events++;
        tell(events);
        return 0;
}

static void on_event(UpstreamCall *call, UpstreamOutcome outcome, const UpstreamReply *reply) {
        Events *events = (Events *) ((char *) call - offsetof(Events, call));
        uint64_t usec = RETRY_USEC;
        Span event;

        if (outcome == UPSTREAM_PART && scan_find(reply->parameters, "event", &event) &&
            take_event(events, event) >= 0)
                return;
        if (outcome == UPSTREAM_PART)
                /* It comes again, or else everybody learns that it is lost. */
                upstream_cancel(call);
        else if (outcome == UPSTREAM_ERROR) {
                if (!events->is_refused)
                        fprintf(stderr, "privmem-rest: privmemd refuses a subscription: %.*s\n",
                                (int) reply->error.size, reply->error.text);
                events->is_refused = true;
                usec = REFUSED_USEC;
        }
        loop_timer_set(events->loop, &events->retry, usec);
}

/* ---- subscribers ---- */

static bool is_same(const Caller *a, const Caller *b) {
        return a->has_uid == b->has_uid && (a->has_uid ? a->uid == b->uid : strcmp(a->name, b->name) == 0);
}

static unsigned count_of(const Events *events, const Caller *caller) {
        const Subscriber *s;
        unsigned n = 0;

        TAILQ_FOREACH(s, &events->subscribers, subscribers)
                n += is_same(s->exchange->caller, caller);
        return n;
}

/* Whether it has been refused. */
static bool refuse(Events *events, Exchange *exchange) {
        if (!ring_has_begun(events->ring)) {
                problem_answer_outcome(exchange, UPSTREAM_GONE);
                return true;
        }
        if (events->report.subscribers >= events->settings.subscribers) {
                exchange_add_header(exchange, "Retry-After", "10");
                problem_answer(exchange, 503, "There are %u subscribers already, and no more can be had.",
                               events->settings.subscribers);
                return true;
        }
        if (count_of(events, exchange->caller) >= events->settings.per_caller) {
                problem_answer(exchange, 429, "The caller has %u subscriptions already. End one first.",
                               events->settings.per_caller);
                return true;
        }
        return false;
}

static void refuse_parameter(Exchange *exchange, int r, const EventsMistake *mistake) {
        if (r < 0)
                exchange_abort(exchange);
        else
                problem_answer_parameter(exchange, 400, mistake->parameter, mistake->detail);
}

static void serve(Exchange *exchange, const char *type, void *userdata) {
        static const BodyReader reader = { .read = on_read, .free = on_free };
        Events *events = userdata;
        EventsMistake mistake;
        EventsQuery query;
        Subscriber *s;
        int r;

        s = calloc(1, sizeof(*s));
        if (!s) {
                exchange_abort(exchange);
                return;
        }
        r = events_query_parse(exchange->query, exchange_header(exchange, "Last-Event-ID"), events->ring, &query,
                               &s->filter, &mistake);
        if (r != 0) {
                refuse_parameter(exchange, r, &mistake);
                subscriber_free(s);
                return;
        }
        if (refuse(events, exchange)) {
                subscriber_free(s);
                return;
        }
        s->events = events;
        s->exchange = exchange;
        s->is_sse = strcmp(type, TYPE_SSE) == 0;
        s->cursor = query.has_since ? ring_seek(events->ring, query.since) : ring_end(events->ring);
        TAILQ_INSERT_TAIL(&events->subscribers, s, subscribers);
        events->report.subscribers++;
        /* A proxy that collects what it passes on would hold events back. */
        exchange_add_header(exchange, "Cache-Control", "no-store");
        exchange_add_header(exchange, "X-Accel-Buffering", "no");
        exchange_stream(exchange, 200, type, &reader, s);
}

/* ---- life ---- */

/* The words of the filter, which are those of an event. */
static const char *kind_words(void) {
        const Route *route;

        for (size_t i = 0; (route = route_at(i)); i++)
                if (route->answer == EVENTS)
                        return route_field(route, SPAN("kind"))->words;
        return "";
}

static const char *events_path(void) {
        const Route *route;

        for (size_t i = 0; (route = route_at(i)); i++)
                if (route->answer == EVENTS)
                        return route->path;
        return NULL;
}

int events_new(Loop *loop, Upstream *upstream, Gateway *gateway, const EventsSettings *settings, Events **ret) {
        static const char *const types[] = { TYPE_SSE, TYPE_NDJSON, NULL };
        RingSettings ring = settings->ring;
        Events *events;
        int r;

        events = calloc(1, sizeof(*events));
        if (!events)
                return -ENOMEM;
        TAILQ_INIT(&events->subscribers);
        events->loop = loop;
        events->upstream = upstream;
        events->settings = *settings;
        events->retry = (LoopTimer) { .function = on_retry, .userdata = events };
        events->heartbeat = (LoopTimer) { .function = on_heartbeat, .userdata = events };
        events->call = (UpstreamCall) { .is_stream = true, .usec = LOOP_NEVER, .function = on_event };
        ring.kinds = kind_words();
        r = ring_new(&ring, &events->ring);
        if (r < 0) {
                free(events);
                return r;
        }
        r = loop_timer_add(loop, &events->retry);
        if (r >= 0)
                r = loop_timer_add(loop, &events->heartbeat);
        if (r < 0) {
                loop_timer_remove(loop, &events->retry);
                ring_free(events->ring);
                free(events);
                return r;
        }
        events->resource = (Resource) {
                .path = events_path(),
                .right = RIGHT_INSPECT,
                .types = types,
                .serve = serve,
                .is_endless = true,
                .userdata = events,
        };
        gateway_add(gateway, &events->resource);
        loop_timer_set(loop, &events->heartbeat, settings->heartbeat_usec);
        subscribe(events);
        *ret = events;
        return 0;
}

Events *events_free(Events *events) {
        if (!events)
                return NULL;
        upstream_cancel(&events->call);
        loop_timer_remove(events->loop, &events->retry);
        loop_timer_remove(events->loop, &events->heartbeat);
        text_done(&events->message);
        ring_free(events->ring);
        free(events);
        return NULL;
}

EventsReport events_report(const Events *events) {
        EventsReport report = events->report;

        report.ring_bytes = ring_bytes(events->ring);
        return report;
}
