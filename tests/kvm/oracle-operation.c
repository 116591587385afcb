/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Most operations are ordinary, so that tables fill and what they hold is met again; every field has its hostile
 * values, on both sides of the limits of the KVM that runs. Half of the operations take an earlier one and change
 * a field of it: set again, moved, toggled, deleted. */

#include <inttypes.h>
#include <string.h>

#include "oracle.h"

#define P ORACLE_PAGE

#define PICK(random, array) ((array)[below((random), sizeof(array) / sizeof((array)[0]))])

const uint64_t oracle_guest_memfd_sizes[ORACLE_GUEST_MEMFDS] = { 16 * P, P, INT64_MAX - (P - 1) };

static uint64_t next_random(uint64_t *random) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        return *random;
}

static uint64_t below(uint64_t *random, uint64_t n) {
        return (next_random(random) >> 16) % n;
}

/* True n times in 1000. */
static bool permille(uint64_t *random, unsigned n) {
        return below(random, 1000) < n;
}

/* A few bytes or pages beside a limit. */
static uint64_t near(uint64_t *random, uint64_t limit) {
        static const int64_t steps[] = { 0, 0, -4096, -4096, -8192, -16384, 4096, 8192, -1, 1, 512 };

        return limit + (uint64_t) PICK(random, steps);
}

/* ---- fields ---- */

static uint32_t make_slot(uint64_t *random, const KVMRules *kvm) {
        static const uint32_t spaces[] = { 1, 1, 1, 2, 3, 0x7fff, 0x8000, 0xffff };
        uint32_t id = (uint32_t) below(random, 6), as_id = 0;

        if (permille(random, 25))
                id = (kvm->slots_per_address_space + (uint32_t) below(random, 4) - 2) & 0xffff;
        else if (permille(random, 5))
                id = (uint32_t) below(random, 65536);
        if (permille(random, kvm->address_spaces > 1 ? 200 : 30))
                as_id = PICK(random, spaces);
        return as_id << 16 | id;
}

static uint32_t make_flags(uint64_t *random) {
        static const uint32_t good[] = { 0, 0, 0, 1, 2, 3, 4, 4, 4 };

        if (permille(random, 970))
                return PICK(random, good);
        return permille(random, 500) ? (uint32_t) below(random, 16) : UINT32_C(1) << below(random, 32);
}

static uint64_t make_size(uint64_t *random) {
        static const uint64_t limits[] = {
                0, 1, SLOT_PAGES_MAX * P, UINT64_C(1) << 32, UINT64_C(1) << 47, UINT64_C(1) << 63, UINT64_MAX
        };

        if (permille(random, 25))
                return near(random, PICK(random, limits));
        return permille(random, 150) ? 0 : (1 + below(random, 6)) * P;
}

static uint64_t make_gpa(uint64_t *random, const KVMRules *kvm, uint64_t size) {
        const uint64_t limits[] = { 0,
                                    kvm->max_gpa,
                                    kvm->max_gpa - size,
                                    UINT64_C(0xfeda0000),
                                    UINT64_C(1) << 46,
                                    UINT64_C(1) << 52,
                                    UINT64_C(1) << 63,
                                    UINT64_MAX,
                                    -size };

        return permille(random, 60) ? near(random, PICK(random, limits)) : below(random, 24) * P;
}

static uint64_t make_hva(uint64_t *random, const KVMRules *kvm, uint64_t size) {
        const uint64_t limits[] = { 0,
                                    kvm->user_end,
                                    kvm->user_end - size,
                                    UINT64_C(1) << 47,
                                    UINT64_C(1) << 56,
                                    UINT64_C(1) << 57,
                                    UINT64_C(1) << 63,
                                    UINT64_MAX,
                                    -size };

        if (permille(random, 40))
                return near(random, PICK(random, limits));
        return ORACLE_AREA + below(random, ORACLE_AREA_PAGES - 6) * P;
}

static uint64_t make_fd_offset(uint64_t *random, OracleFD fd, uint64_t size) {
        uint64_t file = fd < FD_DUPLICATE ? oracle_guest_memfd_sizes[fd] : oracle_guest_memfd_sizes[0];
        const uint64_t limits[] = {
                0,          file, file - size, INT64_MAX, (uint64_t) INT64_MAX + 1 - size, INT64_MAX - (P - 1),
                UINT64_MAX, -size
        };

        return permille(random, 150) ? near(random, PICK(random, limits)) : below(random, 14) * P;
}

static void make_private_side(uint64_t *random, Operation *ret) {
        ret->fd = permille(random, 700) ? FD_GUEST_MEMFD : (OracleFD) below(random, _ORACLE_FD_MAX);
        ret->fd_offset = make_fd_offset(random, ret->fd, ret->size);
}

/* Mostly what is there indeed. */
static void make_declaration(uint64_t *random, Operation *ret) {
        ret->declared = permille(random, 500) ? DECLARED_NOTHING : DECLARED_RAM;
        ret->offset = ret->hva - ORACLE_AREA;
        if (permille(random, 150))
                ret->declared = (OracleDeclared) below(random, _ORACLE_DECLARED_MAX);
        if (ret->declared == DECLARED_GUEST_MEMFD)
                ret->offset = permille(random, 500) ? ret->fd_offset : below(random, 14) * P;
        if (permille(random, 50))
                ret->offset = near(random, below(random, ORACLE_AREA_PAGES + 1) * P);
}

/* ---- operations ---- */

