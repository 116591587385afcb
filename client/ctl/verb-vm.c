/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* list, show, register, unregister */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "format.h"
#include "lib/json.h"
#include "table.h"
#include "verb.h"

static json_object *parameters_of(const char *key, const char *name) {
        json_object *q = json_object_new_object();

        if (!json_add_string(q, key, name)) {
                json_object_put(q);
                return NULL;
        }
        return q;
}

/* ---- list ---------------------------------------------------------------------------------------------- */

static int print_vms(json_object *vms) {
        Table t;

        table_init(&t, "NAME", "STATE", ">OWNER", ">PID", ">BACKINGS", ">SLOTS", ">PROMISED", ">RESIDENT",
                   "EXIT POLICY", NULL);
        for (size_t i = 0; i < json_object_array_length(vms); i++) {
                json_object *vm = json_object_array_get_idx(vms, i);

                table_add(&t, format_text_field(vm, "name"));
                table_add(&t, format_text_field(vm, "state"));
                table_add(&t, format_number_field(vm, "ownerUID"));
                table_add(&t, format_number_field(vm, "pid"));
                table_add(&t, format_number_field(vm, "backings"));
                table_add(&t, format_number_field(vm, "slots"));
                table_add(&t, format_size_field(vm, "promisedBytes"));
                table_add(&t, format_size_field(vm, "residentBytes"));
                table_add(&t, format_text_field(vm, "exitPolicy"));
        }
        return table_print(&t);
}

int verb_list(Session *s, const Verb *verb, char **arguments) {
        json_object *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 0, 0, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        r = session_list(s, "ListVMs", json_object_new_object(), "vms", &reply);
        if (r != EXIT_OK)
                return r;

        r = s->json ? session_print(reply) : print_vms(json_get_array(reply, "vms"));
        json_object_put(reply);
        return r;
}

/* ---- show ---------------------------------------------------------------------------------------------- */

static void add_row(Table *t, const char *title, char *value) {
        table_add_text(t, title);
        table_add(t, value);
}

/* Only what an exit policy has that keeps something. */
static void add_retention(Table *t, json_object *vm) {
        uint64_t usec;

        if (json_get_uint64(vm, "retainUSec", &usec))
                add_row(t, "Retained for", format_duration(usec));
        if (json_get_uint64(vm, "retainedUntilUSec", &usec))
                add_row(t, "Retained until", format_time(usec));
        if (json_get_bool(vm, "retainGuestMemfd"))
                add_row(t, "guest_memfds", strdup("kept for reading"));
}

/* A process has an entry for each backing. */
static bool is_listed_before(json_object *holders, size_t n, uint64_t pid) {
        uint64_t other;

        for (size_t i = 0; i < n; i++)
                if (json_get_uint64(json_object_array_get_idx(holders, i), "pid", &other) && other == pid)
                        return true;
        return false;
}

/* "held by 71 (vhost-device), 72 (cat)": who may keep the next VMM from being attached. The VMMs of other VMs do not, if the
 * memory is shared with these. */
static char *format_fence(json_object *holders) {
        const char *before = "held by ";
        char *text = NULL;
        uint64_t pid;
        size_t size;
        FILE *out;

        out = open_memstream(&text, &size);
        if (!out)
                return NULL;
        for (size_t i = 0; i < json_object_array_length(holders); i++) {
                json_object *holder = json_object_array_get_idx(holders, i);
                const char *command = json_get_string(holder, "command");

                if (json_get_array(holder, "vmmOf") || !json_get_uint64(holder, "pid", &pid) ||
                    is_listed_before(holders, i, pid))
                        continue;
                fprintf(out, "%s%" PRIu64 " (%s)", before, pid, command ? command : "?");
                before = ", ";
        }
        if (strcmp(before, "held by ") == 0)
                fputs("open", out);
        if (fclose(out) != 0) {
                free(text);
                return NULL;
        }
        return text;
}

