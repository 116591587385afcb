/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The sections of the manual about methods, types and errors, in reStructuredText. */

#include <stdbool.h>
#include <string.h>

#include "api/dump.h"
#include "api/dump-rows.h"

static void heading(FILE *out, const char *text, char line) {
        fprintf(out, "\n%s\n", text);
        for (size_t i = 0; i < strlen(text); i++)
                fputc(line, out);
        fputs("\n\n", out);
}

static const char *type_word(const sd_varlink_field *field) {
        switch (field->field_type) {
        case SD_VARLINK_NAMED_TYPE:
                return field->named_type;
        case SD_VARLINK_BOOL:
                return "bool";
        case SD_VARLINK_INT:
                return "int";
        case SD_VARLINK_STRING:
                return "string";
        case SD_VARLINK_OBJECT:
                return "object";
        case SD_VARLINK_FLOAT:
                return "float";
        default:
                return "";
        }
}

/* The comments before the field at i, as one text. */
static void field_comment(FILE *out, const sd_varlink_symbol *symbol, size_t i) {
        size_t first = i;

        while (first > 0 && symbol->fields[first - 1].field_type == _SD_VARLINK_FIELD_COMMENT)
                first--;
        for (; first < i; first++)
                fprintf(out, "   %s\n", symbol->fields[first].name);
}

/* The fields of one direction as a definition list. Returns whether there was one. */
static bool dump_fields(FILE *out, const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction) {
        bool any = false;

        for (size_t i = 0; symbol->fields[i].field_type != _SD_VARLINK_FIELD_TYPE_END_MARKER; i++) {
                const sd_varlink_field *field = &symbol->fields[i];

                if (field->field_type == _SD_VARLINK_FIELD_COMMENT || field->field_direction != direction)
                        continue;
                any = true;
                if (field->field_type == SD_VARLINK_ENUM_VALUE)
                        fprintf(out, "``%s``\n", field->name);
                else
                        fprintf(out, "``%s`` : %s%s%s\n", field->name,
                                field->field_flags & SD_VARLINK_NULLABLE ? "optional " : "",
                                field->field_flags & SD_VARLINK_ARRAY ? "array of " : "", type_word(field));
                field_comment(out, symbol, i);
                /* A definition list needs a definition. */
                if (i == 0 || symbol->fields[i - 1].field_type != _SD_VARLINK_FIELD_COMMENT)
                        fputs("   \\\n", out);
                fputs("\n", out);
        }
        return any;
}

static const char *right_words(const char *right) {
        if (strcmp(right, "VM_OWNER") == 0)
                return "the VM's owner, root, and who has the right to manage";
        if (strcmp(right, "VM_OWN_FDS") == 0)
                return "the VM's owner and root";
        if (strcmp(right, "VM_PEER") == 0)
                return "the VM's owner, the owners of VMs that a backing of it is shared with, and root";
        if (strcmp(right, "MANAGER") == 0)
                return "root, and who has the right to manage";
        return "everybody";
}

static void dump_routes(FILE *out, const char *method) {
        const char *separator = "";

        fputs("REST: ", out);
        for (const RouteRow *route = route_rows; route->method; route++)
                if (strcmp(route->method, method) == 0) {
                        fprintf(out, "%s``%s %s``", separator, route->verb, route->path);
                        separator = ", ";
                }
        fputs(*separator ? ".\n\n" : "none.\n\n", out);
}

/* Its own, and those of its right. */
static void dump_errors(FILE *out, const char *method) {
        const char *separator = "";

        fputs("Errors: ", out);
        for (const ErrorRow *row = error_rows; row->name; row++)
                if (method_fails_with(method, row->name)) {
                        fprintf(out, "%s``%s``", separator, row->name);
                        separator = ", ";
                }
        fputs(*separator ? ".\n\n" : "none of its own.\n\n", out);
}

static void dump_method(FILE *out, const sd_varlink_symbol *symbol, const char *comment) {
        const OperationRow *row = find_operation(symbol->name);

        heading(out, symbol->name, '-');
        fprintf(out, "%s\n\n", comment);
        fprintf(out, "Callers: %s.%s%s\n\n", right_words(row->right),
                symbol->symbol_flags & SD_VARLINK_REQUIRES_MORE ? " Needs ``more``." :
                symbol->symbol_flags & SD_VARLINK_SUPPORTS_MORE ? " Takes ``more``." :
                                                                  "",
                row->fds > 0 ? " May carry one file descriptor." : "");
        dump_routes(out, symbol->name);
        dump_errors(out, symbol->name);
        fputs("Input:\n\n", out);
        if (!dump_fields(out, symbol, SD_VARLINK_INPUT))
                fputs("none\n\n", out);
        fputs("Output:\n\n", out);
        if (!dump_fields(out, symbol, SD_VARLINK_OUTPUT))
                fputs("none\n\n", out);
}

static void dump_type(FILE *out, const sd_varlink_symbol *symbol, const char *comment) {
        heading(out, symbol->name, '-');
        fprintf(out, "%s\n\n", comment);
        dump_fields(out, symbol, SD_VARLINK_REGULAR);
}

static void dump_error(FILE *out, const sd_varlink_symbol *symbol) {
        heading(out, symbol->name, '-');
        for (const ErrorRow *row = error_rows; row->name; row++)
                if (strcmp(row->name, symbol->name) == 0)
                        fprintf(out, "%s In libprivmem: ``-%s``. In REST: %u%s%s.\n\n", row->sentence, row->errno_name,
                                row->status,
                                error_verdict_status(symbol, 422) ? ", but 422 if a verdict has a ``kernelErrno``" :
                                                                    "",
                                error_verdict_status(symbol, 404) ? ", and 404 if its rule is ``no_such_slot``" : "");
        dump_fields(out, symbol, SD_VARLINK_REGULAR);
}

/* All symbols of one kind; a symbol's comment stands before it. */
static void dump_symbols(FILE *out, sd_varlink_symbol_type_t type) {
        const sd_varlink_interface *interface = &vl_interface_io_privmemd_Memory;
        const char *comment = "";

        for (size_t i = 0; interface->symbols[i]; i++) {
                const sd_varlink_symbol *symbol = interface->symbols[i];

                if (symbol->symbol_type == _SD_VARLINK_SYMBOL_COMMENT)
                        comment = symbol->name;
                else if (symbol->symbol_type != type)
                        continue;
                else if (type == SD_VARLINK_METHOD)
                        dump_method(out, symbol, comment);
                else if (type == SD_VARLINK_ERROR)
                        dump_error(out, symbol);
                else
                        dump_type(out, symbol, comment);
        }
}

int dump_manual(FILE *out) {
        heading(out, "METHODS", '=');
        dump_symbols(out, SD_VARLINK_METHOD);
        heading(out, "TYPES", '=');
        dump_symbols(out, SD_VARLINK_STRUCT_TYPE);
        heading(out, "ENUMERATIONS", '=');
        dump_symbols(out, SD_VARLINK_ENUM_TYPE);
        heading(out, "ERRORS", '=');
        dump_symbols(out, SD_VARLINK_ERROR);
        return 0;
}
