/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The input fields of every method that has an address in REST, as rows for a C table: a query parameter and a part of a
 * path are text, and only the type of their field says what they mean. */

#include <stdbool.h>
#include <string.h>

#include "api/dump.h"
#include "api/interface.h"

static const char *const routed[] = {
#define ROUTE(method, verb, path, body, fixed, answer, member) #method,
#include "api/operations.def"
};

static bool is_routed(const char *method) {
        for (size_t i = 0; i < sizeof(routed) / sizeof(routed[0]); i++)
                if (strcmp(routed[i], method) == 0)
                        return true;
        return false;
}

static bool is_of(const sd_varlink_field *field, sd_varlink_symbol_type_t type) {
        return field->field_type == SD_VARLINK_NAMED_TYPE && field->symbol->symbol_type == type;
}

static const char *type_word(const sd_varlink_field *field) {
        switch (field->field_type) {
        case SD_VARLINK_BOOL:
                return "BOOL";
        case SD_VARLINK_INT:
                return "INT";
        case SD_VARLINK_STRING:
                return "STRING";
        case SD_VARLINK_FLOAT:
                return "FLOAT";
        default:
                return is_of(field, SD_VARLINK_ENUM_TYPE) ? "ENUM" : "OBJECT";
        }
}

static void dump_words(FILE *out, const sd_varlink_symbol *type) {
        const char *separator = "";

        fputc('"', out);
        for (const sd_varlink_field *word = type->fields; word->field_type; word++)
                if (word->field_type == SD_VARLINK_ENUM_VALUE) {
                        fprintf(out, "%s%s", separator, word->name);
                        separator = " ";
                }
        fputc('"', out);
}

static void dump_field(FILE *out, const char *method, const char *prefix, const sd_varlink_field *field) {
        bool array = field->field_flags & SD_VARLINK_ARRAY, nullable = field->field_flags & SD_VARLINK_NULLABLE;

        fprintf(out, "FIELD(%s, \"%s%s\", %s, %s, %s, ", method, prefix, field->name, type_word(field),
                array ? "true" : "false", nullable ? "true" : "false");
        if (is_of(field, SD_VARLINK_ENUM_TYPE))
                dump_words(out, field->symbol);
        else
                fputs("NULL", out);
        fputs(")\n", out);
}

/* A part of a path may be a member of an input field, and no deeper; and no input field has objects in objects. */
static void dump_members(FILE *out, const char *method, const sd_varlink_field *field) {
        char prefix[64];

        snprintf(prefix, sizeof(prefix), "%s.", field->name);
        for (const sd_varlink_field *member = field->symbol->fields; member->field_type; member++)
                if (member->field_type != _SD_VARLINK_FIELD_COMMENT)
                        dump_field(out, method, prefix, member);
}

int dump_rest_fields(FILE *out) {
        const sd_varlink_interface *interface = &vl_interface_io_privmemd_Memory;

        fputs("/* Printed by dump from the contract.\n"
              " *\n"
              " * FIELD(method, name, type, array, nullable, words): one row an input field; a member of one that is an object, or\n"
              " * an array of them, has the name \"field.member\". type is BOOL, INT, STRING, FLOAT, ENUM or OBJECT; words are those of\n"
              " * an ENUM, with spaces between, else NULL. The rows of a method stand together. */\n\n",
              out);
        for (size_t i = 0; interface->symbols[i]; i++) {
                const sd_varlink_symbol *symbol = interface->symbols[i];

                if (symbol->symbol_type != SD_VARLINK_METHOD || !is_routed(symbol->name))
                        continue;
                for (const sd_varlink_field *field = symbol->fields; field->field_type; field++) {
                        if (field->field_type == _SD_VARLINK_FIELD_COMMENT ||
                            field->field_direction != SD_VARLINK_INPUT)
                                continue;
                        dump_field(out, symbol->name, "", field);
                        if (is_of(field, SD_VARLINK_STRUCT_TYPE))
                                dump_members(out, symbol->name, field);
                }
        }
        fputs("\n#undef FIELD\n", out);
        return 0;
}
