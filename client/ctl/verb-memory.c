/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* memory */

#include <stdio.h>
#include <string.h>

#include "arguments.h"
#include "format.h"
#include "lib/json.h"
#include "table.h"
#include "verb.h"

static int print_memory(json_object *memory) {
        Table t;

        table_init(&t, ">SPACE", ">SLOT", ">GUEST ADDRESS", ">SIZE", "LIVE", ">SHARED RESIDENT", ">PRIVATE RESIDENT",
                   ">BOTH", NULL);
        for (size_t i = 0; i < json_object_array_length(memory); i++) {
                json_object *m = json_object_array_get_idx(memory, i);

                table_add(&t, format_number_field(m, "addressSpace"));
                table_add(&t, format_number_field(m, "slotId"));
                table_add(&t, format_address_field(m, "guestPhysAddr"));
                table_add(&t, format_size_field(m, "memorySize"));
                table_add(&t, strdup(json_get_bool(m, "private") ? "private" : "shared"));
                table_add(&t, format_size_field(m, "residentShared"));
                table_add(&t, format_size_field(m, "residentPrivate"));
                table_add(&t, format_size_field(m, "residentBoth"));
        }
        return table_print(&t);
}

int verb_memory(Session *s, const Verb *verb, char **arguments) {
        const char *guest = NULL;
        const Option options[] = { { "guest", .value = &guest }, {} };
        json_object *q, *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        r = arguments_guest(a.items[0], guest, &q);
        if (r != EXIT_OK)
                return r;

        r = session_list(s, "ListMemory", q, "memory", &reply);
        if (r != EXIT_OK)
                return r;

        r = s->json ? session_print(reply) : print_memory(json_get_array(reply, "memory"));
        json_object_put(reply);
        return r;
}
