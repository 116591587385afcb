/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How often something was done, how it ended, and how long it took, in few bounds: the histogram of a monitoring
 * system. */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define TALLY_BOUNDS 12U

/* Rising, in microseconds. */
extern const uint64_t tally_bounds_usec[TALLY_BOUNDS];

typedef struct Tally {
        uint64_t succeeded, failed;
        uint64_t total_usec;
        uint64_t within[TALLY_BOUNDS]; /* of both, those that took no longer than the bound */
} Tally;

void tally_add(Tally *tally, bool succeeded, uint64_t usec);

uint64_t usec_of(clockid_t clock);
