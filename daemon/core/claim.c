/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/claim.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/core-private.h"

_Static_assert(sizeof(CLAIM_TOKEN_PREFIX) - 1 + (CLAIM_SECRET_SIZE * 8 + 5) / 6 == CLAIM_TOKEN_LENGTH,
               "prefix and base64url of the secret");

void claim_token_of(const uint8_t secret[static CLAIM_SECRET_SIZE], char ret[static CLAIM_TOKEN_LENGTH + 1]) {
        static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        char *to = stpcpy(ret, CLAIM_TOKEN_PREFIX);
        uint32_t bits = 0;
        unsigned n_bits = 0;

        for (size_t i = 0; i < CLAIM_SECRET_SIZE; i++) {
                bits = bits << 8 | secret[i];
                n_bits += 8;
                for (; n_bits >= 6; n_bits -= 6)
                        *to++ = alphabet[bits >> (n_bits - 6) & 63];
        }
        if (n_bits > 0)
                *to++ = alphabet[bits << (6 - n_bits) & 63];
        *to = '\0';
}

void claim_digest_of(const char *token, ClaimDigest ret) {
        sha256(token, strlen(token), ret);
}

/* All bytes are looked at, wherever the first difference is. */
static bool is_equal(const ClaimDigest a, const ClaimDigest b) {
        volatile uint8_t difference = 0;

        for (size_t i = 0; i < SHA256_SIZE; i++)
                difference |= a[i] ^ b[i];
        return difference == 0;
}

static bool has_backing(const Claim *claim, const Backing *backing) {
        for (size_t i = 0; i < claim->n_backings; i++)
                if (claim->backings[i] == backing)
                        return true;
        return false;
}

/* Nearly all live for the same time, so the place is found at the end. */
static void enter_by_expiry(Registry *registry, Claim *claim) {
        Claim *before = TAILQ_LAST(&registry->claims, ClaimList);

        while (before && before->expires_usec > claim->expires_usec)
                before = TAILQ_PREV(before, ClaimList, by_expiry);
        if (before)
                TAILQ_INSERT_AFTER(&registry->claims, before, claim, by_expiry);
        else
                TAILQ_INSERT_HEAD(&registry->claims, claim, by_expiry);
}

/* So that a list can go on after the last one that it had. */
static void enter_by_id(VM *vm, Claim *claim) {
        Claim *before = TAILQ_LAST(&vm->claims, ClaimList);

        while (before && before->id > claim->id)
                before = TAILQ_PREV(before, ClaimList, of_vm);
        if (before)
                TAILQ_INSERT_AFTER(&vm->claims, before, claim, of_vm);
        else
                TAILQ_INSERT_HEAD(&vm->claims, claim, of_vm);
        vm->n_claims++;
}

int claim_new(VM *vm, const ClaimSpec *spec, Claim **ret) {
        Claim *claim;

        assert(!vm->heir);
        assert(spec->n_backings > 0 && spec->n_backings <= BACKINGS_PER_CLAIM_MAX);

        if (vm->n_claims >= CLAIMS_PER_VM_MAX)
                return CORE_E_LIMIT;
        claim = calloc(1, sizeof(Claim) + spec->n_backings * sizeof(Backing *));
        if (!claim)
                return -ENOMEM;
        if (registry_charge_claim(vm->registry, vm) != 0) {
                free(claim);
                return CORE_E_OWNER_LIMIT;
        }

        claim->id = spec->id ?: registry_new_id(vm->registry);
        claim->vm = vm;
        claim->read_only = spec->read_only;
        claim->expires_usec = spec->expires_usec;
        memcpy(claim->digest, spec->digest, sizeof(claim->digest));
        for (size_t i = 0; i < spec->n_backings; i++) {
                assert(spec->backings[i]->vm == vm);
                if (!has_backing(claim, spec->backings[i]))
                        claim->backings[claim->n_backings++] = spec->backings[i];
        }
        vm->registry->n_claims++;
        vm->registry->n_claimed += claim->n_backings;
        enter_by_expiry(vm->registry, claim);
        enter_by_id(vm, claim);
        *ret = claim;
        return 0;
}

Claim *claim_free(Claim *claim) {
        if (!claim)
                return NULL;

        TAILQ_REMOVE(&claim->vm->registry->claims, claim, by_expiry);
        TAILQ_REMOVE(&claim->vm->claims, claim, of_vm);
        claim->vm->n_claims--;
        claim->vm->registry->n_claims--;
        claim->vm->registry->n_claimed -= claim->n_backings;
        registry_discharge_claim(claim->vm->registry, claim->vm);
        explicit_bzero(claim->digest, sizeof(claim->digest));
        free(claim);
        return NULL;
}

Claim *claim_find(const VM *vm, uint64_t id) {
        Claim *claim;

        TAILQ_FOREACH(claim, &vm->claims, of_vm)
                if (claim->id == id)
                        return claim;
        return NULL;
}

Claim *claim_find_by_digest(const VM *vm, const ClaimDigest digest) {
        Claim *claim, *found = NULL;

        TAILQ_FOREACH(claim, &vm->claims, of_vm)
                if (is_equal(claim->digest, digest))
                        found = claim;
        return found;
}

Claim *claim_next(const VM *vm, uint64_t after) {
        Claim *claim;

        TAILQ_FOREACH(claim, &vm->claims, of_vm)
                if (claim->id > after)
                        return claim;
        return NULL;
}

Claim *claim_next_with(const VM *vm, const Claim *after, const Backing *backing) {
        Claim *claim = after ? TAILQ_NEXT(after, of_vm) : TAILQ_FIRST(&vm->claims);

        while (claim && !has_backing(claim, backing))
                claim = TAILQ_NEXT(claim, of_vm);
        return claim;
}
