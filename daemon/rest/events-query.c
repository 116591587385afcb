/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/events-query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rest/scan.h"

typedef struct Parser {
        const Ring *ring;
        EventsQuery *query;
        RingFilter *filter;
        char *free_text; /* behind the names so far */
        EventsMistake *mistake;
} Parser;

static int fail(Parser *parser, Span parameter, const char *detail) {
        *parser->mistake = (EventsMistake) { .parameter = parameter, .detail = detail };
        return EVENTS_QUERY_E_MISTAKE;
}

/* The part up to the separator; *rest goes behind it. False: there is none any more. */
static bool cut(Span *rest, char separator, Span *ret) {
        const char *end;

        if (!rest->text)
                return false;
        end = memchr(rest->text, separator, rest->size);
        if (!end) {
                *ret = *rest;
                *rest = (Span) {};
                return true;
        }
        *ret = (Span) { .text = rest->text, .size = (size_t) (end - rest->text) };
        rest->text = end + 1;
        rest->size -= ret->size + 1;
        return true;
}

static int hex(char c) {
        static const char digits[] = "0123456789abcdef";
        const char *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;

        return at ? (int) (at - digits) : -1;
}

/* Into the free text, with a NUL behind it. False: a % without two digits. */
static bool decode(Parser *parser, Span text, Span *ret) {
        char *to = parser->free_text;

        for (size_t i = 0; i < text.size; i++) {
                int high, low;

                if (text.text[i] != '%') {
                        *to++ = text.text[i];
                        continue;
                }
                if (text.size - i < 3)
                        return false;
                high = hex(text.text[i + 1]);
                low = hex(text.text[i + 2]);
                if (high < 0 || low < 0)
                        return false;
                *to++ = (char) (high << 4 | low);
                i += 2;
        }
        *ret = (Span) { .text = parser->free_text, .size = (size_t) (to - parser->free_text) };
        *to++ = '\0';
        parser->free_text = to;
        return true;
}

static int take_since(Parser *parser, Span key, Span value) {
        if (parser->query->has_since)
                return fail(parser, key, "It is given twice.");
        if (!scan_uint64(value, &parser->query->since))
                return fail(parser, key, "It must be the sequence number of an event: a decimal below 2^64.");
        parser->query->has_since = true;
        return 0;
}

static int take_vm(Parser *parser, Span key, Span value) {
        RingFilter *filter = parser->filter;

        if (filter->n_vms == EVENTS_QUERY_VMS_MAX)
                return fail(parser, key, "There are more than 64 of them.");
        filter->vms[filter->n_vms++] = value;
        return 0;
}

static int take_kind(Parser *parser, Span key, Span value) {
        return ring_filter_add_kind(parser->ring, parser->filter, value) ?
                       0 :
                       fail(parser, key, "It must be a kind of event, as EventKind has them.");
}

static int take_pair(Parser *parser, Span pair) {
        static const struct {
                const char *key;
                bool is_list;
                int (*take)(Parser *parser, Span key, Span value);
        } keys[] = {
                { "since", false, take_since },
                { "vm", true, take_vm },
                { "kind", true, take_kind },
        };
        Span key = pair, rest = pair, value = {}, decoded;
        int r = 0;

        (void) cut(&rest, '=', &key);
        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
                if (!span_is(key, keys[i].key))
                        continue;
                if (!rest.text)
                        return fail(parser, key, "It has no value.");
                if (!decode(parser, rest, &decoded))
                        return fail(parser, key, "A % must come with two hexadecimal digits.");
                if (!keys[i].is_list)
                        return keys[i].take(parser, key, decoded);
                /* An empty list is none, and an empty name in one is that of no VM. */
                if (decoded.size == 0)
                        return 0;
                while (r == 0 && cut(&decoded, ',', &value))
                        r = keys[i].take(parser, key, value);
                return r;
        }
        return fail(parser, key, "There is no such parameter here.");
}

/* No more names than this come of it. A comma may be encoded. */
static size_t count_values(Span query) {
        size_t n = 1;

        for (size_t i = 0; i < query.size; i++)
                n += query.text[i] == '&' || query.text[i] == ',' || query.text[i] == '%';
        return n < EVENTS_QUERY_VMS_MAX ? n : EVENTS_QUERY_VMS_MAX;
}

int events_query_parse(Span query, const char *last_event_id, const Ring *ring, EventsQuery *ret, RingFilter *filter,
                       EventsMistake *ret_mistake) {
        Parser parser = { .ring = ring, .query = ret, .filter = filter, .mistake = ret_mistake };
        Span pair;
        int r = 0;

        *ret = (EventsQuery) {};
        if (query.size > 0) {
                size_t most = count_values(query);

                /* Decoded text is no longer than what it was made from, and each pair has a separator for its NUL. */
                filter->vms = malloc(most * sizeof(Span) + query.size + 1);
                if (!filter->vms)
                        return -ENOMEM;
                parser.free_text = (char *) (filter->vms + most);
        }
        if (query.size == 0)
                query = (Span) {};
        while (r == 0 && cut(&query, '&', &pair))
                r = take_pair(&parser, pair);
        if (r == 0 && last_event_id) {
                ret->has_since = false;
                r = take_since(&parser, SPAN("Last-Event-ID"), span_of(last_event_id));
        }
        return r;
}

void events_filter_done(RingFilter *filter) {
        free(filter->vms);
        *filter = (RingFilter) {};
}
