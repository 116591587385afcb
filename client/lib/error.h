/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the handle remembers of the last call that failed.
 *
 * Each error_set_…() replaces what was there and returns the negative errno that the caller is to return. */

#include <json-c/json.h>

typedef struct Error {
        char *name;
        char *message; /* NULL: memory was out when it was to be made */
        char *json;
} Error;

void error_done(Error *e);

/* An error of the library or of the kernel. code is a negative errno and returned. */
int error_set(Error *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* An error reply. parameters may be NULL. */
int error_set_reply(Error *e, const char *name, json_object *parameters);
