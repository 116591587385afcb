/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/memslot.h"

#include <string.h>

enum {
        SLOT_AT = 0,
        FLAGS_AT = 4,
        GUEST_PHYS_ADDR_AT = 8,
        MEMORY_SIZE_AT = 16,
        USERSPACE_ADDR_AT = 24,
        GUEST_MEMFD_OFFSET_AT = 32, /* private_offset in v5 */
        GUEST_MEMFD_AT = 40,        /* private_fd in v5 */
};

static uint32_t read_u32(const unsigned char *bytes) {
        uint32_t value;

        memcpy(&value, bytes, sizeof(value));
        return value;
}

static uint64_t read_u64(const unsigned char *bytes) {
        uint64_t value;

        memcpy(&value, bytes, sizeof(value));
        return value;
}

size_t memslot_bytes(MemslotDialect dialect, uint64_t command) {
        switch ((uint32_t) command) {
        case MEMSLOT_SET_REGION:
                return MEMSLOT_REGION_BYTES;
        case MEMSLOT_SET_REGION2:
                return dialect == MEMSLOT_UPSTREAM ? MEMSLOT_REGION2_BYTES : 0;
        default:
                return 0;
        }
}

static void decode_region(const unsigned char *bytes, SlotSpec *ret) {
        uint32_t slot = read_u32(bytes + SLOT_AT);

        *ret = (SlotSpec) {
                .id = slot & 0xffff,
                .as_id = slot >> 16,
                .flags = read_u32(bytes + FLAGS_AT),
                .gpa = read_u64(bytes + GUEST_PHYS_ADDR_AT),
                .size = read_u64(bytes + MEMORY_SIZE_AT),
                .hva = read_u64(bytes + USERSPACE_ADDR_AT),
        };
}

int memslot_decode(MemslotDialect dialect, uint64_t command, const void *bytes, size_t n, Memslot *ret) {
        size_t needed = memslot_bytes(dialect, command);
        Memslot memslot = { .guest_memfd = -1 };

        if (needed == 0)
                return MEMSLOT_E_OTHER;
        if (n < needed)
                return MEMSLOT_E_SHORT;

        decode_region(bytes, &memslot.spec);
        if (dialect == MEMSLOT_UPSTREAM && needed == MEMSLOT_REGION_BYTES) {
                if (memslot.spec.flags & ~(SLOT_LOG_DIRTY_PAGES | SLOT_READONLY))
                        return MEMSLOT_E_FLAGS;
        } else if (memslot.spec.flags & SLOT_GUEST_MEMFD) {
                if (dialect == MEMSLOT_V5 && n < MEMSLOT_REGION_EXT_BYTES)
                        return MEMSLOT_E_SHORT;
                memslot.spec.guest_memfd_offset = read_u64((const unsigned char *) bytes + GUEST_MEMFD_OFFSET_AT);
                memslot.guest_memfd = (int) read_u32((const unsigned char *) bytes + GUEST_MEMFD_AT);
        }

        *ret = memslot;
        return 0;
}
