/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Sources, as of Linux 7.3: Documentation/virt/kvm/api.rst, KVM_SET_USER_MEMORY_REGION ("it is recommended that the
 * lower 21 bits of guest_phys_addr and userspace_addr be identical"), kvm_alloc_memslot_metadata() and
 * kvm_mmu_hugepage_adjust() on x86. */

#include "core/advice.h"

uint64_t advice_effective_page_size(const Backing *backing, const AdviceFacts *facts) {
        if (backing->kind != BACKING_MEMFD || facts->memfd_page_size > backing->size)
                return backing->page_size;
        return facts->memfd_page_size > backing->page_size ? facts->memfd_page_size : backing->page_size;
}

static bool is_large(const SlotSpec *spec) {
        return spec->size >= ADVICE_HUGE_PAGE && spec->backing && spec->backing->kind != BACKING_GUEST_MEMFD &&
               spec->backing->size >= ADVICE_HUGE_PAGE;
}

static uint64_t low_bits(uint64_t value) {
        return value & (ADVICE_HUGE_PAGE - 1);
}

size_t advice_on_slot(const SlotSpec *spec, const AdviceFacts *facts, Advice ret[static _ADVICE_KIND_MAX]) {
        uint64_t effective;
        size_t n = 0;

        if (!is_large(spec))
                return 0;

        effective = advice_effective_page_size(spec->backing, facts);
        if (low_bits(spec->gpa ^ spec->hva) != 0 || low_bits(spec->hva ^ spec->offset) != 0)
                ret[n++] = (Advice) {
                        .kind = ADVICE_HUGE_PAGES_MISALIGNED,
                        .page_size = facts->page_size,
                        .possible_page_size = ADVICE_HUGE_PAGE,
                        .gpa = low_bits(spec->gpa),
                        .hva = low_bits(spec->hva),
                        .offset = low_bits(spec->offset),
                };
        if (effective < ADVICE_HUGE_PAGE)
                ret[n++] = (Advice) {
                        .kind = ADVICE_SMALL_PAGES,
                        .page_size = effective,
                        .possible_page_size = ADVICE_HUGE_PAGE,
                };
        if ((spec->flags & SLOT_LOG_DIRTY_PAGES) && effective > facts->page_size)
                ret[n++] = (Advice) {
                        .kind = ADVICE_FLAGS_LIMIT_BACKING,
                        .page_size = facts->page_size,
                        .possible_page_size = effective,
                };

        return n;
}
