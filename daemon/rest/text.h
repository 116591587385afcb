/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Text that grows. After a failure to get memory it takes nothing any more and says so, so that only the end needs a
 * check. There is always a NUL behind it, which does not count. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Text {
        char *text; /* NULL as long as there is nothing */
        size_t size;
        size_t capacity;
        bool failed;
} Text;

/* A part of a text that belongs to somebody else; not with a NUL behind it. */
typedef struct Span {
        const char *text; /* NULL: there is none */
        size_t size;
} Span;

#define SPAN(literal) ((Span) { .text = (literal), .size = sizeof(literal) - 1 })

void text_done(Text *text);

/* Room for that much more. */
bool text_reserve(Text *text, size_t size);

void text_add(Text *text, const char *bytes, size_t size);
void text_add_span(Text *text, Span span);
void text_add_string(Text *text, const char *string);
void text_add_uint64(Text *text, uint64_t value);
void text_printf(Text *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* As a JSON string; the bytes are UTF-8. */
void text_add_json(Text *text, const char *bytes, size_t size);

Span span_of(const char *string);
bool span_is(Span span, const char *string);
bool span_equal(Span a, Span b);
