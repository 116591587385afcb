/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The OpenAPI 3.1 document of REST. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/dump.h"
#include "api/dump-openapi.h"
#include "api/dump-schema.h"

static const char manual[] =
        "\n\n"
        "Names are chosen by the client: the same PUT again succeeds with 200, and another one under the same name is 409. "
        "What was deleted already is 404, which a client that repeats a DELETE takes for success.\n\n"
        "GET serves HEAD too; OPTIONS says which methods an address has. Only a body of application/json is taken. "
        "An unknown member of it or query parameter is refused, and so is a value of the wrong type.\n\n"
        "A list comes as a whole if there is no limit. With ?limit=N it comes in pages: nextCursor of a page is the cursor "
        "of the next one. With Accept: application/x-ndjson each element is one line.\n\n"
        "With ?dryRun=true, everything is checked and nothing is changed. A VM has an ETag: with If-Match, what changes "
        "the VM is refused with 412 if it was changed since.\n\n"
        "Whatever fails is answered with a problem document (RFC 9457): its type is the stable name of the error, and the "
        "numbers and objects that explain it are members. 503 has Retry-After: privmemd is not there, and nothing was "
        "done.";

bool openapi_is_answered(const sd_varlink_field *field, const void *userdata) {
        (void) userdata;
        return strcmp(field->name, "fileDescriptor") != 0;
}

/* One for each method; the only element of a list is its type itself, and so is an event. */
void openapi_replies(Json *j) {
        for (const OperationRow *row = operation_rows; row->name; row++) {
                const sd_varlink_symbol *method = find_symbol(row->name, SD_VARLINK_METHOD);
                const RouteRow *route = route_rows;
                char name[128];

                while (route->method && (strcmp(route->method, row->name) != 0 ||
                                         strcmp(route->answer, "EVENTS") == 0 || strcmp(route->answer, "ITEM") == 0))
                        route++;
                if (!route->method)
                        continue;
                snprintf(name, sizeof(name), "%sReply", row->name);
                json_open(j, name, '{');
                json_string(j, "type", "object");
                schema_fields(j, method, SD_VARLINK_OUTPUT, openapi_is_answered, NULL);
                json_close(j, '}');
        }
}

static void info(Json *j) {
        const sd_varlink_interface *interface = &vl_interface_io_privmemd_Memory;
        char text[4096];

        snprintf(text, sizeof(text), "%s%s", interface->symbols[0]->name, manual);
        json_open(j, "info", '{');
        json_string(j, "title", "privmemd");
        json_string(j, "version", PRIVMEMD_VERSION);
        json_string(j, "summary",
                    "Allots, hands out, guards, keeps and shows the memory of every KVM guest on a host.");
        json_string(j, "description", text);
        json_raw(j, "license", "{\"name\": \"LGPL-2.1-or-later\", \"identifier\": \"LGPL-2.1-or-later\"}");
        json_close(j, '}');
}

static void headers(Json *j) {
        json_open(j, "headers", '{');
        json_raw(j, "ETag",
                 "{\"description\": \"The generation of the VM, in quotes: what If-Match takes.\", "
                 "\"schema\": {\"type\": \"string\", \"pattern\": \"^\\\"[0-9]+\\\"$\"}}");
        json_raw(j, "Location",
                 "{\"description\": \"The path of the new object.\", \"schema\": {\"type\": \"string\", \"format\": "
                 "\"uri-reference\"}}");
        json_raw(j, "RetryAfter",
                 "{\"description\": \"Seconds until it makes sense to try again.\", "
                 "\"schema\": {\"type\": \"integer\", \"minimum\": 1}}");
        json_close(j, '}');
}

static void security_schemes(Json *j) {
        json_open(j, "securitySchemes", '{');
        json_raw(j, "certificate",
                 "{\"type\": \"mutualTLS\", \"description\": \"Over TCP: a certificate whose name has a right.\"}");
        json_raw(
                j, "token",
                "{\"type\": \"http\", \"scheme\": \"bearer\", \"description\": \"Over TCP: a token that has a right.\"}");
        json_close(j, '}');
}

int dump_openapi(FILE *out) {
        Json j = { .out = out };

        json_open(&j, NULL, '{');
        json_string(&j, "openapi", "3.1.0");
        info(&j);
        openapi_paths(&j);
        json_open(&j, "components", '{');
        json_open(&j, "schemas", '{');
        schema_types(&j);
        openapi_replies(&j);
        openapi_problems(&j);
        json_close(&j, '}');
        headers(&j);
        security_schemes(&j);
        json_close(&j, '}');
        json_close(&j, '}');
        return 0;
}

/* Line by line, without what indents them. */
int dump_openapi_header(FILE *out) {
        char *text = NULL;
        size_t size;
        FILE *memory;
        int r;

        memory = open_memstream(&text, &size);
        if (!memory)
                return -errno;
        r = dump_openapi(memory);
        if (fclose(memory) != 0)
                r = -errno;
        if (r == 0) {
                fputs("/* Printed by dump from the contract. */\n\nstatic const char openapi_json[] =", out);
                for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
                        fputs("\n        ", out);
                        json_quote(out, line + strspn(line, " "));
                }
                fputs(";\n", out);
        }
        free(text);
        return r;
}
