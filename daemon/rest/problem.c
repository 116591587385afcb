/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "rest/scan.h"

#define PREFIX            "io.privmemd.Memory."
#define INVALID_PARAMETER "org.varlink.service.InvalidParameter"

typedef struct ErrorRow {
        const char *name;
        unsigned status;
        const char *sentence;
} ErrorRow;

static const ErrorRow rows[] = {
#define ERROR(error, errno_value, http_status, text) { #error, http_status, text },
#include "api/errors.def"
};

static void begin(Text *t, Span type, const char *title, unsigned status) {
        text_add_string(t, "{\"type\":");
        text_add_json(t, type.text, type.size);
        text_add_string(t, ",\"title\":");
        text_add_json(t, title, strlen(title));
        text_printf(t, ",\"status\":%u", status);
}

static const char *phrase(unsigned status) {
        return MHD_get_reason_phrase_for(status);
}

static void add_detail(Text *t, const char *detail) {
        text_add_string(t, ",\"detail\":");
        text_add_json(t, detail, strlen(detail));
}

static void begin_blank(Text *t, unsigned status, const char *detail) {
        begin(t, SPAN("about:blank"), phrase(status), status);
        add_detail(t, detail);
}

static void answer(Exchange *exchange, unsigned status, Text *t) {
        text_add_string(t, "}");
        exchange_answer(exchange, status, PROBLEM_TYPE, t);
}

void problem_answer(Exchange *exchange, unsigned status, const char *fmt, ...) {
        char detail[512];
        Text t = {};
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(detail, sizeof(detail), fmt, ap);
        va_end(ap);
        begin_blank(&t, status, detail);
        answer(exchange, status, &t);
}

void problem_answer_parameter(Exchange *exchange, unsigned status, Span parameter, const char *detail) {
        Text t = {};

        /* What privmemd would say of a member that it does not take. */
        if (status == MHD_HTTP_UNPROCESSABLE_CONTENT) {
                begin(&t, SPAN(INVALID_PARAMETER), phrase(status), status);
                add_detail(&t, detail);
        } else {
                begin_blank(&t, status, detail);
        }
        text_add_string(&t, ",\"parameter\":");
        text_add_json(&t, parameter.text, parameter.size);
        answer(exchange, status, &t);
}

void problem_answer_outcome(Exchange *exchange, UpstreamOutcome outcome) {
        switch (outcome) {
        case UPSTREAM_GONE:
                exchange_add_header(exchange, MHD_HTTP_HEADER_RETRY_AFTER, "1");
                problem_answer(exchange, MHD_HTTP_SERVICE_UNAVAILABLE,
                               "privmemd is not there, or went before it had answered.");
                break;
        case UPSTREAM_BUSY:
                exchange_add_header(exchange, MHD_HTTP_HEADER_RETRY_AFTER, "1");
                problem_answer(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "Too many requests wait for privmemd.");
                break;
        case UPSTREAM_LATE:
                exchange_add_header(exchange, MHD_HTTP_HEADER_RETRY_AFTER, "5");
                problem_answer(exchange, MHD_HTTP_GATEWAY_TIMEOUT, "privmemd did not answer in time.");
                break;
        default:
                problem_answer(exchange, MHD_HTTP_BAD_GATEWAY, "privmemd sent an answer that makes no sense.");
        }
}

/* ---- errors of privmemd ---- */

static const ErrorRow *find_row(Span error) {
        size_t prefix = strlen(PREFIX);

        if (error.size <= prefix || memcmp(error.text, PREFIX, prefix) != 0)
                return NULL;
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                if (span_is((Span) { error.text + prefix, error.size - prefix }, rows[i].name))
                        return &rows[i];
        return NULL;
}

/* KVM itself would refuse the slot: it is wrong whatever else there is. */
static bool has_kernel_errno(Span verdict) {
        uint64_t number;
        Span value;

        return scan_find(verdict, "kernelErrno", &value) && scan_uint64(value, &number) && number != 0;
}

/* Of a refused slot, which has one verdict, or of a table, which has many. */
static unsigned status_of_verdict(Span parameters, unsigned otherwise) {
        Span verdict, verdicts, rule;
        Scan scan;

        if (scan_find(parameters, "verdict", &verdict)) {
                /* Whoever deletes it twice is told what any other object would say. */
                if (scan_find(verdict, "rule", &rule) && span_is(rule, "\"no_such_slot\""))
                        return 404;
                return has_kernel_errno(verdict) ? 422 : otherwise;
        }
        if (!scan_find(parameters, "verdicts", &verdicts) || !scan_open(&scan, verdicts, '['))
                return otherwise;
        while (scan_element(&scan, &verdict) > 0)
                if (has_kernel_errno(verdict))
                        return 422;
        return otherwise;
}

/* Its own members come first, so that no field of an error takes their place. */
static bool is_own_member(Span key) {
        return span_is(key, "type") || span_is(key, "title") || span_is(key, "status") || span_is(key, "detail") ||
               span_is(key, "instance");
}

static void add_fields(Text *t, Span parameters) {
        Span key, value;
        Scan scan;

        if (!scan_open(&scan, parameters, '{'))
                return;
        while (scan_member(&scan, &key, &value) > 0) {
                if (is_own_member(key) || span_is(key, "message"))
                        continue;
                text_add_string(t, ",\"");
                text_add_span(t, key);
                text_add_string(t, "\":");
                text_add_span(t, value);
        }
}

static void add_invalid_parameter(Text *t, Span parameters) {
        Span name;

        if (!scan_find(parameters, "parameter", &name) || !scan_plain_string(name, &name))
                name = SPAN("?");
        begin(t, SPAN(INVALID_PARAMETER), phrase(422), 422);
        text_add_string(t, ",\"detail\":");
        text_printf(t, "\"The parameter %.*s is missing, unknown, or of another type.\"", (int) name.size, name.text);
}

unsigned problem_of_error(const UpstreamReply *reply, Text *t) {
        const ErrorRow *row = find_row(reply->error);
        unsigned status = 502;
        Span message;

        if (row) {
                status = row->status;
                if (status == 409)
                        status = status_of_verdict(reply->parameters, status);
                begin(t, reply->error, row->sentence, status);
                if (scan_find(reply->parameters, "message", &message)) {
                        text_add_string(t, ",\"detail\":");
                        text_add_span(t, message);
                }
        } else if (span_is(reply->error, INVALID_PARAMETER)) {
                status = 422;
                add_invalid_parameter(t, reply->parameters);
        } else {
                begin(t, reply->error, phrase(status), status);
                text_add_string(t, ",\"detail\":\"privmemd could not do it.\"");
        }
        add_fields(t, reply->parameters);
        text_add_string(t, "}");
        return status;
}

void problem_answer_error(Exchange *exchange, const UpstreamReply *reply) {
        Text t = {};
        unsigned status = problem_of_error(reply, &t);

        exchange_answer(exchange, status, PROBLEM_TYPE, &t);
}
