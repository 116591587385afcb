/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Claims: a token opens one of them, each ends with its VM and its backings, and none is lost by being written down. */

#include "core-fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/claim.h"
#include "core/hand-over.h"
#include "core/record.h"

static int make(VM *vm, const char *token, uint64_t expires, Backing *const *backings, size_t n, Claim **ret) {
        ClaimSpec spec = { .expires_usec = expires, .backings = backings, .n_backings = n };

        claim_digest_of(token, spec.digest);
        return claim_new(vm, &spec, ret);
}

static Claim *claim_of(VM *vm, const char *token, uint64_t expires, Backing *backing) {
        Claim *claim;

        assert_int_equal(make(vm, token, expires, &backing, 1, &claim), 0);
        return claim;
}

static Claim *find(const VM *vm, const char *token) {
        ClaimDigest digest;

        claim_digest_of(token, digest);
        return claim_find_by_digest(vm, digest);
}

/* What base64.urlsafe_b64encode() of Python makes of the same bytes, without the padding. */
static void test_token_is_base64url(void **state) {
        uint8_t secret[CLAIM_SECRET_SIZE];
        char token[CLAIM_TOKEN_LENGTH + 1];

        (void) state;
        for (size_t i = 0; i < sizeof(secret); i++)
                secret[i] = (uint8_t) (i * 8 + 3);
        claim_token_of(secret, token);
        assert_string_equal(token, "pmc_AwsTGyMrMztDS1NbY2tze4OLk5ujq7O7w8vT2-Pr8_s");
        memset(secret, 0xff, sizeof(secret));
        claim_token_of(secret, token);
        assert_string_equal(token, "pmc___________________________________________8");
        memset(secret, 0, sizeof(secret));
        claim_token_of(secret, token);
        assert_string_equal(token, "pmc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_int_equal(strlen(token), CLAIM_TOKEN_LENGTH);
}

static void test_a_token_finds_its_claim_in_its_vm_alone(void **state) {
        Claim *a = claim_of(f.vm, "a", 10, f.ram), *b = claim_of(f.vm, "b", 10, f.ram);

        (void) state;
        assert_ptr_equal(find(f.vm, "a"), a);
        assert_ptr_equal(find(f.vm, "b"), b);
        assert_null(find(f.vm, "c"));
        assert_null(find(f.vm, ""));
        assert_null(find(f.peer, "a"));
        assert_ptr_equal(claim_find(f.vm, a->id), a);
        assert_null(claim_find(f.peer, a->id));
        assert_int_not_equal(a->id, b->id);
}

/* One that differs in any one bit of its digest is another. */
static void test_every_bit_of_a_digest_counts(void **state) {
        ClaimDigest digest;

        (void) state;
        claim_of(f.vm, "a", 10, f.ram);
        claim_digest_of("a", digest);
        for (size_t bit = 0; bit < 8 * sizeof(digest); bit++) {
                digest[bit / 8] ^= (uint8_t) (1 << bit % 8);
                assert_null(claim_find_by_digest(f.vm, digest));
                digest[bit / 8] ^= (uint8_t) (1 << bit % 8);
        }
        assert_non_null(claim_find_by_digest(f.vm, digest));
}

static void test_a_freed_claim_is_not_found(void **state) {
        Claim *a = claim_of(f.vm, "a", 10, f.ram);

        (void) state;
        assert_null(claim_free(a));
        assert_null(claim_free(NULL));
        assert_null(find(f.vm, "a"));
        assert_int_equal(f.vm->n_claims, 0);
        assert_null(registry_first_claim_to_expire(f.registry));
}

static void test_the_first_to_expire_comes_first(void **state) {
        Claim *late = claim_of(f.vm, "a", 30, f.ram), *early = claim_of(f.peer, "b", 10, f.peer_ram);
        Claim *middle = claim_of(f.vm, "c", 20, f.ram);

        (void) state;
        assert_ptr_equal(registry_first_claim_to_expire(f.registry), early);
        claim_free(early);
        assert_ptr_equal(registry_first_claim_to_expire(f.registry), middle);
        claim_free(middle);
        assert_ptr_equal(registry_first_claim_to_expire(f.registry), late);
}

static void test_a_list_is_in_order_of_id(void **state) {
        Claim *a = claim_of(f.vm, "a", 30, f.ram), *b = claim_of(f.vm, "b", 10, f.ram), *old;
        ClaimSpec spec = { .id = 1, .expires_usec = 20, .backings = &f.ram, .n_backings = 1 };
        ClaimSpec between = { .id = a->id, .expires_usec = 20, .backings = &f.ram, .n_backings = 1 };

        (void) state;
        claim_free(a);
        assert_int_equal(claim_new(f.vm, &spec, &old), 0);
        assert_int_equal(claim_new(f.vm, &between, &a), 0);
        assert_ptr_equal(claim_next(f.vm, 0), old);
        assert_ptr_equal(claim_next(f.vm, old->id), a);
        assert_ptr_equal(claim_next(f.vm, a->id), b);
        assert_null(claim_next(f.vm, b->id));
        assert_null(claim_next(f.peer, 0));
}

static void test_a_backing_that_comes_twice_counts_once(void **state) {
        Backing *all[] = { f.ram, f.gmem, f.ram };
        Claim *claim;

        (void) state;
        assert_int_equal(make(f.vm, "a", 10, all, 3, &claim), 0);
        assert_int_equal(claim->n_backings, 2);
        assert_ptr_equal(claim->backings[0], f.ram);
        assert_ptr_equal(claim->backings[1], f.gmem);
}

static void test_a_claim_ends_with_any_of_its_backings(void **state) {
        Backing *both[] = { f.ram, f.gmem };
        Claim *claim, *other = claim_of(f.vm, "b", 10, f.ram);

        (void) state;
        assert_int_equal(make(f.vm, "a", 10, both, 2, &claim), 0);
        assert_ptr_equal(claim_next_with(f.vm, NULL, f.gmem), claim);
        assert_null(claim_next_with(f.vm, claim, f.gmem));
        assert_ptr_equal(claim_next_with(f.vm, NULL, f.ram), other);
        assert_ptr_equal(claim_next_with(f.vm, other, f.ram), claim);
        assert_int_equal(backing_release(f.gmem), 0);
        assert_null(find(f.vm, "a"));
        assert_ptr_equal(find(f.vm, "b"), other);
}

static void test_a_claim_ends_with_its_vm(void **state) {
        (void) state;
        claim_of(f.vm, "a", 10, f.ram);
        claim_of(f.peer, "b", 20, f.peer_ram);
        f.vm = vm_free(f.vm);
        assert_non_null(find(f.peer, "b"));
        assert_ptr_equal(registry_first_claim_to_expire(f.registry), find(f.peer, "b"));
}

static void test_a_claim_outlives_a_hand_over(void **state) {
        Claim *claim = claim_of(f.vm, "a", 10, f.ram);

        (void) state;
        assert_int_equal(vm_attach(f.vm, 5), 0);
        assert_int_equal(vm_hand_over(f.vm, 6), 0);
        assert_ptr_equal(find(f.vm, "a"), claim);
        vm_end_outgoing(f.vm);
        assert_ptr_equal(find(f.vm, "a"), claim);
        vm_detach(f.vm);
        assert_ptr_equal(find(f.vm, "a"), claim);
}

static void test_limit_of_a_vm(void **state) {
        char token[16];
        Claim *claim;

        (void) state;
        for (unsigned i = 0; i < CLAIMS_PER_VM_MAX; i++) {
                snprintf(token, sizeof(token), "%u", i);
                claim_of(f.vm, token, 10, f.ram);
        }
        assert_int_equal(make(f.vm, "more", 10, &f.ram, 1, &claim), CORE_E_LIMIT);
        assert_int_equal(make(f.peer, "more", 10, &f.peer_ram, 1, &claim), 0);
        claim_free(find(f.vm, "0"));
        assert_int_equal(make(f.vm, "more", 10, &f.ram, 1, &claim), 0);
}

static void test_limit_of_an_owner(void **state) {
        const unsigned n_vms = CLAIMS_PER_UID_MAX / CLAIMS_PER_VM_MAX;
        Backing *backing = NULL;
        char name[32];
        Claim *claim;
        VM *other;

        (void) state;
        for (unsigned i = 0; i < n_vms; i++) {
                snprintf(name, sizeof(name), "vm%u", i);
                backing = make_backing(make_vm(name), "ram", BACKING_MEMFD);
                for (unsigned j = 0; j < CLAIMS_PER_VM_MAX; j++)
                        claim_of(backing->vm, "a", 10, backing);
        }
        assert_int_equal(make(f.vm, "more", 10, &f.ram, 1, &claim), CORE_E_OWNER_LIMIT);
        assert_int_equal(vm_new(f.registry, &(VMSpec) { .name = "other", .owner = 7 }, &other), 0);
        claim_of(other, "more", 10, make_backing(other, "ram", BACKING_MEMFD));
        vm_free(backing->vm);
        assert_int_equal(make(f.vm, "more", 10, &f.ram, 1, &claim), 0);
}

/* ---- records ---- */

static void apply_all(RecordReader *reader, const RecordBuffer *buffer) {
        size_t offset = 0;
        const void *body;
        RecordHead head;

        while (record_next(buffer->bytes, buffer->size, &offset, &head, &body) == 1)
                assert_int_equal(record_apply(reader, head.type, head.version, body, head.size), 0);
}

static RecordReader read_again(const RecordBuffer *buffer) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);
        RecordReader reader = {};

        assert_int_equal(registry_new(P, &kvm, &reader.registry), 0);
        apply_all(&reader, buffer);
        return reader;
}

