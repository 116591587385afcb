/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/route.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const Route routes[] = {
#define ROUTE(name, verb_name, address, body_of, fixed_input, kind, output) \
        { \
                .method = #name, \
                .verb = VERB_##verb_name, \
                .path = address, \
                .body = body_of, \
                .fixed = fixed_input, \
                .answer = kind, \
                .member = output, \
        },
#include "api/operations.def"
};

static const Field fields[] = {
#define FIELD(of, field, kind, array, nullable, of_words) \
        { \
                .method = #of, \
                .name = field, \
                .type = kind, \
                .is_array = array, \
                .is_nullable = nullable, \
                .words = of_words, \
        },
#include "rest-fields.h"
};

const Route *route_at(size_t i) {
        return i < COUNT(routes) ? &routes[i] : NULL;
}

/* The segment at *at, which is behind a slash; *at is at the next slash then, or at the end. */
static Span segment(const char **at, const char *end) {
        const char *slash = memchr(*at, '/', (size_t) (end - *at));
        Span found = { .text = *at, .size = (size_t) ((slash ?: end) - *at) };

        *at = slash ?: end;
        return found;
}

static bool matches(const Route *route, Span path, RouteMatch *ret) {
        const char *wanted = route->path, *wanted_end = wanted + strlen(wanted);
        const char *at = path.text, *end = at + path.size;

        ret->n_values = 0;
        while (wanted < wanted_end && at < end) {
                Span name, text;

                if (*wanted++ != '/' || *at++ != '/')
                        return false;
                name = segment(&wanted, wanted_end);
                text = segment(&at, end);
                if (name.text[0] != '{') {
                        if (!span_equal(name, text))
                                return false;
                        continue;
                }
                if (text.size == 0 || ret->n_values == ROUTE_VALUES_MAX)
                        return false;
                ret->values[ret->n_values++] = (RouteValue) {
                        .field = { .text = name.text + 1, .size = name.size - 2 },
                        .text = text,
                };
        }
        return wanted == wanted_end && at == end;
}

int route_find(Span path, Verb verb, RouteMatch *ret, unsigned *ret_verbs) {
        RouteMatch match;
        unsigned verbs = 0;

        if (verb == VERB_HEAD)
                verb = VERB_GET;
        for (size_t i = 0; i < COUNT(routes); i++) {
                if (!matches(&routes[i], path, &match))
                        continue;
                if (routes[i].verb == verb) {
                        *ret = match;
                        ret->route = &routes[i];
                        return 0;
                }
                verbs |= 1U << routes[i].verb;
                if (routes[i].verb == VERB_GET)
                        verbs |= 1U << VERB_HEAD;
        }
        *ret_verbs = verbs;
        return verbs ? ROUTE_E_NO_VERB : ROUTE_E_NO_PATH;
}

const Field *route_field(const Route *route, Span name) {
        for (size_t i = 0; i < COUNT(fields); i++)
                if (span_is(name, fields[i].name) && strcmp(fields[i].method, route->method) == 0)
                        return &fields[i];
        return NULL;
}
