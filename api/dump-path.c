/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The operations of the OpenAPI document: one for each row of ROUTE, and one for each of RESOURCE. */

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "api/dump-openapi.h"
#include "api/dump-schema.h"

#define JSON    "application/json"
#define NDJSON  "application/x-ndjson"
#define PROBLEM "application/problem+json"

#define TAG "^\"[0-9]+\"$"

static const unsigned statuses[] = { 400, 403, 404, 406, 409, 412, 413, 415, 422, 423, 429, 502, 503, 507 };

static bool is(const char *a, const char *b) {
        return strcmp(a, b) == 0;
}

static bool has_body(const RouteRow *route) {
        return route->body != NULL;
}

/* The path of an ITEM says all of it. */
static bool has_query(const RouteRow *route) {
        return !has_body(route) && !is(route->answer, "ITEM");
}

/* ---- paths ---- */

/* Whether the path has {name}, or {name.member}. */
static bool is_in_path(const RouteRow *route, const char *name) {
        size_t length = strlen(name);

        for (const char *at = route->path; (at = strchr(at, '{'));)
                if (strncmp(++at, name, length) == 0 && (at[length] == '}' || at[length] == '.'))
                        return true;
        return false;
}

/* Two paths that differ in the names of their parts alone are one path of the document. */
static bool is_same_path(const char *a, const char *b) {
        while (*a && *b) {
                size_t n = strcspn(a, "/"), m = strcspn(b, "/");

                if (*a == '{' ? *b != '{' : n != m || strncmp(a, b, n) != 0)
                        return false;
                a += n + (a[n] == '/');
                b += m + (b[m] == '/');
        }
        return !*a && !*b;
}

/* That of a GET if there is one, for it has the names that people expect. */
static const RouteRow *naming_route(const RouteRow *route) {
        for (const RouteRow *other = route_rows; other->method; other++)
                if (is(other->verb, "GET") && is_same_path(other->path, route->path))
                        return other;
        return route;
}

/* A part of a path, without the braces and what stands before a dot: "slot.addressSpace" is "addressSpace". */
static const char *part_name(const char *brace, size_t *ret_length) {
        size_t length = strcspn(brace + 1, "}");
        const char *dot = memchr(brace + 1, '.', length);
        const char *name = dot ? dot + 1 : brace + 1;

        *ret_length = length - (size_t) (name - brace - 1);
        return name;
}

static void path_text(const RouteRow *route, size_t size, char *text) {
        size_t used = 0, length;

        for (const char *at = naming_route(route)->path; *at && used + 1 < size; at++) {
                text[used++] = *at;
                if (*at != '{')
                        continue;
                used += (size_t) snprintf(text + used, size - used, "%.*s", (int) length, part_name(at, &length));
                at += strcspn(at, "}") - 1;
        }
        text[used] = '\0';
}

/* ---- which field is where ---- */

static bool is_fixed(const RouteRow *route, const char *name) {
        char member[128];

        snprintf(member, sizeof(member), "\"%s\":", name);
        return route->fixed && strstr(route->fixed, member);
}

static bool is_free(const sd_varlink_field *field, const void *userdata) {
        const RouteRow *route = userdata;

        return !is_in_path(route, field->name) && !is_fixed(route, field->name) && !is(field->name, "dryRun") &&
               !is(field->name, "ifGeneration");
}

/* Of the body that is one input field. */
static bool is_free_member(const sd_varlink_field *field, const void *userdata) {
        const RouteRow *route = userdata;
        char name[128];

        snprintf(name, sizeof(name), "%s.%s", route->body, field->name);
        return !is_in_path(route, name);
}

/* Whether the answer is one VM, or has one. */
static bool has_etag(const RouteRow *route, const sd_varlink_symbol *method) {
        const sd_varlink_symbol *vm = find_symbol("VM", SD_VARLINK_STRUCT_TYPE);
        bool is_one_vm = false;

        for (const sd_varlink_field *field = method->fields; field->field_type; field++)
                is_one_vm |= field->field_direction == SD_VARLINK_OUTPUT && field->symbol == vm &&
                             (!(field->field_flags & SD_VARLINK_ARRAY) || is(route->answer, "ITEM"));
        return is_one_vm && find_field(vm, SD_VARLINK_REGULAR, "generation");
}

