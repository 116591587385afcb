/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What nobody can guess. */

#include <stddef.h>

/* Fills bytes from the kernel's generator, which has been seeded when it returns. 0 or a negative errno. */
int random_fill(void *bytes, size_t size);
