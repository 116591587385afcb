/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Each piece of advice where it is due, and its nearest neighbour where it is not. */

#include "core-fixture.h"

#include <stdio.h>

#include "core/advice.h"

#define HUGE ADVICE_HUGE_PAGE

static const AdviceFacts small = { .page_size = P, .memfd_page_size = P };
static const AdviceFacts large = { .page_size = P, .memfd_page_size = HUGE };

static Advice advice[_ADVICE_KIND_MAX];

static Backing *make_large(BackingKind kind, uint64_t size, uint64_t page_size) {
        static ino_t next_ino = 1000;
        char name[32];
        Backing *backing;

        snprintf(name, sizeof(name), "large%d", (int) ++next_ino);
        assert_int_equal(backing_new(f.vm,
                                     &(BackingSpec) {
                                             .name = name,
                                             .kind = kind,
                                             .size = size,
                                             .page_size = page_size,
                                             .dev = 1,
                                             .ino = next_ino,
                                     },
                                     &backing),
                         0);
        return backing;
}

static size_t advise(const AdviceFacts *facts, SlotSpec spec) {
        memset(advice, 0xff, sizeof(advice));
        return advice_on_slot(&spec, facts, advice);
}

#define assert_no_advice(facts, ...) assert_int_equal(advise((facts), (SlotSpec) { __VA_ARGS__ }), 0)
#define assert_advice(facts, expected, ...) \
        do { \
                assert_int_equal(advise((facts), (SlotSpec) { __VA_ARGS__ }), 1); \
                assert_int_equal(advice[0].kind, (expected)); \
        } while (0)

static void aligned_slot_gets_none(void **state) {
        Backing *ram = make_large(BACKING_MEMFD, 4 * HUGE, P);

        (void) state;
        assert_no_advice(&large, .size = HUGE, .hva = HVA, .backing = ram);
        /* The same low bits are enough; they need not be 0. */
        assert_no_advice(&large, .gpa = HUGE + 5 * P, .size = HUGE, .hva = HVA + 5 * P, .backing = ram,
                         .offset = 5 * P);
}

static void misaligned_user_address(void **state) {
        Backing *ram = make_large(BACKING_MEMFD, 4 * HUGE, P);

        (void) state;
        assert_advice(&large, ADVICE_HUGE_PAGES_MISALIGNED, .gpa = HUGE, .size = HUGE, .hva = HVA + P, .backing = ram);
        assert_int_equal(advice[0].gpa, 0);
        assert_int_equal(advice[0].hva, P);
        assert_int_equal(advice[0].offset, 0);
        assert_int_equal(advice[0].page_size, P);
        assert_int_equal(advice[0].possible_page_size, HUGE);
}

static void misaligned_guest_address(void **state) {
        Backing *ram = make_large(BACKING_MEMFD, 4 * HUGE, P);

        (void) state;
        assert_advice(&large, ADVICE_HUGE_PAGES_MISALIGNED, .gpa = P, .size = HUGE, .hva = HVA, .backing = ram);
        assert_int_equal(advice[0].gpa, P);
        /* The highest of the bits that matter, and the lowest of those that do not. */
        assert_advice(&large, ADVICE_HUGE_PAGES_MISALIGNED, .gpa = HUGE / 2, .size = HUGE, .hva = HVA, .backing = ram);
        assert_no_advice(&large, .gpa = HUGE, .size = HUGE, .hva = HVA, .backing = ram);
}

static void misaligned_offset(void **state) {
        Backing *ram = make_large(BACKING_MEMFD, 4 * HUGE, P);

        (void) state;
        assert_advice(&large, ADVICE_HUGE_PAGES_MISALIGNED, .size = HUGE, .hva = HVA, .backing = ram, .offset = P);
        assert_int_equal(advice[0].offset, P);
        assert_no_advice(&large, .size = HUGE, .hva = HVA, .backing = ram, .offset = HUGE);
}

static void small_things_get_none(void **state) {
        Backing *ram = make_large(BACKING_MEMFD, 4 * HUGE, P), *little = make_large(BACKING_MEMFD, HUGE - P, P);

        (void) state;
        assert_no_advice(&small, .size = HUGE - P, .hva = HVA + P, .backing = ram);
        assert_no_advice(&small, .size = HUGE - P, .hva = HVA + P, .backing = little);
        assert_no_advice(&small, .size = HUGE, .hva = HVA + P, .backing = little);
        assert_no_advice(&small, .size = 0, .hva = HVA + P, .backing = ram);
}

static void memory_without_backing_gets_none(void **state) {
        (void) state;
        assert_no_advice(&small, .flags = SLOT_LOG_DIRTY_PAGES, .size = HUGE, .hva = HVA + P);
}

