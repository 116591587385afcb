/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What strangers send to privmem-rest, and what privmemd might: an address, conditions and a body become a call or a
 * mistake, and a reply becomes a problem or a list. A call is JSON in which no object has a name twice, whatever it was
 * made of.
 *
 * The first byte chooses the verb. Behind it come, each up to a newline: the address, If-Match:, Accept:, Content-Type:;
 * the rest is the body, and the reply. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "rest/accept.h"
#include "rest/list.h"
#include "rest/problem.h"
#include "rest/request.h"
#include "rest/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of what is in front of the newline, with a NUL behind it. */
static char *take_line(const char **at, size_t *left) {
        const char *end = memchr(*at, '\n', *left);
        size_t n = end ? (size_t) (end - *at) : *left;
        char *line = strndup(*at, n);

        if (!line)
                abort();
        n += end ? 1 : 0;
        *at += n;
        *left -= n;
        return line;
}

static void check_call(const Text *message, bool is_stream) {
        Span text = { .text = message->text, .size = message->size - 1 }, value;
        size_t offset;

        if (message->text[text.size] != 0 || memchr(text.text, 0, text.size) || scan_check(text, &offset) != 0)
                abort();
        if (!scan_find(text, "method", &value) || scan_find(text, "more", &value) != is_stream)
                abort();
}

static void map(Verb verb, const char *address, const char *if_match, Span body) {
        static const Caller caller = { .right = RIGHT_MANAGE, .has_uid = true, .uid = 1 };
        const char *query = strchr(address, '?');
        Span path = { .text = address, .size = query ? (size_t) (query - address) : strlen(address) };
        RouteMatch match;
        RequestInput input = {
                .match = &match,
                .query = query ? span_of(query + 1) : (Span) {},
                .body = body,
                .if_match = if_match[0] ? if_match : NULL,
                .caller = &caller,
        };
        RequestKind kind = {};
        Text message = {};
        Mistake mistake;
        unsigned verbs;
        int r;

        if (route_find(path, verb, &match, &verbs) != 0 || match.route->answer == EVENTS)
                return;
        r = request_map(&input, &message, &kind, &mistake);
        if (r == 0)
                check_call(&message, kind.is_stream);
        else if (r != REQUEST_E_MISTAKE || mistake.status < 400 || mistake.status > 422)
                abort();
        text_done(&message);
}

/* privmemd is trusted to write JSON, so all that matters is that nobody reads what is not there. */
static void reply(Span text) {
        static const char *const errors[] = { "io.privmemd.Memory.SlotsRefused",
                                              "org.varlink.service.InvalidParameter", "io.systemd.System" };
        Text list = {};

        for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
                const UpstreamReply error = { .error = span_of(errors[i]), .parameters = text };
                Text problem = {};

                if (problem_of_error(&error, &problem) < 400)
                        abort();
                text_done(&problem);
        }
        (void) list_render(&list, "vms", text.size % 2, /* is_first= */ true, /* is_last= */ true, text);
        text_done(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const char *const types[] = { "application/json", "application/x-ndjson", NULL };
        const char *at = (const char *) data + 1;
        char *lines[4], *body;
        size_t left;

        if (size == 0)
                return 0;
        left = size - 1;
        for (size_t i = 0; i < 4; i++)
                lines[i] = take_line(&at, &left);
        /* With nothing behind it that could be read by mistake. */
        body = malloc(left ?: 1);
        if (!body)
                abort();
        memcpy(body, at, left);
        (void) accept_choose(lines[2], types);
        (void) accept_is_json(lines[3]);
        map((Verb) (data[0] % VERB_OTHER), lines[0], lines[1], (Span) { .text = body, .size = left });
        reply((Span) { .text = body, .size = left });
        free(body);
        for (size_t i = 0; i < 4; i++)
                free(lines[i]);
        return 0;
}
