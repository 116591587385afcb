/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The addresses of REST fit the methods that they call, and no file descriptor can travel by one. A message names the
 * row of operations.def that is wrong. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <systemd/sd-json.h>

#include "api/interface.h"

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))

typedef struct Route {
        const char *method, *verb, *path, *body, *fixed, *answer, *member;
} Route;

static const Route routes[] = {
#define ROUTE(method, verb, path, body, fixed, answer, member) { #method, #verb, path, body, fixed, #answer, member },
#include "api/operations.def"
};

static const struct {
        const char *method;
        unsigned fds;
} operations[] = {
#define OPERATION(method, handler, right, fds) { #method, fds },
#include "api/operations.def"
};

/* As daemon/rest has it. */
static const struct {
        const char *method, *name, *type, *words;
        bool array, nullable;
} fields[] = {
#define FIELD(method, name, type, array, nullable, words) { #method, name, #type, words, array, nullable },
#include "rest-fields.h"
};

static const sd_varlink_symbol *find_method(const char *name) {
        const sd_varlink_interface *interface = &vl_interface_io_privmemd_Memory;

        for (size_t i = 0; interface->symbols[i]; i++)
                if (interface->symbols[i]->symbol_type == SD_VARLINK_METHOD &&
                    strcmp(interface->symbols[i]->name, name) == 0)
                        return interface->symbols[i];
        return NULL;
}

static const sd_varlink_field *find_field(const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction,
                                          const char *name, size_t length) {
        for (const sd_varlink_field *field = symbol->fields; field->field_type; field++)
                if (field->field_type != _SD_VARLINK_FIELD_COMMENT && field->field_direction == direction &&
                    strlen(field->name) == length && strncmp(field->name, name, length) == 0)
                        return field;
        return NULL;
}

/* "field" of the input, or "field.member" of it. */
static const sd_varlink_field *find_input(const char *method, const char *name, size_t length) {
        const char *dot = memchr(name, '.', length);
        const sd_varlink_field *field;

        if (!dot)
                return find_field(find_method(method), SD_VARLINK_INPUT, name, length);
        field = find_field(find_method(method), SD_VARLINK_INPUT, name, (size_t) (dot - name));
        if (!field || field->field_type != SD_VARLINK_NAMED_TYPE || field->field_flags & SD_VARLINK_ARRAY)
                return NULL;
        return find_field(field->symbol, SD_VARLINK_REGULAR, dot + 1, length - 1 - (size_t) (dot - name));
}

static void check_path(const Route *route) {
        assert_true(strncmp(route->path, "/v1/", 4) == 0);
        for (const char *at = route->path; (at = strchr(at, '{')); at++) {
                size_t length = strcspn(at + 1, "}");
                const sd_varlink_field *field = find_input(route->method, at + 1, length);

                if (!field)
                        fail_msg("%s %s: {%.*s} is no input field of %s", route->verb, route->path, (int) length,
                                 at + 1, route->method);
                if (field->field_flags & SD_VARLINK_ARRAY)
                        fail_msg("%s %s: {%s} is an array, which no address can hold", route->verb, route->path,
                                 field->name);
        }
}

static void check_body(const Route *route) {
        bool may_have = strcmp(route->verb, "PUT") == 0 || strcmp(route->verb, "POST") == 0;

        if (may_have != !!route->body)
                fail_msg("%s %s: GET and DELETE have no body, and the others have one", route->verb, route->path);
        if (route->body && route->body[0] && !find_input(route->method, route->body, strlen(route->body)))
                fail_msg("%s %s: the body is to be %s, which is no input field of %s", route->verb, route->path,
                         route->body, route->method);
}

static void check_fixed_member(const Route *route, const char *prefix, sd_json_variant *object) {
        for (size_t i = 0; i < sd_json_variant_elements(object); i += 2) {
                sd_json_variant *value = sd_json_variant_by_index(object, i + 1);
                char name[128];

                snprintf(name, sizeof(name), "%s%s", prefix,
                         sd_json_variant_string(sd_json_variant_by_index(object, i)));
                if (!find_input(route->method, name, strlen(name)))
                        fail_msg("%s %s: the fixed %s is no input field of %s", route->verb, route->path, name,
                                 route->method);
                if (sd_json_variant_is_object(value)) {
                        snprintf(name + strlen(name), sizeof(name) - strlen(name), ".");
                        check_fixed_member(route, name, value);
                }
        }
}

static void check_fixed(const Route *route) {
        sd_json_variant *fixed = NULL;

        if (!route->fixed)
                return;
        if (sd_json_parse(route->fixed, 0, &fixed, NULL, NULL) < 0 || !sd_json_variant_is_object(fixed))
                fail_msg("%s %s: what is fixed is no JSON object", route->verb, route->path);
        check_fixed_member(route, "", fixed);
        sd_json_variant_unref(fixed);
}

