/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The memory that malloc(3) gives. */

#include <stddef.h>

/* So many bytes will be allocated in small pieces and kept for long: they come in huge pages if the kernel has some, for
 * each ordinary page would be an exception of its own, and a miss in the TLB again and again. */
void heap_expect(size_t size);
/* That was all. What is left over may be given back. */
void heap_expect_no_more(void);
