/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* CreateClaim, ListClaims, DeleteClaim, RedeemClaim. */

#include <string.h>

#include "core/claim.h"
#include "core/cleanup.h"
#include "front/call.h"
#include "front/format.h"
#include "front/words.h"

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

/* Claims in one message of a list. */
#define CHUNK 16

typedef struct ClaimParameters {
        const char *vm, *claim, *access;
        sd_json_variant *backings;
        uint64_t lifetime_usec;
} ClaimParameters;

/* ---- CreateClaim ---- */

static int fail_number(Failure *f, size_t n) {
        return fail_invalid_value(f, "number of backings", n, 1, BACKINGS_PER_CLAIM_MAX, 0);
}

static int take_named(VM *vm, sd_json_variant *names, Backing **backings, size_t *ret_n, Failure *f) {
        size_t n = sd_json_variant_elements(names);
        int r;

        if (n == 0 || n > BACKINGS_PER_CLAIM_MAX)
                return fail_number(f, n);
        for (size_t i = 0; i < n; i++) {
                r = find_backing(vm, sd_json_variant_string(sd_json_variant_by_index(names, i)), &backings[i], f);
                if (r != 0)
                        return r;
        }
        *ret_n = n;
        return 0;
}

/* A guest_memfd goes with its VMM, and a claim to it would go with it before the next VMM has come. */
static int take_all(VM *vm, Backing **backings, size_t *ret_n, Failure *f) {
        Backing *backing;
        size_t n = 0;

        for (backing = vm_next_backing(vm, NULL); backing; backing = vm_next_backing(vm, backing->name)) {
                if (backing->kind == BACKING_GUEST_MEMFD)
                        continue;
                if (n < BACKINGS_PER_CLAIM_MAX)
                        backings[n] = backing;
                n++;
        }
        if (n == 0 || n > BACKINGS_PER_CLAIM_MAX)
                return fail_number(f, n);
        *ret_n = n;
        return 0;
}

/* backings: room for BACKINGS_PER_CLAIM_MAX. */
static int parse_create(Call *call, const ClaimParameters *p, Backing **backings, ClaimSpec *ret, Failure *f) {
        ClaimSpec spec = { .backings = backings, .read_only = p->access && strcmp(p->access, "read_only") == 0 };
        int r;

        if (p->lifetime_usec == 0 || p->lifetime_usec > CLAIM_LIFETIME_USEC_MAX)
                return fail_invalid_value(f, "lifetimeUSec", p->lifetime_usec, 1, CLAIM_LIFETIME_USEC_MAX, 0);
        if (p->backings)
                r = take_named(call->vm, p->backings, backings, &spec.n_backings, f);
        else
                r = take_all(call->vm, backings, &spec.n_backings, f);
        if (r != 0)
                return r;
        for (size_t i = 0; i < spec.n_backings && spec.read_only; i++)
                if (backings[i]->kind == BACKING_GUEST_MEMFD)
                        return fail_not_supported(f, "a guest_memfd has no read-only form");
        *ret = spec;
        return 0;
}

static int reply_created(Call *call, const Claim *claim, const char *token) {
        _cleanup_json_ sd_json_variant *reply = NULL;
        char socket[LISTENER_PATH_SIZE];
        bool has_socket = front_socket_path(call->front, socket);
        ClaimWord word;
        int r;

        r = sd_json_buildo(&reply, SD_JSON_BUILD_PAIR_STRING("claim", claim_word(claim->id, word)),
                           SD_JSON_BUILD_PAIR_STRING("token", token),
                           SD_JSON_BUILD_PAIR_UNSIGNED("expiresUSec", boot_to_real_time(claim->expires_usec)),
                           SD_JSON_BUILD_PAIR_CONDITION(has_socket, "socket", SD_JSON_BUILD_STRING(socket)));
        if (r < 0)
                return sd_varlink_error_errno(call->link, r);
        /* Erased when it has been sent, and not in any trace. */
        sd_json_variant_sensitive(reply);
        return sd_varlink_reply(call->link, reply);
}

