/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "json.h"

#include <errno.h>
#include <limits.h>

#define DEPTH_MAX 32

int json_parse(const char *text, size_t size, json_object **ret) {
        json_tokener *tokener;
        json_object *value;
        int r = 0;

        if (size > INT_MAX - 1)
                return -EBADMSG;

        tokener = json_tokener_new_ex(DEPTH_MAX);
        if (!tokener)
                return -ENOMEM;

        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);

        /* The NUL ends a number that nothing else ends. */
        value = json_tokener_parse_ex(tokener, text, (int) size + 1);
        if (json_tokener_get_error(tokener) != json_tokener_success || json_tokener_get_parse_end(tokener) < size)
                r = -EBADMSG;
        json_tokener_free(tokener);

        if (r < 0) {
                json_object_put(value);
                return r;
        }

        *ret = value;
        return 0;
}

int json_parse_object(const char *text, size_t size, json_object **ret) {
        json_object *value = NULL;
        int r;

        r = json_parse(text, size, &value);
        if (r < 0)
                return r;
        if (!json_object_is_type(value, json_type_object)) {
                json_object_put(value);
                return -EBADMSG;
        }

        *ret = value;
        return 0;
}

bool json_is_utf8(const char *text, size_t size) {
        const unsigned char *c = (const unsigned char *) text, *end = c + size;

        while (c < end) {
                uint32_t point, least;
                unsigned follow;

                if (*c < 0x80) {
                        c++;
                        continue;
                }
                if ((*c & 0xe0) == 0xc0)
                        follow = 1, point = *c & 0x1fu, least = 0x80;
                else if ((*c & 0xf0) == 0xe0)
                        follow = 2, point = *c & 0x0fu, least = 0x800;
                else if ((*c & 0xf8) == 0xf0)
                        follow = 3, point = *c & 0x07u, least = 0x10000;
                else
                        return false;

                for (c++; follow > 0; c++, follow--) {
                        if (c == end || (*c & 0xc0) != 0x80)
                                return false;
                        point = point << 6 | (*c & 0x3fu);
                }
                if (point < least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
                        return false;
        }

        return true;
}

const char *json_text(json_object *object, size_t *ret_size) {
        size_t size;
        const char *text;

        text = json_object_to_json_string_length(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE,
                                                 &size);
        if (text && ret_size)
                *ret_size = size;
        return text;
}

bool json_add(json_object *object, const char *key, json_object *value) {
        if (!object || !value || json_object_object_add(object, key, value) < 0) {
                json_object_put(value);
                return false;
        }
        return true;
}

bool json_add_string(json_object *object, const char *key, const char *value) {
        return object && (!value || json_add(object, key, json_object_new_string(value)));
}

bool json_add_uint64(json_object *object, const char *key, uint64_t value) {
        return object && json_add(object, key, json_object_new_uint64(value));
}

static json_object *get_typed(json_object *object, const char *key, json_type type) {
        json_object *value;

        if (!object || !json_object_object_get_ex(object, key, &value) || !json_object_is_type(value, type))
                return NULL;
        return value;
}

const char *json_get_string(json_object *object, const char *key) {
        json_object *value = get_typed(object, key, json_type_string);

        return value ? json_object_get_string(value) : NULL;
}

bool json_get_uint64(json_object *object, const char *key, uint64_t *ret) {
        json_object *value = get_typed(object, key, json_type_int);

        /* A number above INT64_MAX is clamped here, a negative one is not. */
        if (!value || json_object_get_int64(value) < 0)
                return false;

        *ret = json_object_get_uint64(value);
        return true;
}

bool json_get_bool(json_object *object, const char *key) {
        json_object *value = get_typed(object, key, json_type_boolean);

        return value && json_object_get_boolean(value);
}

json_object *json_get_object(json_object *object, const char *key) {
        return get_typed(object, key, json_type_object);
}

json_object *json_get_array(json_object *object, const char *key) {
        return get_typed(object, key, json_type_array);
}
