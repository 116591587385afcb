/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN ((size_t) 512)

void text_done(Text *text) {
        free(text->text);
        *text = (Text) {};
}

bool text_reserve(Text *text, size_t size) {
        size_t needed, capacity = text->capacity;
        char *grown;

        if (text->failed)
                return false;
        if (__builtin_add_overflow(text->size, size, &needed) || __builtin_add_overflow(needed, 1, &needed) ||
            needed > SIZE_MAX / 2) {
                text->failed = true;
                return false;
        }
        if (needed <= capacity)
                return true;
        capacity = capacity < CAPACITY_MIN ? CAPACITY_MIN : capacity;
        while (capacity < needed)
                capacity *= 2;
        grown = realloc(text->text, capacity);
        if (!grown) {
                text->failed = true;
                return false;
        }
        text->text = grown;
        text->capacity = capacity;
        return true;
}

void text_add(Text *text, const char *bytes, size_t size) {
        if (!text_reserve(text, size))
                return;
        if (size > 0)
                memcpy(text->text + text->size, bytes, size);
        text->size += size;
        text->text[text->size] = 0;
}

void text_add_span(Text *text, Span span) {
        text_add(text, span.text, span.size);
}

void text_add_string(Text *text, const char *string) {
        text_add(text, string, strlen(string));
}

void text_add_uint64(Text *text, uint64_t value) {
        char digits[24];

        text_add(text, digits, (size_t) snprintf(digits, sizeof(digits), "%" PRIu64, value));
}

void text_printf(Text *text, const char *fmt, ...) {
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(NULL, 0, fmt, ap);
        va_end(ap);
        if (n < 0 || !text_reserve(text, (size_t) n)) {
                text->failed = true;
                return;
        }
        va_start(ap, fmt);
        (void) vsnprintf(text->text + text->size, (size_t) n + 1, fmt, ap);
        va_end(ap);
        text->size += (size_t) n;
}

static bool is_plain(unsigned char c) {
        return c >= 0x20 && c != '"' && c != '\\' && c != 0x7f;
}

void text_add_json(Text *text, const char *bytes, size_t size) {
        size_t begun = 0;

        text_add(text, "\"", 1);
        for (size_t i = 0; i < size; i++) {
                unsigned char c = (unsigned char) bytes[i];

                if (is_plain(c))
                        continue;
                text_add(text, bytes + begun, i - begun);
                if (c == '"' || c == '\\')
                        text_add(text, (const char[]) { '\\', (char) c }, 2);
                else
                        text_printf(text, "\\u%04x", c);
                begun = i + 1;
        }
        text_add(text, bytes + begun, size - begun);
        text_add(text, "\"", 1);
}

Span span_of(const char *string) {
        return (Span) { .text = string, .size = strlen(string) };
}

bool span_is(Span span, const char *string) {
        return span.text && span.size == strlen(string) && memcmp(span.text, string, span.size) == 0;
}

bool span_equal(Span a, Span b) {
        return a.size == b.size && (a.size == 0 || memcmp(a.text, b.text, a.size) == 0);
}
