/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* host, events */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "format.h"
#include "lib/json.h"
#include "table.h"
#include "verb.h"

/* ---- host ---------------------------------------------------------------------------------------------- */

static void add_row(Table *t, const char *title, char *value) {
        table_add_text(t, title);
        table_add(t, value);
}

static void add_feature(Table *t, const char *title, json_object *features, const char *key) {
        add_row(t, title, strdup(json_get_bool(features, key) ? "yes" : "no"));
}

static char *format_guest_memfd(json_object *features) {
        uint64_t flags = 0;

        if (!json_get_bool(features, "guestMemfd"))
                return strdup("no");

        (void) json_get_uint64(features, "guestMemfdFlags", &flags);
        return strdup(flags & PRIVMEM_GUEST_MEMFD_INIT_SHARED ? "yes, can be mapped and initially shared" :
                      flags & PRIVMEM_GUEST_MEMFD_MMAP        ? "yes, can be mapped" :
                                                                "yes, cannot be mapped");
}

static int print_facts(json_object *host) {
        json_object *features = json_get_object(host, "features");
        Table t;

        table_init(&t, "", "", NULL);
        add_row(&t, "privmemd", format_text_field(host, "version"));
        add_row(&t, "Kernel", format_text_field(host, "kernelRelease"));
        add_row(&t, "Page size", format_size_field(host, "pageSize"));
        add_feature(&t, "KVM", features, "kvm");
        add_row(&t, "guest_memfd", format_guest_memfd(features));
        add_feature(&t, "cachestat", features, "cachestat");
        add_feature(&t, "noexec seal", features, "noexecSeal");
        add_row(&t, "Custody", format_text_field(host, "custody"));
        add_row(&t, "VMs", format_number_field(host, "vms"));
        add_row(&t, "Backings", format_number_field(host, "backings"));
        add_row(&t, "Slots", format_number_field(host, "slots"));
        add_row(&t, "Promised", format_size_field(host, "promisedBytes"));
        add_row(&t, "Resident", format_size_field(host, "residentBytes"));
        return table_print(&t);
}

static int print_pools(json_object *pools) {
        Table t;

        table_init(&t, ">HUGE PAGE", ">NODE", ">TOTAL", ">FREE", ">RESERVED", NULL);
        for (size_t i = 0; i < json_object_array_length(pools); i++) {
                json_object *pool = json_object_array_get_idx(pools, i);
                uint64_t node;

                table_add(&t, format_size_field(pool, "pageSize"));
                table_add(&t, json_get_uint64(pool, "node", &node) ? format_number(node) : strdup("all"));
                table_add(&t, format_size_field(pool, "total"));
                table_add(&t, format_size_field(pool, "free"));
                table_add(&t, format_size_field(pool, "reserved"));
        }
        return table_print(&t);
}

static int print_limits(json_object *limits) {
        Table t;

        table_init(&t, "LIMIT", ">MAXIMUM", NULL);
        json_object_object_foreach(limits, key, value) {
                table_add_text(&t, key);
                table_add_text(&t, json_object_get_string(value));
        }
        return table_print(&t);
}

static int print_host(json_object *host) {
        json_object *pools = json_get_array(host, "hugePagePools"), *limits = json_get_object(host, "limits");
        int r;

        r = print_facts(host);
        if (r == EXIT_OK && pools && json_object_array_length(pools) > 0) {
                putchar('\n');
                r = print_pools(pools);
        }
        if (r == EXIT_OK && limits) {
                putchar('\n');
                r = print_limits(limits);
        }
        return r;
}

int verb_host(Session *s, const Verb *verb, char **arguments) {
        json_object *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 0, 0, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        r = session_call(s, "GetHost", json_object_new_object(), &reply);
        if (r != EXIT_OK)
                return r;

        r = s->json ? session_print(reply) : print_host(reply);
        json_object_put(reply);
        return r;
}

/* ---- events -------------------------------------------------------------------------------------------- */

/* What an event has beyond VM and backing, as " key value" each. */
static void print_details(json_object *event) {
        json_object *slot = json_get_object(event, "slot"), *verdict = json_get_object(event, "verdict");
        const char *access = json_get_string(event, "access"), *reason = json_get_string(verdict, "reason"),
                   *why = json_get_string(event, "reason"), *peer = json_get_string(event, "peer");
        uint64_t number;
        char *text;

        if (slot) {
                uint64_t start = 0, size = 0, slot_id = 0;

                (void) json_get_uint64(slot, "slotId", &slot_id);
                (void) json_get_uint64(slot, "guestPhysAddr", &start);
                (void) json_get_uint64(slot, "memorySize", &size);
                text = format_range(start, size);
                printf("  slot %" PRIu64 " guest %s", slot_id, text ? text : "?");
                free(text);
        }
        if (access)
                printf("  %s", access);
        if (json_get_uint64(event, "peerUID", &number))
                printf("  uid %" PRIu64, number);
        if (json_get_uint64(event, "pid", &number))
                printf("  pid %" PRIu64, number);
        if (json_get_uint64(event, "freedBytes", &number)) {
                text = format_size(number);
                printf("  freed %s", text ? text : "?");
                free(text);
        }
        if (why)
                printf("  %s", why);
        if (peer)
                printf("  VM %s", peer);
        if (reason)
                printf("  %s", reason);
}

static void print_event(const struct privmem_event *e) {
        json_object *event = NULL;
        char *when = format_time(e->timestamp_usec);

        if (json_parse_object(e->json, strlen(e->json), &event) < 0)
                event = NULL;

        printf("%s  %6" PRIu64 "  %-18s", when ? when : "?", e->sequence, e->kind);
        if (e->vm)
                printf("  %s%s%s", e->vm, e->backing ? "/" : "", e->backing ? e->backing : "");
        print_details(event);
        putchar('\n');
        free(when);
        json_object_put(event);
}

int verb_events(Session *s, const Verb *verb, char **arguments) {
        const char *since = NULL;
        const Option options[] = { { "since", .value = &since }, {} };
        struct privmem_event event;
        uint64_t sequence = 0;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 0, 0, &a);
        if (r == EXIT_OK && !a.answered && since)
                r = arguments_number("the sequence number", since, INT64_MAX, &sequence);
        if (r == EXIT_OK && !a.answered)
                r = session_open(s);
        if (r != EXIT_OK || a.answered)
                return r;

        if (privmem_subscribe(s->p, since ? (int64_t) sequence : -1) < 0)
                return session_fail(s);

        while (privmem_event_next(s->p, /* timeout_msec= */ -1, &event) >= 0) {
                if (s->json)
                        puts(event.json);
                else
                        print_event(&event);
                if (fflush(stdout) != 0)
                        return EXIT_ERROR;
        }
        return session_fail(s);
}
