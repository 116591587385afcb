/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The decoder of both memslot ioctls, and of the form that never was: from bytes, and from what libprivmem makes. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <privmem.h>

#include "core/memslot.h"

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

/* Slot 7 of address space 1, LOG_DIRTY_PAGES and READONLY, then four addresses whose bytes are all different. */
#define REGION_WITH(flags) \
        0x07, 0x00, 0x01, 0x00, (flags), 0x00, 0x00, 0x00,      /* slot, flags */ \
                0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, /* guest_phys_addr */ \
                0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, /* memory_size */ \
                0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38  /* userspace_addr */
#define REST \
        0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, /* guest_memfd_offset */ \
                0x05, 0x00, 0x00, 0x00                  /* guest_memfd */

static void assert_numbers(const SlotSpec *spec, uint32_t flags) {
        assert_int_equal(spec->id, 7);
        assert_int_equal(spec->as_id, 1);
        assert_int_equal(spec->flags, flags);
        assert_int_equal(spec->gpa, 0x1817161514131211);
        assert_int_equal(spec->size, 0x2827262524232221);
        assert_int_equal(spec->hva, 0x3837363534333231);
        assert_null(spec->backing);
        assert_null(spec->guest_memfd);
}

static void region(void **state) {
        static const unsigned char bytes[] = { REGION_WITH(3) };
        Memslot memslot;

        (void) state;
        assert_int_equal(sizeof(bytes), 32);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x4020ae46, bytes, 32, &memslot), 0);
        assert_numbers(&memslot.spec, SLOT_LOG_DIRTY_PAGES | SLOT_READONLY);
        assert_int_equal(memslot.guest_memfd, -1);
}

static void region_from_any_address(void **state) {
        unsigned char bytes[] = { 0xff, REGION_WITH(3) };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x4020ae46, bytes + 1, 32, &memslot), 0);
        assert_numbers(&memslot.spec, SLOT_LOG_DIRTY_PAGES | SLOT_READONLY);
}

static void region2(void **state) {
        static const unsigned char bytes[160] = { REGION_WITH(4), REST };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x40a0ae49, bytes, 160, &memslot), 0);
        assert_numbers(&memslot.spec, SLOT_GUEST_MEMFD);
        assert_int_equal(memslot.spec.guest_memfd_offset, 0x4847464544434241);
        assert_int_equal(memslot.guest_memfd, 5);
}

static void region2_with_a_negative_fd(void **state) {
        unsigned char bytes[160] = { REGION_WITH(4), REST };
        Memslot memslot;

        (void) state;
        memset(bytes + 40, 0xff, 4);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x40a0ae49, bytes, 160, &memslot), 0);
        assert_int_equal(memslot.guest_memfd, -1);
        bytes[40] = 0xfe;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x40a0ae49, bytes, 160, &memslot), 0);
        assert_int_equal(memslot.guest_memfd, -2);
}

static void region2_without_a_guest_memfd(void **state) {
        static const unsigned char bytes[160] = { REGION_WITH(1), REST };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x40a0ae49, bytes, 160, &memslot), 0);
        assert_numbers(&memslot.spec, SLOT_LOG_DIRTY_PAGES);
        assert_int_equal(memslot.spec.guest_memfd_offset, 0);
        assert_int_equal(memslot.guest_memfd, -1);
}

static void padding_is_ignored(void **state) {
        unsigned char bytes[160] = { REGION_WITH(4), REST };
        Memslot without, with;

        (void) state;
        memset(&without, 0, sizeof(without));
        memset(&with, 0, sizeof(with));
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x40a0ae49, bytes, 160, &without), 0);
        memset(bytes + 44, 0xff, 160 - 44);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x40a0ae49, bytes, 160, &with), 0);
        assert_memory_equal(&without.spec, &with.spec, sizeof(SlotSpec));
        assert_int_equal(without.guest_memfd, with.guest_memfd);
}

