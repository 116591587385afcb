/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* json-c with the checks that a message from elsewhere needs.
 *
 * The json_add_…() functions take ownership of nothing, return false if object is NULL or memory is out, and
 * so chain with &&. The json_get_…() functions answer whether there is a field of that type; a field that is
 * absent or null is none. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

/* Parses exactly one JSON object of UTF-8, at most 32 levels deep. -EBADMSG: it is none. -ENOMEM. */
int json_parse_object(const char *text, size_t size, json_object **ret);

/* The same for any one JSON value. */
int json_parse(const char *text, size_t size, json_object **ret);

bool json_is_utf8(const char *text, size_t size);

/* One line; the object's own, and valid until it changes. NULL: out of memory. */
const char *json_text(json_object *object, size_t *ret_size);

/* value is consumed, also on failure. */
bool json_add(json_object *object, const char *key, json_object *value);

/* Adds nothing if value is NULL. */
bool json_add_string(json_object *object, const char *key, const char *value);
bool json_add_uint64(json_object *object, const char *key, uint64_t value);

const char *json_get_string(json_object *object, const char *key);
bool json_get_uint64(json_object *object, const char *key, uint64_t *ret);
bool json_get_bool(json_object *object, const char *key);
json_object *json_get_object(json_object *object, const char *key);
json_object *json_get_array(json_object *object, const char *key);