static void make_operation(uint64_t *random, const KVMRules *kvm, Operation *ret) {
        uint64_t size = make_size(random);

        *ret = (Operation) {
                .vm = (unsigned) permille(random, 300),
                .old_ioctl = permille(random, 300),
                .padding = (unsigned char) next_random(random),
                .slot = make_slot(random, kvm),
                .flags = make_flags(random),
                .gpa = make_gpa(random, kvm, size),
                .size = size,
                .hva = make_hva(random, kvm, size),
        };
        make_private_side(random, ret);
        make_declaration(random, ret);
}

static void change_operation(uint64_t *random, const KVMRules *kvm, Operation *o) {
        switch (below(random, 12)) {
        case 0:
                break; /* the same again */
        case 1:
        case 2:
                o->size = 0;
                break;
        case 3:
        case 4:
                o->gpa = make_gpa(random, kvm, o->size);
                break;
        case 5:
                o->flags ^= SLOT_LOG_DIRTY_PAGES;
                break;
        case 6:
                o->flags = make_flags(random);
                break;
        case 7:
                o->size = make_size(random);
                break;
        case 8:
                o->hva = make_hva(random, kvm, o->size);
                make_declaration(random, o);
                break;
        case 9:
                o->slot = make_slot(random, kvm);
                break;
        case 10:
                make_private_side(random, o);
                o->slot = make_slot(random, kvm);
                o->gpa = make_gpa(random, kvm, o->size);
                break;
        case 11:
                make_declaration(random, o);
                break;
        }
}

size_t operations_make(uint64_t seed, const KVMRules *kvm, Operation *ret) {
        uint64_t random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        size_t n;

        for (int i = 0; i < 4; i++)
                (void) next_random(&random);
        n = 8 + below(&random, ORACLE_LENGTH_MAX - 7);
        for (size_t i = 0; i < n; i++) {
                if (i > 0 && permille(&random, 500)) {
                        ret[i] = ret[below(&random, i)];
                        change_operation(&random, kvm, &ret[i]);
                } else {
                        make_operation(&random, kvm, &ret[i]);
                }
                ret[i].high = permille(&random, 100) ? (uint32_t) next_random(&random) : 0;
                ret[i].unreadable = permille(&random, 5);
        }

        return n;
}

/* ---- printing ---- */

static void print_hva(FILE *f, uint64_t hva) {
        if (hva >= ORACLE_AREA && hva < ORACLE_AREA + ORACLE_AREA_PAGES * P)
                fprintf(f, "area+%#" PRIx64, hva - ORACLE_AREA);
        else
                fprintf(f, "%#" PRIx64, hva);
}

static void print_flags(FILE *f, uint32_t flags) {
        static const char *const words[] = { "log_dirty_pages", "readonly", "guest_memfd" };
        uint32_t unknown = flags >> 3 << 3;
        const char *before = ", ";

        for (size_t i = 0; i < 3; i++)
                if (flags & UINT32_C(1) << i) {
                        fprintf(f, "%s%s", before, words[i]);
                        before = "|";
                }
        if (unknown)
                fprintf(f, "%s%#" PRIx32, before, unknown);
}

static const char *const fd_words[_ORACLE_FD_MAX] = {
        [FD_GUEST_MEMFD] = "its guest_memfd of 16 pages",
        [FD_GUEST_MEMFD + 1] = "its guest_memfd of one page",
        [FD_GUEST_MEMFD + 2] = "its guest_memfd of 2^63-4096 bytes",
        [FD_DUPLICATE] = "a duplicate of its guest_memfd of 16 pages",
        [FD_OTHER_VM] = "the other VM's guest_memfd of 16 pages",
        [FD_MINUS_ONE] = "fd -1",
        [FD_CLOSED] = "a closed fd",
        [FD_MEMFD] = "a memfd",
        [FD_NULL_DEVICE] = "/dev/null",
        [FD_VM] = "its VM's fd",
};

static const char *const declared_words[_ORACLE_DECLARED_MAX] = {
        [DECLARED_RAM] = "its ram",
        [DECLARED_RAM_OF_OTHER] = "the other VM's ram",
        [DECLARED_GUEST_MEMFD] = "its guest_memfd of 16 pages",
};

void operation_print(FILE *f, const Operation *o) {
        fprintf(f, "VM %u, slot %" PRIu32 " of address space %" PRIu32 ": ", o->vm, o->slot & 0xffff, o->slot >> 16);
        if (o->size == 0)
                fprintf(f, "delete (guest %#" PRIx64 ", hva ", o->gpa);
        else
                fprintf(f, "guest %#" PRIx64 "+%#" PRIx64 " (hva ", o->gpa, o->size);
        print_hva(f, o->hva);
        print_flags(f, o->flags);
        fprintf(f, ")");
        if (o->flags & SLOT_GUEST_MEMFD)
                fprintf(f, ", %s at %#" PRIx64, fd_words[o->fd], o->fd_offset);
        if (o->declared != DECLARED_NOTHING)
                fprintf(f, ", declared as %s at %#" PRIx64, declared_words[o->declared], o->offset);
        if (o->high != 0)
                fprintf(f, "; high half of the ioctl's number %#" PRIx32, o->high);
        fprintf(f, "; %s%s\n", o->old_ioctl ? "KVM_SET_USER_MEMORY_REGION" : "KVM_SET_USER_MEMORY_REGION2",
                o->unreadable ? ", last byte not readable" : "");
}
