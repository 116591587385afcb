/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* slots, check */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "format.h"
#include "lib/json.h"
#include "table.h"
#include "verb.h"

/* ---- slots --------------------------------------------------------------------------------------------- */

/* "ram0", or "web1/ram0" if it is another VM's. */
static char *format_backing(json_object *slot, const char *vm) {
        const char *backing = json_get_string(slot, "backing"), *owner = json_get_string(slot, "backingVM");
        char *text;

        if (!backing)
                return strdup("-");
        if (!owner || (vm && strcmp(owner, vm) == 0))
                return strdup(backing);
        return asprintf(&text, "%s/%s", owner, backing) < 0 ? NULL : text;
}

/* "web1", or "web1 (outgoing)" for a slot of the former VMM that hands it over. */
static char *format_vm(json_object *listed) {
        const char *vm = json_get_string(listed, "vm");
        char *text;

        if (!json_get_bool(listed, "outgoing"))
                return format_text_field(listed, "vm");
        return asprintf(&text, "%s (outgoing)", vm ? vm : "?") < 0 ? NULL : text;
}

static int print_slots(json_object *slots) {
        Table t;

        table_init(&t, "VM", ">SPACE", ">SLOT", ">GUEST ADDRESS", ">SIZE", ">USER ADDRESS", "BACKING", ">OFFSET",
                   "GUEST_MEMFD", ">OFFSET", "FLAGS", NULL);
        for (size_t i = 0; i < json_object_array_length(slots); i++) {
                json_object *listed = json_object_array_get_idx(slots, i), *slot = json_get_object(listed, "slot");
                bool backed = json_get_string(slot, "backing"), private = json_get_string(slot, "guestMemfd");

                table_add(&t, format_vm(listed));
                table_add(&t, format_number_field(slot, "addressSpace"));
                table_add(&t, format_number_field(slot, "slotId"));
                table_add(&t, format_address_field(slot, "guestPhysAddr"));
                table_add(&t, format_size_field(slot, "memorySize"));
                table_add(&t, format_address_field(slot, "userspaceAddr"));
                table_add(&t, format_backing(slot, json_get_string(listed, "vm")));
                table_add(&t, backed ? format_address_field(slot, "backingOffset") : strdup("-"));
                table_add(&t, format_text_field(slot, "guestMemfd"));
                table_add(&t, private ? format_address_field(slot, "guestMemfdOffset") : strdup("-"));
                table_add(&t, format_array(json_get_array(slot, "flags")));
        }
        return table_print(&t);
}

int verb_slots(Session *s, const Verb *verb, char **arguments) {
        const char *backing = NULL, *guest = NULL;
        const Option options[] = { { "backing", .value = &backing }, { "guest", .value = &guest }, {} };
        json_object *q, *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        r = arguments_guest(a.items[0], guest, &q);
        if (r != EXIT_OK)
                return r;
        if (!json_add_string(q, "backing", backing)) {
                json_object_put(q);
                q = NULL;
        }

        r = session_list(s, "ListSlots", q, "slots", &reply);
        if (r != EXIT_OK)
                return r;

        r = s->json ? session_print(reply) : print_slots(json_get_array(reply, "slots"));
        json_object_put(reply);
        return r;
}

/* ---- check --------------------------------------------------------------------------------------------- */

#define FILE_MAX ((size_t) 16 * 1024 * 1024)

static int read_file(const char *path, char **ret, size_t *ret_size) {
        bool standard = strcmp(path, "-") == 0;
        size_t capacity = 0, size = 0, n;
        char *text = NULL;
        FILE *f;
        int r = EXIT_OK;

        f = standard ? stdin : fopen(path, "re");
        if (!f) {
                complain("cannot read %s: %s.", path, strerror(errno));
                return EXIT_ERROR;
        }

        do {
                if (size == capacity) {
                        char *longer = realloc(text, capacity = capacity == 0 ? 65536 : capacity * 2);

                        if (!longer) {
                                r = out_of_memory();
                                break;
                        }
                        text = longer;
                }
                n = fread(text + size, 1, capacity - size, f);
                size += n;
        } while (n > 0 && size <= FILE_MAX);

        if (r == EXIT_OK && (ferror(f) || size > FILE_MAX)) {
                complain("cannot read %s: %s.", path, ferror(f) ? strerror(errno) : "it is larger than 16 MiB");
                r = EXIT_ERROR;
        }
        if (!standard)
                fclose(f);
        if (r != EXIT_OK) {
                free(text);
                return r;
        }

        *ret = text;
        *ret_size = size;
        return EXIT_OK;
}

