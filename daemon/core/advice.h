/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What would serve a guest better, of what is allowed: said beside a verdict, never a reason to refuse. It is about
 * the size of the pages that the guest gets, since nothing else of a slot costs it so much.
 *
 * Advice is given on slots of at least 2 MiB that show a backing of at least 2 MiB, which is not a guest_memfd: that
 * has ordinary pages, whatever anybody does (kvm_gmem_get_folio(), up to Linux 7.3). */

#include <stdbool.h>
#include <stddef.h>

#include "core/slot.h"

/* What one entry of the second level of page tables maps, with ordinary pages of 4 KiB. */
#define ADVICE_HUGE_PAGE (UINT64_C(2) << 20)

/* The order is that of the enum AdviceKind on the wire. */
typedef enum AdviceKind {
        ADVICE_HUGE_PAGES_MISALIGNED, /* the low 21 bits of guest address, user address and offset differ */
        ADVICE_SMALL_PAGES,           /* the kernel gives memfds ordinary pages only */
        ADVICE_FLAGS_LIMIT_BACKING,   /* KVM logs dirty pages by ordinary pages, and the backing has larger ones */
        _ADVICE_KIND_MAX,
} AdviceKind;

/* What the host does, of which the slot says nothing. */
typedef struct AdviceFacts {
        uint64_t page_size;       /* bytes of an ordinary page */
        uint64_t memfd_page_size; /* bytes of the largest page that the kernel may use for a memfd */
} AdviceFacts;

typedef struct Advice {
        AdviceKind kind;
        uint64_t page_size;          /* bytes of the largest page that the guest gets */
        uint64_t possible_page_size; /* and of that which it could get */
        uint64_t gpa, hva, offset;   /* ADVICE_HUGE_PAGES_MISALIGNED: their low 21 bits */
} Advice;

/* The largest page that the kernel may use for the backing. It uses smaller ones where it has no large one to give. */
uint64_t advice_effective_page_size(const Backing *backing, const AdviceFacts *facts);

/* Fills in what is true of the slot, in the order of the enum, and returns how many that are. A slot that is to be
 * deleted gets none. */
size_t advice_on_slot(const SlotSpec *spec, const AdviceFacts *facts, Advice ret[static _ADVICE_KIND_MAX]);