int op_create_claim(Call *call) {
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ClaimParameters, vm),
                  SD_JSON_MANDATORY },
                { "backings", SD_JSON_VARIANT_ARRAY, sd_json_dispatch_variant_noref,
                  offsetof(ClaimParameters, backings), SD_JSON_NULLABLE },
                { "access", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ClaimParameters, access),
                  SD_JSON_NULLABLE },
                { "lifetimeUSec", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64,
                  offsetof(ClaimParameters, lifetime_usec), SD_JSON_NULLABLE },
                {},
        };
        ClaimParameters p = { .lifetime_usec = CLAIM_LIFETIME_USEC_DEFAULT };
        Backing *backings[BACKINGS_PER_CLAIM_MAX];
        char token[CLAIM_TOKEN_LENGTH + 1];
        ClaimSpec spec;
        Failure f = {};
        Claim *claim;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        r = parse_create(call, &p, backings, &spec, &f);
        if (r == 0)
                r = service_create_claim(call->service, call->vm, &spec, p.lifetime_usec, call->uid, &claim, token,
                                         &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        r = reply_created(call, claim, token);
        explicit_bzero(token, sizeof(token));
        return r;
}

/* ---- ListClaims, DeleteClaim ---- */

static int fill_claims(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        const VM *vm = registry_find_vm(stream->front->registry, stream->only_vm);
        _cleanup_json_ sd_json_variant *array = NULL;
        const Claim *claim = vm ? claim_next(vm, stream->from) : NULL;
        int r;

        r = sd_json_build(&array, SD_JSON_BUILD_EMPTY_ARRAY);
        for (size_t n = 0; r >= 0 && n < page_size(stream, CHUNK) && claim;
             n++, claim = claim_next(vm, stream->from)) {
                _cleanup_json_ sd_json_variant *object = NULL;

                r = format_claim(claim, &object);
                if (r >= 0)
                        r = sd_json_variant_append_array(&array, object);
                stream->from = claim->id;
        }
        if (r < 0)
                return r;
        return page_finish(stream, "claims", array, !claim, ret, ret_last);
}

int op_list_claims(Call *call) {
        struct {
                const char *vm;
                PageParameters page;
        } p = {};
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(typeof(p), vm),
                  SD_JSON_MANDATORY },
                PAGE_FIELDS(typeof(p), page),
                {},
        };
        Stream stream = { .fill = fill_claims, .kind = LIST_CLAIMS };
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        strcpy(stream.only_vm, call->vm->name);
        strcpy(stream.vm, call->vm->name);
        r = page_begin(call, &p.page, &stream, &f);
        if (r == -EINVAL)
                return sd_varlink_error_invalid_parameter_name(call->link, "cursor");
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return stream_start(call, &stream);
}

int op_delete_claim(Call *call) {
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ClaimParameters, vm),
                  SD_JSON_MANDATORY },
                { "claim", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ClaimParameters, claim),
                  SD_JSON_MANDATORY },
                {},
        };
        ClaimParameters p = {};
        Failure f = {};
        Claim *claim;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        claim = claim_find(call->vm, claim_id_of(p.claim));
        if (!claim)
                return failure_reply(call->link, fail_no_such_claim(&f, call->vm->name, p.claim), &f);
        service_delete_claim(call->service, claim);
        return sd_varlink_reply(call->link, NULL);
}

/* ---- RedeemClaim ---- */

