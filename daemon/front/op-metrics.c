/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* GetMetrics, and what ListMetrics says of a VM. */

#include "core/claim.h"
#include "core/cleanup.h"
#include "front/call.h"
#include "front/format.h"
#include "front/words.h"

#define STRING(name, value)   SD_JSON_BUILD_PAIR_STRING(name, value)
#define UNSIGNED(name, value) SD_JSON_BUILD_PAIR_UNSIGNED(name, value)
#define VARIANT(name, value)  SD_JSON_BUILD_PAIR_VARIANT(name, value)

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

/* ---- privmemd itself ---- */

static int append_quota(sd_json_variant **array, const char *limit, const uid_t *uid, uint64_t used,
                        uint64_t maximum) {
        return sd_json_variant_append_arraybo(
                array, STRING("limit", limit),
                SD_JSON_BUILD_PAIR_CONDITION(uid != NULL, "uid", SD_JSON_BUILD_UNSIGNED(uid ? *uid : 0)),
                UNSIGNED("used", used), UNSIGNED("maximum", maximum));
}

/* What one user has is nobody else's business. */
static bool may_see_uid(const Call *call, uid_t uid) {
        return call->uid == uid || call_manages(call);
}

static int append_owner(const Call *call, const OwnerUse *use, sd_json_variant **array) {
        size_t n_subscriptions = count_subscriptions(call->front, use->uid);
        int r;

        r = append_quota(array, "vmsPerUID", &use->uid, use->n_vms, call->registry->limits.vms_per_uid);
        if (r >= 0)
                r = append_quota(array, "claimsPerUID", &use->uid, use->n_claims, CLAIMS_PER_UID_MAX);
        if (r >= 0)
                r = append_quota(array, "subscribersPerUID", &use->uid, n_subscriptions, SUBSCRIBERS_PER_UID_MAX);
        return r;
}

/* Of those who have VMs: whoever else subscribes has nothing to see. */
static int append_owners(const Call *call, sd_json_variant **array) {
        const uid_t *after = NULL;
        OwnerUse use;
        uid_t last;
        int r = 0;

        while (r >= 0 && registry_next_owner(call->registry, after, &use)) {
                last = use.uid;
                after = &last;
                if (may_see_uid(call, use.uid))
                        r = append_owner(call, &use, array);
        }
        return r;
}

static int format_quotas(const Call *call, sd_json_variant **ret) {
        int r;

        r = append_quota(ret, "connections", /* uid= */ NULL,
                         sd_varlink_server_current_connections(call->front->server),
                         call->front->settings.connections);
        return r < 0 ? r : append_owners(call, ret);
}

static int format_numbers(const uint64_t *numbers, size_t n, sd_json_variant **ret) {
        int r = 0;

        for (size_t i = 0; i < n && r >= 0; i++)
                r = sd_json_variant_append_arrayb(ret, SD_JSON_BUILD_UNSIGNED(numbers[i]));
        return r;
}

static int format_methods(const Front *front, sd_json_variant **ret) {
        static const char *const names[] = {
#define OPERATION(method, handler, right, fds) [METHOD_##method] = #method,
#include "api/operations.def"
        };
        int r = 0;

        for (size_t i = 0; i < _METHOD_MAX && r >= 0; i++) {
                _cleanup_json_ sd_json_variant *within = NULL;
                const Tally *tally = &front->tallies[i];

                r = format_numbers(tally->within, TALLY_BOUNDS, &within);
                if (r >= 0)
                        r = sd_json_variant_append_arraybo(
                                ret, STRING("method", names[i]), UNSIGNED("succeeded", tally->succeeded),
                                UNSIGNED("failed", tally->failed), UNSIGNED("totalUSec", tally->total_usec),
                                VARIANT("within", within));
        }
        return r;
}

static int format_events(const EventLog *log, sd_json_variant **ret) {
        int r = 0;

        for (EventKind kind = EVENT_SUBSCRIBED + 1; kind < _EVENT_KIND_MAX && r >= 0; kind++)
                r = sd_json_variant_append_arraybo(ret, STRING("kind", event_kind_word(kind)),
                                                   UNSIGNED("count", event_log_count(log, kind)));
        return r;
}

int op_get_metrics(Call *call) {
        static const sd_json_dispatch_field nothing[] = { {} };
        _cleanup_json_ sd_json_variant *quotas = NULL, *events = NULL, *bounds = NULL, *methods = NULL;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, nothing, NULL);
        if (r != 0)
                return r;
        r = format_quotas(call, &quotas);
        if (r >= 0)
                r = format_events(call->front->log, &events);
        if (r >= 0)
                r = format_numbers(tally_bounds_usec, TALLY_BOUNDS, &bounds);
        if (r >= 0)
                r = format_methods(call->front, &methods);
        if (r < 0)
                return sd_varlink_error_errno(call->link, r);
        return sd_varlink_replybo(call->link, UNSIGNED("startedUSec", call->front->started),
                                  UNSIGNED("restarts", call->registry->restarts), VARIANT("quotas", quotas),
                                  VARIANT("events", events), VARIANT("boundsUSec", bounds),
                                  VARIANT("methods", methods));
}

