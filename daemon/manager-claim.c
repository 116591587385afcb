/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Claims from their creation to their end.
 *
 * A claim is used up when everything that could fail is done: its backings are open, and the process is attached if that
 * was asked for. Then the ledger learns that the claim is gone, and only then the caller gets anything. So a token opens
 * nothing twice, also over a restart; and whoever is refused can try again. */

#include <inttypes.h>
#include <string.h>

#include "front/words.h"
#include "host/random.h"
#include "manager-private.h"

/* The token is made here, and is in token alone when this returns. */
static int make_token(char token[static CLAIM_TOKEN_LENGTH + 1], ClaimDigest ret) {
        uint8_t secret[CLAIM_SECRET_SIZE];
        int r;

        r = random_fill(secret, sizeof(secret));
        if (r < 0)
                return r;
        claim_token_of(secret, token);
        explicit_bzero(secret, sizeof(secret));
        claim_digest_of(token, ret);
        return 0;
}

int service_create_claim(Service *service, VM *vm, const ClaimSpec *spec, uint64_t lifetime_usec, uid_t peer,
                         Claim **ret, char token[static CLAIM_TOKEN_LENGTH + 1], Failure *f) {
        ClaimSpec made = *spec;
        Claim *claim;
        int r;

        r = keeper_reserve(&service->keeper, record_claim_size(spec->n_backings), f);
        if (r != 0)
                return r;
        r = make_token(token, made.digest);
        if (r < 0)
                return fail_host(f, "asking for random bytes", r);
        made.id = 0;
        made.expires_usec = manager_now_usec() + lifetime_usec;
        r = claim_new(vm, &made, &claim);
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "claimsPerVM", CLAIMS_PER_VM_MAX);
        if (r == CORE_E_OWNER_LIMIT)
                return fail_limit(f, "claimsPerUID", CLAIMS_PER_UID_MAX);
        if (r < 0)
                return r;
        (void) record_claim(keeper_records(&service->keeper), claim);
        r = keeper_try_commit(&service->keeper, f);
        if (r != 0) {
                claim_free(claim);
                return r;
        }
        manager_watch_expiry(service);
        front_publish(service->front,
                      &(Event) { .kind = EVENT_CLAIM_CREATED, .vm = vm, .claim = claim, .peer = &peer });
        *ret = claim;
        return 0;
}

static void tell_and_free(Manager *manager, Claim *claim, const Event *event) {
        front_publish(manager->front, event);
        claim_free(claim);
}

static void end_claim(Manager *manager, Claim *claim, const Event *event) {
        (void) record_claim_gone(keeper_records(&manager->keeper), claim);
        keeper_commit(&manager->keeper);
        tell_and_free(manager, claim, event);
}

void service_delete_claim(Service *service, Claim *claim) {
        end_claim(service, claim,
                  &(Event) { .kind = EVENT_CLAIM_DELETED, .vm = claim->vm, .claim = claim, .reason = END_REQUESTED });
}

void claim_expire(Manager *manager, Claim *claim) {
        end_claim(manager, claim, &(Event) { .kind = EVENT_CLAIM_EXPIRED, .vm = claim->vm, .claim = claim });
}

void claims_end_with(Manager *manager, const Backing *backing, EndReason reason) {
        Claim *claim;

        while ((claim = claim_next_with(backing->vm, /* after= */ NULL, backing))) {
                front_publish(manager->front, &(Event) {
                                                      .kind = EVENT_CLAIM_DELETED,
                                                      .vm = backing->vm,
                                                      .backing = backing,
                                                      .claim = claim,
                                                      .reason = reason,
                                              });
                claim_free(claim);
        }
}

/* ---- redeeming ---- */

Redemption *redemption_free(Redemption *redemption) {
        if (!redemption)
                return NULL;
        for (size_t i = 0; i < redemption->n_grants; i++)
                safe_close(redemption->grants[i].fd);
        free(redemption);
        return NULL;
}

/* The timer may be late. */
static Claim *valid(Claim *claim) {
        return claim && claim->expires_usec > manager_now_usec() ? claim : NULL;
}

