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
        uint64_t start, size;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        if (guest && (r = arguments_range("the guest addresses", guest, &start, &size)) != EXIT_OK)
                return r;

        q = json_object_new_object();
        if (!json_add_string(q, "vm", a.items[0]) ||
            (guest && (!json_add_uint64(q, "guestPhysAddr", start) || !json_add_uint64(q, "memorySize", size)))) {
                json_object_put(q);
                q = NULL;
        }

        r = session_list(s, "ListMemory", q, "memory", &reply);
        if (r != EXIT_OK)
                return r;

        r = s->json ? session_print(reply) : print_memory(json_get_array(reply, "memory"));
        json_object_put(reply);
        return r;
}