/* ---- a VM ---- */

typedef struct MemorySum {
        const Backing *first; /* the others are like it */
        size_t n;
        uint64_t promised, resident;
} MemorySum;

static bool is_like(const Backing *a, const Backing *b) {
        return a->kind == b->kind && a->page_size == b->page_size && a->numa_nodes == b->numa_nodes;
}

/* sums: as many as the VM has backings. Returns how many are needed. */
static size_t sum_up(Service *service, const VM *vm, MemorySum *sums) {
        const Backing *backing;
        size_t n = 0, i;

        TAILQ_FOREACH(backing, &vm->backings, backings) {
                for (i = 0; i < n && !is_like(sums[i].first, backing); i++)
                        ;
                if (i == n)
                        sums[n++] = (MemorySum) { .first = backing };
                sums[i].n++;
                /* Sparse files may promise more than there are numbers. */
                if (__builtin_add_overflow(sums[i].promised, backing->size, &sums[i].promised) ||
                    sums[i].promised > INT64_MAX)
                        sums[i].promised = INT64_MAX;
                sums[i].resident += service_resident(service, backing);
        }
        return n;
}

static int format_nodes(uint64_t nodes, sd_json_variant **ret) {
        int r = 0;

        for (unsigned node = 0; node < NUMA_NODES_MAX && r >= 0; node++)
                if (nodes & UINT64_C(1) << node)
                        r = sd_json_variant_append_arrayb(ret, SD_JSON_BUILD_UNSIGNED(node));
        return r;
}

static int append_sum(sd_json_variant **array, const MemorySum *sum) {
        _cleanup_json_ sd_json_variant *nodes = NULL;
        int r;

        r = format_nodes(sum->first->numa_nodes, &nodes);
        if (r < 0)
                return r;
        return sd_json_variant_append_arraybo(
                array, STRING("kind", backing_kind_word(sum->first->kind)),
                UNSIGNED("pageSize", sum->first->page_size),
                SD_JSON_BUILD_PAIR_CONDITION(nodes != NULL, "numaNodes", SD_JSON_BUILD_VARIANT(nodes)),
                UNSIGNED("backings", sum->n), UNSIGNED("promisedBytes", sum->promised),
                UNSIGNED("residentBytes", sum->resident));
}

static int format_memory(Service *service, const VM *vm, sd_json_variant **ret) {
        _cleanup_free_ MemorySum *sums = NULL;
        size_t n;
        int r;

        r = sd_json_build(ret, SD_JSON_BUILD_EMPTY_ARRAY);
        if (r < 0 || vm->n_backings == 0)
                return r;
        sums = calloc(vm->n_backings, sizeof(*sums));
        if (!sums)
                return -ENOMEM;
        n = sum_up(service, vm, sums);
        for (size_t i = 0; i < n && r >= 0; i++)
                r = append_sum(ret, &sums[i]);
        return r;
}

static int format_counts(const VerdictCounts *counts, sd_json_variant **ret) {
        int r;

        r = sd_json_build(ret, SD_JSON_BUILD_EMPTY_ARRAY);
        for (SlotRule rule = RULE_NONE + 1; counts && rule < _RULE_MAX && r >= 0; rule++)
                if (counts->refused[rule] + counts->observed[rule] + counts->allowed[rule] > 0)
                        r = sd_json_variant_append_arraybo(ret, STRING("rule", slot_rule_word(rule)),
                                                           UNSIGNED("refused", counts->refused[rule]),
                                                           UNSIGNED("observed", counts->observed[rule]),
                                                           UNSIGNED("allowed", counts->allowed[rule]));
        return r;
}

int format_vm_metrics(Service *service, const VM *vm, sd_json_variant **ret) {
        _cleanup_json_ sd_json_variant *memory = NULL, *verdicts = NULL;
        int r;

        r = format_memory(service, vm, &memory);
        if (r >= 0)
                r = format_counts(vm->verdict_counts, &verdicts);
        if (r < 0)
                return r;
        return sd_json_buildo(ret, STRING("vm", vm->name), STRING("state", vm_state_word(vm->state)),
                              VARIANT("memory", memory), UNSIGNED("slots", slot_count(vm)),
                              UNSIGNED("claims", vm->n_claims), UNSIGNED("privateRanges", vm->private_ranges.n_ranges),
                              VARIANT("verdicts", verdicts));
}
