/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Writes JSON as it comes, one member a line, so that a golden file shows each change as a line. Whether the writing
 * went well is known to the stream. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct Json {
        FILE *out;
        unsigned depth;
        bool has_members; /* of what is open now */
} Json;

/* key is NULL in an array, and at the top. */
void json_open(Json *j, const char *key, char bracket);
/* With the bracket that closes it. */
void json_close(Json *j, char bracket);

void json_string(Json *j, const char *key, const char *text);
void json_bool(Json *j, const char *key, bool value);
void json_unsigned(Json *j, const char *key, uint64_t value);
/* JSON text. */
void json_raw(Json *j, const char *key, const char *text);
/* Members of the open object, as JSON text without its braces. */
void json_members(Json *j, const char *text);
/* {"$ref": "#/components/KIND/NAME"} */
void json_ref(Json *j, const char *key, const char *kind, const char *name);
/* The text in quotes, and nothing else. */
void json_quote(FILE *out, const char *text);
