/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ledger */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "format.h"
#include "lib/json.h"
#include "verb.h"

typedef struct Printing {
        bool has_begun;
        bool is_damaged, is_torn;
} Printing;

/* A ledger may have millions of records, so lines are printed as they come and columns have a width of their own. */
static void print_titles(json_object *part) {
        const char *custody = json_get_string(part, "custody");
        char *bytes = format_size_field(part, "bytes"), *frames = format_number_field(part, "frames"),
             *generation = format_number_field(part, "generation");

        if (custody && strcmp(custody, "none") == 0)
                puts("privmemd keeps no ledger: it has no fd store, and no directory for one.");
        else
                printf("Generation %s: %s in %s frames (%s)\n\n%8s %10s  %-17s %-24s %s\n",
                       generation ? generation : "?", bytes ? bytes : "?", frames ? frames : "?",
                       custody ? custody : "?", "FRAME", "OFFSET", "RECORD", "VM/BACKING", "FIELDS");
        free(bytes);
        free(frames);
        free(generation);
}

/* "web1/ram0"; an id where no name is known. */
static void print_object(json_object *record) {
        const char *vm = json_get_string(record, "vm"), *backing = json_get_string(record, "backing");
        uint64_t vm_id = 0, backing_id = 0;
        char text[160], number[2][24];

        (void) json_get_uint64(record, "vmId", &vm_id);
        (void) json_get_uint64(record, "backingId", &backing_id);
        snprintf(number[0], sizeof(number[0]), "#%" PRIu64, vm_id);
        snprintf(number[1], sizeof(number[1]), "#%" PRIu64, backing_id);
        if (!vm)
                vm = vm_id > 0 ? number[0] : "-";
        if (!backing && backing_id > 0)
                backing = number[1];
        snprintf(text, sizeof(text), "%s%s%s", vm, backing ? "/" : "", backing ? backing : "");
        printf("%-24s", text);
}

static void print_record(json_object *record, Printing *p) {
        json_object *fields = json_get_array(record, "fields");
        const char *type = json_get_string(record, "type");
        uint64_t sequence = 0, offset = 0, version = 0, size = 0;

        (void) json_get_uint64(record, "sequence", &sequence);
        (void) json_get_uint64(record, "offset", &offset);
        (void) json_get_uint64(record, "version", &version);
        (void) json_get_uint64(record, "size", &size);
        printf("%8" PRIu64 " %10" PRIu64 "  %-17s ", sequence, offset, type ? type : "?");
        print_object(record);
        for (size_t i = 0; fields && i < json_object_array_length(fields); i++) {
                json_object *field = json_object_array_get_idx(fields, i);
                const char *name = json_get_string(field, "name"), *value = json_get_string(field, "value");

                printf(" %s=%s", name ? name : "?", value ? value : "?");
        }
        if (!fields || json_object_array_length(fields) == 0 || version == 0)
                printf(" %" PRIu64 " bytes", size);
        if (version > 1)
                printf(" of version %" PRIu64, version);
        putchar('\n');
        p->is_damaged |= type && strcmp(type, "DAMAGED") == 0;
        p->is_torn |= type && strcmp(type, "TORN") == 0;
}

static int print_part(const char *reply, void *userdata) {
        Printing *p = userdata;
        json_object *part = NULL, *records;
        int r;

        r = json_parse_object(reply, strlen(reply), &part);
        if (r < 0)
                return r;
        records = json_get_array(part, "records");
        if (!p->has_begun)
                print_titles(part);
        p->has_begun = true;
        for (size_t i = 0; records && i < json_object_array_length(records); i++)
                print_record(json_object_array_get_idx(records, i), p);
        json_object_put(part);
        return ferror(stdout) ? -EIO : 0;
}

static int print_json(const char *reply, void *userdata) {
        (void) userdata;

        puts(reply);
        return fflush(stdout) == 0 ? 0 : -EIO;
}

int verb_ledger(Session *s, const Verb *verb, char **arguments) {
        Printing p = {};
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 0, 0, &a);
        if (r == EXIT_OK && !a.answered)
                r = session_open(s);
        if (r != EXIT_OK || a.answered)
                return r;

        if (privmem_call_more(s->p, "ListLedger", "{}", s->json ? print_json : print_part, &p) < 0)
                r = session_fail(s);
        if (p.is_damaged)
                complain(
                        "DAMAGED: what was written there cannot be read any more. The next start of privmemd says so, and keeps what it has.");
        if (p.is_torn)
                complain(
                        "TORN: the last frame is not whole. Nobody was told of it, and the next one takes its place.");
        return r;
}
