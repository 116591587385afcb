/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "api/dump-schema.h"

#define INTEGER "\"format\": \"uint64\", \"minimum\": 0, \"maximum\": 18446744073709551615"

static const char *json_type(const sd_varlink_field *field) {
        switch (field->field_type) {
        case SD_VARLINK_BOOL:
                return "boolean";
        case SD_VARLINK_INT:
                return "integer";
        case SD_VARLINK_FLOAT:
                return "number";
        case SD_VARLINK_STRING:
                return "string";
        default:
                return "object";
        }
}

/* ---- texts ---- */

/* Where the sentence ends: behind its full stop. */
static const char *sentence_end(const char *text) {
        while (*text && !(*text == '.' && (text[1] == ' ' || text[1] == '\n' || !text[1])))
                text++;
        return *text ? text + 1 : text;
}

/* Sentences about other messages than this one have no meaning in HTTP. */
static bool is_about_varlink(const char *sentence, size_t length) {
        static const char *const words[] = { "org.varlink", "Without more", "fstat", "The reply is short" };

        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                if (memmem(sentence, length, words[i], strlen(words[i])))
                        return true;
        return false;
}

void schema_text(Json *j, const char *key, const char *comment, bool first_sentence) {
        char text[4096];
        size_t used = 0;

        for (const char *at = comment; *at;) {
                const char *end = sentence_end(at);
                size_t length = (size_t) (end - at);

                if (!is_about_varlink(at, length) && used + length + 2 < sizeof(text)) {
                        if (used > 0)
                                text[used++] = ' ';
                        memcpy(text + used, at, length);
                        used += length;
                        if (first_sentence)
                                break;
                }
                at = end + strspn(end, " \n");
        }
        text[used] = '\0';
        json_string(j, key, text);
}

void schema_description(Json *j, const sd_varlink_symbol *symbol, const sd_varlink_field *field) {
        const sd_varlink_field *comment = field_comments(symbol, field);
        char text[4096] = "";

        for (; comment < field; comment++)
                snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", text[0] ? " " : "", comment->name);
        if (text[0])
                json_string(j, "description", text);
}

/* ---- schemas ---- */

static void write_type(Json *j, const char *type, bool nullable) {
        char text[64];

        snprintf(text, sizeof(text), nullable ? "[\"%s\", \"null\"]" : "\"%s\"", type);
        json_raw(j, "type", text);
}

static void write_ref(Json *j, const char *type) {
        char text[128];

        snprintf(text, sizeof(text), "#/components/schemas/%s", type);
        json_string(j, "$ref", text);
}

static void scalar(Json *j, const sd_varlink_field *field, const char *schema, bool nullable) {
        write_type(j, json_type(field), nullable);
        if (schema)
                json_members(j, schema);
        else if (field->field_type == SD_VARLINK_INT)
                json_members(j, INTEGER);
}

static void array(Json *j, const sd_varlink_field *field, const char *schema, bool nullable) {
        write_type(j, "array", nullable);
        if (schema)
                json_members(j, schema);
        if (schema && strstr(schema, "\"items\""))
                return;
        json_open(j, "items", '{');
        if (field->field_type == SD_VARLINK_NAMED_TYPE)
                write_ref(j, field->named_type);
        else
                scalar(j, field, /* schema= */ NULL, /* nullable= */ false);
        json_close(j, '}');
}

void schema_field(Json *j, const char *key, const sd_varlink_symbol *symbol, const sd_varlink_field *field,
                  bool without_null) {
        /* An error repeats what was asked for, right or wrong. */
        const ValueRow *row = find_value(symbol->name, field->name, symbol->symbol_type == SD_VARLINK_ERROR);
        const char *schema = row ? row->schema : NULL;
        bool nullable = field->field_flags & SD_VARLINK_NULLABLE && !without_null;

        json_open(j, key, '{');
        if (!without_null)
                schema_description(j, symbol, field);
        if (field->field_flags & SD_VARLINK_ARRAY)
                array(j, field, schema, nullable);
        else if (field->field_type != SD_VARLINK_NAMED_TYPE)
                scalar(j, field, schema, nullable);
        else if (!nullable)
                write_ref(j, field->named_type);
        else {
                json_open(j, "anyOf", '[');
                json_ref(j, NULL, "schemas", field->named_type);
                json_raw(j, NULL, "{\"type\": \"null\"}");
                json_close(j, ']');
        }
        json_close(j, '}');
}

static bool is_in(const sd_varlink_field *field, sd_varlink_field_direction_t direction, FieldFilter filter,
                  const void *userdata) {
        return field->field_type != _SD_VARLINK_FIELD_COMMENT && field->field_direction == direction &&
               (!filter || filter(field, userdata));
}

