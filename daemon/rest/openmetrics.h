/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The text that monitoring systems read: OpenMetrics 1.0, and the older text format 0.0.4 of Prometheus. Both have the same
 * samples; they differ in what is said about a family of them. */

#include <stdbool.h>
#include <stdint.h>

#include "rest/text.h"

#define OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define PROMETHEUS_TYPE  "text/plain; version=0.0.4; charset=utf-8"

typedef enum MetricType {
        METRIC_GAUGE,
        METRIC_COUNTER,   /* its samples end in _total */
        METRIC_HISTOGRAM, /* _bucket, _count, _sum */
        METRIC_INFO,      /* _info, and its value is always 1 */
} MetricType;

typedef struct MetricFamily {
        const char *name; /* without what the type adds to it, and with its unit at the end */
        MetricType type;
        const char *unit; /* or NULL */
        const char *help;
} MetricFamily;

/* What comes before the samples of the family. */
void openmetrics_head(Text *text, const MetricFamily *family, bool is_openmetrics);

/* A sample: begin, any number of labels, one of the ends. suffix: behind the family's name and what the type adds. */
void sample_begin(Text *text, const MetricFamily *family, const char *suffix);
void sample_label(Text *text, const char *name, Span value);
void sample_label_uint64(Text *text, const char *name, uint64_t value);
void sample_end(Text *text, uint64_t value);
/* Microseconds, as seconds. */
void sample_end_usec(Text *text, uint64_t usec);

/* Cumulative counts: of what took no longer than each bound, and of all. */
typedef struct Histogram {
        const uint64_t *bounds_usec, *within;
        unsigned n_bounds;
        uint64_t count, total_usec;
} Histogram;

typedef struct Label {
        const char *name;
        Span value;
} Label;

void openmetrics_histogram(Text *text, const MetricFamily *family, const Label *labels, unsigned n_labels,
                           const Histogram *histogram);
