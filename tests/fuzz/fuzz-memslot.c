/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The decoder of the memslot ioctls: it reads no byte beyond those it was given, what it reads is in its place, and
 * what has no meaning changes nothing. The core then judges the slot, in whatever KVM: that must end.
 *
 * Byte 0 chooses the dialect, KVM and VM, bytes 1 to 4 are the ioctl's number unless byte 0 chooses one; the rest
 * is what its argument points to. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memslot.h"

#define HEAD 5
#define PAGE UINT64_C(4096)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define check(condition) \
        do { \
                if (!(condition)) \
                        abort(); \
        } while (0)

static uint64_t number_at(const uint8_t *bytes, size_t at, size_t size) {
        uint64_t value = 0;

        for (size_t i = size; i-- > 0;)
                value = value << 8 | bytes[at + i];
        return value;
}

static void check_fields(const uint8_t *bytes, const Memslot *memslot) {
        const SlotSpec *spec = &memslot->spec;
        bool is_private = spec->flags & SLOT_GUEST_MEMFD;

        check((spec->as_id << 16 | spec->id) == number_at(bytes, 0, 4) && spec->id <= UINT16_MAX);
        check(spec->flags == number_at(bytes, 4, 4));
        check(spec->gpa == number_at(bytes, 8, 8));
        check(spec->size == number_at(bytes, 16, 8));
        check(spec->hva == number_at(bytes, 24, 8));
        check(!spec->backing && !spec->guest_memfd && spec->offset == 0);
        check(spec->guest_memfd_offset == (is_private ? number_at(bytes, 32, 8) : 0));
        check((uint32_t) memslot->guest_memfd == (is_private ? number_at(bytes, 40, 4) : UINT32_MAX));
}

/* The same with other bytes where KVM does not look. */
static void check_padding(MemslotDialect dialect, uint32_t command, const uint8_t *bytes, size_t n,
                          const Memslot *before) {
        uint8_t other[MEMSLOT_BYTES_MAX];
        size_t last = before->spec.flags & SLOT_GUEST_MEMFD ? 44 : 32;
        Memslot after;

        if (n > sizeof(other))
                n = sizeof(other);
        memcpy(other, bytes, n);
        for (size_t i = last; i < n; i++)
                other[i] = (uint8_t) ~other[i];
        check(memslot_decode(dialect, UINT64_C(0xa5a5a5a5) << 32 | command, other, n, &after) == 0);
        check_fields(other, &after);
        check(after.guest_memfd == before->guest_memfd &&
              after.spec.guest_memfd_offset == before->spec.guest_memfd_offset);
}

static void judge(KVMGeneration generation, VMType type, const Memslot *memslot) {
        KVMRules kvm = kvm_rules_of(generation);
        SlotSpec spec = memslot->spec;
        Registry *registry;
        Backing *gmem;
        Verdict verdict;
        bool changed;
        VM *vm;

        kvm.max_gpa = UINT64_C(1) << 46;
        kvm.signed_offsets = generation < KVM_GENERATION_7_2;
        check(registry_new(PAGE, &kvm, &registry) == 0);
        check(vm_new(registry, &(VMSpec) { .name = "vm", .type = type }, &vm) == 0);
        check(backing_new(vm,
                          &(BackingSpec) {
                                  .name = "gmem",
                                  .kind = BACKING_GUEST_MEMFD,
                                  .size = 64 * PAGE,
                                  .page_size = PAGE,
                          },
                          &gmem) == 0);
        if (memslot->guest_memfd >= 0)
                spec.guest_memfd = gmem;

        verdict_init(&verdict);
        check(slot_set(vm, &spec, &verdict, &changed) == 0);
        check(changed == (verdict.outcome != OUTCOME_REFUSED));
        verdict_done(&verdict);
        registry_free(registry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const uint32_t known[] = { MEMSLOT_SET_REGION, MEMSLOT_SET_REGION2 };
        MemslotDialect dialect;
        const uint8_t *bytes;
        uint32_t command;
        Memslot memslot;
        uint8_t *copy;
        int r;

        if (size < HEAD)
                return -1;

        dialect = data[0] & 1 ? MEMSLOT_V5 : MEMSLOT_UPSTREAM;
        command = data[0] & 2 ? known[data[0] >> 2 & 1] : (uint32_t) number_at(data, 1, 4);
        size -= HEAD;
        copy = malloc(size ? size : 1); /* so that a byte too many is found */
        check(copy);
        memcpy(copy, data + HEAD, size);
        bytes = copy;

        r = memslot_decode(dialect, command, bytes, size, &memslot);
        check(r >= 0);
        check((r == MEMSLOT_E_OTHER) == (memslot_bytes(dialect, command) == 0));
        if (r == 0) {
                check(size >= memslot_bytes(dialect, command));
                check_fields(bytes, &memslot);
                check_padding(dialect, command, bytes, size, &memslot);
                judge((data[0] >> 3) % _KVM_GENERATION_MAX, (data[0] >> 5) % _VM_TYPE_MAX, &memslot);
        }
        free(copy);
        return 0;
}
