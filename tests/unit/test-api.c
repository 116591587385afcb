/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The three tables of api/ say the same. A message names what was forgotten, and where. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/interface.h"

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))

static const char *const operations[] = {
#define OPERATION(method, handler, right, fds) #method,
#include "api/operations.def"
};

static const struct {
        const char *name, *sentence;
} errors[] = {
#define ERROR(name, errno_value, status, sentence) { #name, sentence },
#include "api/errors.def"
};

static const sd_varlink_interface *const interface = &vl_interface_io_privmemd_Memory;

static const sd_varlink_symbol *find_symbol(const char *name, sd_varlink_symbol_type_t type) {
        for (size_t i = 0; interface->symbols[i]; i++)
                if (interface->symbols[i]->symbol_type == type && strcmp(interface->symbols[i]->name, name) == 0)
                        return interface->symbols[i];
        return NULL;
}

static void test_each_row_has_a_method(void **state) {
        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(operations); i++)
                if (!find_symbol(operations[i], SD_VARLINK_METHOD))
                        fail_msg("operations.def has %s, but interface.c defines no such method", operations[i]);
}

static void test_each_method_has_a_row(void **state) {
        (void) state;
        for (size_t i = 0; interface->symbols[i]; i++) {
                const sd_varlink_symbol *symbol = interface->symbols[i];
                size_t j = 0;

                if (symbol->symbol_type != SD_VARLINK_METHOD)
                        continue;
                while (j < ELEMENTSOF(operations) && strcmp(operations[j], symbol->name) != 0)
                        j++;
                if (j == ELEMENTSOF(operations))
                        fail_msg("interface.c defines %s, but operations.def has no row for it", symbol->name);
        }
}

static void test_each_error_is_in_both_tables(void **state) {
        size_t n = 0;

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(errors); i++)
                if (!find_symbol(errors[i].name, SD_VARLINK_ERROR))
                        fail_msg("errors.def has %s, but interface.c defines no such error", errors[i].name);
        for (size_t i = 0; interface->symbols[i]; i++)
                n += interface->symbols[i]->symbol_type == SD_VARLINK_ERROR;
        assert_int_equal(n, ELEMENTSOF(errors));
}

static void test_each_error_has_a_message(void **state) {
        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(errors); i++) {
                const sd_varlink_field *field = find_symbol(errors[i].name, SD_VARLINK_ERROR)->fields;

                while (field->field_type == _SD_VARLINK_FIELD_COMMENT)
                        field++;
                if (!field->name || strcmp(field->name, "message") != 0 || field->field_type != SD_VARLINK_STRING)
                        fail_msg("error %s does not begin with a string \"message\"", errors[i].name);
                if (errors[i].sentence[strlen(errors[i].sentence) - 1] != '.')
                        fail_msg("errors.def: the sentence of %s does not end", errors[i].name);
        }
}

static void test_each_symbol_is_documented(void **state) {
        (void) state;
        for (size_t i = 0; interface->symbols[i]; i++)
                if (interface->symbols[i]->symbol_type < _SD_VARLINK_INTERFACE_COMMENT &&
                    (i == 0 || interface->symbols[i - 1]->symbol_type != _SD_VARLINK_SYMBOL_COMMENT))
                        fail_msg("interface.c: %s has no comment", interface->symbols[i]->name);
}

static void test_each_field_is_documented(void **state) {
        (void) state;
        for (size_t i = 0; interface->symbols[i]; i++) {
                const sd_varlink_symbol *symbol = interface->symbols[i];
                sd_varlink_field_type_t before = _SD_VARLINK_FIELD_TYPE_END_MARKER;

                if (symbol->symbol_type >= _SD_VARLINK_INTERFACE_COMMENT)
                        continue;
                for (const sd_varlink_field *f = symbol->fields; f->field_type; f++) {
                        if (f->field_type != _SD_VARLINK_FIELD_COMMENT && before != _SD_VARLINK_FIELD_COMMENT)
                                fail_msg("interface.c: field %s of %s has no comment", f->name, symbol->name);
                        before = f->field_type;
                }
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_each_row_has_a_method),        cmocka_unit_test(test_each_method_has_a_row),
                cmocka_unit_test(test_each_error_is_in_both_tables), cmocka_unit_test(test_each_error_has_a_message),
                cmocka_unit_test(test_each_symbol_is_documented),    cmocka_unit_test(test_each_field_is_documented),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