static int print_vm(json_object *vm, json_object *holders) {
        uint64_t pid;
        Table t;

        table_init(&t, "", "", NULL);
        add_row(&t, "Name", format_text_field(vm, "name"));
        add_row(&t, "UUID", format_text_field(vm, "uuid"));
        add_row(&t, "State", format_text_field(vm, "state"));
        add_row(&t, "VMM", format_number_field(vm, "pid"));
        if (json_get_uint64(vm, "successorPID", &pid))
                add_row(&t, "Successor", format_number(pid));
        if (json_get_uint64(vm, "outgoingPID", &pid))
                add_row(&t, "Outgoing VMM", format_number(pid));
        add_row(&t, "Owner", format_number_field(vm, "ownerUID"));
        add_row(&t, "Exit policy", format_text_field(vm, "exitPolicy"));
        add_retention(&t, vm);
        if (holders)
                add_row(&t, "Fence", format_fence(holders));
        add_row(&t, "Alias policy", format_text_field(vm, "aliasPolicy"));
        add_row(&t, "Type", format_text_field(vm, "type"));
        add_row(&t, "Slots", format_number_field(vm, "slots"));
        add_row(&t, "Promised", format_size_field(vm, "promisedBytes"));
        add_row(&t, "Resident", format_size_field(vm, "residentBytes"));
        return table_print(&t);
}

static char *format_numa(json_object *backing) {
        const char *policy = json_get_string(backing, "numaPolicy");
        char *nodes, *text = NULL;

        if (!policy)
                return strdup("-");

        nodes = format_array(json_get_array(backing, "numaNodes"));
        if (nodes && asprintf(&text, "%s:%s", policy, nodes) < 0)
                text = NULL;
        free(nodes);
        return text;
}

/* "guest_memfd (cannot be bound)": its VMM has exited, and no kernel can bind it to another VM. */
static char *format_kind(json_object *backing) {
        json_object *bindable;

        if (json_object_object_get_ex(backing, "bindable", &bindable) && bindable &&
            !json_object_get_boolean(bindable))
                return strdup("guest_memfd (cannot be bound)");
        return format_text_field(backing, "kind");
}

/* "web2,web3 (read_only)" */
static char *format_shares(json_object *shares) {
        char *text = NULL;
        size_t size;
        FILE *out;

        if (!shares || json_object_array_length(shares) == 0)
                return strdup("-");

        out = open_memstream(&text, &size);
        if (!out)
                return NULL;
        for (size_t i = 0; i < json_object_array_length(shares); i++) {
                json_object *share = json_object_array_get_idx(shares, i);
                const char *vm = json_get_string(share, "vm"), *access = json_get_string(share, "access");

                fprintf(out, "%s%s", i > 0 ? "," : "", vm ? vm : "?");
                if (access && strcmp(access, "read_write") != 0)
                        fprintf(out, " (%s)", access);
        }
        if (fclose(out) != 0) {
                free(text);
                return NULL;
        }
        return text;
}

static int print_backings(json_object *backings) {
        Table t;

        table_init(&t, "BACKING", "KIND", "ORIGIN", ">SIZE", ">PAGE", ">RESIDENT", ">SLOTS", ">DEVICE", ">INODE",
                   "NUMA", "SEALS", "SHARED WITH", NULL);
        for (size_t i = 0; i < json_object_array_length(backings); i++) {
                json_object *b = json_object_array_get_idx(backings, i);

                table_add(&t, format_text_field(b, "name"));
                table_add(&t, format_kind(b));
                table_add(&t, format_text_field(b, "origin"));
                table_add(&t, format_size_field(b, "size"));
                table_add(&t, format_size_field(b, "pageSize"));
                table_add(&t, format_size_field(b, "residentBytes"));
                table_add(&t, format_number_field(b, "slots"));
                table_add(&t, format_number_field(b, "device"));
                table_add(&t, format_number_field(b, "inode"));
                table_add(&t, format_numa(b));
                table_add(&t, format_array(json_get_array(b, "seals")));
                table_add(&t, format_shares(json_get_array(b, "shares")));
        }
        return table_print(&t);
}

static int print_survival(json_object *backings) {
        static const struct {
                const char *key, *title;
        } events[] = {
                { "vmmCrash", "VMM crash" },
                { "vmmUpgrade", "VMM upgrade" },
                { "daemonRestart", "privmemd restart" },
                { "hostKexec", "host kexec" },
        };
        Table t;

        table_init(&t, "BACKING", "AFTER", "IS THERE", "WHY", NULL);
        for (size_t i = 0; i < json_object_array_length(backings); i++) {
                json_object *b = json_object_array_get_idx(backings, i), *survival = json_get_object(b, "survival");

                for (size_t j = 0; j < sizeof(events) / sizeof(events[0]); j++) {
                        json_object *one = json_get_object(survival, events[j].key);

                        table_add(&t, format_text_field(b, "name"));
                        table_add_text(&t, events[j].title);
                        table_add_text(&t, json_get_bool(one, "survives") ? "yes" : "no");
                        table_add(&t, format_text_field(one, "explanation"));
                }
        }
        return table_print(&t);
}

