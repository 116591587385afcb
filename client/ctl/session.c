/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format.h"
#include "lib/json.h"

void complain(const char *format, ...) {
        va_list arguments;

        fflush(stdout);
        fputs("privmemctl: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
}

int out_of_memory(void) {
        complain("out of memory.");
        return EXIT_ERROR;
}

int session_open(Session *s) {
        char *standard = NULL;
        int r = 0;

        if (s->p)
                return EXIT_OK;

        if (!s->socket)
                r = privmem_default_path(&standard);
        if (r >= 0)
                r = privmem_connect(s->socket ? s->socket : standard, &s->p);
        if (r < 0)
                complain("cannot connect to privmemd at %s: %s%s", s->socket ? s->socket : standard, strerror(-r),
                         r == -ENOENT || r == -ECONNREFUSED ? ". Does it run? --socket=PATH names another place." :
                                                              ".");
        free(standard);
        return r < 0 ? EXIT_CONNECT : EXIT_OK;
}

void session_done(Session *s) {
        s->p = privmem_close(s->p);
}

/* ---- errors -------------------------------------------------------------------------------------------- */

static void complain_verdict(json_object *verdict) {
        json_object *conflicts = json_get_array(verdict, "conflicts");
        size_t n = conflicts ? json_object_array_length(conflicts) : 0;

        for (size_t i = 0; i < n; i++) {
                char *line = format_conflict(json_object_array_get_idx(conflicts, i));

                if (line)
                        complain("  conflict: %s", line);
                free(line);
        }
}

/* The reasons of a table's refused slots; that of a single slot is in the message. */
static void complain_verdicts(json_object *verdicts) {
        size_t n = json_object_array_length(verdicts);

        for (size_t i = 0; i < n; i++) {
                json_object *verdict = json_object_array_get_idx(verdicts, i);
                const char *outcome = json_get_string(verdict, "outcome"),
                           *reason = json_get_string(verdict, "reason");

                if (!outcome || strcmp(outcome, "refused") != 0)
                        continue;
                complain("  entry %zu: %s", i, reason ? reason : "refused");
                complain_verdict(verdict);
        }
}

static void print_error(const char *name, json_object *parameters) {
        json_object *document = json_object_new_object();

        if (json_add_string(document, "error", name) &&
            json_add(document, "parameters", parameters ? json_object_get(parameters) : json_object_new_object()))
                session_print(document);
        json_object_put(document);
}

int session_fail(Session *s) {
        const char *name = privmem_error_name(s->p), *text = privmem_error_json(s->p);
        json_object *parameters = NULL;

        complain("%s", privmem_error_message(s->p));

        if (text)
                (void) json_parse_object(text, strlen(text), &parameters);
        complain_verdict(json_get_object(parameters, "verdict"));
        if (json_get_array(parameters, "verdicts"))
                complain_verdicts(json_get_array(parameters, "verdicts"));

        if (s->json && name)
                print_error(name, parameters);
        json_object_put(parameters);
        return EXIT_ERROR;
}

/* ---- calls --------------------------------------------------------------------------------------------- */

static int parse_reply(const char *text, json_object **ret) {
        if (json_parse_object(text, strlen(text), ret) < 0)
                return out_of_memory();
        return EXIT_OK;
}

int session_call(Session *s, const char *method, json_object *parameters, json_object **ret_reply) {
        return session_call_with_fd(s, method, parameters, /* fd= */ -1, ret_reply);
}

int session_call_with_fd(Session *s, const char *method, json_object *parameters, int fd, json_object **ret_reply) {
        const char *text = parameters ? json_text(parameters, NULL) : NULL;
        int fds[253];
        size_t n_fds = sizeof(fds) / sizeof(fds[0]);
        char *reply = NULL;
        int r;

        r = text ? session_open(s) : out_of_memory();
        if (r == EXIT_OK && privmem_call(s->p, method, text, &fd, fd >= 0 ? 1 : 0, &reply, fds, &n_fds) < 0)
                r = session_fail(s);
        json_object_put(parameters);
        if (r != EXIT_OK)
                return r;

        while (n_fds > 0)
                close(fds[--n_fds]);

        r = parse_reply(reply, ret_reply);
        free(reply);
        return r;
}

typedef struct Collection {
        const char *field;
        json_object *array;
        json_object *last; /* the part that came last */
} Collection;

static int collect(const char *reply, void *userdata) {
        Collection *c = userdata;
        json_object *part = NULL, *array;
        size_t n;
        int r;

        r = json_parse_object(reply, strlen(reply), &part);
        if (r < 0)
                return r;

        array = json_get_array(part, c->field);
        n = array ? json_object_array_length(array) : 0;
        for (size_t i = 0; i < n && r >= 0; i++)
                if (json_object_array_add(c->array, json_object_get(json_object_array_get_idx(array, i))) < 0)
                        r = -ENOMEM;

        json_object_put(c->last);
        c->last = part;
        return r;
}

int session_list(Session *s, const char *method, json_object *parameters, const char *field, json_object **ret_reply) {
        const char *text = parameters ? json_text(parameters, NULL) : NULL;
        Collection c = { .field = field, .array = json_object_new_array() };
        int r;

        r = text && c.array ? session_open(s) : out_of_memory();
        if (r == EXIT_OK && privmem_call_more(s->p, method, text, collect, &c) < 0)
                r = session_fail(s);
        json_object_put(parameters);

        if (r != EXIT_OK) {
                json_object_put(c.array);
                json_object_put(c.last);
                return r;
        }

        if (!json_add(c.last, field, c.array)) {
                json_object_put(c.last);
                return out_of_memory();
        }
        *ret_reply = c.last;
        return EXIT_OK;
}

int session_print(json_object *document) {
        const char *text = json_text(document, NULL);

        if (!text)
                return out_of_memory();
        puts(text);
        fflush(stdout);
        return EXIT_OK;
}