/* The reply owns what it takes. */
static int format_grants(sd_varlink *link, Redemption *redemption, sd_json_variant **ret) {
        for (size_t i = 0; i < redemption->n_grants; i++) {
                const Backing *backing = redemption->grants[i].backing;
                int index, r;

                index = sd_varlink_push_fd(link, redemption->grants[i].fd);
                if (index < 0)
                        return index;
                redemption->grants[i].fd = -EBADF;
                r = sd_json_variant_append_arraybo(
                        ret, SD_JSON_BUILD_PAIR_STRING("name", backing->name),
                        SD_JSON_BUILD_PAIR_STRING("kind", backing_kind_word(backing->kind)),
                        SD_JSON_BUILD_PAIR_UNSIGNED("size", backing->size),
                        SD_JSON_BUILD_PAIR_STRING("access", access_word(redemption->read_only)),
                        SD_JSON_BUILD_PAIR_INTEGER("fileDescriptor", index));
                if (r < 0)
                        return r;
        }
        return 0;
}

static int send_redeemed(sd_varlink *link, const AttachResult *result) {
        _cleanup_json_ sd_json_variant *vm = NULL, *backings = NULL;
        Front *front = sd_varlink_get_userdata(link);
        int r;

        r = format_vm(front->service, result->vm, &vm);
        if (r >= 0)
                r = format_grants(link, result->redemption, &backings);
        if (r < 0)
                return r;
        return sd_varlink_replybo(link, SD_JSON_BUILD_PAIR_VARIANT("vm", vm),
                                  SD_JSON_BUILD_PAIR_VARIANT("backings", backings),
                                  SD_JSON_BUILD_PAIR_CONDITION(result->unreadable > 0, "unreadable",
                                                               SD_JSON_BUILD_UNSIGNED(result->unreadable)));
}

/* Whoever has hung up meanwhile is not told, and the claim is used up all the same. */
static void reply_redeemed(int r, const AttachResult *result, const Failure *f, void *userdata) {
        _cleanup_(sd_varlink_unrefp) sd_varlink *link = userdata;

        if (r != 0)
                (void) failure_reply(link, r, f);
        else if (send_redeemed(link, result) < 0)
                /* sd-varlink would send the fds with the next reply. */
                (void) sd_varlink_close(link);
}

/* The process that is to become the VMM: the calling one, and no other; borrowed. */
static int caller_pidfd(Call *call, Failure *f, int *ret_pidfd) {
        int pidfd = sd_varlink_get_peer_pidfd(call->link);

        if (pidfd < 0)
                return fail_not_supported(
                        f, "this kernel does not say which process is calling (SO_PEERPIDFD, Linux 6.5)");
        *ret_pidfd = pidfd;
        return 0;
}

int op_redeem_claim(Call *call) {
        struct {
                const char *vm, *token;
                int attach;
        } p = {};
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(typeof(p), vm),
                  SD_JSON_MANDATORY },
                { "token", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(typeof(p), token),
                  SD_JSON_MANDATORY },
                { "attach", SD_JSON_VARIANT_BOOLEAN, sd_json_dispatch_tristate, offsetof(typeof(p), attach),
                  SD_JSON_NULLABLE },
                {},
        };
        RedeemRequest request = { .pidfd = -EBADF, .uid = call->uid };
        const VM *vm;
        Failure f = {};
        int r;

        (void) sd_varlink_set_input_sensitive(call->link);
        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0 || call->oneway)
                /* Without an answer nobody gets anything. */
                return r;
        /* Whoever manages could make the claim as well. */
        vm = registry_find_vm(call->registry, p.vm);
        if (vm && !call_owns(call, vm) && call_manages(call))
                return failure_reply(call->link, fail_no_fds(&f, vm->name, call->uid, /* manages= */ true), &f);
        if (p.attach > 0) {
                r = caller_pidfd(call, &f, &request.pidfd);
                if (r != 0)
                        return failure_reply(call->link, r, &f);
        }
        (void) sd_varlink_get_peer_pid(call->link, &request.pid);
        request.vm = p.vm;
        request.token = p.token;
        service_redeem(call->service, &request, reply_redeemed, sd_varlink_ref(call->link));
        return 0;
}
