/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "rest/http-tally.h"
#include "rest/metrics-page.h"
#include "rest/problem.h"

#define OPENMETRICS "application/openmetrics-text"
#define PLAIN       "text/plain"

/* Who reads slowly keeps a page. */
#define PAGES_MAX 8U
/* Each answer of privmemd must come within this time; Prometheus waits for ten seconds as a rule. */
#define CALL_USEC (3 * LOOP_SEC)

/* Somebody who waits for the page, or reads it. */
typedef struct Scrape {
        Metrics *metrics;
        Exchange *exchange;
        MetricsPage *page; /* NULL: it is being made */
        MetricsCursor cursor;
        TAILQ_ENTRY(Scrape) scrapes;
} Scrape;

struct Metrics {
        Upstream *upstream;
        const Events *events;
        Resource resource;
        HttpTally tally;
        UpstreamCall call;
        Text message;
        unsigned step;     /* which call is under way */
        MetricsPage *page; /* NULL: nobody has asked */
        TAILQ_HEAD(, Scrape) waiting;
        unsigned n_reading;
};

/* What is asked, in this order. */
static const struct {
        const char *method;
        bool is_stream;
        bool (*add)(MetricsPage *page, Span reply);
} steps[] = {
        { "GetHost", false, metrics_page_add_host },
        { "GetMetrics", false, metrics_page_add_daemon },
        { "ListMetrics", true, metrics_page_add_vms },
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

/* ---- sending ---- */

static Scrape *scrape_free(Scrape *scrape) {
        text_done(&scrape->cursor.head);
        metrics_page_unref(scrape->page);
        free(scrape);
        return NULL;
}

static ssize_t on_read(void *userdata, char *buffer, size_t size) {
        Scrape *scrape = userdata;
        size_t n;

        n = metrics_page_read(scrape->page, &scrape->cursor, buffer, size);
        if (n > 0)
                return (ssize_t) n;
        return scrape->cursor.head.failed ? BODY_BROKEN : BODY_END;
}

static void on_free(void *userdata) {
        Scrape *scrape = userdata;

        scrape->metrics->n_reading--;
        scrape_free(scrape);
}

static void send_page(Scrape *scrape, MetricsPage *page) {
        static const BodyReader reader = { .read = on_read, .free = on_free };
        Metrics *metrics = scrape->metrics;
        Exchange *exchange = scrape->exchange;

        TAILQ_REMOVE(&metrics->waiting, scrape, scrapes);
        exchange->state = NULL;
        exchange->on_gone = NULL;
        page->references++;
        scrape->page = page;
        metrics->n_reading++;
        exchange_add_header(exchange, "Cache-Control", "no-store");
        exchange_stream(exchange, 200, scrape->cursor.is_openmetrics ? OPENMETRICS_TYPE : PROMETHEUS_TYPE, &reader,
                        scrape);
}

static void refuse(Scrape *scrape) {
        Exchange *exchange = scrape->exchange;

        TAILQ_REMOVE(&scrape->metrics->waiting, scrape, scrapes);
        exchange->state = NULL;
        exchange->on_gone = NULL;
        scrape_free(scrape);
        problem_answer_outcome(exchange, UPSTREAM_BUSY);
}

/* ---- the page ---- */

static void add_own(Metrics *metrics, MetricsPage *page) {
        EventsReport report = events_report(metrics->events);
        const Scrape *first = TAILQ_FIRST(&metrics->waiting);

        http_tally_requests(&metrics->tally, &metric_families[METRIC_REST_REQUESTS],
                            &page->samples[METRIC_REST_REQUESTS]);
        http_tally_durations(&metrics->tally, &metric_families[METRIC_REST_DURATION],
                             &page->samples[METRIC_REST_DURATION]);
        if (first)
                metrics_page_add(page, METRIC_REST_CONNECTIONS, http_connections(first->exchange->http));
        metrics_page_add(page, METRIC_REST_SUBSCRIBERS, report.subscribers);
        metrics_page_add(page, METRIC_REST_SUBSCRIPTIONS, report.subscriptions);
        metrics_page_add(page, METRIC_REST_GAPS, report.gaps);
        metrics_page_add(page, METRIC_REST_OMITTED, page->omitted);
        metrics_page_add_process(page);
}

/* What privmemd said before it failed would look like the whole. */
static MetricsPage *page_without_privmemd(void) {
        MetricsPage *page = metrics_page_new(METRICS_PAGE_BYTES_MAX);

        if (page)
                metrics_page_add(page, METRIC_UP, 0);
        return page;
}

static void finish(Metrics *metrics, bool is_up) {
        MetricsPage *page = metrics->page;
        Scrape *scrape;

        metrics->page = NULL;
        if (is_up)
                metrics_page_add(page, METRIC_UP, 1);
        if (!is_up || metrics_page_has_failed(page)) {
                metrics_page_unref(page);
                page = page_without_privmemd();
        }
        if (page)
                add_own(metrics, page);
        while ((scrape = TAILQ_FIRST(&metrics->waiting))) {
                if (page && !metrics_page_has_failed(page))
                        send_page(scrape, page);
                else
                        refuse(scrape);
        }
        metrics_page_unref(page);
}

static void ask(Metrics *metrics) {
        text_done(&metrics->message);
        upstream_message_begin(&metrics->message, steps[metrics->step].method);
        upstream_message_end(&metrics->message, steps[metrics->step].is_stream);
        if (metrics->message.failed) {
                finish(metrics, /* is_up= */ false);
                return;
        }
        metrics->call.message = (Span) { .text = metrics->message.text, .size = metrics->message.size };
        metrics->call.is_stream = steps[metrics->step].is_stream;
        upstream_call(metrics->upstream, &metrics->call);
}

static void on_reply(UpstreamCall *call, UpstreamOutcome outcome, const UpstreamReply *reply) {
        Metrics *metrics = (Metrics *) ((char *) call - offsetof(Metrics, call));
        bool is_good = outcome == UPSTREAM_PART || outcome == UPSTREAM_REPLY;

        if (!is_good || !steps[metrics->step].add(metrics->page, reply->parameters)) {
                upstream_cancel(call);
                finish(metrics, /* is_up= */ false);
        } else if (outcome == UPSTREAM_REPLY) {
                metrics->step++;
                if (metrics->step < STEPS)
                        ask(metrics);
                else
                        finish(metrics, /* is_up= */ true);
        }
}

/* ---- who asks ---- */

static void on_gone(Exchange *exchange) {
        Scrape *scrape = exchange->state;

        TAILQ_REMOVE(&scrape->metrics->waiting, scrape, scrapes);
        scrape_free(scrape);
}

static void serve(Exchange *exchange, const char *type, void *userdata) {
        Metrics *metrics = userdata;
        Scrape *scrape;

        scrape = metrics->n_reading < PAGES_MAX ? calloc(1, sizeof(*scrape)) : NULL;
        if (!scrape) {
                problem_answer_outcome(exchange, UPSTREAM_BUSY);
                return;
        }
        *scrape = (Scrape) { .metrics = metrics, .exchange = exchange };
        scrape->cursor.is_openmetrics = strcmp(type, OPENMETRICS) == 0;
        exchange->state = scrape;
        exchange->on_gone = on_gone;
        TAILQ_INSERT_TAIL(&metrics->waiting, scrape, scrapes);
        if (metrics->page)
                return;
        metrics->page = metrics_page_new(METRICS_PAGE_BYTES_MAX);
        if (!metrics->page) {
                refuse(scrape);
                return;
        }
        metrics->step = 0;
        ask(metrics);
}

static uint64_t now_usec(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

/* The client of a stream of events ends it, hours later. */
static void on_exchange(const Exchange *exchange, const char *route, bool is_endless, void *userdata) {
        Metrics *metrics = userdata;

        http_tally_add(&metrics->tally, route, exchange->verb, exchange->status, !is_endless,
                       now_usec() - exchange->began);
}

int metrics_new(Upstream *upstream, Gateway *gateway, const Events *events, Metrics **ret) {
        static const char *const types[] = { OPENMETRICS, PLAIN, NULL };
        Metrics *metrics;

        metrics = calloc(1, sizeof(*metrics));
        if (!metrics)
                return -ENOMEM;
        TAILQ_INIT(&metrics->waiting);
        metrics->upstream = upstream;
        metrics->events = events;
        metrics->call = (UpstreamCall) { .is_repeatable = true, .usec = CALL_USEC, .function = on_reply };
        metrics->resource = (Resource) {
                .path = "/metrics",
                .right = RIGHT_INSPECT,
                .types = types,
                .serve = serve,
                .userdata = metrics,
        };
        gateway_add(gateway, &metrics->resource);
        gateway_observe(gateway, &(Observer) { .function = on_exchange, .userdata = metrics });
        *ret = metrics;
        return 0;
}

Metrics *metrics_free(Metrics *metrics) {
        if (!metrics)
                return NULL;
        upstream_cancel(&metrics->call);
        text_done(&metrics->message);
        metrics_page_unref(metrics->page);
        free(metrics);
        return NULL;
}