/* ---- parameters ---- */

static void parameter(Json *j, const char *name, size_t length, const char *in, const sd_varlink_symbol *symbol,
                      const sd_varlink_field *field) {
        bool required = is(in, "path") || !(field->field_flags & SD_VARLINK_NULLABLE);
        char text[128];

        snprintf(text, sizeof(text), "%.*s", (int) length, name);
        json_open(j, NULL, '{');
        json_string(j, "name", text);
        json_string(j, "in", in);
        schema_description(j, symbol, field);
        json_bool(j, "required", required);
        schema_field(j, "schema", symbol, field, /* without_null= */ true);
        if (required) {
                json_raw(j, "example", "");
                example_value(j->out, symbol, field);
        }
        json_close(j, '}');
}

/* Part by part: the name that the document has for it, and the field that it is. */
static void path_parameters(Json *j, const RouteRow *route, const sd_varlink_symbol *method) {
        const char *at = route->path, *shown = naming_route(route)->path;

        while ((at = strchr(at, '{')) && (shown = strchr(shown, '{'))) {
                const sd_varlink_symbol *symbol = method;
                size_t length, shown_length;
                const char *name = part_name(at, &length), *shown_name = part_name(shown, &shown_length);
                char text[128];

                if (name != at + 1) {
                        snprintf(text, sizeof(text), "%.*s", (int) (name - at - 2), at + 1);
                        symbol = find_field(method, SD_VARLINK_INPUT, text)->symbol;
                }
                snprintf(text, sizeof(text), "%.*s", (int) length, name);
                parameter(j, shown_name, shown_length, "path", symbol,
                          find_field(symbol, symbol == method ? SD_VARLINK_INPUT : SD_VARLINK_REGULAR, text));
                at++;
                shown++;
        }
}

static void header_parameter(Json *j, const char *name, const char *description, const char *pattern) {
        json_open(j, NULL, '{');
        json_string(j, "name", name);
        json_string(j, "in", "header");
        json_string(j, "description", description);
        json_open(j, "schema", '{');
        json_string(j, "type", "string");
        json_string(j, "pattern", pattern);
        json_close(j, '}');
        json_close(j, '}');
}

static void parameters(Json *j, const RouteRow *route, const sd_varlink_symbol *method) {
        json_open(j, "parameters", '[');
        path_parameters(j, route, method);
        for (const sd_varlink_field *field = method->fields; field->field_type; field++) {
                if (field->field_type == _SD_VARLINK_FIELD_COMMENT || field->field_direction != SD_VARLINK_INPUT)
                        continue;
                if (is(field->name, "dryRun") || (has_query(route) && is_free(field, route)))
                        parameter(j, field->name, strlen(field->name), "query", method, field);
                if (is(field->name, "ifGeneration"))
                        header_parameter(j, "If-Match", "The ETag that the VM must have.", TAG);
        }
        if (is(route->verb, "GET") && has_etag(route, method))
                header_parameter(j, "If-None-Match", "The ETag of what the client has already.", TAG);
        if (is(route->answer, "EVENTS"))
                header_parameter(j, "Last-Event-ID",
                                 "The same as since, as an EventSource sends it when it connects again.", "^[0-9]+$");
        json_close(j, ']');
}

static void request_body(Json *j, const RouteRow *route, const sd_varlink_symbol *method) {
        const sd_varlink_symbol *symbol = method;
        sd_varlink_field_direction_t direction = SD_VARLINK_INPUT;
        FieldFilter filter = is_free;
        size_t required;

        if (route->body[0]) {
                symbol = find_field(method, SD_VARLINK_INPUT, route->body)->symbol;
                direction = SD_VARLINK_REGULAR;
                filter = is_free_member;
        }
        json_open(j, "requestBody", '{');
        json_open(j, "content", '{');
        json_open(j, JSON, '{');
        json_open(j, "schema", '{');
        json_string(j, "type", "object");
        required = schema_fields(j, symbol, direction, filter, route);
        json_bool(j, "additionalProperties", false);
        json_close(j, '}');
        json_raw(j, "example", "{");
        example_fields(j->out, symbol, direction, filter, route, "");
        fputc('}', j->out);
        json_close(j, '}');
        json_close(j, '}');
        json_bool(j, "required", required > 0);
        json_close(j, '}');
}