/* holders: of a retained VM, or NULL. */
static int show(Session *s, json_object *vm, json_object *backings, json_object *holders) {
        json_object *document;
        int r;

        if (!s->json) {
                r = print_vm(vm, holders);
                if (r != EXIT_OK || json_object_array_length(backings) == 0)
                        return r;
                putchar('\n');
                r = print_backings(backings);
                if (r != EXIT_OK)
                        return r;
                putchar('\n');
                return print_survival(backings);
        }

        document = json_object_new_object();
        if (json_add(document, "vm", json_object_get(vm)) && json_add(document, "backings", json_object_get(backings)))
                r = session_print(document);
        else
                r = out_of_memory();
        json_object_put(document);
        return r;
}

int verb_show(Session *s, const Verb *verb, char **arguments) {
        json_object *vms = NULL, *backings = NULL, *holders = NULL, *vm = NULL;
        const char *state;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        r = session_list(s, "ListVMs", parameters_of("vm", a.items[0]), "vms", &vms);
        if (r == EXIT_OK)
                r = session_list(s, "ListBackings", parameters_of("vm", a.items[0]), "backings", &backings);
        if (r == EXIT_OK) {
                vm = json_object_array_get_idx(json_get_array(vms, "vms"), 0);
                state = json_get_string(vm, "state");
                if (!s->json && state && strcmp(state, "retained") == 0)
                        r = session_list(s, "ListHolders", parameters_of("vm", a.items[0]), "holders", &holders);
        }
        if (r == EXIT_OK)
                r = show(s, vm, json_get_array(backings, "backings"), json_get_array(holders, "holders"));

        json_object_put(vms);
        json_object_put(backings);
        json_object_put(holders);
        return r;
}

/* ---- register ------------------------------------------------------------------------------------------ */

/* --retain says the exit policy too. */
static int read_retention(const char *retain, const char **exit_policy, uint64_t *ret_usec) {
        if (!retain)
                return EXIT_OK;
        if (!*exit_policy)
                *exit_policy = "retain";
        return arguments_time("the time to retain", retain, ret_usec);
}

int verb_register(Session *s, const Verb *verb, char **arguments) {
        const char *uuid = NULL, *owner = NULL, *exit_policy = NULL, *alias_policy = NULL, *type = NULL,
                   *retain = NULL;
        bool retain_guest_memfd = false;
        const Option options[] = {
                { "uuid", .value = &uuid },
                { "owner", .value = &owner },
                { "exit-policy", .value = &exit_policy },
                { "retain", .value = &retain },
                { "retain-guest-memfd", .flag = &retain_guest_memfd },
                { "alias-policy", .value = &alias_policy },
                { "type", .value = &type },
                {},
        };
        json_object *q, *reply = NULL;
        uint64_t retain_usec = 0;
        uint32_t uid = 0;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        if (owner && (r = arguments_user(owner, &uid)) != EXIT_OK)
                return r;
        r = read_retention(retain, &exit_policy, &retain_usec);
        if (r != EXIT_OK)
                return r;

        q = parameters_of("name", a.items[0]);
        if (!json_add_string(q, "uuid", uuid) || (owner && !json_add_uint64(q, "ownerUID", uid)) ||
            !json_add_string(q, "exitPolicy", exit_policy) ||
            (retain_usec > 0 && !json_add_uint64(q, "retainUSec", retain_usec)) ||
            (retain_guest_memfd && !json_add(q, "retainGuestMemfd", json_object_new_boolean(true))) ||
            !json_add_string(q, "aliasPolicy", alias_policy) || !json_add_string(q, "type", type)) {
                json_object_put(q);
                q = NULL;
        }

        r = session_call(s, "RegisterVM", q, &reply);
        if (r != EXIT_OK)
                return r;

        if (s->json)
                r = session_print(reply);
        else if (json_get_bool(reply, "created"))
                printf("Registered VM %s.\n", a.items[0]);
        else
                printf("VM %s was registered already.\n", a.items[0]);
        json_object_put(reply);
        return r;
}

/* ---- unregister ---------------------------------------------------------------------------------------- */

int verb_unregister(Session *s, const Verb *verb, char **arguments) {
        json_object *reply = NULL;
        char *freed;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        r = session_call(s, "UnregisterVM", parameters_of("vm", a.items[0]), &reply);
        if (r != EXIT_OK)
                return r;

        if (s->json) {
                r = session_print(reply);
        } else {
                freed = format_size_field(reply, "freedBytes");
                printf("Unregistered VM %s: %s freed.\n", a.items[0], freed ? freed : "?");
                free(freed);
        }
        json_object_put(reply);
        return r;
}
