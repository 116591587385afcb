/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Reads the small files of /proc and /sys. */

#include <stdint.h>

/* The first line as a decimal number. -EINVAL if it is none. */
int file_read_u64(const char *path, uint64_t *ret);
/* Of a line such as "always [never] deny", the word in brackets. -EINVAL if there is none that fits. */
int file_read_choice(const char *path, char ret[static 32]);
/* The first line as a list such as "0-3,8": bit n is set for each n below 64. */
int file_read_bitmap(const char *path, uint64_t *ret);
