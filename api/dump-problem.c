/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Problem documents (RFC 9457): that of a mistake in HTTP, and one for each error of the contract. */

#include <string.h>

#include "api/dump-openapi.h"
#include "api/dump-schema.h"

#define TYPE_PREFIX PRIVMEMD_INTERFACE "."

static bool is_routed(const char *method) {
        for (const RouteRow *route = route_rows; route->method; route++)
                if (strcmp(route->method, method) == 0)
                        return true;
        return false;
}

static bool is_of_rest(const ErrorRow *error) {
        if (strcmp(error->name, "CustodyFull") == 0 || strcmp(error->name, "HostFailure") == 0)
                return true;
        for (const OperationRow *row = operation_rows; row->name; row++)
                if (is_routed(row->name) && method_fails_with(row->name, error->name))
                        return true;
        return false;
}

/* All but the sentence, which becomes "detail". */
static bool is_field(const sd_varlink_field *field, const void *userdata) {
        (void) userdata;
        return strcmp(field->name, "message") != 0;
}

static void common_properties(Json *j, const char *type, const char *statuses) {
        json_open(j, "type", '{');
        json_string(j, "const", type);
        json_close(j, '}');
        json_raw(j, "title", "{\"description\": \"The same in a few words.\", \"type\": \"string\"}");
        json_open(j, "status", '{');
        json_string(j, "description", "The status of the answer.");
        json_string(j, "type", "integer");
        json_members(j, statuses);
        json_close(j, '}');
        json_raw(j, "detail",
                 "{\"description\": \"One sentence for people: what was wrong, which object, what to do.\", "
                 "\"type\": \"string\"}");
}

static void common_required(Json *j) {
        json_string(j, NULL, "type");
        json_string(j, NULL, "title");
        json_string(j, NULL, "status");
        json_string(j, NULL, "detail");
}

static void properties_of(Json *j, const ErrorRow *row, const sd_varlink_symbol *error) {
        char type[128], statuses[64];

        snprintf(type, sizeof(type), TYPE_PREFIX "%s", row->name);
        snprintf(statuses, sizeof(statuses),
                 error_verdict_status(error, 404) ? "\"enum\": [%u, 404, 422]" :
                 error_verdict_status(error, 422) ? "\"enum\": [%u, 422]" :
                                                    "\"const\": %u",
                 row->status);
        json_open(j, "properties", '{');
        common_properties(j, type, statuses);
        for (const sd_varlink_field *field = error->fields; field->field_type; field++)
                if (field->field_type != _SD_VARLINK_FIELD_COMMENT && is_field(field, NULL))
                        schema_field(j, field->name, error, field, /* without_null= */ false);
        json_close(j, '}');
        json_open(j, "required", '[');
        common_required(j);
        for (const sd_varlink_field *field = error->fields; field->field_type; field++)
                if (field->field_type != _SD_VARLINK_FIELD_COMMENT && is_field(field, NULL) &&
                    !(field->field_flags & SD_VARLINK_NULLABLE))
                        json_string(j, NULL, field->name);
        json_close(j, ']');
}

static void example_of(Json *j, const ErrorRow *row, const sd_varlink_symbol *error) {
        json_open(j, "examples", '[');
        json_raw(j, NULL, "{\"type\": \"");
        fprintf(j->out, TYPE_PREFIX "%s\", \"title\": \"%s\", \"status\": %u, \"detail\": ", row->name, row->name,
                row->status);
        json_quote(j->out, row->sentence);
        example_fields(j->out, error, SD_VARLINK_REGULAR, is_field, NULL, ", ");
        fputc('}', j->out);
        json_close(j, ']');
}

static void problem_of_error(Json *j, const ErrorRow *row) {
        const sd_varlink_symbol *error = find_symbol(row->name, SD_VARLINK_ERROR);

        json_open(j, row->name, '{');
        json_string(j, "description", row->sentence);
        json_string(j, "type", "object");
        properties_of(j, row, error);
        example_of(j, row, error);
        json_close(j, '}');
}

/* Those that are no error of the contract. parameter: what is wrong has a name. */
static void problem_of_http(Json *j, const char *name, const char *type, const char *description, const char *statuses,
                            bool parameter) {
        json_open(j, name, '{');
        json_string(j, "description", description);
        json_string(j, "type", "object");
        json_open(j, "properties", '{');
        common_properties(j, type, statuses);
        json_raw(j, "parameter",
                 "{\"description\": \"The part of the path, query parameter or member of the body that is wrong.\", "
                 "\"type\": \"string\"}");
        json_close(j, '}');
        json_open(j, "required", '[');
        common_required(j);
        if (parameter)
                json_string(j, NULL, "parameter");
        json_close(j, ']');
        json_close(j, '}');
}

void openapi_problems(Json *j) {
        problem_of_http(j, "Problem", "about:blank", "What is wrong as HTTP has it: the status says it all.",
                        "\"minimum\": 400, \"maximum\": 599", false);
        problem_of_http(j, "InvalidParameter", "org.varlink.service.InvalidParameter",
                        "A parameter is missing, unknown, or of the wrong type.", "\"const\": 422", true);
        for (const ErrorRow *row = error_rows; row->name; row++)
                if (is_of_rest(row))
                        problem_of_error(j, row);
}