static void guest_memfd_gets_none(void **state) {
        Backing *gmem = make_large(BACKING_GUEST_MEMFD, 4 * HUGE, P);

        (void) state;
        assert_no_advice(&large, .flags = SLOT_GUEST_MEMFD, .size = HUGE, .hva = HVA + P, .guest_memfd = gmem);
        assert_no_advice(&small, .flags = SLOT_GUEST_MEMFD, .size = HUGE, .hva = HVA + P, .backing = gmem,
                         .guest_memfd = gmem);
}

static void small_pages_of_a_memfd(void **state) {
        Backing *ram = make_large(BACKING_MEMFD, HUGE, P);

        (void) state;
        assert_advice(&small, ADVICE_SMALL_PAGES, .size = HUGE, .hva = HVA, .backing = ram);
        assert_int_equal(advice[0].page_size, P);
        assert_int_equal(advice[0].possible_page_size, HUGE);
        assert_no_advice(&large, .size = HUGE, .hva = HVA, .backing = ram);
}

static void huge_pages_are_never_small(void **state) {
        Backing *huge = make_large(BACKING_HUGETLB, HUGE, HUGE);

        (void) state;
        assert_no_advice(&small, .size = HUGE, .hva = HVA, .backing = huge);
}

static void dirty_log_of_huge_pages(void **state) {
        Backing *huge = make_large(BACKING_HUGETLB, UINT64_C(1) << 30, UINT64_C(1) << 30);

        (void) state;
        assert_advice(&small, ADVICE_FLAGS_LIMIT_BACKING, .flags = SLOT_LOG_DIRTY_PAGES, .size = HUGE, .hva = HVA,
                      .backing = huge);
        assert_int_equal(advice[0].page_size, P);
        assert_int_equal(advice[0].possible_page_size, UINT64_C(1) << 30);
        assert_no_advice(&small, .flags = SLOT_READONLY, .size = HUGE, .hva = HVA, .backing = huge);
}

static void dirty_log_of_a_memfd(void **state) {
        Backing *ram = make_large(BACKING_MEMFD, HUGE, P);

        (void) state;
        assert_advice(&large, ADVICE_FLAGS_LIMIT_BACKING, .flags = SLOT_LOG_DIRTY_PAGES, .size = HUGE, .hva = HVA,
                      .backing = ram);
        /* What has small pages anyway loses nothing. */
        assert_advice(&small, ADVICE_SMALL_PAGES, .flags = SLOT_LOG_DIRTY_PAGES, .size = HUGE, .hva = HVA,
                      .backing = ram);
}

static void several_at_once(void **state) {
        Backing *ram = make_large(BACKING_MEMFD, HUGE, P), *huge = make_large(BACKING_HUGETLB, HUGE, HUGE);

        (void) state;
        assert_int_equal(advise(&small, (SlotSpec) { .size = HUGE, .hva = HVA + P, .backing = ram }), 2);
        assert_int_equal(advice[0].kind, ADVICE_HUGE_PAGES_MISALIGNED);
        assert_int_equal(advice[1].kind, ADVICE_SMALL_PAGES);
        assert_int_equal(
                advise(&small,
                       (SlotSpec) {
                               .flags = SLOT_LOG_DIRTY_PAGES, .gpa = P, .size = HUGE, .hva = HVA, .backing = huge }),
                2);
        assert_int_equal(advice[0].kind, ADVICE_HUGE_PAGES_MISALIGNED);
        assert_int_equal(advice[1].kind, ADVICE_FLAGS_LIMIT_BACKING);
}

static void effective_page_size(void **state) {
        (void) state;
        assert_int_equal(advice_effective_page_size(make_large(BACKING_MEMFD, HUGE, P), &large), HUGE);
        assert_int_equal(advice_effective_page_size(make_large(BACKING_MEMFD, HUGE, P), &small), P);
        assert_int_equal(advice_effective_page_size(make_large(BACKING_MEMFD, HUGE - P, P), &large), P);
        assert_int_equal(advice_effective_page_size(make_large(BACKING_GUEST_MEMFD, HUGE, P), &large), P);
        assert_int_equal(advice_effective_page_size(make_large(BACKING_HUGETLB, HUGE, HUGE), &small), HUGE);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(aligned_slot_gets_none),  TEST(misaligned_user_address), TEST(misaligned_guest_address),
                TEST(misaligned_offset),       TEST(small_things_get_none),   TEST(memory_without_backing_gets_none),
                TEST(guest_memfd_gets_none),   TEST(small_pages_of_a_memfd),  TEST(huge_pages_are_never_small),
                TEST(dirty_log_of_huge_pages), TEST(dirty_log_of_a_memfd),    TEST(several_at_once),
                TEST(effective_page_size),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
