/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>

#include "connection.h"
#include "json.h"

int privmem_subscribe(privmem *p, int64_t since) {
        json_object *q = json_object_new_object();
        int r;

        if (since >= 0 && !json_add_uint64(q, "since", (uint64_t) since)) {
                json_object_put(q);
                q = NULL;
        }

        r = connection_call_more(p, "Subscribe", q);
        if (r < 0)
                return r;

        p->subscribed = true;
        return 0;
}

static int read_event(privmem *p, json_object *reply, struct privmem_event *ret) {
        json_object *event = json_get_object(reply, "event");
        struct privmem_event e = {
                .kind = json_get_string(event, "kind"),
                .vm = json_get_string(event, "vm"),
                .backing = json_get_string(event, "backing"),
        };

        if (!e.kind || !json_get_uint64(event, "sequence", &e.sequence) ||
            !json_get_uint64(event, "timestampUSec", &e.timestamp_usec))
                return connection_malformed(p, "an event is incomplete");

        e.json = json_text(event, NULL);
        if (!e.json)
                return connection_break(p, -ENOMEM, "Out of memory.");

        *ret = e;
        return 0;
}

static int next_event(privmem *p, int timeout_msec, struct privmem_event *ret) {
        json_object *reply = NULL;
        bool continues = false;
        int r;

        r = connection_next_reply(p, timeout_msec, &reply, &continues);
        if (r < 0)
                return r;
        if (!continues)
                return connection_break(p, -ECONNRESET, "privmemd ended the stream of events.");
        return read_event(p, reply, ret);
}

int privmem_event_next(privmem *p, int timeout_msec, struct privmem_event *ret) {
        int r;

        if (!p->subscribed)
                return error_set(&p->error, -EINVAL, "The connection is not subscribed to events.");

        r = next_event(p, timeout_msec, ret);
        if (r < 0 && r != -EAGAIN)
                p->subscribed = false; /* after an error reply the connection is as it was before */
        return r;
}
