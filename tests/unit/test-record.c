/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A registry that has something of each kind, as records, while memory is short: no record is there by half, and each
 * that could not be applied can be applied later. The program is linked with --wrap. */

#include "core-fixture.h"

#include <stdlib.h>

#include "core/hand-over.h"
#include "core/record.h"

/* ---- what fails ---- */

static long allocations_left = -1, records_left = -1; /* negative: no end */

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);
int __real_record_buffer_end(RecordBuffer *buffer);
int __wrap_record_buffer_end(RecordBuffer *buffer);

static bool runs_out(long *left) {
        if (*left > 0)
                --*left;
        else if (*left == 0)
                return true;
        return false;
}

void *__wrap_calloc(size_t n, size_t size) {
        return runs_out(&allocations_left) ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size) {
        return runs_out(&allocations_left) ? NULL : __real_realloc(p, size);
}

int __wrap_record_buffer_end(RecordBuffer *buffer) {
        int r = __real_record_buffer_end(buffer);

        return r == 0 && runs_out(&records_left) ? -ENOMEM : r;
}

/* ---- something of each kind ---- */

#define DEV 9U

static void furnish(void) {
        MappedRun runs[] = {
                { .kind = MAPPED_FILE, .hva = HVA + 64 * P, .size = P, .dev = DEV, .ino = 1, .offset = 0 },
                { .kind = MAPPED_FILE, .hva = HVA + 66 * P, .size = P, .dev = DEV, .ino = 2, .offset = P },
        };
        Mapping mapping = { .n_runs = 2, .runs = runs };

        Backing *both[] = { f.ram, f.gmem };
        Claim *claim;

        assert_int_equal(
                claim_new(f.vm, &(ClaimSpec) { .expires_usec = 9, .backings = both, .n_backings = 2 }, &claim), 0);
        assert_int_equal(backing_share(f.peer_ram, f.vm), 0);
        assert_int_equal(vm_attach(f.vm, 5), 0);
        f.vm->vmm = (VMMIdentity) { .id = registry_new_id(f.registry), .pid = 77, .start_time = 1 };
        assert_ok(f.vm, .id = 0, .size = 4 * P, .hva = HVA, .backing = f.ram);
        assert_ok(f.vm, .id = 1, .gpa = 64 * P, .size = 4 * P, .hva = HVA + 64 * P, .mapping = &mapping);
        assert_ok(f.vm, .id = 2, .gpa = 128 * P, .size = P, .hva = HVA + 128 * P, .flags = SLOT_GUEST_MEMFD,
                  .guest_memfd = f.gmem);
        assert_int_equal(attributes_set(&f.vm->private_ranges, P, 0, 2 * P, true), 0);
        assert_int_equal(vm_hand_over(f.vm, 6), 0);
        f.vm->vmm = (VMMIdentity) { .id = registry_new_id(f.registry), .pid = 78, .start_time = 2 };
        assert_int_equal(set(f.vm, (SlotSpec) { .id = 0, .size = P, .hva = HVA, .backing = f.ram }), OUTCOME_ALLOWED);
        assert_int_equal(vm_attach(f.peer, 7), 0);
        f.peer->vmm = (VMMIdentity) { .id = registry_new_id(f.registry), .pid = 79, .start_time = 3 };
        f.peer->successor = (VMMIdentity) { .id = registry_new_id(f.registry), .pid = 80, .start_time = 4 };
}

static RecordBuffer snapshot(Registry *registry) {
        RecordBuffer buffer = {};

        assert_int_equal(record_registry(&buffer, registry), 0);
        return buffer;
}

static void assert_same(const RecordBuffer *a, const RecordBuffer *b) {
        assert_int_equal(a->size, b->size);
        assert_memory_equal(a->bytes, b->bytes, a->size);
}

/* ---- tests ---- */

/* How many records, or allocations, are had before one is refused, each number in turn. */
static void write_with(long *left) {
        RecordBuffer whole, buffer = {};
        long n = 0;
        int r;

        furnish();
        whole = snapshot(f.registry);
        do {
                record_buffer_done(&buffer);
                *left = n++;
                r = record_registry(&buffer, f.registry);
                *left = -1;
                assert_true(r == 0 || r == -ENOMEM);
        } while (r < 0);
        assert_true(n > 1);
        assert_same(&whole, &buffer);
        record_buffer_done(&buffer);
        record_buffer_done(&whole);
}

static void test_no_memory_for_a_record(void **state) {
        (void) state;
        write_with(&records_left);
}

static void test_no_memory_for_the_buffer(void **state) {
        (void) state;
        write_with(&allocations_left);
}

static int apply_at_last(RecordReader *reader, const RecordHead *head, const void *body) {
        int r = -ENOMEM;

        for (long n = 0; r == -ENOMEM; n++) {
                allocations_left = n;
                r = record_apply(reader, head->type, head->version, body, head->size);
                allocations_left = -1;
        }
        return r;
}

static void test_each_record_can_be_applied_later(void **state) {
        RecordReader reader = {};
        RecordBuffer whole, again;
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);
        size_t offset = 0;
        RecordHead head;
        const void *body;

        (void) state;
        furnish();
        whole = snapshot(f.registry);
        assert_int_equal(registry_new(P, &kvm, &reader.registry), 0);
        while (record_next(whole.bytes, whole.size, &offset, &head, &body) > 0)
                assert_int_equal(apply_at_last(&reader, &head, body), 0);
        again = snapshot(reader.registry);
        assert_same(&whole, &again);
        record_buffer_done(&again);
        record_buffer_done(&whole);
        record_reader_done(&reader);
        registry_free(reader.registry);
}

/* A body that ends early is filled up with zeroes, which no object could be. */
static void test_a_record_without_its_body_is_damaged(void **state) {
        RecordReader reader = {};
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);

        (void) state;
        assert_int_equal(registry_new(P, &kvm, &reader.registry), 0);
        for (unsigned type = RECORD_VM; type < _RECORD_TYPE_MAX; type++)
                assert_int_equal(record_apply(&reader, (uint16_t) type, 1, "", 0), RECORD_E_DAMAGED);
        assert_int_equal(record_apply(&reader, _RECORD_TYPE_MAX, 1, "", 0), RECORD_E_UNKNOWN);
        assert_int_equal(record_apply(&reader, RECORD_VM, 2, "", 0), RECORD_E_UNKNOWN);
        assert_int_equal(reader.registry->n_vms, 0);
        record_reader_done(&reader);
        registry_free(reader.registry);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_no_memory_for_a_record),
                TEST(test_no_memory_for_the_buffer),
                TEST(test_each_record_can_be_applied_later),
                TEST(test_a_record_without_its_body_is_damaged),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
