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
        int r;

        r = find_backing(call->vm, p->backing, ret_backing, f);
        if (r != 0)
                return r;
        *ret_peer = registry_find_vm(call->registry, p->peer);
        return *ret_peer ? 0 : fail_no_such_vm(f, p->peer);
}

int op_share_backing(Call *call) {
        ShareParameters p = {};
        bool read_only, created;
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
        r = service_share(call->service, backing, peer, read_only, &created, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return sd_varlink_replybo(call->link, SD_JSON_BUILD_PAIR_BOOLEAN("created", created));
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
        if (known)
                service_reclaim(call->service, backing, peer);
        return sd_varlink_replybo(call->link, SD_JSON_BUILD_PAIR_BOOLEAN("reclaimed", known));
}
