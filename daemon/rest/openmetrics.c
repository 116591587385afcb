/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/openmetrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
        const char *word, *old_word, *suffix;
} types[] = {
        [METRIC_GAUGE] = { "gauge", "gauge", "" },
        [METRIC_COUNTER] = { "counter", "counter", "_total" },
        [METRIC_HISTOGRAM] = { "histogram", "histogram", "" },
        [METRIC_INFO] = { "info", "gauge", "_info" },
};

void openmetrics_head(Text *text, const MetricFamily *family, bool is_openmetrics) {
        /* The older format knows no name but that of the samples. */
        const char *suffix = is_openmetrics ? "" : types[family->type].suffix;

        text_printf(text, "# HELP %s%s %s\n", family->name, suffix, family->help);
        text_printf(text, "# TYPE %s%s %s\n", family->name, suffix,
                    is_openmetrics ? types[family->type].word : types[family->type].old_word);
        if (is_openmetrics && family->unit)
                text_printf(text, "# UNIT %s %s\n", family->name, family->unit);
}

void sample_begin(Text *text, const MetricFamily *family, const char *suffix) {
        text_add_string(text, family->name);
        text_add_string(text, types[family->type].suffix);
        text_add_string(text, suffix);
}

/* The first label opens the braces: what is before it is a name. */
static void begin_label(Text *text, const char *name) {
        bool is_first = text->size > 0 && text->text[text->size - 1] != '"';

        text_add_string(text, is_first ? "{" : ",");
        text_add_string(text, name);
        text_add_string(text, "=\"");
}

void sample_label(Text *text, const char *name, Span value) {
        begin_label(text, name);
        for (size_t i = 0, n; i < value.size; i += n) {
                char c = value.text[i];

                for (n = 0; i + n < value.size && !strchr("\\\"\n", value.text[i + n]); n++)
                        ;
                text_add(text, value.text + i, n);
                if (n > 0)
                        continue;
                text_add_string(text, c == '\n' ? "\\n" : c == '"' ? "\\\"" : c == '\\' ? "\\\\" : "");
                n = 1;
        }
        text_add_string(text, "\"");
}

void sample_label_uint64(Text *text, const char *name, uint64_t value) {
        begin_label(text, name);
        text_add_uint64(text, value);
        text_add_string(text, "\"");
}

static void end_labels(Text *text) {
        text_add_string(text, text->size > 0 && text->text[text->size - 1] == '"' ? "} " : " ");
}

void sample_end(Text *text, uint64_t value) {
        end_labels(text);
        text_add_uint64(text, value);
        text_add_string(text, "\n");
}

/* Exact, and without a locale. */
static void add_usec(Text *text, uint64_t usec) {
        char fraction[8];
        unsigned n = 6;

        snprintf(fraction, sizeof(fraction), "%06" PRIu64, usec % 1000000);
        while (n > 1 && fraction[n - 1] == '0')
                n--;
        text_add_uint64(text, usec / 1000000);
        text_add_string(text, ".");
        text_add(text, fraction, n);
}

void sample_end_usec(Text *text, uint64_t usec) {
        end_labels(text);
        add_usec(text, usec);
        text_add_string(text, "\n");
}

static void begin_with(Text *text, const MetricFamily *family, const char *suffix, const Label *labels, unsigned n) {
        sample_begin(text, family, suffix);
        for (unsigned i = 0; i < n; i++)
                sample_label(text, labels[i].name, labels[i].value);
}

void openmetrics_histogram(Text *text, const MetricFamily *family, const Label *labels, unsigned n_labels,
                           const Histogram *histogram) {
        for (unsigned i = 0; i < histogram->n_bounds; i++) {
                begin_with(text, family, "_bucket", labels, n_labels);
                begin_label(text, "le");
                add_usec(text, histogram->bounds_usec[i]);
                text_add_string(text, "\"");
                sample_end(text, histogram->within[i]);
        }
        begin_with(text, family, "_bucket", labels, n_labels);
        sample_label(text, "le", SPAN("+Inf"));
        sample_end(text, histogram->count);
        begin_with(text, family, "_sum", labels, n_labels);
        sample_end_usec(text, histogram->total_usec);
        begin_with(text, family, "_count", labels, n_labels);
        sample_end(text, histogram->count);
}
