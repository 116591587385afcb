/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The addresses, as the rows of api/operations.def have them, and the types of the input fields of their methods. */

#include <stdbool.h>
#include <stddef.h>

#include "rest/http.h"
#include "rest/text.h"

#define ROUTE_VALUES_MAX 4U

typedef enum Answer {
        REPLY,
        LIST,
        ITEM,
        CREATED,
        EVENTS,
} Answer;

typedef struct Route {
        const char *method;
        Verb verb;
        const char *path;
        const char *body;  /* NULL: none; "": its members are input fields; otherwise it is that one */
        const char *fixed; /* JSON text, or NULL */
        Answer answer;
        const char *member; /* of the output */
} Route;

typedef enum FieldType {
        BOOL,
        INT,
        STRING,
        FLOAT,
        ENUM,
        OBJECT,
} FieldType;

typedef struct Field {
        const char *method;
        const char *name; /* "field.member" of what is an object */
        FieldType type;
        bool is_array;
        bool is_nullable;
        const char *words; /* of an ENUM, with spaces between; else NULL */
} Field;

/* What a path says: the field's name and the text as it was sent. */
typedef struct RouteValue {
        Span field;
        Span text;
} RouteValue;

typedef struct RouteMatch {
        const Route *route;
        RouteValue values[ROUTE_VALUES_MAX];
        size_t n_values;
} RouteMatch;

enum {
        ROUTE_E_NO_PATH = 1,
        ROUTE_E_NO_VERB, /* *ret_verbs has those that there are: a bit each, 1 << VERB_… */
};

int route_find(Span path, Verb verb, RouteMatch *ret, unsigned *ret_verbs);

/* Of the method; NULL if it has none of that name. */
const Field *route_field(const Route *route, Span name);

/* Row after row; NULL behind the last. */
const Route *route_at(size_t i);
