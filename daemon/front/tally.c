/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "front/tally.h"

/* Most calls take some microseconds; an allocation of many huge pages takes seconds. */
const uint64_t tally_bounds_usec[TALLY_BOUNDS] = {
        10, 25, 50, 100, 250, 500, 1000, 2500, 10000, 50000, 250000, 1000000,
};

void tally_add(Tally *tally, bool succeeded, uint64_t usec) {
        if (succeeded)
                tally->succeeded++;
        else
                tally->failed++;
        tally->total_usec += usec;
        for (unsigned i = 0; i < TALLY_BOUNDS; i++)
                tally->within[i] += usec <= tally_bounds_usec[i];
}

uint64_t usec_of(clockid_t clock) {
        struct timespec now;

        clock_gettime(clock, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}
