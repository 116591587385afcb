/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Values as people read them. Every function returns a string for free(), or NULL if memory is out. */

#include <stdint.h>

#include <json-c/json.h>

/* "256.0M"; below 1024 bytes the number alone. */
char *format_size(uint64_t bytes);

/* "0x1000" */
char *format_address(uint64_t address);

char *format_number(uint64_t number);

/* "0x1000-0x1fff": the last byte is in it. */
char *format_range(uint64_t start, uint64_t size);

/* "1min 30s": the two largest units; below a second in milliseconds. */
char *format_duration(uint64_t usec);

/* "2024-05-17 12:00:00.123456", local time. */
char *format_time(uint64_t usec);

/* "VM web1, slot 0, guest 0x0-0xfff, backing ram0 0x0-0xfff: undeclared_alias" */
char *format_conflict(json_object *conflict);

/* The strings or numbers of an array with commas between them; "-" for none. */
char *format_array(json_object *array);

/* A field in one of these forms; "-" if it is absent. */
char *format_text_field(json_object *object, const char *key);
char *format_number_field(json_object *object, const char *key);
char *format_size_field(json_object *object, const char *key);
char *format_address_field(json_object *object, const char *key);