static void forget_again(RecordReader *reader) {
        Registry *registry = reader->registry;

        record_reader_done(reader);
        registry_free(registry);
}

static void test_a_claim_is_what_its_record_says(void **state) {
        Backing *both[] = { f.gmem, f.ram };
        ClaimSpec spec = { .read_only = true, .expires_usec = 1234, .backings = both, .n_backings = 2 };
        RecordBuffer buffer = {}, again = {};
        Claim *claim, *read;
        RecordReader reader;

        (void) state;
        claim_digest_of("secret", spec.digest);
        assert_int_equal(claim_new(f.vm, &spec, &claim), 0);
        assert_int_equal(record_registry(&buffer, f.registry), 0);
        reader = read_again(&buffer);
        read = find(registry_find_vm(reader.registry, "vm"), "secret");
        assert_non_null(read);
        assert_int_equal(read->id, claim->id);
        assert_int_equal(read->expires_usec, 1234);
        assert_true(read->read_only);
        assert_int_equal(read->n_backings, 2);
        assert_string_equal(read->backings[0]->name, "gmem");
        assert_string_equal(read->backings[1]->name, "ram");
        assert_int_equal(record_registry(&again, reader.registry), 0);
        assert_int_equal(again.size, buffer.size);
        assert_memory_equal(again.bytes, buffer.bytes, buffer.size);
        assert_true(registry_new_id(reader.registry) > claim->id);

        record_buffer_clear(&buffer);
        assert_int_equal(record_claim_gone(&buffer, claim), 0);
        apply_all(&reader, &buffer);
        assert_null(find(registry_find_vm(reader.registry, "vm"), "secret"));
        forget_again(&reader);
        record_buffer_done(&buffer);
        record_buffer_done(&again);
}

