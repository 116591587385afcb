/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Pointers by a small number. Memory is taken for the numbers that are in use, in pages, and kept until the end: what
 * has been set once can be set again without any. */

#include <stdint.h>

#define ID_MAP_PAGE_ENTRIES 128U
#define ID_MAP_PAGES        256U

/* All zero is the empty map. */
typedef struct IdMap {
        void ***pages; /* NULL, or ID_MAP_PAGES, of which each is NULL or has ID_MAP_PAGE_ENTRIES */
} IdMap;

/* id < ID_MAP_PAGE_ENTRIES * ID_MAP_PAGES. NULL takes it out. -ENOMEM: nothing changed. */
int id_map_set(IdMap *map, uint32_t id, void *value);
/* Of any number, or NULL. */
void *id_map_get(const IdMap *map, uint32_t id);
/* That of the lowest number at or above id, or NULL. */
void *id_map_next(const IdMap *map, uint32_t id);
void id_map_done(IdMap *map);
