/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* call */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "arguments.h"
#include "lib/json.h"
#include "verb.h"

static int print_part(const char *reply, void *userdata) {
        (void) userdata;

        puts(reply);
        return fflush(stdout) == 0 ? 0 : -EIO;
}

int verb_call(Session *s, const Verb *verb, char **arguments) {
        bool more = false;
        const Option options[] = { { "more", .flag = &more }, {} };
        json_object *q = NULL, *reply = NULL;
        const char *text;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 2, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        text = a.n > 1 ? a.items[1] : "{}";
        if (json_parse_object(text, strlen(text), &q) < 0) {
                complain("the parameters are no JSON object.");
                return EXIT_USAGE;
        }

        if (more) {
                json_object_put(q);
                r = session_open(s);
                if (r == EXIT_OK && privmem_call_more(s->p, a.items[0], text, print_part, /* userdata= */ NULL) < 0)
                        r = session_fail(s);
                return r;
        }

        r = session_call(s, a.items[0], q, &reply);
        if (r != EXIT_OK)
                return r;

        if (s->json)
                r = session_print(reply);
        else
                puts(json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                                   JSON_C_TO_STRING_NOSLASHESCAPE));
        json_object_put(reply);
        return r;
}
