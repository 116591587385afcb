/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* core/memslot.c, for every ioctl number, every length and all bytes, and for either kernel: it reads nothing behind
 * the bytes that there are, refuses what it must, and takes from them what the kernel's own structs have there. What
 * it refuses leaves the result as it was. */

#include <linux/kvm.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/memslot.h"
#include "prove.h"

/* Of the series that no released kernel has. */
struct region_ext {
        struct kvm_userspace_memory_region region;
        __u64 private_offset;
        __u32 private_fd;
        __u32 padding[5];
};

_Static_assert(KVM_SET_USER_MEMORY_REGION == MEMSLOT_SET_REGION, "the ioctl is the kernel's");
_Static_assert(KVM_SET_USER_MEMORY_REGION2 == MEMSLOT_SET_REGION2, "the ioctl is the kernel's");
_Static_assert(sizeof(struct kvm_userspace_memory_region) == MEMSLOT_REGION_BYTES, "the size is the kernel's");
_Static_assert(sizeof(struct kvm_userspace_memory_region2) == MEMSLOT_REGION2_BYTES, "the size is the kernel's");
_Static_assert(sizeof(struct region_ext) == MEMSLOT_REGION_EXT_BYTES, "the size is that of the series");
_Static_assert(KVM_MEM_READONLY == SLOT_READONLY && KVM_MEM_GUEST_MEMFD == SLOT_GUEST_MEMFD &&
                       KVM_MEM_LOG_DIRTY_PAGES == SLOT_LOG_DIRTY_PAGES,
               "the flags are the kernel's");

/* More than any form has; CBMC knows no objects as large as the numbers of 64 bits. */
#define BYTES_MAX (UINT64_C(1) << 40)

static MemslotDialect dialect;
static uint32_t command;
static const unsigned char *bytes;
static size_t n;
static Memslot memslot;
static int answer;

static bool is_region(void) {
        return command == KVM_SET_USER_MEMORY_REGION;
}

static bool is_region2(void) {
        return dialect == MEMSLOT_UPSTREAM && command == KVM_SET_USER_MEMORY_REGION2;
}

/* What KVM takes from the caller before it looks at any number. */
static size_t read_at_least(void) {
        if (is_region())
                return sizeof(struct kvm_userspace_memory_region);
        return is_region2() ? sizeof(struct kvm_userspace_memory_region2) : 0;
}

static void decode_anything(void) {
        uint64_t argument = nondet_u64();

        n = nondet_size();
        __CPROVER_assume(n <= BYTES_MAX);
        bytes = malloc(n);
        __CPROVER_assume(bytes);
        dialect = nondet_bool() ? MEMSLOT_V5 : MEMSLOT_UPSTREAM;
        command = (uint32_t) argument;

        memslot = (Memslot) { .guest_memfd = 77, .spec.gpa = 78 };
        assert(memslot_bytes(dialect, argument) == read_at_least());
        answer = memslot_decode(dialect, argument, bytes, n, &memslot);
}

static void check_region(const struct kvm_userspace_memory_region *region) {
        const SlotSpec *spec = &memslot.spec;

        assert(spec->id == (region->slot & 0xffff) && spec->as_id == region->slot >> 16);
        assert(spec->flags == region->flags);
        assert(spec->gpa == region->guest_phys_addr);
        assert(spec->size == region->memory_size);
        assert(spec->hva == region->userspace_addr);
        assert(!spec->backing && !spec->guest_memfd && !spec->mapping && spec->offset == 0);
}

static void check_guest_memfd(bool has_one, uint64_t offset, uint32_t fd) {
        assert(memslot.spec.guest_memfd_offset == (has_one ? offset : 0));
        assert(memslot.guest_memfd == (has_one ? (int) fd : -1));
}

static void check_upstream(uint32_t flags) {
        struct kvm_userspace_memory_region region;
        struct kvm_userspace_memory_region2 region2;

        if (is_region()) {
                bool knows_flags = (flags & ~(uint32_t) (KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)) == 0;

                assert(answer == (knows_flags ? 0 : MEMSLOT_E_FLAGS));
                reach(answer == MEMSLOT_E_FLAGS);
                if (answer != 0)
                        return;
                memcpy(&region, bytes, sizeof(region));
                check_region(&region);
                check_guest_memfd(false, 0, 0);
                reach(true);
                return;
        }

        assert(answer == 0);
        memcpy(&region2, bytes, sizeof(region2));
        memcpy(&region, bytes, sizeof(region));
        assert(region.slot == region2.slot && region.flags == region2.flags);
        check_region(&region);
        check_guest_memfd(flags & KVM_MEM_GUEST_MEMFD, region2.guest_memfd_offset, region2.guest_memfd);
        reach(memslot.guest_memfd == 5 && memslot.spec.guest_memfd_offset > 0);
        reach(memslot.guest_memfd == -1 && !(flags & KVM_MEM_GUEST_MEMFD));
}

static void check_v5(uint32_t flags) {
        struct region_ext ext = {};

        if ((flags & KVM_MEM_GUEST_MEMFD) && n < sizeof(ext)) {
                assert(answer == MEMSLOT_E_SHORT);
                reach(n == sizeof(ext) - 1);
                return;
        }

        assert(answer == 0);
        if (flags & KVM_MEM_GUEST_MEMFD)
                memcpy(&ext, bytes, sizeof(ext));
        else
                memcpy(&ext.region, bytes, sizeof(ext.region));
        check_region(&ext.region);
        check_guest_memfd(flags & KVM_MEM_GUEST_MEMFD, ext.private_offset, ext.private_fd);
        reach(memslot.guest_memfd == 5 && n == sizeof(ext));
        reach(n == sizeof(ext.region));
}

int main(void) {
        uint32_t flags;

        decode_anything();
        if (read_at_least() == 0)
                assert(answer == MEMSLOT_E_OTHER);
        else if (n < read_at_least())
                assert(answer == MEMSLOT_E_SHORT);
        else {
                memcpy(&flags, bytes + offsetof(struct kvm_userspace_memory_region, flags), sizeof(flags));
                if (dialect == MEMSLOT_UPSTREAM)
                        check_upstream(flags);
                else
                        check_v5(flags);
        }

        assert(answer >= 0);
        assert(answer == 0 || (memslot.guest_memfd == 77 && memslot.spec.gpa == 78));
        reach(answer == MEMSLOT_E_OTHER && command == KVM_SET_USER_MEMORY_REGION2);
        reach(answer == MEMSLOT_E_SHORT && n == sizeof(struct kvm_userspace_memory_region2) - 1);
        return 0;
}
