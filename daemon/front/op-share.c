/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ShareBacking, ReclaimBacking. */

#include <string.h>

#include "front/call.h"
#include "front/format.h"

typedef struct ShareParameters {
        const char *vm, *backing, *peer, *access;
} ShareParameters;

static const sd_json_dispatch_field share_table[] = {
        { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ShareParameters, vm),
          SD_JSON_MANDATORY },
        { "backing", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ShareParameters, backing),
          SD_JSON_MANDATORY },
        { "peer", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ShareParameters, peer),
          SD_JSON_MANDATORY },
        { "access", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ShareParameters, access),
          SD_JSON_NULLABLE },
        {},
};

/* The peer may be anybody's VM: it gets something, and nothing is asked of it. */
static int find_pair(Call *call, const ShareParameters *p, Backing **ret_backing, VM **ret_peer, Failure *f) {
        *ret_backing = vm_find_backing(call->vm, p->backing);
        if (!*ret_backing)
                return fail_no_such_backing(f, call->vm->name, p->backing);
        *ret_peer = registry_find_vm(call->registry, p->peer);
        return *ret_peer ? 0 : fail_no_such_vm(f, p->peer);
}

static int share(Backing *backing, VM *peer, bool read_only, Failure *f) {
        int r;

        if (peer == backing->vm)
                return fail_not_supported(f, "a VM shows its own backings without a share");
        if (backing->kind == BACKING_GUEST_MEMFD)
                return fail_not_supported(f, "a guest_memfd cannot be shared: private memory must not appear twice");
        r = read_only ? backing_share_read_only(backing, peer) : backing_share(backing, peer);
        if (r == CORE_E_EXISTS)
                return fail_name_conflict(f, backing->name, "access", access_word(!read_only), access_word(read_only));
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "sharesPerBacking", SHARES_PER_BACKING_MAX);
        if (r == CORE_E_IN_USE)
                return fail_backing_in_use_by(f, backing, peer, backing_count_slots_of(backing, peer));
        return r;
}

int op_share_backing(Call *call) {
        ShareParameters p = {};
        bool read_only, known;
        Failure f = {};
        Backing *backing;
        VM *peer;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, share_table, &p);
        if (r != 0)
                return r;
        r = find_pair(call, &p, &backing, &peer, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        read_only = p.access && strcmp(p.access, "read_only") == 0;
        known = backing_is_shared_with(backing, peer);
        r = share(backing, peer, read_only, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        if (!known)
                front_publish(call->front, &(Event) {
                                                   .kind = EVENT_BACKING_SHARED,
                                                   .vm = call->vm,
                                                   .backing = backing,
                                                   .peer_vm = peer,
                                                   .access = access_word(read_only),
                                           });
        return sd_varlink_replybo(call->link, SD_JSON_BUILD_PAIR_BOOLEAN("created", !known));
}

int op_reclaim_backing(Call *call) {
        ShareParameters p = {};
        Failure f = {};
        Backing *backing;
        size_t slots;
        bool known;
        VM *peer;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, share_table, &p);
        if (r != 0)
                return r;
        r = find_pair(call, &p, &backing, &peer, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        known = backing_is_shared_with(backing, peer);
        slots = known ? backing_count_slots_of(backing, peer) : 0;
        if (slots > 0)
                return failure_reply(call->link, fail_backing_in_use_by(&f, backing, peer, slots), &f);
        if (known) {
                backing_unshare(backing, peer);
                front_publish(call->front, &(Event) {
                                                   .kind = EVENT_BACKING_RECLAIMED,
                                                   .vm = call->vm,
                                                   .backing = backing,
                                                   .peer_vm = peer,
                                           });
        }
        return sd_varlink_replybo(call->link, SD_JSON_BUILD_PAIR_BOOLEAN("reclaimed", known));
}