size_t schema_fields(Json *j, const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction,
                     FieldFilter filter, const void *userdata) {
        size_t required = 0;

        json_open(j, "properties", '{');
        for (const sd_varlink_field *field = symbol->fields; field->field_type; field++)
                if (is_in(field, direction, filter, userdata))
                        schema_field(j, field->name, symbol, field, /* without_null= */ false);
        json_close(j, '}');
        for (const sd_varlink_field *field = symbol->fields; field->field_type; field++) {
                if (!is_in(field, direction, filter, userdata) || field->field_flags & SD_VARLINK_NULLABLE)
                        continue;
                if (required++ == 0)
                        json_open(j, "required", '[');
                json_string(j, NULL, field->name);
        }
        if (required > 0)
                json_close(j, ']');
        return required;
}

static void schema_enum(Json *j, const sd_varlink_symbol *symbol) {
        char text[16384];

        snprintf(text, sizeof(text), "%s\n", symbol_comment(symbol));
        for (const sd_varlink_field *field = symbol->fields; field->field_type; field++) {
                if (field->field_type != SD_VARLINK_ENUM_VALUE)
                        continue;
                snprintf(text + strlen(text), sizeof(text) - strlen(text), "\n- `%s`:", field->name);
                for (const sd_varlink_field *c = field_comments(symbol, field); c < field; c++)
                        snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s", c->name);
        }
        json_open(j, symbol->name, '{');
        json_string(j, "description", text);
        json_string(j, "type", "string");
        json_open(j, "enum", '[');
        for (const sd_varlink_field *field = symbol->fields; field->field_type; field++)
                if (field->field_type == SD_VARLINK_ENUM_VALUE)
                        json_string(j, NULL, field->name);
        json_close(j, ']');
        json_close(j, '}');
}

/* Whether a request may have one. Requests are strict, and answers may grow. */
static bool is_asked_with(const sd_varlink_symbol *type) {
        for (const OperationRow *row = operation_rows; row->name; row++) {
                const sd_varlink_symbol *method = find_symbol(row->name, SD_VARLINK_METHOD);

                for (const sd_varlink_field *field = method->fields; field->field_type; field++)
                        if (field->field_direction == SD_VARLINK_INPUT && field->symbol == type)
                                return true;
        }
        return false;
}

void schema_types(Json *j) {
        const sd_varlink_interface *interface = &vl_interface_io_privmemd_Memory;

        for (size_t i = 0; interface->symbols[i]; i++) {
                const sd_varlink_symbol *symbol = interface->symbols[i];

                if (symbol->symbol_type == SD_VARLINK_ENUM_TYPE)
                        schema_enum(j, symbol);
                if (symbol->symbol_type != SD_VARLINK_STRUCT_TYPE)
                        continue;
                json_open(j, symbol->name, '{');
                json_string(j, "description", symbol_comment(symbol));
                json_string(j, "type", "object");
                schema_fields(j, symbol, SD_VARLINK_REGULAR, NULL, NULL);
                if (is_asked_with(symbol))
                        json_bool(j, "additionalProperties", false);
                json_close(j, '}');
        }
}

/* ---- examples ---- */

void example_struct(FILE *out, const sd_varlink_symbol *type) {
        fputc('{', out);
        example_fields(out, type, SD_VARLINK_REGULAR, NULL, NULL, "");
        fputc('}', out);
}

static void example_of_type(FILE *out, const sd_varlink_field *field) {
        if (field_is_of(field, SD_VARLINK_STRUCT_TYPE))
                example_struct(out, field->symbol);
        else if (field_is_of(field, SD_VARLINK_ENUM_TYPE)) {
                const sd_varlink_field *word = field->symbol->fields;

                while (word->field_type != SD_VARLINK_ENUM_VALUE)
                        word++;
                json_quote(out, word->name);
        } else
                fputs(field->field_type == SD_VARLINK_BOOL   ? "false" :
                      field->field_type == SD_VARLINK_STRING ? "\"text\"" :
                      field->field_type == SD_VARLINK_OBJECT ? "{}" :
                                                               "0",
                      out);
}

void example_value(FILE *out, const sd_varlink_symbol *symbol, const sd_varlink_field *field) {
        const ValueRow *row = find_value(symbol->name, field->name, /* own= */ false);
        bool is_array = field->field_flags & SD_VARLINK_ARRAY;

        if (row && row->example) {
                fputs(row->example, out);
                return;
        }
        if (is_array)
                fputc('[', out);
        example_of_type(out, field);
        if (is_array)
                fputc(']', out);
}

bool example_fields(FILE *out, const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction,
                    FieldFilter filter, const void *userdata, const char *separator) {
        bool any = false;

        for (const sd_varlink_field *field = symbol->fields; field->field_type; field++) {
                const ValueRow *own;

                if (!is_in(field, direction, filter, userdata))
                        continue;
                own = find_value(symbol->name, field->name, /* own= */ true);
                if (field->field_flags & SD_VARLINK_NULLABLE && (!own || !own->example))
                        continue;
                fputs(separator, out);
                separator = ", ";
                json_quote(out, field->name);
                fputs(": ", out);
                example_value(out, symbol, field);
                any = true;
        }
        return any;
}
