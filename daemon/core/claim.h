/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A claim: whoever shows its token gets file descriptors of some of a VM's backings, once, and only until a moment. So a
 * caller that cannot hold a file descriptor can still give memory to a VMM.
 *
 * What always holds:
 *  - the token is nowhere: a claim has its SHA-256 alone, and tokens are compared by that, in a time that says nothing;
 *  - every backing of a claim is there and is the claim's VM's: the claim ends with the first of them that goes;
 *  - registry->claims has all claims, in the order in which they expire. */

#include "core/backing.h"
#include "core/sha256.h"
#include "core/vm.h"

/* What a token is made of, and its text: the prefix, then base64url without padding. */
#define CLAIM_SECRET_SIZE  32U
#define CLAIM_TOKEN_PREFIX "pmc_"
#define CLAIM_TOKEN_LENGTH 47U

#define CLAIMS_PER_VM_MAX      64U
#define CLAIMS_PER_UID_MAX     1024U
#define BACKINGS_PER_CLAIM_MAX 253U /* SCM_MAX_FD: as many file descriptors as one message takes */

#define CLAIM_LIFETIME_USEC_DEFAULT (UINT64_C(5) * 60 * 1000000)
#define CLAIM_LIFETIME_USEC_MAX     (UINT64_C(24) * 3600 * 1000000)

typedef uint8_t ClaimDigest[SHA256_SIZE];

struct Claim {
        uint64_t id; /* no VM, backing or other claim has or had it; it is no secret */
        VM *vm;
        bool read_only;        /* what the file descriptors can do */
        uint64_t expires_usec; /* CLOCK_BOOTTIME */
        size_t n_backings;

        /* private to core/ */
        ClaimDigest digest;
        TAILQ_ENTRY(Claim) of_vm, by_expiry;
        Backing *backings[]; /* each once, in the order that was asked for */
};

typedef struct ClaimSpec {
        uint64_t id; /* 0: a new one */
        ClaimDigest digest;
        bool read_only;
        uint64_t expires_usec;
        Backing *const
                *backings; /* of the VM; 1 to BACKINGS_PER_CLAIM_MAX, copied; one that comes again is left out */
        size_t n_backings;
} ClaimSpec;

/* The token of a secret, and its digest: that of any text, so that one which is no token takes no other way. */
void claim_token_of(const uint8_t secret[static CLAIM_SECRET_SIZE], char ret[static CLAIM_TOKEN_LENGTH + 1]);
void claim_digest_of(const char *token, ClaimDigest ret);

/* 0; CORE_E_LIMIT: the VM has CLAIMS_PER_VM_MAX; CORE_E_OWNER_LIMIT: the VMs of its owner have CLAIMS_PER_UID_MAX. */
int claim_new(VM *vm, const ClaimSpec *spec, Claim **ret);
/* Accepts NULL, returns NULL. */
Claim *claim_free(Claim *claim);

/* NULL if there is none. */
Claim *claim_find(const VM *vm, uint64_t id);
/* The same by token. Looks at every claim of the VM, and at every byte of each. */
Claim *claim_find_by_digest(const VM *vm, const ClaimDigest digest);
/* The claim of the VM whose id comes next after the given one (0: the first), or NULL. */
Claim *claim_next(const VM *vm, uint64_t after);
/* The next claim of the VM after this one (NULL: the first) that has the backing, or NULL. */
Claim *claim_next_with(const VM *vm, const Claim *after, const Backing *backing);
