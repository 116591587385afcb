/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/id-map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int id_map_set(IdMap *map, uint32_t id, void *value) {
        void ***page;

        assert(id / ID_MAP_PAGE_ENTRIES < ID_MAP_PAGES);

        if (!map->pages) {
                map->pages = calloc(ID_MAP_PAGES, sizeof(void **));
                if (!map->pages)
                        return -ENOMEM;
        }
        page = &map->pages[id / ID_MAP_PAGE_ENTRIES];
        if (!*page) {
                *page = calloc(ID_MAP_PAGE_ENTRIES, sizeof(void *));
                if (!*page)
                        return -ENOMEM;
        }

        (*page)[id % ID_MAP_PAGE_ENTRIES] = value;
        return 0;
}

static void **page_of(const IdMap *map, uint32_t id) {
        return map->pages && id / ID_MAP_PAGE_ENTRIES < ID_MAP_PAGES ? map->pages[id / ID_MAP_PAGE_ENTRIES] : NULL;
}

void *id_map_get(const IdMap *map, uint32_t id) {
        void **page = page_of(map, id);

        return page ? page[id % ID_MAP_PAGE_ENTRIES] : NULL;
}

void *id_map_next(const IdMap *map, uint32_t id) {
        for (; id / ID_MAP_PAGE_ENTRIES < ID_MAP_PAGES; id = (id / ID_MAP_PAGE_ENTRIES + 1) * ID_MAP_PAGE_ENTRIES) {
                void **page = page_of(map, id);

                for (uint32_t at = id % ID_MAP_PAGE_ENTRIES; page && at < ID_MAP_PAGE_ENTRIES; at++)
                        if (page[at])
                                return page[at];
        }

        return NULL;
}

void id_map_done(IdMap *map) {
        for (uint32_t i = 0; map->pages && i < ID_MAP_PAGES; i++)
                free(map->pages[i]);
        free(map->pages);
        *map = (IdMap) {};
}
