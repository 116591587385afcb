/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The rows of operations.def, errors.def and values.def, and how they lead to the symbols of interface.c and to each
 * other. */

#include <stdbool.h>
#include <stddef.h>

#include "api/interface.h"

typedef struct ErrorRow {
        const char *name, *errno_name, *sentence;
        unsigned status;
} ErrorRow;

typedef struct OperationRow {
        const char *name, *right;
        unsigned fds;
} OperationRow;

typedef struct RouteRow {
        const char *method, *verb, *path, *body, *fixed, *answer, *member;
} RouteRow;

typedef struct ResourceRow {
        const char *name, *path, *types, *sentence;
} ResourceRow;

typedef struct ValueRow {
        const char *of, *field, *schema, *example;
} ValueRow;

/* Each ends with a row without a name. */
extern const ErrorRow error_rows[];
extern const OperationRow operation_rows[];
extern const RouteRow route_rows[];
extern const ResourceRow resource_rows[];
extern const ValueRow value_rows[];

const sd_varlink_symbol *find_symbol(const char *name, sd_varlink_symbol_type_t type);
/* The comment that stands before it. */
const char *symbol_comment(const sd_varlink_symbol *symbol);

const sd_varlink_field *find_field(const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction,
                                   const char *name);
/* The first of the comments that stand before it; they end with the field. */
const sd_varlink_field *field_comments(const sd_varlink_symbol *symbol, const sd_varlink_field *field);
bool field_is_of(const sd_varlink_field *field, sd_varlink_symbol_type_t type);

const OperationRow *find_operation(const char *method);
/* The row of that field, or one for any. NULL: there is none. own: of that field alone. */
const ValueRow *find_value(const char *of, const char *field, bool own);

/* Whether a call of the method may be answered with the error, besides what every call may be. */
bool method_fails_with(const char *method, const char *error);
/* Whether the error is about slots, so that its status depends on the verdict: see errors.def. */
/* Whether REST answers so for what is in the verdict of a refused slot, whatever the error's row says. */
bool error_verdict_status(const sd_varlink_symbol *error, unsigned status);
/* Whether a row of NEVER says so of the error, or of the status as text. */
bool route_never(const RouteRow *route, const char *what);
