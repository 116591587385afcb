/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/list.h"

#include <stdlib.h>
#include <string.h>

#include "rest/answer.h"
#include "rest/scan.h"

struct List {
        Exchange *exchange; /* NULL once it has ended, as call */
        UpstreamCall *call;
        const char *member;
        bool is_lines, is_complete, is_broken;
        bool has_elements;
        Text text;
        size_t at; /* what is in front of it was read */
};

/* ---- text ---- */

static void add_rest(Text *text, const char *member, Span parameters) {
        Span key, value;
        Scan scan;

        if (!scan_open(&scan, parameters, '{'))
                return;
        while (scan_member(&scan, &key, &value) > 0)
                if (!span_is(key, member)) {
                        text_add_string(text, ",\"");
                        text_add_span(text, key);
                        text_add_string(text, "\":");
                        text_add_span(text, value);
                }
}

static void add_lines(Text *text, Span array) {
        Span element;
        Scan scan;

        if (!scan_open(&scan, array, '['))
                return;
        while (scan_element(&scan, &element) > 0) {
                text_add_span(text, element);
                text_add(text, "\n", 1);
        }
}

/* Returns whether there were any. */
static bool add_elements(Text *text, Span array, bool needs_comma) {
        if (array.size <= 2)
                return false;
        if (needs_comma)
                text_add(text, ",", 1);
        text_add(text, array.text + 1, array.size - 2);
        return true;
}

static bool render(Text *text, const char *member, bool is_lines, bool is_first, bool is_last, bool *has_elements,
                   Span parameters) {
        Span array;

        if (!scan_find(parameters, member, &array) || array.text[0] != '[')
                return false;
        if (is_lines) {
                add_lines(text, array);
                return true;
        }
        if (is_first)
                text_printf(text, "{\"%s\":[", member);
        *has_elements |= add_elements(text, array, *has_elements);
        if (is_last) {
                text_add(text, "]", 1);
                add_rest(text, member, parameters);
                text_add(text, "}", 1);
        }
        return true;
}

bool list_render(Text *text, const char *member, bool is_lines, bool is_first, bool is_last, Span parameters) {
        bool has_elements = false;

        return render(text, member, is_lines, is_first, is_last, &has_elements, parameters);
}

/* ---- the stream ---- */

static ssize_t on_read(void *userdata, char *buffer, size_t size) {
        List *list = userdata;
        size_t left = list->text.size - list->at;

        if (list->is_broken || list->text.failed)
                return BODY_BROKEN;
        if (left > 0) {
                size_t n = left < size ? left : size;

                memcpy(buffer, list->text.text + list->at, n);
                list->at += n;
                return (ssize_t) n;
        }
        list->at = 0;
        list->text.size = 0;
        if (list->is_complete)
                return BODY_END;
        if (!list->call)
                return BODY_BROKEN;
        upstream_resume(list->call);
        return 0;
}

static void on_free(void *userdata) {
        List *list = userdata;

        text_done(&list->text);
        free(list);
}

static void add_part(List *list, bool is_first, bool is_last, Span parameters) {
        if (!render(&list->text, list->member, list->is_lines, is_first, is_last, &list->has_elements, parameters))
                list->is_broken = true;
        list->is_complete = is_last;
        if (!is_last && list->text.size - list->at > LIST_BUFFER)
                upstream_pause(list->call);
}

List *list_start(Exchange *exchange, UpstreamCall *call, const char *member, bool is_lines,
                 const UpstreamReply *part) {
        static const BodyReader reader = { .read = on_read, .free = on_free };
        List *list = calloc(1, sizeof(*list));

        if (!list) {
                exchange_abort(exchange);
                return NULL;
        }
        list->exchange = exchange;
        list->call = call;
        list->member = member;
        list->is_lines = is_lines;
        add_part(list, /* is_first= */ true, /* is_last= */ false, part->parameters);
        exchange_stream(exchange, MHD_HTTP_OK, is_lines ? TYPE_NDJSON : TYPE_JSON, &reader, list);
        return list;
}

void list_add(List *list, const UpstreamReply *part, bool is_last) {
        add_part(list, /* is_first= */ false, is_last, part->parameters);
        if (is_last)
                list->call = NULL;
        exchange_wake(list->exchange);
}

void list_break(List *list) {
        list->is_broken = true;
        list->call = NULL;
        exchange_wake(list->exchange);
}

void list_leave(List *list) {
        list->exchange = NULL;
        list->call = NULL;
}