static void ext(void **state) {
        static const unsigned char bytes[64] = { REGION_WITH(4), REST };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_V5, 0x4020ae46, bytes, 64, &memslot), 0);
        assert_numbers(&memslot.spec, SLOT_GUEST_MEMFD);
        assert_int_equal(memslot.spec.guest_memfd_offset, 0x4847464544434241);
        assert_int_equal(memslot.guest_memfd, 5);
}

static void ext_without_private_memory_is_a_region(void **state) {
        static const unsigned char bytes[] = { REGION_WITH(3) };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_V5, 0x4020ae46, bytes, 32, &memslot), 0);
        assert_numbers(&memslot.spec, SLOT_LOG_DIRTY_PAGES | SLOT_READONLY);
        assert_int_equal(memslot.guest_memfd, -1);
}

#endif

static void guest_memfd_in_the_old_ioctl(void **state) {
        uint32_t words[16] = { 0, SLOT_GUEST_MEMFD };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x4020ae46, words, 64, &memslot), MEMSLOT_E_FLAGS);
        words[1] = UINT32_C(1) << 31;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x4020ae46, words, 64, &memslot), MEMSLOT_E_FLAGS);
        /* That series leaves unknown ones to the rules. */
        assert_int_equal(memslot_decode(MEMSLOT_V5, 0x4020ae46, words, 64, &memslot), 0);
        assert_int_equal(memslot.spec.flags, UINT32_C(1) << 31);
}

static void unknown_flag_in_the_new_ioctl(void **state) {
        uint32_t words[40] = { 0, UINT32_C(1) << 31 };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x40a0ae49, words, 160, &memslot), 0);
        assert_int_equal(memslot.spec.flags, UINT32_C(1) << 31);
}

static void too_few_bytes(void **state) {
        uint32_t words[40] = { 0, SLOT_GUEST_MEMFD };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x4020ae46, words, 31, &memslot), MEMSLOT_E_SHORT);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x40a0ae49, words, 159, &memslot), MEMSLOT_E_SHORT);
        assert_int_equal(memslot_decode(MEMSLOT_V5, 0x4020ae46, words, 31, &memslot), MEMSLOT_E_SHORT);
        assert_int_equal(memslot_decode(MEMSLOT_V5, 0x4020ae46, words, 63, &memslot), MEMSLOT_E_SHORT);
        assert_int_equal(memslot_decode(MEMSLOT_V5, 0x4020ae46, words, 64, &memslot), 0);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0x4020ae46, NULL, 0, &memslot), MEMSLOT_E_SHORT);
}

static void high_half_of_the_command_is_ignored(void **state) {
        uint32_t words[40] = { 3 };
        Memslot memslot;

        (void) state;
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, 0xdeadbeef4020ae46, words, 160, &memslot), 0);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, UINT64_C(0xffffffff40a0ae49), words, 160, &memslot), 0);
        assert_int_equal(memslot_bytes(MEMSLOT_UPSTREAM, 0xffffffff4020ae46), 32);
}

static void other_commands(void **state) {
        static const uint32_t others[] = { 0, 0x4020ae47, 0xae46, 0x4040ae46, 0x40a0ae46, 0x4020ae49, 0xc020ae46 };
        uint32_t words[40] = { 0 };
        Memslot memslot;

        (void) state;
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
                assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, others[i], words, 160, &memslot), MEMSLOT_E_OTHER);
        assert_int_equal(memslot_decode(MEMSLOT_V5, 0x40a0ae49, words, 160, &memslot), MEMSLOT_E_OTHER);
        assert_int_equal(memslot_bytes(MEMSLOT_V5, 0x40a0ae49), 0);
}

/* ---- what libprivmem writes ---- */

static const struct privmem_slot written = {
        .slot_id = 32763,
        .address_space = 1,
        .flags = PRIVMEM_SLOT_GUEST_MEMFD,
        .guest_phys_addr = 0x123456789000,
        .memory_size = 0x200000,
        .userspace_addr = 0x7edcba987000,
        .guest_memfd = "gmem",
        .guest_memfd_offset = 0x7000000000000000,
};

