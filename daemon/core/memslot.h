/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The memslot ioctls as KVM reads them: the number of the ioctl and the bytes behind its argument become a SlotSpec.
 *
 *   KVM_SET_USER_MEMORY_REGION   0x4020ae46, 32 bytes
 *   KVM_SET_USER_MEMORY_REGION2  0x40a0ae49, 160 bytes: the same, and at 32 the offset (8 bytes) and at 40 the fd (4)
 *                                of a guest_memfd
 *
 * "KVM: mm: fd-based approach for supporting KVM guest private memory", v5, which no released kernel has, went another
 * way. There the first ioctl takes 64 bytes if bit 2 of the flags is set, with the offset and the fd in the same places
 * as above, and the second ioctl does not exist.
 *
 * Nothing is judged here but what KVM refuses before it looks at the numbers. Bytes without a meaning are not looked
 * at, nor does KVM. All numbers are in the byte order of the machine, and need no alignment. */

#include <stddef.h>
#include <stdint.h>

#include "core/slot.h"

#define MEMSLOT_SET_REGION  UINT32_C(0x4020ae46)
#define MEMSLOT_SET_REGION2 UINT32_C(0x40a0ae49)

#define MEMSLOT_REGION_BYTES     32U
#define MEMSLOT_REGION_EXT_BYTES 64U
#define MEMSLOT_REGION2_BYTES    160U
/* No form has more. */
#define MEMSLOT_BYTES_MAX        MEMSLOT_REGION2_BYTES

/* Which kernel reads the bytes. */
typedef enum MemslotDialect {
        MEMSLOT_UPSTREAM, /* Linux 6.8 */
        MEMSLOT_V5,       /* a kernel with that series */
} MemslotDialect;

enum {
        MEMSLOT_E_OTHER = 1, /* another ioctl */
        MEMSLOT_E_SHORT,     /* KVM reads more bytes than there are: EFAULT */
        MEMSLOT_E_FLAGS,     /* a flag that the form of the ioctl does not know: EINVAL, RULE_FLAGS */
};

typedef struct Memslot {
        SlotSpec spec;   /* backing and guest_memfd are NULL: their owner knows which these are */
        int guest_memfd; /* the VMM's number of it; -1 without SLOT_GUEST_MEMFD */
} Memslot;

/* command: the ioctl's second argument, of which the kernel takes the low 32 bits.
 * bytes: n of them can be read. */
int memslot_decode(MemslotDialect dialect, uint64_t command, const void *bytes, size_t n, Memslot *ret);

/* How many bytes KVM reads at least: 32, 160, or 0 for another ioctl. A v5 kernel reads 64 where the flags among the
 * 32 say so. */
size_t memslot_bytes(MemslotDialect dialect, uint64_t command);
