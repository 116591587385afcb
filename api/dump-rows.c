/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <string.h>

#include "api/dump-rows.h"

const ErrorRow error_rows[] = {
#define ERROR(name, errno_value, status, sentence) { #name, #errno_value, sentence, status },
#include "api/errors.def"
        {},
};

const OperationRow operation_rows[] = {
#define OPERATION(method, handler, right, fds) { #method, #right, fds },
#include "api/operations.def"
        {},
};

const RouteRow route_rows[] = {
#define ROUTE(method, verb, path, body, fixed, answer, member) { #method, #verb, path, body, fixed, #answer, member },
#include "api/operations.def"
        {},
};

const ResourceRow resource_rows[] = {
#define RESOURCE(name, path, types, sentence) { #name, path, types, sentence },
#include "api/operations.def"
        {},
};

const ValueRow value_rows[] = {
#define VALUE(of, field, schema, example) { #of, #field, schema, example },
#include "api/values.def"
        {},
};

static const struct {
        const char *method, *errors;
} fails_rows[] = {
#define FAILS(method, ...) { #method, #__VA_ARGS__ },
#include "api/operations.def"
};

static const struct {
        const char *verb, *path, *what;
} never_rows[] = {
#define NEVER(verb, path, ...) { #verb, path, #__VA_ARGS__ },
#include "api/operations.def"
};

const sd_varlink_symbol *find_symbol(const char *name, sd_varlink_symbol_type_t type) {
        const sd_varlink_interface *interface = &vl_interface_io_privmemd_Memory;

        for (size_t i = 0; interface->symbols[i]; i++)
                if (interface->symbols[i]->symbol_type == type && strcmp(interface->symbols[i]->name, name) == 0)
                        return interface->symbols[i];
        return NULL;
}

const char *symbol_comment(const sd_varlink_symbol *symbol) {
        const sd_varlink_interface *interface = &vl_interface_io_privmemd_Memory;

        for (size_t i = 1; interface->symbols[i]; i++)
                if (interface->symbols[i] == symbol &&
                    interface->symbols[i - 1]->symbol_type == _SD_VARLINK_SYMBOL_COMMENT)
                        return interface->symbols[i - 1]->name;
        return "";
}

const sd_varlink_field *find_field(const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction,
                                   const char *name) {
        for (const sd_varlink_field *field = symbol->fields; field->field_type; field++)
                if (field->field_type != _SD_VARLINK_FIELD_COMMENT && field->field_direction == direction &&
                    strcmp(field->name, name) == 0)
                        return field;
        return NULL;
}

const sd_varlink_field *field_comments(const sd_varlink_symbol *symbol, const sd_varlink_field *field) {
        while (field > symbol->fields && field[-1].field_type == _SD_VARLINK_FIELD_COMMENT)
                field--;
        return field;
}

bool field_is_of(const sd_varlink_field *field, sd_varlink_symbol_type_t type) {
        return field->field_type == SD_VARLINK_NAMED_TYPE && field->symbol->symbol_type == type;
}

const OperationRow *find_operation(const char *method) {
        for (const OperationRow *row = operation_rows; row->name; row++)
                if (strcmp(row->name, method) == 0)
                        return row;
        return NULL;
}

const ValueRow *find_value(const char *of, const char *field, bool own) {
        const ValueRow *found = NULL;

        for (const ValueRow *row = value_rows; row->of; row++) {
                if (strcmp(row->field, field) != 0)
                        continue;
                if (strcmp(row->of, of) == 0)
                        return row;
                if (!own && strcmp(row->of, "_") == 0)
                        found = row;
        }
        return found;
}

static bool has_word(const char *words, const char *word) {
        size_t length = strlen(word);

        for (const char *at = words; (at = strstr(at, word)); at += length)
                if ((at == words || !isalnum((unsigned char) at[-1])) && !isalnum((unsigned char) at[length]))
                        return true;
        return false;
}

bool method_fails_with(const char *method, const char *error) {
        const OperationRow *operation = find_operation(method);

        if (strncmp(operation->right, "VM_", strlen("VM_")) == 0 &&
            (strcmp(error, "NoSuchVM") == 0 || strcmp(error, "NotPermitted") == 0))
                return true;
        if (strcmp(error, "VMChanged") == 0 &&
            find_field(find_symbol(method, SD_VARLINK_METHOD), SD_VARLINK_INPUT, "ifGeneration"))
                return true;
        for (size_t i = 0; i < sizeof(fails_rows) / sizeof(fails_rows[0]); i++)
                if (strcmp(fails_rows[i].method, method) == 0 && has_word(fails_rows[i].errors, error))
                        return true;
        return false;
}

bool route_never(const RouteRow *route, const char *what) {
        for (size_t i = 0; i < sizeof(never_rows) / sizeof(never_rows[0]); i++)
                if (strcmp(never_rows[i].verb, route->verb) == 0 && strcmp(never_rows[i].path, route->path) == 0 &&
                    has_word(never_rows[i].what, what))
                        return true;
        return false;
}

bool error_verdict_status(const sd_varlink_symbol *error, unsigned status) {
        bool has_one = find_field(error, SD_VARLINK_REGULAR, "verdict");

        return (status == 404 && has_one) ||
               (status == 422 && (has_one || find_field(error, SD_VARLINK_REGULAR, "verdicts")));
}
