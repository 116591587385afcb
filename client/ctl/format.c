/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "format.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/json.h"

static char *print(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *print(const char *format, ...) {
        va_list arguments;
        char *text;
        int n;

        va_start(arguments, format);
        n = vasprintf(&text, format, arguments);
        va_end(arguments);
        return n < 0 ? NULL : text;
}

char *format_size(uint64_t bytes) {
        static const char units[] = "BKMGTPE";
        unsigned unit = 0;
        uint64_t whole = bytes, tenths = 0;

        while (whole >= 1024) {
                tenths = whole % 1024 * 10 / 1024;
                whole /= 1024;
                unit++;
        }

        if (unit == 0)
                return print("%" PRIu64, bytes);
        return print("%" PRIu64 ".%" PRIu64 "%c", whole, tenths, units[unit]);
}

char *format_address(uint64_t address) {
        return print("0x%" PRIx64, address);
}

char *format_number(uint64_t number) {
        return print("%" PRIu64, number);
}

char *format_range(uint64_t start, uint64_t size) {
        return print("0x%" PRIx64 "-0x%" PRIx64, start, size == 0 ? start : start + (size - 1));
}

char *format_duration(uint64_t usec) {
        static const struct {
                const char *suffix;
                uint64_t seconds;
        } units[] = { { "d", 24 * 3600 }, { "h", 3600 }, { "min", 60 }, { "s", 1 } };
        uint64_t seconds = usec / 1000000, rest;

        if (seconds == 0)
                return print("%" PRIu64 "ms", usec / 1000);
        for (size_t i = 0; i < 3; i++) {
                if (seconds < units[i].seconds)
                        continue;
                rest = seconds % units[i].seconds / units[i + 1].seconds;
                if (rest == 0)
                        return print("%" PRIu64 "%s", seconds / units[i].seconds, units[i].suffix);
                return print("%" PRIu64 "%s %" PRIu64 "%s", seconds / units[i].seconds, units[i].suffix, rest,
                             units[i + 1].suffix);
        }
        return print("%" PRIu64 "s", seconds);
}

char *format_time(uint64_t usec) {
        time_t seconds = (time_t) (usec / 1000000);
        struct tm when;
        char text[32];

        if (!localtime_r(&seconds, &when) || strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &when) == 0)
                return format_number(usec);
        return print("%s.%06" PRIu64, text, usec % 1000000);
}

char *format_conflict(json_object *c) {
        const char *vm = json_get_string(c, "vm"), *rule = json_get_string(c, "rule");
        const char *backing = json_get_string(c, "backing"), *backing_vm = json_get_string(c, "backingVM");
        uint64_t slot_id = 0, address_space = 0, address = 0, size = 0, offset = 0;
        char *guest, *range = NULL, *memory, *line = NULL;

        (void) json_get_uint64(c, "slotId", &slot_id);
        (void) json_get_uint64(c, "addressSpace", &address_space);
        (void) json_get_uint64(c, "guestPhysAddr", &address);
        (void) json_get_uint64(c, "size", &size);
        (void) json_get_uint64(c, "backingOffset", &offset);

        guest = format_range(address, size);
        if (backing) {
                range = format_range(offset, size);
                memory = range ? print("backing %s of VM %s at %s", backing, backing_vm ? backing_vm : vm, range) :
                                 NULL;
        } else {
                memory = print("memory without a backing");
        }

        if (guest && memory)
                line = print("VM %s, slot %" PRIu64 " of address space %" PRIu64 ", guest %s, %s: rule %s",
                             vm ? vm : "?", slot_id, address_space, guest, memory, rule ? rule : "?");
        free(guest);
        free(range);
        free(memory);
        return line;
}

char *format_array(json_object *array) {
        size_t n = array ? json_object_array_length(array) : 0;
        char *text = print("%s", n == 0 ? "-" : "");

        for (size_t i = 0; i < n && text; i++) {
                const char *item = json_object_get_string(json_object_array_get_idx(array, i));
                char *longer = print("%s%s%s", text, i > 0 ? "," : "", item ? item : "");

                free(text);
                text = longer;
        }
        return text;
}

char *format_text_field(json_object *object, const char *key) {
        const char *text = json_get_string(object, key);

        return print("%s", text ? text : "-");
}

static char *format_field(json_object *object, const char *key, char *(*format)(uint64_t) ) {
        uint64_t value;

        return json_get_uint64(object, key, &value) ? format(value) : print("-");
}

char *format_number_field(json_object *object, const char *key) {
        return format_field(object, key, format_number);
}

char *format_size_field(json_object *object, const char *key) {
        return format_field(object, key, format_size);
}

char *format_address_field(json_object *object, const char *key) {
        return format_field(object, key, format_address);
}
