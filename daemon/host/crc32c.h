/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* CRC-32C (Castagnoli; RFC 3720 appendix B.4), by the processor's instruction or by slicing eight bytes at a time. None of the libraries that the daemon
 * links offers one to its users, and a library more in the process that holds every guest's memory costs more than
 * these few lines. */

#include <stddef.h>
#include <stdint.h>

/* Goes on from the crc of what is before; 0 to begin with. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t size);
/* The same by slicing alone. */
uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t size);
