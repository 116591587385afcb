/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* share, reclaim */

#include <stdio.h>

#include "arguments.h"
#include "lib/json.h"
#include "verb.h"

static json_object *make_parameters(const Arguments *a, const char *access) {
        json_object *q = json_object_new_object();

        if (!json_add_string(q, "vm", a->items[0]) || !json_add_string(q, "backing", a->items[1]) ||
            !json_add_string(q, "peer", a->items[2]) || !json_add_string(q, "access", access)) {
                json_object_put(q);
                return NULL;
        }
        return q;
}

int verb_share(Session *s, const Verb *verb, char **arguments) {
        bool read_only = false;
        const Option options[] = { { "read-only", .flag = &read_only }, {} };
        json_object *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 3, 3, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        r = session_call(s, "ShareBacking", make_parameters(&a, read_only ? "read_only" : "read_write"), &reply);
        if (r != EXIT_OK)
                return r;

        if (s->json)
                r = session_print(reply);
        else if (json_get_bool(reply, "created"))
                printf("VM %s may show backing %s of VM %s%s.\n", a.items[2], a.items[1], a.items[0],
                       read_only ? ", for reading only" : "");
        else
                printf("VM %s could show backing %s of VM %s already.\n", a.items[2], a.items[1], a.items[0]);
        json_object_put(reply);
        return r;
}

int verb_reclaim(Session *s, const Verb *verb, char **arguments) {
        json_object *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 3, 3, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        r = session_call(s, "ReclaimBacking", make_parameters(&a, /* access= */ NULL), &reply);
        if (r != EXIT_OK)
                return r;

        if (s->json)
                r = session_print(reply);
        else if (json_get_bool(reply, "reclaimed"))
                printf("VM %s may no longer show backing %s of VM %s.\n", a.items[2], a.items[1], a.items[0]);
        else
                printf("Backing %s of VM %s was not shared with VM %s.\n", a.items[1], a.items[0], a.items[2]);
        json_object_put(reply);
        return r;
}
