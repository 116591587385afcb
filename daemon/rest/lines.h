/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Files that say a thing a line: tokens and rights of certificates. Empty lines, and lines that start with "#", say
 * nothing. A file is taken as a whole or not at all, and its first mistake is told with its place. */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum {
        LINES_E_BAD = 1, /* *ret_message says where, what is wrong and what is allowed */
};

typedef struct Lines {
        const char *path;
        unsigned number; /* of the line that is being read */
        char *message;
        int error;
} Lines;

/* What is wrong with the line; the first call counts. */
void lines_complain(Lines *lines, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* text is without its end, and without spaces before and behind it; it may be written to. */
typedef void (*LinesFunction)(Lines *lines, char *text, void *userdata);

/* is_secret: only root or this process may own the file, and others may neither read nor write it. Negative: there is
 * no memory. What cannot be opened is a mistake like any other. The caller frees *ret_message. */
int lines_read(const char *path, bool is_secret, LinesFunction function, void *userdata, char **ret_message);

/* The whole file, with the same checks, and a NUL byte behind it that is not counted. The caller frees *ret_data. */
int lines_read_all(const char *path, bool is_secret, char **ret_data, size_t *ret_size, char **ret_message);

/* LINES_E_BAD with a message of one's own, or -ENOMEM. */
int lines_bad(char **ret_message, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
