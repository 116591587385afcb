/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* JSON text, looked at where it lies: what goes through the gateway is cut out and put together again, never built.
 *
 * scan_check() is for text from strangers and is strict. The others take text that it has passed, or that privmemd wrote;
 * from any other text they return something or fail, and never read beyond its end. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rest/text.h"

#define SCAN_DEPTH_MAX   16U
#define SCAN_MEMBERS_MAX 64U /* of one object */

enum {
        SCAN_E_NOT_JSON = 1, /* RFC 8259, UTF-8, and nothing behind it */
        SCAN_E_TOO_DEEP,     /* deeper than SCAN_DEPTH_MAX */
        SCAN_E_DUPLICATE,    /* two members of one object have the same name */
        SCAN_E_TOO_MANY,     /* an object with more than SCAN_MEMBERS_MAX members */
        SCAN_E_NUL,          /* a string with \u0000 in it */
};

/* Exactly one value. *ret_offset is where the mistake is, in bytes. A name with an escape is SCAN_E_NOT_JSON: no member
 * of the API needs one, and two names might be the same otherwise. */
int scan_check(Span text, size_t *ret_offset);

/* Goes over the members of an object, or the elements of an array. It is a cursor: *rest is what is left. */
typedef struct Scan {
        const char *at, *end;
} Scan;

/* Enters an object or an array; opening is '{' or '['. False: the value is none. */
bool scan_open(Scan *scan, Span value, char opening);

/* 1: there is one; 0: that was all; -EBADMSG. The key is without its quotes. */
int scan_member(Scan *scan, Span *ret_key, Span *ret_value);
int scan_element(Scan *scan, Span *ret_value);

/* False: the value is no object, or has no such member. */
bool scan_find(Span object, const char *key, Span *ret_value);

/* Also for two levels, such as "vm", "generation". */
bool scan_find2(Span object, const char *first, const char *second, Span *ret_value);

/* A JSON number that is a decimal without sign, fraction and exponent, below 2^64. */
bool scan_uint64(Span value, uint64_t *ret);

/* A JSON string without escapes, without its quotes. */
bool scan_plain_string(Span value, Span *ret);

/* Whether it is a decimal as JSON has it, without fraction and exponent; with a sign or without. */
bool scan_is_integer(Span text);

bool scan_is_utf8(Span text);
