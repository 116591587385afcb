/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* claim, claims */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "arguments.h"
#include "format.h"
#include "lib/json.h"
#include "table.h"
#include "verb.h"

/* The names behind the VM; none: privmemd takes all that there are. */
static bool add_backings(json_object *q, const Arguments *a) {
        json_object *array;

        if (a->n < 2)
                return q != NULL;
        array = json_object_new_array();
        for (size_t i = 1; array && i < a->n; i++)
                if (json_object_array_add(array, json_object_new_string(a->items[i])) < 0) {
                        json_object_put(array);
                        return false;
                }
        return json_add(q, "backings", array);
}

static json_object *make_parameters(const Arguments *a, bool read_only, uint64_t lifetime_usec) {
        json_object *q = json_object_new_object();

        if (!json_add_string(q, "vm", a->items[0]) || !add_backings(q, a) ||
            !json_add_string(q, "access", read_only ? "read_only" : NULL) ||
            (lifetime_usec > 0 && !json_add_uint64(q, "lifetimeUSec", lifetime_usec))) {
                json_object_put(q);
                return NULL;
        }
        return q;
}

static uint64_t now_usec(void) {
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

/* "4min 59s"; it may be over by now. */
static char *format_rest(json_object *claim) {
        uint64_t until = 0, now = now_usec();

        (void) json_get_uint64(claim, "expiresUSec", &until);
        return format_duration(until > now ? until - now : 0);
}

/* The token alone is on standard output, for $(…). */
static int print_token(json_object *reply) {
        const char *token = json_get_string(reply, "token"), *claim = json_get_string(reply, "claim");
        char *rest = format_rest(reply);

        puts(token ? token : "");
        fflush(stdout);
        fprintf(stderr, "This is claim %s: good once, for %s.\n", claim ? claim : "", rest ? rest : "a while");
        free(rest);
        return EXIT_OK;
}

int verb_claim(Session *s, const Verb *verb, char **arguments) {
        const char *lifetime = NULL;
        bool read_only = false;
        const Option options[] = {
                { "read-only", .flag = &read_only },
                { "lifetime", .value = &lifetime },
                {},
        };
        json_object *reply = NULL;
        uint64_t usec = 0;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 254, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        if (lifetime) {
                r = arguments_time("the lifetime", lifetime, &usec);
                if (r != EXIT_OK)
                        return r;
        }

        r = session_call(s, "CreateClaim", make_parameters(&a, read_only, usec), &reply);
        if (r != EXIT_OK)
                return r;
        r = s->json ? session_print(reply) : print_token(reply);
        json_object_put(reply);
        return r;
}

static int print_claims(json_object *claims) {
        Table t;

        table_init(&t, "CLAIM", "ACCESS", "ENDS IN", "BACKINGS", NULL);
        for (size_t i = 0; i < json_object_array_length(claims); i++) {
                json_object *claim = json_object_array_get_idx(claims, i);

                table_add(&t, format_text_field(claim, "claim"));
                table_add(&t, format_text_field(claim, "access"));
                table_add(&t, format_rest(claim));
                table_add(&t, format_array(json_get_array(claim, "backings")));
        }
        return table_print(&t);
}

static json_object *of_vm(const char *vm, const char *claim) {
        json_object *q = json_object_new_object();

        if (!json_add_string(q, "vm", vm) || !json_add_string(q, "claim", claim)) {
                json_object_put(q);
                return NULL;
        }
        return q;
}

static int delete(Session *s, const char *vm, const char *claim) {
        json_object *reply = NULL;
        int r;

        r = session_call(s, "DeleteClaim", of_vm(vm, claim), &reply);
        if (r != EXIT_OK)
                return r;
        if (s->json)
                r = session_print(reply);
        else
                printf("Claim %s of VM %s is deleted.\n", claim, vm);
        json_object_put(reply);
        return r;
}

int verb_claims(Session *s, const Verb *verb, char **arguments) {
        const char *to_delete = NULL;
        const Option options[] = { { "delete", .value = &to_delete }, {} };
        json_object *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        if (to_delete)
                return delete (s, a.items[0], to_delete);

        r = session_list(s, "ListClaims", of_vm(a.items[0], NULL), "claims", &reply);
        if (r != EXIT_OK)
                return r;
        r = s->json ? session_print(reply) : print_claims(json_get_array(reply, "claims"));
        json_object_put(reply);
        return r;
}
