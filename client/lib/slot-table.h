/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The slots that a VM has declared, as the text of the API's Slot: what has to be declared again when an ioctl
 * fails that was to change one. Text, because it is a tenth of the objects' size, and is hardly ever read.
 *
 * Empty and not loaded until somebody wants it; from then on every declaration of the handle goes in. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLOT_TABLE_SPACES 2
#define SLOT_TABLE_IDS    32768

typedef struct SlotTable {
        bool loaded;
        char **slots[SLOT_TABLE_SPACES]; /* by slot id */
        size_t n_slots[SLOT_TABLE_SPACES];
} SlotTable;

/* Empty and not loaded again. */
void slot_table_done(SlotTable *t);

/* NULL: there is none. */
const char *slot_table_get(const SlotTable *t, uint32_t address_space, uint32_t slot_id);

/* Does nothing in a table that is not loaded or has no such place. -ENOMEM. */
int slot_table_put(SlotTable *t, uint32_t address_space, uint32_t slot_id, const char *slot);

void slot_table_remove(SlotTable *t, uint32_t address_space, uint32_t slot_id);