static void assert_written(const Memslot *memslot, uint32_t flags) {
        assert_int_equal(memslot->spec.id, 32763);
        assert_int_equal(memslot->spec.as_id, 1);
        assert_int_equal(memslot->spec.flags, flags);
        assert_int_equal(memslot->spec.gpa, 0x123456789000);
        assert_int_equal(memslot->spec.size, 0x200000);
        assert_int_equal(memslot->spec.hva, 0x7edcba987000);
        assert_int_equal(memslot->spec.guest_memfd_offset, flags & SLOT_GUEST_MEMFD ? 0x7000000000000000 : 0);
        assert_int_equal(memslot->guest_memfd, flags & SLOT_GUEST_MEMFD ? 1234567 : -1);
}

static void region_of_libprivmem(void **state) {
        struct privmem_slot slot = written;
        unsigned char bytes[MEMSLOT_REGION_BYTES];
        Memslot memslot;

        (void) state;
        slot.flags = PRIVMEM_SLOT_LOG_DIRTY_PAGES | PRIVMEM_SLOT_READONLY;
        slot.guest_memfd = NULL;
        slot.guest_memfd_offset = 0;
        assert_int_equal(privmem_slot_encode_region(&slot, bytes), 0);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, MEMSLOT_SET_REGION, bytes, sizeof(bytes), &memslot), 0);
        assert_written(&memslot, SLOT_LOG_DIRTY_PAGES | SLOT_READONLY);
        assert_int_equal(memslot_decode(MEMSLOT_V5, MEMSLOT_SET_REGION, bytes, sizeof(bytes), &memslot), 0);
        assert_written(&memslot, SLOT_LOG_DIRTY_PAGES | SLOT_READONLY);
}

static void region2_of_libprivmem(void **state) {
        unsigned char bytes[MEMSLOT_REGION2_BYTES];
        Memslot memslot;

        (void) state;
        assert_int_equal(privmem_slot_encode_region2(&written, 1234567, bytes), 0);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, MEMSLOT_SET_REGION2, bytes, sizeof(bytes), &memslot), 0);
        assert_written(&memslot, SLOT_GUEST_MEMFD);
}

static void ext_of_libprivmem(void **state) {
        unsigned char bytes[MEMSLOT_REGION_EXT_BYTES];
        Memslot memslot;

        (void) state;
        assert_int_equal(privmem_slot_encode_ext(&written, 1234567, bytes), 0);
        assert_int_equal(memslot_decode(MEMSLOT_V5, MEMSLOT_SET_REGION, bytes, sizeof(bytes), &memslot), 0);
        assert_written(&memslot, SLOT_GUEST_MEMFD);
        assert_int_equal(memslot_decode(MEMSLOT_UPSTREAM, MEMSLOT_SET_REGION, bytes, sizeof(bytes), &memslot),
                         MEMSLOT_E_FLAGS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
                cmocka_unit_test(region),
                cmocka_unit_test(region_from_any_address),
                cmocka_unit_test(region2),
                cmocka_unit_test(region2_with_a_negative_fd),
                cmocka_unit_test(region2_without_a_guest_memfd),
                cmocka_unit_test(padding_is_ignored),
                cmocka_unit_test(ext),
                cmocka_unit_test(ext_without_private_memory_is_a_region),
#endif
                cmocka_unit_test(guest_memfd_in_the_old_ioctl),
                cmocka_unit_test(unknown_flag_in_the_new_ioctl),
                cmocka_unit_test(too_few_bytes),
                cmocka_unit_test(high_half_of_the_command_is_ignored),
                cmocka_unit_test(other_commands),
                cmocka_unit_test(region_of_libprivmem),
                cmocka_unit_test(region2_of_libprivmem),
                cmocka_unit_test(ext_of_libprivmem),
        };

        return cmocka_run_group_tests_name("memslot", tests, NULL, NULL);
}