static void check_answer(const Route *route) {
        const sd_varlink_symbol *method = find_method(route->method);
        bool list = strcmp(route->answer, "LIST") == 0 || strcmp(route->answer, "ITEM") == 0;
        bool events = strcmp(route->answer, "EVENTS") == 0;
        const sd_varlink_field *member;

        if (!route->member) {
                if (strcmp(route->answer, "REPLY") != 0)
                        fail_msg("%s %s: %s needs a member", route->verb, route->path, route->answer);
                return;
        }
        member = find_field(method, SD_VARLINK_OUTPUT, route->member, strlen(route->member));
        if (!member)
                fail_msg("%s %s: %s is no output field of %s", route->verb, route->path, route->member, route->method);
        if (list && (!(member->field_flags & SD_VARLINK_ARRAY) || !(method->symbol_flags & SD_VARLINK_SUPPORTS_MORE)))
                fail_msg("%s %s: %s of %s is no list", route->verb, route->path, route->member, route->method);
        if (events && !(method->symbol_flags & SD_VARLINK_REQUIRES_MORE))
                fail_msg("%s %s: %s is no stream", route->verb, route->path, route->method);
}

static void test_each_route_fits_its_method(void **state) {
        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(routes); i++) {
                if (!find_method(routes[i].method))
                        fail_msg("%s %s: there is no method %s", routes[i].verb, routes[i].path, routes[i].method);
                check_path(&routes[i]);
                check_body(&routes[i]);
                check_fixed(&routes[i]);
                check_answer(&routes[i]);
        }
}

/* Whether two addresses can be the same text: segment by segment, a placeholder is any. */
static bool is_same_shape(const char *a, const char *b) {
        while (*a && *b) {
                size_t n = strcspn(a, "/"), m = strcspn(b, "/");

                if (*a == '{' ? *b != '{' : n != m || strncmp(a, b, n) != 0)
                        return false;
                a += n + (a[n] == '/');
                b += m + (b[m] == '/');
        }
        return !*a && !*b;
}

static void test_no_two_routes_are_the_same(void **state) {
        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(routes); i++)
                for (size_t j = i + 1; j < ELEMENTSOF(routes); j++)
                        if (strcmp(routes[i].verb, routes[j].verb) == 0 &&
                            is_same_shape(routes[i].path, routes[j].path))
                                fail_msg("%s %s stands for %s and for %s", routes[i].verb, routes[j].path,
                                         routes[i].method, routes[j].method);
}

/* The file descriptor in what is sent back: NULL if there is none. */
static const sd_varlink_field *find_fd(const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction) {
        for (const sd_varlink_field *field = symbol->fields; field->field_type; field++) {
                const sd_varlink_field *inner = NULL;

                if (field->field_type == _SD_VARLINK_FIELD_COMMENT || field->field_direction != direction)
                        continue;
                if (strcmp(field->name, "fileDescriptor") == 0)
                        return field;
                if (field->field_type == SD_VARLINK_NAMED_TYPE && field->symbol->symbol_type == SD_VARLINK_STRUCT_TYPE)
                        inner = find_fd(field->symbol, SD_VARLINK_REGULAR);
                if (inner)
                        return inner;
        }
        return NULL;
}

/* REST cannot carry a file descriptor. So a method has no address if it takes one or always answers with one, and each
 * other method has one. */
static void test_what_has_no_fd_has_a_route(void **state) {
        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(operations); i++) {
                const sd_varlink_field *fd = find_fd(find_method(operations[i].method), SD_VARLINK_OUTPUT);
                bool is_for_rest = operations[i].fds == 0 && (!fd || fd->field_flags & SD_VARLINK_NULLABLE);
                size_t n = 0;

                for (size_t j = 0; j < ELEMENTSOF(routes); j++)
                        n += strcmp(routes[j].method, operations[i].method) == 0;
                if (is_for_rest && n == 0)
                        fail_msg("operations.def: %s needs no file descriptor, but has no ROUTE",
                                 operations[i].method);
                if (!is_for_rest && n > 0)
                        fail_msg("operations.def: %s needs a file descriptor, but has a ROUTE", operations[i].method);
        }
}

static void test_no_route_answers_with_an_fd(void **state) {
        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(routes); i++)
                if (find_fd(find_method(routes[i].method), SD_VARLINK_OUTPUT) &&
                    (!routes[i].fixed || !strstr(routes[i].fixed, "\"open\":false")))
                        fail_msg("%s %s: the answer of %s has a file descriptor if \"open\" is not fixed to false",
                                 routes[i].verb, routes[i].path, routes[i].method);
}

/* The generated table: each part of a path is in it, and is one value. */
static void test_each_placeholder_has_a_type(void **state) {
        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(routes); i++)
                for (const char *at = routes[i].path; (at = strchr(at, '{')); at++) {
                        size_t length = strcspn(++at, "}"), j = 0;

                        while (j < ELEMENTSOF(fields) &&
                               (strcmp(fields[j].method, routes[i].method) != 0 || strlen(fields[j].name) != length ||
                                strncmp(fields[j].name, at, length) != 0))
                                j++;
                        if (j == ELEMENTSOF(fields))
                                fail_msg("%s %s: dump rest-fields has no {%.*s}", routes[i].verb, routes[i].path,
                                         (int) length, at);
                        if (strcmp(fields[j].type, "OBJECT") == 0 || fields[j].array)
                                fail_msg("%s %s: {%s} is more than one value", routes[i].verb, routes[i].path,
                                         fields[j].name);
                }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_each_route_fits_its_method),  cmocka_unit_test(test_no_two_routes_are_the_same),
                cmocka_unit_test(test_what_has_no_fd_has_a_route),  cmocka_unit_test(test_no_route_answers_with_an_fd),
                cmocka_unit_test(test_each_placeholder_has_a_type),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