/* As RECORD_CLAIM has it: the fields of docs/ledger.md, which damage may have changed. */
typedef struct Body {
        uint64_t id, vm;
        uint16_t at, n;
        uint32_t access;
        uint64_t expires;
        uint8_t digest[32];
        uint64_t backings[2];
} Body;

static void test_a_record_that_contradicts_the_rest_is_damaged(void **state) {
        Body good = {
                .id = 1000, .vm = f.vm->id, .at = 64, .n = 2, .expires = 5, .backings = { f.ram->id, f.gmem->id }
        };
        RecordBuffer buffer = {};
        RecordReader reader;
        Body bad[10];

        (void) state;
        assert_int_equal(record_registry(&buffer, f.registry), 0);
        reader = read_again(&buffer);
        for (size_t i = 0; i < 10; i++)
                bad[i] = good;
        bad[0].id = 0;
        bad[1].id = f.ram->id;
        bad[2].vm = 999;
        bad[3].vm = f.peer->id;
        bad[4].n = 0;
        bad[5].n = 3;
        bad[6].at = 66;
        bad[7].backings[1] = 999;
        bad[8].backings[1] = f.peer_ram->id;
        bad[9].expires = UINT64_MAX;
        for (size_t i = 0; i < 10; i++)
                assert_int_equal(record_apply(&reader, RECORD_CLAIM, 1, &bad[i], sizeof(Body)), RECORD_E_DAMAGED);
        assert_int_equal(record_apply(&reader, RECORD_CLAIM, 1, &good, sizeof(Body)), 0);
        assert_int_equal(record_apply(&reader, RECORD_CLAIM, 1, &good, sizeof(Body)), RECORD_E_DAMAGED);
        assert_int_equal(record_apply(&reader, RECORD_CLAIM_GONE, 1, (uint64_t[]) { f.peer->id, 1000 }, 16),
                         RECORD_E_DAMAGED);
        assert_int_equal(record_apply(&reader, RECORD_CLAIM_GONE, 1, (uint64_t[]) { 999, 1000 }, 16),
                         RECORD_E_DAMAGED);
        assert_int_equal(record_apply(&reader, RECORD_CLAIM_GONE, 1, (uint64_t[]) { f.vm->id, 1000 }, 16), 0);
        assert_int_equal(record_apply(&reader, RECORD_CLAIM_GONE, 1, (uint64_t[]) { f.vm->id, 1000 }, 16),
                         RECORD_E_DAMAGED);
        forget_again(&reader);
        record_buffer_done(&buffer);
}

