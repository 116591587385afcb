/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How often an address may do a thing that costs us much: so many times a second, and twice that at once. It takes the
 * same memory however many addresses there are; two that fall on one place share it. */

#include <stdbool.h>
#include <stdint.h>

#include "rest/address.h"

#define BUDGET_PLACES 1024U

typedef struct Budget {
        uint32_t per_second;
        uint64_t seed;
        struct {
                uint64_t full_at; /* microseconds: when all that was taken has come back */
        } place[BUDGET_PLACES];
} Budget;

int budget_new(uint32_t per_second, Budget **ret);
Budget *budget_free(Budget *budget);

/* Takes one; false if there is none left at now. */
bool budget_take(Budget *budget, AddressKey key, uint64_t now);