/* ---- answers ---- */

static void reply_content(Json *j, const RouteRow *route, const sd_varlink_symbol *method) {
        const sd_varlink_field *member = route->member ? find_field(method, SD_VARLINK_OUTPUT, route->member) : NULL;
        bool is_item = is(route->answer, "ITEM");
        char name[128];

        snprintf(name, sizeof(name), "%sReply", method->name);
        json_open(j, JSON, '{');
        json_ref(j, "schema", "schemas", is_item ? member->named_type : name);
        json_raw(j, "example", "");
        if (is_item)
                example_struct(j->out, member->symbol);
        else {
                fputc('{', j->out);
                example_fields(j->out, method, SD_VARLINK_OUTPUT, openapi_is_answered, NULL, "");
                fputc('}', j->out);
        }
        json_close(j, '}');
}

/* A body of many elements. OpenAPI 3.1 has no word for the schema of one. */
static void stream_content(Json *j, const char *type, const char *description, const sd_varlink_field *member) {
        json_open(j, type, '{');
        json_open(j, "schema", '{');
        json_string(j, "type", "string");
        json_string(j, "description", description);
        json_ref(j, "x-itemSchema", "schemas", member->named_type);
        json_close(j, '}');
        json_close(j, '}');
}

static void success(Json *j, const char *status, const RouteRow *route, const sd_varlink_symbol *method) {
        const sd_varlink_field *member = route->member ? find_field(method, SD_VARLINK_OUTPUT, route->member) : NULL;
        bool created = is(status, "201"), etag = has_etag(route, method);

        json_open(j, status, '{');
        json_string(j, "description", created ? "It is new." : "Done.");
        if (created || etag) {
                json_open(j, "headers", '{');
                if (created)
                        json_ref(j, "Location", "headers", "Location");
                if (etag)
                        json_ref(j, "ETag", "headers", "ETag");
                json_close(j, '}');
        }
        json_open(j, "content", '{');
        if (is(route->answer, "EVENTS"))
                stream_content(j, "text/event-stream",
                               "Server-sent events: id is the sequence, event the kind, data the event as JSON.",
                               member);
        else
                reply_content(j, route, method);
        if (is(route->answer, "EVENTS") || is(route->answer, "LIST"))
                stream_content(j, NDJSON, "One element a line.", member);
        json_close(j, '}');
        json_close(j, '}');
}

/* What goes wrong before privmemd is asked, or after. */
static bool is_of_http(const RouteRow *route, const sd_varlink_symbol *method, unsigned status) {
        switch (status) {
        case 400:
        case 403:
        case 406:
        case 503:
                return true;
        case 404:
                return is(route->answer, "ITEM");
        case 412:
                return find_field(method, SD_VARLINK_INPUT, "ifGeneration");
        case 413:
        case 415:
                return has_body(route);
        case 429:
                return is(route->answer, "EVENTS");
        default:
                return false;
        }
}

static bool is_error(const RouteRow *route, const ErrorRow *row, unsigned status) {
        return method_fails_with(route->method, row->name) && !route_never(route, row->name) &&
               (row->status == status || error_verdict_status(find_symbol(row->name, SD_VARLINK_ERROR), status));
}

static bool has_field(const sd_varlink_symbol *method, sd_varlink_field_direction_t direction) {
        for (const sd_varlink_field *field = method->fields; field->field_type; field++)
                if (field->field_type != _SD_VARLINK_FIELD_COMMENT && field->field_direction == direction)
                        return true;
        return false;
}

/* Text is always a string, but not each number is one that privmemd takes. */
static bool may_be_invalid(const RouteRow *route, const sd_varlink_symbol *method) {
        if (has_body(route) || strchr(route->path, '.'))
                return true;
        if (is(route->answer, "EVENTS"))
                return false;
        for (const sd_varlink_field *field = method->fields; field->field_type; field++)
                if (field->field_type == SD_VARLINK_INT && field->field_direction == SD_VARLINK_INPUT &&
                    (is_in_path(route, field->name) || (has_query(route) && is_free(field, route))))
                        return true;
        return false;
}

