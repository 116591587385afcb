/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/answer.h"

#include <stdlib.h>
#include <string.h>

#include "rest/list.h"
#include "rest/problem.h"
#include "rest/scan.h"

static void answer_broken(Exchange *exchange) {
        problem_answer_outcome(exchange, UPSTREAM_BROKEN);
}

static void answer_span(Exchange *exchange, unsigned status, Span body) {
        Text text = {};

        text_add_span(&text, body);
        exchange_answer(exchange, status, TYPE_JSON, &text);
}

static bool add_tag(Exchange *exchange, Span generation) {
        uint64_t number;

        if (!scan_uint64(generation, &number))
                return false;
        exchange_add_header(exchange, MHD_HTTP_HEADER_ETAG, "\"%.*s\"", (int) generation.size, generation.text);
        return true;
}

/* Of a GET alone: the client has it already. */
static bool is_known(const Exchange *exchange, Span generation) {
        const char *known = exchange_header(exchange, MHD_HTTP_HEADER_IF_NONE_MATCH);
        Span tag;

        return known && scan_plain_string(span_of(known), &tag) && span_equal(tag, generation);
}

static void answer_item(Exchange *exchange, const Route *route, Span parameters) {
        Span array, item, another, generation;
        Scan scan;
        int r;

        if (!scan_find(parameters, route->member, &array) || !scan_open(&scan, array, '[')) {
                answer_broken(exchange);
                return;
        }
        r = scan_element(&scan, &item);
        if (r == 0) {
                problem_answer(exchange, MHD_HTTP_NOT_FOUND, "There is nothing at %.*s.", (int) exchange->path.size,
                               exchange->path.text);
                return;
        }
        if (r < 0 || scan_element(&scan, &another) != 0) {
                answer_broken(exchange);
                return;
        }
        if (scan_find(item, "generation", &generation) && add_tag(exchange, generation) &&
            is_known(exchange, generation)) {
                exchange_answer_static(exchange, MHD_HTTP_NOT_MODIFIED, NULL, SPAN(""));
                return;
        }
        answer_span(exchange, MHD_HTTP_OK, item);
}

static void answer_plain(Exchange *exchange, const Route *route, bool is_dry_run, Span parameters) {
        Span value;

        if (route->verb == VERB_DELETE && span_is(parameters, "{}")) {
                exchange_answer_static(exchange, MHD_HTTP_NO_CONTENT, NULL, SPAN(""));
                return;
        }
        if (route->verb != VERB_GET && scan_find2(parameters, "vm", "generation", &value))
                (void) add_tag(exchange, value);
        if (route->verb != VERB_GET && !is_dry_run && scan_find(parameters, "created", &value) &&
            span_is(value, "true")) {
                exchange_add_header(exchange, MHD_HTTP_HEADER_LOCATION, "%.*s", (int) exchange->path.size,
                                    exchange->path.text);
                answer_span(exchange, MHD_HTTP_CREATED, parameters);
                return;
        }
        answer_span(exchange, MHD_HTTP_OK, parameters);
}

static void answer_created(Exchange *exchange, const Route *route, Span parameters) {
        Span name;

        if (!scan_find(parameters, route->member, &name)) {
                answer_broken(exchange);
                return;
        }
        if (!scan_plain_string(name, &name) && name.text[0] == '"') {
                answer_broken(exchange);
                return;
        }
        exchange_add_header(exchange, MHD_HTTP_HEADER_LOCATION, "%.*s/%.*s", (int) exchange->path.size,
                            exchange->path.text, (int) name.size, name.text);
        answer_span(exchange, MHD_HTTP_CREATED, parameters);
}

static void answer_lines(Exchange *exchange, const Route *route, Span parameters) {
        Text text = {};

        if (!list_render(&text, route->member, /* is_lines= */ true, /* is_first= */ true, /* is_last= */ true,
                         parameters)) {
                text_done(&text);
                answer_broken(exchange);
                return;
        }
        exchange_answer(exchange, MHD_HTTP_OK, TYPE_NDJSON, &text);
}

void answer_reply(Exchange *exchange, const Route *route, const char *type, bool is_dry_run,
                  const UpstreamReply *reply) {
        switch (route->answer) {
        case ITEM:
                answer_item(exchange, route, reply->parameters);
                break;
        case CREATED:
                answer_created(exchange, route, reply->parameters);
                break;
        case LIST:
                if (strcmp(type, TYPE_NDJSON) == 0)
                        answer_lines(exchange, route, reply->parameters);
                else
                        answer_span(exchange, MHD_HTTP_OK, reply->parameters);
                break;
        default:
                answer_plain(exchange, route, is_dry_run, reply->parameters);
        }
}
