/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* holders */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arguments.h"
#include "format.h"
#include "lib/json.h"
#include "table.h"
#include "verb.h"

static char *format_mapped(json_object *holder, const char *key) {
        uint64_t bytes = 0;

        (void) json_get_uint64(holder, key, &bytes);
        return bytes > 0 ? format_size(bytes) : strdup("-");
}

/* "write, copies" */
static char *format_access(json_object *holder) {
        bool writes = json_get_bool(holder, "writable"), copies = json_get_bool(holder, "copiesOnWrite");
        char *text;

        return asprintf(&text, "%s%s", writes ? "write" : "read", copies ? ", copies" : "") < 0 ? NULL : text;
}

static int print_holders(json_object *holders) {
        bool copies = false;
        Table t;
        int r;

        table_init(&t, "BACKING", ">PID", "COMMAND", ">UID", "VMM OF", ">FDS", ">SHARED", ">PRIVATE", "ACCESS", NULL);
        for (size_t i = 0; i < json_object_array_length(holders); i++) {
                json_object *h = json_object_array_get_idx(holders, i);

                table_add(&t, format_text_field(h, "backing"));
                table_add(&t, format_number_field(h, "pid"));
                table_add(&t, format_text_field(h, "command"));
                table_add(&t, format_number_field(h, "uid"));
                table_add(&t, format_array(json_get_array(h, "vmmOf")));
                table_add(&t, format_number_field(h, "fileDescriptors"));
                table_add(&t, format_mapped(h, "sharedBytes"));
                table_add(&t, format_mapped(h, "privateBytes"));
                table_add(&t, format_access(h));
                copies |= json_get_bool(h, "copiesOnWrite");
        }
        r = table_print(&t);
        if (r == EXIT_OK && copies)
                puts("copies: what is written through a private mapping is not in the memory that privmemd keeps.");
        return r;
}

/* Silence must not pass for absence. */
static void warn_if_incomplete(json_object *reply) {
        uint64_t unreadable = 0;

        if (json_get_bool(reply, "complete"))
                return;
        (void) json_get_uint64(reply, "unreadable", &unreadable);
        if (unreadable > 0)
                complain("this may not be all: privmemd may not look at %" PRIu64 " processes.", unreadable);
        else
                complain("this may not be all: processes are hidden from privmemd, or there are too many.");
}

int verb_holders(Session *s, const Verb *verb, char **arguments) {
        json_object *q, *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 1, 2, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        q = json_object_new_object();
        if (!json_add_string(q, "vm", a.items[0]) || !json_add_string(q, "backing", a.n > 1 ? a.items[1] : NULL)) {
                json_object_put(q);
                q = NULL;
        }

        r = session_list(s, "ListHolders", q, "holders", &reply);
        if (r != EXIT_OK)
                return r;

        r = s->json ? session_print(reply) : print_holders(json_get_array(reply, "holders"));
        if (r == EXIT_OK)
                warn_if_incomplete(reply);
        json_object_put(reply);
        return r;
}
