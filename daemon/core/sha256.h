/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* SHA-256 of FIPS 180-4, for what is short. docs/decisions.md says why it is our own. */

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32U

void sha256(const void *bytes, size_t size, uint8_t ret[static SHA256_SIZE]);
