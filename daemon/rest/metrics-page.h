/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What GET /metrics says: replies of privmemd become samples. The samples of one family must stand together, and VMs come
 * one after the other, so each family is collected by itself. The whole is bounded: VMs that do not fit are left out, and
 * their number is a metric. */

#include "rest/openmetrics.h"

typedef enum MetricId {
        METRIC_UP,
        METRIC_BUILD,
        METRIC_START_TIME,
        METRIC_RESTARTS,
        METRIC_CUSTODY,
        METRIC_VMS,
        METRIC_BACKINGS,
        METRIC_SLOTS,
        METRIC_PROMISED,
        METRIC_RESIDENT,
        METRIC_POOL_SIZE,
        METRIC_POOL_FREE,
        METRIC_POOL_RESERVED,
        METRIC_NODE_POOL_SIZE,
        METRIC_NODE_POOL_FREE,
        METRIC_LIMIT,
        METRIC_QUOTA_USED,
        METRIC_QUOTA_MAXIMUM,
        METRIC_EVENTS,
        METRIC_CALLS,
        METRIC_CALL_DURATION,
        METRIC_VM_STATE,
        METRIC_VM_BACKINGS,
        METRIC_VM_PROMISED,
        METRIC_VM_RESIDENT,
        METRIC_VM_RETAINED,
        METRIC_VM_SLOTS,
        METRIC_VM_PRIVATE_RANGES,
        METRIC_VM_CLAIMS,
        METRIC_VM_REFUSED,
        METRIC_VM_OBSERVED,
        METRIC_VM_ALLOWED,
        METRIC_REST_REQUESTS,
        METRIC_REST_DURATION,
        METRIC_REST_CONNECTIONS,
        METRIC_REST_SUBSCRIBERS,
        METRIC_REST_SUBSCRIPTIONS,
        METRIC_REST_GAPS,
        METRIC_REST_OMITTED,
        METRIC_PROCESS_CPU,
        METRIC_PROCESS_RESIDENT,
        METRIC_PROCESS_VIRTUAL,
        METRIC_PROCESS_FDS,
        METRIC_PROCESS_MAX_FDS,
        METRIC_PROCESS_START,
        _METRIC_MAX,
} MetricId;

extern const MetricFamily metric_families[_METRIC_MAX];

#define METRICS_PAGE_BYTES_MAX ((size_t) 64 * 1024 * 1024)

typedef struct MetricsPage {
        unsigned references;
        Text samples[_METRIC_MAX];
        size_t bytes_max; /* of what is said of VMs */
        uint64_t omitted; /* VMs that did not fit */
} MetricsPage;

MetricsPage *metrics_page_new(size_t bytes_max);
MetricsPage *metrics_page_unref(MetricsPage *page);

/* Replies of GetHost, GetMetrics, and one part of ListMetrics. False: they make no sense. */
bool metrics_page_add_host(MetricsPage *page, Span reply);
bool metrics_page_add_daemon(MetricsPage *page, Span reply);
bool metrics_page_add_vms(MetricsPage *page, Span reply);

/* This process, from /proc/self. */
void metrics_page_add_process(MetricsPage *page);

/* A sample without labels. */
void metrics_page_add(MetricsPage *page, MetricId id, uint64_t value);

/* No memory was left. */
bool metrics_page_has_failed(const MetricsPage *page);

/* Reads the page from where it was left. Returns 0 at its end. */
typedef struct MetricsCursor {
        bool is_openmetrics;
        unsigned family;
        size_t at; /* in head, then in the samples */
        bool is_in_samples, is_begun;
        Text head;
} MetricsCursor;

size_t metrics_page_read(const MetricsPage *page, MetricsCursor *cursor, char *buffer, size_t size);