/* Takes as long for a VM that there is not as for one without claims. */
static Claim *find_by_token(Manager *manager, const char *vm_name, const char *token) {
        ClaimDigest digest;
        VM *vm;

        claim_digest_of(token, digest);
        vm = registry_find_vm(manager->registry, vm_name);
        return vm ? valid(claim_find_by_digest(vm, digest)) : NULL;
}

static int open_backings(Manager *manager, const Claim *claim, Redemption **ret, Failure *f) {
        Redemption *redemption;
        int r;

        redemption = calloc(1, sizeof(*redemption) + claim->n_backings * sizeof(redemption->grants[0]));
        if (!redemption)
                return -ENOMEM;
        redemption->vm = claim->vm;
        redemption->claim = claim->id;
        redemption->read_only = claim->read_only;
        for (size_t i = 0; i < claim->n_backings; i++) {
                redemption->grants[i].backing = claim->backings[i];
                r = service_open(manager, claim->backings[i], claim->read_only, &redemption->grants[i].fd, f);
                if (r != 0) {
                        redemption_free(redemption);
                        return r;
                }
                redemption->n_grants++;
        }
        *ret = redemption;
        return 0;
}

int claim_open(Manager *manager, VM *vm, const ClaimUse *use, Redemption **ret, Failure *f) {
        Claim *claim = valid(claim_find(vm, use->claim));
        int r;

        if (!claim)
                return fail_claim_invalid(f, vm->name);
        /* For the record of the attachment, which comes first, and for that of the claim. */
        r = keeper_reserve(&manager->keeper, 2 * RECORD_SIZE_MAX, f);
        return r != 0 ? r : open_backings(manager, claim, ret, f);
}

static void publish_grants(Manager *manager, const Redemption *redemption, const ClaimUse *use) {
        for (size_t i = 0; i < redemption->n_grants; i++)
                front_publish(manager->front, &(Event) {
                                                      .kind = EVENT_BACKING_GRANTED,
                                                      .vm = redemption->vm,
                                                      .backing = redemption->grants[i].backing,
                                                      .access = access_word(redemption->read_only),
                                                      .peer = &use->uid,
                                              });
}

static void log_use(const Redemption *redemption, const ClaimUse *use) {
        ClaimWord word;

        fprintf(stderr, "privmemd: claim %s of VM %s, %zu backings, %s, was redeemed by process %d of uid %u\n",
                claim_word(use->claim, word), redemption->vm->name, redemption->n_grants,
                access_word(redemption->read_only), (int) use->pid, (unsigned) use->uid);
}

int claim_use_up(Manager *manager, const Redemption *redemption, const ClaimUse *use, Failure *f) {
        Claim *claim = claim_find(redemption->vm, use->claim);
        int r = 0;

        (void) record_claim_gone(keeper_records(&manager->keeper), claim);
        if (f)
                r = keeper_try_commit(&manager->keeper, f);
        else
                keeper_commit(&manager->keeper);
        if (r != 0)
                return r;
        log_use(redemption, use);
        tell_and_free(manager, claim,
                      &(Event) {
                              .kind = EVENT_CLAIM_REDEEMED,
                              .vm = redemption->vm,
                              .claim = claim,
                              .peer = &use->uid,
                              .pid = use->pid,
                      });
        publish_grants(manager, redemption, use);
        return 0;
}

static int redeem(Manager *manager, VM *vm, const ClaimUse *use, AttachResult *result, Failure *f) {
        int r;

        r = claim_open(manager, vm, use, &result->redemption, f);
        return r == 0 ? claim_use_up(manager, result->redemption, use, f) : r;
}

void service_redeem(Service *service, const RedeemRequest *request, AttachDone done, void *userdata) {
        const Claim *claim = find_by_token(service, request->vm, request->token);
        ClaimUse use = { .uid = request->uid, .pid = request->pid };
        AttachResult result = {};
        Failure f = {};
        int r;

        if (!claim) {
                done(fail_claim_invalid(&f, request->vm), NULL, &f, userdata);
                return;
        }
        use.claim = claim->id;
        result.vm = claim->vm;
        if (request->pidfd >= 0) {
                attach_with_claim(service, claim->vm, request->pidfd, &use, done, userdata);
                return;
        }
        r = redeem(service, claim->vm, &use, &result, &f);
        done(r, &result, &f, userdata);
        redemption_free(result.redemption);
}
