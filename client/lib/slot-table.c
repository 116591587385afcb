/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "slot-table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void slot_table_done(SlotTable *t) {
        for (size_t i = 0; i < SLOT_TABLE_SPACES; i++) {
                for (size_t j = 0; j < t->n_slots[i]; j++)
                        free(t->slots[i][j]);
                free(t->slots[i]);
        }
        *t = (SlotTable) {};
}

const char *slot_table_get(const SlotTable *t, uint32_t address_space, uint32_t slot_id) {
        if (address_space >= SLOT_TABLE_SPACES || slot_id >= t->n_slots[address_space])
                return NULL;
        return t->slots[address_space][slot_id];
}

static int grow(SlotTable *t, uint32_t address_space, size_t least) {
        size_t n = t->n_slots[address_space] * 2;
        char **slots;

        if (n < 64)
                n = 64;
        if (n < least)
                n = least;
        slots = realloc(t->slots[address_space], n * sizeof(char *));
        if (!slots)
                return -ENOMEM;

        memset(slots + t->n_slots[address_space], 0, (n - t->n_slots[address_space]) * sizeof(char *));
        t->slots[address_space] = slots;
        t->n_slots[address_space] = n;
        return 0;
}

int slot_table_put(SlotTable *t, uint32_t address_space, uint32_t slot_id, const char *slot) {
        char *copy;

        if (!t->loaded || address_space >= SLOT_TABLE_SPACES || slot_id >= SLOT_TABLE_IDS)
                return 0;

        if (slot_id >= t->n_slots[address_space] && grow(t, address_space, (size_t) slot_id + 1) < 0)
                return -ENOMEM;

        copy = strdup(slot);
        if (!copy)
                return -ENOMEM;

        free(t->slots[address_space][slot_id]);
        t->slots[address_space][slot_id] = copy;
        return 0;
}

void slot_table_remove(SlotTable *t, uint32_t address_space, uint32_t slot_id) {
        if (!slot_table_get(t, address_space, slot_id))
                return;

        free(t->slots[address_space][slot_id]);
        t->slots[address_space][slot_id] = NULL;
}
