/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* allocate, release */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "format.h"
#include "lib/json.h"
#include "verb.h"

static bool add_numa(json_object *q, const Numa *numa) {
        json_object *nodes = json_object_new_array();

        for (size_t i = 0; nodes && i < numa->n_nodes; i++)
                if (json_object_array_add(nodes, json_object_new_uint64(numa->nodes[i])) < 0) {
                        json_object_put(nodes);
                        return false;
                }
        return json_add_string(q, "numaPolicy", numa->policy) && json_add(q, "numaNodes", nodes);
}

int verb_allocate(Session *s, const Verb *verb, char **arguments) {
        const char *kind = NULL, *page_size = NULL, *policy = NULL;
        const Option options[] = {
                { "kind", .value = &kind },
                { "page-size", .value = &page_size },
                { "numa", .value = &policy },
                {},
        };
        json_object *q, *reply = NULL;
        uint64_t size, page = 0;
        privmem_kind value;
        Arguments a;
        Numa numa;
        int r;

        r = verb_parse(s, verb, arguments, options, 3, 3, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        r = arguments_size("the size", a.items[2], &size);
        if (r == EXIT_OK && kind)
                r = arguments_kind(kind, &value);
        if (r == EXIT_OK && page_size)
                r = arguments_size("the page size", page_size, &page);
        if (r == EXIT_OK && policy)
                r = arguments_numa(policy, &numa);
        if (r != EXIT_OK)
                return r;

        q = json_object_new_object();
        if (!json_add_string(q, "vm", a.items[0]) || !json_add_string(q, "name", a.items[1]) ||
            !json_add_uint64(q, "size", size) || !json_add_string(q, "kind", kind) ||
            (page_size && !json_add_uint64(q, "pageSize", page)) || (policy && !add_numa(q, &numa))) {
                json_object_put(q);
                q = NULL;
        }

        r = session_call(s, "AllocateBacking", q, &reply);
        if (r != EXIT_OK)
                return r;

        /* It was closed: the memory stays with privmemd. */
        json_object_object_del(reply, "fileDescriptor");
        if (s->json)
                r = session_print(reply);
        else
                printf("%s backing %s of VM %s.\n",
                       json_get_bool(reply, "created") ? "Allocated" : "There was already the", a.items[1],
                       a.items[0]);
        json_object_put(reply);
        return r;
}

int verb_release(Session *s, const Verb *verb, char **arguments) {
        json_object *q, *reply = NULL;
        char *freed;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 2, 2, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        q = json_object_new_object();
        if (!json_add_string(q, "vm", a.items[0]) || !json_add_string(q, "backing", a.items[1])) {
                json_object_put(q);
                q = NULL;
        }

        r = session_call(s, "ReleaseBacking", q, &reply);
        if (r != EXIT_OK)
                return r;

        if (s->json) {
                r = session_print(reply);
        } else {
                freed = format_size_field(reply, "freedBytes");
                printf("Released backing %s of VM %s: %s freed.\n", a.items[1], a.items[0], freed ? freed : "?");
                free(freed);
        }
        json_object_put(reply);
        return r;
}