/* The schemas of the problem documents with that status. Returns how many; j NULL: only counts. */
static size_t problems(Json *j, const RouteRow *route, const sd_varlink_symbol *method, unsigned status) {
        size_t n = 0;

        char text[16];

        snprintf(text, sizeof(text), "%u", status);
        if (route_never(route, text))
                return 0;
        if (is_of_http(route, method, status) && ++n && j)
                json_ref(j, NULL, "schemas", "Problem");
        if (status == 422 && may_be_invalid(route, method) && ++n && j)
                json_ref(j, NULL, "schemas", "InvalidParameter");
        for (const ErrorRow *row = error_rows; row->name; row++)
                if (is_error(route, row, status) && ++n && j)
                        json_ref(j, NULL, "schemas", row->name);
        return n;
}

static void failure(Json *j, const RouteRow *route, const sd_varlink_symbol *method, unsigned status) {
        char text[16];

        if (problems(NULL, route, method, status) == 0)
                return;
        snprintf(text, sizeof(text), "%u", status);
        json_open(j, text, '{');
        json_string(j, "description", "Nothing was changed.");
        if (status == 503) {
                json_open(j, "headers", '{');
                json_ref(j, "Retry-After", "headers", "RetryAfter");
                json_close(j, '}');
        }
        json_open(j, "content", '{');
        json_open(j, PROBLEM, '{');
        json_open(j, "schema", '{');
        json_open(j, "anyOf", '[');
        problems(j, route, method, status);
        json_close(j, ']');
        json_close(j, '}');
        json_close(j, '}');
        json_close(j, '}');
        json_close(j, '}');
}

static void any_failure(Json *j) {
        json_open(j, "default", '{');
        json_string(j, "description", "What any request may meet.");
        json_open(j, "content", '{');
        json_open(j, PROBLEM, '{');
        json_open(j, "schema", '{');
        json_open(j, "anyOf", '[');
        json_ref(j, NULL, "schemas", "Problem");
        json_ref(j, NULL, "schemas", "CustodyFull");
        json_ref(j, NULL, "schemas", "HostFailure");
        json_close(j, ']');
        json_close(j, '}');
        json_close(j, '}');
        json_close(j, '}');
        json_close(j, '}');
}

static void responses(Json *j, const RouteRow *route, const sd_varlink_symbol *method) {
        bool may_create = is(route->answer, "REPLY") && find_field(method, SD_VARLINK_OUTPUT, "created");

        json_open(j, "responses", '{');
        if (is(route->verb, "DELETE") && !has_field(method, SD_VARLINK_OUTPUT))
                json_raw(j, "204", "{\"description\": \"Done.\"}");
        else if (!is(route->answer, "CREATED"))
                success(j, "200", route, method);
        if (may_create || is(route->answer, "CREATED"))
                success(j, "201", route, method);
        if (is(route->verb, "GET") && has_etag(route, method))
                json_raw(j, "304", "{\"description\": \"The client has it already.\"}");
        for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
                failure(j, route, method, statuses[i]);
        any_failure(j);
        json_close(j, '}');
}

/* ---- operations ---- */

static const char *last_part(const char *path, size_t *ret_length) {
        const char *brace = strrchr(path, '{');

        return brace ? part_name(brace, ret_length) : NULL;
}

/* The method's own name for its first row. The others: GetVM for the only element of a list, DeleteSlot, and
 * ListBackingsOfVM. */
