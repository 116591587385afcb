/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What all proofs need of CBMC. */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Any number. */
bool nondet_bool(void);
uint8_t nondet_u8(void);
uint32_t nondet_u32(void);
uint64_t nondet_u64(void);
size_t nondet_size(void);

/* A proof about nothing is no proof: prove.py has CBMC find a way that comes by here with the condition true. */
#ifdef REACH
#define reach(condition) __CPROVER_cover(condition)
#else
#define reach(condition) ((void) (condition))
#endif