/* More than a claim may have, and more claims than a VM may have. */
static void test_records_of_too_much_are_damaged(void **state) {
        struct {
                Body body;
                uint64_t more[BACKINGS_PER_CLAIM_MAX];
        } large = { .body = { .id = 1000, .vm = f.vm->id, .at = 64, .n = BACKINGS_PER_CLAIM_MAX + 1, .expires = 5 } };
        Body body = { .vm = f.vm->id, .at = 64, .n = 1, .expires = 5, .backings = { f.ram->id } };
        RecordBuffer buffer = {};
        RecordReader reader;

        (void) state;
        assert_int_equal(record_registry(&buffer, f.registry), 0);
        reader = read_again(&buffer);
        assert_int_equal(record_apply(&reader, RECORD_CLAIM, 1, &large, sizeof(large)), RECORD_E_DAMAGED);
        for (unsigned i = 0; i <= CLAIMS_PER_VM_MAX; i++) {
                body.id = 1000 + i;
                assert_int_equal(record_apply(&reader, RECORD_CLAIM, 1, &body, sizeof(body)),
                                 i < CLAIMS_PER_VM_MAX ? 0 : RECORD_E_DAMAGED);
        }
        forget_again(&reader);
        record_buffer_done(&buffer);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_token_is_base64url),
                TEST(test_a_token_finds_its_claim_in_its_vm_alone),
                TEST(test_every_bit_of_a_digest_counts),
                TEST(test_a_freed_claim_is_not_found),
                TEST(test_the_first_to_expire_comes_first),
                TEST(test_a_list_is_in_order_of_id),
                TEST(test_a_backing_that_comes_twice_counts_once),
                TEST(test_a_claim_ends_with_any_of_its_backings),
                TEST(test_a_claim_ends_with_its_vm),
                TEST(test_a_claim_outlives_a_hand_over),
                TEST(test_limit_of_a_vm),
                TEST(test_limit_of_an_owner),
                TEST(test_a_claim_is_what_its_record_says),
                TEST(test_a_record_that_contradicts_the_rest_is_damaged),
                TEST(test_records_of_too_much_are_damaged),
        };

        return cmocka_run_group_tests_name("claim", tests, NULL, NULL);
}