static void operation_id(const RouteRow *route, const sd_varlink_symbol *method, size_t size, char *text) {
        const char *noun = route->method + 1, *part;
        const RouteRow *first = route_rows;
        size_t length;

        while (!is(first->method, route->method))
                first++;
        while (*noun && !isupper((unsigned char) *noun))
                noun++;
        part = last_part(naming_route(route)->path, &length);
        if (is(route->answer, "ITEM"))
                snprintf(text, size, "Get%s", find_field(method, SD_VARLINK_OUTPUT, route->member)->named_type);
        else if (first == route)
                snprintf(text, size, "%s", route->method);
        else if (is(route->verb, "DELETE"))
                snprintf(text, size, "Delete%s", noun);
        else if (part && length == 2)
                snprintf(text, size, "%sOf%c%c", route->method, toupper((unsigned char) part[0]),
                         toupper((unsigned char) part[1]));
        else if (part)
                snprintf(text, size, "%sOf%c%.*s", route->method, toupper((unsigned char) part[0]), (int) length - 1,
                         part + 1);
}

/* The noun that the path is about: the last part of it behind /v1/vms/{vm}/ that is no placeholder. */
static void tag(const RouteRow *route, size_t size, char *text) {
        static const char in_vm[] = "/v1/vms/{vm}/";
        const char *at = route->path +
                         (strncmp(route->path, in_vm, strlen(in_vm)) == 0 ? strlen(in_vm) : strlen("/v1/"));

        snprintf(text, size, "%.*s", (int) strcspn(at, "/"), at);
}

static void security(Json *j, const char *right) {
        json_open(j, "security", '[');
        json_raw(j, NULL, "{}");
        json_raw(j, NULL, "{\"certificate\": [\"");
        fprintf(j->out, "%s\"]}", right);
        json_raw(j, NULL, "{\"token\": [\"");
        fprintf(j->out, "%s\"]}", right);
        json_close(j, ']');
}

static void operation(Json *j, const RouteRow *route) {
        const sd_varlink_symbol *method = find_symbol(route->method, SD_VARLINK_METHOD);
        char text[128];

        for (size_t i = 0; i <= strlen(route->verb); i++)
                text[i] = (char) tolower((unsigned char) route->verb[i]);
        json_open(j, text, '{');
        operation_id(route, method, sizeof(text), text);
        json_string(j, "operationId", text);
        tag(route, sizeof(text), text);
        json_open(j, "tags", '[');
        json_string(j, NULL, text);
        json_close(j, ']');
        schema_text(j, "summary",
                    is(route->answer, "ITEM") ?
                            symbol_comment(find_field(method, SD_VARLINK_OUTPUT, route->member)->symbol) :
                            symbol_comment(method),
                    /* first_sentence= */ true);
        schema_text(j, "description", symbol_comment(method), /* first_sentence= */ false);
        json_string(j, "x-method", route->method);
        security(j, is(route->verb, "GET") ? "inspect" : "manage");
        parameters(j, route, method);
        if (has_body(route))
                request_body(j, route, method);
        responses(j, route, method);
        json_close(j, '}');
}

static void resource(Json *j, const ResourceRow *row) {
        json_open(j, row->path, '{');
        json_open(j, "get", '{');
        json_string(j, "operationId", row->name);
        json_string(j, "summary", row->sentence);
        json_raw(j, "tags", "[\"service\"]");
        json_open(j, "responses", '{');
        json_open(j, "200", '{');
        json_string(j, "description", "Done.");
        json_open(j, "content", '{');
        for (const char *at = row->types; *at;) {
                size_t length = strcspn(at, " ");
                char type[128];

                snprintf(type, sizeof(type), "%.*s", (int) length, at);
                json_raw(j, type, "{}");
                at += length + (at[length] == ' ');
        }
        json_close(j, '}');
        json_close(j, '}');
        any_failure(j);
        json_close(j, '}');
        json_close(j, '}');
        json_close(j, '}');
}

void openapi_paths(Json *j) {
        json_open(j, "paths", '{');
        for (const RouteRow *route = route_rows; route->method; route++) {
                const RouteRow *first = route_rows;
                char path[256];

                while (!is_same_path(first->path, route->path))
                        first++;
                if (first != route)
                        continue;
                path_text(route, sizeof(path), path);
                json_open(j, path, '{');
                for (const RouteRow *other = route; other->method; other++)
                        if (is_same_path(other->path, route->path))
                                operation(j, other);
                json_close(j, '}');
        }
        for (const ResourceRow *row = resource_rows; row->name; row++)
                resource(j, row);
        json_close(j, '}');
}
