/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/budget.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SECOND UINT64_C(1000000)

int budget_new(uint32_t per_second, Budget **ret) {
        Budget *budget = calloc(1, sizeof(*budget));

        if (!budget)
                return -ENOMEM;
        budget->per_second = per_second;
        /* Nobody can choose an address that shares the place of another. */
        if (getrandom(&budget->seed, sizeof(budget->seed), 0) != sizeof(budget->seed)) {
                free(budget);
                return -EIO;
        }
        *ret = budget;
        return 0;
}

Budget *budget_free(Budget *budget) {
        free(budget);
        return NULL;
}

/* The end of splitmix64, over both halves. */
static uint64_t mix(uint64_t x) {
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

bool budget_take(Budget *budget, AddressKey key, uint64_t now) {
        uint64_t half[2], *full_at, cost = SECOND / budget->per_second;

        memcpy(half, key.bytes, sizeof(half));
        full_at = &budget->place[mix(mix(half[0] ^ budget->seed) ^ half[1]) % BUDGET_PLACES].full_at;
        if (*full_at < now)
                *full_at = now;
        if (*full_at + cost > now + 2 * SECOND)
                return false;
        *full_at += cost;
        return true;
}