/* An array of slots, or an object whose field "slots" is one: what slots --json prints is taken too. */
static int read_slots(const char *path, json_object **ret) {
        json_object *document = NULL, *slots;
        char *text = NULL;
        size_t size = 0;
        int r;

        r = read_file(path, &text, &size);
        if (r != EXIT_OK)
                return r;

        r = json_parse(text, size, &document);
        free(text);
        slots = json_object_is_type(document, json_type_array) ? document : json_get_array(document, "slots");
        if (r < 0 || !slots) {
                complain("%s is no JSON array of slots.", strcmp(path, "-") == 0 ? "standard input" : path);
                json_object_put(document);
                return EXIT_ERROR;
        }

        json_object_get(slots);
        json_object_put(document);

        for (size_t i = 0; i < json_object_array_length(slots); i++) {
                json_object *slot = json_get_object(json_object_array_get_idx(slots, i), "slot");

                if (slot)
                        json_object_array_put_idx(slots, i, json_object_get(slot));
        }

        *ret = slots;
        return EXIT_OK;
}

static int print_verdicts(json_object *slots, json_object *verdicts) {
        Table t;

        table_init(&t, ">SPACE", ">SLOT", "VERDICT", "RULE", ">KVM'S ERRNO", "REASON", NULL);
        for (size_t i = 0; i < json_object_array_length(verdicts); i++) {
                json_object *slot = json_object_array_get_idx(slots, i),
                            *verdict = json_object_array_get_idx(verdicts, i);
                uint64_t address_space = 0;

                (void) json_get_uint64(slot, "addressSpace", &address_space);
                table_add(&t, format_number(address_space));
                table_add(&t, format_number_field(slot, "slotId"));
                table_add(&t, format_text_field(verdict, "outcome"));
                table_add(&t, format_text_field(verdict, "rule"));
                table_add(&t, format_number_field(verdict, "kernelErrno"));
                table_add(&t, format_text_field(verdict, "reason"));
        }
        return table_print(&t);
}

static void print_conflicts(json_object *slots, json_object *verdicts) {
        for (size_t i = 0; i < json_object_array_length(verdicts); i++) {
                json_object *conflicts = json_get_array(json_object_array_get_idx(verdicts, i), "conflicts");
                char *slot = format_number_field(json_object_array_get_idx(slots, i), "slotId");

                for (size_t j = 0; conflicts && j < json_object_array_length(conflicts); j++) {
                        char *line = format_conflict(json_object_array_get_idx(conflicts, j));

                        printf("slot %s: %s\n", slot ? slot : "?", line ? line : "?");
                        free(line);
                }
                free(slot);
        }
}

static void print_advice(json_object *slots, json_object *verdicts) {
        for (size_t i = 0; i < json_object_array_length(verdicts); i++) {
                json_object *advice = json_get_array(json_object_array_get_idx(verdicts, i), "advice");
                uint64_t slot_id = 0;

                (void) json_get_uint64(json_object_array_get_idx(slots, i), "slotId", &slot_id);
                for (size_t j = 0; advice && j < json_object_array_length(advice); j++) {
                        const char *message = json_get_string(json_object_array_get_idx(advice, j), "message");

                        printf("slot %" PRIu64 ": advice: %s\n", slot_id, message ? message : "?");
                }
        }
}

int verb_check(Session *s, const Verb *verb, char **arguments) {
        json_object *q, *slots = NULL, *reply = NULL, *verdicts;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 2, 2, &a);
        if (r == EXIT_OK && !a.answered)
                r = read_slots(a.items[1], &slots);
        if (r != EXIT_OK || a.answered)
                return r;

        q = json_object_new_object();
        if (!json_add_string(q, "vm", a.items[0]) || !json_add(q, "slots", json_object_get(slots))) {
                json_object_put(q);
                q = NULL;
        }

        r = session_call(s, "CheckSlots", q, &reply);
        verdicts = r == EXIT_OK ? json_get_array(reply, "verdicts") : NULL;
        if (r == EXIT_OK && s->json) {
                r = session_print(reply);
        } else if (verdicts) {
                r = print_verdicts(slots, verdicts);
                print_conflicts(slots, verdicts);
                print_advice(slots, verdicts);
        }
        if (r == EXIT_OK && !json_get_bool(reply, "accepted"))
                r = EXIT_ERROR;

        json_object_put(slots);
        json_object_put(reply);
        return r;
}
